"""What a ring around the field of a neuron does to its response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._equality import same_arrays
from v1tlearn._options import as_finite, as_numbers
from v1tlearn._values import as_whole
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.inspection.in_silico._known import as_trials, known
from v1tlearn.inspection.in_silico.curves import tuning_curves
from v1tlearn.inspection.in_silico.stimuli import gratings

_NEEDED = ("center_x", "center_y", "preferred_orientation", "preferred_spatial_frequency")
_AT_ONCE = 2**25  # pixels of stimuli that are made at a time


def surround(
    estimator: Any,
    fields: Mapping[str, xr.Dataset],
    properties: Mapping[str, xr.Dataset],
    *,
    diameter: float | str = "preferred",
    inner_diameters: Sequence[float] = (1.0, 1.5, 2.0, 3.0),
    relative_orientations: Sequence[float] = (0, 30, 60, 90),
    ring_width: float | None = None,
    n_phases: int = 8,
    contrast: float = 1.0,
    surround_contrast: float = 1.0,
    background: float = 127.5,
    amplitude: float = 127.5,
    behaviors: Mapping[str, float] | None = None,
) -> dict[str, xr.Dataset]:
    """Show each neuron its grating in its field, and rings of other orientations around it.

    Parameters
    ----------
    estimator : estimator or Pipeline
        Fitted, of images; a Pipeline whose steps neither crop nor resize.
    fields : dict of str to Dataset
        Per mouse over ``neuron``: ``center_x`` and ``center_y``, in pixels of the stimuli, such as
        `most_exciting_images` gives.
    properties : dict of str to Dataset
        Per mouse over the same neurons: ``preferred_orientation`` in degrees,
        ``preferred_spatial_frequency`` in cycles per pixel and, for `diameter`,
        ``preferred_diameter`` in pixels, as `tuning_properties` gives them.
    diameter : float or "preferred", default="preferred"
        Of the grating in the centre, in pixels.
    inner_diameters : sequence of float, default=(1.0, 1.5, 2.0, 3.0)
        Where rings begin, in diameters of the centre, at least 1.
    relative_orientations : sequence of float, default=(0, 30, 60, 90)
        Of the grating in the ring, in degrees from that in the centre.
    ring_width : float, optional
        From the inner to the outer edge, in pixels; to the ends of the image by default.
    n_phases : int, default=8
        Phases, of centre and ring together, over which F0 + F1 is taken.
    contrast, surround_contrast : float, default=1.0
        Of the centre and of the ring.
    background, amplitude : float, default=127.5
        As of `gratings`.
    behaviors : mapping of str to float, optional
        As of `tuning_curves`.

    Returns
    -------
    dict of str to Dataset
        Per mouse over ``neuron``: ``center`` is the response to the grating in the centre alone;
        ``both``, by ``inner_diameter`` and ``relative_orientation``, that to centre and ring;
        ``ring`` that to the ring alone; ``blank`` that to the background; and ``index`` is
        (both - center) / (both + center): below 0 the ring suppresses, above 0 it facilitates.
        Responses are F0 + F1 over phases, blank included.

    Raises
    ------
    TypeError, ValueError
        As of `tuning_curves`; or if fields and properties are not of the same neurons, or a center
        is not known.

    Notes
    -----
    A model of images has only that surround which lies within the pixels that its core and readout
    see of a place. A ring that begins at the edge of the center and at its orientation is a
    larger grating: the index is then that of size tuning.

    References
    ----------
    Cavanaugh et al., "Selectivity and spatial distribution of signals from the receptive field
    surround in macaque V1 neurons", Journal of Neurophysiology, 2002.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import (
    ...     gratings, most_exciting_images, surround, tuning_curves, tuning_properties)
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=3, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0)).sel(tier="train")
    >>> model = v1.LNRegressor(hidden_channels=4, batch_size=16, max_epochs=2, random_state=0)
    >>> fields = most_exciting_images(model.fit(trials), n_steps=10)
    >>> shown = gratings((16, 24), spatial_frequency=[0.1, 0.2])
    >>> properties = tuning_properties(tuning_curves(model, shown))
    >>> surround(model, fields, properties, diameter=6)["A"]["index"].dims
    ('neuron', 'inner_diameter', 'relative_orientation')
    """
    fitted, model = known(estimator, "responses to surrounds")
    if model.context_frames is not None:
        raise TypeError(
            "surround shows still gratings, and this model sees time: make movies of gratings with "
            "inner_diameter, and take tuning_curves of them."
        )
    _check_size(estimator, fitted)
    n_phases = as_whole(n_phases, "n_phases", 3)  # of fewer no amplitude is told
    contrast = as_finite(contrast, "contrast")
    surround_contrast = as_finite(surround_contrast, "surround_contrast")
    background, amplitude = as_finite(background, "background"), as_finite(amplitude, "amplitude")
    ring_width = None if ring_width is None else as_finite(ring_width, "ring_width")
    if ring_width is not None and not ring_width > 0:
        raise ValueError(f"ring_width={ring_width!r}: expected a number above 0, in pixels.")
    if not isinstance(diameter, str):
        diameter = as_finite(diameter, "diameter")
    relative = as_numbers(relative_orientations, "relative_orientations")
    if relative.ndim != 1 or not relative.size or not np.isfinite(relative).all():
        raise ValueError(
            f"relative_orientations={relative_orientations!r}: expected finite numbers, in degrees."
        )
    inner = as_numbers(inner_diameters, "inner_diameters")
    if inner.ndim != 1 or not inner.size or not ((inner >= 1) & (inner < np.inf)).all():
        raise ValueError(
            f"inner_diameters={inner_diameters!r}: expected numbers from 1 on, in diameters of the "
            "centre."
        )
    for name, given in (("fields", fields), ("properties", properties)):
        if not isinstance(given, Mapping) or isinstance(given, xr.Dataset) or not given:
            raise TypeError(
                f"{name} is a {type(given).__name__}: expected a dict of a Dataset for each mouse."
            )
    out = {}
    for mouse in properties:
        if mouse not in fields:
            raise ValueError(f"fields came for {list(fields)}, properties for {list(properties)}.")
        own = _joined(fields[mouse], properties[mouse], mouse, diameter)
        parts = []
        shape = fitted.image_shape
        each = n_phases * (2 * len(inner) * len(relative) + 2) * int(np.prod(shape))
        step = max(1, _AT_ONCE // each)
        for start in range(0, own.sizes["neuron"], step):
            some = own.isel(neuron=slice(start, start + step))
            stimuli = _stimuli(
                shape,
                some,
                inner,
                relative,
                ring_width,
                n_phases,
                (contrast, surround_contrast),
                background,
                amplitude,
            )
            parts.append(
                {
                    name: _strength(
                        tuning_curves(
                            estimator, {mouse: s}, {mouse: some["neuron"]}, behaviors=behaviors
                        )[mouse]
                    )
                    for name, s in stimuli.items()
                }
            )
        joined = {name: xr.concat([part[name] for part in parts], "neuron") for name in parts[0]}
        total = joined["both"] + joined["center"]
        joined["index"] = (joined["both"] - joined["center"]) / total.where(total > 0)
        order = ("neuron", "inner_diameter", "relative_orientation")
        data = xr.Dataset(
            {k: v.transpose(*order, missing_dims="ignore") for k, v in joined.items()}
        )
        out[mouse] = data.assign(diameter=own["diameter"]).assign_attrs(mouse_id=mouse)
    return out


def _check_size(estimator: Any, fitted: Fitted) -> None:
    """Refuse a Pipeline that crops or resizes: centres are in pixels of what its last step sees."""
    mouse, shape = next(iter(fitted.mice)), fitted.image_shape
    passed = as_trials(estimator, {mouse: np.zeros((1, *shape), np.float32)}, fitted, None)
    if (found := np.shape(passed.get("stimuli", mouse))[1:]) != shape:
        raise TypeError(
            f"the steps of this Pipeline make images of the shape {tuple(shape)} into such of "
            f"{found}, and centres of fields are in pixels of what its last step sees: give this "
            "step, estimator[-1], background and amplitude as it sees them."
        )


def _joined(
    fields: xr.Dataset, properties: xr.Dataset, mouse: str, diameter: float | str
) -> xr.Dataset:
    """Centres and preferences of the same neurons."""
    for name, given in (("fields", fields), ("properties", properties)):
        if not isinstance(given, xr.Dataset) or "neuron" not in given.dims:
            raise TypeError(
                f"mouse {mouse!r}: {name} is a {type(given).__name__}: expected a Dataset over "
                "neuron, such as most_exciting_images and tuning_properties give by mouse."
            )
    ids = properties["neuron"].values
    if not same_arrays(ids, fields["neuron"].values):
        raise ValueError(
            f"mouse {mouse!r}: fields are of {fields.sizes['neuron']} neurons, properties of "
            f"{len(ids)}: give both for the same ones, in one order."
        )
    data = {}
    for name in _NEEDED:
        source = fields if name.startswith("center") else properties
        if name not in source:
            raise ValueError(f"mouse {mouse!r}: there is no {name!r} in {list(source.data_vars)}.")
        data[name] = ("neuron", _of_neurons(source, name, mouse))
    if isinstance(diameter, str):
        if diameter != "preferred" or "preferred_diameter" not in properties:
            raise ValueError(
                f"mouse {mouse!r}: diameter={diameter!r} and properties hold "
                f"{list(properties.data_vars)}: expected a number, or 'preferred' and "
                "preferred_diameter, which curves along diameter give."
            )
        data["diameter"] = ("neuron", _of_neurons(properties, "preferred_diameter", mouse))
    else:
        data["diameter"] = ("neuron", np.full(len(ids), diameter))
    for name, (_, values) in data.items():
        lost = ~np.isfinite(values) | ((values <= 0) & (name == "diameter"))
        if lost.any():
            raise ValueError(
                f"mouse {mouse!r}: {name} of neuron {ids[lost][0]} is not known: leave it out."
            )
    return xr.Dataset(data, {"neuron": ids})


def _of_neurons(given: xr.Dataset, name: str, mouse: str) -> np.ndarray:
    """One number per neuron."""
    if given[name].dims != ("neuron",):
        raise ValueError(
            f"mouse {mouse!r}: {name} has the dimensions {given[name].dims}: expected neuron alone."
        )
    return as_numbers(given[name].values, f"mouse {mouse!r}: {name}", of="neuron")


def _stimuli(
    shape: tuple[int, int, int],
    own: xr.Dataset,
    inner: np.ndarray,
    relative: np.ndarray,
    ring_width: float | None,
    n_phases: int,
    contrasts: tuple[float, float],
    background: float,
    amplitude: float,
) -> dict[str, xr.DataArray]:
    """Centre, ring, both and neither, for each neuron."""
    common: dict[str, Any] = {
        "spatial_frequency": own["preferred_spatial_frequency"],
        "phase": np.arange(n_phases) * 360 / n_phases,
        "x": own["center_x"],
        "y": own["center_y"],
        "background": background,
        "amplitude": amplitude,
    }
    angle, size = own["preferred_orientation"], own["diameter"]
    center = gratings(shape, orientation=angle, diameter=size, contrast=contrasts[0], **common)
    turned = angle + xr.DataArray(
        relative,
        dims="relative_orientation",
        coords={"relative_orientation": relative},
    )
    begins = size * xr.DataArray(inner, dims="inner_diameter", coords={"inner_diameter": inner})
    reach = None if ring_width is None else begins.rename("diameter") + 2 * ring_width
    ring = _named(
        gratings(
            shape,
            orientation=turned,
            inner_diameter=begins.rename({"inner_diameter": "begins"}),
            diameter=None if reach is None else reach.rename({"inner_diameter": "begins"}),
            contrast=contrasts[1],
            **common,
        )
    )
    center = _named(center)
    both = (ring + (center - np.float32(background))).astype(np.float32)
    blank = xr.full_like(center, background)
    return {"center": center, "ring": ring, "both": both, "blank": blank}


def _named(stimuli: xr.DataArray) -> xr.DataArray:
    """Stimuli with coordinates along their dimensions alone."""
    kept = stimuli.drop_vars([name for name, c in stimuli.coords.items() if c.dims != (name,)])
    kept = kept.drop_vars([n for n in ("inner_diameter", "diameter") if n in kept.coords])
    return kept.rename({"begins": "inner_diameter"}) if "begins" in kept.dims else kept


def _strength(curves: xr.DataArray) -> xr.DataArray:
    """F0 + F1 over phases, (neuron, ...)."""
    angle = np.deg2rad(curves["phase"])
    cosine, sine = ((curves * f(angle)).mean("phase") for f in (np.cos, np.sin))
    found = curves.mean("phase") + 2 * (cosine**2 + sine**2) ** 0.5
    return found.astype(np.float64).assign_attrs(units="response unit")

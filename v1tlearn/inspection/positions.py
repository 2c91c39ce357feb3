"""Where in the image the readouts of a fitted model look (Li et al. 2023, Fig. A.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from v1tlearn.inspection._cells import Sides, cells_of
from v1tlearn.inspection._coordinates import at, ellipses, pixel_scale, step_of
from v1tlearn.inspection._field_inputs import computed_from_cortex
from v1tlearn.inspection._opened import known_mice, one_model
from v1tlearn.nn import EncodingModel
from v1tlearn.training import isolated

_CELL = 10.0  # micrometres: what extends less was brought to another scale, as published models do


@isolated()
def readout_positions(
    estimator: Any,
    *,
    mice: Sequence[str] | None = None,
    degrees_per_pixel: Sequence[float] | None = None,
) -> dict[str, xr.Dataset]:
    """Tell where in the recorded images the readout of every neuron looks, and how far around.

    Parameters
    ----------
    estimator : V1TRegressor, CNNRegressor, FullModelRegressor, MovieCNNRegressor or another model
        Fitted, of images or movies, with any core and readout that tell where they look; alone, in
        a Pipeline, of whose last step pixels are, or found by a search.
    mice : sequence of str, optional
        All by default.
    degrees_per_pixel : (float, float), optional
        Height and width of a pixel of the recorded images in degrees of visual angle. Without it
        places are in pixels.

    Returns
    -------
    dict of str to Dataset (neuron)
        Per mouse, with the labels of the neurons: ``x`` and ``y`` from the centre of the upper left
        pixel of the images that came to `fit`, to the right and down, whatever the model crops and
        resizes; the learned spread as ``sigma_x`` and ``sigma_y``, standard deviations along the
        axes of an ellipse, and ``angle`` from the x axis to that of ``sigma_x``, in radians.
        ``position`` (neuron, axis) in micrometres, where cortical positions were known at `fit`; of
        models whose positions were scaled before, in that scale, with the unit "1".
        The attribute ``from_cortex`` tells whether the model computes places from these.

    Raises
    ------
    TypeError
        If it is no single encoding model.
    ValueError
        If a mouse is unknown, a readout has no position, or a core does not tell where the cells
        of its maps lie.
    NotFittedError
        Before `fit`.

    Notes
    -----
    Gaussian readouts have the position that they read in `predict` and the covariance around it
    from which they draw in training. Factorised readouts, also those of minimodels, have the
    centre of mass of their spatial weights and their second moments; kernels of pixels those of
    squared weights. The eye is at rest, no shifter moves them.

    Cells of feature maps lie in the middle of the window that they see: of filters, pooled places,
    or the patches of tokens. A transformer's tokens know of the whole image, so that its neurons
    may see farther than they look; `receptive_fields` shows it. Of a core of your own that says
    nothing in `v1tlearn.nn.Core.source_positions` the windows are measured by derivatives.

    Filters may have learned to lie aside of the middle of their windows, which moves the receptive
    fields of all neurons alike against the positions of readouts: compare two models by their
    receptive fields.

    References
    ----------
    Li et al., "V1T: large-scale mouse V1 response prediction using a Vision Transformer", 2023,
    Fig. A.5. Lurz et al., "Generalization in data-driven models of primary visual cortex", 2021.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import readout_positions
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0)).sel(tier="train")
    >>> model = v1.CNNRegressor(hidden_channels=4, batch_size=16, max_epochs=2, random_state=0)
    >>> places = readout_positions(model.fit(trials))["A"]
    >>> places["x"].sizes, places["x"].attrs["units"]
    (Frozen({'neuron': 5}), 'pixel')
    """
    found = one_model(estimator, "readout positions")
    fitted, model = found.fitted, found.model
    scale, unit = pixel_scale(degrees_per_pixel)
    chosen = known_mice(fitted, mice)
    moments = {mouse: _in_cells(model, mouse) for mouse in chosen}
    cells = cells_of(fitted, model, chosen[0])
    out = {}
    for mouse in chosen:
        pixels = [side.numpy() for side in model.cropper.source_positions(mouse)]
        places = _in_image(*moments[mouse], cells, (pixels[0], pixels[1]), scale)
        units = dict.fromkeys(("x", "y", "sigma_x", "sigma_y"), unit) | {"angle": "radian"}
        data: dict[str, Any] = {
            name: ("neuron", values, {"units": units[name]}) for name, values in places.items()
        }
        known = fitted.mice[mouse]
        if known.position is not None:
            extent = float(np.ptp(known.position, axis=0).max())
            cortex = {"units": "micrometre" if extent > _CELL else "1"}
            data["position"] = (("neuron", "axis"), known.position, cortex)
        coords = {name: ("neuron", labels) for name, labels in known.labels.items()}
        if known.position is not None:
            coords["axis"] = ("axis", np.array(list("xyz")[: known.position.shape[1]]))
        size = [float(s * n) for s, n in zip(scale, fitted.image_shape[1:], strict=True)]
        computed = int(computed_from_cortex(model, mouse))
        attrs = {"mouse_id": mouse, "image_size": size, "from_cortex": computed}
        out[mouse] = xr.Dataset(data, coords, attrs)
    return out


def _in_cells(model: EncodingModel, mouse: str) -> tuple[np.ndarray, np.ndarray]:
    """Means (n, 2) and covariances (n, 2, 2) of where neurons look, in cells of the map."""
    readout = model.readout(mouse)
    with torch.no_grad():
        moments = readout.spatial_moments()
    if moments is None:
        inner = type(getattr(readout, "readout", readout)).__name__
        raise ValueError(
            f"mouse {mouse!r}: its {inner} has no position: it does not tell where its neurons "
            "look. Of a readout of your own say so in spatial_moments(); else look at what moves "
            "the responses, receptive_fields(model) or spike_triggered_average(trials)."
        )
    return moments.mean.numpy(), moments.covariance.numpy()


def _in_image(
    mean: np.ndarray, covariance: np.ndarray, cells: Sides, pixels: Sides, scale: Sequence[float]
) -> dict[str, np.ndarray]:
    """Places and ellipses in the recorded image."""
    centers, steps = [], []
    for axis, side in ((0, 1), (1, 0)):  # x goes along columns
        centers.append(scale[side] * at(pixels[side], at(cells[side], mean[:, axis])))
        steps.append(scale[side] * step_of(pixels[side]) * step_of(cells[side]))
    factor = np.array(steps)
    sigma_x, sigma_y, angle = ellipses(covariance * factor[:, None] * factor)
    found = {"x": centers[0], "y": centers[1]}
    return found | {"sigma_x": sigma_x, "sigma_y": sigma_y, "angle": angle}

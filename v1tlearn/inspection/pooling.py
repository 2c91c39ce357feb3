"""Over which part of the image a neuron with a factorised readout pools (Du et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter1d

from v1tlearn.inspection._cells import cells_of
from v1tlearn.inspection._coordinates import pixel_scale, step_of
from v1tlearn.inspection._opened import one_model
from v1tlearn.nn import FactorizedReadout, MinimodelReadout

_SMOOTHING = 3  # standard deviation, in half places of the map
_TRUNCATED = 10  # standard deviations


def pooling_sizes(
    estimator: Any, *, degrees_per_pixel: Sequence[float] | None = None
) -> dict[str, xr.Dataset]:
    """Measure how wide the spatial weights of every neuron are, and where they lie.

    Parameters
    ----------
    estimator : FullModelRegressor, MinimodelRegressor or another with factorised readouts
        Fitted, with readouts of rank 1; alone, in a Pipeline or found by a search.
    degrees_per_pixel : (float, float), optional
        Degrees of the visual field that a pixel of the core's images is high and wide; 65 / 66 and
        270 / 264 in Du et al. (2025) for mice. Without it all is in pixels.

    Returns
    -------
    dict of str to Dataset (neuron)
        Per mouse: ``width_x`` and ``width_y``, full widths at half maximum of the weights of
        columns and of rows; ``size``, the square root of their product; and ``x`` and ``y``, the
        middle between the half maxima, from the centre of the upper left place of the map.

    Raises
    ------
    NotFittedError
        Before `fit`.
    TypeError
        If this is no single model, or the readouts are not factorised.
    ValueError
        If their rank is above 1, maps have one place along a side, a core does not tell how far
        places are apart, or `degrees_per_pixel` are not two positive numbers.

    Notes
    -----
    As published, weights are interpolated at twice as many places, equidistant from the first to
    the last one, and smoothed by a Gaussian of three of these. On either side of the maximum the
    value nearest to its half counts, wherever on that side it is: of weights with several peaks the
    farthest can be it.

    References
    ----------
    Du et al., "Towards a simplified model of primary visual cortex", 2025.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.FullModelRegressor(
    ...     channels=(4, 8), kernels=(9, 5), max_epochs=2, random_state=0)
    >>> sizes = v1.inspection.pooling_sizes(est.fit(trials.sel(tier="train")))["A"]
    >>> sizes["size"].dims, sizes["size"].attrs["units"]
    (('neuron',), 'pixel')
    """
    found = one_model(estimator, "pooling sizes")
    fitted, model = found.fitted, found.model
    scale, unit = pixel_scale(degrees_per_pixel)
    readings = {mouse: _reading(mouse, model.readout(mouse)) for mouse in model.mice}
    if 1 in model.core.output_shape[1:]:
        raise ValueError(
            f"maps of (channels, height, width) {tuple(model.core.output_shape)} have one place "
            "along a side, over which nothing is pooled: expected at least two."
        )
    cells = cells_of(fitted, model, model.mice[0])
    out = {}
    for mouse, reading in readings.items():
        data = {}
        for axis, weights, places, per_pixel in (
            ("y", reading.rows, cells[0], scale[0]),
            ("x", reading.columns, cells[1], scale[1]),
        ):
            values = weights.detach()[:, 0].double().cpu().numpy()
            place = per_pixel * step_of(places)
            width, centre = widths(values)
            data[f"width_{axis}"], data[axis] = place * width, place * centre
        data["size"] = np.sqrt(data["width_x"] * data["width_y"])
        labels = {name: ("neuron", v) for name, v in fitted.mice[mouse].labels.items()}
        variables = {name: ("neuron", v, {"units": unit}) for name, v in data.items()}
        out[mouse] = xr.Dataset(variables, coords=labels)
    return out


def widths(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Full widths at half maximum, and the middles between the half maxima.

    Parameters
    ----------
    weights : ndarray of shape (n_neurons, n_places)

    Returns
    -------
    width : ndarray of shape (n_neurons,)
        In places.
    centre : ndarray of this shape
        Counted from 0.
    """
    n = weights.shape[1]
    finer, places = np.linspace(0, n - 1, 2 * n), np.arange(n)
    fine = np.stack([np.interp(finer, places, own) for own in weights])
    fine = gaussian_filter1d(fine, _SMOOTHING, axis=1, truncate=_TRUNCATED)
    ends = []
    for own in fine:
        peak = int(own.argmax())
        from_half = np.abs(own - own[peak] / 2)
        ends.append((from_half[: peak + 1].argmin(), peak + from_half[peak:].argmin()))
    left, right = np.array(ends).T
    return (right - left) / 2, (right + left) / 4


def _reading(mouse: str, readout: Any) -> FactorizedReadout:
    readout = readout.reading if isinstance(readout, MinimodelReadout) else readout
    if not isinstance(readout, FactorizedReadout):
        raise TypeError(
            f"mouse {mouse!r} has a {type(readout).__name__}: expected a factorised readout, as "
            "with readout='factorized'."
        )
    if readout.rows.shape[1] != 1:
        raise ValueError(
            f"mouse {mouse!r} has a readout of rank {readout.rows.shape[1]}, whose spatial weights "
            "are sums: expected rank 1."
        )
    return readout

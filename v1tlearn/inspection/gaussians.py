"""Gaussians fitted to receptive fields: where they lie and how wide they are (Li et al. 2023)."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr
from scipy.optimize import OptimizeWarning, curve_fit

PARAMETERS = ("amplitude", "x", "y", "sigma_x", "sigma_y", "angle", "offset")


def fit_gaussians(fields: xr.DataArray, *, worst: float = 0.05) -> xr.Dataset:
    """Fit a two-dimensional Gaussian to the absolute, centred receptive field of every neuron.

    Parameters
    ----------
    fields : DataArray (neuron, channel, height, width)
        Of one mouse, from `receptive_fields`. Channels are averaged.
    worst : float, default=0.05
        Share of the neurons, on either axis, whose widths are the largest and which are marked as
        badly fitted.

    Returns
    -------
    Dataset (neuron)
        ``x``, ``y``, ``sigma_x``, ``sigma_y`` in pixels of the image that the core sees, from the
        centre of the first; ``angle`` in radians, from the x axis to that of ``sigma_x``;
        ``amplitude`` and ``offset`` in standard deviations of the field over its pixels; ``good``,
        whether the fit converged and is not among the worst. NaN where it did not converge.

    Raises
    ------
    TypeError, ValueError
        If these are no receptive fields, or `worst` is not at least 0 and below 1.

    Notes
    -----
    As published, a field is centred, divided by its standard deviation over pixels, and made
    absolute. The published fit adds noise to it and starts in the middle of the image; this one
    takes it as it is and starts at its peak.

    References
    ----------
    Li et al., "V1T: large-scale mouse V1 response prediction using a Vision Transformer", 2023,
    Fig. 3.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from v1tlearn.inspection import fit_gaussians
    >>> y, x = np.mgrid[:20, :30]
    >>> field = np.exp(-((x - 12) ** 2 / 18 + (y - 8) ** 2 / 8))[None, None]
    >>> fields = xr.DataArray(field, dims=("neuron", "channel", "height", "width"))
    >>> fit = fit_gaussians(fields, worst=0)
    >>> [round(float(fit[name][0]), 2) for name in ("x", "y")]
    [12.0, 8.0]
    """
    if not isinstance(fields, xr.DataArray):
        raise TypeError(
            f"fields is a {type(fields).__name__}: expected the DataArray of one mouse, such as "
            'receptive_fields(model)["A"].'
        )
    if fields.dims != ("neuron", "channel", "height", "width"):
        raise ValueError(
            f"fields has the dimensions {fields.dims}: expected neuron, channel, height, width."
        )
    if not 0 <= worst < 1:
        raise ValueError(f"worst={worst!r}: expected a share from 0 to below 1.")
    table = np.stack([_fit(field) for field in fields.values.astype(np.float64).mean(1)])
    found = dict(zip(PARAMETERS, table.T, strict=True))
    good = np.isfinite(table).all(1)
    for name in ("sigma_x", "sigma_y"):
        if good.any():
            good &= ~(found[name] > np.nanquantile(found[name], 1 - worst))
    units = dict.fromkeys(("x", "y", "sigma_x", "sigma_y"), "pixel")
    units |= {"angle": "radian", "amplitude": "standard deviation", "offset": "standard deviation"}
    return xr.Dataset(
        {name: ("neuron", values, {"units": units[name]}) for name, values in found.items()}
        | {"good": ("neuron", good)},
        coords={"neuron": fields["neuron"]} if "neuron" in fields.coords else None,
        attrs={k: v for k, v in fields.attrs.items() if k == "mouse_id"},
    )


def _fit(field: np.ndarray) -> np.ndarray:
    """Parameters of one neuron; NaN where its field is flat or the fit does not converge."""
    failed = np.full(len(PARAMETERS), np.nan)
    spread = field.std()
    if not spread > 0:
        return failed
    values = np.abs((field - field.mean()) / spread)
    height, width = values.shape
    row, column = np.unravel_index(values.argmax(), values.shape)
    start = (values.max(), column, row, width / 16, height / 10, 0.0, np.median(values))
    y, x = np.mgrid[:height, :width]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # of a covariance nobody asks for
            best, _ = curve_fit(_gaussian, (x.ravel(), y.ravel()), values.ravel(), p0=start)
    except RuntimeError:  # no convergence
        return failed
    amplitude, x0, y0, sigma_x, sigma_y, angle, offset = best
    return np.array(
        [
            amplitude,
            x0,
            y0,
            abs(sigma_x),
            abs(sigma_y),
            (angle + np.pi / 2) % np.pi - np.pi / 2,
            offset,
        ]
    )


def _gaussian(
    points: tuple[np.ndarray, np.ndarray],
    amplitude: float,
    x0: float,
    y0: float,
    sigma_x: float,
    sigma_y: float,
    angle: float,
    offset: float,
) -> np.ndarray:
    """A rotated Gaussian on a constant."""
    dx, dy = points[0] - x0, points[1] - y0
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    return offset + amplitude * np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))

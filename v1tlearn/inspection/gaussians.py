"""Gaussians fitted to receptive fields: where they lie and how wide they are (Li et al. 2023)."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr
from joblib import Parallel, delayed
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.stats import f as f_distribution

from v1tlearn._options import as_jobs, as_numbers
from v1tlearn._values import as_dims, as_number
from v1tlearn.inspection._coordinates import at, folded, step_of

PARAMETERS = ("amplitude", "x", "y", "sigma_x", "sigma_y", "angle", "offset")

_NARROWEST = 0.5  # pixels; a narrower Gaussian is one pixel, of whatever width and height
_TOGETHER = 64  # neurons that a process is given at a time
_ERROR = 0.01  # of calling a field of noise well fitted


def fit_gaussians(
    fields: xr.DataArray, *, worst: float = 0.05, n_jobs: int | None = None
) -> xr.Dataset:
    """Fit a two-dimensional Gaussian to the absolute, centred receptive field of every neuron.

    Parameters
    ----------
    fields : DataArray (neuron, channel, height, width)
        Of one mouse, from `receptive_fields`. Channels are averaged. Coordinates ``height`` and
        ``width`` tell where the pixels lie; without them they are counted from 0.
    worst : float, default=0.05
        Share of the neurons, on either axis, whose widths are the largest and which are marked as
        badly fitted.
    n_jobs : int, optional
        Processes that share the neurons, as joblib counts them: -1 for all processors. One by
        default, which takes some milliseconds per neuron of 36 x 64 pixels.

    Returns
    -------
    Dataset (neuron)
        ``x``, ``y``, ``sigma_x``, ``sigma_y`` in the pixels of the coordinates ``width`` and
        ``height``: for fields from `receptive_fields` those of the images that came to `fit`,
        whatever the model crops and resizes, from the centre of the upper left one. ``angle`` in
        radians, from the x axis to that of ``sigma_x``, clockwise where ``y`` points down;
        ``amplitude`` and ``offset`` in standard deviations of the field over its pixels;
        ``explained``, the share of the variance over pixels that the Gaussian explains. NaN where
        the fit did not converge, which is free of bounds: ``good`` marks the fits to go on with.
        Labels of the neurons are those of `fields`, and the attribute ``core_pixel`` holds height
        and width of one pixel of the core in the unit of ``x`` and ``y``.

    Raises
    ------
    TypeError, ValueError
        If these are no receptive fields, or `worst` is not at least 0 and below 1.

    Notes
    -----
    As published, a field is centred, divided by its standard deviation over pixels, and made
    absolute. The published fit adds noise to it and starts in the middle of the image; this one
    takes it as it is and starts at its peak.

    A fit is ``good`` if it converged, has a positive amplitude, both widths are at least half a
    pixel of the field, its centre lies on the image, it is not among the worst, and it explains
    more than fits of noise do: by an F test of its six parameters other than the offset, at a
    level of 1 % over the number of pixels, since a fit of noise may find its peak in any of them.

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
    if "lag" in fields.dims:
        raise ValueError(
            f"fields has the dimensions {fields.dims}, kernels in time: expected maps; take one "
            'lag, fields.isel(lag=0), or space_time_components(fields)["receptive_field"] with '
            'expand_dims("channel", 1).'
        )
    fields = as_dims(fields, ("neuron", "channel", "height", "width"), "fields")
    if fields.dims != ("neuron", "channel", "height", "width"):
        raise ValueError(
            f"fields has the dimensions {fields.dims}: expected neuron, channel, height, width."
        )
    if not fields.size:
        raise ValueError(f"fields are empty, {dict(fields.sizes)}: expected at least one neuron.")
    worst, n_jobs = as_number(worst, "worst"), as_jobs(n_jobs)
    if not 0 <= worst < 1:
        raise ValueError(f"worst={worst!r}: expected a share from 0 to below 1.")
    values = as_numbers(fields.values, "fields", of="neuron").mean(1)
    parts = np.array_split(values, max(1, -(-len(values) // _TOGETHER)))
    fitted = Parallel(n_jobs=n_jobs)(delayed(_fit_all)(part) for part in parts)
    rows = [row for part in fitted for row in part]
    table = np.reshape([best for best, _ in rows], (-1, len(PARAMETERS)))
    explained = np.array([share for _, share in rows])
    good = _sound(table, values.shape[1:]) & _beyond_noise(explained, values[:1].size)
    y, x = (_positions(fields, name) for name in ("height", "width"))
    found = dict(zip(PARAMETERS, _in_coordinates(table, x, y).T, strict=True))
    found["explained"] = explained
    for name in ("sigma_x", "sigma_y"):
        if np.isfinite(found[name]).any():
            good &= ~(found[name] > np.nanquantile(found[name], 1 - worst))
    units = dict.fromkeys(("x", "y", "sigma_x", "sigma_y"), "pixel")
    units |= {"angle": "radian", "amplitude": "standard deviation", "offset": "standard deviation"}
    units["explained"] = "1"
    of_mouse = {k: v for k, v in fields.attrs.items() if k in ("mouse_id", "from_cortex")}
    return xr.Dataset(
        {name: ("neuron", column, {"units": units[name]}) for name, column in found.items()}
        | {"good": ("neuron", good)},
        coords={k: c.variable for k, c in fields.coords.items() if c.dims == ("neuron",)},
        attrs=of_mouse | {"core_pixel": [abs(step_of(y)), abs(step_of(x))]},
    )


def _fit_all(fields: np.ndarray) -> list[tuple[np.ndarray, float]]:
    return [_fit(field) for field in fields]


def _fit(field: np.ndarray) -> tuple[np.ndarray, float]:
    """Parameters of one neuron, in pixels, and the share of the variance they explain.

    NaN where the field is flat or the fit does not converge.
    """
    failed = np.full(len(PARAMETERS), np.nan), np.nan
    spread = field.std()
    if not spread > 0 or field.size <= len(PARAMETERS):
        return failed
    values = np.abs((field - field.mean()) / spread)
    if not values.std() > 0:  # two levels, each in half of the pixels
        return failed
    height, width = values.shape
    row, column = np.unravel_index(values.argmax(), values.shape)
    start = (values.max(), column, row, width / 16, height / 10, 0.0, np.median(values))
    y, x = np.mgrid[:height, :width]
    points = x.ravel(), y.ravel()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # of a covariance nobody asks for
            # widths on their way to zero or infinity
            warnings.filterwarnings("ignore", "(overflow|divide by zero|invalid value)")
            best, _ = curve_fit(_gaussian, points, values.ravel(), p0=start)
            rest = values.ravel() - _gaussian(points, *best)
    except RuntimeError:  # no convergence
        return failed
    explained = 1 - (rest**2).mean() / values.var()
    if not np.isfinite([*best, explained]).all():
        return failed
    amplitude, x0, y0, sigma_x, sigma_y, angle, offset = best
    widths = abs(sigma_x), abs(sigma_y)
    return np.array([amplitude, x0, y0, *widths, folded(angle), offset]), float(explained)


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


def _sound(table: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Whether Gaussians, in pixels, are such as receptive fields can be; False where NaN."""
    amplitude, x, y, sigma_x, sigma_y = table.T[:5]
    inside = (np.abs(x - (shape[1] - 1) / 2) <= shape[1] / 2) & (
        np.abs(y - (shape[0] - 1) / 2) <= shape[0] / 2
    )
    return inside & (amplitude > 0) & (np.minimum(sigma_x, sigma_y) >= _NARROWEST)


def _beyond_noise(explained: np.ndarray, n_pixels: int) -> np.ndarray:
    """Whether more variance is explained than chance lets fits of noise explain."""
    n_free, n_rest = len(PARAMETERS) - 1, n_pixels - len(PARAMETERS)
    if n_rest < 1:
        return np.zeros(len(explained), dtype=bool)
    ratio = f_distribution.isf(_ERROR / n_pixels, n_free, n_rest) * n_free / n_rest
    return explained > ratio / (1 + ratio)  # of explained to unexplained variance


# ------------------------------------------------------------------------------------ coordinates


def _positions(fields: xr.DataArray, name: str) -> np.ndarray:
    """Where the pixels of one side lie; counted where nothing tells."""
    if name not in fields.coords:
        return np.arange(fields.sizes[name], dtype=np.float64)
    return as_numbers(fields[name].values, f"{name} of the fields", of="pixel")


def _in_coordinates(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gaussians in the coordinates of their pixels: centres are moved, covariances scaled."""
    out = table.copy()
    out[:, 1], out[:, 2] = at(x, table[:, 1]), at(y, table[:, 2])
    scale = np.array([step_of(x), step_of(y)])
    for number in np.flatnonzero(np.isfinite(table).all(1)):
        widths, angle = table[number, 3:5], table[number, 5]
        axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        # columns: the two half axes of the ellipse one standard deviation away, scaled
        axes = scale[:, None] * axes * widths
        if np.ptp(np.abs(scale)) > 0:
            directions, lengths, _ = np.linalg.svd(axes)
            # of the new axes, that of sigma_x is the one nearest to the old one
            nearest = np.abs(directions.T @ axes[:, 0] / np.linalg.norm(axes[:, 0])).argmax()
            axes = (directions * lengths)[:, [nearest, 1 - nearest]]
        out[number, 3:5] = np.linalg.norm(axes, axis=0)
        out[number, 5] = folded(np.arctan2(axes[1, 0], axes[0, 0]))
    return out

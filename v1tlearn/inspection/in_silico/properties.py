"""What tuning curves tell of neurons: preferences, selectivity, modulation, suppression, C50."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._equality import same_arrays
from v1tlearn._options import as_finite, as_numbers
from v1tlearn.inspection.in_silico._contrast import naka_rushton

_CYCLE = ("phase", "time")


def tuning_properties(
    curves: Any, *, blank: Any = None, onset: float = 0.0
) -> dict[str, xr.Dataset] | xr.Dataset:
    """Summarise tuning curves, neuron by neuron.

    Which properties there are depends on the dimensions of the curves. Each is taken where the
    response is largest along all others.

    Parameters
    ----------
    curves : dict of str to DataArray (neuron, ...), or DataArray
        From `tuning_curves` of `gratings` or `plaids`. Dimensions beside those that are named below
        count by their largest response.
    blank : dict of str to DataArray (neuron), or DataArray, optional
        Responses to a grey screen, which are subtracted first; none are by default.
    onset : float, default=0.0
        Of movies, seconds at the beginning that are left out.

    Returns
    -------
    dict of str to Dataset, or Dataset
        Over ``neuron``, in the form of the curves:

        ``peak_response``
            The largest F0 + F1 (below); without phases or time the largest response.
        ``preferred_orientation``, ``osi``, ``global_osi``
            With ``orientation``. Half the angle of ``sum R exp(2 i o) / sum R``, in degrees from 0
            to 180; (R_pref - R_orth) / (R_pref + R_orth), with R_pref the largest response and
            R_orth the mean of those 90 degrees to either side; and the length of that vector, which
            is 1 minus the circular variance.
        ``preferred_direction``, ``dsi``
            With ``orientation`` all around and ``time``: the largest response, and
            (R_pref - R_null) / (R_pref + R_null). A still grating has no direction.
        ``modulation_ratio``, ``f0``, ``f1``
            With ``phase``, or ``time`` and a temporal frequency: mean over a cycle, amplitude of
            its first harmonic, and F1/F0. Simple cells are above 1, complex ones below (Skottun et
            al. 1991).
        ``preferred_spatial_frequency``, ``spatial_frequency_at_edge``
            With ``spatial_frequency``: vertex of the parabola, in the logarithm of the frequency,
            through the largest response and its neighbours; and whether that has only one.
        ``preferred_diameter``, ``suppression_index``
            With ``diameter``: of the largest response R_pref, and
            (R_pref - R_largest) / R_pref, with R_largest the response to the largest one.
        ``c50``, ``contrast_exponent``, ``contrast_r2``, ``contrast_fits``
            With ``contrast``: of ``R0 + Rmax c^n / (c^n + c50^n)`` (Naka and Rushton 1966), fitted
            by least squares; the share of variance that it explains; and whether that is above 0.9
            and c50 within the contrasts that were shown. Where it is not, c50 and exponent are
            NaN.

    Raises
    ------
    TypeError
        If curves are no DataArrays.
    ValueError
        If orientations or phases are not evenly spread, or curves have no dimension but ``neuron``.

    Notes
    -----
    With phases or time, R is F0 + F1: the largest response over phases of a linear neuron, without
    the error of sampling them; the mean response of a complex one. Responses below `blank` count
    as 0 in R. An index whose denominator is 0 is NaN.

    References
    ----------
    Skottun et al., "Classifying simple and complex cells on the basis of response modulation",
    Vision Research, 1991. Mazurek et al., "Robust quantification of orientation selectivity and
    direction selectivity", Frontiers in Neural Circuits, 2014. Naka and Rushton, "S-potentials from
    colour units in the retina of fish", Journal of Physiology, 1966.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from v1tlearn.inspection import tuning_properties
    >>> angles = np.arange(0, 180, 30)
    >>> tuned = 2 + np.cos(2 * np.deg2rad(angles - 60))
    >>> curves = xr.DataArray(
    ...     [tuned], dims=("neuron", "orientation"), coords={"orientation": angles})
    >>> found = tuning_properties(curves)
    >>> found["preferred_orientation"].values.round(3), found["osi"].values.round(3)
    (array([60.]), array([0.5]))
    """
    onset = as_finite(onset, "onset", 0)
    if isinstance(curves, Mapping) and not isinstance(curves, xr.Dataset):
        blanks = blank if isinstance(blank, Mapping) else {}
        if blank is not None and set(blanks) != set(curves):
            raise ValueError(
                f"blank came for {list(blanks) or 'no mice by name'}, curves for {list(curves)}: "
                "give both for the same mice."
            )
        return {m: _of_one(own, blanks.get(m), onset) for m, own in curves.items()}
    return _of_one(curves, blank, onset)


def _of_one(curves: Any, blank: Any, onset: float) -> xr.Dataset:
    if not isinstance(curves, xr.DataArray):
        raise TypeError(
            f"curves is a {type(curves).__name__}: expected a DataArray with the dimension neuron, "
            "such as tuning_curves gives by mouse, or a dict of them."
        )
    if "neuron" not in curves.dims or curves.ndim < 2:
        raise ValueError(
            f"curves have the dimensions {curves.dims}: expected neuron, and others of stimuli."
        )
    if not curves.size:
        raise ValueError(f"curves are empty, {dict(curves.sizes)}: expected at least one neuron.")
    for dim in {"time", "phase", *_PROPERTIES} & set(curves.dims) & set(curves.coords):
        at = as_numbers(curves[dim].values, f"{dim} of the curves")
        if not np.isfinite(at).all():
            raise ValueError(f"{dim} of the curves is not finite: {at}.")
    curves = curves.copy(data=as_numbers(curves.values, "curves", of="neuron"))
    if blank is not None:
        curves = curves - _blank(blank, curves)
    cycle = _cycle(curves, onset)
    data: dict[str, Any] = {}
    if cycle is None:
        strength = curves
    else:
        f0, f1 = cycle
        strength = f0 + f1
    strength = strength.transpose("neuron", ...).clip(min=0)
    dims, values = strength.dims[1:], strength.values
    flat = values.reshape(len(values), -1)
    best = np.unravel_index(flat.argmax(1), values.shape[1:]) if dims else ()
    rows = np.arange(len(values))
    data["peak_response"] = ("neuron", values[(rows, *best)], {"units": "response unit"})
    if cycle is not None:
        means, firsts = (c.transpose("neuron", *dims).values[(rows, *best)] for c in cycle)
        data["f0"] = ("neuron", means, {"units": "response unit"})
        data["f1"] = ("neuron", firsts, {"units": "response unit"})
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(means > 0, firsts / means, np.nan)
        data["modulation_ratio"] = ("neuron", ratio)
    for axis, dim in enumerate(dims):
        if dim not in _PROPERTIES:
            continue
        index = [choice[:, None] for choice in best]
        index[axis] = np.arange(values.shape[1 + axis])[None]
        along = values[(rows[:, None], *index)]  # (neuron, values of this dimension)
        at = np.asarray(curves[dim].values, dtype=np.float64)
        moving = "time" in curves.dims
        units = {"units": curves[dim].attrs.get("units", "")}
        data |= _PROPERTIES[dim](along, at, moving, units)
    coords = {n: c for n, c in curves.coords.items() if c.dims == ("neuron",)}
    return xr.Dataset(data, coords, {k: v for k, v in curves.attrs.items() if k == "mouse_id"})


def _blank(blank: Any, curves: xr.DataArray) -> xr.DataArray:
    values = as_numbers(blank, "blank", of="neuron")
    if not isinstance(blank, xr.DataArray):
        if values.ndim != 1:
            raise ValueError(f"blank has the shape {values.shape}: expected a number per neuron.")
        blank = xr.DataArray(values, dims="neuron")
    blank = blank.copy(data=values)
    others = [dim for dim in blank.dims if dim != "neuron"]
    blank = blank.mean(others)
    if blank.dims != ("neuron",) or blank.sizes["neuron"] != curves.sizes["neuron"]:
        raise ValueError(
            f"blank has the dimensions {dict(blank.sizes)}: expected neuron, of "
            f"{curves.sizes['neuron']} neurons as in the curves."
        )
    both = "neuron" in blank.coords and "neuron" in curves.coords
    if both and not same_arrays(blank["neuron"].values, curves["neuron"].values):
        raise ValueError("blank is of other neurons than the curves, or in another order.")
    return xr.DataArray(blank.values, dims="neuron")


def _cycle(curves: xr.DataArray, onset: float) -> tuple[xr.DataArray, xr.DataArray] | None:
    """F0 and F1 along phase, or along time at the temporal frequency."""
    if "time" in curves.dims:
        if "phase" in curves.dims:
            raise ValueError(
                "curves have phases and time: take one phase of movies, .isel(phase=0)."
            )
        if "temporal_frequency" not in curves.coords:
            raise ValueError(
                "curves have time and no coordinate temporal_frequency, which gratings bring."
            )
        kept = curves.sel(time=curves["time"] >= onset)
        cycles = kept["temporal_frequency"] * kept["time"]
        step = np.diff(kept["time"].values).mean() if kept.sizes["time"] > 1 else 0.0
        whole = np.asarray(kept["temporal_frequency"]) * step * kept.sizes["time"]
        if not kept.sizes["time"] or (np.abs(whole - np.rint(whole)) > 0.05).any():
            raise ValueError(
                f"{np.ravel(whole)[0]:.3g} cycles of the gratings are left behind {onset} s: "
                "expected whole ones, choose n_frames or onset so."
            )
        dim = "time"
    elif "phase" in curves.dims:
        kept, dim = curves, "phase"
        cycles = kept["phase"] / 360
        _check_even(kept["phase"].values, 360, "phase")
    else:
        return None
    angle = 2 * np.pi * cycles
    cosine, sine = ((kept * f(angle)).mean(dim) for f in (np.cos, np.sin))
    return kept.mean(dim), 2 * (cosine**2 + sine**2) ** 0.5


def _check_even(angles: np.ndarray, period: float, name: str) -> None:
    turned = np.exp(2j * np.pi * np.asarray(angles, dtype=np.float64) / period)
    if len(turned) < 3 or abs(turned.mean()) > 1e-6 or (abs((turned**2).mean()) > 1e-6):
        raise ValueError(
            f"{name}: {np.asarray(angles)[:6]}... came: expected at least three values, evenly "
            f"spread over {period:g} degrees, such as np.arange(0, {period:g}, {period / 8:g})."
        )


def _orientation(along: np.ndarray, at: np.ndarray, moving: bool, units: Any) -> dict[str, Any]:
    _check_even(at, 180, "orientation")
    double = np.exp(2j * np.deg2rad(at))
    with np.errstate(divide="ignore", invalid="ignore"):
        vector = (along * double).sum(1) / along.sum(1)
    rows = np.arange(len(along))
    top = along.argmax(1)
    period = 180 if np.ptp(at) < 180 else 360
    left, right = (_interpolated(along, at, at[top] + side, period) for side in (-90, 90))
    across = (left + right) / 2
    degree = {"units": "degree"}
    out = {
        "preferred_orientation": ("neuron", np.rad2deg(np.angle(vector)) / 2 % 180, degree),
        "osi": ("neuron", _contrast(along[rows, top], across)),
        "global_osi": ("neuron", np.abs(vector)),
    }
    if moving and np.ptp(at) >= 180:
        null = _interpolated(along, at, at[top] + 180, 360)
        out["preferred_direction"] = ("neuron", at[top] % 360, degree)
        out["dsi"] = ("neuron", _contrast(along[rows, top], null))
    return out


def _interpolated(
    along: np.ndarray, at: np.ndarray, where: np.ndarray, period: float
) -> np.ndarray:
    pairs = zip(where, along, strict=True)
    return np.array([np.interp(angle, at, curve, period=period) for angle, curve in pairs])


def _contrast(more: np.ndarray, less: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(more + less > 0, (more - less) / (more + less), np.nan)


def _frequency(along: np.ndarray, at: np.ndarray, moving: bool, units: Any) -> dict[str, Any]:
    order = np.argsort(at)
    at, along = at[order], along[:, order]
    top = along.argmax(1)
    edge = (top == 0) | (top == len(at) - 1)
    found = at[top].copy()
    for i in np.flatnonzero(~edge):
        x, y = np.log2(at[top[i] - 1 : top[i] + 2]), along[i, top[i] - 1 : top[i] + 2]
        square, slope, _ = np.polyfit(x - x[1], y, 2)
        if square < 0:
            found[i] = 2 ** (x[1] - slope / (2 * square))
    return {
        "preferred_spatial_frequency": ("neuron", found, units),
        "spatial_frequency_at_edge": ("neuron", edge),
    }


def _diameter(along: np.ndarray, at: np.ndarray, moving: bool, units: Any) -> dict[str, Any]:
    best = along.max(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        index = np.where(best > 0, (best - along[:, at.argmax()]) / best, np.nan)
    return {
        "preferred_diameter": ("neuron", at[along.argmax(1)], units),
        "suppression_index": ("neuron", index),
    }


def _contrasts(along: np.ndarray, at: np.ndarray, moving: bool, units: Any) -> dict[str, Any]:
    fits = [naka_rushton(at, curve) for curve in along]
    c50, exponent, r2, good = (np.array(values) for values in zip(*fits, strict=True))
    return {
        "c50": ("neuron", np.where(good, c50, np.nan)),
        "contrast_exponent": ("neuron", np.where(good, exponent, np.nan)),
        "contrast_r2": ("neuron", r2),
        "contrast_fits": ("neuron", good),
    }


_PROPERTIES = {
    "orientation": _orientation,
    "spatial_frequency": _frequency,
    "diameter": _diameter,
    "contrast": _contrasts,
}

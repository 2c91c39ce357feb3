"""Where a curve over manipulations comes near to what images as they are reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._options import as_numbers, as_word
from v1tlearn._values import as_number
from v1tlearn._warn import warn
from v1tlearn.inspection.alignment._ranks import MEASURES
from v1tlearn.metrics._chance import as_level, interval

_DIMS: dict[str, tuple[str, ...]] = {
    "estimate": ("measure", "mouse", "value"),
    "control": ("measure", "mouse", "value"),
    "unchanged": ("measure", "mouse"),
    "unchanged_control_high": ("measure", "mouse"),
    "resampled": ("draw", "measure", "mouse", "value"),
    "unchanged_resampled": ("draw", "measure", "mouse"),
}


def cutoff_of(curve: xr.Dataset, *, measure: str = "top1", share: float = 0.9) -> xr.Dataset:
    """Tell where a curve comes near to what the images as they are reach.

    Parameters
    ----------
    curve : Dataset
        From `manipulation_curve`.
    measure : {"top1", "reciprocal_rank", "two_way", "similarity"}, default="top1"
    share : float, default=0.9
        Of the way from the control, at the same value, to the images as they are.

    Returns
    -------
    Dataset
        Over ``mouse``: ``cutoff``, the value at which this share is reached first, of a curve that
        rises, or kept last, of one that falls, between the values of the curve linear in their
        logarithm (in themselves, where one is 0); and ``low`` and ``high``, its interval by the
        draws of the curve. Draws that do not cross have the end of the curve that they would cross
        beyond. NaN, with a warning, where the curve itself does not cross, or nothing is found of
        the images as they are that shuffled pairs would not give.

    Raises
    ------
    ValueError
        If the measure is unknown, the share is not between 0 and 1, or there is one value only.

    Notes
    -----
    Most of the way is gone before the last frequency that tells anything. A "high_pass" curve tells
    with a small share, such as 0.1, from where on nothing is left: what carries the decoding lies
    between both.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import cutoff_of, manipulation_curve
    >>> trials = v1.Trials(v1.make_coarse_recordings(
    ...     n_neurons=40, n_trials=150, n_test_images=20, image_shape=(16, 24), cutoff=2.0,
    ...     informative=1.0, explainable_variance=0.9, random_state=0))
    >>> est = v1.DINAAligner(max_epochs=8, map_size=(8, 12), map_channels=4, hidden_channels=8,
    ...                      neural_lr=2e-3, random_state=0)
    >>> est = est.fit(trials.sel(tier="train"), validation=trials.sel(tier="validation"))
    >>> curve = manipulation_curve(est, trials.sel(tier="test"), values=[0.5, 1, 2, 4, 8])
    >>> bool(1 < cutoff_of(curve)["cutoff"].sel(mouse="A") < 4)
    True
    """
    measure = as_word(measure, MEASURES, "measure")
    share = as_number(share, "share")
    if not 0 < share < 1:
        raise ValueError(f"share={share!r}: expected a number between 0 and 1.")
    _check_curve(curve, measure)
    if curve.sizes["value"] < 2:
        raise ValueError("the curve has one value: expected several, to look between them.")
    curve = curve.sel(measure=measure)
    at = as_numbers(curve["value"].values, "curve: value", of="value")
    if not (np.diff(at) > 0).all():  # of which NaN is none
        raise ValueError(f"curve: value is {at}: expected increasing ones.")
    places = np.log(at) if (at > 0).all() else at
    level = float(curve.attrs["level"])
    cutoffs: list[np.ndarray] = []  # the cutoff and the ends of its interval
    for mouse in curve["mouse"].values:
        own = curve.sel(mouse=mouse)
        found, control = own["estimate"].values, own["control"].values
        wanted = control + share * (float(own["unchanged"]) - control)
        rises = found[-1] - wanted[-1] >= found[0] - wanted[0]
        cutoff = _crossing(places, found - wanted, rises)
        if float(own["unchanged"]) <= float(own["unchanged_control_high"]):
            warn(f"mouse {str(mouse)!r}: images as they are, too, are not found above chance.")
            cutoffs.append(np.full(3, np.nan))
            continue
        if not places[0] < cutoff < places[-1]:
            warn(
                f"mouse {str(mouse)!r}: {measure} does not cross {share:.0%} of what images as "
                f"they are reach between {at[0]:g} and {at[-1]:g}: give other values."
            )
            cutoffs.append(np.full(3, np.nan))
            continue
        plateaus = own["unchanged_resampled"].values[:, None]
        drawn = own["resampled"].values - (control + share * (plateaus - control))
        draws = np.array([_crossing(places, values, rises) for values in drawn])
        ends = np.array([cutoff, *interval(draws, level)])
        cutoffs.append(np.exp(ends) if (at > 0).all() else ends)
    units = {"units": curve["value"].attrs["units"]}
    return xr.Dataset(
        {
            name: ("mouse", values, units)
            for name, values in zip(("cutoff", "low", "high"), np.transpose(cutoffs), strict=True)
        },
        coords={"mouse": curve["mouse"].values},
        attrs={"measure": measure, "share": share, "level": level},
    )


def _check_curve(curve: Any, measure: str) -> None:
    """Refuse what is no curve, or one that something was taken from."""
    if not isinstance(curve, xr.Dataset):
        raise TypeError(
            f"curve is a {type(curve).__name__}: expected what manipulation_curve gave."
        )
    for name, dims in _DIMS.items():
        if name not in curve or set(curve[name].dims) != set(dims):
            came = dict(curve[name].sizes) if name in curve else "nothing"
            raise ValueError(
                f"curve: {name} has {came}, expected the dimensions {dims}: give what "
                "manipulation_curve gave, whole."
            )
        as_numbers(curve[name].values, f"curve: {name}", of="value")
    if missing := [name for name in ("mouse", "value", "measure") if name not in curve.coords]:
        raise ValueError(
            f"curve has no labels {missing}: give what manipulation_curve gave, whole."
        )
    if measure not in curve["measure"].values.tolist():
        raise ValueError(f"curve has no measure {measure!r}: {curve['measure'].values.tolist()}.")
    if "level" not in curve.attrs:
        raise ValueError("curve does not tell its level, curve.attrs['level']: keep its attrs.")
    as_level(curve.attrs["level"])


def _crossing(places: np.ndarray, excess: np.ndarray, rises: bool) -> float:
    """Where values come above 0 first, rising, or leave it first, falling; or else an end."""
    if not rises:
        return -_crossing(-places[::-1], _kept(excess)[::-1], True)
    above = np.flatnonzero(excess >= 0)
    if not len(above) or above[0] == 0:
        return places[-1] if not len(above) else places[0]
    i = above[0]
    part = -excess[i - 1] / (excess[i] - excess[i - 1])
    return places[i - 1] + part * (places[i] - places[i - 1])


def _kept(excess: np.ndarray) -> np.ndarray:
    """A falling curve, below 0 for good once it was."""
    below = np.flatnonzero(excess < 0)
    out = excess.copy()
    if len(below):
        out[below[0] :] = np.minimum(out[below[0] :], excess[below[0]])
    return out

"""In which range stimuli and behaviour were at fit, and whether others are in it, too.

Other units, grey levels from 0 to 1 for 0 to 255, behaviour before it was standardised, have the
right form and give wrong predictions. Nothing here changes a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from v1tlearn._warn import warn
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.trials import Trials

_SAMPLED = 64  # trials per mouse, spread over all, that are looked at
_GOLDEN = (5**0.5 - 1) / 2
_FEW = 20  # trials of behaviour, which tell no range: an animal may run through all of them

Range = Mapping[str, float]


def ranges_of(fitted: Fitted, trials: Trials) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation and extremes of stimuli and of behaviour that the model uses.

    Parameters
    ----------
    fitted : Fitted
    trials : Trials
        Of its mice; some of each are read.

    Returns
    -------
    dict of str to dict
        Per mouse "stimuli", a range, and "behaviors", one for each column.
    """
    return {mouse: _ranges(fitted, trials, mouse) for mouse in trials.mice}


def warn_of_other_ranges(
    fitted: Fitted, trials: Trials, *, whose: str = "", of: Fitted | None = None
) -> None:
    """Warn of stimuli or behaviour that are in another unit than those of the fit, by their looks.

    Parameters
    ----------
    fitted : Fitted
        Without ranges, of an earlier version or other code, nothing is told.
    trials : Trials
    whose : str
        What the trials are, where they are not those of the call.
    of : Fitted, optional
        Of the trials where they are of mice that `fitted` does not know. Their stimuli, which go
        through the same core, are then compared with those of its first mouse.

    Notes
    -----
    Stimuli are told of that reach further beyond those of the fit than these extend, or that vary
    within a hundredth of that, at its dark end. Those without any contrast, dark ones in whole
    grey levels, and low contrast around a grey are not. Images from 0 to 1 for such as were
    standardised cannot be told from images of low contrast.

    Behaviour is told of, where the fit saw some trials, that lies, or varies, several times as far
    from that of the fit as it extends; or hardly varies and is beyond two standard deviations; or
    varies where it never did.
    """
    if fitted.ranges is None:
        return
    told, first = [], next(iter(fitted.ranges.values()))
    for mouse in trials.mice:
        known = fitted.ranges.get(mouse)
        own = _ranges(fitted if of is None else of, trials, mouse)
        stimuli, behaviors = own["stimuli"], own["behaviors"]
        if stimuli and _is_other_image((known or first)["stimuli"], stimuli):
            told.append((mouse, "stimuli", (known or first)["stimuli"], stimuli))
        for column, now in behaviors.items():
            was = (known or {"behaviors": {}})["behaviors"].get(column)
            if now and was and _is_other_behavior(was, now):
                told.append((mouse, column, was, now))
    if not told:
        return
    mouse, name, was, now = told[0]
    called = name if name == "stimuli" else f"values of {name!r}"
    others = f" So do {len(told) - 1} more, of mice or columns." if told[1:] else ""
    warn(
        f"mouse {mouse!r}: {called}{f' of the {whose} trials' * bool(whose)} look as if they were "
        f"in another unit than at fit: there they were {_in_words(was)}, here they are "
        f"{_in_words(now)}.{others} The model takes values in the unit of those that it was "
        "fitted to, as grey levels from 0 to 255 or from 0 to 1, raw or standardised."
    )


def _ranges(fitted: Fitted, trials: Trials, mouse: str) -> dict[str, Any]:
    places = trials.rows(mouse)[0]
    chosen = np.arange(_SAMPLED) * _GOLDEN % 1 * len(places)  # in step with no order of trials
    some = trials[places[np.unique(chosen.astype(int))]]
    out: dict[str, Any] = {"stimuli": _range(some.get("stimuli", mouse)), "behaviors": {}}
    known = fitted.mice.get(mouse)
    names = trials.behavior_names(mouse) or []
    if known is None or not known.used_columns or not names:
        return out
    values = some.get("behaviors", mouse)
    for name in known.used_columns:
        if name in names:
            out["behaviors"][name] = _range(values[:, names.index(name)])
    return out


def _range(values: np.ndarray) -> dict[str, float]:
    """Range of values; none where they are not all finite, which others refuse."""
    whole = values.dtype.kind in "iu"
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    if not np.isfinite(size):
        return {}
    parts = [values] if values.ndim == 1 else list(values)  # so that no copy of all is made

    def scaled(part: np.ndarray) -> np.ndarray:
        return np.asarray(part, dtype=np.float64) / (size or 1.0)  # squares stay finite

    mean = np.mean([scaled(part).mean() for part in parts])
    variance = np.mean([np.square(scaled(part) - mean).mean() for part in parts])
    return {
        "mean": float(mean) * size,
        "std": float(np.sqrt(variance)) * size if low < high else 0.0,
        "low": low,
        "high": high,
        "whole": float(whole or not any((part % 1).any() for part in parts)),
        "count": float(len(values)),
    }


def _is_other_image(was: Range, now: Range) -> bool:
    extent = was["high"] - was["low"] if was else 0.0
    varies = now["high"] - now["low"]
    if extent == 0:  # of a fit to images without contrast, which are warned of there
        return False
    if now["high"] - was["high"] > extent or was["low"] - now["low"] > extent:
        return True
    if varies == 0 or (now["whole"] and varies > 1):
        return False
    below = was["low"] - now["low"]
    standardised = below > varies / 10 and now["high"] - was["low"] < extent / 25
    return standardised or now["high"] - was["low"] < extent / 100


def _is_other_behavior(was: Range, now: Range) -> bool:
    extent = was["high"] - was["low"]
    if was["count"] < _FEW:
        return False
    if extent == 0:
        return max(abs(now[end] - was["mean"]) for end in ("low", "high")) > abs(was["mean"])
    beyond = max(now["low"] - was["high"], was["low"] - now["high"])
    if beyond > 3 * extent or now["std"] > 10 * extent:
        return True
    beyond = max(now["low"] - was["mean"], was["mean"] - now["high"])
    return now["count"] >= _FEW and beyond > 2 * was["std"] and 0 < now["std"] < was["std"] / 8


def _in_words(known: Range) -> str:
    return (
        f"from {known['low']:.3g} to {known['high']:.3g} (mean {known['mean']:.3g}, standard "
        f"deviation {known['std']:.3g})"
    )

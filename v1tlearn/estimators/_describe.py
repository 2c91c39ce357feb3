"""From training trials to what a model has to know of its animals."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from v1tlearn._guesses import did_you_mean, guess
from v1tlearn._rounding import ROUNDING_FLOAT32
from v1tlearn._values import first_few
from v1tlearn._warn import warn
from v1tlearn.estimators._fitted import PUPIL, Fitted, Mouse, plain_labels, shift_columns
from v1tlearn.estimators._movies import common_rate
from v1tlearn.estimators.moments import ResponseMoments, moments_in_blocks, response_blocks
from v1tlearn.preprocessing.statistics import trial_statistics
from v1tlearn.trials import Responses, Trials

logger = logging.getLogger("v1tlearn")

RESPONSE_STD_FLOOR = 0.01  # of the mean standard deviation over neurons, as published
_UNSEEN = 1e-5  # of the floor: who varies less might as well be constant

ROUNDING = 1e-5  # of the mean standard deviation: so little below 0 is what was 0

Names = dict[str, list[str] | None]


def describe(
    parameters: Mapping[str, Any],
    trials: Trials,
    target: Responses,
    *,
    published_mode: str,
    seed: int,
    rates: bool = True,
) -> Fitted:
    """Learn from training trials everything that a model needs to know of its mice.

    Negative responses and silent neurons are warned of where they are to be `rates`.
    """
    mice = trials.mice
    moments = check_targets(target, rates=rates)
    _check_neurons(target, moments, rates=rates)
    shapes = {m: trials[trials.rows(m)[0][:1]].get("stimuli", m).shape[1:] for m in mice}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"stimuli differ in shape (channels, height, width) between mice: {shapes}. Bring "
            "them to one shape first (ResizeStimuli, Grayscale)."
        )
    channels = {m: told for m in mice if (told := trials.channel_names(m)) is not None}
    if len({tuple(told) for told in channels.values()}) > 1:
        raise ValueError(
            f"the channels of the stimuli differ between mice: {channels}. Bring them to one "
            "order, recording.isel(channel=[...]), or rename them where they mean the same."
        )
    names = {m: trials.behavior_names(m) for m in mice}
    _check_shift_columns(parameters, names)
    mode = _behavior_mode(parameters["behavior_mode"], published_mode, names)
    core_columns = _core_columns(parameters["behavior_columns"], names) if mode != "none" else []
    known = {}
    for mouse in mice:
        statistics = _learned(
            trials, moments[mouse], mouse, names[mouse], standardize=parameters["standardize"]
        )
        known[mouse] = Mouse(
            n_neurons=len(statistics["response_scale"]),
            behavior_names=names[mouse],
            used_columns=_used_columns(parameters, names[mouse], core_columns),
            position=trials.positions(mouse),
            labels=plain_labels(trials.neuron_labels(mouse)),
            statistics=statistics,
        )
    n_channels, height, width = map(int, shapes[mice[0]])
    return Fitted(
        parameters=dict(parameters),
        mice=known,
        image_shape=(n_channels, height, width),
        behavior_mode=mode,
        core_columns=core_columns,
        channels=next(iter(channels.values()), None),
        seed=seed,
        frame_rate=common_rate(trials),
    )


def check_targets(target: Responses, *, rates: bool = True) -> dict[str, ResponseMoments]:
    """Check the responses that a model is to be trained on."""
    out = {}
    for mouse in target.mice:
        n = len(target.rows(mouse)[0])
        if n < 2:
            raise ValueError(
                f"mouse {mouse!r} has {n} {_called(target, mouse)} to train on: expected at least "
                "2. Leave this mouse out, or set validation_fraction=0 if the others went to "
                "validation."
            )
        moments = out[mouse] = recorded_moments(target, mouse)
        if not any(np.nan_to_num(values).any() for values in (moments.mean, moments.std)):
            raise ValueError(
                f"mouse {mouse!r} is silent: all its responses are zero or NaN. Leave this mouse "
                "out (withheld test responses cannot be trained on)."
            )
    if rates:
        _warn_of_negative(target, out)
    return out


def _check_neurons(
    target: Responses, moments: Mapping[str, ResponseMoments], *, rates: bool
) -> None:
    """Refuse neurons that were never recorded, and warn of those that have no rate to learn."""
    out = "by trials.sel(neuron=...)."
    for mouse, known in moments.items():
        absent = known.count == 0
        if absent.any():
            raise ValueError(
                f"mouse {mouse!r}: {absent.sum()} of {len(absent)} neurons were recorded in no "
                f"training trial, {_named(target, mouse, absent)}: their responses are NaN in all "
                f"of the {len(target.rows(mouse)[0])} {_called(target, mouse)}s to train on, those "
                f"held out for validation not counted. Leave them out {out}"
            )
    for mouse, known in moments.items() if rates else ():
        silent = known.mean == 0
        if silent.any():
            warn(
                f"mouse {mouse!r}: {silent.sum()} of {len(silent)} neurons never respond in the "
                f"training trials, {_named(target, mouse, silent)}: nothing can be learned of "
                f"them. Leave them out {out}"
            )
        least = _UNSEEN * RESPONSE_STD_FLOOR * known.std.mean()
        unseen = ~silent & (known.std < least)
        if unseen.any():
            most = known.std == known.std.max()
            logger.warning(  # in the log alone: it may be a neuron that hardly ever responds
                "mouse %r: the responses of %d of %d neurons vary by less than %.3g, %s, others by "
                "up to %.3g, %s: hardly anything can be learned of the former. Give all neurons "
                "one unit, look for outliers, or leave neurons out %s",
                *(mouse, unseen.sum(), len(unseen), least, _named(target, mouse, unseen)),
                *(known.std.max(), _named(target, mouse, most), out),
            )


def _called(target: Responses, mouse: str) -> str:
    """What a row of the responses is the response to."""
    return "frame" if "frame_number" in target._recordings[mouse].coords else "trial"


def _named(target: Responses, mouse: str, chosen: np.ndarray) -> str:
    """Name the first of some neurons by the unit ids that `sel` takes."""
    return first_few(target.neuron_ids(mouse)[chosen], "neuron")


def _warn_of_negative(target: Responses, moments: Mapping[str, ResponseMoments]) -> None:
    """Warn of responses below 0, once for all mice, but for the rounding of what was exactly 0."""
    told = []
    for mouse, known in moments.items():
        least = -ROUNDING * float(np.nanmean(known.std))
        if known.lowest < least:
            below = sum(int((block < least).sum()) for block in response_blocks(target, mouse))
            share = below / known.count.sum()
            told.append(f"mouse {mouse!r} {share:.2g} of its responses, down to {known.lowest:.3g}")
    if told:
        warn(
            f"responses are negative: of {'; '.join(told)}. The Poisson loss is meant for values "
            "from 0 on: shift or rectify them."
        )


def check_validation(target: Responses, selection: str) -> None:
    """Check the responses that choose the best epoch."""
    for mouse in target.mice:
        moments = recorded_moments(target, mouse)
        n = int(moments.count.max())
        constant = ~(np.nan_to_num(moments.std) > 0)
        if n >= 2 and selection == "variance_explained" and constant.any():
            if constant.all():
                raise ValueError(
                    f"mouse {mouse!r}: no neuron's responses vary over the validation trials, so "
                    "that there is no variance to explain: give it other trials, or use "
                    "selection='correlation'."
                )
            warn(
                f"mouse {mouse!r}: the responses of {constant.sum()} of {len(constant)} neurons do "
                "not vary over the validation trials: they are left out of the variance explained."
            )
        elif n >= 2 and not np.nan_to_num(moments.std).any():
            warn(
                f"mouse {mouse!r}: no neuron's responses vary over the validation trials, so that "
                "its validation correlation is 0 whatever is predicted: give it other trials."
            )
        if n < 2:
            raise ValueError(
                f"mouse {mouse!r} has recorded responses in {n} trial of the validation set: a "
                "correlation needs at least 2. Give it more trials, leave this mouse out of "
                "validation, or set validation_fraction=0 to train on everything."
            )


def recorded_moments(target: Responses, mouse: str) -> ResponseMoments:
    """Moments of the responses of a mouse, of which none is infinite or too large."""
    moments = moments_in_blocks(lambda: response_blocks(target, mouse))
    size = np.where(moments.count > 0, np.abs(moments.mean) + moments.std, 0)
    lost = np.flatnonzero(~(size <= np.finfo(np.float32).max))
    if len(lost):
        raise ValueError(
            f"mouse {mouse!r}: responses hold infinite values, or such as are too large for "
            f"float32, in {len(lost)} neurons, the first at place {lost[0]}: replace them with NaN "
            "(not recorded) or leave these neurons out."
        )
    return moments


def _behavior_mode(mode: str, published: str, names: Names) -> str:
    without = [m for m, columns in names.items() if columns is None]
    if mode == "none":
        return mode
    if mode == "auto":
        if not without:
            return published
        if len(without) == len(names):
            return "none"
    if without:
        raise ValueError(
            f"behavior_mode={mode!r}, but the mice {without} have no behaviors: give behaviour for "
            "all mice, leave these mice out, or set behavior_mode='none'."
        )
    return mode


def _check_shift_columns(parameters: Mapping[str, Any], names: Names) -> None:
    if isinstance(parameters["shift_columns"], str) or parameters["shift"] == "none":
        return  # mice without pupil columns do without a shifter
    wanted = shift_columns(parameters["shift_columns"])
    if not wanted:
        raise ValueError("shift_columns is empty: name behaviour columns, or set shift='none'.")
    for mouse, columns in names.items():
        missing = [c for c in wanted if c not in (columns or [])]
        if missing:
            raise ValueError(
                f"mouse {mouse!r}: shift_columns asks for {missing}, the columns are {columns}"
                f"{did_you_mean([c for name in missing for c in guess(name, columns or [])])}"
            )


def _core_columns(wanted: Any, names: Names) -> list[str]:
    first, columns = next(iter(names.items()))
    if isinstance(wanted, str):
        dropped = PUPIL if wanted == "non_pupil" else ()
        per_mouse = {m: [c for c in n or [] if c not in dropped] for m, n in names.items()}
        for mouse, others in per_mouse.items():
            if others != per_mouse[first]:
                raise ValueError(
                    f"mouse {mouse!r} has the behaviour columns {others}, mouse {first!r} "
                    f"{per_mouse[first]}: name common ones in behavior_columns."
                )
        chosen = per_mouse[first]
    else:
        chosen = [str(c) for c in wanted]
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"behavior_columns={wanted!r} names a column twice: name it once.")
    for mouse, columns in names.items():
        missing = [c for c in chosen if c not in (columns or [])]
        if missing:
            raise ValueError(
                f"mouse {mouse!r}: behavior_columns asks for {missing}, the columns are {columns}"
                f"{did_you_mean([c for name in missing for c in guess(name, columns or [])])}"
            )
    if not chosen:
        raise ValueError(
            f"behavior_columns={wanted!r} leaves no column of {columns} for the core: choose "
            "others, or set behavior_mode='none'."
        )
    return chosen


def _used_columns(
    parameters: Mapping[str, Any], names: list[str] | None, core_columns: list[str]
) -> list[str]:
    """Columns without which this model cannot predict, in their order."""
    needed = set(core_columns)
    moving = shift_columns(parameters["shift_columns"])
    if parameters["shift"] != "none" and set(moving) <= set(names or []):
        needed |= set(moving)
    if parameters["shift"] == "both_behavior":
        needed |= set(names or [])
    return [n for n in names or [] if n in needed]


def _learned(
    trials: Trials,
    responses: ResponseMoments,
    mouse: str,
    names: list[str] | None,
    *,
    standardize: bool,
) -> dict[str, Any]:
    """Statistics of one mouse over its training trials; floats and arrays."""
    scale = np.fmax(responses.std, RESPONSE_STD_FLOOR * np.nanmean(responses.std))
    largest, least = np.nanmax(np.abs(responses.mean) + responses.std), np.finfo(np.float32).tiny
    if largest < least or 0 < scale.min() < least:
        raise ValueError(
            f"mouse {mouse!r}: responses are at most some {largest:.3g} large and vary by "
            f"{scale.min():.3g}, which is too small for float32: give them in a larger unit."
        )
    if not (scale > 0).all():
        raise ValueError(
            f"mouse {mouse!r}: no neuron's responses vary over the "
            f"{len(trials.rows(mouse)[0])} training trials: "
            "give more trials, or leave this mouse out."
        )
    out: dict[str, Any] = {
        "response_mean": responses.mean.astype(np.float32),
        "response_scale": scale.astype(np.float32),
        "image_mean": 0.0,
        "image_std": 1.0,
    }
    if not standardize:
        return out
    statistics = trial_statistics(trials, mouse)
    mean, std = statistics.stimuli_mean, statistics.stimuli_std
    if std <= ROUNDING_FLOAT32 * abs(mean):
        warn(
            f"mouse {mouse!r}: stimuli do not vary over the training trials, or by no more than "
            f"float32 tells apart (mean {mean:.4g}, standard deviation {std:.2g}): nothing can be "
            "learned of them. Are they what was shown? From stimuli of so low a contrast subtract "
            "their mean."
        )
    return out | statistics.scaling(names)


def response_moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of neurons over the trials that were recorded."""
    moments = moments_in_blocks(lambda: [values])
    return moments.mean, moments.std

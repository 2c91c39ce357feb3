"""What the mice of a loaded model look like in data units: statistics, columns, positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn.datasets.schema import BEHAVIOR_NAMES
from v1tlearn.estimators._tensors import RESPONSE_STD_FLOOR, _moments
from v1tlearn.preprocessing.statistics import (
    PUPIL_POSITION,
    TrialStatistics,
    trial_statistics,
)
from v1tlearn.trials import Trials

Pair = tuple[np.ndarray, np.ndarray]

_KINDS = ("image", "behavior", "pupil", "response")


@dataclass
class Known:
    """What is known of one mouse beside the weights of its model.

    Attributes
    ----------
    pairs : dict of str to (ndarray, ndarray)
        Mean and standard deviation of "image" (scalars), "behavior" (columns other than the pupil
        position, in their order), "pupil" (x, y), "response" (neurons); any of them.
    behavior_names : list of str or None
        Columns of the recording; None where there is no recording, or no behaviour in it.
    positions : ndarray or None
        Cortical positions in the recording.
    image_shape : (int, int, int) or None
        Channels, height and width of the stimuli of the recording.
    """

    pairs: dict[str, Pair]
    behavior_names: list[str] | None = None
    positions: np.ndarray | None = None
    image_shape: tuple[int, int, int] | None = None

    @property
    def of_inputs(self) -> bool:
        """Whether any input is brought to standard units by the model itself."""
        return bool(set(self.pairs) - {"response"})


def read_statistics(statistics: Any, n_neurons: Mapping[str, int]) -> dict[str, Known]:
    """Read the statistics that came with a checkpoint.

    Parameters
    ----------
    statistics : None, mapping, DataTree, Dataset or Trials
        Of the form that `load_v1t` documents.
    n_neurons : dict of str to int
        Neurons of the mice of the model.

    Returns
    -------
    dict of str to Known
        For every mouse of the model.

    Raises
    ------
    TypeError, ValueError
        If they are of another form, lack a mouse, or are of other neurons.
    """
    if statistics is None:
        return {mouse: Known({}) for mouse in n_neurons}
    recordings = isinstance(statistics, Trials | xr.DataTree | xr.Dataset) or (
        isinstance(statistics, Mapping)
        and any(isinstance(value, xr.Dataset) for value in statistics.values())
    )
    if recordings:
        trials = statistics if isinstance(statistics, Trials) else Trials(statistics)
        _check_mice(list(n_neurons), trials.mice, "the recordings given as statistics are of")
        return {mouse: _from_recording(trials, mouse, n) for mouse, n in n_neurons.items()}
    if not isinstance(statistics, Mapping):
        raise TypeError(
            f"statistics is a {type(statistics).__name__}: expected a dict "
            '{mouse: {"image": (mean, std), ...}}, recordings or Trials.'
        )
    by_mouse = {str(mouse): pairs for mouse, pairs in statistics.items()}
    _check_mice(list(n_neurons), list(by_mouse), "statistics are of")
    if strangers := [mouse for mouse in by_mouse if mouse not in n_neurons]:
        raise ValueError(
            f"statistics came for the mice {strangers}, which the model does not have: its mice "
            f"are {list(n_neurons)}."
        )
    return {mouse: Known(_read_pairs(by_mouse[mouse], mouse, n)) for mouse, n in n_neurons.items()}


def _check_mice(needed: Sequence[str], given: Sequence[str], what: str) -> None:
    if missing := [mouse for mouse in needed if mouse not in given]:
        raise ValueError(
            f"the model has the mice {list(needed)}, but {what} {list(given)}: {missing} are "
            "missing. Call the mice as the model does: read_sensorium(path, names={data key: "
            "mouse})."
        )


def _read_pairs(given: Any, mouse: str, n_neurons: int) -> dict[str, Pair]:
    if not isinstance(given, Mapping) or not set(given) <= set(_KINDS):
        what = sorted(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(
            f"mouse {mouse!r}: statistics are {what}: expected a dict with some of {list(_KINDS)}."
        )
    sizes = {"image": 1, "pupil": len(PUPIL_POSITION), "response": n_neurons}
    pairs = {}
    for kind, pair in given.items():
        if not isinstance(pair, Sequence | np.ndarray) or len(pair) != 2:
            raise ValueError(f"mouse {mouse!r}: statistics of {kind!r} must be (mean, std).")
        mean, std = (np.array(value, dtype=np.float64).reshape(-1) for value in pair)
        n = sizes.get(kind, len(std))
        if len(mean) != n or len(std) != n:
            raise ValueError(
                f"mouse {mouse!r}: statistics of {kind!r} have {len(mean)} means and {len(std)} "
                f"standard deviations: expected {n} of each."
            )
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std >= 0).all()):
            raise ValueError(
                f"mouse {mouse!r}: statistics of {kind!r} hold NaN, infinite values or negative "
                "standard deviations."
            )
        pairs[kind] = (mean, std)
    return pairs


def _from_recording(trials: Trials, mouse: str, n_neurons: int) -> Known:
    if trials.n_neurons[mouse] not in (0, n_neurons):
        raise ValueError(
            f"mouse {mouse!r}: the recording has {trials.n_neurons[mouse]} neurons, the model "
            f"{n_neurons}: give the recording that the model was trained on."
        )
    names = trials.behavior_names(mouse)
    trials = trials.sel(mouse_id=mouse)
    stored = trials._recordings[mouse]  # whole: selecting its trials could copy its images
    # stored statistics are those of the raw data, not of what preprocessing makes of them
    usable = set() if trials._steps else set(stored.variables)
    wanted = {"stimuli", "responses"} | ({"behaviors"} if names else set())
    missing = {v for v in wanted if not {f"{v}_mean", f"{v}_std"} <= usable}
    if {"responses_mean", "responses_std"} <= set(stored.variables):
        missing.discard("responses")
    training = _training_trials(trials, mouse) if missing else None
    computed = trial_statistics(training, mouse) if missing - {"responses"} else None

    def pair(variable: str) -> Pair:
        return tuple(
            np.asarray(stored[f"{variable}_{s}"].values, dtype=np.float64).reshape(-1)
            for s in ("mean", "std")
        )

    given: dict[str, Pair] = {}
    if "stimuli" in missing:
        given["image"] = (computed.stimuli_mean, computed.stimuli_std)
    else:
        given["image"] = pair("stimuli")
    if "responses" in missing:
        given["response"] = _moments(training.responses.get(mouse))
    else:
        given["response"] = pair("responses")
    if names:
        from_data = "behaviors" in missing
        mean, std = (
            (computed.behaviors_mean, computed.behaviors_std) if from_data else pair("behaviors")
        )
        is_pupil = np.isin(names, PUPIL_POSITION)
        given["behavior"] = (mean[~is_pupil], std[~is_pupil])
        if is_pupil.any():
            order = [names.index(name) for name in PUPIL_POSITION if name in names]
            given["pupil"] = (mean[order], std[order])
    shape = trials[:1].get("stimuli", mouse).shape[1:]
    return Known(
        _read_pairs(given, mouse, n_neurons),
        names,
        trials.positions(mouse),
        tuple(int(side) for side in shape),
    )


def _training_trials(trials: Trials, mouse: str) -> Trials:
    tiers = set(trials.tiers.tolist())
    if tiers == {""}:
        return trials
    if "train" not in tiers:
        raise ValueError(
            f"mouse {mouse!r}: the recording holds no statistics and no trial of the tier 'train' "
            f"to compute them from, only {sorted(tiers)}: give statistics as a dict."
        )
    return trials.sel(tier="train")


def scaling(known: Known, names: list[str] | None, mouse: str, n_neurons: int) -> dict[str, Any]:
    """Bring statistics to the form in which estimators keep them.

    Parameters
    ----------
    known : Known
    names : list of str or None
        Behaviour columns of the mouse.
    mouse : str
    n_neurons : int

    Returns
    -------
    dict
        One entry of the fitted attribute ``statistics_``.

    Raises
    ------
    ValueError
        If behaviour statistics are of another number of columns.
    """
    mean, std = known.pairs.get("response", (np.zeros(n_neurons), np.ones(n_neurons)))
    floor = RESPONSE_STD_FLOOR * std.mean()
    if floor == 0:
        raise ValueError(
            f"mouse {mouse!r}: the standard deviations of all responses are 0: give those of the "
            "training trials."
        )
    image_mean, image_std = known.pairs.get("image", (np.zeros(1), np.ones(1)))
    out: dict[str, Any] = {
        "response_mean": mean.astype(np.float32),
        "response_scale": np.maximum(std, floor).astype(np.float32),
    }
    behaviors: tuple[Any, Any] = (None, None)
    if names and {"behavior", "pupil"} & set(known.pairs):
        behaviors = (np.zeros(len(names)), np.ones(len(names)))
        others = [i for i, name in enumerate(names) if name not in PUPIL_POSITION]
        pupil = [names.index(name) for name in PUPIL_POSITION if name in names]
        for kind, columns in (("behavior", others), ("pupil", pupil)):
            if kind not in known.pairs:
                continue
            values = known.pairs[kind]
            if len(values[0]) != len(columns):
                raise ValueError(
                    f"mouse {mouse!r}: statistics of {kind!r} have {len(values[0])} values for "
                    f"the columns {[names[i] for i in columns]}: expected one for each."
                )
            for target, value in zip(behaviors, values, strict=True):
                target[columns] = value
    summary = TrialStatistics(float(image_mean[0]), float(image_std[0]), *behaviors)
    return out | summary.scaling(names)


def used_names(
    known: Mapping[str, Known], needed: Sequence[str], default: Sequence[str] = BEHAVIOR_NAMES
) -> dict[str, list[str] | None]:
    """Behaviour columns of every mouse, as its trials are expected to bring them.

    Parameters
    ----------
    known : dict of str to Known
    needed : sequence of str
        Columns that the model uses.
    default : sequence of str
        Columns of mice without recording, if the model uses any.

    Returns
    -------
    dict of str to list of str or None

    Raises
    ------
    ValueError
        If a recording lacks a column.
    """
    out: dict[str, list[str] | None] = {}
    for mouse, one in known.items():
        recorded = one.image_shape is not None
        names = one.behavior_names if recorded else (list(default) if needed else None)
        if missing := [name for name in needed if name not in (names or [])]:
            raise ValueError(
                f"mouse {mouse!r}: the model uses the behaviour columns {list(needed)}, but "
                f"{missing} are not among {names}."
            )
        out[mouse] = names
    return out

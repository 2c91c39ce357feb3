"""What the mice of a loaded model look like in data units: statistics, columns, positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr

from v1tlearn._values import as_array, plain
from v1tlearn.datasets.fetch import FRANKE_2022, SENSORIUM_2022
from v1tlearn.datasets.schema import BEHAVIOR_NAMES
from v1tlearn.estimators._describe import RESPONSE_STD_FLOOR, response_moments
from v1tlearn.preprocessing.statistics import (
    PUPIL_POSITION,
    TrialStatistics,
    trial_statistics,
)
from v1tlearn.trials import Trials
from v1tlearn.trials.folding import fold_time

Pair = tuple[np.ndarray, np.ndarray]

# Names of the published mice: letters in the paper, numbers in older versions of the V1T code.
_KEYS = {name: key for name, (key, _) in (SENSORIUM_2022 | FRANKE_2022).items()}
_NUMBERED = {str(i): _KEYS[name] for i, name in enumerate(("S0", "S1", *"ABCDE"))}
_LARGEST_SIDE = 2**16  # in pixels
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
    neurons : dict of str to ndarray
        Unit ids and metadata of the neurons of the recording; empty where there is none.
    """

    pairs: dict[str, Pair]
    behavior_names: list[str] | None = None
    positions: np.ndarray | None = None
    image_shape: tuple[int, int, int] | None = None
    neurons: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def of_inputs(self) -> bool:
        """Whether any input is brought to standard units by the model itself."""
        return bool(set(self.pairs) - {"response"})


def read_statistics(
    statistics: Any, n_neurons: Mapping[str, int], *, numbered: bool = False
) -> dict[str, Known]:
    """Read the statistics that came with a checkpoint."""
    if statistics is None:
        return {mouse: Known({}) for mouse in n_neurons}
    if isinstance(statistics, Mapping) and not isinstance(statistics, xr.DataTree | xr.Dataset):
        statistics = {
            mouse: value.to_dataset() if isinstance(value, xr.DataTree) else value
            for mouse, value in statistics.items()
        }
    recordings = isinstance(statistics, Trials | xr.DataTree | xr.Dataset) or (
        isinstance(statistics, Mapping)
        and any(isinstance(value, xr.Dataset) for value in statistics.values())
    )
    if recordings:
        trials = statistics if isinstance(statistics, Trials) else Trials(statistics)
        what = "the recordings given as statistics are of"
        called = _match_mice(list(n_neurons), trials.mice, what, numbered)
        return {m: _from_recording(trials, called[m], m, n) for m, n in n_neurons.items()}
    if not isinstance(statistics, Mapping):
        raise TypeError(
            f"statistics is a {type(statistics).__name__}: expected a dict "
            '{mouse: {"image": (mean, std), ...}}, recordings or Trials.'
        )
    by_mouse = {str(mouse): pairs for mouse, pairs in statistics.items()}
    called = _match_mice(list(n_neurons), list(by_mouse), "statistics are of", numbered)
    known = {m: Known(_read_pairs(by_mouse[called[m]], m, n)) for m, n in n_neurons.items()}
    for mouse, one in known.items():
        if "image" in one.pairs and one.pairs["image"][1][0] == 0:
            raise ValueError(
                f"mouse {mouse!r}: the standard deviation of 'image' is 0: expected that of the "
                "images that the model was trained on, or leave 'image' out if they are scaled."
            )
    return known


def _data_key(mouse: str, numbered: bool) -> str:
    """Data key of a mouse that bears one of the names of the published data; else its name."""
    tables = [_KEYS, _NUMBERED] if numbered else [_KEYS]
    for table in tables:
        if mouse in table:
            return table[mouse]
    return mouse.removeprefix("static")  # as runs on the data of Franke et al. call them


def _match_mice(
    needed: Sequence[str], given: Sequence[str], what: str, numbered: bool
) -> dict[str, str]:
    """Names in `given` of the mice of the model: the same one, or another of the same data."""
    keys: dict[str, list[str]] = {}
    for name in given:
        if name not in needed:
            keys.setdefault(_data_key(name, numbered), []).append(name)
    others = {mouse: keys.get(_data_key(mouse, numbered), []) for mouse in needed}
    found = {m: [m] if m in given else others[m] for m in needed}
    if missing := [mouse for mouse, names in found.items() if len(names) != 1]:
        raise ValueError(
            f"the model has the mice {list(needed)}, but {what} {list(given)}: {missing} are "
            "missing. Call the mice as the model does: read_sensorium(path, names={data key: "
            "mouse})."
        )
    return {mouse: names[0] for mouse, names in found.items()}


def _read_pairs(given: Any, mouse: str, n_neurons: int) -> dict[str, Pair]:
    if not isinstance(given, Mapping) or not set(given) <= set(_KINDS):
        what = sorted(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(
            f"mouse {mouse!r}: statistics are {what}: expected a dict with some of {list(_KINDS)}."
        )
    sizes = {"image": 1, "pupil": len(PUPIL_POSITION), "response": n_neurons}
    pairs = {}
    for kind, pair in given.items():
        is_pair = isinstance(pair, Sequence) or getattr(pair, "ndim", 0) > 0
        if not is_pair or isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f"mouse {mouse!r}: statistics of {kind!r} must be (mean, std).")
        try:
            mean, std = (_vector(value) for value in pair)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"mouse {mouse!r}: statistics of {kind!r} are no numbers ({error})."
            ) from error
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


def _vector(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    return as_array(value, "mean or std", of="value").astype(np.float64).reshape(-1)


def _from_recording(trials: Trials, called: str, mouse: str, n_neurons: int) -> Known:
    """Read the recording of a mouse that may be called otherwise there."""
    if trials.n_neurons[called] not in (0, n_neurons):
        raise ValueError(
            f"mouse {mouse!r}: the recording has {trials.n_neurons[called]} neurons, the model "
            f"{n_neurons}: give the recording that the model was trained on."
        )
    names = trials.behavior_names(called)
    trials = fold_time(trials.sel(mouse_id=called), None)
    stored = trials._described(called)
    # stored statistics are those of the raw data, not of what preprocessing makes of them
    usable = set() if trials._steps else set(stored.variables)
    wanted = {"stimuli", "responses"} | ({"behaviors"} if names else set())
    missing = {v for v in wanted if not {f"{v}_mean", f"{v}_std"} <= usable}
    if {"responses_mean", "responses_std"} <= set(stored.variables):
        missing.discard("responses")
    found = _computed(_training_trials(trials, mouse), called, missing) if missing else {}
    for variable in wanted - missing:
        mean, std = (
            np.asarray(stored[f"{variable}_{s}"].values, dtype=np.float64).reshape(-1)
            for s in ("mean", "std")
        )
        found[variable] = (mean, std)
    given = {"image": found["stimuli"], "response": found["responses"]}
    if names:
        mean, std = found["behaviors"]
        is_pupil = np.isin(names, PUPIL_POSITION)
        given["behavior"] = (mean[~is_pupil], std[~is_pupil])
        if is_pupil.any():
            order = [names.index(name) for name in PUPIL_POSITION if name in names]
            given["pupil"] = (mean[order], std[order])
    channels, height, width = trials[:1].get("stimuli", called).shape[1:]
    return Known(
        _read_pairs(given, mouse, n_neurons),
        names,
        trials.positions(called),
        (channels, height, width),
        trials.neuron_labels(called),
    )


def _computed(trials: Trials, called: str, variables: set[str]) -> dict[str, Pair]:
    """Statistics of variables over training trials."""
    out: dict[str, Pair] = {}
    if "responses" in variables:
        out["responses"] = response_moments(trials.responses.get(called))
    if inputs := variables - {"responses"}:
        of_trials = trial_statistics(trials, called)
        means = {"stimuli": of_trials.stimuli_mean, "behaviors": of_trials.behaviors_mean}
        stds = {"stimuli": of_trials.stimuli_std, "behaviors": of_trials.behaviors_std}
        out |= {name: (np.asarray(means[name]), np.asarray(stds[name])) for name in inputs}
    return out


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
    """Bring statistics to the form in which estimators keep them."""
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
        pupil = {names.index(name): i for i, name in enumerate(PUPIL_POSITION) if name in names}
        if others and "behavior" in known.pairs:
            n_values = len(known.pairs["behavior"][0])
            if n_values != len(others):
                raise ValueError(
                    f"mouse {mouse!r}: statistics of 'behavior' have {n_values} values for the "
                    f"columns {[names[i] for i in others]}: expected one for each."
                )
            for target, value in zip(behaviors, known.pairs["behavior"], strict=True):
                target[others] = value
        if pupil and "pupil" in known.pairs:
            for target, value in zip(behaviors, known.pairs["pupil"], strict=True):
                target[list(pupil)] = value[list(pupil.values())]
    summary = TrialStatistics(float(image_mean[0]), float(image_std[0]), *behaviors)
    return out | summary.scaling(names)


def told_names(behavior_names: Sequence[str] | None) -> list[str] | None:
    """Check the argument `behavior_names` of the loaders."""
    if behavior_names is None:
        return None
    names = [str(name) for name in behavior_names]
    if isinstance(behavior_names, str) or len(set(names)) != len(names):
        raise ValueError(
            f"behavior_names={behavior_names!r}: expected a list with one name per column."
        )
    return names


def told_shape(image_shape: Any) -> tuple[int, int, int]:
    """Check the argument `image_shape` of the loaders."""
    shape = plain(tuple(image_shape) if isinstance(image_shape, Iterable) else ())
    whole = [isinstance(n, int | float) and not isinstance(n, bool) and n % 1 == 0 for n in shape]
    if len(shape) != 3 or not all(whole) or not all(1 <= n < _LARGEST_SIDE for n in shape):
        raise ValueError(
            f"image_shape={image_shape!r}: expected (channels, height, width) of the images."
        )
    channels, height, width = map(int, shape)
    return channels, height, width


def used_names(
    known: Mapping[str, Known], needed: Sequence[str], told: Sequence[str] | None
) -> dict[str, list[str] | None]:
    """Behaviour columns of every mouse, as its trials are expected to bring them."""
    default = BEHAVIOR_NAMES if told is None else told
    if told is None and not set(PUPIL_POSITION) & set(needed):
        default = [name for name in BEHAVIOR_NAMES if name not in PUPIL_POSITION]
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

"""The fingerprint of recordings: the same for the same data, however they are kept and read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from v1tlearn.trials._reading import BLOCK
from v1tlearn.trials.folding import fold_time
from v1tlearn.trials.responses import Responses
from v1tlearn.trials.trials import Trials

_WHOLE_BYTES = 2**30  # of the stimuli of a mouse, beyond which some trials stand for all
_SAMPLED = 64  # trials, evenly spaced
_BLOCK_BYTES = 8 * 2**20  # of stimuli, as they are recorded or as they are shown
_DIGITS_BEFORE = 12  # of the hash that earlier versions noted


def fingerprint(trials: Trials, target: Responses) -> dict[str, dict[str, int | str]]:
    """Tell the recording of each mouse from others.

    The hash changes with every value of responses, behaviour and stimuli, as the trials show them,
    with their order, and with labels: image ids, tiers, unit ids, positions, names of columns. Of
    stimuli larger than 1 GiB 64 trials are read, evenly spaced.

    Parameters
    ----------
    trials : Trials
    target : Responses
        Of these trials.

    Returns
    -------
    dict of str to dict
        For each mouse "trials", "neurons" and "hash", 16 hexadecimal digits.
    """
    found: dict[str, dict[str, int | str]] = {}
    n_neurons = trials.n_neurons
    shown, recorded = fold_time(trials, None), fold_time(target, None)  # no movie is held whole
    for mouse in trials.mice:
        places, frames = trials.rows(mouse)[0], shown.rows(mouse)[0]
        digest = hashlib.blake2b(digest_size=8)
        for _, text in _labels(trials, mouse, places):
            digest.update(text)
        for start in range(0, len(frames), BLOCK):
            block = recorded[frames[start : start + BLOCK]].get(mouse)
            digest.update(np.ascontiguousarray(block, dtype="<f4").tobytes())
        if trials.behavior_names(mouse) is not None:
            behaviors = np.asarray(shown.get("behaviors", mouse))
            digest.update(np.ascontiguousarray(behaviors, dtype="<f8").tobytes())
        for block in _stimuli(trials, mouse, places):
            kind = np.uint8 if block.dtype == np.uint8 else np.dtype("<f4")
            digest.update(np.ascontiguousarray(block, dtype=kind).tobytes())
        n = n_neurons[mouse] or recorded[frames[:1]].get(mouse).shape[-1]
        found[mouse] = {"trials": len(places), "neurons": int(n), "hash": digest.hexdigest()}
    return found


def labels_in_short(trials: Trials) -> dict[str, str]:
    """Tell the labels of each mouse from others: images, tiers, units, names, all in order.

    Unlike values, which may differ by rounding where two machines prepare them, these are the same.

    Parameters
    ----------
    trials : Trials

    Returns
    -------
    dict of str to str
        16 hexadecimal digits for each mouse.
    """
    found = {}
    for mouse in trials.mice:
        digest = hashlib.blake2b(digest_size=8)
        for name, text in _labels(trials, mouse, trials.rows(mouse)[0]):
            if name != "position":
                digest.update(text)
        found[mouse] = digest.hexdigest()
    return found


def describe_recording(
    trials: Trials, target: Responses, like: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Describe the recording of each mouse by its size and fingerprint, in one line.

    Parameters
    ----------
    trials : Trials
    target : Responses
    like : mapping of str to str, optional
        What was noted before; where an earlier version did, its hash is told.

    Returns
    -------
    dict of str to str
    """
    noted = [str(one).rpartition(" ")[2] for one in (like or {}).values()]
    if any(len(digits) == _DIGITS_BEFORE for digits in noted):
        return _described_before(trials, target)
    return {
        mouse: f"{one['trials']} trials, {one['neurons']} neurons, hash {one['hash']}"
        for mouse, one in fingerprint(trials, target).items()
    }


def _labels(trials: Trials, mouse: str, places: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Names of labels, and the labels as they enter a hash."""
    for name, values in _values_of_labels(trials, mouse, places):
        yield name, f"\0{name}\0".encode() + "\0".join(map(str, values)).encode()


def _values_of_labels(trials: Trials, mouse: str, places: np.ndarray) -> Iterator[tuple[str, Any]]:
    if trials._names_images(mouse):
        yield "image_id", trials[places].image_ids
    yield "tier", trials.tiers[places]
    ids = trials.neuron_labels(mouse).get("neuron")
    if ids is not None:
        yield "neuron", ids
    positions = trials.positions(mouse)
    if positions is not None:
        yield "position", np.asarray(positions, np.float64).ravel()
    yield "behavior", trials.behavior_names(mouse) or ()
    yield "frame_rate", [trials.frame_rate(mouse)]


def _stimuli(trials: Trials, mouse: str, places: np.ndarray) -> Iterator[np.ndarray]:
    """Images, or frames, of all trials, or of some where they are many, in blocks."""
    recorded = trials._recordings[mouse].variables["stimuli"]
    first = fold_time(trials[places[:1]], None)[:1].get("stimuli", mouse)
    n_frames = trials._recordings[mouse].sizes.get("time", 1)
    if first.nbytes * n_frames * len(places) > _WHOLE_BYTES:
        places = places[:: -(-len(places) // _SAMPLED)]
    shown = fold_time(trials[places], None)
    larger = max(first.nbytes, recorded.dtype.itemsize * math.prod(recorded.shape[-3:]))
    step = max(1, _BLOCK_BYTES // larger)  # of what is recorded, where that is the larger
    for start in range(0, len(shown), step):
        yield shown[start : start + step].get("stimuli", mouse)


def _described_before(trials: Trials, target: Responses) -> dict[str, str]:
    """Describe recordings as versions did whose checkpoints and studies may go on."""
    found = {}
    image_ids, n_neurons = trials.image_ids, trials.n_neurons
    for mouse in trials.mice:
        places, _ = trials.rows(mouse)
        digest = hashlib.blake2b("\0".join(map(str, image_ids[places])).encode(), digest_size=6)
        step = BLOCK if trials.n_frames is None else 1  # a movie is long
        for start in range(0, len(places), step):
            block = target[places[start : start + step]].get(mouse)
            digest.update(np.ascontiguousarray(block, dtype="<f4").tobytes())
        for place in places[:: -(-len(places) // 64)]:
            one = trials[[place]].get("stimuli", mouse)
            digest.update(np.ascontiguousarray(one).tobytes())
        if trials.behavior_names(mouse) is not None:
            behaviors = np.asarray(trials.get("behaviors", mouse), dtype="<f8")
            digest.update(np.ascontiguousarray(behaviors).tobytes())
        n = n_neurons[mouse] or target[places[:1]].get(mouse).shape[1]
        found[mouse] = f"{len(places)} trials, {n} neurons, hash {digest.hexdigest()}"
    return found

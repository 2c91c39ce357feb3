"""A mark of recordings, so that what was begun on some does not go on with others."""

from __future__ import annotations

import hashlib

import numpy as np

from v1tlearn.trials._reading import BLOCK
from v1tlearn.trials.responses import Responses
from v1tlearn.trials.trials import Trials

_HASHED = 64  # trials per mouse, evenly spaced, whose images are hashed
_SAMPLED = 8  # of which a label for people is made


def describe_recording(trials: Trials, target: Responses) -> dict[str, str]:
    """Describe the recording of each mouse by its size and a hash."""
    found = {}
    image_ids, n_neurons = trials.image_ids, trials.n_neurons
    for mouse in trials.mice:
        places, _ = trials.rows(mouse)
        digest = hashlib.blake2b("\0".join(map(str, image_ids[places])).encode(), digest_size=6)
        for start in range(0, len(places), BLOCK):
            block = target[places[start : start + BLOCK]].get(mouse)
            digest.update(np.ascontiguousarray(block, dtype="<f4").tobytes())
        some = trials[places[:: -(-len(places) // _HASHED)]]
        digest.update(np.ascontiguousarray(some.get("stimuli", mouse)).tobytes())
        if trials.behavior_names(mouse) is not None:
            behaviors = np.asarray(trials.get("behaviors", mouse), dtype="<f8")
            digest.update(np.ascontiguousarray(behaviors).tobytes())
        n = n_neurons[mouse] or target[places[:1]].get(mouse).shape[1]
        found[mouse] = f"{len(places)} trials, {n} neurons, hash {digest.hexdigest()}"
    return found


def fingerprint(trials: Trials, target: Responses) -> dict[str, dict[str, int | str]]:
    """Tell the recording of each mouse from others by some of its trials, as a label for people.

    A hash of the labels of all images, where they have names, and of stimuli and responses of a few
    trials, evenly spaced, so that it costs next to nothing.
    """
    found: dict[str, dict[str, int | str]] = {}
    for mouse in trials.mice:
        places, _ = trials.rows(mouse)
        digest = hashlib.blake2b(digest_size=8)
        if trials._names_images(mouse):
            ids = trials[places].image_ids
            digest.update("\0".join(map(str, ids)).encode())
        some = places[:: -(-len(places) // _SAMPLED)]
        for values in (trials[some].get("stimuli", mouse), target[some].get(mouse)):
            digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
        found[mouse] = {"trials": len(places), "hash": digest.hexdigest()}
    return found

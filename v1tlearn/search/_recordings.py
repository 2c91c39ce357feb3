"""What a study notes of the recordings it was begun on, so that others are not mixed with them."""

from __future__ import annotations

import hashlib

import numpy as np

from v1tlearn.trials import Responses, Trials

_HASHED = 64  # trials per mouse, evenly spaced, whose responses are hashed


def describe_recording(trials: Trials, target: Responses) -> dict[str, str]:
    """Describe the recording of each mouse by its size and a hash.

    Parameters
    ----------
    trials : Trials
        The recordings.
    target : Responses
        Of the same trials.

    Returns
    -------
    dict of str to str
        Per mouse; the hash is one of the ids of all images and of the responses of some trials, so
        of their order, too.
    """
    found = {}
    image_ids, n_neurons = trials.image_ids, trials.n_neurons
    for mouse in trials.mice:
        places, _ = trials.rows(mouse)
        digest = hashlib.blake2b("\0".join(map(str, image_ids[places])).encode(), digest_size=6)
        some = target[places[:: -(-len(places) // _HASHED)]].get(mouse)
        digest.update(np.ascontiguousarray(some, dtype="<f4").tobytes())
        size = f"{len(places)} trials, {n_neurons[mouse]} neurons"
        found[mouse] = f"{size}, hash {digest.hexdigest()}"
    return found

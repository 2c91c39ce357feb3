"""Ids of stimuli that bear none: hashes of what they show."""

from __future__ import annotations

import hashlib

import numpy as np
import xarray as xr

from v1tlearn.datasets.blocks import blocks_in_time
from v1tlearn.datasets.time_axis import frames_of, is_movie
from v1tlearn.trials._reading import BLOCK


def content_hashes(recording: xr.Dataset) -> np.ndarray:
    """One hash for each trial of a recording, the same for stimuli that are the same."""
    if is_movie(recording):
        return _hashes_of_movies(recording)
    stimuli = recording.variables["stimuli"]
    n = recording.sizes["trial"]
    hashes = []
    for start in range(0, n, BLOCK):
        # in one dtype: an image is the same whether a mouse's file holds integers or floats
        with np.errstate(over="ignore"):  # such images are refused where they are used
            images = np.asarray(stimuli[start : start + BLOCK]).astype(np.float32)
        for image in images:
            hashes.append(hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest())
    return np.asarray(hashes, dtype=str)


def _hashes_of_movies(recording: xr.Dataset) -> np.ndarray:
    """Of the frames that each movie has, block by block."""
    counts = frames_of(recording)
    digests = [hashlib.blake2b(digest_size=8) for _ in counts]
    stimuli = xr.DataArray(recording.variables["stimuli"])
    for trial, start, block in blocks_in_time(stimuli):
        with np.errstate(over="ignore"):
            frames = block[: max(0, counts[trial] - start)].astype(np.float32)
        digests[trial].update(frames.tobytes())
    return np.asarray([digest.hexdigest() for digest in digests], dtype=str)

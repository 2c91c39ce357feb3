"""Arrays that are larger than memory, block by block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

_BLOCK_BYTES = 8 * 2**20


def blocks(
    array: xr.DataArray, block_bytes: int = _BLOCK_BYTES
) -> Iterator[tuple[int, np.ndarray]]:
    """Read an array along its first dimension in blocks, so that it is never whole in memory.

    Parameters
    ----------
    array : DataArray (trial, ...)
        Lazy or not.
    block_bytes : int, default=8 MiB
        About how large a block is.

    Yields
    ------
    start : int
        Position of the block's first trial.
    block : ndarray
        The values, in memory; at least one trial.
    """
    n_trials = array.shape[0]
    per_trial = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:])))
    step = max(1, block_bytes // per_trial)
    for start in range(0, n_trials, step):
        yield start, array[start : start + step].values


def blocks_in_time(
    array: xr.DataArray, block_bytes: int = _BLOCK_BYTES
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Read movies trial by trial, each in blocks of frames, so that none is whole in memory.

    Parameters
    ----------
    array : DataArray (trial, time, ...)
        Lazy or not.
    block_bytes : int, default=8 MiB
        About how large a block is.

    Yields
    ------
    trial : int
        Position of the trial.
    start : int
        Position of the block's first frame.
    block : ndarray
        Frames of this trial, in memory; at least one.
    """
    n_trials, n_frames = array.shape[:2]
    per_frame = max(1, array.dtype.itemsize * int(np.prod(array.shape[2:])))
    step = max(1, block_bytes // per_frame)
    for trial in range(n_trials):
        for start in range(0, n_frames, step):
            yield trial, start, array[trial, start : start + step].values

"""Reader of the layout of Sensorium 2023: movies, and behaviour and responses over time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from v1tlearn._values import plain
from v1tlearn._warn import warn
from v1tlearn.datasets.schema import check_read, files_named
from v1tlearn.datasets.sensorium.find import MOVIES
from v1tlearn.datasets.sensorium.movie_mouse import read_movie_mouse
from v1tlearn.datasets.sensorium.read import as_tree, named_mice


def read_sensorium2023(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    names: Sequence[str] | Mapping[str, str] | None = None,
    cache: str | os.PathLike | None = None,
    *,
    frame_rate: float = 30.0,
) -> xr.DataTree:
    """Open recordings in the Sensorium 2023 layout, without unpacking or loading the movies.

    Parameters
    ----------
    path, names, cache
        As for `read_sensorium`; a mouse is known by its folder ``data/videos``, and by default
        called "29156-11-10" for ``dynamic29156-11-10-Video-...``. With a cache, parts of movies are
        read without the rest of them.
    frame_rate : float, default=30
        Frames per second of all files. They do not tell it; videos were shown at 30 Hz, and
        behaviour and responses brought to that rate.

    Returns
    -------
    DataTree
        One child per mouse with `stimuli` (trial, time, channel, height, width), grey levels in
        uint8 if stored so and otherwise float32; `behaviors` (trial, time, behavior) and
        `responses` (trial, time, neuron), float32; `n_frames` (trial) and `time` in seconds;
        `position` (neuron, axis) in micrometres; labels of trials and neurons; statistics of the
        training tier. Trials stay in file order. Movies, behaviour and responses are read from the
        files whenever they are indexed, trial by trial.

    Raises
    ------
    FileNotFoundError, OSError
        As `read_sensorium` does.
    ValueError
        As `read_sensorium` does, naming mouse and file; and, at the latest when a trial is read, if
        its files end at different frames, or hold NaN before the end.

    Warns
    -----
    UserWarning
        Once, naming all that is left out: other files and folders, and trials whose tier has
        another name than those of the release.

    See Also
    --------
    read_sensorium : The layout of images; tells of names, the cache, and what is passed over.
    save_recordings : Keeps what was read in one file, of which parts of movies are read faster.

    Notes
    -----
    Files ``data/videos/{trial}.npy`` are (height, width, time), those of ``behavior`` (pupil
    dilation and running speed), ``pupil_center`` and ``responses`` (columns or neurons, time).
    Trials that are shorter than the longest are padded by NaN. A trial ends behind the last frame
    in which any number of behaviour or pupil centre is known, which is looked up at once; without
    these, of the responses. The other files have to end there, too.

    Tiers are read as `read_sensorium` does it, "oracle" as validation, ``"live_..."`` as test, and
    ``"final_..."`` as final_test, their own names kept in `trial_tier`. Responses of a test tier
    that are all zero were withheld for the competition and read as NaN.

    The files do not tell which movies are the same: `Trials` compares their content where repeats
    matter, which reads all movies once.

    References
    ----------
    Turishcheva et al. 2023, The dynamic Sensorium competition for predicting large-scale mouse
    visual cortex activity from videos, arXiv:2305.19654.
    """
    frame_rate = plain(frame_rate)
    if isinstance(frame_rate, bool) or not 0 < frame_rate < np.inf:
        raise ValueError(f"frame_rate is {frame_rate}: expected frames per second, above 0.")
    told: list[str] = []
    found = named_mice(path, names, "read_sensorium2023", MOVIES, told)
    with files_named(path):
        datasets = {
            name: read_movie_mouse(name, files, frame_rate, told) for name, files in found.items()
        }
    check_read(path, datasets)
    if told:
        warn(f"read_sensorium2023 left out: {'; '.join(told)}.")
    return as_tree(datasets, found, cache)

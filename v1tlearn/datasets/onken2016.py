"""Reader of recordings of the salamander retina to movies (Onken et al. 2016)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn._instead import path_of
from v1tlearn._opening import no_folder
from v1tlearn._values import plain
from v1tlearn.datasets.mat_structs import read_cells
from v1tlearn.datasets.movie_frames import RawMovie, ShownMovies
from v1tlearn.datasets.outlines import receptive_fields_from_outlines
from v1tlearn.datasets.schema import DIMS, STIMULI_ATTRS, check_read
from v1tlearn.datasets.sensorium.folder_files import find_entry
from v1tlearn.datasets.spike_times import bin_spikes
from v1tlearn.datasets.time_axis import pad, time_coordinate, with_time

logger = logging.getLogger(__name__)

ONKEN_2016 = {
    "Movie1Exp1": (1, 1),
    "Movie2Exp2": (1, 2),
    "Movie2Exp1": (2, 1),
    "Movie1Exp2": (2, 2),
}
"""File: (movie, recording), as the table in the data set has it. The names of the last two files
seem to say otherwise; the table stands."""

_MATLAB_FIRST = 1.0  # where the centre of the first pixel lies
_MILLISECONDS = 1000.0


def read_onken2016(
    folder: str | os.PathLike,
    files: Sequence[str] | None = None,
    *,
    frame_rate: float = 30.0,
    table: Mapping[str, tuple[int, int]] | None = None,
    grid: tuple[int, int] | None = (16, 16),
    frame_shape: tuple[int, int] = (360, 360),
) -> xr.DataTree:
    """Open recordings of salamander retinal ganglion cells to movies (Onken et al. 2016).

    Parameters
    ----------
    folder : path
        The unpacked data set, with ``NeuralData/Spikes/Movie1Exp1.mat`` ... (`Spikes`, a cell array
        (neurons, trials) of times in milliseconds after stimulus onset),
        ``NeuralData/ReceptiveFields/`` with files of the same names (`ReceptiveFields`, a cell
        array of outlines (2, points), x and y in pixels of the image), and ``Stimuli/Movie1/``,
        ``Stimuli/Movie2/``, a file of raw uint8 for each frame, with its number in the name.
    files : sequence of str, optional
        Names of the files of spikes that are read, without ".mat"; all of the table by default.
    frame_rate : float, default=30
        Frames per second. The data set does not tell it.
    table : mapping from file to (movie, recording), optional
        Which movie a file is of, and which recording. By default that of the data set: Movie1Exp1
        is recording 1 to movie 1, Movie2Exp2 recording 2 to movie 1, Movie2Exp1 recording 1 to
        movie 2, Movie1Exp2 recording 2 to movie 2.
    grid : (int, int) or None, default=(16, 16)
        Rows and columns of the maps of receptive fields; None reads none.
    frame_shape : tuple of int, default=(360, 360)
        Height and width of the frames in pixels.

    Returns
    -------
    DataTree
        One child per recording, "recording1", "recording2", with `stimuli`
        (trial, time, channel, height, width), uint8, read from the frames when and as far as they
        are indexed; `responses` (trial, time, neuron), float32, spikes per frame; `image_id`
        ("movie1", "movie2") of trials, in the order of movies, then trials; `n_frames`, `time`;
        `neuron`, counted from 1 as the cells of the files; and `receptive_field`
        (neuron, row, column), the share of each cell of the grid that the outline fills.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If a folder or file is missing, or a file is where the folder is expected.
    ValueError
        Naming the file: damaged files, cells of version 7.3, files of one recording that differ in
        their neurons or receptive fields, frames that are missing or of another size.

    Notes
    -----
    Bin i holds the spikes from ``i / frame_rate`` seconds after onset, included, to
    ``(i + 1) / frame_rate``. Spikes ahead of onset or behind the last frame are left out; their
    number is the attribute `n_spikes_left_out` of `responses`.

    Matrices of frames are as MATLAB's ``fread`` gives them, their first index the row. Outlines are
    taken as x along the columns and y down the rows, counted from 1.

    No tiers are set: choose by movie, ``trials.sel(image_id="movie1")``, or by
    `model_selection.split_in_time`. Files lie in the Dryad repository under the address below,
    behind a page, so that there is no function that downloads them.

    References
    ----------
    Onken et al. 2016, Using matrix and tensor factorizations for the single-trial analysis of
    population spike trains, PLOS Computational Biology; https://doi.org/10.5061/dryad.4ch10.
    """
    root = Path(path_of("folder", folder, "read_onken2016(folder)"))
    if not root.is_dir():
        raise no_folder(root, f"{root} is no folder: expected the unpacked data set.")
    if not 0 < plain(frame_rate) < np.inf:
        raise ValueError(f"frame_rate is {frame_rate}: expected frames per second, above 0.")
    known = dict(ONKEN_2016 if table is None else table)
    wanted = list(known) if files is None else [files] if isinstance(files, str) else list(files)
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(
            f"files holds {unknown}, the table knows {list(known)}: add them to the table, "
            "{file: (movie, recording)}"
        )
    shape = int(frame_shape[0]), int(frame_shape[1])
    movies = {
        movie: RawMovie.open(_found(root, f"Stimuli/Movie{movie}"), shape)
        for movie in sorted({known[name][0] for name in wanted})
    }
    recordings: dict[int, dict[int, str]] = {}
    for name in wanted:
        movie, recording = known[name]
        if movie in recordings.setdefault(recording, {}):
            raise ValueError(
                f"{recordings[recording][movie]} and {name} are both recording {recording} to "
                f"movie {movie} in the table: expected one file of each"
            )
        recordings[recording][movie] = name
    datasets = {
        f"recording{number}": _recording(root, own, movies, plain(frame_rate), grid, shape)
        for number, own in sorted(recordings.items())
    }
    check_read([root], datasets)
    return xr.DataTree(children={name: xr.DataTree(ds) for name, ds in datasets.items()})


def _recording(
    root: Path,
    files: Mapping[int, str],
    movies: Mapping[int, RawMovie],
    frame_rate: float,
    grid: tuple[int, int] | None,
    shape: tuple[int, int],
) -> xr.Dataset:
    """One recording: its files, {movie: name}, one behind the other."""
    responses, shown, left_out = [], [], 0
    own = sorted(files)
    for place, movie in enumerate(own):
        path = _found(root, f"NeuralData/Spikes/{files[movie]}.mat")
        trains = read_cells(path, "Spikes")
        if 0 in trains.shape or trains.ndim != 2:
            raise ValueError(f"{path}: Spikes has shape {trains.shape}, expected (neurons, trials)")
        n_frames = len(movies[movie].paths)
        edges = np.arange(n_frames + 1) * (_MILLISECONDS / frame_rate)
        try:
            counts = bin_spikes(trains, edges, outside="drop")  # (neuron, trial, frame)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        left_out += sum(train.size for train in trains.flat) - int(counts.sum())
        responses += list(counts.transpose(1, 2, 0).astype(np.float32))
        shown += [place] * trains.shape[1]
    n_neurons = {len(one.T) for one in responses}
    if len(n_neurons) > 1:
        raise ValueError(
            f"{root}: {', '.join(files.values())} are one recording in the table, but hold "
            f"{sorted(n_neurons)} neurons: correct the table, or read them one by one, files=[...]"
        )
    logger.info("%s: %d spikes outside of the movies are left out", root, left_out)
    counts = np.array([len(one) for one in responses])
    attrs = {
        "long_name": "spike count per frame",
        "units": "1",
        "n_spikes_left_out": left_out,
    }
    stimuli = indexing.LazilyIndexedArray(
        ShownMovies([movies[movie] for movie in own], np.array(shown))
    )
    variables: dict[str, Any] = {
        "stimuli": xr.Variable(with_time(DIMS["stimuli"]), stimuli, STIMULI_ATTRS),
        "responses": (
            with_time(DIMS["responses"]),
            pad(responses, int(counts.max()), np.nan),
            attrs,
        ),
    }
    n = n_neurons.pop()
    if grid is not None:
        variables["receptive_field"] = (
            ("neuron", "row", "column"),
            _fields(root, list(files.values()), n, grid, shape),
        )
    coords = {
        "image_id": ("trial", np.array([f"movie{own[place]}" for place in shown])),
        "n_frames": ("trial", counts),
        "time": time_coordinate(int(counts.max()), frame_rate),
        "neuron": ("neuron", np.arange(1, n + 1)),
    }
    return xr.Dataset(variables, coords)


def _fields(
    root: Path, names: Sequence[str], n_neurons: int, grid: tuple[int, int], shape: tuple[int, int]
) -> np.ndarray:
    """Maps of the receptive fields, which all files of a recording have to share."""
    first: np.ndarray | None = None
    for name in names:
        path = _found(root, f"NeuralData/ReceptiveFields/{name}.mat")
        outlines = read_cells(path, "ReceptiveFields").reshape(-1)
        if len(outlines) != n_neurons:
            raise ValueError(
                f"{path}: ReceptiveFields of {len(outlines)} cells, Spikes of {n_neurons}; expected"
                " an outline for each: copy or download it again, or pass grid=None"
            )
        try:
            maps = receptive_fields_from_outlines(
                outlines, shape, (int(grid[0]), int(grid[1])), first_pixel=_MATLAB_FIRST
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if first is not None and not np.array_equal(first, maps):
            raise ValueError(
                f"{path}: receptive fields differ from those of {names[0]}, though both are one "
                "recording in the table: correct the table, or read them one by one, files=[...]"
            )
        first = maps
    assert first is not None
    return first


def _found(root: Path, name: str) -> Path:
    path = find_entry(root, name)
    if path is None:
        raise FileNotFoundError(f"{root}/{name} is missing: expected the unpacked data set.")
    return path

"""Reader of MATLAB files that hold a stimulus and the spikes to it, both in bins of time."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn._instead import path_of
from v1tlearn._values import plain
from v1tlearn.datasets.given_files import check_there
from v1tlearn.datasets.mat_files import read_mat
from v1tlearn.datasets.mat_structs import names_in
from v1tlearn.datasets.movie_frames import MovieInMemory, ShownMovies
from v1tlearn.datasets.schema import DIMS, STIMULI_ATTRS, check_read
from v1tlearn.datasets.time_axis import pad, time_coordinate, with_time

_STIMULUS_DIMS = ("height", "width", "channel", "time", "trial")
_SPIKES_DIMS = ("neuron", "time", "trial")


def read_stimulus_spikes(
    files: str | os.PathLike | Mapping[str, str | os.PathLike],
    bin_seconds: float,
    *,
    stimulus: str = "stimulus*",
    spikes: str = "spikes*",
    stimulus_dims: Sequence[str] = ("height", "width", "time", "trial"),
    spikes_dims: Sequence[str] = ("neuron", "time", "trial"),
    bins_per_frame: int = 1,
    name: str = "recording",
) -> xr.DataTree:
    """Read stimuli and spike counts that MATLAB files hold in bins of time.

    Parameters
    ----------
    files : path or mapping from tier to path
        A MATLAB file, or one per tier ("train", "validation", "test", "final_test").
    bin_seconds : float
        Duration of a bin in seconds.
    stimulus, spikes : str, default="stimulus*", "spikes*"
        Names of the arrays in the files, or patterns, as of file names, that one name fits.
    stimulus_dims : sequence of str, default=("height", "width", "time", "trial")
        Dimensions of the stimulus as MATLAB shows them, "channel" possibly among them. A stimulus
        without the last one, "trial", is the same in all trials: these are its repeats.
    spikes_dims : sequence of str, default=("neuron", "time", "trial")
        Dimensions of the spike counts. Without the last one there is one trial.
    bins_per_frame : int, default=1
        Bins that make one frame: spikes are summed up, the stimulus is averaged.
    name : str, default="recording"
        What the recording is called.

    Returns
    -------
    DataTree
        One child with `stimuli` (trial, time, channel, height, width), uint8 where the file has it
        and bins are frames, otherwise float32; `responses` (trial, time, neuron), float32, spikes
        per frame; `time` in seconds, `n_frames`, and `image_id`, the same where stimuli are the
        same; `tier`, if `files` names it. Trials are in the order of the files.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    TypeError, ValueError
        Naming the file and the array: no array of the name or several, other dimensions, numbers of
        bins, trials or neurons that do not fit each other, counts that are negative or infinite,
        bins that do not fill the last frame.

    Examples
    --------
    The retina of Mahuas et al. (2020): 50 sequences shown once, and one shown 54 times.

    >>> recordings = read_stimulus_spikes(
    ...     {"train": "nonrepeat_data_bars.mat", "test": "test_data_bars.mat"},
    ...     bin_seconds=1 / 600, bins_per_frame=10)  # doctest: +SKIP
    """
    given = files if isinstance(files, Mapping) else {None: files}
    if not given:
        raise ValueError("files is empty: expected at least one path")
    call = 'read_stimulus_spikes({"train": path}, bin_seconds)'
    paths = {tier: Path(path_of("files", one, call)) for tier, one in given.items()}
    check_there(paths.values(), "MATLAB")
    bin_seconds, bins_per_frame = plain((bin_seconds, bins_per_frame))
    if isinstance(bin_seconds, bool) or not 0 < bin_seconds < np.inf:
        raise ValueError(f"bin_seconds is {bin_seconds}: expected seconds, above 0.")
    if not isinstance(bins_per_frame, int) or bins_per_frame < 1:
        raise ValueError(f"bins_per_frame is {bins_per_frame!r}: expected a whole number from 1 on")
    _check_dims("stimulus_dims", stimulus_dims, _STIMULUS_DIMS, {"height", "width", "time"})
    _check_dims("spikes_dims", spikes_dims, _SPIKES_DIMS, {"neuron", "time"})
    shown: list[MovieInMemory] = []
    responses: list[np.ndarray] = []
    tiers: list[str] = []
    for tier, path in paths.items():
        array = _Array(path, spikes, spikes_dims)
        counts = array.ordered(("trial", "time", "neuron"))
        array.check_counts(counts)
        movies = _Array(path, stimulus, stimulus_dims).ordered(with_time(DIMS["stimuli"]))
        for axis, what in enumerate(("trials", "bins")):
            have, need = movies.shape[axis], counts.shape[axis]
            if have != need and not (axis == 0 and have == 1):  # one stimulus, many repeats
                array.refuse(
                    f"{array.name} has {need} {what}, the stimulus {have}",
                    f"as many {what} of both, or one stimulus for all trials",
                )
        if counts.shape[1] % bins_per_frame:
            array.refuse(
                f"{counts.shape[1]} bins do not make whole frames of {bins_per_frame} bins",
                "another bins_per_frame",
            )
        averaged = [MovieInMemory(_averaged(movie, bins_per_frame)) for movie in movies]
        shown += averaged * (len(counts) // len(averaged))
        responses += [_summed(one, bins_per_frame) for one in counts]
        tiers += [str(tier)] * len(counts)
        if responses[0].shape[1:] != counts.shape[2:]:
            array.refuse(
                f"{array.name} has {counts.shape[2]} neurons, the first file "
                f"{responses[0].shape[1]}",
                "the same neurons in all files",
            )
        if shown[0].shape[1:] != shown[-1].shape[1:]:
            array.refuse(
                f"its stimulus has frames {shown[-1].shape[1:]}, that of the first file "
                f"{shown[0].shape[1:]}",
                "frames (channel, height, width) of one shape",
            )
    dataset = _dataset(shown, responses, bin_seconds * bins_per_frame)
    if isinstance(files, Mapping):
        dataset = dataset.assign_coords(tier=("trial", np.array(tiers)))
    told = [*files.values()] if isinstance(files, Mapping) else [files]
    check_read(told, {name: dataset}, check_values=True)
    return xr.DataTree(children={name: xr.DataTree(dataset)})


class _Array:
    """An array of a file, whose dimensions have names."""

    def __init__(self, path: Path, pattern: str, dims: Sequence[str]):
        self.path = path
        names = names_in(path)
        found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if len(found) != 1:
            raise ValueError(
                f"{path}: {pattern!r} fits {found or 'nothing'} of the arrays {names}; expected one"
                ": name it"
            )
        (self.name,) = found
        self.values = read_mat(path, self.name).values
        missing = len(dims) - self.values.ndim
        # MATLAB drops trailing dimensions of length 1.
        self.dims = tuple(dims[: self.values.ndim])
        if missing < 0 or missing > 1 or (missing == 1 and dims[-1] != "trial"):
            self.refuse(f"{self.name} has shape {self.values.shape}", f"dimensions {tuple(dims)}")
        if 0 in self.values.shape:
            self.refuse(f"{self.name} is empty, shape {self.values.shape}", "one of each at least")

    def refuse(self, what: str, expected: str) -> NoReturn:
        raise ValueError(f"{self.path}: {what}; expected {expected}")

    def ordered(self, dims: Sequence[str]) -> np.ndarray:
        """Turn dimensions into an order; those that are missing have the length 1."""
        there = [dim for dim in dims if dim in self.dims]
        turned = self.values.transpose([self.dims.index(dim) for dim in there])
        return turned[tuple(slice(None) if dim in there else None for dim in dims)]

    def check_counts(self, counts: np.ndarray) -> None:
        """Refuse what cannot be numbers of spikes; NaN is "not recorded"."""
        if counts.dtype.kind == "f" and np.isinf(counts).any():
            self.refuse(f"{self.name} holds Inf", "counts, or NaN where not recorded")
        if counts.dtype.kind != "u" and (counts < 0).any():
            self.refuse(f"{self.name} holds negative numbers", "counts of spikes from 0 on")


def _averaged(movie: np.ndarray, bins: int) -> np.ndarray:
    """Frames (time, channel, height, width) from bins."""
    dtype = np.uint8 if movie.dtype == np.uint8 and bins == 1 else np.float32
    if bins == 1:
        return np.ascontiguousarray(movie, dtype)
    return movie.reshape(-1, bins, *movie.shape[1:]).mean(axis=1, dtype=np.float64).astype(dtype)


def _summed(counts: np.ndarray, bins: int) -> np.ndarray:
    """Counts (time, neuron) of frames, from those of bins; NaN where any bin is."""
    return counts.reshape(-1, bins, counts.shape[1]).sum(axis=1, dtype=np.float64).astype("f4")


def _dataset(
    shown: Sequence[MovieInMemory], responses: Sequence[np.ndarray], seconds: float
) -> xr.Dataset:
    counts = np.array([len(one) for one in responses])
    longest = int(counts.max())
    numbers: dict[bytes, int] = {}
    ids = np.array([numbers.setdefault(_digest(movie), len(numbers)) for movie in shown])
    _, first = np.unique(ids, return_index=True)
    stimuli = indexing.LazilyIndexedArray(ShownMovies([shown[trial] for trial in first], ids))
    attrs = {"long_name": "spike count per frame", "units": "1"}
    variables: dict[str, Any] = {
        "stimuli": xr.Variable(
            with_time(DIMS["stimuli"]), stimuli, STIMULI_ATTRS | {"long_name": "stimulus"}
        ),
        "responses": (with_time(DIMS["responses"]), pad(responses, longest, np.nan), attrs),
    }
    coords = {
        "image_id": ("trial", ids),
        "n_frames": ("trial", counts),
        "time": time_coordinate(longest, 1 / seconds),
        "neuron": ("neuron", np.arange(1, responses[0].shape[1] + 1)),
    }
    return xr.Dataset(variables, coords)


def _digest(movie: MovieInMemory) -> bytes:
    return hashlib.blake2b(movie.values.tobytes() + str(movie.shape).encode()).digest()


def _check_dims(what: str, dims: Sequence[str], known: Sequence[str], needed: set[str]) -> None:
    strangers = [dim for dim in dims if dim not in known]
    if isinstance(dims, str) or strangers or len(set(dims)) != len(dims) or needed - set(dims):
        raise ValueError(
            f"{what} is {dims!r}: expected {', '.join(sorted(needed))} and possibly others of "
            f"{', '.join(known)}, each once"
        )
    if "trial" in dims and dims[-1] != "trial":
        raise ValueError(f"{what} is {dims!r}: expected 'trial' as the last one")

"""Reader of the Sensorium 2022 / Franke 2022 layout: finds the mice in folders and zips."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from v1tlearn._instead import path_of
from v1tlearn._warn import warn
from v1tlearn.datasets.schema import check_read, files_named
from v1tlearn.datasets.sensorium.cache import cached_trials
from v1tlearn.datasets.sensorium.find import IMAGES, find_mice
from v1tlearn.datasets.sensorium.folder_files import FolderFiles
from v1tlearn.datasets.sensorium.mouse import read_mouse
from v1tlearn.datasets.sensorium.zip_files import ZipFiles


def read_sensorium(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    names: Sequence[str] | Mapping[str, str] | None = None,
    cache: str | os.PathLike | None = None,
) -> xr.DataTree:
    """Open recordings in the Sensorium 2022 / Franke 2022 layout, without unpacking or loading.

    Parameters
    ----------
    path : path or sequence of paths
        A mouse (its folder, or a zip of the folder or of its content), a folder of such folders
        and zips, up to four levels deep, or a list of any of these. Where a folder holds both a
        mouse's folder and its zip, the folder is read.
    names : sequence of str or mapping from data key to str, optional
        Names of the mice: in the order of the recordings, or by data key. Without it a mouse is
        called by its data key, "21067-10-18" for `static21067-10-18-GrayImageNet-...`, or else by
        the name of its folder or zip.
    cache : path, optional
        A folder, made if missing, that keeps the trials of each recording in an uncompressed
        netCDF store: written when a recording is first read, opened from then on, with the same
        result. Without it nothing is written.

    Returns
    -------
    DataTree
        One child per mouse with `stimuli` (trial, channel, height, width), grey levels in uint8
        if stored so and otherwise float32; `behaviors` (trial, behavior) and `responses`
        (trial, neuron), float32; `position` (neuron, axis) in micrometres; labels of trials and
        neurons; statistics of the training tier. Trials stay in file order; `trial_id` gives the
        order in time. Arrays are read from the files whenever, and only as far as, they are
        indexed; call ``.load()`` to keep them.

    Raises
    ------
    FileNotFoundError
        If a path does not exist.
    ValueError
        Naming the mouse and the file: truncated zips, names that a zip has twice, encrypted
        members; missing, misnumbered or damaged files, pipes and devices in their place; images
        whose channels come last; shapes or numbers of trials that differ, arrays of pickled
        objects; a source that changes while it is read into the cache.
    OSError
        If a file may not be read, the cache is no folder, or the trials do not fit on its disk.

    Warns
    -----
    UserWarning
        Once, naming all that is left out or read as something else: files, folders and zips beside
        the mice that are none; files among the trials that are not numbered; tiers by other names.

    Notes
    -----
    A store in the cache is used as long as these are as they were when it was written: the path of
    the source; of a zip, its size, times of change (in nanoseconds) and central directory, which
    holds the names, sizes and checksums of all members; of a folder, the names, sizes and times of
    change of all files below `data` and `meta`, and the content of `config.json`; the version of
    the store's format. Otherwise it is written anew, and the old one removed. A store bears
    checksums: one that is damaged is written anew, or refused where a trial is read. Labels and
    statistics always come from the source, which has to stay in place. A store gets its name when
    it is complete, so several processes may share a cache, and one that is killed leaves at most
    a hidden file, which the next writer removes.

    Names of files count in any case, with either slash, and what operating systems leave behind
    (hidden files, ``__MACOSX``, ``Thumbs.db``, ``desktop.ini``) is passed over. Labels that are
    bytes are read as text. Tiers of later releases are read as those of this one, their own names
    kept in `trial_tier`: "oracle" as validation, "live_test_main", "live_test_bonus", "live_main",
    "live_bonus" as test, "final_test_1", "final_test_main" and the like as final_test; trials of
    any other, such as "none", are left out.

    Responses of a test tier that are all zero were withheld for a competition and read as NaN.
    Other arrays in `meta/trials` and `meta/neurons` become coordinates `trial_...`, `neuron_...`;
    statistics of the frames with a stimulus end in `_stimulus_frame`.

    References
    ----------
    Willeke et al. 2022, The Sensorium competition, arXiv:2206.08666; Franke et al. 2022, Nature.
    """
    told: list[str] = []
    found = named_mice(path, names, "read_sensorium", IMAGES, told)
    with files_named(path):
        datasets = {name: read_mouse(name, files, told) for name, files in found.items()}
    check_read(path, datasets)
    if told:
        warn(
            f"read_sensorium left out, or read otherwise: {'; '.join(told)}.",
        )
    return as_tree(datasets, found, cache)


def as_tree(
    datasets: dict[str, xr.Dataset],
    found: dict[str, FolderFiles | ZipFiles],
    cache: str | os.PathLike | None,
) -> xr.DataTree:
    """Return recordings as a tree, their trials read from stores in a folder where one is given."""
    if cache is not None:
        datasets = {
            name: cached_trials(name, dataset, found[name], Path(cache))
            for name, dataset in datasets.items()
        }
    tree = xr.DataTree(children={name: xr.DataTree(ds) for name, ds in datasets.items()})
    if cache is not None:
        for name, dataset in datasets.items():  # which xarray forgets
            tree.children[name].set_close(dataset.close)
    return tree


def named_mice(
    path: Any,
    names: Sequence[str] | Mapping[str, str] | None,
    reader: str,
    stimuli: str,
    told: list[str],
) -> dict[str, FolderFiles | ZipFiles]:
    """Return the files of the mice by their names, for the reader of a name.

    What is none is added to `told`.
    """
    given: Any = path
    if isinstance(path, str | os.PathLike | xr.DataTree | xr.Dataset | Mapping):
        given = [path]
    call = f"{reader}(path) or {reader}([path, ...])"
    paths = [path_of("path", one, call) for one in given]
    if not paths:
        raise ValueError("no paths given; expected at least one folder or zip of a mouse")
    found = [mouse for one in paths for mouse in find_mice(one, told, stimuli)]
    mice: dict[str, FolderFiles | ZipFiles] = {}
    for (_, files), name in zip(found, _mouse_names(found, names), strict=True):
        if name in mice:
            raise ValueError(
                f"two recordings are called {name!r}: {mice[name]} and {files}; mouse ids must "
                "be unique: pass names=[...], one per recording, or drop one path"
            )
        mice[name] = files
    return mice


def _mouse_names(
    found: list[tuple[str, FolderFiles | ZipFiles]],
    names: Sequence[str] | Mapping[str, str] | None,
) -> list[str]:
    keys = [key for key, _ in found]
    if names is None:
        return keys
    if isinstance(names, str):
        raise TypeError(f"names must be a list of names or a mapping, got the string {names!r}")
    if isinstance(names, Mapping):
        unknown = sorted(set(names) - set(keys))
        if unknown:
            raise ValueError(
                f"names has entries for {', '.join(unknown)}, which are not among the data keys "
                f"found ({', '.join(keys)})"
            )
        return [names.get(key, key) for key in keys]
    if len(names) != len(keys):
        raise ValueError(
            f"{len(names)} names for {len(keys)} recordings ({', '.join(keys)}); expected one each"
        )
    return list(names)

"""Recordings in one netCDF4 file, a group per mouse: written in blocks, opened lazily."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from v1tlearn._instead import path_of
from v1tlearn._opening import no_file, reading
from v1tlearn._paths import what_lies_at
from v1tlearn._replacing import replacing
from v1tlearn.datasets.attributes import check_attrs, check_fits
from v1tlearn.datasets.checksums import check
from v1tlearn.datasets.given_recordings import recordings_to_dict
from v1tlearn.datasets.netcdf import read_groups, writing
from v1tlearn.datasets.open_files import ReplacedFileError, file_state
from v1tlearn.datasets.schema import validate_recordings
from v1tlearn.datasets.spontaneous import SPONTANEOUS
from v1tlearn.training.memory import InsufficientMemoryError

# Variables that stay on disk until used; labels and statistics are small.
STREAMED = ("stimuli", "responses", "expected_responses", SPONTANEOUS)

# Marks a file that holds responses without stimuli.
RESPONSES_FILE = "v1tlearn responses"

_COMPRESSIONS = ("zlib", None)

_ATTEMPTS = 10  # at a file that is replaced meanwhile


def save_recordings(
    recordings: xr.DataTree | Mapping[str, xr.Dataset] | xr.Dataset,
    path: str | os.PathLike,
    compression: Literal["zlib"] | None = "zlib",
) -> None:
    """Write recordings into one netCDF4 file, one group per mouse.

    Parameters
    ----------
    recordings : DataTree, mapping {mouse: Dataset}, or Dataset
        Several mice, or one: a child of a DataTree, or a dataset whose attribute `mouse_id` names
        it. Read block by block, so lazily opened recordings are never whole in memory.
    path : path
        The file; one that exists is replaced when the new one is complete.
    compression : {"zlib", None}, default="zlib"
        Deflate level 1 with shuffle, a chunk per trial, so that any trial is read on its own; or
        none: trials lie one after the other, which reads fastest. Movies lie in chunks of two
        seconds either way, so that any part of a movie is read on its own.

    Raises
    ------
    ValueError
        If the recordings do not follow the schema, are still open lazily from `path` itself, or
        hold what would not come back: an attribute that is not text, numbers or a list of them;
        a dtype such as float16 or a category, objects that are not all text, a MultiIndex; names
        that start with a sign, hold a slash, are very long or not in the form NFC.
    """
    path = path_of("path", path, "save_recordings(recordings, path)")
    _check_folder(path)
    if compression not in _COMPRESSIONS:
        raise ValueError(f"compression is {compression!r}, expected 'zlib' or None")
    datasets = recordings_to_dict(recordings)
    validate_recordings(datasets, check_values=False)
    root_attrs: Mapping[Any, Any] = {}
    if isinstance(recordings, xr.DataTree) and recordings.children:
        root_attrs = recordings.attrs
    for mouse, dataset in datasets.items():
        _check_not_reading_from(path, mouse, dataset)
    _write(datasets, path, root_attrs, STREAMED, compression)


def save_groups(
    datasets: Mapping[str, xr.Dataset],
    path: str | os.PathLike,
    attrs: Mapping[str, Any],
    streamed: tuple[str, ...] = (),
) -> None:
    """Write datasets that are no whole recordings, such as responses alone, a group per mouse.

    Parameters
    ----------
    datasets : mapping {mouse: Dataset}
    path : path
        The file; one that exists is replaced when the new one is complete.
    attrs : mapping
        Attributes of the whole file.
    streamed : tuple of str
        Variables over trials that are read and written in blocks, never whole in memory.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no folder to write into, or they hold what netCDF cannot.
    FileExistsError
        If recordings lie there.
    """
    path = path_of("path", path, "to_netcdf(path)")
    _check_folder(path)
    if path.is_file() and _holds_recordings(path):
        raise FileExistsError(
            f"{path} holds recordings, and their stimuli would be lost: choose another name, or "
            "remove the file first"
        )
    _write(datasets, path, attrs, streamed, None)


def _holds_recordings(path: Path) -> bool:
    try:
        with open_groups(path, STREAMED) as tree:
            return any("stimuli" in node for node in tree.children.values())
    except (OSError, ValueError):
        return False  # broken, or of another format


def _check_folder(path: Path) -> None:
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {path.absolute().parent} to write {path.name} into; make it first"
        )


def _write(
    datasets: Mapping[str, xr.Dataset],
    path: Path,
    attrs: Mapping[str, Any],
    streamed: tuple[str, ...],
    compression: str | None,
) -> None:
    for mouse, dataset in datasets.items():
        check_fits(mouse, dataset)
    check_attrs("recordings", attrs)
    with replacing(path) as partial, writing(partial) as file:
        file.attributes(attrs)
        for mouse, dataset in datasets.items():
            file.group(mouse, dataset, streamed, compression is not None)


def open_recordings(path: str | os.PathLike) -> xr.DataTree:
    """Open recordings that `save_recordings` wrote; trials stay on disk until used.

    Parameters
    ----------
    path : path
        The netCDF4 file.

    Returns
    -------
    DataTree
        One child per mouse. Labels, behaviour and statistics are in memory; stimuli and responses
        are read whenever, and only as far as, they are indexed; call ``.load()`` to keep them. It
        can be pickled, by path, and be closed with `.close()` or a `with` statement.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such file, or a folder.
    ValueError
        If the file is not readable netCDF4 (truncated, broken, of another format) or does not
        hold recordings.
    """
    path = _existing_file(path)
    tree = open_groups(path, STREAMED)
    try:
        if tree.attrs.get("kind") == RESPONSES_FILE:
            raise ValueError("it holds responses alone: read it with Responses.open")
        validate_recordings(tree, check_values=False)
    except (TypeError, ValueError) as error:
        tree.close()
        raise ValueError(
            f"{path} does not hold recordings as save_recordings writes them: {error}"
        ) from error
    return tree


def open_groups(
    path: str | os.PathLike, lazy: tuple[str, ...] = (), checked: bool = False
) -> xr.DataTree:
    """Open a netCDF4 file with a group per mouse, whatever the groups hold.

    Parameters
    ----------
    path : path
    lazy : tuple of str
        Variables that stay on disk until used.
    checked : bool
        Refuse a file without checksums, which others wrote, or earlier versions.

    Returns
    -------
    DataTree

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is not readable netCDF4.
    """
    path = _existing_file(path)
    remedy = (
        "it is a zip: a mouse in the Sensorium layout is read with read_sensorium"
        if zipfile.is_zipfile(path)
        else "it is broken, truncated or of another format: write it again with save_recordings, "
        "or copy it again"
    )
    with reading(path, "is not a readable netCDF4 file", remedy, passed=_is_named):
        for _ in range(_ATTEMPTS):  # checksums and data are those of one file, not of two
            state = file_state(path)
            file, groups = read_groups(path, lazy, check(path, checked))
            if file.state == state:
                break
            file.close()
        else:
            raise ValueError("it was written anew each time that it was read")
        try:
            tree = xr.DataTree.from_dict(groups)
        except BaseException:
            file.close()
            raise
    tree.set_close(file.close)
    return tree


def _is_named(error: Exception) -> bool:
    """Whether memory ended, whatever the file tells of."""
    return isinstance(error, InsufficientMemoryError)


def load_groups(
    path: str | os.PathLike, lazy: tuple[str, ...], refuse: Callable[[xr.DataTree], None]
) -> xr.DataTree:
    """Read all of a file of `open_groups`: of one that is replaced meanwhile, the one after it.

    Parameters
    ----------
    path, lazy
        As there.
    refuse : callable
        Raises where the file is none to read, ahead of reading it.

    Returns
    -------
    DataTree
        In memory.
    """
    for _ in range(_ATTEMPTS):
        with suppress(ReplacedFileError), open_groups(path, lazy) as tree:
            refuse(tree)
            return tree.load()
    raise ReplacedFileError(f"{path} was written anew each time that it was read")


def _existing_file(path: str | os.PathLike) -> Path:
    """The absolute path of a file; what is none says by what it is read instead."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"a {type(path).__name__} came where the path of one netCDF4 file was expected: "
            "recordings at hand go into Trials(...), several files are opened one by one and "
            "joined by v1tlearn.concat([...])"
        )
    path = Path(os.path.abspath(path))
    if path.is_file():
        return path
    found = what_lies_at(path)
    said = f"{path} is not a file: {found.said()}."
    raise no_file(path, f"{said} Expected a netCDF4 file written by save_recordings.")


def _check_not_reading_from(path: Path, mouse: str, dataset: xr.Dataset) -> None:
    """Raise if `path`, about to be replaced, is what lazy variables would go on reading from."""
    for name, variable in dataset.variables.items():
        sources = variable.encoding.get("sources", (variable.encoding.get("source"),))
        # Replacing it under open variables would make pickled copies read other trials.
        if variable._in_memory or not path.exists():
            continue
        if any(s and os.path.exists(s) and os.path.samefile(s, path) for s in sources):
            raise ValueError(
                f"mouse {mouse!r}, {name} is read lazily from {path}, the file to be replaced; "
                "call recordings.load() first, or save to another file"
            )

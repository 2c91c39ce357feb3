"""Trials of Sensorium folders and zips kept in one netCDF store per recording.

Labels and statistics are small and always come from the source; mouse.py reads them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
from pathlib import Path

import xarray as xr

from v1tlearn._replacing import make_folder, replacing
from v1tlearn.datasets.schema import DIMS
from v1tlearn.datasets.sensorium.folder_files import FolderFiles
from v1tlearn.datasets.sensorium.zip_files import ZipFiles
from v1tlearn.datasets.store import open_groups, save_recordings

logger = logging.getLogger(__name__)

# Part of the name of a store: raise it whenever reading a source gives other values than before.
VERSION = 1
_GROUP = "recording"
_STORED_LABELS = ("behavior", "time", "n_frames")  # without which it would be no recording


def cached_trials(
    mouse: str, dataset: xr.Dataset, files: FolderFiles | ZipFiles, folder: Path
) -> xr.Dataset:
    """Return a recording whose trials are read from a store in `folder`, written if missing.

    A store is never used for another source, nor replaced by other trials while someone reads it.
    """
    fingerprint = files.fingerprint()
    path = Path(os.path.abspath(folder)) / store_name(files, fingerprint)
    names = [name for name in DIMS if name in dataset]
    opened = None
    if path.exists():
        try:
            opened = _open(path, dataset[names])
        except ValueError as error:
            logger.warning("mouse %r: %s is broken (%s) and written again", mouse, path, error)
    if opened is None:
        _make_folder(path.parent)
        logger.info("mouse %r: keeping the trials of %s in %s", mouse, files, path)
        labels = [name for name in dataset[names].coords if name not in _STORED_LABELS]
        stored = dataset[names].drop_vars(labels).drop_attrs()
        _write(mouse, stored, files, fingerprint, path)
        _remove_outdated(path.parent, _source(files), path)
        opened = _open(path, dataset[names])
    result = dataset.assign({name: opened.children[_GROUP].variables[name] for name in names})
    for name in names:
        result[name].attrs = dataset[name].attrs
    result.set_close(opened.close)
    return result


def store_name(files: FolderFiles | ZipFiles, fingerprint: str, version: int = VERSION) -> str:
    """Name the store of a source: hashes of its path, and of its fingerprint and the version."""
    return f"{_source(files)}-{_hash(f'{version} {fingerprint}')}.nc"


def _source(files: FolderFiles | ZipFiles) -> str:
    return f"{_stem(files)}-{_hash(str(files))}"


def _make_folder(folder: Path) -> None:
    try:
        make_folder(folder)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(
            f"cache is {folder}, which is no folder; expected the path of one to keep stores in"
        ) from None


def _open(path: Path, like: xr.Dataset) -> xr.DataTree:
    """Open a store, whose variables are to be of the shapes and types of the source."""
    opened = open_groups(path, lazy=tuple(DIMS), checked=True)
    kept = opened.children[_GROUP].variables if _GROUP in opened.children else {}
    for name, variable in like.data_vars.items():
        expected = _form(variable.variable)
        if name not in kept or _form(kept[name]) != expected:
            found = _form(kept[name]) if name in kept else "missing"
            opened.close()
            raise ValueError(f"{name} is {found}, expected {expected}")
    return opened


def _form(variable: xr.Variable) -> str:
    return f"{dict(variable.sizes)} of {variable.dtype}"


def _write(
    mouse: str,
    dataset: xr.Dataset,
    files: FolderFiles | ZipFiles,
    fingerprint: str,
    path: Path,
) -> None:
    """Write a store beside its place and rename it, unless the source changed meanwhile."""
    _check_space(mouse, dataset, path.parent)
    with replacing(path) as partial:
        # Uncompressed reads fastest.
        save_recordings({_GROUP: dataset}, partial, compression=None)
        if files.fingerprint() != fingerprint:
            raise ValueError(
                f"mouse {mouse!r}: {files} changed while it was read into the cache; wait until "
                "it is complete and read it again"
            )


def _check_space(mouse: str, dataset: xr.Dataset, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if dataset.nbytes > free:
        raise OSError(
            errno.ENOSPC,
            f"mouse {mouse!r}: its trials take {dataset.nbytes / 2**30:.1f} GiB in the cache, but "
            f"{free / 2**30:.1f} GiB are free; make room, or choose another cache",
            str(folder),
        )


def _remove_outdated(folder: Path, source: str, path: Path) -> None:
    """Remove stores of earlier states of a source."""
    for other in folder.glob(f"{source}-*.nc"):
        if other != path:
            with contextlib.suppress(OSError):  # gone already, or open where that forbids removal
                other.unlink()


def _stem(files: FolderFiles | ZipFiles) -> str:
    name = re.split(r"[/\\]", str(files))[-1].removesuffix(".zip")
    return re.sub(r"[^\w.-]", "_", name)[:80]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]

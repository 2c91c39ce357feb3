"""Recordings in one netCDF4 file, a group per mouse: written in blocks, opened lazily."""

from __future__ import annotations

import os
import re
import uuid
import zipfile
from collections.abc import Mapping
from numbers import Number
from pathlib import Path
from typing import Any, Literal

import netCDF4
import numpy as np
import xarray as xr

from v1tlearn._instead import path_of
from v1tlearn._paths import what_lies_at
from v1tlearn.datasets.schema import blocks, recordings_to_dict, validate_recordings

# Variables that stay on disk until used; labels and statistics are small.
STREAMED = ("stimuli", "responses", "expected_responses")

# Marks a file that holds responses without stimuli.
RESPONSES_FILE = "v1tlearn responses"

_COMPRESSIONS = ("zlib", None)
# Names that netCDF or xarray give a meaning of their own, so that they would not come back.
_RESERVED_ATTRS = {"_FillValue", "missing_value", "scale_factor", "add_offset", "coordinates"}


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
        none: trials lie one after the other, which reads fastest.

    Raises
    ------
    ValueError
        If the recordings do not follow the schema, are still open lazily from `path` itself, or
        hold what netCDF cannot: an attribute that is not text, numbers or a list of them; a
        dtype such as float16; a mouse id that starts with a sign.
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
    _check_attrs("recordings", root_attrs)
    for mouse, dataset in datasets.items():
        _check_fits(mouse, dataset)
        _check_not_reading_from(path, mouse, dataset)
    _write(datasets, path, root_attrs, STREAMED, compression)


def save_groups(
    datasets: Mapping[str, xr.Dataset], path: str | os.PathLike, attrs: Mapping[str, Any]
) -> None:
    """Write datasets that are no whole recordings, such as responses alone, a group per mouse.

    Parameters
    ----------
    datasets : mapping {mouse: Dataset}
        In memory.
    path : path
        The file; one that exists is replaced when the new one is complete.
    attrs : mapping
        Attributes of the whole file.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no folder to write into, or they hold what netCDF cannot.
    """
    path = path_of("path", path, "to_netcdf(path)")
    _check_folder(path)
    for mouse, dataset in datasets.items():
        _check_fits(mouse, dataset)
    _write(datasets, path, attrs, (), None)


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
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        xr.Dataset(attrs=attrs).to_netcdf(partial, mode="w", engine="netcdf4")
        for mouse, dataset in datasets.items():
            in_blocks = [name for name in streamed if name in dataset]
            labels = dataset.drop_vars(in_blocks).drop_encoding()
            labels.to_netcdf(partial, mode="a", group=mouse, engine="netcdf4")
            with netCDF4.Dataset(partial, "a") as file:
                for name in in_blocks:
                    _write_blocks(file[mouse], dataset[name], compression)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
    FileNotFoundError
        If there is no such file.
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


def open_groups(path: str | os.PathLike, lazy: tuple[str, ...] = ()) -> xr.DataTree:
    """Open a netCDF4 file with a group per mouse, whatever the groups hold.

    Parameters
    ----------
    path : path
    lazy : tuple of str
        Variables that stay on disk until used.

    Returns
    -------
    DataTree

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is not readable netCDF4.
    """
    path = _existing_file(path)
    try:
        tree = xr.open_datatree(
            path,
            engine="netcdf4",
            cache=False,
            # A unit of "s" must not turn numbers into timedelta64.
            decode_timedelta=xr.coders.CFTimedeltaCoder(decode_via_units=False),
        )
        for node in tree.children.values():
            for name, variable in node.variables.items():
                if name not in lazy:
                    variable.load()
    except (OSError, RuntimeError) as error:
        is_zip = zipfile.is_zipfile(path)
        raise ValueError(
            f"{path} is not a readable netCDF4 file ({error}); "
            + (
                "it is a zip: a mouse in the Sensorium layout is read with read_sensorium"
                if is_zip
                else "it is broken, truncated or of another format: write it again with "
                "save_recordings, or copy it again"
            )
        ) from error
    return tree


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
    raise FileNotFoundError(
        f"{path} is not a file: {found.said()}. Expected a netCDF4 file written by save_recordings."
    )


def _write_blocks(group: netCDF4.Group, array: xr.DataArray, compression: str | None) -> None:
    layout: dict[str, Any] = {"contiguous": True}
    if compression:
        chunk = (1, *array.shape[1:])
        layout = {"chunksizes": chunk, "compression": compression, "complevel": 1, "shuffle": True}
    dims = [str(dim) for dim in array.dims]
    for dim, size in zip(dims, array.shape, strict=True):
        if dim not in group.dimensions:
            group.createDimension(dim, size)
    variable = group.createVariable(
        str(array.name),
        array.dtype.newbyteorder("="),
        dims,
        fill_value=False,  # every value is written; NaN stays a value
        **layout,
    )
    variable.set_auto_maskandscale(False)
    variable.setncatts(array.attrs)
    for start, block in blocks(array):
        variable[start : start + len(block)] = block


def _check_fits(mouse: str, dataset: xr.Dataset) -> None:
    if re.match(r"[\w]|[^\x00-\x7f]", mouse) is None or re.search(r"[\x00-\x1f\x7f]", mouse):
        raise ValueError(
            f"mouse {mouse!r}: netCDF cannot name a group so; expected an id that starts with a "
            "letter, a digit or an underscore and holds no control characters: rename the mouse"
        )
    _check_attrs(f"mouse {mouse!r}", dataset.attrs)
    for name, variable in dataset.variables.items():
        _check_attrs(f"mouse {mouse!r}, {name}", variable.attrs)
        if variable.dtype.kind in "fc" and variable.dtype.itemsize not in (4, 8):
            raise ValueError(
                f"mouse {mouse!r}, {name}: netCDF has no dtype {variable.dtype}; convert it with "
                '.astype("float32")'
            )


def _check_attrs(where: str, attrs: Mapping[str, Any]) -> None:
    for name, value in attrs.items():
        if name in _RESERVED_ATTRS:
            raise ValueError(
                f"{where}: the attribute {name!r} has a meaning of its own in netCDF; rename it"
            )
        if not _is_attribute(value):
            raise ValueError(
                f"{where}: the attribute {name!r} is {value!r} ({type(value).__name__}), which "
                "netCDF cannot hold; expected text, a number, or a list of either: convert it, "
                "e.g. with str() or int(), or delete it"
            )


def _is_attribute(value: Any) -> bool:
    if isinstance(value, str):
        return True
    if isinstance(value, bool | np.bool_ | complex):
        return False
    if isinstance(value, Number):
        return True
    if isinstance(value, np.ndarray):
        return value.ndim <= 1 and value.size > 0 and value.dtype.kind in "uif"
    if isinstance(value, list | tuple) and value:
        texts = [isinstance(item, str) for item in value]
        return all(texts) or (not any(texts) and np.asarray(value).dtype.kind in "uif")
    return False


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

"""Recordings in one netCDF4 file, a group per mouse: written in blocks, opened lazily."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from numbers import Number
from pathlib import Path
from typing import Any, Literal

import netCDF4
import numpy as np
import xarray as xr

from v1tlearn.datasets.schema import blocks, recordings_to_dict, validate_recordings

# Variables that stay on disk until used; labels and statistics are small.
STREAMED = ("stimuli", "responses", "expected_responses")

_COMPRESSIONS = ("zlib", None)
# Names that netCDF or xarray give a meaning of their own, so that they would not come back.
_RESERVED_ATTRS = {"_FillValue", "missing_value", "scale_factor", "add_offset", "coordinates"}


def save_recordings(
    recordings: xr.DataTree | Mapping[str, xr.Dataset],
    path: str | os.PathLike,
    compression: Literal["zlib"] | None = "zlib",
) -> None:
    """Write recordings into one netCDF4 file, one group per mouse.

    Parameters
    ----------
    recordings : DataTree or mapping {mouse: Dataset}
        Read block by block, so lazily opened recordings are never whole in memory.
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
    path = Path(path)
    if compression not in _COMPRESSIONS:
        raise ValueError(f"compression is {compression!r}, expected 'zlib' or None")
    datasets = recordings_to_dict(recordings)
    validate_recordings(datasets, check_values=False)
    root_attrs = recordings.attrs if isinstance(recordings, xr.DataTree) else {}
    _check_attrs("recordings", root_attrs)
    for mouse, dataset in datasets.items():
        _check_fits(mouse, dataset)
        _check_not_reading_from(path, mouse, dataset)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        xr.Dataset(attrs=root_attrs).to_netcdf(partial, mode="w", engine="netcdf4")
        for mouse, dataset in datasets.items():
            streamed = [name for name in STREAMED if name in dataset]
            labels = dataset.drop_vars(streamed).drop_encoding()
            labels.to_netcdf(partial, mode="a", group=mouse, engine="netcdf4")
            with netCDF4.Dataset(partial, "a") as file:
                for name in streamed:
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
    path = Path(os.path.abspath(path))
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not a file; expected a netCDF4 file written by save_recordings"
        )
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
                if name not in STREAMED:
                    variable.load()
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{path} is not a readable netCDF4 file ({error}); it is broken, truncated or of "
            "another format: write it again with save_recordings, or copy it again"
        ) from error
    try:
        validate_recordings(tree, check_values=False)
    except (TypeError, ValueError) as error:
        tree.close()
        raise ValueError(
            f"{path} does not hold recordings as save_recordings writes them: {error}"
        ) from error
    return tree


def _write_blocks(group: netCDF4.Group, array: xr.DataArray, compression: str | None) -> None:
    layout: dict[str, Any] = {"contiguous": True}
    if compression:
        chunk = (1, *array.shape[1:])
        layout = {"chunksizes": chunk, "compression": compression, "complevel": 1, "shuffle": True}
    for dim, size in array.sizes.items():
        if dim not in group.dimensions:
            group.createDimension(dim, size)
    variable = group.createVariable(
        array.name,
        array.dtype.newbyteorder("="),
        array.dims,
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
        source = variable.encoding.get("source")
        lazy = bool(source) and not variable._in_memory
        # Replacing it under open variables would make pickled copies read other trials.
        if lazy and path.exists() and os.path.exists(source) and os.path.samefile(source, path):
            raise ValueError(
                f"mouse {mouse!r}, {name} is read lazily from {path}, the file to be replaced; "
                "call recordings.load() first, or save to another file"
            )

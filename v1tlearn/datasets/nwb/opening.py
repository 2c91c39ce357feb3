"""NWB files, opened by pynwb once another process has found that HDF5 reads all of them.

Nothing outside of the file is followed: links to other files are refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from v1tlearn._opening import check_plain, reading
from v1tlearn.datasets.checksums import open_in_child

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OF_ZARR = (".zgroup", ".zattrs", "zarr.json")
_WITHIN = 2**20  # bytes, up to which the signature may stand behind what others wrote

# All of what is small is read, and the ends of what is large. A deflated byte makes 1032 at most.
_CHILD = """
import os
import numpy
size = os.stat(sys.argv[1]).st_size
seen = set()
def read(group):
    for name in group.attrs:
        group.attrs[name]
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            sys.exit(f"{group.name}/{name} is a link to the file {link.filename}")
        if isinstance(link, h5py.SoftLink):
            continue
        found = group[name]
        address = h5py.h5o.get_info(found.id).addr
        if address in seen:
            continue
        seen.add(address)
        if isinstance(found, h5py.Group):
            read(found)
        elif isinstance(found, h5py.Dataset):
            look(found)
def look(dataset):
    for name in dataset.attrs:
        dataset.attrs[name]
    if dataset.external or dataset.is_virtual:
        sys.exit(f"{dataset.name} is in other files")
    if dataset.shape is None:
        return
    n_bytes = dataset.size * dataset.dtype.itemsize
    if n_bytes > 2**24 + 1100 * size:
        sys.exit(f"{dataset.name} would be {n_bytes} bytes, the file has {size}")
    n_chunk = numpy.prod(dataset.chunks or 0, dtype=float) * dataset.dtype.itemsize
    if n_chunk > 2**26 + 200 * size:  # which is read as a whole
        sys.exit(f"{dataset.name} has chunks of {n_chunk:.0f} bytes, the file has {size}")
    if n_bytes < 2**22:
        dataset[()]
    elif dataset.ndim:
        dataset[0], dataset[len(dataset) - 1]
with h5py.File(sys.argv[1], "r") as file:
    read(file)
"""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an NWB file, and name it in whatever goes wrong as long as it is open.

    Parameters
    ----------
    path : Path

    Yields
    ------
    NWBFile
        Of pynwb, whose large arrays are read when indexed.

    Raises
    ------
    ImportError
        Without the extra "nwb".
    OSError, ValueError
        If it cannot be opened, or is no NWB file.
    """
    pynwb = _pynwb()
    if any((path / name).exists() for name in _OF_ZARR):
        refuse(
            path,
            "it is a folder of Zarr, as hdmf-zarr writes it, which is not read",
            "a file of HDF5: export it with NWBHDF5IO(new, 'w').export(NWBZarrIO(path, 'r'))",
        )
    check_plain(path)
    remedy = "expected a whole file in the format NWB 2: copy or download it again"
    with reading(path, "is no readable NWB file", remedy, passed=_is_own_warning):
        with path.open("rb") as file:
            if _SIGNATURE not in file.read(_WITHIN):
                raise ValueError("it is no file of HDF5")
        open_in_child(path, library="h5py", script=_CHILD)
        with _unwarned():
            file = pynwb.NWBHDF5IO(str(path), "r", load_namespaces=True)
        with file:
            with _unwarned():
                nwb = file.read()
            yield nwb


def _is_own_warning(error: Exception) -> bool:
    """Whether it is a warning of ours, where warnings are made errors."""
    return type(error) is UserWarning


@contextmanager
def _unwarned() -> Iterator[None]:
    """Pass over warnings of versions, and of what is checked here where it is used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _pynwb() -> Any:
    try:
        import h5py  # noqa: F401  # the child needs it
        import pynwb
    except ImportError as error:
        raise ImportError(
            f"NWB files are read with pynwb, and {error.name} is not here: install the extra "
            '"nwb", from the folder of v1tlearn with pip install -e ".[nwb]".'
        ) from error
    return pynwb


def refuse(path: Path, what: str, expected: str) -> NoReturn:
    """Raise ValueError that names the file, what came, and what was expected."""
    raise ValueError(f"{path}: {what}; expected {expected}")


def numbers(path: Path, called: str, values: Any) -> np.ndarray:
    """Read an array of real numbers as a whole.

    Parameters
    ----------
    path : Path
    called : str
        The array, in errors.
    values : array, dataset or sequence

    Returns
    -------
    ndarray
    """
    found = np.asarray(values[:])
    if found.dtype.kind == "O" and all(isinstance(v, int | float | np.number) for v in found.flat):
        found = found.astype(np.float64)
    if found.dtype.kind not in "iuf":
        refuse(path, f"{called} has dtype {found.dtype}", "numbers")
    return found

"""What a report of a fault should say: versions, processor, kernels, threads, memory and GPUs.

Nothing here fails: what cannot be read is told to be unknown, and why.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch

from v1tlearn.nn import fast
from v1tlearn.nn.fast import compiled_warping
from v1tlearn.training.devices import multiplies_bfloat16
from v1tlearn.training.memory import free_memory

_CPU = torch.device("cpu")
_ROOT = Path("/")  # where a system like Linux tells of itself
_SECONDS = 10  # for which a program is asked at most
_OF_DEVELOPERS = {"test", "docs"}  # extras that nobody else needs
_WITHOUT_METADATA = ("torch", "numpy", "scipy", "scikit-learn", "xarray", "netCDF4", "joblib")
# Vector instructions that count here, as torch and as Linux call them.
_OF_X86 = ("avx2", "fma3", "fma", "avx512_f", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
_UNITS = (*_OF_X86, "neon", "asimd", "bf16", "i8mm", "sve", "sve2", "sve_bf16")
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def show_versions(file: TextIO | None = None) -> None:
    """Print versions, processor, kernels, threads, memory and GPUs, for a report of a fault.

    Nothing is installed, and nothing leaves the machine. What cannot be read is told to be unknown.

    Parameters
    ----------
    file : file, optional
        Where to print; to standard output by default.

    See Also
    --------
    versions_info : The same as a dict.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> v1.show_versions()  # doctest: +ELLIPSIS
    versions
        v1tlearn      ...
    """
    lines = []
    for section, entries in versions_info().items():
        width = max(map(len, entries), default=0)
        lines += [section, *(f"    {name:<{width}}  {told}" for name, told in entries.items()), ""]
    out = sys.stdout if file is None else file
    if out is not None:  # as it may be of programs without a window
        text, encoding = "\n".join(lines), getattr(out, "encoding", None) or "utf-8"
        out.write(text.encode(encoding, "replace").decode(encoding))


def versions_info() -> dict[str, dict[str, str]]:
    """Tell versions, processor, kernels, threads, memory and GPUs.

    Returns
    -------
    dict of str to dict of str to str
        Sections "versions", "extras", "processor", "threads", "memory" and "GPUs", each with
        what `show_versions` prints.
    """
    return {
        "versions": package_versions(),
        "extras": _told({name: partial(_version, name) for name in _packages(extras=True)}),
        "processor": processor_info(),
        "threads": _told(
            {
                "cores": _cores,
                "torch": lambda: (
                    f"{torch.get_num_threads()}, between operations "
                    f"{torch.get_num_interop_threads()}"
                ),
                **{name: partial(os.environ.get, name, "not set") for name in _VARIABLES},
                "torch's libraries": _libraries,
            }
        )
        | _numbered(_pools, "pool"),
        "memory": _told({"whole": _whole_memory, "free": _free_memory}),
        "GPUs": _told({"CUDA": _cuda, "driver": _driver, "MPS": _mps}) | _numbered(_gpus, "GPU"),
    }


def package_versions() -> dict[str, str]:
    """Tell the versions of Python and of what is needed always.

    Returns
    -------
    dict of str to str
    """
    return (
        _told({"v1tlearn": own_version, "python": platform.python_version})
        | _told({name: partial(_version, name) for name in _packages(extras=False)})
        | _told({"HDF5": _hdf5})
    )


def processor_info() -> dict[str, str]:
    """Tell platform and processor, and with which instructions is computed.

    Returns
    -------
    dict of str to str
    """
    return _told(
        {
            "platform": platform.platform,
            "processor": processor_name,
            "vector units": vector_units,
            "bfloat16": lambda: _bfloat16(multiplies_bfloat16(_CPU)),
            "kernels": fast.describe_kernels,
            "soft-DTW": lambda: "compiled" if compiled_warping.kernel else "not compiled",
            "torch uses": torch.backends.cpu.get_cpu_capability,
        }
    )


def _told(parts: Mapping[str, Callable[[], Any]]) -> dict[str, str]:
    """Ask for one thing after the other."""
    out = {}
    for name, tell in parts.items():
        try:
            out[name] = " ".join(str(tell()).split())
        except Exception as error:
            out[name] = f"not known ({type(error).__name__}: {error})"
    return out


def _numbered(tell: Callable[[], Iterator[str]], name: str) -> dict[str, str]:
    """Ask for several things of a kind."""
    found: list[str] = []
    try:
        found.extend(tell())
    except Exception as error:
        found.append(f"not known ({type(error).__name__}: {error})")
    return {f"{name} {i}": told for i, told in enumerate(found)}


# ----------------------------------------------------------------------------------------- versions


def own_version() -> str:
    """Tell the version of this package, which its metadata have alone."""
    return importlib.metadata.version("v1tlearn")


def _packages(*, extras: bool) -> list[str]:
    """Packages that are needed always, or by the extras of users, as the metadata name them."""
    try:
        required = importlib.metadata.requires("v1tlearn") or []
    except importlib.metadata.PackageNotFoundError:
        return [] if extras else list(_WITHOUT_METADATA)
    found = []
    for requirement in required:
        extra = re.search(r"extra *== *['\"]([\w-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        wanted = extra is None if not extras else extra and extra[1] not in _OF_DEVELOPERS
        if name and wanted:
            found.append(name[0])
    return sorted(set(found), key=str.lower)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _hdf5() -> str:
    import netCDF4

    return f"{netCDF4.__hdf5libversion__}, netCDF {netCDF4.__netcdf4libversion__}"


# ---------------------------------------------------------------------------------------- processor


def processor_name(system: str | None = None, root: Path = _ROOT) -> str:
    """Name of the processor.

    Parameters
    ----------
    system : {"Linux", "Darwin", "Windows"}, optional
        Which is asked; by default the one that runs.
    root : Path, default=Path("/")
        Where Linux tells of itself.

    Returns
    -------
    str
        The architecture where there is no name.
    """
    system, name = system or platform.system(), ""
    if system == "Linux":
        told = _cpuinfo(root)
        name = told.get("model name", told.get("Model", told.get("Hardware", "")))
    elif system == "Darwin":
        with suppress(OSError, subprocess.SubprocessError):
            name = _program("sysctl", "-n", "machdep.cpu.brand_string")
    elif system == "Windows":
        with suppress(ImportError, OSError):
            name = _registered()
    return name.strip() or platform.processor() or platform.machine()


def vector_units(root: Path = _ROOT) -> str:
    """Vector instructions that the processor has.

    Parameters
    ----------
    root : Path, default=Path("/")
        Where Linux tells of itself, which is asked where torch does not say.

    Returns
    -------
    str
        Their names.
    """
    asked: Any = getattr(torch.cpu, "get_capabilities", dict)  # which older ones do not have
    found = {name for name, there in asked().items() if there}
    if not found:
        told = _cpuinfo(root)
        found = set(f"{told.get('flags', '')} {told.get('Features', '')}".split())
    return " ".join(name for name in _UNITS if name in found) or "not known"


def _cpuinfo(root: Path) -> dict[str, str]:
    """What Linux tells of the first core."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    return {key.strip(): value.strip() for key, value in reversed(lines)}


def _registered() -> str:
    """What Windows calls the processor."""
    import winreg  # which is there on Windows alone

    place = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
    registry: Any = winreg
    with registry.OpenKey(registry.HKEY_LOCAL_MACHINE, place) as key:
        return str(registry.QueryValueEx(key, "ProcessorNameString")[0])


def _program(*command: str) -> str:
    done = subprocess.run([*command], capture_output=True, text=True, timeout=_SECONDS, check=True)
    return done.stdout


def _bfloat16(known: bool | None) -> str:
    return {True: "products", False: "emulated", None: "not known"}[known]


# ------------------------------------------------------------------------------- threads and memory


def _cores() -> str:
    usable = getattr(os, "sched_getaffinity", None)
    return f"{os.cpu_count()}" + (f", usable {len(usable(0))}" if usable else "")


def _libraries() -> str:
    there = {
        "MKL": torch.backends.mkl.is_available(),
        "oneDNN": torch.backends.mkldnn.is_available(),
        "OpenMP": torch.backends.openmp.is_available(),
    }
    return ", ".join(name for name, known in there.items() if known) or "none"


def _pools() -> Iterator[str]:
    """Libraries with threads of their own, of all packages that are imported."""
    from threadpoolctl import threadpool_info  # which scikit-learn needs

    for pool in threadpool_info():
        name, version = pool["internal_api"], pool.get("version") or "of unknown version"
        kind = pool.get("architecture")
        yield f"{pool['user_api']}: {name} {version}, {pool['num_threads']} threads" + (
            f", {kind}" if kind else ""
        )


class _WindowsMemory(ctypes.Structure):
    """MEMORYSTATUSEX of Windows."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("whole", "free", "a", "b", "c", "d", "e")),
    )


def _of_windows() -> _WindowsMemory:
    told = _WindowsMemory(length=ctypes.sizeof(_WindowsMemory))
    library: Any = ctypes
    if not library.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(told)):
        raise OSError("Windows does not tell")
    return told


def _whole_memory() -> str:
    if platform.system() == "Windows":
        return _gigabytes(_of_windows().whole)
    return _gigabytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _free_memory() -> str:
    if platform.system() == "Windows":
        return _gigabytes(_of_windows().free)
    free = free_memory(_CPU)
    return "not known" if free is None else _gigabytes(free)


def _gigabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.3g} GB"


# --------------------------------------------------------------------------------------------- GPUs


def _cuda() -> str:
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        return f"none found, torch was built for {built or 'none'}"
    return f"{torch.version.cuda or torch.version.hip}, cuDNN {torch.backends.cudnn.version()}"


def _driver() -> str:
    if not torch.cuda.is_available() or shutil.which("nvidia-smi") is None:
        return "none found"
    told = _program("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return " ".join(dict.fromkeys(told.split()))


def _gpus() -> Iterator[str]:
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.device("cuda", number)
        properties = torch.cuda.get_device_properties(device)
        free, whole = torch.cuda.mem_get_info(device)
        yield (
            f"{properties.name}, capability {properties.major}.{properties.minor}, "
            f"{_gigabytes(free)} of {_gigabytes(whole)} free, bfloat16 "
            f"{_bfloat16(multiplies_bfloat16(device))}"
        )


def _mps() -> str:
    if not torch.backends.mps.is_available():
        return "none found"
    return f"there, {_gigabytes(torch.mps.recommended_max_memory())} recommended at most"

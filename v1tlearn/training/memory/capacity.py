"""How much memory there is: what is free at the moment, and what a training step may fill.

And what the C library does with memory that was freed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from v1tlearn.training.memory.out_of_memory import is_out_of_memory

if sys.platform != "win32":
    import resource

_CUDA_SHARE = 0.9  # of what is free
_CPU_SHARE, _CUDA_SHARE_OF_ALL = 0.5, 1 / 3  # of what there is; recordings may take much of it
_FREED_BLOCK = 2**25 - 2**16  # bytes; a little below the 32 MiB to which glibc adapts
_ROOT = Path("/")  # where a system like Linux tells of itself
# Of a container, in either version of the kernel's interface: folder, files of limit and usage, and
# what `memory.stat` calls the part of the usage that gives way, pages of files that were read.
_CGROUPS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def free_memory(device: torch.device, root: Path = _ROOT) -> int | None:
    """Free memory of a device.

    Parameters
    ----------
    device : torch.device
    root : Path, default=Path("/")
        Where the system is whose memory a CPU has.

    Returns
    -------
    int or None
        In bytes; for a CPU what the machine has left, or the container, or the limits that were
        set on this process (``ulimit -v``, ``-d``), if that is less. None where the system does not
        tell.
    """
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type != "cpu":
        return None
    left = [max(0, limit - used) for limit, used in (*_containers(root), *_limits(root))]
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return min(left, default=None)  # not Linux
    sizes = dict(line.split(":", 1) for line in lines)
    return min([int(sizes["MemAvailable"].split()[0]) * 1024, *left])


def available_memory(
    device: torch.device, *, deterministic: bool = False, root: Path = _ROOT
) -> float | None:
    """Bytes that a training step may fill.

    Parameters
    ----------
    device : torch.device
    deterministic : bool, default=False
        Whether the answer must be the same whatever is free at the moment.
    root : Path, default=Path("/")
        Where the system is whose memory a CPU has.

    Returns
    -------
    float or None
        Nine tenths of what is free on a CUDA device, or a third of all it has with
        `deterministic`; half of what the machine, the container or the process may have for a
        CPU; None where that is not known.
    """
    if device.type == "cuda":
        if deterministic:
            return _CUDA_SHARE_OF_ALL * torch.cuda.mem_get_info(device)[1]
        free = free_memory(device)
        return None if free is None else _CUDA_SHARE * free
    if device.type != "cpu":
        return None
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    limits = [limit for limit, _ in (*_containers(root), *_limits(root))]
    return _CPU_SHARE * min([whole, *limits])


def _containers(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and usage, in bytes, of the containers that this process is in."""
    for folder, limit, usage, reclaimable in _CGROUPS:
        try:
            texts = [(root / folder / name).read_text() for name in (limit, usage, "memory.stat")]
        except OSError:
            continue
        if texts[0].strip().isdigit():  # otherwise "max"
            stat = dict(line.split() for line in texts[2].splitlines())
            yield int(texts[0]), int(texts[1]) - int(stat.get(reclaimable, 0))


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limits that were set on this process, and what of each is used, in bytes."""
    try:
        pages = [int(number) for number in (root / "proc/self/statm").read_text().split()]
    except OSError:  # not Linux
        return
    size = os.sysconf("SC_PAGE_SIZE")
    for kind, used in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit, used * size


def keep_freed_memory(n_bytes: int = _FREED_BLOCK) -> None:
    """Let the C library keep what one step on a CPU frees for the next one.

    Memory that goes back to the system after every step comes again page by page, by faults that
    cost a small model part of its time. This holds for the process from then on, and changes
    nothing but where memory comes from. glibc gives back what exceeds twice the largest block
    of at most 32 MiB that was freed so far (M_TRIM_THRESHOLD in the manual of mallopt). Such a
    block is freed here; it is never written to, so that it takes no memory. Where this number was
    set by the user, the library is another one, or there is no room for the block, nothing changes.

    Parameters
    ----------
    n_bytes : int, default=33488896
        Of the block.
    """
    try:
        torch.UntypedStorage(n_bytes, device="cpu")  # and at once let go
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise

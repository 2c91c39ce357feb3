"""How busy a device was, from the trace that torch's profiler writes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# What runs on a GPU. On a CPU, operators stand in for kernels.
GPU_CATEGORIES = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
CPU_CATEGORIES = frozenset({"cpu_op"})


@dataclass
class Activity:
    """What a device did between the start of its first and the end of its last kernel.

    Attributes
    ----------
    span : float
        Seconds between the two.
    idle : float
        Share of the span in which no kernel ran.
    longest_gap : float
        Seconds of the longest time without a kernel.
    n_kernels : int
        Number of kernels.
    """

    span: float
    idle: float
    longest_gap: float
    n_kernels: int


def activity(intervals: Iterable[tuple[float, float]]) -> Activity:
    """Sum up intervals that may overlap.

    Parameters
    ----------
    intervals : iterable of (float, float)
        Start and end of each kernel, in seconds.

    Returns
    -------
    Activity

    Raises
    ------
    ValueError
        If there is no interval.
    """
    ordered = sorted(intervals)
    if not ordered:
        raise ValueError("the trace holds no kernel; was the device used while it was recorded?")
    first, end = ordered[0]
    idle = longest = 0.0
    for start, stop in ordered[1:]:
        if start > end:
            idle += start - end
            longest = max(longest, start - end)
        end = max(end, stop)
    span = end - first
    return Activity(span, idle / span if span > 0 else 0.0, longest, len(ordered))


def read_activity(path: Path, device_type: str) -> Activity:
    """Activity in a trace file written by ``torch.profiler.profile.export_chrome_trace``.

    Parameters
    ----------
    path : Path
    device_type : {"cuda", "cpu"}
    """
    wanted = GPU_CATEGORIES if device_type == "cuda" else CPU_CATEGORIES
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as file:
        events = json.load(file)["traceEvents"]
    return activity(
        (1e-6 * e["ts"], 1e-6 * (e["ts"] + e["dur"]))  # microseconds in the file
        for e in events
        if e.get("ph") == "X" and e.get("cat") in wanted
    )

"""What all benchmarks share: timing in pairs, peak memory, matrix rate, tables and their files.

What is timed stands in the scripts; the plain implementations in `_plain.py`.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import _limits
import torch

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # the last is ARM's


@dataclass
class Row:
    """One line of a table.

    Attributes
    ----------
    what : str
        What was measured.
    plain : float or None
        Figure of the plain implementation.
    ours : float
        Figure of the package.
    unit : str
        Unit of both.
    ratio : float or None
        How many times better the package is.
    bar : float or None
        What the ratio should reach; where there is no ratio, what `ours` should.
    note : str
        Sizes and settings.
    at_most : bool
        Whether the figure should stay below the bar.
    """

    what: str
    plain: float | None
    ours: float
    unit: str
    ratio: float | None = None
    bar: float | None = None
    note: str = ""
    at_most: bool = False

    def passed(self) -> bool | None:
        """Tell whether the bar was reached; None where there is none."""
        if self.bar is None:
            return None
        value = self.ours if self.ratio is None else self.ratio
        return value <= self.bar if self.at_most else value >= self.bar


def synchronize(device: torch.device | None) -> None:
    """Wait for an accelerator; nothing on a CPU."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(
    function: Callable[[], object],
    device: torch.device | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Time of one call by a clock, by default that of the wall."""
    synchronize(device)
    start = clock()
    function()
    synchronize(device)
    return clock() - start


def time_in_turn(
    plain: Callable[[], object],
    ours: Callable[[], object],
    repeats: int,
    device: torch.device | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[tuple[float, float]]:
    """Time two functions in turn, so that a machine that slows down slows both.

    Parameters
    ----------
    plain, ours : callable
        Without arguments. Each is called once to warm up, then `repeats` times; which of a pair
        comes first alternates.
    repeats : int
    device : torch.device, optional
        Waited for before the clock is read.
    clock : callable
        Tells seconds.

    Returns
    -------
    list of (float, float)
        Seconds of `plain` and of `ours`, pair by pair.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}.")
    plain()
    ours()
    gc.collect()
    pairs = []
    for repeat in range(repeats):
        if repeat % 2:
            our_time = seconds(ours, device, clock)
            plain_time = seconds(plain, device, clock)
        else:
            plain_time = seconds(plain, device, clock)
            our_time = seconds(ours, device, clock)
        pairs.append((plain_time, our_time))
    return pairs


def compare(
    plain: Callable[[], object],
    ours: Callable[[], object],
    repeats: int = 5,
    device: torch.device | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float, float]:
    """Sum up what `time_in_turn` finds.

    Parameters
    ----------
    plain, ours, repeats, device, clock
        As of `time_in_turn`.

    Returns
    -------
    tuple of float
        Median seconds of `plain` and of `ours`, median of the ratios plain / ours of the pairs.
    """
    return summary(time_in_turn(plain, ours, repeats, device, clock))


def summary(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Medians of both columns of pairs, and of the ratios first / second."""
    ratio = statistics.median(first / second for first, second in pairs)
    return (*(statistics.median(column) for column in zip(*pairs, strict=True)), ratio)


def median_interval(values: Sequence[float], share: float = 0.95) -> tuple[float, float]:
    """Interval in which the median of what the values are drawn from lies.

    Its ends are two of the values; that each of them falls below the median like a fair coin is
    all that is assumed. With too few values the interval is the whole of their range.

    Parameters
    ----------
    values : sequence of float
    share : float, default=0.95
        Probability at least.

    Returns
    -------
    tuple of float
    """
    ordered, n = sorted(values), len(values)
    outside, cut = 0.0, 0  # how likely at most `cut` values lie on one side, either of them
    while cut < n // 2:
        outside += 2 * math.comb(n, cut) / 2**n
        if outside > 1 - share:
            break
        cut += 1
    cut = max(cut - 1, 0)
    return ordered[cut], ordered[n - 1 - cut]


def median_seconds(
    function: Callable[[], object], repeats: int = 5, device: torch.device | None = None
) -> float:
    """Median wall time of a function after one call to warm up."""
    function()
    return statistics.median(seconds(function, device) for _ in range(repeats))


def _peak_bytes() -> int:
    """Largest resident memory of this process since it started or since `_reset_peak`."""
    if STATUS.exists():
        line = next(s for s in STATUS.read_text().splitlines() if s.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reset_peak() -> None:
    """Let the peak start from the memory in use now, where the system can (Linux).

    What the C library keeps of freed memory goes back first: it would be used again unseen.
    """
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if give_back:
        give_back(0)
    if CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5")


def _bytes_of(prepare: Callable[..., Callable[[], object]], args: list, device: str) -> int:
    """Peak of what `prepare(*args)` returns, called once, above what was in use before."""
    with _limits.in_force():
        return _peak_of(prepare(*args), device)


def _peak_of(function: Callable[[], object], device: str) -> int:
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    _reset_peak()
    before = _peak_bytes()
    function()
    return _peak_bytes() - before


def _called(call: str) -> int:
    """What `peak_memory` returns, of a call as JSON."""
    name, script, values, device = json.loads(call)
    return _bytes_of(getattr(_load(script), name), values, device)


def _load(script: str) -> Any:
    """Import a script as a module, under a name that does not run its main part."""
    path = Path(script).resolve()
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def peak_memory(
    function_name: str,
    script: str | Path,
    *args: Any,
    device: str = "cpu",
    in_fresh_process: bool = True,
) -> int:
    """Peak memory of a function in a fresh process.

    Parameters
    ----------
    function_name : str
        A function of the script. Called with `args` it makes what is needed (model, batches) and
        returns a function without arguments; only the call of that one is measured.
    script : str or Path
        Usually ``__file__``.
    *args
        Numbers, strings, lists, None: what JSON holds.
    device : str, default="cpu"
        "cuda" measures what torch allocated on the GPU.
    in_fresh_process : bool, default=True
        Or in this one, where what ran before hides some of it; for ``--quick``, which only shows
        that everything runs.

    Returns
    -------
    int
        Bytes above what the process, model and data included, held before the call.

    Raises
    ------
    RuntimeError
        If the process fails; what it wrote is in the message.
    """
    call = json.dumps([function_name, str(script), args, str(device)])
    if not in_fresh_process:
        return _called(call)
    done = subprocess.run(
        [sys.executable, __file__, call], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"{function_name}{args} of {script} failed in its own process:\n{done.stderr}"
        )
    return int(done.stdout.split()[-1])


def matrix_rate(
    dtype: torch.dtype,
    device: torch.device | str,
    size: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Rate of large square matrix products, what a model can reach at most.

    Parameters
    ----------
    dtype : torch.dtype
    device : torch.device or str
    size : int, optional
        Rows and columns; by default 8192 on GPUs and 2048 elsewhere.
    clock : callable
        Tells seconds.

    Returns
    -------
    float
        FLOP/s (2 per multiplication and addition), the best of several rounds.
    """
    device = torch.device(device)
    size = size or (8192 if device.type == "cuda" else 2048)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    best, end = math.inf, clock() + 1.0
    while clock() < end:
        best = min(best, seconds(lambda: torch.mm(a, b, out=out), device, clock))
    return 2 * size**3 / best


def vector_bits(capability: str) -> int:
    """Bits of the vectors of a processor of which torch tells this."""
    return {"AVX512": 512, "AVX2": 256, "SVE256": 256}.get(capability, 128)


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Describe what the figures were measured on.

    Returns
    -------
    dict
        Processor, bits of its vectors as torch uses them, instructions it has for bfloat16,
        threads, torch version, device, compiled kernels, instructions that it was held to.
    """
    processor, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    instructions: set[str] = set()
    if info.exists():
        lines = [s.split(":", 1) for s in info.read_text().splitlines() if ":" in s]
        known = {key.strip(): value.strip() for key, value in reversed(lines)}
        processor = known.get("model name", processor)
        instructions = set(known.get("flags", known.get("Features", "")).split())
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "processor": processor,
        "vector_bits": vector_bits(torch.backends.cpu.get_cpu_capability()),
        "bfloat16": sorted(instructions & set(BFLOAT16)),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": name,
        "kernels": _limits.kernels(),
        "held_to": _limits.held_to(),
    }


def number(value: float | None) -> str:
    """A figure with three digits that count."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(digits, 0)}f}"


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned text; "reached" or "MISSED" where there is a bar."""
    head = ("what", "plain", "ours", "unit", "ratio", "bar", "", "note")
    lines = [head]
    for row in rows:
        bar = "" if row.bar is None else f"{'<=' if row.at_most else '>='} {number(row.bar)}"
        verdict = {None: "", True: "reached", False: "MISSED"}[row.passed()]
        figures = (number(row.plain), number(row.ours), row.unit, number(row.ratio))
        lines.append((row.what, *figures, bar, verdict, row.note))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    right = (1, 2, 4, 5)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def report(name: str, rows: Sequence[Row], args: argparse.Namespace, **more: Any) -> None:
    """Print a table, and write it as JSON to the output directory.

    Parameters
    ----------
    name : str
        Of the script, without ``bench_``; the file is ``<out>/<name>.json``.
    rows : sequence of Row
    args : argparse.Namespace
        Of `parser`.
    **more
        Further entries of the file, such as the points of curves.
    """
    place = machine(_device(args))
    print(", ".join(f"{key} {value}" for key, value in place.items()))
    print(table(rows), flush=True)
    content = {
        "name": name,
        "machine": place,
        "arguments": {k: v if _plain_value(v) else str(v) for k, v in vars(args).items()},
        "rows": [asdict(row) | {"passed": row.passed()} for row in rows],
        **more,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def _plain_value(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _device(args: argparse.Namespace) -> torch.device:
    if args.device != "auto":
        return torch.device(args.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def parser(doc: str) -> argparse.ArgumentParser:
    """Arguments that every script takes.

    Parameters
    ----------
    doc : str
        The script's docstring; its first line is the description.
    """
    made = argparse.ArgumentParser(description=doc.strip().splitlines()[0])
    made.add_argument("--out", type=Path, default=Path("bench_output"), help="for JSON, figures")
    made.add_argument("--repeats", type=int, default=5, help="pairs of runs that are timed")
    made.add_argument("--device", default="auto", help="auto, cpu or cuda")
    made.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    return made


if __name__ == "__main__":
    print(_called(sys.argv[1]))

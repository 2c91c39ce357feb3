"""What happens to writers; each function ends in an AssertionError where something is lost.

Nothing half-written is taken for whole, what was there stays, and the next writer leaves nothing
beside what it wrote.
"""

import errno
import faulthandler
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from tests.interruptions.processes import (
    Child,
    Outcome,
    become_nobody,
    ended_after,
    in_child,
    limit_files,
    limit_memory,
    seconds_of,
)
from tests.interruptions.writer import Writer

_BEGINS_A_THREAD = re.compile(r"File .*threading\.py\", line \d+ in start\n")
_BY_SQLITE = ("disk is full", "disk I/O error", "readonly", "unable to open")  # as it says it


def ended(writer: Writer, folder: Path, n: int, drawn: Random, how: int) -> Counter:
    """End the process of a writer with a signal at random moments."""
    counts: Counter = Counter()
    seconds = seconds_of(partial(writer.write, _new(folder), 1))
    for _ in range(n):
        place, before = _new(folder), None
        if writer.replaces:
            before = 0
            _done(in_child(partial(writer.write, place, 0)))
        moment = drawn.uniform(0, 1.2 * seconds)
        ends = ended_after(partial(writer.write, place, 1), moment, how)
        assert ends.error in ("", f"signal {how:d}", "KeyboardInterrupt"), ends.said
        found = _done(in_child(partial(writer.read, place)))
        assert found in (before, 1) or not writer.replaces, f"version {found} is there"
        _done(in_child(partial(writer.write, place, 1)))
        assert _done(in_child(partial(writer.read, place))) is not None
        _nothing_beside(place)
        counts["ended" if ends.error else "over before"] += 1
    return counts


def full(writer: Writer, disk: Path, n_points: int) -> Counter:
    """Let a small disk be full at one place after another, from nothing free to room enough."""
    counts: Counter = Counter()
    place, filler = disk / "data", disk / "filler"
    before = 0 if writer.replaces else None
    _clear(disk, writer, place)
    _done(in_child(partial(writer.write, place, 1)))
    needed = 2 * _used(disk)  # twice, since what is replaced stays until the end
    for point in range(n_points + 1):
        _clear(disk, writer, place)
        free = needed * point // n_points
        with filler.open("wb") as file:
            state = os.statvfs(disk)
            os.posix_fallocate(file.fileno(), 0, max(1, state.f_bavail * state.f_frsize - free))
        told = in_child(partial(writer.write, place, 1))
        filler.unlink()
        counts[_judged(writer, place, told, before, (errno.ENOSPC,))] += 1
    assert counts["refused"] >= 1
    assert counts["written"] >= 1
    return counts


def limited(writer: Writer, folder: Path, n_points: int) -> Counter:
    """Let no file grow over one size after another, as on a disk that is full."""
    counts: Counter = Counter()
    place = _new(folder)
    _done(in_child(partial(writer.write, place, 1)))
    largest = max(path.stat().st_size for path in place.rglob("*") if path.is_file())
    for point in range(n_points + 1):
        place, before = _new(folder), None
        if writer.replaces:
            before = 0
            _done(in_child(partial(writer.write, place, 0)))
        limit = 1 + 2 * largest * point // n_points
        told = in_child(partial(writer.write, place, 1), partial(limit_files, limit))
        counts[_judged(writer, place, told, before, (errno.EFBIG,))] += 1
    assert counts["refused"] >= 1
    assert counts["written"] >= 1
    return counts


def starved(writer: Writer, folder: Path, n_points: int) -> Counter:
    """Let memory end, from next to none to enough of it.

    Python waits for ever for a thread for which memory does not suffice once it runs: whoever waits
    there is killed. Nobody else may wait.
    """
    counts: Counter = Counter()
    for point in range(n_points + 1):
        place, before = _new(folder), None
        if writer.replaces:
            before = 0
            _done(in_child(partial(writer.write, place, 0)))
        waits = folder / f"waits {point}"
        waits.touch()
        limit = partial(_starve, 2 ** (14 + 16 * point // n_points), waits)
        child = Child(partial(writer.write, place, 1), limit)
        while not child.says(1):
            if len(_BEGINS_A_THREAD.findall(waits.read_text())) > 2:
                os.kill(child.pid, signal.SIGKILL)
                break
        told = child.outcome()
        found = _done(in_child(partial(writer.read, place)))
        assert found in (before, 1) or not writer.replaces, f"version {found} is there"
        assert told.error != "hang"
        if told.error:
            counts[told.error] += 1
        else:
            assert found == 1 or not writer.replaces
            counts["written"] += 1
        _done(in_child(partial(writer.write, place, 1)))
        assert _done(in_child(partial(writer.read, place))) is not None
        _nothing_beside(place)
    assert counts["written"] >= 1
    return counts


def _starve(n_bytes: int, waits: Path) -> None:
    """Limit the memory of this process, which says every few seconds where it is."""
    faulthandler.dump_traceback_later(3, repeat=True, file=waits.open("w"))
    limit_memory(n_bytes)


def read_only(writer: Writer, folder: Path) -> Counter:
    """Let nobody write into a folder."""
    place, before = _new(folder), None
    if writer.replaces:
        before = 0
        _done(in_child(partial(writer.write, place, 0)))
    _let_write(place, False)
    told = in_child(partial(writer.write, place, 1), become_nobody)
    if before == 0:  # what is there can be read
        assert _done(in_child(partial(writer.read, place), become_nobody)) == 0
    _let_write(place, True)
    kind = _judged(writer, place, told, before, (errno.EACCES, errno.EROFS))
    assert kind == "refused"
    return Counter([kind])


def at_once(writer: Writer, folder: Path, n: int) -> Counter:
    """Let two processes write at the same place, and a third read meanwhile."""
    place = _new(folder)
    if writer.replaces:
        _done(in_child(partial(writer.write, place, 0)))

    def write(first):
        for number in range(n):
            writer.write(place, (first + number) % 2 if writer.replaces else number % 2)

    def read():
        for _ in range(n):
            found = writer.read(place)
            assert found is not None or not writer.replaces

    children = [Child(partial(write, 0)), Child(partial(write, 1))]
    if writer.replaces:
        children.append(Child(read))
    outcomes = [child.outcome() for child in children]
    # A log is refused to a training that began as the other had not noted its state yet.
    refusals = ("another process has", "of an earlier training, and this one begins anew")
    refused = [one for one in outcomes if any(text in one.message for text in refusals)]
    for outcome in outcomes:
        assert outcome in refused or not outcome.error, outcome.said
    assert len(refused) < len(outcomes)
    assert refused or _done(in_child(partial(writer.read, place))) is not None
    _done(in_child(partial(writer.write, place, 1)))
    _nothing_beside(place)
    return Counter({"written": 2 * n} if not refused else {"refused while another was at it": 1})


@contextmanager
def small_disk(place: Path, n_bytes: int = 2**22) -> Iterator[Path]:
    """A file system in memory; needs what only root may.

    Raises
    ------
    OSError
        If it cannot be mounted here.
    """
    place.mkdir()
    options = f"size={n_bytes},mode=755"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True
    )
    if done.returncode:
        raise OSError(done.stderr.decode().strip())
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@dataclass(frozen=True)
class Amount:
    """How much is tried: times that something is written, and points at which a disk is full."""

    n: int
    n_points: int
    drawn: Random


def on_small_disk(writer: Writer, folder: Path, n_points: int) -> Counter:
    """Let a small disk be full."""
    with small_disk(folder / "disk") as disk:
        return full(writer, disk, n_points)


EVENTS: dict[str, Callable[[Writer, Path, Amount], Counter]] = {
    "killed": lambda writer, place, most: ended(writer, place, most.n, most.drawn, signal.SIGKILL),
    "Ctrl-C": lambda writer, place, most: ended(writer, place, most.n, most.drawn, signal.SIGINT),
    "files limited": lambda writer, place, most: limited(writer, place, most.n_points),
    "out of memory": lambda writer, place, most: starved(writer, place, most.n_points),
    "read-only": lambda writer, place, most: read_only(writer, place),
    "two at once": lambda writer, place, most: at_once(writer, place, most.n),
    "disk full": lambda writer, place, most: on_small_disk(writer, place, most.n_points),
}


def _judged(
    writer: Writer, place: Path, told: Outcome, before: int | None, numbers: tuple[int, ...]
) -> str:
    """Check what a writer told, and what it left; whether it wrote."""
    found = _done(in_child(partial(writer.read, place)))
    if told.error:
        ours = told.errno in numbers or any(text in told.message for text in _BY_SQLITE)
        assert ours, told.said
        assert str(place) in told.message, told.said
        assert found == before or not writer.replaces, f"{told.said}: version {found} is there"
        _done(in_child(partial(writer.write, place, 1)))
    elif writer.replaces:
        assert found == 1
    if not (told.error and writer.keeps_parts):
        _nothing_beside(place)
    return "refused" if told.error else "written"


def _done(outcome: Outcome) -> object:
    assert not outcome.error, outcome.said
    return outcome.value


def _new(folder: Path) -> Path:
    place = folder / f"{len(list(folder.iterdir()))}"
    place.mkdir()
    return place


def _clear(disk: Path, writer: Writer, place: Path) -> None:
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    place.mkdir()
    if writer.replaces:
        _done(in_child(partial(writer.write, place, 0)))


def _used(disk: Path) -> int:
    state = os.statvfs(disk)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


def _let_write(place: Path, allowed: bool) -> None:
    for path in (place, *place.rglob("*")):
        path.chmod((0o755 if path.is_dir() else 0o644) if allowed else 0o555)


def _nothing_beside(place: Path) -> None:
    hidden = [p for p in place.rglob(".*") if p.name != ".lock"]  # which stays in run folders
    left = [str(p.relative_to(place)) for p in hidden]
    left += [str(p.relative_to(place)) for p in place.rglob("*.part") if p.name[0] != "."]
    assert not left, f"left: {left}"
    for folder in {path.parent for path in place.rglob("*.safetensors")}:
        assert len(list(folder.glob("*.safetensors"))) == 1, folder

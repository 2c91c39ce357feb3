"""Calls in processes of their own, forked from this one: what becomes of them, and their ends."""

import faulthandler
import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

NOBODY = 65534
_MOST_SECONDS = 300.0  # of one call, on a machine that is busy with others


@dataclass(frozen=True)
class Outcome:
    """What a call came to.

    Attributes
    ----------
    value : object
        What it returned.
    error : str
        Kind of what it raised, "" for nothing; "signal 7" where its process was ended.
    message : str
    errno : int or None
    """

    value: Any = None
    error: str = ""
    message: str = ""
    errno: int | None = None

    @property
    def said(self) -> str:
        """The error in one line."""
        return f"{self.error} [{self.errno}] {self.message}"


class Child:
    """A forked process that makes one call."""

    def __init__(self, call: Callable[[], Any], prepare: Callable[[], Any] | None = None) -> None:
        sys.stdout.flush()
        self._end, other = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(other)
            return
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            faulthandler.enable()
            if prepare is not None:
                prepare()
            try:
                outcome = Outcome(call())
            except BaseException as error:
                if os.environ.get("SHOW_ERRORS"):
                    traceback.print_exc()
                outcome = Outcome(
                    None, type(error).__name__, str(error), getattr(error, "errno", None)
                )
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with os.fdopen(other, "wb") as pipe:
                pickle.dump(outcome, pipe)
        finally:
            os._exit(0)

    def says(self, seconds: float) -> bool:
        """Whether it has something to say, or is over, within some seconds."""
        return bool(select.select([self._end], [], [], max(0, seconds))[0])

    def outcome(self, seconds: float = _MOST_SECONDS) -> Outcome:
        """Wait for the end."""
        parts, until = [], time.monotonic() + seconds
        while True:
            if not self.says(until - time.monotonic()):
                os.kill(self.pid, signal.SIGABRT)  # it tells where it is
                time.sleep(1)
                os.kill(self.pid, signal.SIGKILL)
                parts.append(pickle.dumps(Outcome(error="hang", message=f"{seconds} s")))
                break
            if not (part := os.read(self._end, 2**20)):
                break
            parts.append(part)
        os.close(self._end)
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status) and not parts:
            return Outcome(error=f"signal {os.WTERMSIG(status)}")
        return pickle.loads(b"".join(parts)) if parts else Outcome(error="no last words")


def in_child(call: Callable[[], Any], prepare: Callable[[], Any] | None = None) -> Outcome:
    """Make a call in a process of its own."""
    return Child(call, prepare).outcome()


def ended_after(call: Callable[[], Any], seconds: float, how: int) -> Outcome:
    """Make a call, and send its process a signal after a while."""
    child = Child(call)
    time.sleep(seconds)
    os.kill(child.pid, how)
    return child.outcome()


def become_nobody() -> None:
    """Give up what root may; others may no more already."""
    if os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def limit_files(n_bytes: int) -> None:
    """Let files grow no larger."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


_hoarded: list[bytearray] = []


def limit_memory(n_bytes: int) -> None:
    """Leave a process so much memory: what it had and let go of is taken, too."""
    room = bytearray(n_bytes)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now, now))
    for size in (2**20, 2**16, 2**12, 2**10):
        with suppress(MemoryError):
            while True:
                _hoarded.append(bytearray(size))
    del room


def seconds_of(call: Callable[[], Any]) -> float:
    """How long a call takes in a process of its own."""
    start = time.monotonic()
    done = in_child(call)
    assert not done.error, done.said
    return time.monotonic() - start

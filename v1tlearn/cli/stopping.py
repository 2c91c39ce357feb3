"""Signals that end a command: Ctrl-C, a terminal that closes, and what clusters send to a job."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Schedulers send the second where a job asks for it, closing terminals the third.
_NAMES = ("SIGTERM", "SIGUSR1", "SIGHUP")
_SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


class StoppedError(KeyboardInterrupt):
    """A signal other than that of Ctrl-C; it ends a training as that does."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stopping() -> Iterator[None]:
    """Let signals to terminate end what runs within as Ctrl-C does, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        """Raise where the process is."""
        signal.signal(number, signal.SIG_IGN)  # once is enough
        raise StoppedError(number)

    heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def code_of(error: KeyboardInterrupt) -> int:
    """Give the exit code that shells know for a signal."""
    return 128 + (error.number if isinstance(error, StoppedError) else signal.SIGINT)


def name_of(error: KeyboardInterrupt) -> str:
    """Say what it was that came."""
    if isinstance(error, StoppedError):
        return f"terminated ({signal.Signals(error.number).name})"
    return "interrupted"

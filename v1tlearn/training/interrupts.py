"""Signals that are to end a training: they wait while something is brought in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
_SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


@contextmanager
def in_one_go() -> Iterator[None]:
    """Let signals that raise in the main thread, as Ctrl-C does, wait until the block ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, Any]] = []
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    handlers = {number: known for number, known in handlers.items() if callable(known)}
    try:
        for number in handlers:
            signal.signal(number, lambda *signalled: came.append(signalled))
        yield
    finally:
        for number, known in handlers.items():
            signal.signal(number, known)
        for number in dict.fromkeys(number for number, _ in came):
            signal.raise_signal(number)

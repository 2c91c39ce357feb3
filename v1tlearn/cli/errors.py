"""How a command ends that does not come to its end, and with which exit code."""

from __future__ import annotations

FAILED, USAGE = 1, 2


class UsageError(ValueError):
    """The command line asks for what there is not."""


class InterruptedCommandError(Exception):
    """A signal came; the message says how to go on."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

"""The process that opens a file first, as a fork of this one: its libraries are there already.

A Python that starts and imports takes a quarter of a second for each file; a fork is as much alone
with it, and dies as well alone.
"""

import os
import select
import subprocess
import sys
import time
import traceback
from contextlib import contextmanager
from unittest import mock

from v1tlearn.datasets import checksums


@contextmanager
def in_place_of_new_processes():
    """Fork where the reader of files of HDF5 would start Python anew."""
    with mock.patch.object(checksums.subprocess, "run", _run):
        yield


def _run(command, *, timeout, **_):
    """Do as `subprocess.run` of ``python -c``, for all that its caller looks at."""
    _, _, _, script, *arguments = command
    receiver, sender = os.pipe()
    process = os.fork()
    if not process:
        os.dup2(sender, 2)
        os._exit(_code(script, arguments))
    os.close(sender)
    try:
        said, until = b"", time.monotonic() + timeout
        while select.select([receiver], [], [], max(0, until - time.monotonic()))[0]:
            more = os.read(receiver, 2**16)
            if not more:
                break
            said += more
        else:
            os.kill(process, 9)
            raise subprocess.TimeoutExpired(command, timeout)
    finally:
        os.close(receiver)
        _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    return subprocess.CompletedProcess(command, code, b"", said)


def _code(script, arguments):
    """Run a script as Python would; the code that it ends with."""
    sys.argv = ["-c", *arguments]
    try:
        exec(script, {"__name__": "__main__"})
    except SystemExit as error:
        if isinstance(error.code, int | None):
            return error.code or 0
        os.write(2, str(error.code).encode())
        return 1
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="replace"))
        return 1
    return 0

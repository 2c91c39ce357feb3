"""A compiler for systems that are not at hand: zig, which brings their headers and libraries."""

import importlib.util
import shutil
import sys

import pytest


def zig(target):
    """The command that compiles for a system; the test skips where zig is not installed."""
    if importlib.util.find_spec("ziglang"):
        command = [sys.executable, "-m", "ziglang"]
    elif shutil.which("zig"):
        command = ["zig"]
    else:
        pytest.skip("no zig: `pip install ziglang` brings it")
    return [*command, "cc", "-target", target]

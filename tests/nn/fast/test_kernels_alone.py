"""The kernels without Python, against loops in double: under sanitizers, and for ARM emulated."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nn.fast.cross import zig
from v1tlearn.nn import fast

ALONE = Path(__file__).with_name("kernels_alone.c")
SOURCES = Path(fast.__file__).parent
# Sanitizers and emulators take ten times as long as the kernels do otherwise.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform == "win32", reason="kernels are for Linux and macOS"),
    pytest.mark.skipif(not list(SOURCES.glob("_kernels*.c")), reason="sources are in checkouts"),
]


def first_of(*commands):
    """The first of some commands that is installed; the test skips where none is."""
    found = next(filter(None, map(shutil.which, commands)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(commands)} is installed")
    return found


def compile_and_run(folder, compiler, flags, emulator=()):
    """What the driver prints; it fails where a variant is wrong."""
    sources = sorted(SOURCES.glob("_kernels_*.c"))
    program = folder / "alone"
    command = [*compiler, "-std=c11", "-ffp-contract=off", *flags, f"-I{SOURCES}", str(ALONE)]
    command += [*map(str, sources), "-lm", "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run([*emulator, str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_no_byte_is_read_or_written_beside_memory_and_nothing_is_undefined(tmp_path):
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    lines = compile_and_run(tmp_path, [first_of("gcc", "clang", "cc")], flags)
    assert tuple(lines[:-1]) == fast.kernel_variants() or not fast.kernel_variants()
    assert "generic" in lines


def test_variants_for_arm_are_right_where_arm_is_emulated(tmp_path):
    emulator = first_of("qemu-aarch64-static", "qemu-aarch64")
    gcc = shutil.which("aarch64-linux-gnu-gcc")
    compiler = [gcc] if gcc else zig("aarch64-linux-musl")
    lines = compile_and_run(tmp_path, compiler, ["-O2", "-static"], [emulator])
    assert lines[:-1] == ["neon", "generic"]

"""The kernels compile and link for every system that `setup.py` builds them for, as it says."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.nn.fast.cross import zig

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs a checkout")

# What `setup.py` asks for where the system and the processor have these names.
ASKED = """
import json, platform, sys
import setuptools, setuptools.command.build_ext
import distutils.core
sys.platform, machine = sys.argv[1:]
platform.machine = lambda: machine
found = distutils.core.run_setup("setup.py", stop_after="init").ext_modules or []
names = ("name", "sources", "define_macros", "extra_compile_args", "extra_link_args")
print(json.dumps([{name: getattr(one, name) for name in names} for one in found]))
"""
BOTH = ["_kernels", "_warping"]
# System and processor as Python names them, and as zig does, what is built there, and how a file
# begins that the system loads.
SYSTEMS = [
    ("linux", "x86_64", "x86_64-linux-gnu.2.28", BOTH, b"\x7fELF"),
    ("linux", "aarch64", "aarch64-linux-gnu.2.28", ["_kernels"], b"\x7fELF"),
    ("darwin", "arm64", "aarch64-macos", ["_kernels"], b"\xcf\xfa\xed\xfe"),
    ("darwin", "x86_64", "x86_64-macos", ["_kernels"], b"\xcf\xfa\xed\xfe"),
    ("win32", "AMD64", "x86_64-windows-gnu", [], b"MZ"),
    ("win32", "ARM64", "aarch64-windows-gnu", [], b"MZ"),
]


def asked(system, processor):
    command = [sys.executable, "-W", "ignore", "-c", ASKED, system, processor]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(("system", "processor", "target", "names", "begins"), SYSTEMS)
def test_each_system_has_the_kernels_that_are_written_for_it(
    system, processor, target, names, begins
):
    found = asked(system, processor)
    assert [one["name"].rpartition(".")[2] for one in found] == names
    for one in found:
        assert one["define_macros"] == [["Py_LIMITED_API", "0x030B0000"]]  # of all later versions
        assert "-g0" in one["extra_compile_args"]  # or it tells the folders it was built in


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "processor", "target", "names", "begins"), [s for s in SYSTEMS if s[3]]
)
def test_kernels_compile_and_link_for(tmp_path, system, processor, target, names, begins):
    compiler = zig(target)
    include = sysconfig.get_paths()["include"]
    for extension in asked(system, processor):
        flags = [f"-D{name}={value}" for name, value in extension["define_macros"]]
        flags += ["-fPIC", f"-I{include}", *extension["extra_compile_args"]]
        library = tmp_path / "library"
        link = ["-shared", *extension["extra_link_args"], "-o", str(library)]
        link += ["-undefined", "dynamic_lookup"] if system == "darwin" else []
        command = [*compiler, *flags, *extension["sources"], *link]
        subprocess.run(command, cwd=ROOT, check=True)
        assert library.read_bytes().startswith(begins)

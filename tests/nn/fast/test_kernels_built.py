"""The compiled kernels are there wherever they can be built: their other tests skip without."""

import importlib
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from v1tlearn.nn import fast

HOW_TO_BUILD = "`make test` or `pip install -e .` builds it, with GCC 10 or newer, or Clang"
AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "fma"}
# Soft-DTW is compiled for Linux on x86-64 only.
NAMES = ["_kernels"] + ["_warping"] * (sys.platform == "linux" and platform.machine() == "x86_64")
FLAGS = {
    "x86_64": {
        "avx512_bf16": AVX512 | {"avx512_bf16"},
        "avx512": AVX512,
        "avx2": {"avx2", "fma"},
        "generic": set(),
    },
    "aarch64": {"neon": {"asimd"}, "generic": set()},
}


@pytest.fixture(autouse=True, scope="module")
def can_be_built():
    """Skip where the kernels cannot be built, and say what is missing."""
    if sys.platform not in ("linux", "darwin"):
        pytest.skip("kernels are for Linux and macOS")
    configured = shlex.split(sysconfig.get_config_var("CC") or "")[:1]
    if not any(shutil.which(name) for name in (*configured, "gcc", "clang", "cc")):
        pytest.skip("there is no C compiler")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        pytest.skip("there is no Python.h")


def built(name):
    """The extension, or a failure that says how to build it."""
    try:
        return importlib.import_module(f"v1tlearn.nn.fast.{name}")
    except ImportError as error:
        pytest.fail(f"v1tlearn.nn.fast.{name} was not built ({error}): {HOW_TO_BUILD}")


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in FLAGS,
    reason="what the processor can is read from Linux, for x86-64 and aarch64",
)
def test_variants_are_those_that_the_processor_can():
    built("_kernels")
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    flags = set(next(line for line in lines if line.startswith(("flags", "Features"))).split())
    needed = FLAGS[platform.machine()]
    assert fast.kernel_variants() == tuple(name for name in needed if needed[name] <= flags)


@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_not_older_than_their_sources(name):
    folder = Path(fast.__file__).parent
    sources = list(folder.glob(f"{name}*.[ch]"))
    if not (folder.parents[2] / "setup.py").exists():
        pytest.skip("sources are in checkouts only")
    assert sources
    changed = max(source.stat().st_mtime for source in sources)
    assert Path(built(name).__file__).stat().st_mtime >= changed, (
        f"the sources of v1tlearn.nn.fast.{name} have changed since it was built: {HOW_TO_BUILD}"
    )


@pytest.mark.slow
def test_soft_dtw_is_the_same_where_nothing_was_compiled():
    script = """
import sys
sys.modules["v1tlearn.nn.fast._kernels"] = sys.modules["v1tlearn.nn.fast._warping"] = None
import torch
from v1tlearn import nn
x, y = torch.randn(2, 3, 4, 5, requires_grad=True)
with nn.fast.using("compiled"):
    quick = nn.soft_dtw_divergence(x, y)
with nn.plain():
    torch.testing.assert_close(quick, nn.soft_dtw_divergence(x, y))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)

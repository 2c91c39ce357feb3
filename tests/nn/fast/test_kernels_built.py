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
import torch

from v1tlearn.nn import fast

HOW_TO_BUILD = "`make test` or `pip install -e .` builds it, with GCC 10 or newer"
FLAGS = {
    torch.float32: {"avx512f", "avx512bw", "avx512vl", "avx512dq", "fma"},
    torch.bfloat16: {"avx512f", "avx512bw", "avx512vl", "avx512dq", "fma", "avx512_bf16"},
}


@pytest.fixture(autouse=True, scope="module")
def can_be_built():
    """Skip where the kernels cannot be built, and say what is missing."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("kernels are for Linux on x86-64")
    configured = shlex.split(sysconfig.get_config_var("CC") or "")[:1]
    if not any(shutil.which(name) for name in (*configured, "gcc", "cc")):
        pytest.skip("there is no C compiler")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        pytest.skip("there is no Python.h")


def built(name):
    """The extension, or a failure that says how to build it."""
    try:
        return importlib.import_module(f"v1tlearn.nn.fast.{name}")
    except ImportError as error:
        pytest.fail(f"v1tlearn.nn.fast.{name} was not built ({error}): {HOW_TO_BUILD}")


def test_types_are_those_that_the_processor_can():
    built("_kernels")
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    assert set(fast.kernel_types()) == {dtype for dtype, needed in FLAGS.items() if needed <= flags}


@pytest.mark.parametrize("name", ["_kernels", "_warping"])
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


def test_nothing_is_known_where_nothing_was_compiled():
    script = """
import sys
sys.modules["v1tlearn.nn.fast._kernels"] = sys.modules["v1tlearn.nn.fast._warping"] = None
import torch
from v1tlearn import nn
assert nn.fast.kernel_types() == ()
layer = nn.Attention(20, 2, 50, head_dim=20, scale=0.5, dropout=0.2)
with nn.fast.using("compiled"):
    layer(torch.randn(2, 50, 20)).square().sum().backward()
assert all(p.grad.isfinite().all() for p in layer.parameters())
x, y = torch.randn(2, 3, 4, 5, requires_grad=True)
with nn.fast.using("compiled"):
    quick = nn.soft_dtw_divergence(x, y)
with nn.plain():
    torch.testing.assert_close(quick, nn.soft_dtw_divergence(x, y))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)

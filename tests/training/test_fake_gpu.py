"""Training steps on a GPU that is not there fail of nothing that a CPU can tell.

No operation mixes devices, none waits for the GPU, all have deterministic forms, and maps lie as
the readouts want them. Numbers, and whatever CUDA's own kernels refuse, are not seen here: that is
for `python benchmarks/gpu.py --check`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.fake_gpu_cases import CASES, IN_FLOAT32, ON_MPS

HERE = Path(__file__).parent
ROOT, TORCH = HERE.parents[1], Path(torch.__file__).parent
COMPILER = next(filter(None, map(shutil.which, ("g++", "clang++"))), None)
# Scores, and losses of small differences, are computed in float64 where the device has it.
IN_FLOAT64 = {"cnn", "vist", "alignment", "alignment in parts", "soft-dtw"}
CHANNELS_LAST = {name for name in CASES if name.startswith(("cnn", "vit", "v1t", "movies, "))}
CHANNELS_LAST -= {"vit, cct", "movies, kernels"}  # a pooled sequence, and the frames themselves
NAMES = [f"{name}, bfloat16" for name in CASES]
NAMES += [f"{name}, float32" for name in IN_FLOAT32] + [f"{name}, mps" for name in ON_MPS]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="libraries are linked as on Linux"),
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this torch has CUDA of its own"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What was noted of every case."""
    library, lib = tmp_path_factory.mktemp("gpu") / "fake_gpu.so", TORCH / "lib"
    command = [COMPILER, "-std=c++20", "-O0", "-fPIC", "-shared", str(HERE / "fake_gpu.cpp")]
    command += [f"-I{TORCH / 'include'}", f"-L{lib}", f"-Wl,-rpath,{lib}", "-ltorch_cpu", "-lc10"]
    subprocess.run([*command, "-o", str(library)], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.training.fake_gpu_cases", str(library)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def case_of(name):
    return name.rpartition(", ")[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_runs_and_nothing_waits_for_the_gpu(told, name):
    """Numbers that a step reads from the GPU are among the errors: there are none."""
    assert told[name]["error"] is None
    assert told[name]["waits"] == []


@pytest.mark.parametrize("name", NAMES)
def test_float64_is_where_it_is_meant_and_never_on_devices_without(told, name):
    meant = case_of(name) in IN_FLOAT64 and not name.endswith("mps")
    assert bool(told[name]["wide"]) == meant


@pytest.mark.parametrize("name", NAMES)
def test_a_step_has_deterministic_forms_of_all_operations(told, name):
    assert told[name]["chance"] == []


@pytest.mark.parametrize(
    "name", [n for n in NAMES if case_of(n) in CHANNELS_LAST and "mps" not in n]
)
def test_maps_have_their_channels_last(told, name):
    assert told[name]["layout"] == "last"

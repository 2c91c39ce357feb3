"""A store that is larger than the memory a process may have: fitted, scored and predicted."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import netCDF4
import numpy as np
import pytest

import v1tlearn as v1

ROOT = Path(__file__).parents[1]
LIMIT = 640 * 2**20  # of all memory that the process may ask for, its libraries' included
N_TRIALS, SHAPE = 24_000, (1, 144, 256)  # 885 MB

# What Linux calls data: all that is private and may be written to.
SCRIPT = """
    import resource, sys
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    import torch
    import v1tlearn as v1
    from v1tlearn.cli.main import main

    torch.set_num_threads(1)
    store, out, low_memory = sys.argv[2:]
    settings = ["n_layers=1", "hidden_channels=2", "input_kernel=3", "batch_size=64",
                "shuffle_block=16", "image_size=[9,16]", "max_epochs=1", "random_state=0",
                "validation_fraction=0", f"low_memory={low_memory}"]
    sets = [word for setting in settings for word in ("--set", setting)]
    code = main(["fit", store, "--model", "CNNRegressor", "--tier", "all", "--out", f"{out}/run",
                 "--device", "cpu", "-q", *sets])
    if code == 0:
        code = main(["predict", f"{out}/run", store, "--out", f"{out}/p.nc", "--device", "cpu"])
    print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
    sys.exit(code)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Uncompressed, one mouse; written by a lazy recording, which is never whole in memory."""
    path = tmp_path_factory.mktemp("store") / "large.nc"
    rng = np.random.default_rng(0)
    one = np.zeros((N_TRIALS, *SHAPE), np.uint8)
    one[:, 0, 70] = rng.integers(0, 256, (N_TRIALS, SHAPE[2]))
    responses = rng.exponential(size=(N_TRIALS, 20)).astype(np.float32)
    trials = v1.Trials.from_arrays(one, None, responses, image_ids=np.arange(N_TRIALS))
    v1.save_recordings(trials.recordings, path, compression=None)
    return path


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others do not limit this memory")
def test_a_store_larger_than_the_memory_of_a_process(store, tmp_path):
    assert store.stat().st_size > LIMIT

    def run(low_memory):
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), LIMIT, store, tmp_path]
        return subprocess.run(
            [*map(str, command), low_memory],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    whole = run("false")
    assert whole.returncode == 1
    assert "memory does not suffice" in whole.stderr
    assert "low_memory=True" in whole.stderr
    (tmp_path / "run").rename(tmp_path / "failed")
    streamed = run("true")
    assert streamed.returncode == 0, streamed.stderr
    assert int(streamed.stdout) * 1024 < store.stat().st_size  # with shared libraries
    model = v1.load(tmp_path / "run" / "model", device="cpu")
    some = v1.Trials.open(store)[::500]
    with netCDF4.Dataset(tmp_path / "p.nc") as file:
        (group,) = file.groups.values()
        found = group["values"][::500]
    (mouse,) = some.mice
    np.testing.assert_allclose(found, model.predict(some).get(mouse), rtol=1e-4)

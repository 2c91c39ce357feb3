"""A store larger than the memory of a process: fitted, predicted, written, joined and scored."""

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
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    import v1tlearn as v1
    from v1tlearn.cli.main import main

    # Sessions are written from the store, joined, split, resized and scored, and are never whole.
    def small_and_joined(store, out):
        trials = v1.Trials.open(store)
        parts = [f"{out}/{n}.nc" for n in "ab"]
        for part, path in zip([trials[: len(trials) // 2], trials[len(trials) // 2 :]], parts):
            part.to_netcdf(path)
        joined = v1.concat([v1.Trials.open(path) for path in parts])
        targets = v1.concat([v1.Trials.open(path).responses for path in parts])
        train, test, y, _ = train_test_split(joined, targets, test_size=0.2, random_state=0)
        small = v1.CNNRegressor(
            n_layers=1, hidden_channels=2, input_kernel=3, batch_size=32, shuffle_block=4,
            max_epochs=1, random_state=0, validation_fraction=0, device="cpu", low_memory=True)
        fitted = make_pipeline(v1.ResizeStimuli((9, 16)), small).fit(train, y)
        print(fitted.score(test))

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
        small_and_joined(store, out)
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
    score, kilobytes = streamed.stdout.split()
    assert np.isfinite(float(score))
    assert int(kilobytes) * 1024 < store.stat().st_size  # with shared libraries
    joined = v1.concat([v1.Trials.open(tmp_path / f"{part}.nc") for part in "ab"])
    for name in ("stimuli", "responses"):
        (mouse,) = joined.mice
        found, wanted = joined[::1000].get(name, mouse), v1.Trials.open(store)[::1000]
        np.testing.assert_array_equal(found, wanted.get(name, mouse))
    model = v1.load(tmp_path / "run" / "model", device="cpu")
    some = v1.Trials.open(store)[::500]
    with netCDF4.Dataset(tmp_path / "p.nc") as file:
        (group,) = file.groups.values()
        found = group["values"][::500]
    (mouse,) = some.mice
    np.testing.assert_allclose(found, model.predict(some).get(mouse), rtol=1e-4)

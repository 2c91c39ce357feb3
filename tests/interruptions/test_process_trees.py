"""Fits in several processes, of which some or all die; and Ctrl-C, as a notebook sends it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system kills in another way"),
]

MODEL = """
    import json, sys, warnings
    import torch, v1tlearn as v1
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    trials = v1.Trials(v1.make_v1_recordings(
        n_mice=1, n_neurons=6, n_trials=60, n_test_images=2, n_repeats=2, image_shape=(9, 16),
        random_state=0)).sel(tier="train")

    def tell(record):
        print(json.dumps(record), flush=True)

    def make(**params):
        return v1.CNNRegressor(
            n_layers=2, hidden_channels=4, input_kernel=3, hidden_kernel=3, batch_size=4,
            device="cpu", random_state=0, **params)
"""
ENSEMBLE = """
    model = v1.EnsembleRegressor(make(max_epochs=12), 4, 2, n_jobs=2, random_state=0)
    model.fit(trials, checkpoint_dir=sys.argv[1], on_epoch=tell)
    print(model.predict(trials)["A"].values.tobytes().hex())
"""
GRID = """
    from sklearn.model_selection import GridSearchCV, GroupKFold
    search = GridSearchCV(
        make(max_epochs=100_000), {"lr": [0.001, 0.003]}, cv=GroupKFold(2), n_jobs=2)
    search.fit(trials, groups=trials.image_ids, on_epoch=tell)
"""
INTERRUPTED = """
    model = make(max_epochs=100_000)
    try:
        model.fit(trials, on_epoch=tell)
    except KeyboardInterrupt:
        told = model.stop_reason_, len(model.history_), model.best_epoch_
    found = model.predict(trials)["A"].values
    again = make(max_epochs=told[1]).fit(trials)
    print(json.dumps([*told, bool((found == again.predict(trials)["A"].values).all())]))
"""
SEARCH = """
    from scipy.stats import loguniform
    search = v1.search.HyperbandSearch(
        make(max_epochs=2), {"lr": loguniform(1e-3, 1e-2)}, n_trials=100_000, min_epochs=1,
        random_state=0)
    try:
        search.fit(trials, on_epoch=tell)
    except KeyboardInterrupt:
        table = search.results_
    print(json.dumps([len(table), int((table["state"] == "complete").sum())]))
"""


def start(code, *arguments):
    code = textwrap.dedent(MODEL) + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def last_line(process):
    told, _ = process.communicate()
    assert process.returncode == 0
    return told.splitlines()[-1]


def test_an_ensemble_whose_processes_die_goes_on(tmp_path):
    """Processes that outlive the first go on with what the second call trains as well."""
    whole = last_line(start(ENSEMBLE, tmp_path / "whole"))
    for who in ("all", "parent"):
        process = start(ENSEMBLE, tmp_path / who)
        for _ in range(8):  # epochs, of two candidates at once
            process.stdout.readline()
        if who == "all":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.stdout.close()
        process.wait()
        assert last_line(start(ENSEMBLE, tmp_path / who)) == whole, who


@pytest.mark.parametrize("who", ["all", "parent"])
def test_processes_of_a_grid_search_end_with_who_began_it(who):
    process = start(GRID)
    process.stdout.readline()  # of a fit in another process
    if who == "all":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.stdout.close()
    process.wait()
    until = time.monotonic() + 300
    while left := of_group(process.pid):
        assert time.monotonic() < until, left
        time.sleep(0.1)


def of_group(number):
    """Processes of a group that are not over."""
    told = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True)
    lines = [line.split(None, 2) for line in told.stdout.splitlines()]
    return [line[2] for line in lines if line[0] == str(number) and line[1][0] != "Z"]


def test_control_c_leaves_what_was_trained():
    process = start(INTERRUPTED)
    for _ in range(3):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    reason, n_epochs, best, same = json.loads(last_line(process))
    assert reason == "interrupted"
    assert n_epochs >= 3
    assert 1 <= best <= n_epochs
    assert same


def test_control_c_leaves_the_trials_of_a_search():
    process = start(SEARCH)
    for _ in range(9):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    n_trials, n_complete = json.loads(last_line(process))
    assert n_trials >= 4
    assert n_complete >= 1

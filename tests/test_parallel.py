import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import distributed
import joblib
import numpy as np
import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1
from tests.dask_jobs import (
    KillingCallback,
    KillingScorer,
    KillingTrial,
    OpenFilesScorer,
    fail_or_wait,
    process_and_number,
    times_open,
)
from v1tlearn.training.workers import worker_number

ROOT = Path(__file__).parents[1]
N_WORKERS = 2


def stored(folder, image_shape, n_trials=160):
    """Trials in a file of their own."""
    sizes = {"n_mice": 2, "n_neurons": 6, "n_test_images": 4, "n_repeats": 3}
    made = v1.make_v1_recordings(
        **sizes, n_trials=n_trials, image_shape=image_shape, random_state=0
    )
    v1.save_recordings(made, folder / "recordings.nc")
    return v1.Trials.open(folder / "recordings.nc")


@pytest.fixture
def trials(tmp_path):
    return stored(tmp_path, (12, 18)).sel(tier="train")


@contextlib.contextmanager
def cluster(folder, n_workers):
    """A scheduler and workers, processes that all end; killed workers are replaced."""
    environment = os.environ | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    scheduler = ["scheduler", "--scheduler-file", "cluster.json", "--port", "0", "--no-dashboard"]
    worker = ["worker", "--scheduler-file", "cluster.json", "--nworkers", str(n_workers)]
    worker += ["--nthreads", "1", "--name", "node", "--no-dashboard"]
    with contextlib.ExitStack() as ends, open(folder / "log", "w") as log:
        for command in (scheduler, worker):
            started = subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                cwd=folder,
                env=environment | {"PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            ends.callback(started.wait)
            ends.callback(os.killpg, started.pid, signal.SIGKILL)
        with distributed.Client(scheduler_file=folder / "cluster.json", timeout=300) as client:
            client.wait_for_workers(n_workers, timeout=300)
            yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster"), N_WORKERS) as made:
        yield made


@pytest.fixture
def workers(client):
    """The cluster, with all of its workers."""
    client.wait_for_workers(N_WORKERS, timeout=300)
    return client


def small(**params):
    return v1.CNNRegressor(
        n_layers=1, hidden_channels=3, input_kernel=5, device="cpu", random_state=0, **params
    )


def search(scoring=None, **params):
    model = small(max_epochs=1, validation_fraction=0)
    return GridSearchCV(
        model,
        {"lr": [1e-3, 2e-3, 4e-3]},
        cv=GroupKFold(2),
        scoring=scoring,
        error_score="raise",
        **params,
    )


def scores(found):
    """The table of a search, but for what was measured in seconds."""
    return {k: list(v) for k, v in found.cv_results_.items() if "time" not in k}


def same_predictions(one, two, trials):
    one, two = one.predict(trials), two.predict(trials)
    return all(np.array_equal(one[mouse], two[mouse]) for mouse in trials.mice)


def test_images_and_responses_of_files_are_not_sent(tmp_path):
    few, many = (tmp_path / name for name in ("few", "many"))
    few.mkdir()
    many.mkdir()
    of_few, of_many = stored(few, (8, 12), 60), stored(many, (48, 64), 60)
    file = (many / "recordings.nc").stat().st_size
    for chosen in (slice(None), slice(None, None, 2)):
        sent = len(pickle.dumps(of_many[chosen]))
        assert sent < file / 5
        assert sent == pytest.approx(len(pickle.dumps(of_few[chosen])), abs=200)  # another path
    in_memory = v1.Trials({m: d.load() for m, d in of_many.recordings.items()})
    assert len(pickle.dumps(in_memory)) > file / 2


def test_without_a_client():
    with pytest.raises(ValueError, match="first create a Dask Client"), v1.parallel.on_dask():
        pass


@pytest.mark.parametrize("client", ["scheduler:8786", 5, distributed.Client])
def test_what_is_no_client_is_refused(client):
    said = r"client is .*: expected a distributed.Client"
    with pytest.raises(TypeError, match=said), v1.parallel.on_dask(client):
        pass


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_of_a_grid_search(workers, trials, tmp_path):
    before = set(workers.run(os.getpid).values())
    scoring = KillingScorer(tmp_path, times=1)
    with v1.parallel.on_dask(workers):
        found = search(scoring).fit(trials, groups=trials.image_ids)
    assert (tmp_path / "kill-0").exists()
    workers.wait_for_workers(N_WORKERS, timeout=300)
    assert len(before - set(workers.run(os.getpid).values())) == 1
    alone = search().fit(trials, groups=trials.image_ids)
    assert scores(found) == scores(alone)
    assert same_predictions(found, alone, trials)


@pytest.mark.slow
def test_a_fit_that_ends_every_worker_is_named(workers, trials, tmp_path):
    scoring = KillingScorer(tmp_path, times=99)
    named = r"_fit_and_score.* on 2 different workers, but all those workers died"
    with (
        v1.parallel.on_dask(workers),
        pytest.raises(distributed.KilledWorker, match=named),
    ):
        search(scoring).fit(trials, groups=trials.image_ids)
    for number in range(scoring.times):  # what runs now may go on
        (tmp_path / f"kill-{number}").touch()
    wait_for_no_task(workers)


def wait_for_no_task(client):
    while any(client.processing().values()):
        time.sleep(0.1)


@pytest.mark.slow
def test_what_was_not_begun_when_a_search_failed_is_left(workers, tmp_path):
    tasks = [joblib.delayed(fail_or_wait)(tmp_path, number) for number in range(20)]
    with v1.parallel.on_dask(workers), pytest.raises(ValueError, match="the first one"):
        joblib.Parallel(n_jobs=-1)(tasks)
    (tmp_path / "seen").touch()
    wait_for_no_task(workers)
    assert len(list(tmp_path.iterdir())) <= 1 + N_WORKERS  # those that ran already


@pytest.mark.slow
def test_a_file_is_opened_once_by_a_worker_and_closed(workers, trials, tmp_path):
    path = tmp_path / "recordings.nc"
    with v1.parallel.on_dask(workers):
        search(OpenFilesScorer(path, tmp_path / "notes"), refit=False).fit(
            trials, groups=trials.image_ids
        )
    notes = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    assert len(notes) == 6
    assert {times for _, times in notes} == {"1"}
    until = time.monotonic() + 60  # workers let go of what they had when they come to it
    while (left := set(workers.run(times_open, path).values())) != {0}:
        assert time.monotonic() < until, left
        time.sleep(0.2)


@pytest.mark.slow
def test_a_killed_worker_loses_no_epoch_of_an_ensemble(workers, trials, tmp_path):
    ensemble = v1.EnsembleRegressor(small(max_epochs=3), 3, 2, random_state=0)
    killing = KillingCallback(tmp_path, times=1)
    with v1.parallel.on_dask(workers):
        found = clone(ensemble).fit(trials, checkpoint_dir=tmp_path / "states", on_epoch=killing)
    assert (tmp_path / "kill-0").exists()
    told = [json.loads(line) for line in (tmp_path / "epochs.jsonl").read_text().splitlines()]
    first = [(t["candidate"], t["epoch"]) for t in told if t["epoch"] == 1]
    assert sorted(first) == [(0, 1), (1, 1), (2, 1)]  # none was trained from the start again
    assert len({t["process"] for t in told}) > 1
    alone = ensemble.fit(trials)
    assert found.validation_scores_.tolist() == alone.validation_scores_.tolist()
    assert same_predictions(found, alone, trials)


def hyperband(folder, **params):
    return v1.search.HyperbandSearch(
        small(max_epochs=2),
        {"lr": [1e-3, 2e-3, 4e-3]},
        n_trials=4,
        storage=folder / "study.db",
        random_state=0,
        refit=False,
        **params,
    )


@pytest.mark.slow
def test_workers_of_dask_search_by_one_study(workers, trials, tmp_path):
    with v1.parallel.on_dask(workers):
        found = hyperband(tmp_path, n_jobs=-1).fit(trials)
    assert set(found.results_["state"]) <= {"complete", "pruned"}
    assert len(found.results_) >= 4


@pytest.mark.slow
def test_a_killed_worker_loses_no_trial_of_a_search(workers, trials, tmp_path):
    with v1.parallel.on_dask(workers):
        found = hyperband(tmp_path, n_jobs=-1).fit(trials, on_epoch=KillingTrial(tmp_path, 1))
    assert (tmp_path / "kill-0").exists()
    ended = found.results_[found.results_["state"].isin(["complete", "pruned"])]
    assert len(ended) >= 4
    assert np.isfinite(ended["score"]).all()


@pytest.mark.slow
def test_what_a_killed_process_of_joblib_ends_goes_on(trials, tmp_path):
    ensemble = v1.EnsembleRegressor(small(max_epochs=3), 3, 2, n_jobs=2, random_state=0)
    states = {"checkpoint_dir": tmp_path / "states"}
    with pytest.raises(TerminatedWorkerError):
        clone(ensemble).fit(trials, **states, on_epoch=KillingCallback(tmp_path, times=1))
    epochs = tmp_path / "epochs.jsonl"
    before = len(epochs.read_text().splitlines())
    found = clone(ensemble).fit(trials, **states, on_epoch=KillingCallback(tmp_path, times=1))
    told = [json.loads(line) for line in epochs.read_text().splitlines()]
    assert before >= 2  # of the candidate whose process was killed, which went on
    assert len({(t["candidate"], t["epoch"]) for t in told}) == len(told) == 9
    alone = ensemble.fit(trials)
    assert found.validation_scores_.tolist() == alone.validation_scores_.tolist()


@pytest.mark.slow
def test_a_search_whose_process_of_joblib_was_killed_goes_on(trials, tmp_path):
    search = hyperband(tmp_path, n_jobs=2)
    with pytest.raises(TerminatedWorkerError):
        clone(search).fit(trials, on_epoch=KillingTrial(tmp_path, 2))
    found = clone(search).fit(trials)
    ended = found.results_["state"].isin(["complete", "pruned"])
    assert ended.sum() >= 4


@pytest.mark.slow
def test_workers_have_numbers(workers):
    assert worker_number() is None
    addresses = workers.scheduler_info()["workers"]
    tasks = [workers.submit(worker_number, workers=[a], pure=False) for a in addresses]
    assert sorted(task.result() for task in tasks) == [0, 1]


@pytest.mark.slow
def test_the_only_worker_of_a_cluster_does_the_work(tmp_path):
    with cluster(tmp_path, 1) as client, v1.parallel.on_dask(client):
        (worker,) = client.run(os.getpid).values()
        tasks = [joblib.delayed(process_and_number)() for _ in range(3)]
        assert {process for process, _ in joblib.Parallel(n_jobs=-1)(tasks)} == {worker}


@pytest.mark.slow
def test_processes_of_joblib_have_numbers():
    tasks = [joblib.delayed(process_and_number)() for _ in range(8)]
    found = dict(joblib.Parallel(n_jobs=2, backend="loky", batch_size=1)(tasks))
    assert os.getpid() not in found
    assert None not in found.values()
    assert len(set(found.values())) == len(found)

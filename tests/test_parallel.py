import json
import os
import pickle

import dask
import distributed
import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1
from tests.dask_jobs import (
    KillingCallback,
    KillingScorer,
    OpenFilesScorer,
    process_and_number,
    times_open,
)
from v1tlearn.training.workers import worker_number

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


@pytest.fixture(scope="module")
def client():
    """A cluster of processes, which replaces those that end."""
    config = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"],
    }
    quiet = {"dashboard_address": ":0", "silence_logs": 50}
    with (
        dask.config.set(config),
        distributed.LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, **quiet) as cluster,
        distributed.Client(cluster) as made,
    ):
        yield made


@pytest.fixture
def workers(client):
    """The cluster, with all of its workers."""
    client.wait_for_workers(N_WORKERS, timeout=120)
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


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_of_a_grid_search(workers, trials, tmp_path):
    before = set(workers.run(os.getpid).values())
    scoring = KillingScorer(tmp_path, times=1)
    with v1.parallel.on_dask(workers):
        found = search(scoring).fit(trials, groups=trials.image_ids)
    assert (tmp_path / "kill-0").exists()
    workers.wait_for_workers(N_WORKERS, timeout=120)
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
    assert set(workers.run(times_open, path).values()) == {0}


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


@pytest.mark.slow
def test_workers_of_dask_search_by_one_study(workers, trials, tmp_path):
    hyperband = v1.search.HyperbandSearch(
        small(max_epochs=2),
        {"lr": [1e-3, 2e-3, 4e-3]},
        n_trials=4,
        n_jobs=-1,
        storage=tmp_path / "study.db",
        random_state=0,
        refit=False,
    )
    with v1.parallel.on_dask(workers):
        found = hyperband.fit(trials)
    assert set(found.results_["state"]) <= {"complete", "pruned"}
    assert len(found.results_) >= 4


@pytest.mark.slow
def test_workers_have_numbers(workers):
    assert worker_number() is None
    addresses = workers.scheduler_info()["workers"]
    tasks = [workers.submit(worker_number, workers=[a], pure=False) for a in addresses]
    assert sorted(task.result() for task in tasks) == [0, 1]


@pytest.mark.slow
def test_processes_of_joblib_have_numbers():
    tasks = [joblib.delayed(process_and_number)() for _ in range(8)]
    found = dict(joblib.Parallel(n_jobs=2, backend="loky", batch_size=1)(tasks))
    assert os.getpid() not in found
    assert None not in found.values()
    assert len(set(found.values())) == len(found)

import io
import os
import pickle
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing, nullcontext
from pathlib import Path
from typing import ClassVar

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy.stats import loguniform, uniform
from sklearn.base import clone
from sqlalchemy.pool import NullPool

import v1tlearn as v1
from tests.search.pretended import Pretended, search_pretended, small_cnn
from tests.sweeps import quick
from v1tlearn.search import (
    HyperbandSearch,
)


def test_study_goes_on_where_it_stopped_as_if_it_had_not(trials, tmp_path):
    path = tmp_path / "study.db"
    estimator = Pretended(max_epochs=3)
    first = search_pretended(estimator, storage=path, n_trials=5).fit(trials).results_
    second = search_pretended(estimator, storage=path, n_trials=13).fit(trials)
    at_once = search_pretended(estimator, study_name="Pretended", n_trials=13).fit(trials)
    pd.testing.assert_frame_equal(second.results_[:5], first)
    assert len(second.results_) == 13
    same = ["state", "epochs", "score", "param_lr"]
    pd.testing.assert_frame_equal(second.results_[same], at_once.results_[same])
    again = search_pretended(estimator, storage=f"sqlite:///{path}", n_trials=13).fit(trials)
    pd.testing.assert_frame_equal(again.results_, second.results_)
    assert again.best_params_ == second.best_params_


@pytest.mark.parametrize(
    "name", quick(["st?udy.db", "st#u%2Fdy.db", "a: b[0]&c=d.db", "étude+1.db"], 0)
)
@pytest.mark.parametrize("kind", [Path, str])
def test_the_name_of_a_file_is_no_address(trials, tmp_path, name, kind):
    storage = kind(tmp_path / name)
    first = search_pretended(storage=storage, n_trials=1).fit(trials)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    second = search_pretended(storage=storage, n_trials=2).fit(trials)
    pd.testing.assert_frame_equal(second.results_[:1], first.results_)


@pytest.mark.slow
def test_the_whole_path_of_a_study_is_named(trials, tmp_path):
    path = str(tmp_path / "me@lab" / "study.db")
    with pytest.raises(ValueError, match=re.escape(f"the studies in {path} cannot be")):
        search_pretended(storage=path, n_trials=1).fit(trials)


def test_study_keeps_its_seed(trials, tmp_path):
    params = {"storage": tmp_path / "study.db", "random_state": None}
    first = search_pretended(n_trials=1, **params).fit(trials)
    assert search_pretended(n_trials=2, **params).fit(trials).seed_ == first.seed_


@pytest.mark.slow
def test_study_of_another_search_is_not_mixed_with_this_one(trials, tmp_path):
    path = tmp_path / "study.db"
    search = search_pretended(storage=path, n_trials=1).fit(trials)
    begun = r"^the study 'Pretended' was begun with other settings: "
    for params, differing in [
        ({"space": {"lr": uniform(0.1, 0.5)}}, r'space, lr: .*"high": 1.0.* -> .*"high": 0.6.*'),
        ({"random_state": 1}, r"random_state: 0 -> 1; random_state of the estimator: 0 -> 1"),
        ({"estimator__n_layers": 3}, r"fixed parameters, n_layers: 4 -> 3"),
        ({"estimator__max_epochs": 6}, r"fixed parameters, max_epochs: 9 -> 6"),
        ({"validation_fraction": 0.2}, r"validation_fraction: 0.1 -> 0.2"),
        (
            {"estimator__max_epochs": 6, "min_epochs": 2},
            r"fixed parameters, max_epochs: 9 -> 6; min_epochs: 1 -> 2",
        ),
    ]:
        with pytest.raises(ValueError, match=rf"{begun}{differing}\. Scores"):
            clone(search).set_params(**params).fit(trials)
    table = clone(search).set_params(study_name="other", random_state=1).fit(trials).results_
    assert len(table) == 1
    moved = clone(search).set_params(estimator__device="cpu", n_trials=2)
    assert len(moved.fit(trials).results_) == 2


def test_study_of_other_recordings_is_not_mixed_with_this_one(trials, recordings, tmp_path):
    """Also not of recordings of the same size: other images, responses, or another order."""
    search = search_pretended(storage=tmp_path / "study.db", n_trials=1).fit(trials)

    def differing(others, target=None, validation=None):
        with pytest.raises(ValueError, match="'Pretended' was begun with other") as error:
            clone(search).fit(others, target, validation=validation)
        return re.findall(r"(recording, .|validation): (.*?) -> (.*?)[;.]", str(error.value))

    ((mouse, was, now),) = differing(trials.sel(mouse_id="A"))
    assert mouse == "recording, B"
    assert was.startswith("32 trials, 5 neurons, hash")
    assert now == "None"

    found = differing(trials[::-1])
    assert [mouse for mouse, *_ in found] == ["recording, A", "recording, B"]
    assert all(was.split("hash")[0] == now.split("hash")[0] for _, was, now in found)

    loud = {mouse: np.array(trials.responses.get(mouse)) for mouse in trials.mice}
    loud["B"][0, 3] += 1
    ((mouse, *_),) = differing(trials, v1.trials.Responses.from_arrays(loud, trials))
    assert mouse == "recording, B"

    others = {mouse: recordings[mouse].to_dataset() for mouse in trials.mice}
    ids = others["A"]["image_id"].copy()
    first, second = np.flatnonzero(others["A"]["tier"] == "train")[:2]
    ids[second] = ids[first]
    others["A"] = others["A"].assign_coords(image_id=ids)
    ((mouse, *_),) = differing(v1.Trials(others).sel(tier="train"))
    assert mouse == "recording, A"

    ((what, was, now),) = differing(trials, validation=trials[:5])
    assert what == "validation"
    assert was == "None"
    assert "5 trials" in now

    copy = v1.Trials({mouse: trials.recordings[mouse].to_dataset().copy() for mouse in trials.mice})
    assert len(clone(search).set_params(n_trials=2).fit(copy).results_) == 2


def test_trial_that_the_user_breaks_off_is_run_again(trials, tmp_path):
    class Impatient(Pretended):
        calls: ClassVar[list] = []

        def fit(self, *args, **kwargs):
            self.calls.append(self.lr)
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().fit(*args, **kwargs)

    search = search_pretended(Impatient(max_epochs=2), storage=tmp_path / "study.db", n_trials=3)
    with pytest.raises(KeyboardInterrupt):
        search.fit(trials)
    table = search.fit(trials).results_
    assert table["state"].tolist().count("interrupted") == 1
    assert len(table) == 4
    assert Impatient.calls[2] == Impatient.calls[1]


@pytest.mark.slow
def test_trial_that_another_process_gave_up_is_left_to_it(trials, tmp_path, caplog):
    path = tmp_path / "study.db"

    class Suspended(Pretended):
        calls: ClassVar[list] = []

        def fit(self, *args, **kwargs):
            self.calls.append(self.lr)
            if len(self.calls) == 1:
                study = study_in(path, "Suspended")
                study.tell(0, state=optuna.trial.TrialState.FAIL)
            return super().fit(*args, **kwargs)

    table = search_pretended(Suspended(max_epochs=2), storage=path, n_trials=2).fit(trials).results_
    assert "took a trial for dead" in caplog.text
    assert table["state"][0] == "interrupted"
    assert set(table["state"][1:]) <= {"complete", "pruned"}
    assert len(table) == 3


def study_in(path, name="Pretended"):
    """A study as other programs open it; its database is open for as long as it is asked."""
    options = {"poolclass": NullPool}
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs=options)
    return optuna.load_study(study_name=name, storage=storage)


def an_hour_passes(path):
    """Date back all trials of a study, and their last signs of life."""
    with closing(sqlite3.connect(path)) as database, database:
        for table, column in (("trials", "datetime_start"), ("trial_heartbeats", "heartbeat")):
            database.execute(f"UPDATE {table} SET {column} = datetime({column}, '-1 hour')")


SCRIPT = """
    import os, signal, sqlite3, sys, time
    from scipy.stats import uniform
    import v1tlearn as v1
    from v1tlearn.search import HyperbandSearch

    calls = []

    def die_with_a_sign_of_life():  # of both trials, which a thread of Optuna writes
        database = sqlite3.connect(sys.argv[1], timeout=60)
        while database.execute("SELECT count(*) FROM trial_heartbeats").fetchone() != (2,):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    class Pretended(v1.CNNRegressor):
        def fit(self, *args, on_epoch=None, **kwargs):
            for epoch in range(1, 4):
                on_epoch({{"epoch": epoch, "validation_correlation": self.lr * epoch}})
                {during}
            return self

    trials = v1.Trials(v1.make_v1_recordings(
        n_mice=1, n_neurons=3, n_trials=12, n_test_images=2, n_repeats=2, image_shape=(16, 24),
        random_state=0)).sel(tier="train")
    search = HyperbandSearch(
        Pretended(max_epochs=3), {{"lr": uniform(0.1, 0.9)}}, n_trials={n_trials}, min_epochs=1,
        storage=sys.argv[1], random_state={seed}, refit=False)
    table = search.fit(trials).results_
    print(search.seed_)
    print(table.to_json(orient="records"))
"""


def script(path, n_trials, during, seed=0):
    code = textwrap.dedent(SCRIPT).format(n_trials=n_trials, during=during, seed=seed)
    return [sys.executable, "-c", code, str(path)]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system kills in another way")
def test_trial_of_a_killed_process_is_run_again(tmp_path):
    path = tmp_path / "study.db"
    kill = "calls.append(epoch) or len(calls) < 5 or die_with_a_sign_of_life()"
    killed = subprocess.run(script(path, 6, kill), check=False)
    assert killed.returncode == -signal.SIGKILL
    study = study_in(path)
    states = [trial.state.name for trial in study.trials]
    assert states[-1] == "RUNNING"
    assert "RUNNING" not in states[:-1]
    left, n_before = study.trials[-1].params, len(states)

    an_hour_passes(path)
    trials = v1.Trials(
        v1.make_v1_recordings(
            n_mice=1,
            n_neurons=3,
            n_trials=12,
            n_test_images=2,
            n_repeats=2,
            image_shape=(16, 24),
            random_state=0,
        )
    ).sel(tier="train")
    table = search_pretended(Pretended(max_epochs=3), storage=path, n_trials=6).fit(trials).results_
    states = table["state"].value_counts()
    assert states["interrupted"] == 1
    assert states.drop("interrupted").sum() == 6
    broken = table.index[table["state"] == "interrupted"][0]
    assert broken == n_before - 1
    assert table["param_lr"][broken] == left["lr"]
    assert (table["param_lr"][broken + 1 :] == left["lr"]).sum() == 1


@pytest.mark.slow
def test_trial_that_died_before_its_first_sign_of_life_is_given_up(trials, tmp_path):
    path = tmp_path / "study.db"
    search = search_pretended(storage=path, n_trials=1).fit(trials)
    study_in(path).ask()  # and dies
    an_hour_passes(path)
    table = clone(search).set_params(n_trials=2).fit(trials).results_
    assert table["state"].tolist()[0] == "complete"
    assert table["state"].tolist()[1] == "interrupted"
    assert len(table) == 3


@pytest.mark.slow
def test_a_dead_trial_that_two_processes_give_up_at_a_time(trials, tmp_path, monkeypatch):
    path = tmp_path / "study.db"
    search = search_pretended(storage=path, n_trials=1).fit(trials)
    study_in(path).ask()  # and dies
    an_hour_passes(path)
    storage, changed = optuna.storages.RDBStorage, []
    change = storage.set_trial_state_values

    def another_is_first(self, trial_id, state, values=None):
        if state == optuna.trial.TrialState.FAIL and not changed:
            changed.append(change(self, trial_id, state, values))
        return change(self, trial_id, state, values)

    monkeypatch.setattr(storage, "set_trial_state_values", another_is_first)
    table = clone(search).set_params(n_trials=2).fit(trials).results_
    assert changed == [True]
    assert table["state"].tolist()[1] == "interrupted"
    assert len(table) == 3


def test_a_trial_gives_a_sign_of_life_before_it_is_trained(trials, tmp_path, monkeypatch):
    path = tmp_path / "study.db"
    monkeypatch.setattr("optuna.study._optimize.get_heartbeat_thread", lambda *_: nullcontext())
    search_pretended(storage=path, n_trials=2).fit(trials)
    with closing(sqlite3.connect(path)) as database:
        (signs,) = database.execute("SELECT count(*) FROM trial_heartbeats").fetchone()
    assert signs == 2


@pytest.mark.slow
def test_processes_that_start_together_share_a_study(tmp_path):
    command = script(tmp_path / "study.db", 12, "time.sleep(0.1)", seed=None)
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    seeds, tables = zip(*(answer.strip().splitlines()[-2:] for answer in answers), strict=True)
    assert len(set(seeds)) == 1
    for table in tables:
        table = pd.read_json(io.StringIO(table))
        assert table["state"].isin(["complete", "pruned"]).sum() >= 12
        assert len(table) <= 14  # all may begin the last one
        assert table["param_lr"].is_unique


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*cannot follow their images")  # five neurons, three epochs
@pytest.mark.parametrize("stored", [False, True])
def test_search_runs_trials_in_several_processes(trials, tmp_path, stored):
    search = HyperbandSearch(
        small_cnn(max_epochs=3),
        {"lr": loguniform(1e-4, 1e-1)},
        n_trials=6,
        min_epochs=1,
        n_jobs=2,
        random_state=0,
        storage=tmp_path / "study.db" if stored else None,
    ).fit(trials)
    assert len(search.results_) in (6, 7)
    complete = search.results_[search.results_["state"] == "complete"]
    assert search.best_score_ == complete["score"].max()
    assert len(search.study_.trials) == len(search.results_)
    assert search.score(trials) == search.best_estimator_.score(trials)


@pytest.mark.parametrize(
    "statement",
    [
        "update study_user_attributes set value_json = '[1'",
        "update study_user_attributes set value_json = '[1]'",
        "update trials set state = 'UNKNOWN'",
        "update trials set datetime_start = 'yesterday'",
    ],
)
def test_a_damaged_database_is_named(trials, tmp_path, statement):
    path = tmp_path / "study.db"
    search_pretended(storage=path, n_trials=1).fit(trials)
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()
    with pytest.raises(ValueError, match=r"study.db cannot be read|'Pretended' notes a list"):
        search_pretended(storage=path, n_trials=2).fit(trials)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("update trial_params set param_value = 7", "trial 0 .* has lr=7.0, which is not in the"),
        ("delete from trial_params", r"trial 0 .* lacks \['lr'\]"),
        ("delete from trial_intermediate_values", "trial 0 .* has no score"),
        (
            "update trial_values set value = null, value_type = 'INF_POS'",
            "trial 0 .* has the score inf",
        ),
        (
            "update study_user_attributes set value_json = "
            "json_set(value_json, '$.random_state', 'x')",
            "notes the seed 'x'",
        ),
    ],
)
def test_trials_that_no_search_makes_are_refused(trials, tmp_path, statement, said):
    path = tmp_path / "study.db"
    search_pretended(storage=path, n_trials=1, random_state=0).fit(trials)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)
    with pytest.raises(ValueError, match=f"{said}.*kept in .*study.db"):
        search_pretended(storage=path, n_trials=2, random_state=None).fit(trials)


class _Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
def test_nothing_in_a_database_is_unpickled(trials, tmp_path):
    path, marker = tmp_path / "study.db", tmp_path / "ran"
    search_pretended(storage=path, n_trials=2).fit(trials)
    intact, hostile = path.read_bytes(), pickle.dumps(_Hostile(marker))
    with closing(sqlite3.connect(path)) as connection:
        tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
        places = [
            (table, name)
            for (table,) in connection.execute(tables).fetchall()
            for _, name, kind, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall()
            if kind.startswith(("VARCHAR", "TEXT"))  # where SQLAlchemy would keep them, too
        ]
    assert len(places) > 10
    refused = 0
    for table, column in places:
        path.write_bytes(intact)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (hostile,))
        said = None
        try:
            search_pretended(storage=path, n_trials=2).fit(trials)
        except ValueError as error:
            refused, said = refused + 1, str(error)
        assert said is None or str(path) in said
        assert not marker.exists()
    assert refused > 3
    pickle.loads(hostile)
    assert marker.exists()


def test_a_file_that_is_no_database_is_named_and_kept(trials, tmp_path):
    path = tmp_path / "study.db"
    path.write_text("hello " * 1000)
    with pytest.raises(ValueError, match=r"study.db cannot be read.*file is not a database"):
        search_pretended(storage=path, n_trials=1).fit(trials)
    assert path.read_text() == "hello " * 1000


def test_trials_of_an_interrupted_search_are_kept(trials):
    class Impatient(Pretended):
        calls: ClassVar[list] = []

        def fit(self, *args, **kwargs):
            self.calls.append(self.lr)
            if len(self.calls) == 4:
                raise KeyboardInterrupt
            return super().fit(*args, **kwargs)

    search = search_pretended(Impatient(max_epochs=2), n_trials=8)
    with pytest.raises(KeyboardInterrupt):
        search.fit(trials)
    table = search.results_
    assert table["state"].isin(["complete", "pruned"]).sum() == 3
    assert table["state"].tolist()[3] == "interrupted"
    complete = table[table["state"] == "complete"]
    assert search.best_score_ == complete["score"].max()
    with pytest.raises(AttributeError, match="did not come to its end"):
        search.predict(trials)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*cannot follow their images")  # five neurons, two epochs
def test_the_last_fit_of_a_search_goes_on_from_its_states(trials, tmp_path):
    space = {"lr": loguniform(1e-4, 1e-1)}
    params = {"n_trials": 2, "min_epochs": 1, "random_state": 0}
    first = HyperbandSearch(small_cnn(max_epochs=2), space, **params)
    first.fit(trials, checkpoint_dir=tmp_path)
    again = clone(first).fit(trials, checkpoint_dir=tmp_path)
    assert again.best_estimator_.history_ == first.best_estimator_.history_  # the seconds, too
    more = clone(first).set_params(n_trials=4).fit(trials, checkpoint_dir=tmp_path)
    assert more.best_score_ >= first.best_score_


def test_a_search_of_models_that_no_file_holds_is_refused_ahead_of_it(trials, tmp_path):
    own = v1.EncodingRegressor(lambda shape: None, device="cpu")
    search = HyperbandSearch(own, {"lr": loguniform(1e-4, 1e-1)}, n_trials=1, min_epochs=1)
    with pytest.raises(TypeError, match="'parameters/core' is a function, which cannot be saved"):
        search.fit(trials, checkpoint_dir=tmp_path)

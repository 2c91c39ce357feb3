"""What ran in a folder, told by a file in it."""

import json
import os
import pickle
import re
import tracemalloc
from datetime import datetime
from importlib.metadata import version

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from tests.mice import two_mice
from v1tlearn.tracking import RunFolder


def told(folder):
    return json.loads((folder / "run.json").read_text(), parse_constant=pytest.fail)


def test_a_run_tells_what_ran(small, trials, tmp_path):
    validation = v1.Trials(two_mice()).sel(tier="validation")
    n = len(validation.sel(mouse_id="A"))
    model = small(betas=(0.8, 0.9))
    with RunFolder(tmp_path, model, trials, validation) as run:
        begun = told(tmp_path)
        model.fit(trials, validation=validation, on_epoch=run, checkpoint_dir=run.checkpoints)
    assert (begun["status"], begun["ended"], begun["history"]) == ("running", None, [])
    found = told(tmp_path)
    assert found["status"] == "finished"
    assert found["model"] == "CNNRegressor"
    assert found["parameters"]["betas"] == [0.8, 0.9]
    assert set(found["parameters"]) == set(model.get_params())
    assert list(found["recordings"]) == ["A", "B"]
    assert found["recordings"]["A"].startswith(f"{len(trials.sel(mouse_id='A'))} trials, 5 neurons")
    assert found["validation"]["A"].startswith(f"{n} trials")
    assert found["versions"]["torch"] == version("torch")
    assert found["seed"] == 0
    assert (found["device"], found["precision"]) == ("cpu", "float32")
    assert (found["stop_reason"], found["best_epoch"]) == ("max_epochs", model.best_epoch_)
    assert found["history"] == model.history_
    assert datetime.fromisoformat(found["started"]) <= datetime.fromisoformat(found["ended"])
    (attempt,) = found["attempts"]
    assert (attempt["process"], attempt["status"]) == (os.getpid(), "finished")


def test_what_goes_wrong_is_noted_and_going_on_is_another_attempt(small, trials, tmp_path, cut):
    with pytest.raises(cut.error):  # noqa: SIM117
        with RunFolder(tmp_path, model := small(), trials) as run:
            model.fit(trials, on_epoch=[run, cut(2)], checkpoint_dir=run.checkpoints)
    found = told(tmp_path)
    assert (found["status"], found["error"]) == ("failed", "Cut")
    assert [record["epoch"] for record in found["history"]] == [1, 2]
    with RunFolder(tmp_path, model := small(max_epochs=4), trials) as run:
        model.fit(trials, on_epoch=run, checkpoint_dir=run.checkpoints)
    found = told(tmp_path)
    assert (found["status"], found["error"]) == ("finished", None)
    assert found["history"] == model.history_
    assert [attempt["status"] for attempt in found["attempts"]] == ["failed", "finished"]
    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path, small(), trials):
        raise KeyboardInterrupt
    assert told(tmp_path)["status"] == "interrupted"


def test_another_run_is_refused_and_the_first_one_stays(small, trials, tmp_path):
    with RunFolder(tmp_path, small(), trials):
        pass
    before = (tmp_path / "run.json").read_text()
    for model, given, differs in (
        (small(lr=0.5), trials, r"parameters lr \(was .*, is 0.5\)"),
        (small(), trials[1:], r"recordings A \(was "),
        (v1.LNRegressor(), trials, r"model \(was CNNRegressor, is LNRegressor\)"),
    ):
        with pytest.raises(FileExistsError, match=differs):
            RunFolder(tmp_path, model, given).__enter__()
    assert (tmp_path / "run.json").read_text() == before


def test_a_run_of_before_a_parameter_was_there_goes_on(small, trials, tmp_path):
    """It did what the parameter's default does, or, as here, what a model did before."""

    def model(**parameters):
        return make_pipeline(v1.TrialStandardizer(), small(penalty_scale="absolute", **parameters))

    last = "penalty_scale"
    for folder, given, name in (("a", model(), f"cnnregressor__{last}"), ("b", model()[-1], last)):
        with RunFolder(tmp_path / folder, given, trials):
            pass
        file = tmp_path / folder / "run.json"
        text, n = re.subn(r'\n +"(penalty_scale|standardize)": [^\n]*,(?=\n)', "", file.read_text())
        assert n == 2
        file.write_text(text)
        with RunFolder(tmp_path / folder, given, trials):
            pass
        file.write_text(text)
        given.set_params(**{name: "relative"})
        with pytest.raises(FileExistsError, match="penalty_scale"):
            RunFolder(tmp_path / folder, given, trials).__enter__()


WHOLE = {"format": 1, "model": "CNNRegressor", "parameters": {}, "recordings": {}, "started": ""}
WHOLE |= {"validation": None, "attempts": [], "history": []}


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"format": 9}', '{"format": 1, "attempts": 3}']
    + [
        json.dumps(WHOLE | changed)
        for changed in (
            *({"validation": []}, {"recordings": [{}]}, {"attempts": [1]}, {"history": ["x"]}),
            *({"model": {}}, {"started": None}, {"started": "\ud800"}),
        )
    ],
)
def test_a_file_that_tells_of_no_run_is_named(small, trials, tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json does not tell of a run .*; remove it"):
        RunFolder(tmp_path, small(), trials).__enter__()


def test_two_trainings_do_not_run_in_one_folder(small, trials, tmp_path):
    pytest.importorskip("fcntl", reason="this system has no locks of this kind")
    with RunFolder(tmp_path, small(), trials):  # the system tells handles apart, not processes
        with pytest.raises(FileExistsError, match="another process has a training in"):
            RunFolder(tmp_path, small(), trials).__enter__()
        assert told(tmp_path)["status"] == "running"
    with RunFolder(tmp_path, small(), trials):
        pass


def test_pipelines_ensembles_and_what_json_does_not_know(small, trials, tmp_path):
    model = make_pipeline(v1.TrialStandardizer(), small(max_epochs=1, device=torch.device("cpu")))
    with RunFolder(tmp_path / "a", model, trials) as run:
        model.fit(trials, cnnregressor__on_epoch=run)
    found = told(tmp_path / "a")
    inner = dict(found["parameters"]["steps"])["cnnregressor"]
    assert (inner["class"], inner["parameters"]["device"]) == ("CNNRegressor", "cpu")
    assert found["history"] == model[-1].history_
    ensemble = v1.EnsembleRegressor(small(max_epochs=1), 2, 1, random_state=0)
    with RunFolder(tmp_path / "b", ensemble, trials) as run:
        ensemble.fit(trials, on_epoch=run)
        with pytest.raises(TypeError, match="give on_epoch a CSVLog"):
            pickle.dumps(run)
    assert [r["candidate"] for r in told(tmp_path / "b")["history"]] == [0, 1]
    assert told(tmp_path / "b")["parameters"]["estimator"]["class"] == "CNNRegressor"


def test_wrong_arguments(small, trials, tmp_path):
    with pytest.raises(TypeError, match="expected what is fitted"):
        RunFolder(tmp_path, v1.CNNRegressor, trials)
    with pytest.raises(TypeError, match="trials is a dict"):
        RunFolder(tmp_path, small(), {})
    with pytest.raises(TypeError, match="validation is a str"):
        RunFolder(tmp_path, small(), trials, "validation")


def test_what_was_fitted_before_the_block_did_not_run_in_it(small, trials, tmp_path):
    model = small().fit(trials)
    with RunFolder(tmp_path / "nothing", model, trials):
        pass
    found = told(tmp_path / "nothing")
    assert (found["status"], found["history"]) == ("finished", [])
    assert not {"best_epoch", "stop_reason", "seed", "device"} & set(found)

    def fails(record):
        raise ValueError("early")

    with pytest.raises(ValueError, match="early"):  # noqa: SIM117
        with RunFolder(tmp_path / "early", model, trials) as run:
            model.fit(trials, on_epoch=[_Begins(fails), run])
    found = told(tmp_path / "early")
    assert (found["status"], found["history"]) == ("failed", [])
    assert not {"best_epoch", "stop_reason"} & set(found)
    with RunFolder(tmp_path / "again", model, trials):
        model.fit(trials)  # and tells nobody
    found = told(tmp_path / "again")
    assert found["history"] == model.history_
    assert (found["best_epoch"], found["stop_reason"]) == (model.best_epoch_, "max_epochs")


class _Begins:
    """Calls a function as a training begins."""

    def __init__(self, function):
        self.begin = function

    def __call__(self, record):
        pass


def test_a_run_that_is_over_already_keeps_its_history(small, trials, tmp_path):
    for _ in range(2):
        with RunFolder(tmp_path, model := small(), trials) as run:
            model.fit(trials, on_epoch=run, checkpoint_dir=run.checkpoints)
        assert told(tmp_path)["history"] == model.history_
        assert told(tmp_path)["best_epoch"] == model.best_epoch_


def test_epochs_outside_its_block_are_refused(small, trials, tmp_path):
    run = RunFolder(tmp_path, model := small(max_epochs=1), trials)
    with pytest.raises(RuntimeError, match="outside its block: fit within `with RunFolder"):
        model.fit(trials, on_epoch=run)
    with run:
        model.fit(trials, on_epoch=run)
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(RuntimeError, match="outside its block"):
        model.fit(trials, on_epoch=run)
    with pytest.raises(RuntimeError, match="outside its block"):
        run({"epoch": 1, "loss": 0.0})
    assert (tmp_path / "run.json").read_text() == before


def test_movies_of_a_file_are_described_frame_by_frame(tmp_path):
    rng = np.random.default_rng(0)
    lengths = rng.integers(200, 300, 40)
    made = {
        name: {"A": [rng.random((n, *shape), np.float32) for n in lengths]}
        for name, shape in {"stimuli": (1, 3, 4), "behaviors": (3,), "responses": (300,)}.items()
    }
    trials = v1.Trials.from_arrays(**made, image_ids={"A": np.arange(40)}, frame_rate=30.0)
    trials.to_netcdf(tmp_path / "movies.nc")
    model = v1.MovieLNRegressor()
    with RunFolder(tmp_path / "memory", model, trials):
        pass
    opened = v1.Trials.open(tmp_path / "movies.nc")
    tracemalloc.start()
    try:
        with RunFolder(tmp_path / "file", model, opened):
            pass
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * 300 * lengths.sum() / 2  # bytes of responses
    assert told(tmp_path / "file")["recordings"] == told(tmp_path / "memory")["recordings"]

"""``v1tlearn fit``: a run in a folder, and what it says where something is wrong."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import v1tlearn as v1
from tests.cli.conftest import SMALL
from tests.exact_csv import read_csv

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fit(files):
    """Write a command line."""

    def line(out, more="--set max_epochs=2", model="CNNRegressor", recordings="recordings.nc"):
        return f"fit {files}/{recordings} --model {model} {SMALL} {more} --out {out}"

    return line


def test_the_run_is_that_of_python(run_folder, trials, equal_models):
    model = v1.CNNRegressor(
        n_layers=1, hidden_channels=2, input_kernel=3, batch_size=16, random_state=0,
        max_epochs=2, device="cpu",
    ).fit(trials.sel(tier="train"))  # fmt: skip
    assert equal_models(v1.load(run_folder / "model"), model)
    names = {entry.name for entry in run_folder.iterdir()} - {".lock"}
    assert names == {"run.json", "history.csv", "checkpoints", "model"}
    told = json.loads((run_folder / "run.json").read_text())
    assert (told["status"], told["model"]) == ("finished", "CNNRegressor")
    table = read_csv(run_folder / "history.csv")
    assert table["loss"].tolist() == [r["loss"] for r in model.history_]


@pytest.fixture(scope="module")
def equal_models():
    def compare(one, other):
        weights = one.module_.state_dict(), other.module_.state_dict()
        return all(np.array_equal(weights[0][k], weights[1][k]) for k in weights[1])

    return compare


def test_the_log_tells_of_every_epoch(command, fit, tmp_path):
    code, out, err = command(fit(tmp_path / "run", "--set max_epochs=1 --tensorboard"))
    assert (code, out) == (0, "")
    assert "CNNRegressor: training begins" in err
    assert "epoch 1 of at most 1: loss " in err
    assert f"the model is in {tmp_path}/run/model" in err
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_tiers_mice_presets_and_files_of_parameters(command, fit, tmp_path, run_folder):
    params = f"--params {run_folder}/run.json --set max_epochs=1 --validation-tier validation -q"
    code, _, err = command(fit(tmp_path / "a", f"{params} --mouse B --tier train"))
    assert (code, err) == (0, "")
    told = json.loads((tmp_path / "a" / "run.json").read_text())
    assert list(told["recordings"]) == list(told["validation"]) == ["B"]
    assert told["parameters"]["input_kernel"] == 3
    code, _, err = command(fit(tmp_path / "b", "--preset sensorium2022 --set max_epochs=1 -q"))
    told = json.loads((tmp_path / "b" / "run.json").read_text())["parameters"]
    preset = v1.CNNRegressor.from_preset("sensorium2022")
    assert (code, told["lr"], told["n_layers"]) == (0, preset.lr, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, err = command(fit(tmp_path / "c", "--set max_epochs=1 --tier all -q"))
    assert code == 0
    assert "warning: fit was given trials of the tiers ['test', 'validation']" in err
    assert "Traceback" not in err


def test_a_run_goes_on(command, fit, tmp_path, run_folder, equal_models, trials):
    copied = tmp_path / "run"
    shutil.copytree(run_folder, copied)
    code, _, err = command(fit(copied))
    assert code == 2
    assert "holds a run: --resume goes on with it" in err
    assert command(fit(copied, "--set max_epochs=3 --resume -q"))[0] == 0
    model = v1.load(copied / "model")
    whole = v1.CNNRegressor(
        n_layers=1, hidden_channels=2, input_kernel=3, batch_size=16, random_state=0,
        max_epochs=3, device="cpu",
    ).fit(trials.sel(tier="train"))  # fmt: skip
    assert equal_models(model, whole)
    assert read_csv(copied / "history.csv")["epoch"].tolist() == [1, 2, 3]
    code, _, err = command(fit(copied, "--set max_epochs=3 --set lr=0.5 --resume"))
    assert code == 1
    assert "holds another run; there differ: parameters lr (was 0.009, is 0.5)" in err


def test_resume_begins_where_there_is_nothing(command, fit, tmp_path):
    assert command(fit(tmp_path / "new", "--set max_epochs=1 --resume -q"))[0] == 0


@pytest.mark.parametrize(
    ("more", "model", "said"),
    [
        ("", "CNN", "there is no model 'CNN': did you mean CNNRegressor?"),
        ("", "EncodingRegressor", "takes a core of your own"),
        ("", "EnsembleRegressor", "there is no model 'EnsembleRegressor'"),
        ("--set epochs=3", "CNNRegressor", "no parameter 'epochs': did you mean max_epochs?"),
        ("--set n_blocks=3", "CNNRegressor", "n_blocks is a parameter of "),
        ("--set schedule=cosin", "CNNRegressor", "Did you mean 'cosine'?"),
        ("--set lr=-1", "CNNRegressor", "The 'lr' parameter of CNNRegressor must be"),
        ("--set 'lr=fast one'", "CNNRegressor", "expected JSON"),
        ("--preset v1t", "CNNRegressor", "has no preset 'v1t'"),
        ("--preset any", "DINAAligner", "preset"),
        ("--tier tests", "CNNRegressor", "no trial with tier 'tests'"),
        ("--tier all --tier train", "CNNRegressor", "'all' takes all trials and stands alone"),
        ("--validation-tier all --validation-tier test", "CNNRegressor", "stands alone"),
        ("--mouse Z", "CNNRegressor", "no trial with mouse_id 'Z'"),
        ("--validation-tier tests", "CNNRegressor", "no trial with tier 'tests'"),
        ("--params p.toml", "CNNRegressor", "expected a file .json"),
        ("--device nope", "CNNRegressor", "device='nope' is no device"),
        ("--nonsense", "CNNRegressor", "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_command_lines(command, fit, tmp_path, more, model, said):
    line = fit(tmp_path / "run", more, model)
    if model == "DINAAligner":
        line = line.replace(SMALL, "")
    code, out, err = command(line)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_mouse_that_two_files_hold_is_refused(command, tmp_path, files):
    """Its trials would count twice."""
    stored = f"{files}/recordings.nc"
    code, _, err = command(f"fit {stored} {stored} --model CNNRegressor --out {tmp_path / 'run'}")
    assert code == 2
    assert "both hold a mouse 'A': expected each mouse in one of them" in err
    assert not (tmp_path / "run").exists()
    code, _, err = command(f"fit {stored} --model CNNRegressor --params no.json --out {tmp_path}/r")
    assert (code, "--params no.json: there is no such file" in err) == (2, True)


def test_folders_that_are_taken(command, fit, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = command(fit(tmp_path))
    assert (code, "holds other things" in err) == (2, True)
    code, _, err = command(fit(tmp_path / "notes.txt"))
    assert (code, "is a file: expected a folder" in err) == (2, True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_files_that_fail(command, fit, tmp_path, files):
    code, _, err = command(fit(tmp_path / "run", recordings="none.nc"))
    assert (code, "none.nc: there is no such file or directory" in err) == (2, True)
    (tmp_path / "broken.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    line = fit(tmp_path / "run").replace(f"{files}/recordings.nc", f"{tmp_path}/broken.nc")
    code, _, err = command(line)
    assert (code, "broken.nc" in err, "Traceback" in err) == (1, True, False)
    code, _, err = command(f"{line} --debug")
    assert (code, "Traceback" in err) == (1, True)


def test_zips_and_folders_of_sensorium(command, fit, tmp_path, files, trials):
    recordings = v1.open_recordings(files / "recordings.nc")
    v1.write_sensorium(recordings, tmp_path / "mice", zip=True)
    line = fit(tmp_path / "run", "--set max_epochs=1 -q").replace(
        f"{files}/recordings.nc", f"{tmp_path}/mice --cache {tmp_path}/cache"
    )
    assert command(line)[0] == 0
    assert set(v1.load(tmp_path / "run" / "model").mice_) == set(trials.mice)
    assert list((tmp_path / "cache").iterdir())


def test_ctrl_c_keeps_the_state_and_says_how_to_go_on(
    command, fit, tmp_path, monkeypatch, equal_models, run_folder
):
    line = fit(tmp_path / "run")
    state = logging_state()

    def interrupt(self, record):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)  # until it comes

    with monkeypatch.context() as patch:
        patch.setattr(v1.tracking.CSVLog, "__call__", interrupt)
        code, _, err = command(line)
    assert code == 130
    assert f"The state after epoch 1 is in {tmp_path}/run/checkpoints; go on with: v1tlearn" in err
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["status"] == "interrupted"
    assert logging_state() == state
    again = err.split("go on with: v1tlearn ")[1]
    assert again.rstrip().endswith("--resume")
    assert command(again)[0] == 0
    assert equal_models(v1.load(tmp_path / "run" / "model"), v1.load(run_folder / "model"))


def test_scores_of_a_run_that_was_interrupted_are_not_those_of_before(
    command, fit, files, tmp_path, monkeypatch, run_folder
):
    folder = shutil.copytree(run_folder, tmp_path / "run")

    def interrupt(self, record):
        raise KeyboardInterrupt

    line = fit(folder, "--set max_epochs=4 --resume -q")
    with monkeypatch.context() as patch:
        patch.setattr(v1.tracking.CSVLog, "__call__", interrupt)
        assert command(line)[0] == 130
    score = f"score {folder} {files}/recordings.nc --metric feve"
    code, out, err = command(score)
    assert (code, out, "has the status 'interrupted'" in err) == (1, "", True)
    assert command(line)[0] == 0
    assert command(score)[0] == 0


def logging_state():
    logger = logging.getLogger("v1tlearn")
    return logger.level, list(logger.handlers), signal.getsignal(signal.SIGTERM)


def test_what_is_not_for_users_is_named_by_its_kind(command, fit, tmp_path, monkeypatch):
    def fails(self, record):
        raise KeyError("a slip")

    monkeypatch.setattr(v1.tracking.CSVLog, "__call__", fails)
    code, _, err = command(fit(tmp_path / "run"))
    assert (code, "error: KeyError: 'a slip'" in err, "Traceback" in err) == (1, True, False)


# ------------------------------------------------------------------------------------- processes


def start(line, **more):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "v1tlearn", *line.split()],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
def test_a_job_that_is_terminated_goes_on_to_the_same_model(fit, tmp_path, command, equal_models):
    more = "--set max_epochs=120 --resume"
    line = fit(tmp_path / "run", more)
    for name, code in [("SIGTERM", 143), ("SIGUSR1", 138), ("SIGHUP", 129)]:
        with start(line) as job:
            next(told for told in job.stderr if re.search(r"epoch \d+ of", told))
            job.send_signal(getattr(signal, name))
            _, err = job.communicate()
        assert job.returncode == code
        assert f"v1tlearn fit: terminated ({name}). The state after epoch" in err
        assert "Traceback" not in err
    code, _, err = command(line)
    assert code == 0
    assert "training goes on after epoch" in err
    assert command(fit(tmp_path / "whole", more))[0] == 0
    models = [v1.load(tmp_path / name / "model") for name in ("run", "whole")]
    assert equal_models(*models)
    tables = [read_csv(tmp_path / name / "history.csv") for name in ("run", "whole")]
    assert tables[0]["loss"].tolist() == tables[1]["loss"].tolist()
    attempts = json.loads((tmp_path / "run" / "run.json").read_text())["attempts"]
    assert [attempt["status"] for attempt in attempts] == [*["interrupted"] * 3, "finished"]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
@pytest.mark.parametrize("ignored", [False, True], ids=["heard", "nohup"])
def test_a_terminal_that_closes_ends_a_run_unless_it_is_to_go_on(
    command, fit, tmp_path, monkeypatch, ignored
):
    def closes(self, record):
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(v1.tracking.CSVLog, "__call__", closes)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        code, _, _ = command(fit(tmp_path / "run"))
        after = signal.getsignal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    status = json.loads((tmp_path / "run" / "run.json").read_text())["status"]
    assert (code, status) == ((0, "finished") if ignored else (129, "interrupted"))
    assert after == (signal.SIG_IGN if ignored else signal.SIG_DFL)


@pytest.mark.slow
def test_exit_codes_of_processes(tmp_path):
    for line, code, said in (
        ("--help", 0, "COMMAND"),
        ("score", 2, "required: MODEL"),
        (f"score {tmp_path} {tmp_path}/none.nc", 1, "holds no saved model"),
    ):
        with start(line) as job:
            out, err = job.communicate()
        assert job.returncode == code
        assert said in out + err

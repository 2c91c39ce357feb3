"""``v1tlearn predict``, ``score`` and ``report`` give what Python gives."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import v1tlearn as v1
from tests.exact_csv import read_csv


@pytest.fixture(scope="module")
def model(run_folder):
    return v1.load(run_folder / "model", device="cpu")


def test_predictions(command, run_folder, files, tmp_path, model, trials):
    path = tmp_path / "p.nc"
    line = f"predict {run_folder} {files}/recordings.nc --out {path} --device cpu"
    assert command(line) == (0, "", "")
    found, expected = v1.Responses.open(path), model.predict(trials)
    for mouse in trials.mice:
        np.testing.assert_allclose(found[mouse], expected[mouse], rtol=1e-5)
    code, _, err = command(line)
    assert (code, "--overwrite replaces it" in err) == (2, True)
    assert command(f"{line} --overwrite --tier test --mouse B")[0] == 0
    found = v1.Responses.open(path)
    assert (found.mice, set(found.tiers)) == (["B"], {"test"})


def test_scores(command, run_folder, files, tmp_path, model, trials):
    line = f"score {run_folder}/model {files}/recordings.nc --device cpu"
    code, out, err = command(f"{line} --out {tmp_path}/s.csv")
    assert (code, err) == (0, "")
    expected = v1.score_table(model, trials.sel(tier="test"))
    pd.testing.assert_frame_equal(read_csv(tmp_path / "s.csv"), expected)
    assert command(f"{line} --out {tmp_path}/s.parquet")[0] == 0
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "s.parquet"), expected)
    assert len(out.splitlines()) == 1 + len(expected)
    assert out.split()[:4] == ["model", "mouse", "metric", "value"]
    code, out, _ = command(
        f"{line} --out {tmp_path}/s.json --metric feve --by uniform_average --ceilings "
        "--bootstrap 20"
    )
    (row, *others) = json.loads((tmp_path / "s.json").read_text())
    expected = v1.score_table(
        model, trials.sel(tier="test"), metrics=["feve"], multioutput="uniform_average",
        ceilings=True, n_bootstrap=20,
    )  # fmt: skip
    assert (code, row["metric"]) == (0, "feve")
    assert [row["value"], *(r["value"] for r in others)] == pytest.approx(expected["value"])
    assert set(row) == set(expected.columns)


def test_a_report(command, run_folder, files, tmp_path, monkeypatch):
    """That the page is made of the model and the trials; what it holds has tests of its own."""
    given = {}

    def report(model, trials, path, title):
        given.update(model=model, trials=trials, path=path, title=title)

    monkeypatch.setattr("v1tlearn.cli.evaluating.report", report)
    line = f"report {run_folder} {files}/recordings.nc --out {tmp_path}/r.html --title Mine"
    assert command(line) == (0, "", "")
    assert given["model"].mice_ == given["trials"].mice == ["A", "B"]
    assert (given["path"], given["title"]) == (tmp_path / "r.html", "Mine")


@pytest.mark.slow
def test_a_whole_report(command, run_folder, files, tmp_path):
    path = tmp_path / "r.html"
    assert command(f"report {run_folder} {files}/recordings.nc --out {path}")[0] == 0
    assert "</html>" in path.read_text()


def test_an_alignment_predicts_nothing(command, files, tmp_path, trials):
    aligner = v1.DINAAligner(max_epochs=1, map_size=(4, 4), map_channels=2, device="cpu")
    aligner.fit(trials.sel(tier="train")).save(tmp_path / "dina")
    code, _, err = command(f"predict {tmp_path}/dina {files}/recordings.nc --out {tmp_path}/p.nc")
    assert (code, "DINAAligner predicts no responses" in err) == (2, True)


def test_a_run_that_is_not_over(command, files, tmp_path, run_folder):
    folder = tmp_path / "run"
    (folder / "checkpoints" / "epoch-000002").mkdir(parents=True)
    (folder / "run.json").write_bytes((run_folder / "run.json").read_bytes())
    code, _, err = command(f"score {folder} {files}/recordings.nc")
    assert (code, f"give its last state, {folder}/checkpoints/epoch-000002" in err) == (1, True)
    state = run_folder / "checkpoints" / "epoch-000002"
    assert command(f"score {state} {files}/recordings.nc --metric feve")[0] == 0


@pytest.mark.parametrize("verb", ["score", "predict", "report"])
@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_attempt_that_is_not_over_does_not_pass_for_the_one_before(
    command, files, tmp_path, run_folder, verb, status
):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    told = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(told | {"status": status}))
    out = {"predict": f"--out {tmp_path}/p.nc", "report": f"--out {tmp_path}/r.html"}.get(verb, "")
    code, out, err = command(f"{verb} {folder} {files}/recordings.nc {out}")
    assert (code, out) == (1, "")
    assert f"has the status '{status}'" in err
    for remedy in ("--resume", f"{folder}/model", f"{folder}/checkpoints/epoch-000002."):
        assert remedy in err
    if verb == "score":
        line = f"score {folder}/model {files}/recordings.nc --metric feve"
        assert command(line)[0] == 0


@pytest.mark.parametrize("left", [None, {}, {"status": "finished"}])
def test_models_of_runs_that_tell_of_no_status_are_taken(
    command, files, tmp_path, run_folder, left
):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    (folder / "run.json").unlink()
    if left is not None:
        (folder / "run.json").write_text(json.dumps(left))
    assert command(f"score {folder} {files}/recordings.nc --metric feve")[0] == 0


def test_a_damaged_file_of_a_run_is_named(command, files, tmp_path, run_folder):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    (folder / "run.json").write_text("{")
    code, _, err = command(f"score {folder} {files}/recordings.nc")
    assert (code, f"give the model, {folder}/model" in err) == (1, True)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("predict {run} {files}/recordings.nc", 2, "required: --out"),
        ("predict {run} {files}/recordings.nc --out p.csv", 2, "expected a file .nc"),
        ("score {run} {files}/recordings.nc --out none/s.csv", 2, "there is no folder"),
        ("score {run} {files}/recordings.nc --tier none", 2, "--tier all takes all trials"),
        ("score {run} {files}/recordings.nc --tier test --tier all", 2, "stands alone"),
        ("score {run} {files}/recordings.nc --mouse Q", 2, "--mouse: no trial with mouse_id 'Q'"),
        ("score {run} {files}/recordings.nc --device nope", 2, "device='nope' is no device"),
        ("score {run} {files}/recordings.nc --bootstrap -1", 2, "expected 0 or more draws"),
        ("score {run} {files}/recordings.nc --metric fev", 2, "--metric fev: expected one of"),
        ("score {run} {files}/recordings.nc --metric fecv", 1, "have no coordinate `category`"),
        ("score {files} {files}/recordings.nc", 1, "holds no saved model"),
        ("score {files}/none {files}/recordings.nc", 2, "none: there is no such file"),
        ("score {run} {files}/none.nc", 2, "none.nc: there is no such file"),
        ("score {run} {files} --cache {files}/recordings.nc", 2, "is a file: expected a folder"),
        ("score {run} {run}", 1, "model"),
        ("score {run} {run}/model", 1, "it is a saved model"),
        ("report {run} {files}/recordings.nc --out r.nc", 2, "expected a file .html"),
    ],
)
def test_what_is_wrong(command, run_folder, files, line, code, said):
    found, out, err = command(line.format(run=run_folder, files=files))
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err


def test_names_are_shown_and_not_obeyed_by_a_terminal(command, files, tmp_path):
    code, _, err = command(f"score {tmp_path}/no\x1b[2J\u202emodel {files}/recordings.nc")
    assert (code, "no\\x1b[2J\\u202emodel" in err) == (2, True)

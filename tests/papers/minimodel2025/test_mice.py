"""The script that redoes the tables of the minimodel paper: papers/minimodel2025/mice.py."""

import json

import numpy as np
import pandas as pd
import pytest

import v1tlearn as v1
from papers.minimodel2025 import data as paper_data
from papers.minimodel2025 import jobs as paper_jobs
from papers.minimodel2025 import mice as paper_mice
from papers.minimodel2025 import tables as paper_tables
from tests.papers.scripts import run_script

SETTINGS = {
    "quick": False,
    "flips": "drop",
    "mice": {m: {"neurons": 5, "train": 9, "validation": 1, "test": 4} for m in ("FX10", "FX20")},
}


def result(table, model, mouse, feve, x=None, seed=0, channels=None):
    """A finished job."""
    out = {"table": table, "mouse": mouse, "model": model, "x": x, "seed": seed, "feve": feve}
    out |= {"correlation": 0.3, "neurons": 5, "trials": 9, "epochs": 3, "seconds": 1.5}
    return out if channels is None else out | {"channels used": channels}


def frame_of(tmp_path, *results):
    for number, one in enumerate(results):
        (tmp_path / f"{number}.json").write_text(json.dumps(one))
    return paper_tables.results(tmp_path)


def cells(markdown, title, row):
    lines = markdown.split(f"## {title}")[1].split("\n## ")[0].splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {row} |")]
    return [text.strip() for text in line.strip("|").split("|")][1:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return paper_data.simulate(tmp_path_factory.mktemp("quick") / "simulated", 6, 40)


def options(output, data, *arguments):
    return paper_mice.parse(["--data", str(data), "--output", str(output), *arguments])


def test_simulated_files_have_the_published_layout(folder):
    found = paper_data.find_mice(folder)
    assert list(found) == ["FX10", "FX20"]
    trials = paper_data.open_mouse(found["FX10"], "FX10", "published", quick=True)
    assert trials.mice == ["FX10"]
    counts = paper_data.describe(trials)
    assert {k: counts[k] for k in ("neurons", "train", "validation", "test")} == {
        "neurons": 6,
        "train": 36,
        "validation": 4,
        "test": 120,
    }
    test = trials.sel(tier="test")
    assert np.array_equal(np.unique(test.image_ids, return_counts=True)[1], [4] * 30)
    assert trials.positions("FX10").shape == (6, 2)


def test_only_neurons_above_the_threshold_are_modelled(folder):
    trials = paper_data.open_mouse(paper_data.find_mice(folder)["FX10"], "FX10", "drop", True)
    chosen = paper_data.explainable(trials, None)
    fev = v1.metrics.fev(trials.sel(tier="test").responses, multioutput="raw_values").values
    assert np.array_equal(chosen, np.flatnonzero(fev > 0.15))
    some = paper_data.explainable(trials, 2)
    assert len(some) == 2
    assert set(some) <= set(chosen)
    assert np.array_equal(some, paper_data.explainable(trials, 2))


def test_folders_without_the_files_are_refused(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        paper_data.find_mice(tmp_path / "nothing")
    with pytest.raises(ValueError, match="lacks recordings"):
        paper_data.find_mice(tmp_path)
    (tmp_path / "FX8_nat60k_2023_05_16.npz").touch()
    with pytest.raises(ValueError, match=r"lacks nat60k_text16\.mat"):
        paper_data.find_mice(tmp_path)
    with pytest.raises(ValueError, match="has no file of FX9"):
        paper_jobs.Paper(options(tmp_path, folder, "--mice", "FX9"))


def test_minimodels_follow_the_full_model_that_they_share():
    names = [job.name for job in paper_jobs.jobs(["FX10"], ["hoyer", "models"], quick=False)]
    assert names[:3] == [
        "models FX10 full model",
        "models FX10 linear full model",
        "models FX10 minimodels",
    ]
    assert len(names) == len(set(names)) == 12
    alone = [job.name for job in paper_jobs.jobs(["FX10"], ["hoyer"], quick=False)]
    assert alone[0] == "models FX10 full model"
    every = list(paper_jobs.jobs(["FX10"], list(paper_tables.TABLES), quick=False))
    assert len(every) == 56
    assert len({job.name for job in every}) == 56


def test_jobs_take_as_many_trials_and_neurons_as_asked_for(tmp_path, folder):
    paper = paper_jobs.Paper(options(tmp_path, folder, "--mice", "FX20"))
    paper.options.quick = True
    whole = paper.trials("FX20")
    few = paper.selected(paper_jobs.Job("n_train", "FX20", "full model", 10, n_train=10))
    assert (few.tiers == "train").sum() == 10
    assert (few.tiers == "test").sum() == (whole.tiers == "test").sum()
    one = paper.selected(paper_jobs.Job("n_neurons", "FX20", "full model", 1, n_neurons=1))
    assert one.n_neurons == {"FX20": 1}
    assert len(one) == len(whole)


def test_tables_have_a_row_per_model_and_a_column_per_mouse(tmp_path):
    frame = frame_of(
        tmp_path,
        result("models", "full model", "FX10", 0.6),
        result("models", "full model", "FX20", 0.7),
        result("models", "minimodels", "FX10", 0.5, seed=0, channels=12.0),
        result("models", "minimodels", "FX10", 0.7, seed=1, channels=10.0),
        result("hoyer", "minimodels", "FX10", 0.4, x=0.1, channels=6.0),
        {"table": "depth", "mouse": "FX10", "model": "full model", "x": 3, "failed": "why"},
    )
    text = paper_tables.markdown(frame, SETTINGS)
    title = paper_tables.TABLES["models"]
    assert cells(text, title, "full model") == [
        "0.600", "0.700", "FX10 0.665, FX20 0.727", "0.650", "-",
    ]  # fmt: skip
    assert cells(text, title, "minimodels") == ["0.600", "-", "-", "0.600", "11.0"]
    assert cells(text, paper_tables.TABLES["hoyer"], "minimodels, 0.1")[-1] == "6.0"
    assert paper_tables.TABLES["depth"] not in text
    assert "0.665" not in paper_tables.markdown(frame, SETTINGS | {"quick": True})
    note = text.split("## ")[0]
    for difference in ("fitted to all neurons", "mirrored test images were in", "were scaled by"):
        assert difference in note  # published numbers are not ours under another name


def test_the_figure_has_a_panel_per_table(tmp_path):
    pytest.importorskip("matplotlib")
    frame = frame_of(
        tmp_path,
        result("models", "full model", "FX10", 0.6),
        *(result("hoyer", "minimodels", "FX10", 0.5, x, channels=9.0) for x in (0.0, 0.1)),
        *(result("widths", "first layer", "FX10", 0.5, x) for x in (8, 16)),
    )
    paper_tables.draw(frame, tmp_path / "figure.png")
    content = (tmp_path / "figure.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert width == pytest.approx(3 * height * 2.9 / 3.0, abs=1)  # matplotlib 3.8 cuts pixels off


def test_what_does_not_go_together_is_refused(capsys):
    for arguments, message in (([], "--data is missing"), (["--quick", "--data", "a"], "leave")):
        with pytest.raises(SystemExit):
            paper_mice.parse(arguments)
        assert message in capsys.readouterr().err


def run(*arguments):
    return run_script("minimodel2025.mice", *arguments, strict=True)


@pytest.mark.slow
def test_from_files_to_tables_with_one_command(tmp_path):
    arguments = ["--quick", "--output", tmp_path / "out"]
    done = run(*arguments, "--mice", "FX10", "--tables", "models")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(*arguments, "--mice", "FX10")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("finished before") == 3
    frame = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(frame["table"]) == set(paper_tables.TABLES)
    assert np.isfinite(frame["feve"]).all()
    assert (frame["feve"] <= 1).all()
    used = frame.loc[frame["model"] == "minimodels", "channels used"]
    assert used.between(0, 4).all()
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "values mean nothing" in text
    assert (tmp_path / "out" / "figure.png").exists()
    other = run(*arguments, "--mice", "FX10", "--flips", "published")
    assert other.returncode != 0
    assert "flips differ" in other.stderr


@pytest.mark.slow
def test_claims_print_a_table():
    done = run_script("minimodel2025.claims", "--quick", "--seeds", "0")
    assert done.returncode == 0, done.stderr
    assert "Minimodels less full model" in done.stdout

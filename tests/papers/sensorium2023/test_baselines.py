"""The script that makes the table of the baselines of Sensorium 2023, on simulated mice."""

import json

import numpy as np
import pandas as pd
import pytest

import v1tlearn as v1
from papers.sensorium2023 import baselines, data, jobs, tables
from tests.datasets import sensorium2023_files
from tests.datasets.sensorium2023_files import N_FRAMES, NAME, TIERS, write_movies
from tests.datasets.sensorium_files import save
from tests.papers.scripts import run_script

pytestmark = pytest.mark.slow

QUICK = ["--quick", "--epochs", "1", "--models", "LN", "CNN"]
SMALL = {"n_mice": 2, "n_neurons": [4, 3], "n_movies": 6, "n_test_movies": 2, "n_repeats": 3}
SMALL |= {"n_frames": (34, 40), "image_shape": (10, 14), "random_state": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("matplotlib")
    return tmp_path_factory.mktemp("movies")


@pytest.fixture(scope="module")
def found(folder):
    """What the command writes of hardly trained models."""
    return baselines.main([*QUICK, "--out", str(folder)])


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(v1.make_movie_recordings(**SMALL | {"validation_fraction": 0.4}))


def options(*arguments):
    return baselines.parse(["--quick", *arguments])


def cells(text, title, start):
    section = text.split(f"## {title}")[1].split("\n## ")[0]
    (line,) = [line for line in section.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


# ------------------------------------------------------------------------------------ the command


def test_the_table_has_what_models_score_without_the_first_frames(found, folder):
    assert (folder / "tables.md").read_text(encoding="utf-8") == found
    opened = data.open_recordings(folder / "recordings" / "simulated-0.nc", None, None, None)
    model = v1.load(folder / "models" / "cnn-seed0")
    test = opened.sel(tier="test")
    predicted = model.predict(test)
    single, average = [], []
    for mouse in test.mice:
        own = test.sel(mouse_id=mouse)
        n_frames, ids = own.n_frames, own.image_ids
        both = own.responses.get(mouse), predicted.get(mouse)
        one, other = (
            np.concatenate([movie[10:n] for movie, n in zip(v, n_frames, strict=True)])
            for v in both
        )
        r = [np.corrcoef(a, b)[0, 1] for a, b in zip(one.T, other.T, strict=True)]
        single.append(np.mean(r))
        one, other = (
            np.concatenate([v[ids == i].mean(axis=0)[10 : n_frames[ids == i][0]] for i in set(ids)])
            for v in both
        )
        r = [np.corrcoef(a, b)[0, 1] for a, b in zip(one.T, other.T, strict=True)]
        average.append(np.mean(r))
    for title, values in (
        ("Single-trial correlation", single),
        ("Correlation to average", average),
    ):
        said = cells(found, title, "CNN")[3:]  # the validation tier stands ahead
        if title == "Correlation to average":
            said = cells(found, title, "CNN")[-3:]
        assert said == [f"{v:.3f}" for v in [np.mean(values), *values]]
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_goes_on_where_it_stopped(found, folder):
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    lost = folder / "jobs" / "ln-seed0.json"
    before = json.loads(lost.read_text(encoding="utf-8"))
    lost.unlink()
    assert baselines.main([*QUICK, "--out", str(folder)]) == found
    assert json.loads(lost.read_text(encoding="utf-8"))["scores"] == before["scores"]
    unchanged = [path for path in kept if path not in (lost, folder / "settings.json")]
    assert len(unchanged) > 2
    assert all(path.stat().st_mtime_ns == kept[path] for path in unchanged)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (["--epochs", "2"], "epochs"),
        (["--skip", "3"], "skip"),
        (["--select-on", "validation"], "select_on"),
    ],
)
def test_results_of_other_settings_are_not_taken(found, folder, more, name):
    with pytest.raises(ValueError, match=f"another run: {name} differ"):
        baselines.main([*QUICK, *more, "--out", str(folder)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "or --quick"),
        (["--quick", "--mice", "A"], "leave --data, --mice and --neurons away"),
        (["--quick", "--epochs", "0"], "--epochs is 1 at least"),
        (["--quick", "--skip", "-1"], "--skip is 0 at least"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        baselines.parse(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:read_sensorium2023 left out")
def test_the_layout_of_the_competition_goes_through(tmp_path, monkeypatch):
    monkeypatch.setattr(sensorium2023_files, "LONGEST", 60)
    monkeypatch.setattr(sensorium2023_files, "N_FRAMES", 5 * N_FRAMES)
    write_movies(tmp_path / "mice" / NAME)
    arguments = ["--data", str(tmp_path / "mice"), "--models", "LN", "Vi-ST", "--epochs", "1"]
    arguments += ["--skip", "2", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"(?s)tried again.*Vi-ST.*mouse '29156-11-10'"):
        baselines.main(arguments)  # its movies are shorter than a window of Vi-ST
    text = (tmp_path / "out" / "tables.md").read_text(encoding="utf-8")
    header = text.split("## Single-trial correlation")[1].splitlines()[2]
    assert (
        header == "| model | oracle | oracle, 29156-11-10 | final main | final main, 29156-11-10 |"
    )
    mean, own, *_ = cells(text, "Single-trial correlation", "LN")
    assert mean == own
    assert cells(text, "Single-trial correlation", tables.WINNER) == ["-", "-", "0.2913", "-"]
    assert cells(text, "Correlation to average", "LN") == ["-", "-"]  # nothing is repeated


def test_the_whole_quick_form_runs_without_warnings(tmp_path):
    arguments = ("--quick", "--epochs", "2", "--out", tmp_path)
    done = run_script("sensorium2023.baselines", *arguments, strict=True)
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv(tmp_path / "results.csv")
    assert set(frame["model"]) == set(jobs.MODELS)
    assert frame["single-trial"].notna().all()


# ------------------------------------------------------------------------------------ recordings


@pytest.mark.filterwarnings("ignore:read_sensorium2023 left out")
def test_splits_are_those_of_the_files_and_withheld_ones_are_left_out(tmp_path):
    root = tmp_path / NAME
    written = write_movies(root)
    opened = data.open_recordings(root, None, None, None)
    found = data.splits(opened)
    assert list(found) == ["oracle", "final main"]  # responses of the live split are withheld
    (place,) = np.flatnonzero(TIERS == "final_main")
    shown = found["final main"].responses.get(opened.mice[0])[0]
    np.testing.assert_array_equal(shown, written["responses"][place].T.astype("f4"))
    tiers = np.where(TIERS == "final_main", "final_bonus", TIERS)
    save(root, "meta/trials/tiers", tiers)
    assert list(data.splits(data.open_recordings(root, None, None, None))) == [
        "oracle",
        "final OOD",
    ]
    save(root, "meta/trials/tiers", np.where(tiers == "oracle", "live_test", tiers))
    assert list(data.splits(data.open_recordings(root, None, None, None))) == ["test", "final OOD"]


def test_splits_of_saved_recordings_are_their_tiers(trials):
    found = data.splits(trials)
    assert list(found) == ["validation", "test"]
    for name, part in found.items():
        assert part.mice == ["A", "B"]
        assert set(part.tiers) == {name}
        assert len(part) == (trials.tiers == name).sum()


def test_some_mice_and_neurons_can_be_chosen(trials, tmp_path):
    v1.save_recordings(trials.recordings, tmp_path / "mine.nc")
    opened = data.open_recordings(tmp_path / "mine.nc", ["B"], 2, None)
    assert opened.n_neurons == {"B": 2}
    again = data.open_recordings(tmp_path / "mine.nc", None, 2, None)
    assert again.n_neurons == {"A": 2, "B": 2}
    assert set(opened.neuron_ids("B")) == set(again.neuron_ids("B"))
    with pytest.raises(ValueError, match=r"mine.nc has no C, only A, B"):
        data.open_recordings(tmp_path / "mine.nc", ["C"], None, None)


def test_recordings_without_movies_to_train_on_are_refused(trials, tmp_path):
    v1.save_recordings(trials.sel(tier="test").recordings, tmp_path / "test.nc")
    with pytest.raises(ValueError, match="mouse A has no movies of the tier train"):
        data.open_recordings(tmp_path / "test.nc", None, None, None)
    images = v1.make_v1_recordings(1, 3, 10, 2, 2, image_shape=(8, 12), random_state=0)
    v1.save_recordings(images, tmp_path / "images.nc")
    with pytest.raises(ValueError, match="has images: their tables are those of"):
        data.open_recordings(tmp_path / "images.nc", None, None, None)


# ---------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("select_on", ["train", "validation"])
def test_the_epoch_is_chosen_by_what_was_asked_for(trials, tmp_path, select_on):
    chosen = options("--epochs", "1", "--select-on", select_on, "--out", str(tmp_path))
    model = jobs.fit("LN", chosen, trials, 0)
    of_published = model.score(trials.sel(tier="validation"))
    (epoch,) = model.history_
    same = epoch["validation_correlation"] == pytest.approx(of_published, abs=1e-6)
    assert same == (select_on == "validation")


def test_models_are_those_of_the_package():
    chosen = baselines.parse(["--data", "x"])
    made = {label: jobs.make(label, chosen, 7) for label in jobs.MODELS}
    benchmark = v1.MovieCNNRegressor.from_preset("sensorium2023", random_state=7)
    assert made["CNN, factorised benchmark"].get_params() == benchmark.get_params()
    assert made["LN"].get_params() == v1.MovieLNRegressor(random_state=7).get_params()
    assert made["recurrent CNN"].recurrent
    assert (made["CNN without behaviour"].behavior_mode, made["CNN without behaviour"].shift) == (
        "none",
        "none",
    )
    lags = {label: m.readout_lags for label, m in made.items() if label.startswith("V1T")}
    assert lags == {"V1T, frame by frame": 1, "V1T, 15 lags": 15}
    assert made["Vi-ST"].condition == "none"


def test_rows_that_recordings_cannot_have_are_left_out(trials):
    every = options()
    assert jobs.labels(every, trials) == list(jobs.MODELS)
    alone = {m: trials.recordings[m].to_dataset().drop_vars("behaviors") for m in trials.mice}
    alone = {m: d.drop_dims("behavior", errors="ignore") for m, d in alone.items()}
    left = set(jobs.MODELS) - set(jobs.labels(every, v1.Trials(alone)))
    assert left == {"CNN without behaviour"}
    many = v1.make_movie_recordings(
        1, 201, 2, 1, 1, n_frames=4, image_shape=(8, 8), behavior=True, random_state=0
    )
    assert set(jobs.MODELS) - set(jobs.labels(every, v1.Trials(many))) == {"Vi-ST"}


# ---------------------------------------------------------------------------------------- tables


def test_several_seeds_come_with_their_spread(tmp_path):
    rows = [("final main", "A", 0.2, 0.4), ("final main", "B", 0.3, 0.5), ("oracle", "A", 0.1, 0.2)]
    (tmp_path / "jobs").mkdir()
    for seed in (0, 1):
        scores = [
            {"split": s, "mouse": m, "single-trial": r + 0.2 * seed, "average": a, "neurons": 5}
            | {"trials": 9}
            for s, m, r, a in rows
        ]
        job = {"model": "LN", "seed": seed, "epochs": 3, "seconds": 1.0, "scores": scores}
        (tmp_path / "jobs" / f"{seed}.json").write_text(json.dumps(job))
    (tmp_path / "jobs" / "2.json").write_text(json.dumps({"model": "CNN", "failed": "x"}))
    settings = {"quick": False, "skip": 50, "select_on": "validation"}
    settings["mice of seed 0"] = {"A": {"neurons": 5, "train": 30}}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    text = tables.write(baselines.parse(["--data", "x", "--out", str(tmp_path)]))
    said = cells(text, "Single-trial correlation", "LN")
    assert said == [
        *("0.200 ± 0.141", "0.200 ± 0.141", "0.350 ± 0.141", "0.300 ± 0.141", "0.400 ± 0.141")
    ]
    assert cells(text, "Correlation to average", "LN")[2] == "0.450 ± 0.000"
    assert cells(text, "Single-trial correlation", tables.WINNER)[2] == "0.2913"
    assert "its own scores are too good" in text

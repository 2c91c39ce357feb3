"""The script that redoes the tables of Vi-ST, on a simulated retina."""

import json

import numpy as np
import pandas as pd
import pytest

import v1tlearn as v1
from papers.vist2024 import data, figures, jobs, retina, tables
from papers.vist2024.published import ABLATION, COMPLEMENTARY, CROSS, PROTOCOLS
from tests.datasets import onken_files
from tests.datasets.onken_files import N_FRAMES, N_NEURONS, write_onken
from tests.papers.scripts import run_script

pytestmark = pytest.mark.slow

QUICK = ["--quick", "--epochs", "1", "--tables", "cross", "--protocols", "clean"]
SMALL = {"n_neurons": 5, "n_movies": 2, "n_test_movies": 2, "n_repeats": 3, "behavior": False}
SMALL |= {"n_frames": (41, 56), "image_shape": (16, 16), "random_state": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("matplotlib")
    return tmp_path_factory.mktemp("vist")


@pytest.fixture(scope="module")
def found(folder):
    """What the command writes of hardly trained models."""
    return retina.main([*QUICK, "--out", str(folder)])


def recording():
    return v1.Trials(v1.make_movie_recordings(**SMALL)).sel(tier="test")


@pytest.fixture(scope="module")
def movies():
    return data.mean_of_repeats(recording())


def options(*arguments):
    return retina.parse(["--quick", *arguments])


@pytest.fixture
def paper(movies):
    return jobs.Paper(options(), movies, 0)


def job(train="movie 1", test="movie 2", protocol="clean", label="Vi-ST", **changes):
    return jobs.Job("cross", label, train, test, protocol, **changes)


def cells(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


# ------------------------------------------------------------------------------------ the command


def test_the_table_has_what_predictions_say(found, folder):
    assert (folder / "tables.md").read_text(encoding="utf-8") == found
    for label, name in (("1 to 2, LN", "ln-movie-1-to-2"), ("2 to 1, Vi-ST", "vi-st-movie-2-to-1")):
        first, second = name[-6], name[-1]
        path = f"cross-{name[:-7]}-{first}-to-movie-{second}-clean-seed0.npz"
        kept = np.load(folder / "predictions" / path)
        pairs = zip(kept["recorded"].T, kept["predicted"].T, strict=True)
        r = np.array([np.corrcoef(one, other)[0, 1] for one, other in pairs])
        protocol, *said = cells(found, label)
        assert protocol == "clean"
        wanted = [r.mean(), np.abs(r).mean(), r[r > 0].mean() if (r > 0).any() else np.nan]
        for text, value in zip(said[:3], wanted, strict=True):
            assert text == ("-" if np.isnan(value) else f"{value:.3f}")
        published = v1.metrics.sd_kl(kept["recorded"], kept["predicted"], variant="published")
        assert said[4] == f"{published:.3f}"
        assert said[-1] == "-"  # a simulated retina has nothing published


def test_figures_are_drawn(found, folder):
    for name in ("figure.png", "traces.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_command_goes_on_where_it_stopped(found, folder):
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    lost = folder / "jobs" / "cross-vi-st-movie-1-to-movie-2-clean-seed0.json"
    before = json.loads(lost.read_text(encoding="utf-8"))
    lost.unlink()
    assert retina.main([*QUICK, "--out", str(folder)]) == found
    again = json.loads(lost.read_text(encoding="utf-8"))
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in before.items() if k != "seconds"
    }
    unchanged = [path for path in kept if path not in (lost, folder / "settings.json")]
    assert len(unchanged) > 8
    assert all(path.stat().st_mtime_ns == kept[path] for path in unchanged)


@pytest.mark.parametrize(
    ("more", "name"), [(["--epochs", "2"], "epochs"), (["--draws", "2"], "draws")]
)
def test_results_of_other_settings_are_not_taken(found, folder, more, name):
    with pytest.raises(ValueError, match=f"another run: {name}"):
        retina.main([*QUICK, *more, "--out", str(folder)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "or --quick"),
        (["--quick", "--features", "x"], "leave --data, --recording and --features"),
        (["--quick", "--epochs", "0"], "--epochs is 1 at least"),
        (["--quick", "--draws", "0"], "--draws is 1 at least"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        retina.parse(arguments)
    assert message in capsys.readouterr().err


def test_fits_that_fail_are_told_and_tried_again(movies, tmp_path, capsys):
    """Windows of the published size do not fit into these movies."""
    for number, n in enumerate(movies.n_frames, 1):
        np.save(tmp_path / f"movie{number}.npy", np.ones((n, 256, 2), np.float32))
    v1.save_recordings(movies.recordings, tmp_path / "short.nc")
    arguments = ["--data", str(tmp_path / "short.nc"), "--features", str(tmp_path), "--draws", "1"]
    arguments += ["--tables", "complementary", "--protocols", "published", "--epochs", "1"]
    for _ in range(2):
        with pytest.raises(SystemExit, match=r"(?s)tried again.*window_frames is 128"):
            retina.main([*arguments, "--out", str(tmp_path / "out")])
        assert "finished before" not in capsys.readouterr().out


def test_the_whole_quick_form_runs_without_warnings(tmp_path):
    done = run_script("vist2024.retina", "--quick", "--epochs", "1", "--out", tmp_path, strict=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "tables.md").read_text(encoding="utf-8")
    for row in [*ABLATION, jobs.PER_CELL]:
        assert len(cells(text, row)) == 5
    frame = pd.read_csv(tmp_path / "results.csv")
    assert set(frame["table"]) == set(tables.TABLES)
    assert len(frame) == 48
    assert frame[["signed", "absolute", "sd_kl"]].notna().all(axis=None)


# ------------------------------------------------------------------------------------- protocols


def seen(trials):
    """Which frames of which movies are in trials, by their sum."""
    (name,) = trials.mice
    sums = trials.get("stimuli", name).astype(float).sum((2, 3, 4))
    return [own[:n].tolist() for own, n in zip(sums, trials.n_frames, strict=True)]


def test_the_clean_protocol_keeps_the_test_movie_away_from_training(paper, movies):
    train, validation, test = (seen(part) for part in paper.parts(job(label="LN")))
    first, second = seen(movies)
    assert test == [second]
    assert first[: len(train[0])] == train[0]
    assert first[-len(validation[0]) :] == validation[0]
    assert len(validation[0]) == round(0.2 * len(first))
    assert len(first) - len(train[0]) - len(validation[0]) == 15  # half a second of 30 frames
    assert paper.make(job()).selection == "correlation"


def test_the_published_protocol_chooses_by_both_halves_of_the_test_movie(paper, movies):
    train, validation, test = (seen(p) for p in paper.parts(job(label="LN", protocol="published")))
    assert validation == test
    first, second = seen(movies)
    for halves, movie in ((train, first), (test, second)):
        assert len(halves) == 2
        assert halves[0] + halves[1] == movie
        assert len(halves[0]) - len(halves[1]) in (0, 1)
    assert paper.make(job(protocol="published")).selection == "absolute_correlation"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_within_a_movie_the_first_half_is_trained_on_and_the_second_tested(paper, movies, protocol):
    within = job("movie 2", "movie 2", protocol, label="LN")
    train, validation, test = (seen(part) for part in paper.parts(within))
    _, movie = seen(movies)
    assert test == [movie[-len(test[0]) :]]
    assert len(test[0]) in (len(movie) // 2, (len(movie) + 1) // 2)
    assert train[0] == movie[: len(train[0])]
    assert len(train[0]) + len(test[0]) <= len(movie)
    if protocol == "published":
        assert validation == test
    else:
        assert validation[0] == movie[: len(movie) - len(test[0])][-len(validation[0]) :]


def test_halves_keep_responses_and_labels(movies):
    odd = movies.sel(image_id="movie 1")
    if odd.n_frames[0] % 2 == 0:
        odd = movies.sel(image_id="movie 2")
    halves = data.halves(odd)
    n = int(odd.n_frames[0])
    assert halves.n_frames.tolist() == [(n + 1) // 2, n // 2]
    found = halves.responses.get("A")
    assert np.isnan(found[1, n // 2 :]).all()
    whole = np.concatenate([found[0], found[1, : n // 2]])
    np.testing.assert_array_equal(whole, odd.responses.get("A")[0, :n])
    np.testing.assert_array_equal(halves.neuron_ids("A"), odd.neuron_ids("A"))
    assert halves.frame_rate("A") == odd.frame_rate("A")
    fields = halves.recordings["A"]["receptive_field"]
    np.testing.assert_array_equal(fields, odd.recordings["A"]["receptive_field"])


# ------------------------------------------------------------------------------------------ jobs


def test_every_ablation_is_a_parameter_and_changes_nothing_else(paper):
    chosen = options("--tables", "ablation", "--protocols", "clean")
    whole, *variants = jobs.jobs(chosen, 5)
    assert (whole.table, whole.label) == ("cross", "Vi-ST")
    assert [v.label for v in variants] == [*list(ABLATION)[1:], jobs.PER_CELL]
    before = paper.make(whole).get_params(deep=False)
    for variant in variants:
        after = paper.make(variant).get_params(deep=False)
        changed = {name for name in before if before[name] != after[name]}
        wanted = set(variant.params) - ({"backbone"} if before["backbone"] is None else set())
        allowed = wanted | ({"grid"} if "prior" in wanted else set())
        assert wanted <= changed <= allowed, variant.label


def test_full_models_are_the_published_ones(movies, tmp_path):
    chosen = retina.parse(["--data", "x", "--out", str(tmp_path)])
    full = jobs.Paper(chosen, movies, 3)
    preset = v1.ViSTRegressor.from_preset("vist2024").get_params()
    found = full.make(job(protocol="published")).get_params()
    changed = {name for name in preset if found[name] != preset[name]}
    assert changed == {"feature_cache", "random_state"}
    assert found["feature_cache"] == tmp_path / "features"
    assert full.make(job(label="CNN")).image_size == (90, 90)


def test_numbers_of_cells_are_the_published_ones_and_cells_are_drawn(paper, movies):
    chosen = retina.parse(["--data", "x", "--tables", "complementary", "--protocols", "published"])
    every = list(jobs.jobs(chosen, 90))
    assert [j.n_cells for j in every[:16]] == [n for n in (1, 8, 16, 32, 64) for _ in range(3)] + [
        90
    ]
    assert jobs.counts(chosen, 20) == [1, 8, 16, 20]
    assert jobs.counts(chosen, 90) == list(COMPLEMENTARY["movie 1"])
    few = [paper.trials(job(n_cells=2, draw=draw)).neuron_ids("A").tolist() for draw in range(8)]
    assert all(len(ids) == 2 for ids in few)
    assert len({tuple(ids) for ids in few}) > 1
    more = paper.trials(job(n_cells=3, draw=4)).neuron_ids("A")
    assert set(few[4]) < set(more)
    np.testing.assert_array_equal(
        paper.trials(job(n_cells=5)).neuron_ids("A"), movies.neuron_ids("A")
    )


# ------------------------------------------------------------------------------------------ data


def test_responses_are_means_over_repeats_of_each_movie(movies):
    shown = recording()
    ids, values = shown.image_ids, shown.responses.get("A")
    order = list(dict.fromkeys(ids.tolist()))
    assert movies.image_ids.tolist() == ["movie 1", "movie 2"]
    for place, movie in enumerate(order):
        n = int(shown.n_frames[ids == movie][0])
        wanted = values[ids == movie].astype(float).mean(axis=0)[:n]
        np.testing.assert_allclose(movies.responses.get("A")[place, :n], wanted, rtol=1e-6)
    assert movies.n_frames.tolist() == [int(shown.n_frames[ids == m][0]) for m in order]


def test_the_published_data_set_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(onken_files, "SHAPE", (360, 360))
    trials = data.open_recording(write_onken(tmp_path), None)
    assert trials.mice == ["recording1"]
    assert trials.n_frames.tolist() == [N_FRAMES[1], N_FRAMES[2]]
    assert trials.n_neurons["recording1"] == N_NEURONS[1]
    wanted = v1.Trials(v1.read_onken2016(tmp_path)).sel(mouse_id="recording1")
    counts = wanted.sel(image_id="movie2").responses.get("recording1")[:, : N_FRAMES[2]]
    found = trials.responses.get("recording1")[1, : N_FRAMES[2]]
    np.testing.assert_allclose(found, counts.mean(axis=0), rtol=1e-6)
    fields = trials.recordings["recording1"]["receptive_field"]
    assert fields.shape == (N_NEURONS[1], 16, 16)
    other = data.open_recording(tmp_path, "recording2")
    assert other.n_neurons["recording2"] == N_NEURONS[2]
    with pytest.raises(ValueError, match="no recording3, only recording1, recording2"):
        data.open_recording(tmp_path, "recording3")


def test_recordings_without_two_movies_are_refused(tmp_path):
    every = v1.Trials(v1.make_movie_recordings(2, **SMALL))
    v1.save_recordings(every.recordings, tmp_path / "two.nc")
    with pytest.raises(ValueError, match=r"two\.nc has A, B: name one by --recording"):
        data.open_recording(tmp_path / "two.nc", None)
    with pytest.raises(ValueError, match=r"A has 4 movies, .*: expected two, one to train on"):
        data.open_recording(tmp_path / "two.nc", "A")
    images = v1.make_v1_recordings(1, 3, 10, 2, 2, image_shape=(8, 12), random_state=0)
    v1.save_recordings(images, tmp_path / "images.nc")
    with pytest.raises(ValueError, match="has images: Vi-ST is a model of movies"):
        data.open_recording(tmp_path / "images.nc", None)


def test_features_that_were_computed_elsewhere_stand_for_frames(movies, tmp_path):
    rng = np.random.default_rng(0)
    own = {}
    for number, n in enumerate(movies.n_frames, 1):
        own[number] = rng.random((n, 16, 3)).astype(np.float32)
        np.save(tmp_path / f"movie{number}.npy", own[number])
    found = data.with_features(movies, data.read_features(tmp_path))
    stimuli = found.get("stimuli", "A")
    assert stimuli.shape[2:] == (3, 4, 4)
    np.testing.assert_array_equal(stimuli[1, 7, :, 2, 1], own[2][7, 9])
    np.testing.assert_array_equal(found.responses.get("A"), movies.responses.get("A"))
    assert (stimuli[0, movies.n_frames[0] :] == 0).all()
    np.save(tmp_path / "movie2.npy", own[2][:-1])
    with pytest.raises(ValueError, match=r"features of movie 2 .* expected \(\d+, patches"):
        data.with_features(movies, data.read_features(tmp_path))
    np.save(tmp_path / "movie2.npy", own[2][:, :15])
    with pytest.raises(ValueError, match="the patches of a square grid"):
        data.with_features(movies, data.read_features(tmp_path))
    (tmp_path / "movie1.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"movie1.npy is missing"):
        data.with_features(movies, data.read_features(tmp_path))


# ---------------------------------------------------------------------------------------- tables


def result(table="cross", label="Vi-ST", train="movie 1", test="movie 2", absolute=0.3, **more):
    one = {"table": table, "label": label, "train": train, "test": test, "absolute": absolute}
    one |= {"protocol": "published", "signed": absolute - 0.1, "positive": 0.4, "sd_kl": 2.0}
    one |= {"sd_kl published": 5.0, "seed": 0, "n_cells": None, "draw": 0, "cells": [77, 12]}
    return one | {"r": [absolute, 0.0], "best epoch": 3, "epochs": 5, "seconds": 1.0} | more


@pytest.fixture
def written(tmp_path):
    """Tables of finished jobs of a recording that is no simulation."""
    of = {"cells": 90, "movie 1": 1800, "movie 2": 1600}
    settings = {"quick": False, "prior": "dinov2", "recording of seed 0": of}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "jobs").mkdir()
    made = [result(), result(seed=1, absolute=0.5), result(absolute=0.2, protocol="clean")]
    made += [result("ablation", "no prior", absolute=0.1)]
    made += [result("complementary", test="movie 1", n_cells=n, absolute=n / 100) for n in (1, 8)]
    made += [{"table": "cross", "failed": "x"}]
    for number, one in enumerate(made):
        (tmp_path / "jobs" / f"{number}.json").write_text(json.dumps(one))
    return retina.parse(["--data", "x", "--out", str(tmp_path)])


def test_results_stand_beside_the_published_numbers(written):
    text = tables.write(written)
    rows = [line for line in text.splitlines() if line.startswith("| 1 to 2, Vi-ST |")]
    published, clean = ([c.strip() for c in row.strip("|").split("|")] for row in rows)
    assert published[1:4] == ["published", "0.300 ± 0.141", "0.400 ± 0.141"]
    assert published[-1] == f"{CROSS['1 to 2']:.3f}"
    assert clean[1:4] == ["clean", "0.100", "0.200"]
    section = text.split("What each part contributes")[1].split("##")[0]
    assert cells(section, "Vi-ST") == ["0.400 ± 0.141", "0.300 ± 0.141", "0.200", "0.100", "0.334"]
    assert cells(section, "no prior") == ["0.100", "0.000", "-", "-", "0.281"]
    section = text.split("Cells that are encoded together")[1].split("##")[0]
    assert cells(section, "8") == ["0.080", "0.38", "-", "0.31"]
    assert cells(text, "1 to 2, cell 77") == ["0.400 ± 0.141", "0.200", "0.580"]
    assert cells(text, "2 to 1, cell 61") == ["-", "-", "0.421"]
    for told in PROTOCOLS.values():
        assert told in text


def test_figures_of_some_tables_have_their_panels(written, tmp_path):
    pytest.importorskip("matplotlib")
    frame = tables.results(tmp_path / "jobs")
    figures.draw_results(frame, tmp_path / "all.png", True)
    figures.draw_results(frame[frame["table"] == "cross"], tmp_path / "one.png", True)
    sizes = [(tmp_path / f"{name}.png").read_bytes()[16:20] for name in ("all", "one")]
    wide, narrow = (int.from_bytes(size, "big") for size in sizes)
    assert wide > 2 * narrow

"""The scripts that redo the paper's tables: examples/dataset_s.py and dataset_f.py."""

import csv
import importlib
import json
import os
import re
import subprocess
import sys
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import v1tlearn as v1
from v1tlearn.metrics import average_correlation, single_trial_correlation
from v1tlearn.model_selection import leave_one_mouse_out

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))  # where the scripts find each other
paper_data, paper_jobs, paper_tables = map(
    importlib.import_module, ("paper_data", "paper_jobs", "paper_tables")
)

GRAY = "GrayImageNet-94c6ff995dac583098847cfecd43e7b6"


def job(name, values, seed=0, metric="single_trial_correlation"):
    """A finished job with one score per mouse."""
    scores = [
        {"model": name, "mouse": mouse, "metric": metric, "value": value}
        for mouse, value in values.items()
    ]
    return {"job": name, "seed": seed, "epochs": 3, "seconds": 1.5, "scores": scores}


def cells_of(markdown, title, row):
    """Texts of one row below a title."""
    lines = markdown.split(f"## {title}")[1].split("\n## ")[0].splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {row} |")]
    return [text.strip() for text in line.strip("|").split("|")][1:]


class TestResults:
    def test_a_row_per_mouse_and_their_mean_beside_the_published_numbers(self):
        frame = paper_tables.results_frame("S", [job("V1T", {"A": 0.5, "B": 0.3}, seed=4)])
        of_table = frame[frame["table"] == "1"].set_index("mouse")
        assert of_table["value"].to_dict() == pytest.approx({"A": 0.5, "B": 0.3, "mean": 0.4})
        assert of_table["published"].to_dict() == {"A": 0.401, "B": 0.464, "mean": 0.426}
        assert set(of_table["seed"]) == {4}
        assert set(of_table["metric"]) == {"single_trial_correlation"}

    def test_a_model_fills_its_row_in_every_table_that_has_it(self):
        frame = paper_tables.results_frame("S", [job("V1T", {"A": 0.5})])
        assert set(frame["table"]) == {"1", "A.4", "B-MLP"}
        assert frame[frame["table"] == "A.4"]["published"].isna().all()

    def test_every_table_takes_its_own_metric(self):
        both = [
            job("CNN", {"A": 0.2}),
            job("CNN", {"A": 0.6}, metric="average_correlation"),
        ]
        frame = paper_tables.results_frame("S", both).set_index(["table", "mouse"])
        assert frame.loc[("1", "mean"), "value"] == 0.2
        assert frame.loc[("A.7", "mean"), "value"] == 0.6
        assert frame.loc[("A.7", "mean"), "published"] == 0.578

    def test_without_finished_jobs_the_columns_are_there(self):
        assert list(paper_tables.results_frame("F", []).columns) == paper_tables.COLUMNS

    def test_published_numbers_belong_to_rows_of_the_tables(self):
        for dataset, of_tables in paper_tables.PUBLISHED.items():
            tables = paper_tables.paper_tables(dataset)
            for key, models in of_tables.items():
                assert set(models) <= set(tables[key].rows)

    def test_published_means_are_those_of_the_published_mice(self):
        for of_tables in paper_tables.PUBLISHED["S"].values():
            for values in of_tables.values():
                mice = [value for mouse, value in values.items() if mouse != "mean"]
                if mice:
                    assert np.mean(mice) == pytest.approx(values["mean"], abs=6e-4)


VALUES = {"A": 0.401, "B": 0.474, "C": 0.430, "D": 0.436, "E": 0.401}


class TestRendering:
    def render(self, jobs, mice="ABCDE", dataset="S"):
        frame = paper_tables.results_frame(dataset, jobs)
        keys = list(paper_tables.paper_tables(dataset))
        return [
            render(frame, dataset, keys, list(mice), "Notes & more.")
            for render in (paper_tables.markdown, paper_tables.as_html)
        ]

    def test_numbers_stand_beside_the_published_ones(self):
        text, page = self.render([job("V1T", VALUES)])
        assert cells_of(text, "Tables 1 and A.5", "V1T") == [
            "0.401 (0.401)",
            "0.474 (0.464)",
            "0.430 (0.430)",
            "0.436 (0.436)",
            "0.401 (0.401)",
            "0.428",
            "0.426",
            "+0.002",
        ]
        assert "<td>0.474<small>0.464</small></td>" in page
        assert '<td class="mean">0.428</td><td class="published">0.426</td>' in page
        assert "Notes &amp; more." in page

    def test_what_is_missing_is_a_dash(self):
        text, _ = self.render([job("V1T", VALUES)])
        assert cells_of(text, "Tables 1 and A.5", "LN") == ["-"] * 6 + ["0.275", "-"]
        assert cells_of(text, "Table A.4", "unfold, standard")[-3:] == ["0.428", "-", "-"]

    def test_other_mice_have_no_difference_from_a_published_mean(self):
        text, _ = self.render([job("V1T", {"A": 0.4, "B": 0.5})], mice="AB")
        assert cells_of(text, "Tables 1 and A.5", "V1T")[-3:] == ["0.450", "0.426", "-"]

    def test_rounding_leaves_no_negative_zero(self):
        text, _ = self.render([job("LN", dict.fromkeys("ABCDE", -0.0001))])
        assert cells_of(text, "Tables 1 and A.5", "LN")[:6] == ["0.000"] * 6

    def test_several_seeds_become_mean_and_spread(self):
        seeds = [job("LN", dict.fromkeys("ABCDE", v), s) for s, v in enumerate((0.25, 0.29))]
        text, page = self.render(seeds)
        # two numbers 0.04 apart: standard deviation 0.04 / sqrt(2)
        assert cells_of(text, "Tables 1 and A.5", "LN")[-3:] == ["0.270 ± 0.028", "0.275", "-0.005"]
        assert "0.270<small>± 0.028</small>" in page

    def test_data_set_f_has_its_own_numbers(self):
        text, _ = self.render([job("V1T", dict.fromkeys("FGHIJKLMNO", 0.37))], "FGHIJKLMNO", "F")
        assert cells_of(text, "Tables 1 and A.6", "V1T")[-3:] == ["0.370", "0.368", "+0.002"]

    def test_files_are_written_from_the_finished_jobs(self, tmp_path):
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "v1t-seed0.json").write_text(json.dumps(job("V1T", VALUES)))
        paper_tables.write_tables(tmp_path, "S", ["1"], list("ABCDE"), "Notes.")
        assert len(pd.read_csv(tmp_path / "results.csv").query("table == '1'")) == 6
        assert "+0.002" in (tmp_path / "tables.md").read_text()
        assert "<h2>Tables 1 and A.5" in (tmp_path / "tables.html").read_text()
        assert sorted(p.name for p in tmp_path.glob(".*")) == []


class TestFindingMice:
    def make(self, folder, *names):
        for name in names:
            if name.endswith("/"):
                (folder / name).mkdir()
            else:
                (folder / name).touch()
        return folder

    def test_mice_are_known_by_animal_session_and_scan(self, tmp_path):
        self.make(
            tmp_path,
            f"static22846-10-16-{GRAY}.zip",
            f"static21067-10-18-{GRAY}/",
            "static27204-5-13-GrayImageNet.zip",
            "static26872-17-20-GrayImageNet-0123abcd-v2.zip",
            "static25311-10-26-ColorImageNet-104e446ed0128d89c639eef0abe4655b.zip",
            f"static23343-5-17-{GRAY}.zip.part",
            "static123-5-17-GrayImageNet.zip",
            "README.md",
        )
        found = paper_data.find_mice(tmp_path, "S")
        assert list(found) == ["A", "B", "S0", "S1"]
        assert found["A"].is_dir()
        assert list(paper_data.find_mice(tmp_path, "F")) == ["F"]

    def test_an_unpacked_folder_goes_before_its_zip(self, tmp_path):
        self.make(tmp_path, f"static21067-10-18-{GRAY}.zip", f"static21067-10-18-{GRAY}/")
        assert paper_data.find_mice(tmp_path, "S")["A"].is_dir()

    def test_a_folder_without_mice_is_refused(self, tmp_path):
        self.make(tmp_path, f"static26872-17-20-{GRAY}.zip")  # S0 alone makes no table
        with pytest.raises(ValueError, match=r"none of the mice of data set S.*A = 21067-10-18"):
            paper_data.find_mice(tmp_path, "S")
        with pytest.raises(FileNotFoundError, match="no folder"):
            paper_data.find_mice(tmp_path / "elsewhere", "S")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """The recordings of --quick as the scripts open them."""
    folder = tmp_path_factory.mktemp("quick")
    return {
        dataset: paper_data.open_mice(
            paper_data.simulate(folder / dataset, dataset), dataset, folder / "store"
        )
        for dataset in "SF"
    }


def paper(recordings, output, dataset="S", **options):
    defaults = {"quick": True, "recipe": "published", "shift_without_behavior": "none"}
    defaults |= {"seeds": 1, "device": "cpu", "precision": "auto", "models": list(paper_jobs.KINDS)}
    defaults |= {"tables": [*paper_tables.paper_tables(dataset), "competition"]}
    franke = recordings["F"] if dataset == "S" else {}
    output.mkdir(exist_ok=True)
    options = Namespace(**{**defaults, **options}, output=output)
    return paper_jobs.Paper(dataset, recordings[dataset], franke, options)


class TestQuickRecordings:
    def test_they_have_the_layout_of_the_published_ones(self, recordings):
        assert list(recordings["S"]) == ["A", "B", "S0", "S1"]
        assert recordings["S"]["A"]["stimuli"].shape[1:] == (1, 144, 256)
        assert recordings["F"]["F"]["stimuli"].shape[1:] == (2, 36, 64)
        assert "behaviors" not in recordings["S"]["S0"]
        for mouse in ("S0", "S1"):
            recording = recordings["S"][mouse]
            withheld = recording["tier"].isin(["test", "final_test"]).values
            assert np.isnan(recording["responses"].values[withheld]).all()
            assert not np.isnan(recording["responses"].values[~withheld]).any()
            assert all(re.fullmatch("[0-9a-f]{32}", i) for i in recording["trial_id"].values)
            assert {"test", "final_test"} <= set(recording["tier"].values)

    def test_predictions_are_written_a_row_per_trial(self, recordings, tmp_path):
        trials = v1.Trials({"S1": recordings["S"]["S1"]}).sel(tier="final_test")
        values = np.linspace(0.5, 2.0, len(trials) * 16, dtype="f4").reshape(-1, 16)
        predictions = v1.Responses.from_arrays({"S1": values}, like=trials)
        paper_data.write_predictions(tmp_path / "p" / "S1.csv", trials, predictions, "S1")
        with open(tmp_path / "p" / "S1.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["trial_indices", "image_ids", "prediction", "neuron_ids"]
        recording = trials.recordings["S1"]
        assert [row["trial_indices"] for row in rows] == recording["trial_id"].values.tolist()
        assert [row["image_ids"] for row in rows] == recording["image_id"].values.tolist()
        read = np.array([json.loads(row["prediction"]) for row in rows])
        np.testing.assert_allclose(read, values, rtol=1e-5)
        assert json.loads(rows[0]["neuron_ids"]) == recording["neuron"].values.tolist()


class TestJobs:
    def test_all_rows_of_all_tables_have_a_job(self, recordings, tmp_path):
        for dataset, n in (("S", 26), ("F", 21)):
            names = [job.name for job in paper(recordings, tmp_path, dataset).jobs()]
            assert len(names) == len(set(names)) == n

    def test_recipes(self, recordings, tmp_path):
        published = paper(recordings, tmp_path, quick=False).make("LN", 3)
        assert published.n_layers == 4
        assert (published.batch_norm_momentum, published.random_state) == (0.9, 3)
        default = paper(recordings, tmp_path, quick=False, recipe="default").make("LN", 3)
        assert default.get_params() == v1.LNRegressor(random_state=3, device="cpu").get_params()

    def test_models_and_tables_can_be_chosen(self, recordings, tmp_path):
        jobs = paper(recordings, tmp_path, tables=["A.8", "A.9"], models=["CNN"]).jobs()
        assert [job.name for job in jobs] == ["CNN, leave one out", "CNN, core of F"]

    def test_other_settings_or_mice_are_refused(self, recordings, tmp_path):
        path = tmp_path / "settings.json"
        first = paper(recordings, tmp_path).settings()
        assert paper_jobs.keep_settings(path, first, ["1"]) == ["1"]
        assert paper_jobs.keep_settings(path, first, ["A.4"]) == ["1", "A.4"]
        with pytest.raises(ValueError, match=r"recipe differ from settings\.json"):
            paper_jobs.keep_settings(path, {**first, "recipe": "default"}, ["1"])
        fewer = {**first, "mice": {"A": first["mice"]["A"]}}
        with pytest.raises(ValueError, match="mice differ"):
            paper_jobs.keep_settings(path, fewer, ["1"])

    def test_competition_mice_come_later_without_harm(self, recordings, tmp_path):
        settings = paper(recordings, tmp_path).settings()
        without = {name: value for name, value in settings.items() if name not in ("S0", "S1")}
        paper_jobs.keep_settings(tmp_path / "settings.json", without, ["1"])
        paper_jobs.keep_settings(tmp_path / "settings.json", settings, ["1"])
        assert set(settings["mice"]) == {"A", "B"}

    def test_a_fitted_model_is_kept_and_scored_mouse_by_mouse(self, recordings, tmp_path):
        this = paper(recordings, tmp_path)
        model, scores = this.single("LN", "LN").run(0)
        again, same = this.single("LN", "LN").run(0)
        assert again.history_ == model.history_  # loaded: seconds would differ
        assert same == scores
        test = this.trials.sel(tier="test")
        for mouse in "AB":
            of_mouse = test.sel(mouse_id=mouse)
            answer = model.predict(of_mouse)
            got = {s["metric"]: s["value"] for s in scores if s["mouse"] == mouse}
            assert got == {
                "single_trial_correlation": single_trial_correlation(of_mouse.responses, answer),
                "average_correlation": average_correlation(of_mouse.responses, answer),
            }


class TestCommandLine:
    def parse(self, monkeypatch, dataset, *arguments):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
        return paper_jobs.parse(dataset, "A script.")

    def test_the_tables_of_the_paper_are_the_default(self, monkeypatch, tmp_path, capsys):
        options = self.parse(monkeypatch, "S", "--data", tmp_path, "--franke", tmp_path)
        assert options.tables == ["1", "A.7", "A.4", "B-MLP", "A.8", "A.9", "competition"]
        assert (options.recipe, options.shift_without_behavior) == ("published", "none")
        options = self.parse(monkeypatch, "S", "--data", tmp_path)
        assert "A.9" not in options.tables
        assert "Table A.9 is left out: it needs --franke" in capsys.readouterr().out
        assert self.parse(monkeypatch, "F", "--data", tmp_path).tables == ["1", "A.7"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "--data is missing"),
            (["--data", "here", "--tables", "A.9"], "A.9 needs --franke"),
            (["--data", "here", "--quick"], "leave --data and --franke away"),
            (["--data", "here", "--tables", "A.3"], "invalid choice"),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, monkeypatch, capsys, arguments, message):
        with pytest.raises(SystemExit):
            self.parse(monkeypatch, "S", *arguments)
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_leave_one_out_is_that_of_the_package(recordings, tmp_path):
    this = paper(recordings, tmp_path)
    _, scores = this.leave_one_out("CNN").run(0)
    frame = leave_one_mouse_out(this.make("CNN", 0), this.trials)
    ours = {
        (score["mouse"], score["model"]): score["value"]
        for score in scores
        if score["metric"] == "single_trial_correlation"
    }
    theirs = {(row.mouse, f"CNN, {row.training}"): row.correlation for row in frame.itertuples()}
    assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.slow
def test_an_ensemble_of_kept_models_is_one_that_was_fitted(recordings, tmp_path):
    this = paper(recordings, tmp_path)
    train, validation, test = (this.trials.sel(tier=t) for t in ("train", "validation", "test"))
    fitted = v1.EnsembleRegressor(this.make("CNN", 0), 3, 2, random_state=0)
    fitted.fit(train, validation=validation)
    candidates = [this.make("CNN", s).fit(train, validation=validation) for s in fitted.seeds_]
    ours = paper_jobs.ensemble_of(this.make("CNN", 0), candidates, validation, 2)
    assert ours.members_.tolist() == fitted.members_.tolist()
    np.testing.assert_allclose(ours.validation_scores_, fitted.validation_scores_, atol=1e-6)
    for mouse in "AB":
        np.testing.assert_allclose(
            ours.predict(test).get(mouse), fitted.predict(test).get(mouse), rtol=1e-4
        )


def run_script(name, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, EXAMPLES / name, "--quick", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "dataset", "mice"), [("dataset_s.py", "S", "AB"), ("dataset_f.py", "F", "FG")]
)
def test_from_zips_to_tables_with_one_command(script, dataset, mice, tmp_path):
    output = tmp_path / "out"
    done = run_script(script, "--output", output)
    assert done.returncode == 0, done.stderr
    zips = sorted((output / f"simulated_{dataset.lower()}").iterdir())
    assert all(zipfile.is_zipfile(path) for path in zips)
    results = pd.read_csv(output / "results.csv")
    tables = paper_tables.paper_tables(dataset)
    for key, table in tables.items():
        of_table = results[results["table"].astype(str) == key]
        assert set(of_table["model"]) == set(table.rows)
        assert set(of_table["mouse"]) == {*mice, "mean"}
        assert len(of_table) == len(table.rows) * (len(mice) + 1)
    assert results["value"].between(-1, 1).all()
    text = (output / "tables.md").read_text()
    assert text.count("\n## ") == len(tables)
    assert text in done.stdout
    files = sorted(path.name for path in output.glob("predictions/*"))
    mice_and_tiers = [f"{m}_{t}-seed0.csv" for m in ("S0", "S1") for t in ("final_test", "test")]
    assert files == (mice_and_tiers if dataset == "S" else [])

    # What is finished is not done again; what lost its record is scored anew, not fitted.
    models = {path: path.stat().st_mtime_ns for path in output.glob("models/*/*")}
    (output / "jobs" / "v1t-seed0.json").unlink()
    before = results[results["model"] == "V1T"]["value"].tolist()
    done = run_script(script, "--output", output)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished before") == len(list((output / "jobs").iterdir())) - 1
    assert {path: path.stat().st_mtime_ns for path in output.glob("models/*/*")} == models
    after = pd.read_csv(output / "results.csv")
    assert after[after["model"] == "V1T"]["value"].tolist() == pytest.approx(before, abs=1e-6)

    done = run_script(script, "--output", output, "--recipe", "default")
    assert done.returncode != 0
    assert "recipe differ" in done.stderr

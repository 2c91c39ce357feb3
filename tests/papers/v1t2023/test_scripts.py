"""The scripts that redo the paper's tables: papers/v1t2023/dataset_s.py and dataset_f.py."""

import csv
import json
import os
import re
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

import v1tlearn as v1
from papers.v1t2023 import data as paper_data
from papers.v1t2023 import jobs as paper_jobs
from papers.v1t2023 import tables as paper_tables
from tests.papers.scripts import run_script

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]

GRAY = "GrayImageNet-94c6ff995dac583098847cfecd43e7b6"


def job(name, values, seed=0, metric="single_trial_correlation"):
    """A finished job with one score per mouse."""
    scores = [
        {"model": name, "mouse": mouse, "metric": metric, "value": value}
        | {"epochs": 3, "seconds": 1.5}
        for mouse, value in values.items()
    ]
    return {"job": name, "seed": seed, "scores": scores}


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
        assert of_table["epochs"].to_list() == [3, 3, 3]
        assert of_table["seconds"].to_list() == [1.5, 1.5, 1.5]

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
    def render(self, jobs, mice="ABCDE", dataset="S", mice_of_f=""):
        frame = paper_tables.results_frame(dataset, jobs)
        keys = list(paper_tables.paper_tables(dataset))
        return [
            render(frame, dataset, keys, list(mice), "Notes & more.", list(mice_of_f))
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

    @pytest.mark.parametrize(
        ("mice", "mice_of_f", "difference"),
        [
            ("ABCDE", "FGHIJKLMNO", "+0.055"),
            ("ABCDE", "FG", "-"),
            ("ABCDE", "", "-"),
            ("AB", "FGHIJKLMNO", "-"),
        ],
    )
    def test_a_core_of_other_mice_of_f_has_no_difference(self, mice, mice_of_f, difference):
        scores = [job(name, dict.fromkeys(mice, 0.4)) for name in ("V1T", "V1T, core of F")]
        text, page = self.render(scores, mice, "S", mice_of_f)
        assert cells_of(text, "Table A.9", "V1T")[-3:] == ["0.400", "0.345", difference]
        assert f"<td>{difference}</td>" in page.split("Table A.9")[1].split("</tr>")[2]
        # the other tables do not mind
        other = "-0.026" if mice == "ABCDE" else "-"
        assert cells_of(text, "Tables 1 and A.5", "V1T")[-1] == other

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


@pytest.fixture
def zips(tmp_path):
    """Return a function that writes small mice F and G to a folder of that name."""

    def write(name, seed):
        mice = v1.make_v1_recordings(
            2, 4, 24, n_test_images=2, n_repeats=3, n_channels=2, image_shape=(16, 24),
            random_state=seed,
        )  # fmt: skip
        keys = ["25311-10-26", "25340-3-19"]
        mice = {k: m.to_dataset() for k, m in zip(keys, mice.children.values(), strict=True)}
        for path, key in zip(
            v1.write_sensorium(mice, tmp_path / name, zip=True), keys, strict=True
        ):
            path.rename(path.with_name(f"static{key}-ColorImageNet.zip"))
        return tmp_path / name

    return write


class TestStore:
    def responses(self, recordings):
        return {mouse: recording["responses"].values for mouse, recording in recordings.items()}

    def test_recordings_are_read_once(self, zips, tmp_path, capsys):
        folder = zips("here", 0)
        first = self.responses(paper_data.open_mice(folder, "F", tmp_path / "store"))
        assert capsys.readouterr().out.count("reading mouse") == 2
        again = self.responses(paper_data.open_mice(folder, "F", tmp_path / "store"))
        assert capsys.readouterr().out == ""
        zipped = v1.read_sensorium(folder / "static25311-10-26-ColorImageNet.zip")
        for found in (first, again):
            np.testing.assert_array_equal(found["F"], zipped["25311-10-26"]["responses"].values)

    def test_those_of_another_folder_are_not_taken_for_these(self, zips, tmp_path, capsys):
        paper_data.open_mice(zips("here", 0), "F", tmp_path / "store")
        other = self.responses(paper_data.open_mice(zips("there", 1), "F", tmp_path / "store"))
        assert capsys.readouterr().out.count("reading mouse") == 4
        own = self.responses(paper_data.open_mice(tmp_path / "there", "F", tmp_path / "own"))
        here = self.responses(paper_data.open_mice(tmp_path / "here", "F", tmp_path / "first"))
        for mouse in "FG":
            np.testing.assert_array_equal(other[mouse], own[mouse])
            assert not np.array_equal(other[mouse], here[mouse])

    def test_a_changed_file_in_an_unpacked_folder_is_seen(self, zips, tmp_path, capsys):
        folder = zips("here", 0)
        for path in list(folder.glob("*.zip")):
            with zipfile.ZipFile(path) as file:
                file.extractall(path.with_suffix(""))
            path.unlink()
        paper_data.open_mice(folder, "F", tmp_path / "store")
        capsys.readouterr()
        path = next(folder.glob("*25340*/data/responses/*.npy"))
        np.save(path, np.load(path) + 1)
        recordings = paper_data.open_mice(folder, "F", tmp_path / "store")
        assert re.findall("reading mouse (.)", capsys.readouterr().out) == ["G"]
        np.testing.assert_array_equal(
            recordings["G"]["responses"].values[int(path.stem)], np.load(path)
        )

    def test_results_are_of_the_responses_not_of_where_they_were(self, zips, tmp_path):
        here = paper_data.open_mice(zips("here", 0), "F", tmp_path / "store")
        before = paper_data.describe(here)
        os.utime(tmp_path / "here" / "static25311-10-26-ColorImageNet.zip")  # downloaded again
        again = paper_data.open_mice(tmp_path / "here", "F", tmp_path / "store")
        assert paper_data.describe(again) == before
        there = paper_data.open_mice(zips("there", 1), "F", tmp_path / "store")
        assert paper_data.describe(there)["F"] != before["F"]


def test_predictions_are_written_a_row_per_trial(tmp_path):
    trials = v1.Trials(v1.make_v1_recordings(1, 4, 24, n_test_images=2, random_state=0))
    (mouse,), trials = trials.mice, trials.sel(tier="test")
    values = np.linspace(0.5, 2.0, len(trials) * 4, dtype="f4").reshape(-1, 4)
    predictions = v1.Responses.from_arrays({mouse: values}, like=trials)
    paper_data.write_predictions(tmp_path / "p" / "A.csv", trials, predictions, mouse)
    with open(tmp_path / "p" / "A.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["trial_indices", "image_ids", "prediction", "neuron_ids"]
    recording = trials.recordings[mouse]
    for column, name in (("trial_indices", "trial_id"), ("image_ids", "image_id")):
        assert [row[column] for row in rows] == [str(v) for v in recording[name].values]
    read = np.array([json.loads(row["prediction"]) for row in rows])
    np.testing.assert_allclose(read, values, rtol=1e-5)
    assert json.loads(rows[0]["neuron_ids"]) == recording["neuron"].values.tolist()


class TestSettings:
    settings: ClassVar = {"recipe": "published", "mice": {"A": {"neurons": 5}}, "S0": {}}

    def keep(self, path, asked, **changes):
        return paper_jobs.keep_settings(path / "settings.json", self.settings | changes, asked)

    def test_tables_come_together(self, tmp_path):
        assert self.keep(tmp_path, ["1"]) == {**self.settings, "tables": ["1"]}
        assert self.keep(tmp_path, ["A.4", "1"])["tables"] == ["1", "A.4"]
        assert json.loads((tmp_path / "settings.json").read_text())["tables"] == ["1", "A.4"]

    @pytest.mark.parametrize("changed", [{"recipe": "default"}, {"mice": {"A": {"neurons": 6}}}])
    def test_other_settings_or_mice_are_refused(self, tmp_path, changed):
        self.keep(tmp_path, ["1"])
        before = (tmp_path / "settings.json").read_text()
        with pytest.raises(ValueError, match=f"{next(iter(changed))} differ from settings"):
            self.keep(tmp_path, ["A.4"], **changed)
        assert (tmp_path / "settings.json").read_text() == before

    def test_competition_mice_come_later_without_harm(self, tmp_path):
        self.keep(tmp_path, ["1"])
        self.keep(tmp_path, ["1"], S1={"neurons": 7})


class TestCommandLine:
    def parse(self, dataset, *arguments):
        return paper_jobs.parse(dataset, "A script.", [*map(str, arguments)])

    def test_the_tables_of_the_paper_are_the_default(self, tmp_path, capsys):
        options = self.parse("S", "--data", tmp_path, "--franke", tmp_path)
        assert options.tables == ["1", "A.7", "A.4", "B-MLP", "A.8", "A.9", "competition"]
        assert (options.recipe, options.shift_without_behavior) == ("published", "none")
        options = self.parse("S", "--data", tmp_path)
        assert "A.9" not in options.tables
        assert "Table A.9 is left out: it needs --franke" in capsys.readouterr().out
        assert self.parse("F", "--data", tmp_path).tables == ["1", "A.7"]

    def test_what_is_tried_quickly_lies_elsewhere(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        for dataset in "SF":
            real = self.parse(dataset, "--data", tmp_path)
            quick = self.parse(dataset, "--quick")
            assert real.output == Path(f"paper_{dataset.lower()}")
            assert quick.output == Path(f"paper_{dataset.lower()}_quick")
            assert quick.data == quick.output / f"simulated_{dataset.lower()}"
        assert self.parse("F", "--quick", "--output", "x").output == Path("x")
        ignored = (ROOT / ".gitignore").read_text().split()
        assert {"paper_s/", "paper_f/", "paper_s_quick/", "paper_f_quick/"} <= set(ignored)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("dataset", "arguments", "changed"),
        [
            ("S", ["--data", "nowhere"], "quick"),
            ("S", ["--quick", "--recipe", "default"], "recipe"),
            ("F", ["--quick"], "data set"),
        ],
    )
    def test_settings_are_checked_before_anything_is_read(
        self, tmp_path, dataset, arguments, changed
    ):
        options = self.parse("S", "--quick", "--output", tmp_path)
        kept = {**paper_jobs.choices("S", options), "tables": ["1"]}
        (tmp_path / "settings.json").write_text(json.dumps(kept))
        arguments = [*arguments, "--output", str(tmp_path)]
        with pytest.raises(ValueError, match=f"another run: {changed} differ"):
            paper_jobs.main(dataset, "A script.", arguments)
        assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "--data is missing"),
            (["--data", "here", "--tables", "A.9"], "A.9 needs --franke"),
            (["--data", "here", "--quick"], "leave --data and --franke away"),
            (["--data", "here", "--tables", "A.3"], "invalid choice"),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, capsys, arguments, message):
        with pytest.raises(SystemExit):
            self.parse("S", *arguments)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "dataset", "mice"), [("dataset_s", "S", "AB"), ("dataset_f", "F", "FG")]
)
def test_from_zips_to_tables_with_one_command(script, dataset, mice, tmp_path):
    output = tmp_path / "out"
    done = run_script(f"v1t2023.{script}", "--quick", "--output", output)
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
    assert sorted(results.columns) == sorted(paper_tables.COLUMNS)
    assert (results["epochs"] > 0).all()
    assert (results["seconds"] > 0).all()
    if dataset == "S":
        recording = v1.open_recordings(output / "recordings" / "S1.nc")
        model = v1.V1TRegressor.load(output / "models" / "v1t-competition-s1-seed0", device="cpu")
        for tier in ("test", "final_test"):
            table = pd.read_csv(output / "predictions" / f"S1_{tier}-seed0.csv")
            written = [json.loads(values) for values in table["prediction"]]
            predicted = model.predict(v1.Trials(recording).sel(tier=tier)).get("S1")
            np.testing.assert_allclose(written, predicted, rtol=1e-4)
            assert np.ptp(predicted, axis=0).min() > 0

    # What is finished is not done again; what lost its record is scored anew, not fitted.
    models = {path: path.stat().st_mtime_ns for path in output.glob("models/*/*")}
    (output / "jobs" / "v1t-seed0.json").unlink()
    before = results[results["model"] == "V1T"]["value"].tolist()
    done = run_script(f"v1t2023.{script}", "--quick", "--output", output)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished before") == len(list((output / "jobs").iterdir())) - 1
    assert {path: path.stat().st_mtime_ns for path in output.glob("models/*/*")} == models
    after = pd.read_csv(output / "results.csv")
    assert after[after["model"] == "V1T"]["value"].tolist() == pytest.approx(before, abs=1e-6)

    done = run_script(f"v1t2023.{script}", "--quick", "--output", output, "--recipe", "default")
    assert done.returncode != 0
    assert "recipe differ" in done.stderr

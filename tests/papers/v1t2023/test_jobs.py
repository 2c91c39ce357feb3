"""What the scripts that redo the paper's tables fit and score: papers/v1t2023/jobs.py."""

import json
import re
import shutil
from argparse import Namespace
from dataclasses import dataclass, field
from functools import partialmethod
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from sklearn.base import clone

import v1tlearn as v1
from papers.v1t2023 import data as paper_data
from papers.v1t2023 import jobs as paper_jobs
from papers.v1t2023 import tables as paper_tables
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.metrics import average_correlation, single_trial_correlation
from v1tlearn.model_selection import leave_one_mouse_out
from v1tlearn.training import NonFiniteLossError

SINGLE, AVERAGE = "single_trial_correlation", "average_correlation"


# Models that are trained for an epoch or two lose their neurons.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*cannot follow their images"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The simulated zips of --quick, as simulated_s and simulated_f."""
    folder = tmp_path_factory.mktemp("quick")
    for dataset in "SF":
        paper_data.simulate(folder / f"simulated_{dataset.lower()}", dataset)
    return folder


@pytest.fixture(scope="module")
def recordings(folder):
    """The recordings of --quick as the scripts open them."""
    return {
        dataset: paper_data.open_mice(
            folder / f"simulated_{dataset.lower()}", dataset, folder / "recordings"
        )
        for dataset in "SF"
    }


def paper(recordings, output, dataset="S", **options):
    defaults = {"quick": True, "recipe": "published", "shift_without_behavior": "none"}
    defaults |= {"seeds": 1, "device": "cpu", "precision": None, "models": list(paper_jobs.KINDS)}
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


# -- which experiments --------------------------------------------------------------------------


@dataclass
class Call:
    """One fit, transfer, score or prediction: by which model, of which trials."""

    verb: str
    model: Any
    mice: list[str]
    tiers: set[str]
    first_image: np.ndarray
    validation: tuple[list[str], set[str]] | None = None
    core: Any = None
    frozen: bool | None = None

    @classmethod
    def of(cls, verb, model, trials, validation=None, **others):
        if validation is not None:
            validation = validation.mice, set(validation.tiers)
        image = trials[:1].get("stimuli", trials.mice[0])[0]
        return cls(verb, model, trials.mice, set(trials.tiers), image, validation, **others)


@dataclass
class Recorder:
    """Stands in for training: models that were not trained predict what was recorded."""

    calls: list[Call] = field(default_factory=list)
    saved: dict[str, Any] = field(default_factory=dict)
    members: list[int] = field(default_factory=list)  # seeds
    validation_scores: list[float] = field(default_factory=list)  # by seed
    breaks: Any = None  # whose loss becomes NaN

    def verbs(self, *verbs):
        return [call for call in self.calls if call.verb in verbs]

    def fit(self, model, trials, *, validation=None):
        self.calls.append(Call.of("fit", model, trials, validation))
        if self.breaks is not None and self.breaks(model):
            raise NonFiniteLossError("A", 2, 5)
        model.state_ = {"history": [{"seconds": 0.25}] * len(trials.mice)}
        return model

    def transfer(self, core, trials, freeze_core=True, *, validation=None, **params):
        model = clone(core).set_params(**params)
        others = {"core": core, "frozen": freeze_core}
        self.calls.append(Call.of("transfer", model, trials, validation, **others))
        model.state_ = {"history": [{"seconds": 10.0}] * 7}
        return model

    def predict(self, model, trials):
        self.calls.append(Call.of("predict", model, trials))
        return trials.responses

    def score(self, model, trials):
        self.calls.append(Call.of("score", model, trials))
        return self.validation_scores[model.random_state]

    def save(self, model, path):
        made = model.get_params(), self.verbs("fit", "transfer")[-1].mice
        assert self.saved.setdefault(path.name, made) == made, "two models in one place"

    def from_members(self, members):
        self.members = [member.random_state for member in members]
        return members[0]


def _hand_over(model, method, *args, **kwargs):
    return method(model, *args, **kwargs)


@pytest.fixture
def recorder(monkeypatch):
    this = Recorder()
    for name in ("fit", "transfer", "predict", "score", "save"):
        monkeypatch.setattr(
            BaseEncodingRegressor, name, partialmethod(_hand_over, getattr(this, name))
        )
    monkeypatch.setattr(v1.EnsembleRegressor, "from_members", this.from_members)
    return this


def job_of(this, row):
    """Return the one job of a paper by its name."""
    (job,) = [job for job in this.jobs() if job.name == row]
    return job


def published(kind, seed, **params):
    """Parameters of the published recipe, with the row's own."""
    cls = getattr(v1, f"{kind}Regressor")
    params |= {"random_state": seed, "device": "cpu"}
    return cls, cls.from_preset("v1t2023", **params).get_params()


def tokens(tokenizer, attention, **params):
    return "V1T", {"tokenizer": tokenizer, "attention": attention, **params}


BLIND = {"behavior_mode": "none", "shift": "none"}
ROWS = {
    "LN": ("LN", {}),
    "CNN without behaviour": ("CNN", BLIND),
    "CNN": ("CNN", {}),
    "ViT without behaviour": ("ViT", BLIND),
    "ViT": ("ViT", {}),
    "V1T": ("V1T", {}),
    "V1T, crop 0.8": ("V1T", {"crop_scale": 0.8}),
    "V1T, unfold, lsa": tokens("unfold", "lsa"),
    "V1T, conv, standard": tokens("conv", "standard"),
    "V1T, conv, lsa": tokens("conv", "lsa"),
    "V1T, spt, standard": tokens("spt", "standard"),
    "V1T, spt, lsa": tokens("spt", "lsa"),
    "V1T, cct, standard": tokens("cct", "standard", embed_dim=160),
    "V1T, cct, lsa": tokens("cct", "lsa", embed_dim=160),
    "V1T, B-MLP in first block": ("V1T", {"behavior_mode": "b_mlp_first_block"}),
    "V1T, B-MLP shared": ("V1T", {"behavior_mode": "b_mlp_shared"}),
    "V1T, B-MLP per animal": ("V1T", {"behavior_mode": "b_mlp_per_mouse"}),
}


class TestExperiments:
    """Every row: the models' parameters, and which trials of which mice they see when."""

    def whole(self, recordings, tmp_path, dataset="S", **options):
        return paper(recordings, tmp_path, dataset, quick=False, **options)

    def test_rows_are_those_of_the_tables(self, recordings, tmp_path):
        for dataset, n in (("S", 26), ("F", 21)):
            names = [job.name for job in self.whole(recordings, tmp_path, dataset).jobs()]
            assert len(names) == len(set(names)) == n
        assert {*names} - {*ROWS} == {
            *("CNN ensemble", "ViT ensemble", "V1T ensemble"),
            *("CNN, leave one out", "V1T, leave one out"),
        }

    def test_the_recipe_is_that_of_the_rows_without_more_words(self):
        _, params = published("V1T", 0)
        expected = {"tokenizer": "unfold", "attention": "standard", "embed_dim": 155}
        expected |= {"behavior_mode": "auto", "shift": "readout", "crop_scale": 1.0}
        assert {name: params[name] for name in expected} == expected

    @pytest.mark.parametrize("row", ROWS)
    def test_single_models(self, recordings, tmp_path, recorder, row):
        scores = job_of(self.whole(recordings, tmp_path), row).run(3)
        kind, params = ROWS[row]
        (fit,) = recorder.verbs("fit", "transfer")
        assert (type(fit.model), fit.model.get_params()) == published(kind, 3, **params)
        assert (fit.verb, fit.mice, fit.tiers) == ("fit", ["A", "B"], {"train"})
        assert fit.validation == (["A", "B"], {"validation"})
        tested = recorder.verbs("predict", "score")
        assert [(call.verb, call.model, call.mice, call.tiers) for call in tested] == [
            ("predict", fit.model, [mouse], {"test"}) for mouse in "AB"
        ]
        assert [(s["model"], s["mouse"], s["metric"]) for s in scores] == [
            (row, mouse, metric) for mouse in "AB" for metric in (SINGLE, AVERAGE)
        ]
        assert {(s["epochs"], s["seconds"]) for s in scores} == {(2, 0.5)}

    def test_the_pupil_may_move_the_readout_without_behaviour(self, recordings, tmp_path, recorder):
        this = self.whole(recordings, tmp_path, shift_without_behavior="readout")
        job_of(this, "ViT without behaviour").run(0)
        model = recorder.calls[0].model
        assert (model.behavior_mode, model.shift) == ("none", "readout")

    def test_the_default_recipe_has_our_defaults(self, recordings, tmp_path, recorder):
        job_of(self.whole(recordings, tmp_path, recipe="default"), "V1T, crop 0.8").run(1)
        expected = v1.V1TRegressor(crop_scale=0.8, random_state=1, device="cpu")
        assert recorder.calls[0].model.get_params() == expected.get_params()

    @pytest.mark.parametrize("kind", ["CNN", "V1T"])
    def test_leaving_one_out(self, recordings, tmp_path, recorder, kind):
        scores = job_of(self.whole(recordings, tmp_path), f"{kind}, leave one out").run(2)
        trained = recorder.verbs("fit", "transfer")
        assert [(call.verb, call.mice) for call in trained] == [
            *[("fit", ["A"]), ("fit", ["B"]), ("transfer", ["A"])],
            *[("fit", ["B"]), ("fit", ["A"]), ("transfer", ["B"])],
        ]
        for call in trained:
            assert (type(call.model), call.model.get_params()) == published(kind, 2)
            assert (call.tiers, call.validation) == ({"train"}, (call.mice, {"validation"}))
        for _, core, transfer in (trained[:3], trained[3:]):
            assert transfer.core is core.model
            assert transfer.frozen
        tested = recorder.verbs("predict", "score")
        models = [trained[i].model for i in (0, 2, 3, 5)]
        for call, model, mouse in zip(tested, models, "AABB", strict=True):
            assert (call.model, call.mice, call.tiers) == (model, [mouse], {"test"})
        singles = [s for s in scores if s["metric"] == SINGLE]
        assert [(s["model"], s["mouse"], s["epochs"], s["seconds"]) for s in singles] == [
            (f"{kind}, {way}", mouse, *cost)
            for mouse in "AB"
            # one epoch of fitting for every mouse, seven of transfer
            for way, cost in (("direct", (2, 0.5)), ("transfer", (16, 140.5)))
        ]

    @pytest.mark.parametrize("kind", ["CNN", "V1T"])
    def test_the_core_of_f(self, recordings, tmp_path, recorder, kind):
        scores = job_of(self.whole(recordings, tmp_path), f"{kind}, core of F").run(2)
        core, transfer = recorder.verbs("fit", "transfer")
        assert (core.verb, core.mice, core.tiers) == ("fit", ["F", "G"], {"train"})
        assert core.validation == (["F", "G"], {"validation"})
        train = recordings["F"]["F"]["tier"].values == "train"
        two_colours = recordings["F"]["F"]["stimuli"].values[train][0].astype(float)
        np.testing.assert_allclose(core.first_image, two_colours.mean(axis=0)[None], atol=1e-4)
        assert (transfer.verb, transfer.mice) == ("transfer", ["A", "B"])
        assert (transfer.tiers, transfer.validation) == ({"train"}, (["A", "B"], {"validation"}))
        assert transfer.core is core.model
        assert transfer.frozen
        for call in (core, transfer):
            assert (type(call.model), call.model.get_params()) == published(kind, 2)
        tested = recorder.verbs("predict", "score")
        assert [(call.model, call.mice, call.tiers) for call in tested] == [
            (transfer.model, [mouse], {"test"}) for mouse in "AB"
        ]
        assert {(s["epochs"], s["seconds"]) for s in scores} == {(9, 70.5)}

    @pytest.mark.parametrize("kind", ["CNN", "ViT", "V1T"])
    def test_ensembles(self, recordings, tmp_path, recorder, kind):
        recorder.validation_scores = [0.1, 0.5, 0.3, np.nan, 0.9, 0.2, 0.8, 0.4, 0.0, 0.7]
        scores = job_of(self.whole(recordings, tmp_path), f"{kind} ensemble").run(0)
        fits = recorder.verbs("fit", "transfer")
        for seed, call in zip(range(10), fits, strict=True):
            assert (type(call.model), call.model.get_params()) == published(kind, seed)
            assert (call.verb, call.mice, call.tiers) == ("fit", ["A", "B"], {"train"})
            assert call.validation == (["A", "B"], {"validation"})
        chosen = recorder.verbs("score")
        assert [call.model.random_state for call in chosen] == list(range(10))
        assert all((call.mice, call.tiers) == (["A", "B"], {"validation"}) for call in chosen)
        assert recorder.members == [4, 6, 9, 1, 7]
        tested = recorder.verbs("predict")
        assert [(call.mice, call.tiers) for call in tested] == [([m], {"test"}) for m in "AB"]
        assert {(s["epochs"], s["seconds"]) for s in scores} == {(20, 5.0)}

    @pytest.mark.parametrize(("mouse", "params"), [("S0", BLIND), ("S1", {})])
    def test_competition_mice(self, recordings, tmp_path, recorder, mouse, params):
        scores = job_of(self.whole(recordings, tmp_path), f"V1T, competition {mouse}").run(0)
        assert scores == []
        (fit,) = recorder.verbs("fit", "transfer")
        assert (type(fit.model), fit.model.get_params()) == published("V1T", 0, **params)
        assert (fit.mice, fit.tiers) == (["A", "B", mouse], {"train"})
        assert fit.validation == (["A", "B", mouse], {"validation"})
        tested = recorder.verbs("predict", "score")
        assert [(call.verb, call.mice, call.tiers) for call in tested] == [
            ("predict", [mouse], {"test"}),
            ("predict", [mouse], {"final_test"}),
        ]

    def test_every_fit_has_its_own_place(self, recordings, tmp_path, recorder):
        recorder.validation_scores = [0.0] * 10
        this = self.whole(recordings, tmp_path)
        for job in this.jobs():
            if not job.one_seed:  # a candidate is the single model of that seed
                job.run(0)
        # 17 single models, 3 for each of 2 mice and 2 kinds, 2 for 2 kinds, 2 of the competition
        assert len(recorder.saved) == 17 + 12 + 4 + 2

    def test_data_set_f_has_its_own_mice(self, recordings, tmp_path, recorder):
        job_of(self.whole(recordings, tmp_path, "F"), "V1T").run(0)
        (fit,) = recorder.verbs("fit")
        assert (fit.mice, fit.first_image.shape) == (["F", "G"], (2, 36, 64))

    def test_one_mouse_leaves_none_out(self, recordings, tmp_path):
        one = {"S": {"A": recordings["S"]["A"]}, "F": recordings["F"]}
        this = paper(one, tmp_path, tables=["A.8", "A.9"])
        assert this.tables == ["A.9"]
        assert [job.name for job in this.jobs()] == ["CNN, core of F", "V1T, core of F"]

    def test_models_and_tables_can_be_chosen(self, recordings, tmp_path):
        jobs = paper(recordings, tmp_path, tables=["A.8", "A.9"], models=["CNN"]).jobs()
        assert [job.name for job in jobs] == ["CNN, leave one out", "CNN, core of F"]


class TestFailures:
    def main(self, folder, output, *arguments):
        """Run the script on the simulated recordings, and return how it exits."""
        if not output.exists():
            shutil.copytree(folder, output)
        arguments = ["--quick", "--output", str(output), *arguments]
        return paper_jobs.main("S", "A script.", arguments)

    def test_others_go_on_and_the_next_run_tries_again(self, folder, tmp_path, recorder, capsys):
        recorder.breaks = lambda model: isinstance(model, v1.LNRegressor)
        recorder.validation_scores = [0.0] * 3
        output, arguments = tmp_path / "out", ["--tables", "1", "--models", "LN", "CNN"]
        with pytest.raises(SystemExit) as exit:
            self.main(folder, output, *arguments)
        assert "tried again by the same command:\nLN, seed 0: NonFinite" in str(exit.value)
        failed = json.loads((output / "jobs" / "ln-seed0.json").read_text())
        assert re.match(r"NonFiniteLossError: the loss of mouse 'A' is not", failed["failed"])
        assert failed["scores"] == []
        printed = capsys.readouterr().out
        assert "[2/4] CNN without behaviour, seed 0 ..." in printed
        assert "| CNN ensemble | 1.000 | 1.000 | 1.000 | 0.404 | - |" in printed
        assert "| LN | - | - | - | 0.275 | - |" in printed

        recorder.breaks = None
        recorder.calls.clear()
        self.main(folder, output, *arguments)
        assert [type(call.model) for call in recorder.verbs("fit")] == [v1.LNRegressor]
        assert "failed" not in json.loads((output / "jobs" / "ln-seed0.json").read_text())
        printed = capsys.readouterr().out
        assert printed.count("finished before") == 3
        assert "| LN | 1.000 | 1.000 | 1.000 | 0.275 | - |" in printed

    def test_wrong_values_fail_a_row_but_bugs_are_not_hidden(self, recordings, tmp_path, recorder):
        recorder.breaks = Mock(side_effect=[ValueError("neuron 3"), KeyError])
        this = paper(recordings, tmp_path, tables=["1"], models=["LN"])
        assert paper_jobs.run(this) == ["LN, seed 0: ValueError: neuron 3"]
        with pytest.raises(KeyError):
            paper_jobs.run(this)

    def test_candidates_that_fail_are_left_out(self, recordings, tmp_path, recorder, capsys):
        recorder.breaks = lambda model: model.random_state == 1
        recorder.validation_scores = [0.1, 0.9, 0.2]
        paper(recordings, tmp_path).ensemble("CNN").run(0)
        assert recorder.members == [2, 0]
        assert "left out: the loss of mouse 'A'" in capsys.readouterr().out

    def test_too_few_candidates_are_a_failure(self, recordings, tmp_path, recorder):
        recorder.breaks = lambda model: model.random_state > 0
        with pytest.raises(FloatingPointError, match=r"1 of 3 .*, 2 are needed.*mouse 'A'"):
            paper(recordings, tmp_path).ensemble("CNN").run(0)

    def test_one_mouse_is_told_that_none_can_be_left_out(self, folder, tmp_path, recorder, capsys):
        shutil.copytree(folder, tmp_path / "out")
        for path in (tmp_path / "out" / "simulated_s").glob("static2[237]*"):
            path.unlink()  # B, S1
        arguments = ["--tables", "A.8", "A.9", "--models", "CNN"]
        self.main(folder, tmp_path / "out", *arguments)
        printed = capsys.readouterr().out
        assert "Table A.8 is left out: it needs two mice or more" in printed
        assert "[1/1] CNN, core of F" in printed
        assert "from mice F, G of data set F" in printed


class TestGoingOn:
    def test_mice_of_f_stay_named_where_they_are_not_given_again(
        self, recordings, tmp_path, recorder
    ):
        paper_jobs.run(paper(recordings, tmp_path, tables=["A.9"], models=["CNN"]))
        without = {**recordings, "F": {}}
        paper_jobs.run(paper(without, tmp_path, tables=["1"], models=["LN"]))
        assert "from mice F, G of data set F" in (tmp_path / "tables.md").read_text()

    def test_fewer_seeds_later_leave_the_spread_explained(self, recordings, tmp_path, recorder):
        options = {"tables": ["1"], "models": ["LN"]}
        for seeds, explained in ((1, 0), (3, 1), (1, 1)):
            paper_jobs.run(paper(recordings, tmp_path, seeds=seeds, **options))
            text = (tmp_path / "tables.md").read_text()
            assert text.count("over up to 3 seeds, ± their standard deviation") == explained
            assert ("1.000 ± 0.000" in text) == explained

    def test_a_fitted_model_is_kept_and_scored_mouse_by_mouse(self, recordings, tmp_path):
        this = paper(recordings, tmp_path)
        scores = this.single("LN", "LN").run(0)
        assert this.single("LN", "LN").run(0) == scores  # loaded: seconds would differ
        model = v1.LNRegressor.load(tmp_path / "models" / "ln-seed0", device="cpu")
        test = this.trials.sel(tier="test")
        for mouse in "AB":
            of_mouse = test.sel(mouse_id=mouse)
            answer = model.predict(of_mouse)
            got = {s["metric"]: s["value"] for s in scores if s["mouse"] == mouse}
            assert got == {
                SINGLE: single_trial_correlation(of_mouse.responses, answer),
                AVERAGE: average_correlation(of_mouse.responses, answer),
            }
        seconds = sum(record["seconds"] for record in model.history_)
        assert {(s["epochs"], s["seconds"]) for s in scores} == {(3, seconds)}


# -- with training ------------------------------------------------------------------------------


def test_leave_one_out_is_that_of_the_package(recordings, tmp_path):
    this = paper(recordings, tmp_path)
    scores = this.leave_one_out("CNN").run(0)
    frame = leave_one_mouse_out(this.make("CNN", 0), this.trials)
    ours = {(s["mouse"], s["model"]): s["value"] for s in scores if s["metric"] == SINGLE}
    theirs = {(row.mouse, f"CNN, {row.training}"): row.correlation for row in frame.itertuples()}
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_an_ensemble_of_kept_models_is_one_that_was_fitted(recordings, tmp_path):
    this = paper(recordings, tmp_path)
    train, validation, test = (this.trials.sel(tier=t) for t in ("train", "validation", "test"))
    fitted = v1.EnsembleRegressor(this.make("CNN", 0), 3, 2, random_state=0)
    fitted.fit(train, validation=validation)
    make = this.make
    this.make = lambda kind, number: make(kind, fitted.seeds_[number])
    scores = this.ensemble("CNN").run(0)
    # single models and ensembles of other members score otherwise
    assert fitted.members_.tolist() != [0, 1]
    for score in scores:
        of_mouse = test.sel(mouse_id=score["mouse"])
        metric = {SINGLE: single_trial_correlation, AVERAGE: average_correlation}[score["metric"]]
        value = metric(of_mouse.responses, fitted.predict(of_mouse))
        assert score["value"] == pytest.approx(value, abs=1e-6)
        for member in fitted.estimators_:
            assert abs(score["value"] - metric(of_mouse.responses, member.predict(of_mouse))) > 1e-5


@pytest.mark.parametrize("kind", ["CNN", "V1T"])
def test_the_core_of_f_stays_as_it_is(recordings, tmp_path, kind):
    paper(recordings, tmp_path).core_of_f(kind).run(0)
    cls = {"CNN": v1.CNNRegressor, "V1T": v1.V1TRegressor}[kind]
    names = (f"{kind.lower()}-{name}-seed0" for name in ("gray-f", "core-of-f"))
    core, model = (cls.load(tmp_path / "models" / name, device="cpu") for name in names)
    assert (core.mice_, model.mice_) == (["F", "G"], ["A", "B"])
    assert core.image_shape_[0] == model.image_shape_[0] == 1
    assert (core.core_frozen_, model.core_frozen_) == (False, True)
    trained, kept = (m.module_.core.state_dict() for m in (core, model))
    assert trained.keys() == kept.keys()
    for name, weights in trained.items():
        assert np.array_equal(weights.numpy(), kept[name].numpy()), name
    assert model.n_iter_ > 0

"""What a report says of models of every kind, and what it says where there is nothing to say."""

import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from v1tlearn.inspection import attention_rollout, readout_positions, receptive_fields, report

SMALL = {"n_neurons": 2, "n_images": 1, "n_mice": 1, "n_bootstrap": 0, "n_repeats": 1}
SETTINGS = {"batch_size": 16, "max_epochs": 2, "random_state": 0, "device": "cpu"}
SECTIONS = ["Model", "Recordings", "Scores", "Training", "Best and worst neurons"]
SECTIONS += ["Receptive fields", "Retinotopy", "Attention", "Behaviour", "How it was made"]


class Page(HTMLParser):
    """What is in a page: text by section, cells by table row, tags with their attributes."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.tags, self.rows, self.section = {}, [], [], "head"
        self.in_cell = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "section":
            self.section = attrs["id"]
        if tag == "tr":
            self.rows.append((self.section, []))
        if tag in ("td", "th") and self.rows:
            self.rows[-1][1].append("")

        self.in_cell = tag in ("td", "th") or (tag == "b" and self.in_cell)

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.texts[self.section] = self.texts.get(self.section, "") + data
        if self.in_cell:
            self.rows[-1][1][-1] += data

    def images(self):
        return [attrs for tag, attrs in self.tags if tag == "img"]

    def table(self, section):
        return {row[0]: row[1:] for where, row in self.rows if where == section and row}


def titles(made):
    return re.findall("<h2>(.*?)</h2>", made.html)


@pytest.fixture(scope="module")
def trials(recordings):
    return v1.Trials(recordings)


@pytest.fixture(scope="module")
def made(models, trials, plt):
    return report(models["CNN"], trials, **SMALL | {"n_bootstrap": 20})


@pytest.fixture(scope="module")
def page(made):
    return Page(made.html)


def test_a_page_has_a_section_for_everything_and_links_to_it(made, page):
    assert titles(made) == SECTIONS
    links = [
        attrs["href"][1:] for tag, attrs in page.tags if tag == "a" and "#" in attrs.get("href", "")
    ]
    ids = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert links[: len(ids)] == ids


def test_it_tells_what_was_fitted_and_on_what(models, trials, page):
    model = page.table("model")
    assert model["class"] == ["CNNRegressor"]
    assert model["neurons"] == ["A: 4; B: 3"]
    n_weights = sum(p.numel() for p in models["CNN"].module_.parameters())
    assert model["weights"] == [f"{n_weights:,}"]
    assert "crop_scale" in page.texts["model"]  # scikit-learn's table
    heads, *_ = (row for where, row in page.rows if where == "recordings")
    rows = page.table("recordings")
    for mouse in trials.mice:
        told = dict(zip(heads[1:], rows[mouse], strict=True))
        own = trials.sel(mouse_id=mouse)
        assert int(told["neurons"]) == trials.n_neurons[mouse]
        assert int(told["trials"]) == len(own)
        assert int(told["test"]) == (own.tiers == "test").sum()
        assert int(told["images"]) == len(np.unique(own.image_ids))
        assert told["behaviour"].split(", ") == trials.behavior_names(mouse)
    assert heads.index("train") < heads.index("validation") < heads.index("test")
    assert "of the tier test" in page.texts["recordings"]


def test_scores_and_ceilings_are_those_of_the_test_tier(models, test_trials, page):
    scores = v1.score_table({"CNN": models["CNN"]}, test_trials, ceilings=True, n_bootstrap=20)
    one = scores[(scores["mouse"] == "B") & (scores["metric"] == "average_correlation")]
    value, low, high, ceiling = one[["value", "low", "high", "ceiling"]].iloc[0]
    told = page.table("scores")["B, CNN"][1].replace("−", "-")
    assert told == f"{value:.3f} ({low:.3f} to {high:.3f}) / {ceiling:.3f}"
    found = v1.noise_ceiling(test_trials, n_bootstrap=0, multioutput="mice")
    ceiling = float(found["single_trial_ceiling"].sel(mouse="A", estimate="value"))
    assert page.table("scores")["A"][0].startswith(f"{ceiling:.3f} (")


def test_best_and_worst_neurons_are_the_best_and_the_worst(models, test_trials, page):
    predicted = models["CNN"].predict(test_trials)
    found = v1.metrics.single_trial_correlation(
        test_trials.responses, predicted, multioutput="raw_values"
    ).sel(mouse="A")
    ranks = {row[0]: unit for unit, row in page.table("neurons").items()}
    assert ranks["best 1"] == str(found["neuron"].values[found.values.argmax()])
    assert ranks["worst 1"] == str(found["neuron"].values[found.values.argmin()])


def test_every_picture_says_what_it_shows_and_is_part_of_the_page(page):
    assert len(page.images()) == 7
    for attrs in page.images():
        assert len(attrs["alt"]) > 20
        assert attrs["src"].startswith("data:image/png;base64,")


def test_nothing_is_loaded_and_no_script_runs(made, page):
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for _, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")]
        assert not set(attrs) & {"srcset", "data", "action", "background", "poster"}
    style = "".join(re.findall("<style>(.*?)</style>", made.html, flags=re.DOTALL))
    assert "@import" not in style
    assert all(url.strip("'\"").startswith("data:") for url in re.findall(r"url\((.*?)\)", style))
    assert "default-src 'none'" in made.html


def test_what_has_no_meaning_is_named_in_the_words_of_the_analysis(models, test_trials, made, page):
    with pytest.raises(TypeError) as error:
        attention_rollout(models["CNN"], test_trials)
    assert made.absent == {"attention": str(error.value)}
    assert str(error.value) in page.texts["attention"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_page(models, trials, made):
    again = report(models["CNN"], trials, **SMALL | {"n_bootstrap": 20})
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d UTC"
    assert re.sub(date, "", again.html) == re.sub(date, "", made.html)


@pytest.mark.slow
def test_all_trials_are_scored_where_none_is_of_the_test_tier(models, trials, plt):
    train = trials.sel(tier="train")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = report(models["LN"], train, **SMALL)
    assert f"of {len(train)} trials of the tier train" in made.html
    assert "no image is repeated" in made.absent["noise ceilings of mouse A"]
    # what was warned of stands on the page, too
    told = [str(one.message) for one in caught if "no image is repeated" in str(one.message)]
    assert told
    assert all(text in Page(made.html).texts["scores"] for text in told)


@pytest.mark.slow
def test_transformers_show_attention_and_pipelines_are_taken(trials, plt):
    sizes = {"patch_size": 4, "patch_stride": 4, "n_blocks": 1, "n_heads": 2, "embed_dim": 8}
    model = v1.V1TRegressor(**sizes, mlp_dim=8, standardize=False, **SETTINGS)
    pipeline = make_pipeline(v1.TrialStandardizer(), model).fit(trials.sel(tier="train"))
    made = report(pipeline, trials, **SMALL)
    assert made.absent == {}
    assert "Attention rollout" in made.html


@pytest.mark.slow
def test_ensembles_show_where_their_first_member_looks(models, trials, plt):
    ensemble = v1.EnsembleRegressor.from_members([models["CNN"], models["CNN"]])
    made = report(ensemble, trials, **SMALL)
    assert list(made.absent) == ["attention"]
    assert "2 CNNRegressor; the first is told of" in made.html
    assert "Gradients of the predicted responses" in made.html


@pytest.mark.slow
def test_models_of_movies_show_traces_and_say_what_images_alone_have(plt):
    recordings = v1.make_movie_recordings(
        1, 5, 4, 2, 3, n_frames=(20, 30), image_shape=(8, 12), random_state=0
    )
    trials = v1.Trials(recordings)
    model = v1.MovieLNRegressor(n_lags=4, window_frames=12, max_epochs=1, random_state=0)
    made = report(model.fit(trials.sel(tier="train")), trials, **SMALL)
    page = Page(made.html)
    assert titles(made) == SECTIONS
    assert "responses over time" in made.html
    assert "frames per second" in page.texts["recordings"]
    told = made.absent.get("receptive fields")
    if told is not None:
        with pytest.raises(ValueError, match=re.escape(told)):
            receptive_fields(model, method="gradient")
    assert "has no attention" in made.absent["attention"]


def test_alignments_show_what_they_find(trials, plt):
    aligner = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    aligner.fit(trials.sel(tier="train"))
    made = report(aligner, trials, **SMALL)
    page = Page(made.html)
    own = trials.sel(tier="test", mouse_id="A")
    assert page.table("retrieval")["A"][0] == f"{aligner.score(own):.3f}"
    assert page.table("retrieval")["A"][1] == f"{1 / 5:.3f}"
    with pytest.raises(TypeError) as error:
        readout_positions(aligner)
    assert made.absent["retinotopy"] == str(error.value)
    assert "Poisson" not in made.html


@pytest.mark.slow
def test_faults_are_raised_rather_than_told_as_a_reason(trials, plt):
    model = v1.EncodingRegressor(core=Broken, **SETTINGS).fit(trials.sel(tier="train"))
    model.module_.core.fault = ValueError("a fault")
    with pytest.raises(ValueError, match="a fault"):
        report(model, trials, **SMALL)
    model.module_.core.fault = "broadcasting"  # numpy's own error, which is a ValueError
    with pytest.raises(ValueError, match="broadcast"):
        report(model, trials, **SMALL)


class Broken(v1.nn.Core):
    """Pixels as features, and attention that fails."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        self.grid = self.input_shape[1:]
        self.output_shape = (1, *self.grid)
        self.fault = None
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images, behaviors=None, sizes=None):
        """Feature maps (B, 1, h, w)."""
        return self.weight * images[:, :1]

    def attention_by_block(self, images, behaviors=None, sizes=None):
        """Fail."""
        if self.fault == "broadcasting":
            yield np.zeros(2) + np.zeros(3)
        raise self.fault


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_neurons": 0}, "n_neurons"),
        ({"n_mice": 1.5}, "n_mice"),
        ({"n_bootstrap": -1}, "n_bootstrap"),
        ({"random_state": "now"}, "random_state|seed"),
    ],
)
def test_options_out_of_range_are_refused(models, trials, change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        report(models["LN"], trials, **SMALL | change)


def test_what_is_no_fitted_model_is_refused(models, trials):
    with pytest.raises(NotFittedError):
        report(v1.CNNRegressor(), trials)
    with pytest.raises(NotFittedError):
        report(v1.DINAAligner(), trials)
    with pytest.raises(TypeError, match="expected a fitted estimator"):
        report("a model", trials)
    with pytest.raises(TypeError, match="expected Trials"):
        report(models["LN"], np.zeros(3))

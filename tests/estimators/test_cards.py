"""Cards of saved models: what they tell, and when they go."""

import hashlib
import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1
from tests.kept_files import made_recordings, unfitted
from v1tlearn.tracking import RunFolder


@pytest.fixture(scope="module")
def trials():
    made = v1.make_v1_recordings(
        n_mice=2, n_neurons=(3, 4), n_trials=24, n_test_images=2, n_repeats=3,
        image_shape=(16, 24), random_state=0,
    )  # fmt: skip
    return v1.Trials(made)


def small(**params):
    sizes = {"n_layers": 1, "hidden_channels": 2, "input_kernel": 5, "max_epochs": 1}
    return v1.CNNRegressor(**sizes, device="cpu", random_state=0, **params)


@pytest.fixture(scope="module")
def model(trials):
    return small().fit(trials.sel(tier="train"))


def test_a_card_tells_data_scores_licence_files_and_versions(model, trials, tmp_path):
    scores = v1.score_table({"CNN": model}, trials.sel(tier="test"))
    card = {"title": "A | model", "licence": "CC-BY-4.0", "scores": scores, "description": "Small."}
    model.save(tmp_path / "m", card=card)
    text = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: v1tlearn\nlicense: CC-BY-4.0\n---\n\n# A | model\n")
    assert "\nSmall.\n" in text
    for mouse, n_neurons in (("A", 3), ("B", 4)):
        known = model.fitted_.trained_on[mouse]
        n_trials = len(trials.sel(tier="train", mouse_id=mouse))
        assert 0 < known["trials"] <= n_trials  # some validate
        assert f"| {mouse} | {known['trials']} | {n_neurons} | {known['hash']} |" in text
    assert "Stimuli of 1 × 16 × 24" in text
    assert "behaviour: pupil_dilation" in text
    (weights,) = (tmp_path / "m").glob("*.safetensors")
    assert f"| {weights.name} | {hashlib.sha256(weights.read_bytes()).hexdigest()} |" in text
    assert "| hidden_channels | `2` |" in text
    assert f"v1tlearn {v1.__version__}" in text
    row = scores.iloc[0]
    assert f"| CNN | A | {row['metric']} | {row['value']:.3f} |" in text
    loaded = v1.load(tmp_path / "m")
    test = trials.sel(tier="test")
    np.testing.assert_array_equal(loaded.predict(test)["A"], model.predict(test)["A"])


def test_the_fingerprint_is_that_of_the_data(trials, model, tmp_path):
    train = trials.sel(tier="train")
    again = small().fit(train).fitted_.trained_on
    assert again == model.fitted_.trained_on
    other = trials.recordings["A"].to_dataset().copy(deep=True)
    other["responses"] = other["responses"] * 2
    doubled = v1.Trials({"A": other, "B": trials.recordings["B"].to_dataset()}).sel(tier="train")
    found = small().fit(doubled).fitted_.trained_on
    assert found["A"]["hash"] != again["A"]["hash"]
    assert found["B"] == again["B"]
    model.save(tmp_path / "m")
    assert v1.load(tmp_path / "m").fitted_.trained_on == again


def test_without_a_card_the_card_of_an_earlier_model_goes(model, tmp_path):
    model.save(tmp_path / "m", card={})
    card = tmp_path / "m" / "README.md"
    assert "Licence: not told" in card.read_text(encoding="utf-8")
    model.save(tmp_path / "m")
    assert not card.exists()
    card.write_text("# Notes of my own\n")
    model.save(tmp_path / "m")
    assert card.read_text() == "# Notes of my own\n"


def test_scores_may_be_a_dict_and_ensembles_have_cards(trials, tmp_path):
    ensemble = v1.EnsembleRegressor(small(), n_candidates=2, n_members=2, random_state=0)
    ensemble.fit(trials.sel(tier="train"))
    ensemble.save(tmp_path / "m", card={"scores": {"correlation": 0.12345}})
    text = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "| correlation | 0.123 |" in text
    assert f"| A | {ensemble.estimators_[0].fitted_.trained_on['A']['trials']} | 3 |" in text


def rows_of_scores(model, folder, scores):
    """Cells of the table of scores in the card of a model."""
    model.save(folder, card={"scores": scores})
    text = (folder / "README.md").read_text(encoding="utf-8")
    lines = text.partition("## Scores\n\n")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_scores_keep_the_labels_of_their_rows(model, tmp_path):
    scores = pd.DataFrame(
        {"model": "CNN", "mouse": ["A", "B"], "metric": "feve", "value": [0.25, 0.5]}
    )
    wide = scores.pivot(index="mouse", columns="metric", values="value")
    nested = scores.set_index(["model", "mouse"])
    labelled = pd.DataFrame({"feve": [0.25, 0.5]}, index=["A", "B"])
    head = ["---", "---"]
    found = rows_of_scores(model, tmp_path / "a", wide)
    assert found == [["mouse", "feve"], head, ["A", "0.250"], ["B", "0.500"]]
    found = rows_of_scores(model, tmp_path / "b", nested)
    assert (found[0], found[2]) == (
        ["model", "mouse", "metric", "value"], ["CNN", "A", "feve", "0.250"],
    )  # fmt: skip
    found = rows_of_scores(model, tmp_path / "c", labelled)
    assert found == [["", "feve"], head, ["A", "0.250"], ["B", "0.500"]]
    assert rows_of_scores(model, tmp_path / "d", scores)[2] == ["CNN", "A", "feve", "0.250"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((1e-7, "1e-07"), (-0.00123456, "-0.00123"), (0.0, "0.000"), (0.5, "0.500")),
        *((0.01, "0.010"), (12.0, "12.000"), (np.float32(0.25), "0.250"), (3, "3")),
    ],
)
def test_small_scores_are_not_shown_as_nothing(model, tmp_path, value, shown):
    assert rows_of_scores(model, tmp_path / "m", {"loss": value})[2] == ["loss", shown]


@pytest.fixture(scope="module")
def recordings():
    return made_recordings()


KINDS = [(data, one) for data, kinds in unfitted().items() for one in kinds]


@pytest.mark.filterwarnings("ignore:mouse 'B'")  # of 15 trials little can be learned
@pytest.mark.parametrize(("data", "estimator"), KINDS, ids=[type(one).__name__ for _, one in KINDS])
def test_cards_of_every_kind_of_model_tell_all(data, estimator, recordings, tmp_path):
    train = v1.Trials(recordings[data]).sel(tier="train")
    model = clone(estimator).fit(train)
    card = {"licence": "CC0-1.0", "scores": {"correlation": 0.25}}
    model.save(tmp_path / "m", card=card)
    v1.load(tmp_path / "m", device="cpu").save(tmp_path / "again", card=card)
    for folder in (tmp_path / "m", tmp_path / "again"):
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert f"# {type(model).__name__} of v1tlearn" in text
        assert "not told" not in text.lower()
        for mouse, n_neurons in train.n_neurons.items():
            assert re.search(rf"\| {mouse} \| \d+ \| {n_neurons} \| [0-9a-f]{{16}} \|", text)
        shape = train.recordings[train.mice[0]]["stimuli"].shape[-3:]
        assert f"Stimuli of {shape[0]} × {shape[1]} × {shape[2]}" in text
        assert ("movies of 30 frames per second" in text) == (data == "movies")
        assert "| correlation | 0.250 |" in text
        assert "Licence: CC0-1.0." in text
        for weights in folder.glob("*.safetensors"):
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
            assert f"| {weights.name} | {digest} |" in text


def test_transferred_and_searched_models_tell_what_they_saw_last(trials, model, tmp_path):
    train = trials.sel(tier="train")
    moved = model.transfer(train.sel(mouse_id="B"))
    search = GridSearchCV(small(), {"lr": [0.01]}, cv=GroupKFold(2))
    search.fit(train, groups=train.image_ids)
    for name, one, mice in (("t", moved, "B"), ("s", search.best_estimator_, "AB")):
        one.save(tmp_path / name, card={})
        text = (tmp_path / name / "README.md").read_text(encoding="utf-8")
        for mouse in "AB":
            assert (f"| {mouse} | " in text) == (mouse in mice)


def told_of(trials, folder):
    """The fingerprints that a run folder notes."""
    with RunFolder(folder, small(), trials):
        noted = json.loads((folder / "run.json").read_text())["recordings"]
    return {mouse: one.rpartition(" hash ")[2] for mouse, one in noted.items()}


def test_cards_and_run_folders_have_one_fingerprint(trials, tmp_path):
    train = trials.sel(tier="train")
    model = small(validation_fraction=0).fit(train)
    noted = {mouse: one["hash"] for mouse, one in model.fitted_.trained_on.items()}
    assert told_of(train, tmp_path / "run") == noted


def test_the_fingerprint_does_not_depend_on_where_data_are(trials, recordings, tmp_path):
    for name, tree in (("images", trials.recordings), ("movies", recordings["movies"])):
        v1.save_recordings(tree, tmp_path / f"{name}.nc")
        v1.save_recordings(tree, tmp_path / f"{name}-plain.nc", compression=None)
        told = told_of(v1.Trials(tree), tmp_path / name)
        for stored in (f"{name}.nc", f"{name}-plain.nc"):
            assert told_of(v1.Trials.open(tmp_path / stored), tmp_path / f"run-{stored}") == told
        copies = {mouse: node.to_dataset().copy(deep=True) for mouse, node in tree.children.items()}
        assert told_of(v1.Trials(copies), tmp_path / f"{name}-copies") == told


def changed(dataset, what):
    """A copy that differs in one place, at the end."""
    made = dataset.load().copy(deep=True)
    if what in ("stimuli", "responses", "behaviors"):
        value = made[what].values
        value.flat[-1] = 7 if value.flat[-1] != 7 else 8
        return made
    if what == "order":
        n = made.sizes["trial"]
        return made.isel(trial=[1, 0, *range(2, n)])
    if what == "behavior":
        return made.assign_coords(behavior=[*made["behavior"].values[:-1], "licks"])
    values = made[what].values.copy()
    values.flat[-1] = "test" if what == "tier" else values.max() + 1
    return made.assign_coords({what: (made[what].dims, values)})


@pytest.mark.parametrize(
    "what",
    ["stimuli", "responses", "behaviors", "order", "behavior", "tier", "image_id", "neuron",
     "position"],
)  # fmt: skip
def test_the_fingerprint_changes_with_whatever_changes(trials, tmp_path, what):
    of = {mouse: node.to_dataset() for mouse, node in trials.recordings.children.items()}
    told = told_of(v1.Trials(of), tmp_path / "a")
    now = told_of(v1.Trials(of | {"A": changed(of["A"], what)}), tmp_path / "b")
    assert now["A"] != told["A"]
    assert now["B"] == told["B"]


def test_models_without_that_knowledge_have_cards(model, tmp_path):
    from v1tlearn.estimators._fitted import from_tree, to_tree

    tree = to_tree(model.fitted_)
    del tree["trained_on"]  # as earlier versions wrote it
    assert from_tree(tree).trained_on is None


@pytest.mark.parametrize(
    ("card", "error", "said"),
    [
        ({"author": "me"}, ValueError, r"card is \['author'\]: expected a dict with any of title"),
        ("text", ValueError, "card is a str: expected a dict"),
        ({"licence": 3}, TypeError, "card: licence is a int, expected text"),
        ({"licence": "a\nb"}, ValueError, "licence and title are one line each"),
        ({"scores": [0.1]}, TypeError, "scores are a list, expected a table"),
    ],
)
def test_cards_that_say_something_else_are_refused_before_anything_is_written(
    model, tmp_path, card, error, said
):
    with pytest.raises(error, match=said):
        model.save(tmp_path / "m", card=card)
    assert not (tmp_path / "m").exists()


def test_what_safetensors_left_where_it_was_killed_is_no_obstacle_and_goes(model, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / ".tmpqqMYo2").write_bytes(b"half")
    model.save(tmp_path / "m")
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "m").iterdir())
    assert names == ["model.json", "tensors"]


@pytest.mark.parametrize(
    "licence",
    [
        *("no", "Off", "null", "1.0", "0BSD", "-", "---", "MIT", "CC-BY-4.0", 'a "b" \\ c'),
        *("#1", "a: b", "a\tb", "a\rb", "a\x85b", "a\u2028b", "µ 🧠", "C:\\terms"),
    ],
)
def test_licences_in_cards_are_read_as_text(model, tmp_path, licence):
    yaml = pytest.importorskip("yaml")
    model.save(tmp_path / "m", card={"licence": licence})
    head = (tmp_path / "m" / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    assert yaml.safe_load(head)["license"] == licence


def test_names_in_cards_are_no_markdown_and_no_html(model, tmp_path):
    name = "<script>x</script>[a](javascript:b)|`c`"
    model.save(tmp_path / "m", card={"scores": {name: 0.5}})
    text = (tmp_path / "m" / "README.md").read_text()
    row = r"| &lt;script&gt;x&lt;/script&gt;\[a\](javascript:b)\|\`c\` | 0.500 |"
    assert row in text.splitlines()

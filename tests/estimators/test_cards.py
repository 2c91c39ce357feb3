"""Cards of saved models: what they tell, and when they go."""

import hashlib

import numpy as np
import pytest

import v1tlearn as v1


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


def test_decoders_have_cards(trials, tmp_path):
    v1.RidgeDecoder().fit(trials.sel(tier="train")).save(tmp_path / "m", card={"licence": "MIT"})
    text = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "# RidgeDecoder of v1tlearn" in text
    assert "## Fitted on\n\nNot told." in text
    assert type(v1.load(tmp_path / "m")) is v1.RidgeDecoder


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

"""What a variable explains: all that a model knows from it, and nothing of others."""

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from tests.inspection.behavior.conftest import SMALL, Known
from v1tlearn.inspection import behavior_ablation, with_behavior
from v1tlearn.metrics import single_trial_correlation


@pytest.fixture(scope="module")
def only_speed(test):
    """Responses that are speed and some noise; a model of speed alone."""
    weights = {m: np.zeros((5, n)) for m, n in test.n_neurons.items()}
    for own in weights.values():
        own[2] = 0.5
    model = Known(weights)
    rng = np.random.default_rng(0)
    recordings = {}
    for mouse in test.mice:
        own = test[mouse].copy()
        rates = model.predict(test).get(mouse)
        noisy = rates + rng.normal(size=rates.shape) * rates.std() / 2
        recordings[mouse] = own.assign(responses=(own["responses"].dims, noisy.astype(np.float32)))
    return v1.Trials(recordings), model


@pytest.mark.slow
def test_what_the_model_knows_from_one_variable_is_found(only_speed):
    trials, model = only_speed
    found = behavior_ablation(model, trials, n_repeats=20)
    for own in found.values():
        assert own["variable"].values.tolist()[-1] == "all"
        explained = own["explained"].mean("neuron")
        whole = own["score"].mean().item()
        assert whole > 0.8
        # without speed there is chance: the mean of 20 permutations of 40 trials
        chance = 4 / np.sqrt(40 * 20)
        assert abs(explained.sel(variable="running_speed").item() - whole) < chance
        assert abs(explained.sel(variable="all").item() - whole) < chance
        others = explained.drop_sel(variable=["running_speed", "all"])
        assert (np.abs(others) < 1e-12).all()  # rounding of the mean over repeats
        assert own["score_without"].sizes["repeat"] == 20


def test_permutations_and_constants_by_hand(cnn, test):
    whole = single_trial_correlation(test.responses, cnn.predict(test), multioutput="raw_values")
    fixed = behavior_ablation(cnn, test, ["running_speed"], method={"running_speed": 2.0})
    changed = cnn.predict(with_behavior(test, {"running_speed": 2.0}))
    less = single_trial_correlation(test.responses, changed, multioutput="raw_values")
    for mouse, own in fixed.items():
        assert own["score_without"].sizes["repeat"] == 1
        np.testing.assert_allclose(own["score"], whole.sel(mouse=mouse))
        expected = whole.sel(mouse=mouse) - less.sel(mouse=mouse)
        np.testing.assert_allclose(own["explained"].sel(variable="running_speed"), expected)
    mean = behavior_ablation(cnn, test, ["running_speed"], method="mean")
    changed = cnn.predict(with_behavior(test, {"running_speed": "mean"}))
    less = single_trial_correlation(test.responses, changed, multioutput="raw_values")
    np.testing.assert_allclose(mean["B"]["score_without"][0, 0], less.sel(mouse="B"))


def test_columns_of_a_set_are_mixed_together(test):
    seen = []

    class Watching(Known):
        def predict(self, trials):
            seen.append({m: trials.get("behaviors", m).copy() for m in trials.mice})
            return super().predict(trials)

    model = Watching({m: np.ones((5, n)) for m, n in test.n_neurons.items()})
    behavior_ablation(model, test, {"eye": ["pupil_x", "pupil_y"]}, n_repeats=1)
    for mouse in test.mice:
        before, after = (one[mouse] for one in seen)
        np.testing.assert_array_equal(after[:, :3], before[:, :3])
        assert not np.array_equal(after[:, 3:], before[:, 3:])
        order = [np.flatnonzero((before[:, 3:] == row).all(1)).item() for row in after[:, 3:]]
        assert sorted(order) == list(range(len(before)))


def test_seed_decides(cnn, test):
    one, same, other = (
        behavior_ablation(cnn, test, ["pupil_x"], n_repeats=2, random_state=seed)["A"]
        for seed in (1, 1, 2)
    )
    xr.testing.assert_identical(one, same)
    assert not one["score_without"].equals(other["score_without"])


def test_errors_say_what_to_do(cnn, blind, known, test):
    with pytest.raises(ValueError, match=r"uses no behaviour .*shift='none'"):
        behavior_ablation(blind, test)
    with pytest.raises(ValueError, match="method='zero': expected one of"):
        behavior_ablation(cnn, test, method="zero")
    with pytest.raises(ValueError, match="method has no value of 'pupil_x'"):
        behavior_ablation(cnn, test, ["pupil_x"], method={"pupil_y": 0.0})
    with pytest.raises(ValueError, match=r"variables asks for \['eye'\]"):
        behavior_ablation(cnn, test, ["eye"])
    with pytest.raises(ValueError, match="expected at least one column in each"):
        behavior_ablation(cnn, test, {"eye": []})
    twice = test.sel(mouse_id="A")[[0, 0, 1, 2]]
    with pytest.raises(ValueError, match="some trials are there several times"):
        behavior_ablation(known, twice, ["pupil_x"])


@pytest.mark.parametrize("fewer", [0, 1])
def test_mice_with_other_columns_are_not_asked_about_all_of_them(trials, fewer):
    """Whichever comes first: "all" of one would be a part of the other's."""
    mice = list(trials.mice)
    recordings = {mouse: trials[mouse] for mouse in mice}
    recordings[mice[fewer]] = recordings[mice[fewer]].isel(behavior=[0, 1, 2])
    mixed = v1.Trials(recordings)
    model = v1.CNNRegressor(**SMALL).fit(mixed.sel(tier="train"))
    test = mixed.sel(tier="test")
    with pytest.raises(ValueError, match="other columns of behaviour"):
        behavior_ablation(model, test)
    named = behavior_ablation(model, test, ["running_speed"], method="mean")
    for mouse, own in named.items():
        alone = behavior_ablation(
            model, test.sel(mouse_id=mouse), ["running_speed"], method="mean"
        )[mouse]
        xr.testing.assert_allclose(own, alone)

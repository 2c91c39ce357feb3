"""A fitted model tells the gain by arousal, and the shift by the eye, that a mouse has in truth."""

import numpy as np
import pytest

import v1tlearn as v1
from v1tlearn.inspection import behavior_ablation, behavior_gain, readout_shifts

pytestmark = pytest.mark.slow
SEEDS = range(4)  # of which the mean counts, where one training is not enough
SPEEDS = {"low": 0.0, "high": 16.0}  # cm/s; tanh(speed / 8) is what the gain is of


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(
        v1.make_v1_recordings(
            n_mice=1, n_neurons=80, n_trials=900, n_test_images=40, n_repeats=6,
            image_shape=(18, 32), explainable_variance=0.4, random_state=0,
        )
    )  # fmt: skip


def fitted(trials, seed):
    size = {"n_layers": 2, "hidden_channels": 12, "input_kernel": 7, "hidden_kernel": 5}
    model = v1.CNNRegressor(**size, batch_size=32, max_epochs=15, device="cpu", random_state=seed)
    train, validation = (trials.sel(tier=tier) for tier in ("train", "validation"))
    return model.fit(train, validation=validation)


@pytest.fixture(scope="module")
def models(trials):
    return [fitted(trials, seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def model(models):
    return models[0]


def fitted_to_others(trials, seed):
    """The same model, trained on the behaviour of other trials."""
    own = trials["A"]
    order = np.random.default_rng(seed).permutation(len(trials))
    values = own["behaviors"].values[order]
    others = v1.Trials({"A": own.assign(behaviors=(own["behaviors"].dims, values))})
    return fitted(others, seed)


@pytest.fixture(scope="module")
def controls(trials):
    return [fitted_to_others(trials, seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def control(controls):
    return controls[0]


def gains(models, trials):
    test = trials.sel(tier="test")
    found = [behavior_gain(model, test, "running_speed", **SPEEDS)["A"] for model in models]
    return np.mean([gain["log_gain"].values for gain in found], 0)


def gains_without_a_model(trials):
    """Slopes of recorded responses over running and dilation: what noise lets anybody know."""
    train = trials.sel(tier="train")["A"]
    behaviors = train["behaviors"].values.astype(float)
    state = np.stack([np.tanh(behaviors[:, 2] / 8), behaviors[:, 0]], 1)
    design = np.c_[np.ones(len(state)), state - state.mean(0)]
    slopes = np.linalg.lstsq(design, train["responses"].values, rcond=None)[0]
    return np.tanh(2) * slopes[1] / slopes[0]


def test_sign_and_size_of_the_gain_by_running(trials, models, controls):
    true = np.tanh(2) * trials["A"]["running_gain"].values
    own, other = gains(models, trials), gains(controls, trials)
    noise = np.corrcoef(gains_without_a_model(trials), true)[0, 1]
    found, chance = (np.corrcoef(x, true)[0, 1] for x in (own, other))
    assert found > noise - 0.1 > 0.3 > abs(chance)
    clear = true > 0.2
    assert (own[clear] > 0).mean() > 0.9
    error = 4 * (own - true).std() / np.sqrt(len(true))
    assert abs(own.mean() - true.mean()) < error
    assert abs(other.mean() - true.mean()) > error
    assert abs(other.mean()) < error


def test_size_of_the_gain_by_dilation(trials, model, control):
    true = 2 * trials["A"]["dilation_gain"].values  # from one s.d. below to one above the middle
    limits = {"low": 25.0, "high": 39.0}
    test = trials.sel(tier="test")
    own, other = (
        behavior_gain(one, test, "pupil_dilation", **limits)["A"]["log_gain"].values
        for one in (model, control)
    )
    error = 4 * (own - true).std() / np.sqrt(len(true))
    assert abs(own.mean() - true.mean()) < error
    assert abs(other.mean()) < error < true.mean()


def eye_slopes(model, test):
    """Pixels that readouts move in x and y for each that the eye moves in x and y -> (2, 2)."""
    _, height, width = model.module_.core.output_shape
    half_sides = np.array([width - 1, height - 1]) / 2  # pixels: cells are one apart
    true = np.stack([test["A"][f"eye_shift_{axis}"].values for axis in "xy"], 1)
    learned = readout_shifts(model, test)["A"].values * half_sides
    design = np.c_[np.ones(len(true)), true]
    return np.linalg.lstsq(design, learned, rcond=None)[0][1:]  # (true, learned)


def test_direction_and_size_of_the_eye_shift(trials, models, controls):
    """The mean of all seeds, since one shifter moves some .25 pixels per pixel for nothing."""
    test = trials.sel(tier="test")
    own, other = (np.array([eye_slopes(one, test) for one in m]) for m in (models, controls))
    noise = 2 * np.sqrt(np.mean(other**2) / len(other))  # two standard errors of such a mean
    own, other = own.mean(0), other.mean(0)
    assert (np.abs(other) < 1.5 * noise).all()
    assert (np.diag(own) > 2 * noise).all()
    assert (np.diag(own) < 1.5).all()
    assert (np.abs(own[[0, 1], [1, 0]]) < np.diag(own) / 2).all()


def test_what_behavior_explains(trials, model, control):
    test = trials.sel(tier="test")
    sets = {"running": ["running_speed"], "eye": ["pupil_x", "pupil_y"]}
    sets |= {"derivative": ["pupil_dilation_derivative"]}  # which does nothing in these mice
    for name, one in (("model", model), ("control", control)):
        explained = behavior_ablation(one, test, sets, n_repeats=5)["A"]["explained"]
        mean = explained.mean("neuron")
        error = explained.std("neuron") / np.sqrt(explained.sizes["neuron"])
        for variable in ("running", "eye"):
            own, limit = mean.sel(variable=variable), 4 * error.sel(variable=variable)
            assert (own > limit) if name == "model" else (own < 0.01)
        assert abs(mean.sel(variable="derivative")) < 0.005

"""Data that are legal, and extreme: models are trained on them without NaN, or say why not."""

import re
from contextlib import nullcontext

import numpy as np
import pytest

import v1tlearn as v1
from tests.estimators.conftest import SMALL
from tests.sweeps import quick

NAMES = ("stimuli", "behaviors", "responses")
KINDS = list(SMALL)


@pytest.fixture
def parts(arrays):
    return [{m: np.array(v) for m, v in arrays[name].items()} for name in NAMES]


def changed(parts, name, change):
    """Arrays of which one is another, in each mouse."""
    return [
        {m: change(values) for m, values in part.items()} if name == known else part
        for known, part in zip(NAMES, parts, strict=True)
    ]


def assert_finite(model, parts):
    numbers = {m: np.arange(len(values)) for m, values in parts[0].items()}  # of images, all equal
    still = all((images == images.flat[0]).all() for images in parts[0].values())
    with pytest.warns(UserWarning, match="stimuli do not vary") if still else nullcontext():
        model.fit(*parts, image_ids=numbers)
    predictions = model.predict(*parts[:2])
    assert all(np.isfinite(values).all() for values in predictions.values())
    assert all(np.isfinite(record["loss"]) for record in model.history_)
    assert np.isfinite(model.score(*parts))
    return predictions


LEGAL = {
    "float16": ("responses", lambda v: v.astype(np.float16)),
    "whole": ("responses", lambda v: np.round(3 * v).astype(np.int64)),
    "one neuron": ("responses", lambda v: v[:, :1]),
    "constant neuron": ("responses", lambda v: np.c_[np.full(len(v), 1e8), v]),
    "on a pedestal": ("responses", lambda v: v + 1e5),
    "black": ("stimuli", np.zeros_like),
    "white": ("stimuli", lambda v: np.full_like(v, 255)),
    "float grey": ("stimuli", lambda v: np.full(v.shape, 0.1, np.float32)),
    "large images": ("stimuli", lambda v: 1e30 * v.astype(np.float32)),
    "large behaviour": ("behaviors", lambda v: 1e6 * v),
    "constant behaviour": ("behaviors", lambda v: np.full_like(v, 1e6)),
    "no behaviour": ("behaviors", np.zeros_like),
    "no pupil": ("behaviors", lambda v: np.c_[v[:, :3], np.full((len(v), 2), 150.0)]),
    "rounding": (
        "behaviors",
        lambda v: 3.7 * (1 + 2.3e-16 * (np.arange(v.size) % 2)).reshape(v.shape),
    ),
}


@pytest.mark.parametrize("case", LEGAL)
@pytest.mark.parametrize("kind", [v1.CNNRegressor])
def test_models_are_trained_on_what_is_extreme_but_legal(kind, case, small, parts):
    name, change = LEGAL[case]
    assert_finite(small(kind), changed(parts, name, change))


@pytest.mark.slow
@pytest.mark.parametrize("case", LEGAL)
@pytest.mark.parametrize("kind", [k for k in KINDS if k is not v1.CNNRegressor])
@pytest.mark.filterwarnings("ignore:mouse .* do not vary over the validation")
def test_other_models_too(kind, case, small, parts):
    name, change = LEGAL[case]
    assert_finite(small(kind), changed(parts, name, change))


@pytest.mark.parametrize("kind", quick(KINDS, 0, 5))
@pytest.mark.parametrize("batch_size", [1, 18])  # of 37 trials: the last batch has one
def test_a_batch_may_have_one_trial(kind, batch_size, small, parts):
    assert_finite(small(kind, batch_size=batch_size, max_epochs=1), parts)


@pytest.mark.parametrize("kind", [k for k in KINDS if k is not v1.MinimodelRegressor])
def test_bfloat16_takes_any_unit(kind, small, parts):
    units = {"A": 1e-8, "B": 1e8}
    scaled = {m: np.float64(units[m]) * values for m, values in parts[2].items()}
    assert_finite(small(kind, precision="bfloat16", max_epochs=1), [*parts[:2], scaled])


def test_mice_may_be_of_very_different_size_and_unit(small, parts):
    rng = np.random.default_rng(0)
    many = 1e-8 * rng.random((len(parts[2]["A"]), 20_000), dtype=np.float32)
    few = 1e8 * parts[2]["B"][:, :1].astype(float)
    found = assert_finite(small(max_epochs=1), [*parts[:2], {"A": many, "B": few}])
    assert 0 < found["A"].max() < 1e-7 < 1e5 < found["B"].max()


def test_nearly_all_responses_may_be_missing(small, parts):
    rng = np.random.default_rng(0)
    responses = {m: values.astype(np.float32) for m, values in parts[2].items()}
    for values in responses.values():
        values[rng.random(values.shape) < 0.8] = np.nan
    model = small(validation_fraction=0).fit(*parts[:2], responses)
    for values in model.predict(*parts[:2]).values():
        assert np.isfinite(values).all()


@pytest.mark.parametrize("kind", [v1.CNNRegressor, v1.FullModelRegressor])
def test_negative_responses_are_told_of_and_trained_on(kind, small, parts):
    with pytest.warns(UserWarning, match="responses are negative: of mouse 'A'"):
        assert_finite(small(kind), changed(parts, "responses", lambda v: v - v.mean(0)))


def test_constant_behaviour_means_the_same_in_any_unit(small, parts, equal):
    one, other = (
        assert_finite(small(), changed(parts, "behaviors", lambda v, u=u: np.full_like(v, u)))
        for u in (1, 1e6)
    )
    assert equal(one, other)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_responses_that_vary_by_rounding_only_do_not_vary(dtype, small, parts):
    unit = np.finfo(dtype).eps

    def rounding(values):
        odd = np.arange(values.size).reshape(values.shape) % 2
        return (0.1 * (1 + unit * odd)).astype(dtype)

    with pytest.raises(ValueError, match="'A': no neuron's responses vary over the 37 training"):
        small().fit(*changed(parts, "responses", rounding))


@pytest.mark.parametrize("unit", [1e-39, 1e-50, 1e-200])
def test_units_that_float32_cannot_hold_are_refused(unit, small, parts):
    with pytest.raises(ValueError, match="too small for float32: give them in a larger unit"):
        small().fit(*changed(parts, "responses", lambda v: unit * v.astype(float)))


def test_neurons_of_another_unit_than_others_are_told_of(small, parts, caplog):
    parts[2]["A"] = parts[2]["A"] * np.r_[1e10, np.ones(4)]
    small(max_epochs=1).fit(*parts)
    (told,) = (record for record in caplog.records if "vary by less than" in record.message)
    assert told.levelname == "WARNING"
    assert re.search("of 4 of 5 neurons vary by less than .*, others by up to", told.message)


def test_neurons_that_always_respond_alike_are_told_of(small, parts, caplog):
    parts[2]["A"][:, 1] = 3.0
    small(max_epochs=1).fit(*parts)
    (told,) = (record for record in caplog.records if "vary by less than" in record.message)
    assert re.search("'A': the responses of 1 of 5 neurons vary by less", told.message)


def test_validation_that_does_not_vary_is_told_of(small, trials, test_trials):
    still = test_trials[[0] * 4 + list(np.flatnonzero(test_trials.mouse_ids == "B"))]
    with pytest.warns(UserWarning, match="'A': no neuron's responses vary over the validation"):
        model = small(max_epochs=1).fit(trials, validation=still)
    assert np.isfinite(model.predict(trials).get("A")).all()

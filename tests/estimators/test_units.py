"""The unit of responses, behaviour and images changes no model: predictions follow it, scores stay.

A power of two changes no bit. Another number changes the rounding of responses, once.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

import v1tlearn as v1
from tests.backbones import DINOV2
from tests.estimators.conftest import SMALL
from tests.sweeps import quick

COMMON = {"batch_size": 16, "max_epochs": 2, "random_state": 0, "device": "cpu", "lr": 2e-3}
MOVIES = {"max_epochs": 2, "window_frames": 8, "random_state": 0, "device": "cpu"}


class Plain(v1.nn.Core):
    """A core of a user's own."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        self.output_shape = (2, *input_shape[1:])
        self.filters = torch.nn.Conv2d(input_shape[0], 2, 3, padding=1)

    def forward(self, images, behaviors=None, sizes=None):
        return self.filters(images)


# Where a bias comes ahead of batch normalisation its gradient is rounding alone, of which Adam
# makes whole steps: they change how fast running means settle.
UNBIASED = {v1.CNNRegressor: {"bias": False}, v1.LNRegressor: {"bias": False}}
OF_IMAGES = {
    kind.__name__: kind(**{**COMMON, **SMALL[kind], **UNBIASED.get(kind, {})}) for kind in SMALL
}
OF_IMAGES |= {
    "own core": v1.EncodingRegressor(Plain, **COMMON),
    "squares": v1.EncodingRegressor(Plain, loss="squared", **COMMON),
    "factorised": clone(OF_IMAGES["CNNRegressor"]).set_params(
        readout="factorized", space_init=0.3, channel_init=0.3
    ),
    "ensemble": v1.EnsembleRegressor(
        clone(OF_IMAGES["CNNRegressor"]), n_candidates=2, n_members=2, random_state=0
    ),
}
OF_MOVIES = {
    "MovieLNRegressor": v1.MovieLNRegressor(n_lags=5, **MOVIES),
    "MovieCNNRegressor": v1.MovieCNNRegressor(
        n_layers=2, hidden_channels=3, input_kernel=5, hidden_kernel=3, **MOVIES
    ),
    "ViSTRegressor": v1.ViSTRegressor(
        grid=4, n_layers=2, channels=6, kernels=((1, 5),), window_frames=40, batch_size=3,
        steps_per_epoch=2, max_epochs=1, warmup_epochs=0, random_state=0, device="cpu",
    ),
}  # fmt: skip
ALIGNER = v1.DINAAligner(
    map_size=(4, 6), map_channels=3, hidden_channels=4, n_layers=2, input_kernel=3, embed_dim=4,
    hidden_units=(12,), neural_channels=4, max_epochs=1, random_state=0, device="cpu",
    batch_size=16,
)  # fmt: skip


def in_units(trials, units, dtype=None):
    """Trials whose responses are multiplied, of each mouse by its own number."""
    out = {}
    for mouse, unit in zip(trials.mice, units, strict=True):
        recording = trials.recordings[mouse].to_dataset()
        values = recording["responses"].values
        known = [f"responses_{name}" for name in ("mean", "std")] + ["expected_responses"]
        out[mouse] = recording.drop_vars(known, errors="ignore").assign(
            responses=(
                recording["responses"].dims,
                (values * np.float64(unit)).astype(dtype or values.dtype),
            )
        )
    return v1.Trials(out)


@pytest.fixture(scope="module")
def recorded(trials):
    return no_smaller(trials)


def no_smaller(trials, least=1e-6):
    """Trials without responses that float32 holds in one unit, but not in another."""
    values = {m: np.fmax(trials.get("responses", m), least) for m in trials.mice}
    return v1.Trials(
        {
            m: (one := trials.recordings[m].to_dataset()).assign(
                responses=(one["responses"].dims, values[m])
            )
            for m in trials.mice
        }
    )


@pytest.fixture(scope="module")
def test_recorded(test_trials):
    return no_smaller(test_trials)


@pytest.fixture(scope="module")
def movies():
    return no_smaller(
        v1.Trials(
            v1.make_movie_recordings(
                2, [3, 4], 4, 2, 2, n_frames=(44, 50), image_shape=(8, 8), behavior=False,
                random_state=0,
            )
        )
    )  # fmt: skip


def fitted_in(model, train, test, units):
    """Predictions, back in the unit of the recordings, and score of a model fitted in others."""
    model = clone(model).fit(in_units(train, units))
    test = in_units(test, units)
    predictions = model.predict(test)
    return {
        mouse: predictions.get(mouse).astype(np.float64) / unit
        for mouse, unit in zip(test.mice, units, strict=True)
    }, model.score(test)


def assert_no_bit_differs(model, train, test, units):
    expected, score = fitted_in(model, train, test, (1, 1))
    found, other = fitted_in(model, train, test, units)
    for mouse in expected:
        np.testing.assert_array_equal(found[mouse], expected[mouse])
    assert other == score


@pytest.mark.parametrize("name", quick(OF_IMAGES, 0, 5))
def test_powers_of_two_change_no_bit(name, recorded, test_recorded):
    units = (2.0**-60, 2.0**60)
    assert_no_bit_differs(OF_IMAGES[name], recorded, test_recorded, units)


@pytest.mark.parametrize("name", quick(OF_MOVIES, 1))
def test_nor_do_they_over_time(name, movies):
    train, test = movies.sel(tier="train"), movies.sel(tier="test")
    assert_no_bit_differs(OF_MOVIES[name], train, test, (2.0**-27, 2.0**27))


def test_nor_of_pretrained_cores(views):
    model = v1.PretrainedViTRegressor(
        DINOV2, weights=None, block=1, lr=0.01, space_init=0.3, max_epochs=1, random_state=0,
        device="cpu",
    )  # fmt: skip
    train, test = (no_smaller(views.sel(tier=tier)) for tier in ("train", "test"))
    assert_no_bit_differs(model, train, test, (2.0**-27, 2.0**27))


@pytest.mark.parametrize("response_scale", ["minmax", "std"])
def test_nor_of_alignments(response_scale, recorded):
    model = clone(ALIGNER).set_params(response_scale=response_scale)
    one = clone(model).fit(recorded)
    other = clone(model).fit(in_units(recorded, (2.0**-60, 2.0**60)))
    weights = other.module_.state_dict()
    for name, weight in one.module_.state_dict().items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=0)
    assert one.history_[-1]["loss"] == other.history_[-1]["loss"]


@pytest.fixture(scope="module")
def in_their_unit(recorded, test_recorded):
    """Predictions and scores of models of responses as they were recorded."""
    return {name: fitted_in(OF_IMAGES[name], recorded, test_recorded, (1, 1)) for name in OF_IMAGES}


@pytest.mark.slow
@given(
    name=st.sampled_from(sorted(OF_IMAGES)),
    exponents=st.tuples(*[st.floats(-30, 30)] * 2),
    dtype=st.sampled_from(["float32", "float64"]),
)
@settings(max_examples=8)
def test_any_unit_gives_one_model(name, exponents, dtype, in_their_unit, recorded, test_recorded):
    units = [10.0**e for e in exponents]
    expected, score = in_their_unit[name]
    model = clone(OF_IMAGES[name]).fit(in_units(recorded, units, dtype))
    test = in_units(test_recorded, units, dtype)
    predictions = model.predict(test)
    for mouse, unit in zip(test.mice, units, strict=True):
        found = predictions.get(mouse).astype(np.float64) / unit
        np.testing.assert_allclose(found, expected[mouse], rtol=1e-4, atol=1e-4)
    assert model.score(test) == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize("name", ["stimuli", "behaviors"])
@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60])
@pytest.mark.parametrize("kind", quick([v1.CNNRegressor, v1.V1TRegressor], 0))
def test_nor_does_a_power_of_two_of_inputs(kind, unit, name, small, arrays, equal):
    parts = [arrays[n] for n in ("stimuli", "behaviors", "responses")]
    expected = small(kind).fit(*parts).predict(*parts[:2])
    place = ("stimuli", "behaviors").index(name)
    parts[place] = {
        m: values.astype(np.float32) * np.float32(unit) for m, values in parts[place].items()
    }
    assert equal(small(kind).fit(*parts).predict(*parts[:2]), expected)

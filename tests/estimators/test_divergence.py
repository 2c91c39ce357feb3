"""Trainings that run off, and values that float32 cannot hold: nothing of them is a model."""

import json
import warnings
import zlib

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

import v1tlearn as v1
from v1tlearn.training import NonFiniteLossError


class Loses(v1.nn.Core):
    """A core that predicts NaN in evaluation, from some evaluation on."""

    def __init__(self, input_shape, after=0, until=10**6):
        super().__init__(input_shape)
        self.output_shape = (2, *input_shape[1:])
        self.filters = torch.nn.Conv2d(input_shape[0], 2, 3, padding=1)
        self.after, self.until, self.epoch, self.was_training = after, until, 0, False

    def forward(self, images, behaviors=None, sizes=None):
        self.epoch += self.training and not self.was_training
        self.was_training = self.training
        maps = self.filters(images)
        lost = not self.training and self.after < self.epoch <= self.until
        return maps * torch.nan if lost else maps


def losing(after=0, until=10**6, **params):
    common = {"max_epochs": 4, "batch_size": 16, "device": "cpu", "random_state": 0, "lr": 1e-3}
    core = lambda shape: Loses(shape, after, until)  # noqa: E731
    return v1.EncodingRegressor(core, **common | params)


@pytest.mark.parametrize("schedule", ["plateau", "rounds", "constant"])
def test_epochs_that_predict_nan_are_never_the_best(trials, schedule):
    model = losing(0, 2, schedule=schedule)
    with pytest.warns(UserWarning, match=r"not finite after the epochs \[1, 2\] of 4"):
        model.fit(trials)
    scores = [record["validation_correlation"] for record in model.history_]
    assert np.isnan(scores[:2]).all()
    assert np.isfinite(scores[2:]).all()
    assert model.best_epoch_ in (0, 3, 4)  # 0: of "rounds", which score the initial weights
    if schedule != "rounds":
        assert model.best_epoch_ == 3 + int(np.argmax(scores[2:]))


@pytest.mark.parametrize("schedule", ["plateau", "rounds", "constant"])
def test_a_training_without_a_good_epoch_is_none(trials, schedule):
    model = losing(schedule=schedule)
    with pytest.raises(NonFiniteLossError, match=r"'A' is not finite after epoch 1.*Lower"):
        model.fit(trials)
    with pytest.raises(NotFittedError):
        model.predict(trials)


def test_without_validation_an_epoch_is_tried_too(trials):
    model = losing(1, validation_fraction=0)
    with pytest.raises(NonFiniteLossError, match="after epoch 2"):
        model.fit(trials)
    assert model.best_epoch_ == 1
    model = losing(validation_fraction=0)
    with pytest.raises(NonFiniteLossError):
        model.fit(trials)
    with pytest.raises(NotFittedError):
        model.predict(trials)


@pytest.mark.parametrize("lr", [1e3, 1e6, 1e20, 1e30])
@pytest.mark.parametrize("fraction", [0.1, 0])
@pytest.mark.filterwarnings("ignore:mouse .* cannot follow", "ignore:predictions of the validation")
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:mouse .* as large as any that")
def test_a_rate_that_is_far_too_high_raises_or_what_is_kept_predicts(small, trials, lr, fraction):
    model = small(lr=lr, max_epochs=3, validation_fraction=fraction)
    try:
        model.fit(trials)
    except NonFiniteLossError:
        if model.__sklearn_is_fitted__():
            assert model.best_epoch_ > 0
        else:
            return
    predictions = model.predict(trials)
    assert all(np.isfinite(predictions.get(mouse)).all() for mouse in trials.mice)


def assert_told_if_far_off(model, trials):
    """A training ends with an error, with predictions of a sane size, or with a warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(trials)
        except NonFiniteLossError:
            return "raised"
    told = [w.filename for w in caught if "as large as any that was recorded" in str(w.message)]
    sizes = [
        np.nanmean(np.abs(model.predict(trials).get(m)), axis=0)
        / np.nanmax(trials.get("responses", m))
        for m in trials.mice
    ]
    size = max(values.max() for values in sizes)
    assert told or size < 1000
    assert not told or size > 10
    assert set(told) <= {__file__}
    return "told" if told else "sane"


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"lr": 2e-3}, "sane"),
        ({}, "told"),
        ({"clip_norm": 1.0}, "told"),
        ({"precision": "bfloat16"}, "told"),
        ({"ema_decay": 0.9}, None),
        ({"core_pass": "per_mouse"}, None),
    ],
)
def test_what_ran_off_and_is_finite_is_told_of(small, trials, changes, outcome):
    found = assert_told_if_far_off(small(**{"lr": 1e3, "max_epochs": 2} | changes), trials)
    assert outcome in (None, found)


@pytest.mark.parametrize(("lr", "outcome"), [(1e-3, "sane"), (10.0, None), (1e3, None)])
def test_so_it_is_over_time(lr, outcome):
    movies = v1.make_movie_recordings(
        1, 3, 4, 1, 2, n_frames=44, image_shape=(8, 8), behavior=False, random_state=0
    )
    train = v1.Trials(movies).sel(tier="train")
    common = {"random_state": 0, "device": "cpu", "max_epochs": 2, "validation_fraction": 0}
    vist = v1.ViSTRegressor(
        grid=4, n_layers=1, channels=4, kernels=((1, 3),), window_frames=40, batch_size=2,
        steps_per_epoch=3, condition="none", warmup_epochs=0, loss="rmse", lr=lr, min_lr=lr / 2,
        **common,
    )  # fmt: skip
    for model in (vist, v1.MovieLNRegressor(n_lags=3, window_frames=8, lr=lr, **common)):
        found = assert_told_if_far_off(model, train)
        assert outcome in (None, found)


@pytest.mark.parametrize("name", ["stimuli", "behaviors", "responses"])
@pytest.mark.parametrize("form", ["dict", "list", "flat"])
@pytest.mark.parametrize("standardize", [True, False])
def test_values_that_float32_cannot_hold_are_blamed_on_whose_they_are(
    small, arrays, name, form, standardize
):
    names = ("stimuli", "behaviors", "responses")
    parts = {n: {m: np.array(v, float) for m, v in arrays[n].items()} for n in names}
    parts[name]["B"][7, ..., 2] = 1e39
    call = [parts[n] for n in names]
    if form != "dict":
        call = [list(part.values()) for part in call]
        mice = list(arrays["stimuli"])
    if form == "flat":
        mice = [m for m, one in zip(mice, call[0], strict=True) for _ in one]
        responses = [row for one in call[2] for row in one]
        call = [np.concatenate(call[0]), np.concatenate(call[1]), responses]
    if form != "dict":
        call.append(mice)
    with pytest.raises(ValueError, match=f"mouse 'B': {name} hold .*too large for float32"):
        small(standardize=standardize).fit(*call)


@pytest.mark.filterwarnings("ignore:.*in another unit than at fit")  # one trial far beyond
@given(st.floats(allow_nan=True, allow_infinity=True, width=64), st.integers(0, 4))
@settings(max_examples=20, deadline=None)
def test_what_is_predicted_is_finite_or_refused(fitted, arrays, value, column):
    behaviors = {m: b.astype(np.float64) for m, b in arrays["behaviors"].items()}
    behaviors["A"][3, column] = value
    if abs(value) < 1e6:
        predictions = fitted.predict(arrays["stimuli"], behaviors)
        assert all(np.isfinite(values).all() for values in predictions.values())
    elif not abs(value) < 3e38:
        with pytest.raises(ValueError, match=r"mouse 'A': behaviors hold .*trial 3"):
            fitted.predict(arrays["stimuli"], behaviors)


def test_predictions_that_are_not_finite_are_refused(small, trials):
    model = small().fit(trials)
    with torch.no_grad():
        model.module_.readout("B").bias[2] = torch.inf
    message = "mouse 'B': what is predicted for 41 trials, .* of 41 is not finite"
    for call in (model.predict, model.score):
        with pytest.raises(ValueError, match=message):
            call(trials)
    assert np.isfinite(model.predict(trials.sel(mouse_id="A")).get("A")).all()


def save_weights(tensors, file):
    """Write them into the folder of a model with a right checksum."""
    safetensors.torch.save_file(tensors, file)
    description = file.with_name("model.json")
    document = json.loads(description.read_text())
    description.write_text(json.dumps({**document, "checksum": zlib.crc32(file.read_bytes())}))


def test_files_with_weights_that_are_not_finite_are_refused(fitted, tmp_path):
    fitted.save(tmp_path)
    document = json.loads((tmp_path / "model.json").read_text())
    file = tmp_path / document["tensors"]
    tensors = safetensors.torch.load_file(file)
    name = next(name for name in tensors if name.startswith("/weights/readouts"))
    tensors[name].view(-1)[0] = torch.nan
    save_weights(tensors, file)
    with pytest.raises(ValueError, match=rf"{name.rpartition('/')[2]}.*NaN or infinite"):
        v1.load(tmp_path)


def test_a_checkpoint_with_weights_that_are_not_finite_is_refused(small, trials, tmp_path):
    small(max_epochs=1).fit(trials, checkpoint_dir=tmp_path)
    for file in tmp_path.rglob("*.safetensors"):
        tensors = safetensors.torch.load_file(file)
        for name, tensor in tensors.items():
            if "features" in name:
                tensor.view(-1)[0] = torch.nan
        save_weights(tensors, file)
    with pytest.raises(ValueError, match="NaN or infinite"):
        small(max_epochs=2).fit(trials, checkpoint_dir=tmp_path)

"""Models that see time: fitted in windows, predicting in parts, kept as all models are."""

import pickle
import tracemalloc

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.estimators.predicting import predict

TRAINING = {"max_epochs": 2, "window_frames": 8, "random_state": 0, "device": "cpu"}
CNN = TRAINING | {"n_layers": 2, "hidden_channels": 3, "input_kernel": 5, "hidden_kernel": 3}
CNN |= {"input_time_kernel": 4, "hidden_time_kernel": 3}
VIT = {"n_blocks": 1, "n_heads": 1, "embed_dim": 6, "mlp_dim": 6, "patch_stride": 5}


def ln(**changes):
    return v1.MovieLNRegressor(**(TRAINING | {"n_lags": 5} | changes))


def cnn(**changes):
    return v1.MovieCNNRegressor(**(CNN | changes))


def v1t(**changes):
    return v1.V1TRegressor(**(TRAINING | VIT | {"readout_lags": 5, "batch_size": 4} | changes))


class Energy(v1.nn.Core):
    """A core of a user's own: energy of the changes from frame to frame."""

    context_frames = (1, 0)

    def __init__(self, input_shape):
        super().__init__(input_shape)
        self.output_shape = (2, input_shape[1] - 4, input_shape[2] - 4)
        self.filters = torch.nn.Conv2d(input_shape[0], 2, 5)
        self.delay = v1.nn.TemporalConvolution(2, 2)

    def forward(self, images, behaviors=None, sizes=None, past=None):
        maps = self.filters(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return self.delay(maps, past) ** 2


def own():
    return v1.EncodingRegressor(Energy, **TRAINING)


MODELS = {
    "ln": ln(),
    "full": ln(kernel="full", head="elu", behavior_mode="channels"),
    "cnn": cnn(),
    "factorized": cnn(
        readout="factorized",
        behavior_mode="none",
        head="softplus",
        space_init=0.5,
        channel_init=0.5,
    ),
    "recurrent": cnn(recurrent=True, memory_frames=5),
    "v1t": v1t(),
    "own": own(),
}
SYMMETRIC = cnn(causal=False, input_time_kernel=3, window_frames=3)


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(
        v1.make_movie_recordings(
            2, [3, 4], 8, 2, 2, n_frames=(18, 30), image_shape=(10, 14), random_state=0
        )
    )


@pytest.fixture(scope="module")
def fitted(trials):
    train, validation = trials.sel(tier="train"), trials.sel(tier="validation")
    models = MODELS | {"symmetric": SYMMETRIC}
    return {name: clone(m).fit(train, validation=validation) for name, m in models.items()}


def in_parts(model, trials, at_once):
    frames = v1.trials.folding.fold_time(trials, None)
    return predict(model.module_, model.fitted_, frames, model.device_, at_once=at_once)


@pytest.mark.parametrize("name", [*MODELS, "symmetric"])
def test_predictions_over_time_have_the_form_of_responses(fitted, trials, name):
    test = trials.sel(tier="test")
    predictions = fitted[name].predict(test)
    for mouse in trials.mice:
        known = np.isfinite(test.responses.get(mouse))
        assert (np.isfinite(predictions.get(mouse)) == known).all()  # NaN behind the last frame
        assert predictions[mouse].dims == ("trial", "time", "neuron")
    wanted = v1.metrics.single_trial_correlation(test.responses, predictions)
    assert fitted[name].score(test) == pytest.approx(wanted)


@pytest.mark.parametrize("name", [*MODELS, "symmetric"])
def test_streamed_predictions_are_those_of_whole_movies(fitted, trials, name):
    test = trials.sel(tier="test")
    whole, parts = (in_parts(fitted[name], test, size) for size in (1000, 7))
    for mouse in trials.mice:
        np.testing.assert_allclose(parts[mouse], whole[mouse], rtol=2e-4, atol=1e-5)


def looks_ahead(model, trials, at_once):
    """Whether what comes later changes any bit of what was predicted before."""
    one = trials.sel(tier="test", mouse_id="A")
    n = int(one.n_frames.min())
    stimuli = one.get("stimuli", "A")[:, :n]
    other = stimuli.copy()
    other[:, 11:] = 255 - other[:, 11:]
    given = {"behaviors": {"A": one.get("behaviors", "A")[:, :n]}, "frame_rate": 30.0}
    found = []
    for movies in (stimuli, other):
        view = v1.Trials.from_arrays({"A": movies}, **given)
        flat = in_parts(model, view, at_once)["A"]
        found.append(flat.reshape(len(movies), -1, flat.shape[1]))
    assert (found[0][:, 11:] != found[1][:, 11:]).any()
    return (found[0][:, :11] != found[1][:, :11]).any()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("at_once", [1000, 7])
def test_predictions_never_depend_on_what_comes_later(fitted, trials, name, at_once):
    assert not looks_ahead(fitted[name], trials, at_once)


@pytest.mark.parametrize("at_once", [1000, 7])
def test_those_of_a_symmetric_model_do(fitted, trials, at_once):
    assert looks_ahead(fitted["symmetric"], trials, at_once)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_kept_as_all_are(fitted, trials, name, tmp_path):
    test, model = trials.sel(tier="test"), fitted[name]
    wanted = model.predict(test)
    model.save(tmp_path / "model")
    for again in (v1.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        for mouse in test.mice:
            np.testing.assert_array_equal(again.predict(test).get(mouse), wanted.get(mouse))
    assert clone(model).get_params() == model.get_params()


def test_the_same_seed_gives_the_same_model(fitted, trials):
    again = cnn().fit(trials.sel(tier="train"), validation=trials.sel(tier="validation"))
    for name, value in fitted["cnn"].module_.state_dict().items():
        assert torch.equal(value, again.module_.state_dict()[name])


def test_a_search_goes_over_parameters_of_time(trials):
    train = trials.sel(tier="train")
    search = GridSearchCV(
        make_pipeline(v1.TrialStandardizer(), ln(standardize=False, max_epochs=1)),
        {"movielnregressor__n_lags": [1, 4]},
        cv=GroupKFold(2),
        error_score="raise",
    ).fit(train, groups=train.image_ids)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(trials.sel(tier="test"))["A"].dims[1] == "time"


def test_a_core_moves_to_other_animals(trials):
    one, two = (trials.sel(mouse_id=mouse, tier="train") for mouse in "AB")
    moved = cnn().fit(one).transfer(two, max_epochs=1)
    assert moved.predict(trials.sel(mouse_id="B", tier="test"))["B"].sizes["neuron"] == 4


def test_warm_start_goes_on_as_if_it_had_not_stopped(trials):
    train, validation = trials.sel(tier="train"), trials.sel(tier="validation")
    whole = ln(max_epochs=3).fit(train, validation=validation)
    parts = ln(max_epochs=1, warm_start=True).fit(train, validation=validation)
    parts.set_params(max_epochs=2).fit(train, validation=validation)
    assert whole.history_[-1]["loss"] == parts.history_[-1]["loss"]


def test_responses_that_were_not_recorded_do_not_count(trials):
    """Movies that end in frames without responses are fitted as movies without these frames."""
    one = trials.sel(tier="train", mouse_id="A")
    stimuli, responses = (list(np.asarray(x)) for x in (one.stimuli, one.responses))
    masked = [values.copy() for values in responses]
    for values in masked:
        values[-4:] = np.nan
    shorter = [[values[:-4] for values in some] for some in (stimuli, responses)]
    options = {"standardize": False, "validation_fraction": 0, "batch_size": 64, "max_epochs": 3}
    losses = [
        [record["loss"] for record in ln(**options).fit({"A": x}, None, {"A": y}).history_]
        for x, y in ((stimuli, masked), shorter, (stimuli, responses))
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    assert not np.allclose(losses[0], losses[2], rtol=1e-3)


def test_frames_of_lag_zero_alone_are_a_model_of_frames(trials):
    """A kernel of one frame knows nothing of the others: their order does not matter."""
    model = ln(n_lags=1).fit(trials.sel(tier="train"))
    test = trials.sel(tier="test", mouse_id="A")
    n = int(test.n_frames.min())
    movies = test.get("stimuli", "A")[:, :n]
    order = np.random.default_rng(0).permutation(n)
    one, other = (
        model.predict(v1.Trials.from_arrays({"A": m}, frame_rate=30.0)).get("A")
        for m in (movies, movies[:, order])
    )
    np.testing.assert_allclose(other, one[:, order], rtol=1e-5, atol=1e-6)


def test_low_memory_gives_the_same_model(trials, tmp_path):
    train = trials.sel(tier="train")
    train.to_netcdf(tmp_path / "movies.nc")
    stored = v1.Trials.open(tmp_path / "movies.nc")
    one, other = cnn(low_memory=False).fit(train), cnn(low_memory=True).fit(stored)
    for name, value in one.module_.state_dict().items():
        assert torch.equal(value, other.module_.state_dict()[name])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_movie(tmp_path):
    rng = np.random.default_rng(0)
    stimuli = rng.integers(0, 256, (1, 2000, 1, 36, 64)).astype("u1")
    responses = rng.random((1, 40, 2)).astype("f4")
    model = cnn(n_layers=1, max_epochs=0, validation_fraction=0, behavior_mode="none")
    with pytest.warns(UserWarning, match="max_epochs is 0"):
        model.fit({"A": stimuli[:, :40]}, None, {"A": responses})
    most = {}
    for length in (1000, 2000):
        v1.Trials.from_arrays({"A": stimuli[:, :length]}).to_netcdf(tmp_path / f"{length}.nc")
        stored = v1.Trials.open(tmp_path / f"{length}.nc")
        tracemalloc.start()
        model.predict(stored)
        most[length] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most[2000] < 1.2 * most[1000] < stimuli.nbytes


def images(trials):
    one = trials.sel(mouse_id="A")
    return one.get("stimuli", "A")[:, 0], one.get("responses", "A")[:, 0]


@pytest.mark.parametrize("make", [ln, cnn, v1t, own])
def test_images_are_refused(trials, make):
    stimuli, responses = images(trials)
    with pytest.raises(ValueError, match=r"stimuli are images, but this model sees time: give"):
        make().fit(stimuli, None, responses)


def test_images_are_refused_by_a_fitted_model(fitted, trials):
    stimuli, _ = images(trials)
    with pytest.raises(ValueError, match="mouse 'A': stimuli are images, but this model sees time"):
        fitted["ln"].predict({"A": stimuli})


def test_windows_longer_than_any_movie_are_refused(trials):
    train = trials.sel(tier="train")
    longest = int(train[train.rows("A")[0]].n_frames.max())
    with pytest.raises(ValueError, match=rf"'A': window_frames is 90, .* {longest} frames: set"):
        ln(window_frames=90).fit(train)


def at_rate(trials, frame_rate):
    """The same frames of one mouse at another rate."""
    one = trials.sel(mouse_id="A", tier="train")
    movies, responses = ({"A": list(np.asarray(x))} for x in (one.stimuli, one.responses))
    behaviors, ids = {"A": list(np.asarray(one.behaviors))}, {"A": one.image_ids}
    return v1.Trials.from_arrays(movies, behaviors, responses, frame_rate=frame_rate, image_ids=ids)


def test_movies_of_another_frame_rate_are_refused(fitted, trials):
    with pytest.raises(ValueError, match=r"'A': movies have 60 frames per second, .* of 30, and"):
        fitted["ln"].predict(at_rate(trials, 60.0))
    mice = {m: at_rate(trials, r).recordings["A"].to_dataset() for m, r in (("A", 30), ("B", 60))}
    with pytest.raises(ValueError, match="movies of the mice have different frame rates"):
        ln().fit(v1.Trials(mice))
    with pytest.raises(ValueError, match=r"trained on movies of 30 frames .* have 60: bring"):
        fitted["cnn"].transfer(at_rate(trials, 60.0))


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (ln, {"kernel": "space"}, "The 'kernel' parameter of MovieLNRegressor must be"),
        (ln, {"shift": "readout"}, "The 'shift' parameter of MovieLNRegressor must be"),
        (cnn, {"causal": False, "recurrent": True}, "looks back alone: set causal=True"),
        (cnn, {"causal": False}, "symmetric kernel of 4 frames"),
        (cnn, {"input_time_kernel": 0}, "The 'input_time_kernel' parameter of MovieCNN"),
        (v1t, {"readout_lags": 0}, "The 'readout_lags' parameter of V1TRegressor must be"),
    ],
)
def test_impossible_parameters_are_refused(trials, make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes).fit(trials.sel(tier="train"))


def test_a_core_that_tells_its_context_wrongly_is_refused(trials):
    class Wrong(Energy):
        context_frames = 1

    with pytest.raises(ValueError, match=r"context_frames of Wrong are 1: expected .* \(before, a"):
        v1.EncodingRegressor(Wrong, **TRAINING).fit(trials.sel(tier="train"))


def test_time_makes_no_difference_to_a_model_of_frames(trials):
    """Without a filter in time, V1T is fitted frame by frame as before."""
    model = v1t(readout_lags=1, batch_size=32, max_epochs=1).fit(trials.sel(tier="train"))
    assert model.module_.context_frames is None
    other = clone(model).set_params(window_frames=3).fit(trials.sel(tier="train"))
    for name, value in model.module_.state_dict().items():
        assert torch.equal(value, other.module_.state_dict()[name])


def joined(parts):
    """The parts of each trial, one after the other."""
    found = {}
    for part in parts:
        found.setdefault(int(part["place"]), []).append(part)
    return {place: xr.concat(own, "time") for place, own in found.items()}


@pytest.mark.parametrize("name", quick([*MODELS, "symmetric"], 0, 4))
def test_parts_are_those_of_the_whole_prediction_with_its_labels(fitted, trials, name):
    test = trials.sel(tier="test")[::-1]
    model = fitted[name]
    whole = model.predict(test)
    parts = joined(model.predict_parts(test, frames_at_once=11))
    assert list(parts) == list(range(len(test)))
    for place, found in parts.items():
        one = whole[[place]]
        (mouse,) = one.mice
        n = test.n_frames[place]
        expected = one[mouse].isel(trial=0, time=slice(0, n))
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)
        assert found.dtype == np.float32
        assert found.name == "predictions"
        for label in ("time", "neuron", "image_id", "tier"):
            np.testing.assert_array_equal(found[label], expected[label])
        assert found["mouse_id"].item() == mouse


def test_parts_take_what_predictions_take_and_leave_torch_alone(fitted, trials):
    model = fitted[next(iter(MODELS))]
    test = trials.sel(tier="test", mouse_id="A")
    few = test[:2]
    given = {"A": few.get("stimuli", "A")[:, :30]}
    behaviors = {"A": few.get("behaviors", "A")[:, :30]}
    parts = model.predict_parts(given, behaviors, frames_at_once=20)
    first = next(parts)
    assert not torch.is_inference_mode_enabled()
    assert torch.ones(2, requires_grad=True).sum().requires_grad
    assert first.shape == (20, model.n_neurons_["A"])
    assert [part.sizes["time"] for part in parts] == [10, 20, 10]


def test_parts_refuse_what_predictions_refuse_and_models_of_images(fitted, trials):
    model = fitted[next(iter(MODELS))]
    test = trials.sel(tier="test", mouse_id="A")
    with pytest.raises(ValueError, match="frames_at_once is 0: expected at least 1"):
        model.predict_parts(test, frames_at_once=0)
    images = test.get("stimuli", "A")[:, 0]
    with pytest.raises(ValueError, match="stimuli are images, but this model sees time"):
        model.predict_parts({"A": images}, {"A": test.get("behaviors", "A")[:, 0]})
    with pytest.raises(ValueError, match=r"stimuli have the shape"):
        model.predict_parts(
            {"A": test.get("stimuli", "A")[..., :-3]}, {"A": test.get("behaviors", "A")}
        )
    one = v1.CNNRegressor(n_layers=1, hidden_channels=2, max_epochs=0, validation_fraction=0)
    one.fit(trials.sel(tier="train", mouse_id="A"))
    with pytest.raises(ValueError, match="CNNRegressor predicts each frame on its own"):
        one.predict_parts(test)

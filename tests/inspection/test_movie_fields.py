"""Receptive fields of models that see time: kernels of lags and pixels."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.base import clone

import v1tlearn as v1
from v1tlearn.inspection import (
    ImageDisplay,
    KernelDisplay,
    ReceptiveFieldDisplay,
    fit_gaussians,
    receptive_fields,
    space_time_components,
)

SMALL = {"max_epochs": 2, "window_frames": 8, "random_state": 0, "device": "cpu"}
LAYERS = {"n_layers": 2, "hidden_channels": 3, "input_kernel": 3, "hidden_kernel": 3}
IN_TIME = {"input_time_kernel": 4, "hidden_time_kernel": 3}
MODELS = {
    "ln": v1.MovieLNRegressor(**SMALL, n_lags=5),
    "cnn": v1.MovieCNNRegressor(**SMALL, **LAYERS, **IN_TIME, behavior_mode="channels",
                                shift="none"),
    "recurrent": v1.MovieCNNRegressor(**SMALL, **LAYERS, **IN_TIME, recurrent=True,
                                      memory_frames=6, behavior_mode="none"),
    "symmetric": v1.MovieCNNRegressor(**SMALL | {"window_frames": 2}, **LAYERS, causal=False,
                                      input_time_kernel=3, hidden_time_kernel=3),
    "v1t": v1.V1TRegressor(**SMALL, n_blocks=1, n_heads=1, embed_dim=6, mlp_dim=6, patch_size=4,
                           patch_stride=4, readout_lags=4, batch_size=4),
    "vist": v1.ViSTRegressor(**SMALL, grid=4, n_layers=2, channels=4, kernels=((1, 3),),
                             condition="none", loss="rmse", batch_size=3, steps_per_epoch=2,
                             warmup_epochs=1),
}  # fmt: skip


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(
        v1.make_movie_recordings(2, [3, 2], 8, 1, 2, n_frames=20, image_shape=(8, 8),
                                 random_state=0)
    ).sel(tier="train")  # fmt: skip


@pytest.fixture(scope="module")
def fitted(trials):
    return {name: clone(model).fit(trials) for name, model in MODELS.items()}


def shown_to(model):
    """What the core is given, as movies of pixels."""
    given = []

    def keep(_, arguments):
        frames = arguments[0]
        frames = frames.flatten(0, 1) if frames.dim() == 5 else frames
        given.append(frames[:, :1].clone())

    return given, model.module_.core.register_forward_pre_hook(keep)


@pytest.mark.parametrize("name", MODELS)
def test_fields_are_the_covariances_of_responses_with_the_frames_before(fitted, name):
    model, n_frames = fitted[name], 300
    before, after = model.module_.context_frames
    given, hook = shown_to(model)
    fields = receptive_fields(model, n_frames, batch_size=1000, mice=["A"])["A"]
    hook.remove()
    (pixels,) = (part.double().numpy() for part in given)
    assert len(pixels) == before + n_frames + after
    known = model.statistics_["A"]
    movie = (pixels * known["image_std"] + known["image_mean"])[None]
    behaviors = np.zeros((1, len(pixels), 3)) if model.core_columns_ else None
    rates = model.predict(movie, behaviors, "A")[0, before : before + n_frames].astype(float)
    assert fields.dims == ("neuron", "lag", "channel", "height", "width")
    assert fields.sizes["lag"] == before + 1
    for lag in range(before + 1):
        shown = pixels[before - lag : before - lag + n_frames]
        centred = shown - shown.mean(0)
        wanted = np.einsum("tn,tchw->nchw", rates - rates.mean(0), centred) / n_frames
        np.testing.assert_allclose(fields.isel(lag=lag), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn", "symmetric", "vist"])
def test_frames_that_are_seen_at_once_change_rounding_errors_only(fitted, name):
    one, other = (receptive_fields(fitted[name], 700, batch_size=size) for size in (1000, 50))
    for mouse in one:
        np.testing.assert_allclose(other[mouse], one[mouse], rtol=1e-3, atol=1e-6)


def test_normal_noise_finds_the_kernels_of_a_linear_nonlinear_model(fitted):
    model = fitted["ln"]
    fields = receptive_fields(model, 60_000, n_lags=7, noise="gaussian")["A"]
    kernels = model.kernels("A")
    for field, kernel in zip(fields.values, kernels, strict=True):
        assert np.corrcoef(field[:5].ravel(), kernel.ravel())[0, 1] > 0.97
    # what the model does not see is noise
    assert np.square(fields.values[:, 5:]).mean() < 0.2 * np.square(fields.values[:, :5]).mean()


def slopes_along(estimator, mouse, movies):
    """How responses (n,) change along movies (n, frames, h, w) from grey on, in float64."""
    model, step = copy.deepcopy(estimator.module_).double().eval(), 1e-4
    movies = torch.as_tensor(movies)[:, :, None] * step
    n_columns, (before, _) = len(estimator.core_columns_), model.context_frames
    behaviors = torch.zeros(*movies.shape[:2], n_columns).double() if n_columns else None
    with torch.no_grad(), v1.nn.plain():
        up, down = (
            model.respond(mouse, model.encode(mouse, sign * movies, behaviors))[:, before].numpy()
            for sign in (1, -1)
        )
    return (up - down) / (2 * step) * estimator.statistics_[mouse]["response_scale"]


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_finite_differences_in_a_grey_movie(fitted, name):
    estimator = fitted[name]
    before, after = estimator.module_.context_frames
    movies = np.random.default_rng(0).normal(size=(12, before + 1 + after, 8, 8))
    movies[:, before + 1 :] = 0  # lags go back alone
    movies[0, : before - 1] = 0  # the last two lags
    expected = slopes_along(estimator, "B", movies)
    assert np.abs(expected).max() > 0
    fields = receptive_fields(estimator, method="gradient", mice="B")["B"]
    assert fields.dims == ("neuron", "lag", "channel", "height", "width")
    assert fields.sizes["lag"] == before + 1
    found = np.einsum("nlhw,ilhw->in", fields[:, :, 0], movies[:, before::-1])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    short = receptive_fields(estimator, method="gradient", n_lags=2, mice="B")["B"]
    found = np.einsum("nlhw,lhw->n", short[:, :, 0], movies[0, before : before - 2 : -1])
    np.testing.assert_allclose(found, expected[0], rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_gradients_of_a_linear_nonlinear_model_are_its_kernels_times_the_slope(fitted):
    estimator = fitted["ln"]
    for mouse, field in receptive_fields(estimator, method="gradient").items():
        readout, head = (
            part(mouse) for part in (estimator.module_.readout, estimator.module_.head)
        )
        with torch.no_grad():
            slope = expit((head.log_steepness.exp() * readout.bias).numpy())  # of a soft-plus
        scale = slope * estimator.statistics_[mouse]["response_scale"]
        wanted = estimator.kernels(mouse) * scale[:, None, None, None, None]
        np.testing.assert_allclose(field, wanted, rtol=1e-4, atol=1e-6 * np.abs(wanted).max())
        np.testing.assert_allclose(field["lag"], np.arange(5) / 30)
        assert field.attrs["method"] == "gradient"


def test_what_a_causal_model_did_not_see_moves_nothing(fitted):
    found = receptive_fields(fitted["ln"], method="gradient", n_lags=8)["A"]
    assert (np.abs(found[:, :5]).max(("lag", "channel", "height", "width")) > 0).all()
    assert (found[:, 5:] == 0).all()


@pytest.mark.parametrize("options", [{"method": "gradient"}, {"n_images": 40}])
@pytest.mark.parametrize("name", ["ln", "cnn", "vist"])
def test_some_neurons_in_their_order(fitted, trials, name, options):
    known = trials.neuron_ids("A").tolist()
    whole = receptive_fields(fitted[name], **options)
    found = receptive_fields(fitted[name], neurons={"A": [known[2], known[0]]}, **options)
    expected = whole["A"].isel(neuron=[2, 0])
    assert found["A"]["neuron"].values.tolist() == expected["neuron"].values.tolist()
    np.testing.assert_allclose(found["A"], expected, atol=1e-4 * float(np.abs(expected).max()))
    assert found["B"].sizes["neuron"] == 2


@pytest.mark.parametrize("name", ["cnn", "v1t"])
def test_copies_that_are_seen_at_once_change_rounding_errors_only(fitted, name):
    whole = receptive_fields(fitted[name], method="gradient")["A"].values
    for size in (1, 30, 1000):
        found = receptive_fields(fitted[name], method="gradient", batch_size=size)["A"].values
        np.testing.assert_allclose(found, whole, atol=1e-5 * np.abs(whole).max())


def test_behavior_of_the_core_counts(fitted):
    for options in ({"method": "gradient"}, {"n_images": 100}):
        rest, runs = (
            receptive_fields(fitted["cnn"], behaviors=behaviors, **options)["A"].values
            for behaviors in (None, {"running_speed": 30.0})
        )
        assert not np.allclose(rest, runs, rtol=1e-3, atol=1e-6)


def test_gradients_are_taken_in_grey_movies_alone(fitted, trials):
    images = v1.Trials(v1.make_v1_recordings(2, 3, 9, image_shape=(8, 8), random_state=0))
    with pytest.raises(ValueError, match=r"model sees time: .* leave images out"):
        receptive_fields(fitted["ln"], method="gradient", images=images)
    with pytest.raises(ValueError, match="images are movies"):
        receptive_fields(fitted["ln"], method="gradient", images=trials)


def test_features_of_a_callable_have_no_gradient(trials):
    options = SMALL | {"n_layers": 2, "channels": 4, "kernels": ((1, 3),), "condition": "none"}
    options |= {"loss": "rmse", "batch_size": 3, "steps_per_epoch": 2, "warmup_epochs": 1}
    model = v1.ViSTRegressor(prior=pooled, **options).fit(trials)
    with pytest.raises(ValueError, match=r"features .* have no gradient.*method='covariance'"):
        receptive_fields(model, method="gradient")
    assert np.abs(receptive_fields(model, 200)["A"]).max() > 0


def pooled(frames):
    """Four features of sixteen patches."""
    return torch.nn.functional.pixel_unshuffle(frames, 2).flatten(2).mT


def test_lags_are_in_seconds_where_the_frame_rate_is_known(fitted, trials):
    fields = receptive_fields(fitted["ln"], 10, n_lags=3)["A"]
    np.testing.assert_allclose(fields["lag"], [0, 1 / 30, 2 / 30])
    assert fields["lag"].attrs["units"] == "s"
    assert fields["neuron"].values.tolist() == trials.neuron_ids("A").tolist()
    movies, responses = (trials.get(name, "A") for name in ("stimuli", "responses"))
    unknown = receptive_fields(clone(MODELS["ln"]).fit(movies, None, responses), 9)["mouse"]
    assert unknown["lag"].attrs["units"] == "frame"
    np.testing.assert_array_equal(unknown["lag"], np.arange(5))


def test_kernels_of_a_model_are_drawn(fitted, figures):
    fields = receptive_fields(fitted["cnn"], 500, n_lags=4)["A"]
    display = KernelDisplay.from_kernels(fields, n_neurons=2, n_maps=2)
    np.testing.assert_allclose(display.kernels, fields.isel(neuron=[0, 1], channel=0))
    assert display.units == "s"
    (first, *_) = display.axes_[0, 0].images
    np.testing.assert_allclose(first.get_array(), fields.isel(neuron=0, channel=0, lag=3))


@pytest.mark.parametrize(
    ("n_lags", "message"),
    [
        (0, "n_lags=0: expected None or a whole number from 1 on"),
        (1.5, r"n_lags=1\.5"),
        ("all", "n_lags"),
    ],
)
def test_lags_are_counts(fitted, n_lags, message):
    with pytest.raises(ValueError, match=message):
        receptive_fields(fitted["ln"], 10, n_lags=n_lags)


def test_models_of_images_have_no_lags(trials):
    options = LAYERS | {"max_epochs": 1, "batch_size": 32, "device": "cpu", "random_state": 0}
    with pytest.raises(ValueError, match="n_lags=3: this model sees single images, leave n_lags"):
        receptive_fields(v1.CNNRegressor(**options).fit(trials), 10, n_lags=3)


def test_kernels_go_on_to_what_takes_kernels_and_single_lags_to_what_takes_maps(fitted, figures):
    fields = receptive_fields(fitted["ln"], 3000, n_lags=5, noise="gaussian")["A"]
    parts = space_time_components(fields)
    assert parts["separability"].values.min() > 0.9  # of separable kernels
    display = ImageDisplay.from_fields(fields, n_fields=2)
    assert [axis.get_title() for axis in display.axes_.flat][1] == "neuron 1, lag 0.0333"
    assert fit_gaussians(fields.isel(lag=1)).sizes["neuron"] == 3
    maps = parts["receptive_field"].expand_dims("channel", 1)
    assert fit_gaussians(maps).sizes["neuron"] == 3
    with pytest.raises(ValueError, match=r"'lag'.*kernels in time: expected maps"):
        fit_gaussians(fields)
    with pytest.raises(ValueError, match=r"'lag'.*draw KernelDisplay.from_kernels"):
        ReceptiveFieldDisplay.from_fields(fields)
    with pytest.raises(ValueError, match=r"model sees time.*draw KernelDisplay"):
        ReceptiveFieldDisplay.from_estimator(fitted["ln"])

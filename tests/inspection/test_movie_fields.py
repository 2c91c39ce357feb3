"""Receptive fields of models that see time: kernels of lags and pixels."""

import numpy as np
import pytest
from sklearn.base import clone

import v1tlearn as v1
from v1tlearn.inspection import (
    ImageDisplay,
    KernelDisplay,
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
    [(0, "n_lags=0: expected a whole number from 1 on"), (1.5, r"n_lags=1\.5"), ("all", "n_lags")],
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

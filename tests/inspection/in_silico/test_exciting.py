"""Most exciting images: closed forms, `predict`, and the same one by one as together."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.exceptions import NotFittedError

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.inspection import most_exciting_images

SHAPE = (12, 16)


def filters(estimator, mouse, neurons):
    """Filters (n, pixels) of linear-nonlinear neurons, by differentiation at the mean grey."""
    model = estimator.module_
    image = torch.zeros(1, 1, *model.cropper.output_size, requires_grad=True)
    n_columns = len(estimator.core_columns_)
    behaviors = torch.zeros(1, n_columns) if n_columns else None
    pupil = torch.zeros(1, 2)
    outputs = model.respond(mouse, model.encode(mouse, image, behaviors), pupil, activate=False)
    found = [torch.autograd.grad(outputs[0, n], image, retain_graph=True)[0] for n in neurons]
    return torch.stack(found).flatten(1).numpy().astype(float)


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("direction", ["exciting", "suppressing"])
@pytest.mark.parametrize("smoothness", quick([0.0, 1.0], 1))
def test_a_linear_neuron_is_driven_most_by_its_filter(fit, direction, smoothness):
    estimator = fit(v1.LNRegressor)
    found = most_exciting_images(
        estimator, direction=direction, smoothness=smoothness, n_steps=60, norm=3
    )
    sign = 1 if direction == "exciting" else -1
    for mouse, images in found.items():
        wanted = sign * filters(estimator, mouse, range(images.sizes["neuron"]))
        mean, std = images.attrs["image_mean"], images.attrs["image_std"]
        contrast = (images["image"].values.reshape(len(wanted), -1) - mean) / std
        assert (cosines(contrast, wanted) > 0.99).all()
        np.testing.assert_allclose(np.linalg.norm(contrast, axis=1), 3, rtol=1e-4)
        np.testing.assert_allclose(images["norm"], 3, rtol=1e-4)


@pytest.mark.slow
def test_within_limits_a_linear_neuron_is_driven_most_by_its_filter_cut_off(fit):
    estimator = fit(v1.LNRegressor)
    images = most_exciting_images(estimator, limits=(60, 200), norm=7, n_steps=100)["A"]
    wanted = filters(estimator, "A", range(4))
    mean, std = images.attrs["image_mean"], images.attrs["image_std"]
    low, high = (60 - mean) / std, (200 - mean) / std
    values = images["image"].values.reshape(4, -1)
    assert values.min() >= 60 - 1e-3
    assert values.max() <= 200 + 1e-3
    for one, weights in zip((values - mean) / std, wanted, strict=True):
        factors = np.geomspace(1e-3, 1e6, 20_000) / np.abs(weights).max()
        lengths = [np.linalg.norm(np.clip(s * weights, low, high)) for s in factors]
        best = np.clip(factors[np.searchsorted(lengths, 7)] * weights, low, high)
        np.testing.assert_allclose(np.linalg.norm(one), 7, rtol=1e-3)
        assert one @ weights > 0.99 * (best @ weights)


@pytest.mark.parametrize(
    ("kind", "params"),
    quick(
        [
            (v1.CNNRegressor, {}),
            (v1.CNNRegressor, {"behavior_mode": "none", "shift": "none"}),
            (v1.CNNRegressor, {"readout": "factorized", "space_init": 0.3, "channel_init": 0.3}),
            (
                v1.V1TRegressor,
                {"patch_size": 4, "patch_stride": 4, "n_blocks": 1, "n_heads": 2}
                | {"embed_dim": 8, "mlp_dim": 8, "behavior_mode": "b_mlp"},
            ),
            (v1.FullModelRegressor, {"space_init": 0.3, "channel_init": 0.3}),
        ],
        0,
        3,
    ),
)
def test_responses_are_those_that_predict_gives_at_this_behaviour(fit, kind, params):
    estimator = fit(kind, **params)
    found = most_exciting_images(estimator, n_steps=8, n_starts=2)
    for mouse, images in found.items():
        n = images.sizes["neuron"]
        statistics = estimator.statistics_[mouse]
        behaviors = None
        if "behavior_shift" in statistics:
            behaviors = {mouse: np.tile(statistics["behavior_shift"], (n, 1))}
        answer = estimator.predict({mouse: images["image"].values}, behaviors)[mouse]
        np.testing.assert_allclose(images["response"], np.diagonal(answer), rtol=1e-3, atol=1e-5)
        assert images["image"].dtype == np.float32
        assert (images["response"] > images["start_response"].max("starts") * (1 - 1e-5)).all()
        assert (images["start"] == images["start_response"].argmax("starts")).all()


def test_one_by_one_is_the_same_as_all_together(fit):
    estimator = fit()
    together = most_exciting_images(estimator, n_steps=8)
    for mouse, images in together.items():
        for neuron in images["neuron"].values:
            alone = most_exciting_images(estimator, {mouse: [neuron]}, n_steps=8, batch_size=1)
            expected = images.sel(neuron=[neuron])
            np.testing.assert_allclose(alone[mouse]["response"], expected["response"], rtol=1e-3)
            assert alone[mouse]["area"].values == expected["area"].values


def test_the_way_is_up_and_the_estimator_stays_as_it_is(fit):
    estimator = fit()
    before = {k: v.clone() for k, v in estimator.module_.state_dict().items()}
    learns = [p.requires_grad for p in estimator.module_.parameters()]
    state = torch.get_rng_state()
    few = most_exciting_images(estimator, n_steps=2)["A"]["response"]
    many = most_exciting_images(estimator, n_steps=30)["A"]["response"]
    low = most_exciting_images(estimator, n_steps=30, direction="suppressing")["A"]["response"]
    assert (many > few).all()
    assert (low < few).all()
    assert [p.requires_grad for p in estimator.module_.parameters()] == learns
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in estimator.module_.state_dict().items():
        assert torch.equal(value, before[name])


def test_no_image_of_the_norm_drives_a_neuron_more(fit):
    """Against many images of noise and of filters, of the same norm."""
    estimator = fit()
    images = most_exciting_images(estimator, norm=5, n_steps=60)["A"]
    rng = np.random.default_rng(0)
    contrast = rng.normal(size=(4000, 1, *SHAPE))
    contrast[:1000] = np.cumsum(contrast[:1000], axis=-1)  # smooth ones, too
    contrast *= 5 / np.linalg.norm(contrast.reshape(4000, -1), axis=1)[:, None, None, None]
    stimuli = images.attrs["image_mean"] + images.attrs["image_std"] * contrast
    behaviors = np.tile(estimator.statistics_["A"]["behavior_shift"], (4000, 1))
    answer = estimator.predict({"A": stimuli.astype(np.float32)}, {"A": behaviors})["A"]
    assert (images["response"].values > answer.max(0)).all()


def test_a_group_is_driven_more_than_by_images_of_its_members(fit):
    estimator = fit()
    weights = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, -1.0]])
    groups = most_exciting_images(estimator, {"A": [1, 2, 3, 4]}, weights={"A": weights}, norm=5)
    alone = most_exciting_images(estimator, {"A": [1, 2, 3, 4]}, norm=5)["A"]
    found = groups["A"]
    assert found["image"].dims == ("group", "channel", "height", "width")
    behaviors = np.tile(estimator.statistics_["A"]["behavior_shift"], (6, 1))
    shown = np.concatenate([found["image"].values, alone["image"].values])
    answer = estimator.predict({"A": shown}, {"A": behaviors})["A"] @ weights.T
    np.testing.assert_allclose(found["response"], np.diagonal(answer[:2]), rtol=1e-4)
    assert (answer[:2].diagonal() >= answer[2:].max(0) * (1 - 1e-3)).all()


def test_a_core_of_the_user_is_driven_too(trials):
    class Energy(v1.nn.Core):
        def __init__(self, input_shape):
            super().__init__(input_shape)
            self.output_shape = (4, *input_shape[1:])
            self.filters = torch.nn.Conv2d(input_shape[0], 4, 3, padding=1)

        def forward(self, images, behaviors=None, sizes=None):
            return self.filters(images).square()

    estimator = v1.EncodingRegressor(
        core=Energy, behavior_mode="none", batch_size=16, max_epochs=1, random_state=0
    ).fit(trials)
    images = most_exciting_images(estimator, n_steps=10)["B"]
    assert (images["response"] > images["start_response"].min("starts")).all()


def test_constant_behaviour_is_what_was_asked_for(fit):
    estimator = fit()
    row = np.array(estimator.statistics_["A"]["behavior_shift"], dtype=float)
    row[2] += 1.5
    name = "running_speed"
    images = most_exciting_images(estimator, {"A": [2]}, behaviors={name: row[2]}, n_steps=5)["A"]
    answer = estimator.predict({"A": images["image"].values}, {"A": row[None]})["A"]
    np.testing.assert_allclose(images["response"], answer[:, 1], rtol=1e-4)


def test_in_a_pipeline_behaviour_is_in_units_of_the_recordings(pipeline):
    speed = 9.0
    images = most_exciting_images(pipeline, {"A": [2]}, behaviors={"running_speed": speed})["A"]
    scaling = pipeline[0].scaling_["A"]
    column = pipeline[0].behavior_names_["A"].index("running_speed")
    row = np.zeros((1, 5))
    row[0, column] = (speed - scaling["behavior_shift"][column]) / scaling["behavior_scale"][column]
    answer = pipeline[-1].predict({"A": images["image"].values}, {"A": row})["A"]
    np.testing.assert_allclose(images["response"], answer[:, 1], rtol=1e-4)


def test_limits_are_kept_to_the_last_digit(fit):
    for limits in ((0, 255), (60.3, 199.7)):
        images = most_exciting_images(fit(), n_steps=8, limits=limits, norm=7)["A"]
        assert images["image"].min() >= np.float32(limits[0])
        assert images["image"].max() <= np.float32(limits[1])
        np.testing.assert_allclose(images["norm"], 7, rtol=1e-6)


def test_a_norm_that_limits_do_not_allow_is_refused_or_told(fit):
    estimator = fit()
    mean, std = (estimator.statistics_["A"][f"image_{name}"] for name in ("mean", "std"))
    limits = (mean - std, mean + 0.5 * std)
    most = (SHAPE[0] * SHAPE[1]) ** 0.5  # all pixels dark
    with pytest.raises(ValueError, match=r"no image has a norm above 13\.86, norm=15 came"):
        most_exciting_images(estimator, {"A": [1]}, limits=limits, norm=15)
    with pytest.warns(UserWarning, match=r"neurons? .* do not reach norm=13"):
        images = most_exciting_images(estimator, {"A": [1, 2]}, limits=limits, norm=13, n_steps=4)
    assert (images["A"]["norm"] < 13).all()
    assert most > 13


@pytest.mark.parametrize("size", [{}, {"crop_scale": 0.8, "image_size": (8, 10)}])
def test_coordinates_are_those_of_the_stimuli(fit, size):
    estimator = fit(**size)
    images = most_exciting_images(estimator, {"A": [1]}, n_steps=2)["A"]
    rows, columns = estimator.module_.cropper.source_positions("A")
    np.testing.assert_allclose(images["height"], rows)
    np.testing.assert_allclose(images["width"], columns)
    assert float(rows.min()) <= images["center_y"] <= float(rows.max())
    assert images["spread"] > 0


def test_published_linear_model_is_driven_most_by_its_filters():
    folder = os.environ.get("V1TLEARN_TEST_DATA")
    path = Path(folder or "") / "sensorium_models" / "sensorium_ln_model.pth"
    if not folder or not path.exists():
        pytest.skip("V1TLEARN_TEST_DATA names no folder with sensorium_models/")
    estimator = v1.load_sensorium(path, linear=True)
    neurons = [0, 1234, 5000, 7775]
    images = next(iter(most_exciting_images(estimator, neurons, n_starts=1).values()))
    wanted = filters(estimator, estimator.mice_[0], neurons)
    assert (cosines(images["image"].values.reshape(4, -1), wanted) > 0.99).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"direction": "up"}, "direction='up'"),
        ({"norm": -1}, "norm=-1"),
        ({"norm": "large"}, "norm='large'"),
        ({"limits": (0, 10)}, "either side of the mean grey level"),
        ({"limits": 5}, "either side of the mean grey level"),
        ({"limits": (0,)}, "either side of the mean grey level"),
        ({"limits": (0, np.inf)}, "either side of the mean grey level"),
        ({"weights": {"A": np.zeros((0, 4)), "B": np.zeros((0, 3))}}, r"shape \(0, 4\)"),
        ({"n_steps": 0}, "n_steps=0"),
        ({"smoothness": -1}, "smoothness=-1"),
        ({"neurons": {"A": [99]}}, "mouse 'A': there is no neuron 99"),
        ({"neurons": {"A": [1, 1]}}, "twice"),
        ({"neurons": {"C": [1]}}, r"\['C'\] came"),
        ({"neurons": [1]}, "by mouse"),
        ({"neurons": {"A": np.zeros(4, bool)}}, "chooses none"),
        ({"neurons": {"A": np.ones(3, bool)}}, "one entry per neuron"),
        ({"behaviors": {"speed": 1.0}}, "behaviors names 'speed'"),
        ({"behaviors": {"running_speed": np.nan}}, "finite"),
        ({"weights": {"A": np.ones((1, 4))}}, "weights came for the mice"),
        ({"neurons": {"A": [1, 2]}, "weights": np.ones(3)}, r"\(groups, neurons\)"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(fit, params, message):
    with pytest.raises(ValueError, match=message):
        most_exciting_images(fit(), **params)


def test_behaviour_without_names_is_refused(fit):
    with pytest.raises(TypeError, match="expected a dict of numbers by column"):
        most_exciting_images(fit(), behaviors=[1.0])


def test_weights_of_other_neurons_are_refused(fit):
    weights = xr.DataArray(np.ones(2), dims="neuron", coords={"neuron": [2, 1]})
    with pytest.raises(ValueError, match="in the order of `neurons`"):
        most_exciting_images(fit(), {"A": [1, 2]}, weights={"A": weights})


def test_models_without_meaning_are_refused(fit):
    with pytest.raises(TypeError, match="the class CNNRegressor came"):
        most_exciting_images(v1.CNNRegressor)
    with pytest.raises(NotFittedError):
        most_exciting_images(v1.CNNRegressor())
    ensemble = v1.EnsembleRegressor.from_members(
        [fit(validation_fraction=0), fit(validation_fraction=0, random_state=1)]
    )
    with pytest.raises(TypeError, match="estimators_"):
        most_exciting_images(ensemble)


def test_neurons_that_see_nothing_are_named(trials):
    estimator = v1.LNRegressor(
        n_layers=2,
        hidden_channels=4,
        input_kernel=5,
        hidden_kernel=3,
        batch_size=16,
        max_epochs=1,
        random_state=0,
        device="cpu",
    ).fit(trials)
    with torch.no_grad():
        estimator.module_.readout("A").features[2] = 0
    with pytest.warns(UserWarning, match="mouse 'A': responses of neuron 3 do not depend"):
        most_exciting_images(estimator, n_steps=4)

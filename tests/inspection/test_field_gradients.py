"""Gradients of responses by pixels: closed forms, finite differences, and what noise finds."""

import copy

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.mice import two_mice
from v1tlearn.inspection import receptive_fields

SHAPE = (12, 16)
COMMON = {"batch_size": 16, "max_epochs": 1, "random_state": 0, "device": "cpu"}
CNN = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3}
V1T = {"patch_size": 4, "patch_stride": 4, "n_blocks": 1, "n_heads": 2, "embed_dim": 8}


class Energy(v1.nn.Core):
    """A core of somebody else's, which says nothing of itself."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        channels, height, width = input_shape
        self.output_shape = (3, height - 4, width - 4)
        self.filters = torch.nn.Conv2d(channels, 6, 5)

    def forward(self, images, behaviors=None, sizes=None):
        even, odd = self.filters(images).chunk(2, dim=1)
        return (even**2 + odd**2 + 1e-2).sqrt()


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(two_mice(n_neurons=[4, 3], n_trials=30)).sel(tier="train")


@pytest.fixture(scope="module")
def models(trials):
    made = {
        "LN": v1.LNRegressor(behavior_mode="none", **CNN, **COMMON),
        "CNN": v1.CNNRegressor(crop_scale=0.8, image_size=(6, 8), shift="both", **CNN, **COMMON),
        "V1T": v1.V1TRegressor(**V1T, mlp_dim=8, **COMMON),
        "own": v1.EncodingRegressor(core=Energy, **COMMON),
        "full": v1.FullModelRegressor(channels=(4, 8), kernels=(5, 3), **COMMON),
    }
    fitted = {name: model.fit(trials) for name, model in made.items()}
    small = {"hidden_channels": 4, "hidden_kernel": 3}
    minimodel = v1.MinimodelRegressor(full_model=fitted["full"], **small, **COMMON)
    return fitted | {"minimodel": minimodel.fit(trials)}


def exact(estimator, mouse, images):
    """Responses (n, neurons) to images of the size of the core, in float64, as a function."""
    model = copy.deepcopy(estimator.module_).double().eval()
    scale = torch.as_tensor(estimator.statistics_[mouse]["response_scale"]).double()
    n_columns = len(estimator.core_columns_)
    behaviors = torch.zeros(len(images), n_columns).double() if n_columns else None
    return model.respond(mouse, model.encode(mouse, images, behaviors)) * scale


@pytest.mark.parametrize("name", ["LN", "CNN", "V1T", "own"])
def test_at_grey_they_are_finite_differences(models, name):
    estimator, step = models[name], 1e-4
    size = estimator.module_.cropper.output_size
    found = receptive_fields(estimator, method="gradient")
    assert list(found) == ["A", "B"]
    pixels = torch.eye(size[0] * size[1]).double().unflatten(1, (1, *size)) * step
    with v1.nn.plain():
        for mouse, field in found.items():
            up, down = (exact(estimator, mouse, sign * pixels) for sign in (1, -1))
            expected = ((up - down) / (2 * step)).T.detach().numpy()
            most = np.abs(expected).max()
            assert most > 0
            np.testing.assert_allclose(
                field.values.reshape(expected.shape) / most, expected / most, atol=2e-4
            )


def test_of_a_linear_nonlinear_model_they_are_the_filter_times_the_slope(models):
    """Batch normalisation folded, its layers are one filter, and the readout picks a place."""
    estimator = models["LN"]
    model = copy.deepcopy(estimator.module_).double().eval()
    pixels = torch.eye(SHAPE[0] * SHAPE[1]).double().unflatten(1, (1, *SHAPE))
    zero = torch.zeros(1, 1, *SHAPE).double()
    for mouse, field in receptive_fields(estimator, method="gradient").items():
        with torch.no_grad():
            drive, rest = (
                model.respond(mouse, model.encode(mouse, x), activate=False) for x in (pixels, zero)
            )
        kernel = (drive - rest).T  # exact, since it is linear
        slope = torch.where(rest > 0, 1, rest.exp()).T  # of ELU + 1
        scale = torch.as_tensor(estimator.statistics_[mouse]["response_scale"])[:, None]
        expected = (kernel * slope * scale).numpy()
        most = np.abs(expected).max()
        np.testing.assert_allclose(
            field.values.reshape(expected.shape) / most, expected / most, atol=1e-5
        )


@pytest.mark.parametrize("name", ["CNN", "own", "full", "minimodel"])
def test_over_images_they_are_the_mean(models, trials, name):
    estimator, some = models[name], trials[::4]
    found = receptive_fields(estimator, method="gradient", images=some, batch_size=5)
    for mouse, field in found.items():
        images = torch.as_tensor(some.get("stimuli", mouse)).double()
        statistics = estimator.statistics_[mouse]
        images = (images - statistics["image_mean"]) / statistics["image_std"]
        images = copy.deepcopy(estimator.module_.cropper).double()(images).requires_grad_()
        with v1.nn.plain():
            rates = exact(estimator, mouse, images)
            for neuron in range(rates.shape[1]):
                (slope,) = torch.autograd.grad(rates[:, neuron].sum(), images, retain_graph=True)
                expected = slope.mean(0).numpy()
                most = np.abs(expected).max()
                np.testing.assert_allclose(field.values[neuron] / most, expected / most, atol=1e-4)


@pytest.mark.slow
def test_over_normal_noise_they_are_what_covariances_estimate(trials):
    """Stein's lemma."""
    rng = np.random.default_rng(0)
    plain = v1.LNRegressor(
        behavior_mode="none", shift="none", standardize=False, **CNN, **COMMON
    ).fit(trials.get("stimuli", "A") / 128 - 1, None, trials.get("responses", "A"))
    (mouse,) = plain.mice_
    noise = v1.Trials.from_arrays({mouse: rng.normal(size=(1500, 1, *SHAPE)).astype(np.float32)})
    slopes = receptive_fields(plain, method="gradient", images=noise)[mouse]
    covariances = receptive_fields(plain, 30_000, noise="gaussian")[mouse]
    assert slopes.shape == covariances.shape
    for one, other in zip(slopes.values, covariances.values, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95
        assert one.std() == pytest.approx(other.std(), rel=0.1)


def test_mean_squares_show_where_complex_cells_look(models, trials):
    """Filters of one sign, then squared: the slope changes its sign with the contrast."""
    estimator = copy.deepcopy(models["own"])
    core, readout = estimator.module_.core, estimator.module_.readout("A")
    with torch.no_grad():
        core.filters.bias.zero_()
        readout.position_network = None
        readout.free_mu = torch.nn.Parameter(torch.zeros(4, 2))
    assert np.allclose(receptive_fields(estimator, method="gradient", mice="A")["A"], 0)
    both = trials.sel(mouse_id="A")[:8]
    options = {"method": "gradient", "images": both, "mice": "A"}
    found = receptive_fields(estimator, average="rms", **options)["A"][:, 0]
    single = [
        receptive_fields(estimator, **options | {"images": both[[i]]})["A"].values[:, 0]
        for i in range(8)
    ]
    most = np.abs(single).max()
    assert most > 0
    np.testing.assert_allclose(found / most, np.sqrt(np.square(single).mean(0)) / most, atol=1e-5)
    seen = (found > 0).any("neuron")  # 5 x 5 pixels of the filter, between four of its places
    assert seen.any("width").sum() == 6
    assert seen.any("height").sum() == 6


def test_batch_size_changes_rounding_errors_only(models, trials):
    for options in ({}, {"images": trials[::5]}):
        whole = receptive_fields(models["V1T"], method="gradient", **options)["A"].values
        for size in (1, 3, 1000):
            found = receptive_fields(models["V1T"], method="gradient", batch_size=size, **options)
            np.testing.assert_allclose(found["A"].values, whole, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("options", [{"method": "gradient"}, {"n_images": 40}])
def test_some_neurons_in_their_order(models, options):
    whole = receptive_fields(models["CNN"], **options)
    found = receptive_fields(models["CNN"], neurons={"A": [4, 2]}, **options)
    assert found["A"]["neuron"].values.tolist() == [4, 2]
    expected = whole["A"].sel(neuron=[4, 2])
    np.testing.assert_allclose(found["A"], expected, atol=1e-4 * float(np.abs(expected).max()))
    assert found["B"].sizes["neuron"] == 3


def test_labels_and_places(models):
    field = receptive_fields(models["CNN"], method="gradient", mice="B")["B"]
    assert field.attrs["method"] == "gradient"
    assert field.attrs["images"] == "grey"
    assert field.attrs["units"] == "response unit per standard deviation of a pixel"
    rows, columns = models["CNN"].module_.cropper.source_positions()
    np.testing.assert_array_equal(field["height"], rows)
    np.testing.assert_array_equal(field["width"], columns)


def test_behavior_counts(models):
    rest = receptive_fields(models["V1T"], method="gradient")["A"].values
    runs = receptive_fields(models["V1T"], method="gradient", behaviors={"running_speed": 30.0})
    assert np.abs(runs["A"].values - rest).max() > 1e-4 * np.abs(rest).max()  # rounding: 1e-6


def test_the_model_stays_as_it_is(models):
    estimator = models["CNN"]
    before = {name: p.clone() for name, p in estimator.module_.state_dict().items()}
    with torch.inference_mode():  # of the caller
        receptive_fields(estimator, method="gradient")
    assert all(torch.equal(p, before[name]) for name, p in estimator.module_.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in estimator.module_.parameters())


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"n_images": 10}, ValueError, "n_images=10 came for method='gradient'"),
        ({"images": np.zeros((3, 1, *SHAPE))}, TypeError, "images is a ndarray: expected Trials"),
        ({"average": "rms"}, ValueError, "average='rms' is over images, and none came"),
        ({"average": "most"}, ValueError, "average='most': expected one of"),
        ({"neurons": [1, 2]}, TypeError, "neurons is a list: expected a dict of unit ids"),
        ({"neurons": {"C": [1]}}, ValueError, r"neurons names the mice \['C'\]"),
        ({"neurons": {"A": [9]}}, ValueError, "mouse 'A': neurons: .9. are not among its 4"),
        ({"neurons": {"A": [1, 1]}}, ValueError, "mouse 'A'.*each once"),
    ],
)
def test_errors(models, options, kind, message):
    with pytest.raises(kind, match=message):
        receptive_fields(models["CNN"], method="gradient", **options)


def test_images_are_those_of_the_mice_that_are_mapped(models, trials):
    only = trials.sel(mouse_id="A")
    with pytest.raises(ValueError, match=r"images has no trials of the mice \['B'\]"):
        receptive_fields(models["CNN"], method="gradient", images=only)
    with pytest.raises(ValueError, match="images came for method='covariance'"):
        receptive_fields(models["CNN"], 10, images=only)
    found = receptive_fields(models["CNN"], method="gradient", images=only, mice=["A"])
    assert list(found) == ["A"]


@pytest.mark.gpu
def test_cuda_takes_the_same_gradients(models, trials):
    for name in ("CNN", "V1T", "own"):
        on_cpu = receptive_fields(models[name], method="gradient", images=trials[::4])["A"].values
        there = copy.deepcopy(models[name]).set_params(device="cuda")
        found = receptive_fields(there, method="gradient", images=trials[::4])["A"].values
        np.testing.assert_allclose(found, on_cpu, atol=1e-4 * np.abs(on_cpu).max())

"""Receptive fields: against all images kept in float64, closed forms, and the laws of chance."""

import copy

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.exceptions import NotFittedError

import v1tlearn as v1
from tests.held_memory import HeldMemory
from v1tlearn.inspection import fit_gaussians, receptive_fields

SHAPE = (12, 16)
SMALL = {
    v1.CNNRegressor: {"n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3},
    v1.V1TRegressor: {"patch_size": 4, "patch_stride": 4, "n_blocks": 1, "n_heads": 2}
    | {"embed_dim": 8, "mlp_dim": 8},
}
SMALL[v1.LNRegressor] = SMALL[v1.CNNRegressor]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trials():
    recordings = v1.make_v1_recordings(
        n_mice=2, n_neurons=[4, 3], n_trials=30, image_shape=SHAPE, random_state=0
    )
    return v1.Trials(recordings).sel(tier="train")


@pytest.fixture(scope="module")
def fit(trials):
    """Fit tiny models, each once; not to be changed."""
    made = {}

    def get(kind=v1.CNNRegressor, **params):
        key = (kind, *sorted(params.items()))
        if key not in made:
            common = {"batch_size": 16, "max_epochs": 1, "random_state": 0, "device": "cpu"}
            made[key] = kind(**{**common, **SMALL[kind], **params}).fit(trials)
        return made[key]

    return get


@pytest.fixture
def seen():
    """Record all that a core is given until the test ends."""
    handles = []

    def watch(estimator):
        given = []
        hook = estimator.module_.core.register_forward_pre_hook(lambda _, args: given.append(args))
        handles.append(hook)
        return given

    yield watch
    for handle in handles:
        handle.remove()


def brute_force(estimator, mouse, given, n_channels=1):
    """Responses (n, neurons) and pixels (n, pixels) of all images that the core was given."""
    core = copy.deepcopy(estimator.module_.core).double()
    core._forward_pre_hooks.clear()  # what this one is given is not recorded
    readout = copy.deepcopy(estimator.module_.readout(mouse)).double()
    responses, pixels = [], []
    with torch.no_grad():
        for images, behaviors, sizes in given:
            behaviors = None if behaviors is None else behaviors.double()
            features = core(images.double(), behaviors, sizes)
            outputs = readout(features)  # no shift
            rates = torch.where(outputs > 0, outputs + 1, outputs.exp())
            responses.append(rates.numpy() * estimator.statistics_[mouse]["response_scale"])
            pixels.append(images[:, :n_channels].double().flatten(1).numpy())
    return np.concatenate(responses), np.concatenate(pixels)


@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
@pytest.mark.parametrize("method", ["covariance", "sum"])
@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (v1.CNNRegressor, {}),
        (v1.LNRegressor, {"behavior_mode": "none", "crop_scale": 0.8, "shift": "both"}),
        (v1.V1TRegressor, {}),
    ],
)
def test_all_images_kept_give_the_same(fit, seen, kind, params, method, noise):
    estimator = fit(kind, **params)
    given = seen(estimator)
    found = receptive_fields(estimator, 600, method=method, noise=noise)
    assert sum(len(images) for images, *_ in given) == 600  # one pass for both mice
    for mouse, field in found.items():
        responses, pixels = brute_force(estimator, mouse, given)
        if method == "covariance":
            r, z = responses - responses.mean(0), pixels - pixels.mean(0)
            expected = r.T @ z / len(z)
        else:
            grey = pixels / 12**0.5 + 0.5 if noise == "uniform" else pixels
            expected = responses.T @ grey
        expected = expected.reshape(-1, 1, *estimator.module_.cropper.output_size)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(field.values / scale, expected / scale, atol=1e-5)


def test_mice_with_networks_of_their_own(fit, seen):
    estimator = fit(v1.V1TRegressor, behavior_mode="b_mlp_per_mouse")
    given = seen(estimator)
    found = receptive_fields(estimator, 50)
    for mouse, field in found.items():
        own = [args for args in given if args[2][0][0] == mouse]
        responses, pixels = brute_force(estimator, mouse, own)
        expected = (responses - responses.mean(0)).T @ (pixels - pixels.mean(0)) / 50
        np.testing.assert_allclose(field.values.reshape(expected.shape), expected, atol=1e-5)


def test_labels(fit):
    estimator = fit(v1.CNNRegressor)
    found = receptive_fields(estimator, np.int64(20), random_state=3)
    assert {m: f.shape for m, f in found.items()} == {"A": (4, 1, *SHAPE), "B": (3, 1, *SHAPE)}
    field = found["A"]
    assert field.dims == ("neuron", "channel", "height", "width")
    assert field.dtype == np.float32
    assert field.attrs["mouse_id"] == "A"
    assert (field.attrs["n_images"], field.attrs["seed"]) == (20, 3)
    assert (field.attrs["method"], field.attrs["noise"]) == ("covariance", "uniform")
    assert "standard deviation" in field.attrs["units"]


@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
def test_noise_is_standardized_independent_and_never_the_same(fit, seen, noise):
    estimator = fit(v1.LNRegressor, behavior_mode="none")
    given = seen(estimator)
    receptive_fields(estimator, 3000, noise=noise)
    images = torch.cat([args[0] for args in given]).flatten(1).double()
    n = images.numel()
    assert abs(images.mean()) < 4 / n**0.5
    assert abs(images.var() - 1) < 6 / n**0.5
    correlations = images.T @ images / len(images) - torch.eye(images.shape[1])
    assert correlations.abs().max() < 6 / len(images) ** 0.5
    assert len(images.unique(dim=0)) == 3000
    if noise == "uniform":
        assert images.abs().max() <= 3**0.5 + 1e-6
    else:
        assert images.abs().max() > 4


def linear_model(fit, kernel, output=lambda x: x):
    """A model whose neuron is a filter: its field, placed by hand, in units of the responses."""
    estimator = copy.deepcopy(fit(v1.LNRegressor, behavior_mode="none", n_layers=1))
    core, readout = estimator.module_.core, estimator.module_.readout("A")
    convolution, norm = core.layers[0][0], core.layers[0][1]
    features = torch.tensor([1.0, -0.5, 0.25, 2.0])
    height, width = core.output_shape[1:]
    row, column = 3, 5
    with torch.no_grad():
        convolution.weight.copy_(kernel)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        norm.weight.fill_(1)
        norm.bias.zero_()
        readout.features.copy_(features.expand_as(readout.features))
        readout.bias.fill_(50.0)  # far above 0, where the output non-linearity is linear
        readout.position_network = None
        centre = torch.tensor([2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1])
        readout.free_mu = torch.nn.Parameter(centre.repeat(readout.n_neurons, 1))
    size = kernel.shape[-1]
    field = np.zeros(SHAPE)
    weighted = (features[:, None, None] * kernel[:, 0]).sum(0)
    field[row : row + size, column : column + size] = weighted.numpy()
    scale = estimator.statistics_["A"]["response_scale"]
    return estimator, scale[:, None, None, None] * field


@pytest.fixture(scope="module")
def kernel():
    return torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
def test_field_of_a_linear_neuron_is_its_filter(fit, kernel, noise):
    estimator, expected = linear_model(fit, kernel)
    field = receptive_fields(estimator, 4000, noise=noise, mice=["A"])["A"]
    # standard error of a covariance with independent pixels of variance 1
    error = np.sqrt((expected**2).sum((1, 2, 3), keepdims=True) / 4000)
    deviation = (field.values - expected) / error
    assert np.abs(deviation).max() < 6
    assert 0.8 < deviation.std() < 1.2


def test_error_falls_with_the_square_root_of_the_number_of_images(fit, kernel):
    estimator, expected = linear_model(fit, kernel)
    errors = [
        (receptive_fields(estimator, n, mice=["A"])["A"].values - expected).std()
        for n in (500, 8000)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


def test_published_sum_is_noisier_by_the_mean_response(fit, kernel):
    """Centred, it estimates the same filter with a variance that the mean response adds to."""
    estimator, expected = linear_model(fit, kernel)
    n = 4000
    field = receptive_fields(estimator, n, mice=["A"], method="sum")["A"].values * 12**0.5 / n
    centred = field - field.mean((1, 2, 3), keepdims=True)
    target = expected - expected.mean((1, 2, 3), keepdims=True)
    scale = estimator.statistics_["A"]["response_scale"][:, None, None, None]
    error = np.sqrt(((expected**2).sum((1, 2, 3), keepdims=True) + (51 * scale) ** 2) / n)
    assert 0.8 < ((centred - target) / error).std() < 1.2


def test_normal_noise_finds_the_filter_behind_a_nonlinearity(fit, kernel):
    estimator, expected = linear_model(fit, kernel)
    with torch.no_grad():
        estimator.module_.readout("A").bias.fill_(-2.0)  # exponential for most images
    field = receptive_fields(estimator, 20000, mice=["A"], noise="gaussian")["A"].values
    for found, wanted in zip(field, expected, strict=True):
        assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.95


def test_batch_size_changes_rounding_errors_only(fit):
    estimator = fit(v1.CNNRegressor)
    expected = receptive_fields(estimator, 600)["B"].values
    for size in (7, 100, 10**6):
        found = receptive_fields(estimator, 600, batch_size=size)["B"].values
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_seed_decides(fit):
    estimator = fit(v1.CNNRegressor)
    one, same, other = (
        receptive_fields(estimator, 40, random_state=seed)["A"].values for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)
    generator = np.random.default_rng(0)
    drawn = [receptive_fields(estimator, 40, random_state=generator)["A"] for _ in range(2)]
    assert not np.allclose(*drawn)


def test_fields_bear_the_labels_of_the_neurons(fit, trials):
    field = receptive_fields(fit(v1.CNNRegressor), 20)["B"]
    responses = trials.sel(mouse_id="B").responses["B"]
    for name in ("neuron", "area", "layer", "animal_id", "session", "scan"):
        assert field[name].values.tolist() == responses[name].values.tolist()
    assert field["neuron"].values.tolist() == [1, 2, 3]  # of the simulated recordings
    weighted = (field * responses.mean("trial")).transpose("neuron", ...)
    np.testing.assert_allclose(
        weighted.values,
        field.values * responses.values.mean(0)[:, None, None, None],
        rtol=1e-5,
    )
    gaussians = fit_gaussians(field)
    assert gaussians["neuron"].values.tolist() == [1, 2, 3]


def test_neurons_without_ids_go_by_their_place(fit, trials):
    """A count from 0 would be aligned with unit ids that count from 1."""
    plain = {m: trials.get("responses", m) for m in trials.mice}
    stimuli = {m: trials.get("stimuli", m) for m in trials.mice}
    estimator = copy.deepcopy(fit(v1.LNRegressor, behavior_mode="none")).fit(stimuli, None, plain)
    field = receptive_fields(estimator, 20)["B"]
    assert "neuron" not in field.coords
    recorded = trials.sel(mouse_id="B").responses["B"].mean("trial")
    assert (field * recorded).sizes["neuron"] == 3


@pytest.mark.parametrize(
    "params",
    [{}, {"crop_scale": 0.75}, {"image_size": (6, 8)}, {"crop_scale": 0.8, "image_size": (12, 6)}],
)
def test_pixels_lie_where_the_model_looks_in_the_recorded_image(fit, params):
    """The place of a neuron's field, weighted, is that of the derivative by the recorded image."""
    estimator = fit(v1.LNRegressor, behavior_mode="none", position_network=False, **params)
    field = receptive_fields(estimator, 20_000, mice=["A"], noise="gaussian")["A"][:, 0]
    assert field.attrs["image_size"] == list(SHAPE)
    images = torch.randn(200, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    images.requires_grad_()
    model = estimator.module_
    outputs = model.respond("A", model.encode("A", model.cropper(images), None))
    weight = np.abs(field) ** 2
    for neuron in range(4):
        (slope,) = torch.autograd.grad(outputs[:, neuron].sum(), images, retain_graph=True)
        energy = slope.mean(0)[0].numpy() ** 2
        for name, axis in (("height", 1), ("width", 0)):
            places = np.arange(SHAPE[1 - axis])
            expected = (energy.sum(axis) * places).sum() / energy.sum()
            of_neuron = weight[neuron].sum({"height", "width"} - {name})
            found = float((of_neuron * of_neuron[name]).sum() / of_neuron.sum())
            assert abs(found - expected) < 1  # chance, and crops that round


def test_fields_survive_a_file(fit, tmp_path):
    field = receptive_fields(fit(v1.CNNRegressor, image_size=(6, 8)), 20)["A"]
    field.to_netcdf(tmp_path / "fields.nc")
    with xr.open_dataarray(tmp_path / "fields.nc") as again:
        xr.testing.assert_identical(again.drop_attrs(), field.drop_attrs())
    assert field["height"].values.tolist() == [2 * j + 0.5 for j in range(6)]


def test_some_mice_and_untouched_global_numbers(fit):
    estimator = fit(v1.CNNRegressor)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    whole = receptive_fields(estimator, 40)
    assert torch.equal(torch.get_rng_state(), before)
    for mice in (["B"], "B"):
        part = receptive_fields(estimator, 40, mice=mice)
        assert list(part) == ["B"]
        np.testing.assert_allclose(part["B"], whole["B"], rtol=1e-5, atol=1e-8)


def test_behavior_is_zero_to_the_core_unless_given(fit, seen):
    estimator = fit(v1.V1TRegressor)
    given = seen(estimator)
    receptive_fields(estimator, 10)
    assert all((behaviors == 0).all() for _, behaviors, _ in given)
    given.clear()
    receptive_fields(estimator, 10, behaviors={"running_speed": 3.0}, batch_size=10)
    assert len(given) == 2  # mice are scaled each by their own
    column = estimator.core_columns_.index("running_speed")
    for mouse, (_, behaviors, _) in zip("AB", given, strict=True):
        statistics = estimator.statistics_[mouse]
        place = estimator.behavior_names_[mouse].index("running_speed")
        expected = (3 - statistics["behavior_shift"][place]) / statistics["behavior_scale"][place]
        wanted = torch.zeros_like(behaviors)
        wanted[:, column] = expected
        torch.testing.assert_close(behaviors, wanted)


def test_bfloat16_core_with_sums_in_full_precision(fit):
    estimator = fit(v1.V1TRegressor)
    exact = receptive_fields(estimator, 600)["A"].values
    rough = copy.deepcopy(estimator).set_params(precision="bfloat16")
    found = receptive_fields(rough, 600)["A"].values
    assert not np.array_equal(found, exact)
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.99


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(fit):
    estimator, most = fit(v1.LNRegressor, behavior_mode="none", n_layers=1), []
    for n_images in (2000, 30_000):
        with HeldMemory() as held:
            receptive_fields(estimator, n_images)
        most.append(held.most)
    assert most[0] == most[1] > 0


def test_progress(fit, capsys):
    receptive_fields(fit(v1.CNNRegressor), 20)
    assert capsys.readouterr().err == ""
    receptive_fields(fit(v1.CNNRegressor), 20, verbose=1)
    assert "20/20" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_images": 1}, "n_images=1: expected a whole number from 2 on"),
        ({"n_images": 2.5}, "n_images=2.5"),
        ({"noise": "pink"}, "noise='pink': expected one of"),
        ({"method": "mean"}, "method='mean': expected one of"),
        ({"batch_size": 0}, "batch_size=0: expected 'auto' or a whole number"),
        ({"batch_size": "all"}, "batch_size='all'"),
        ({"mice": ["A", "C"]}, r"mice: \['C'\] came, this model has \['A', 'B'\]"),
        ({"mice": []}, r"mice: \[\] came"),
        ({"behaviors": {"licks": 1.0}}, r"behaviors names \['licks'\], the core of this model"),
        ({"behaviors": {"running_speed": np.nan}}, "'running_speed' is nan: expected a finite"),
    ],
)
def test_errors(fit, params, message):
    with pytest.raises(ValueError, match=message):
        receptive_fields(fit(v1.CNNRegressor), **{"n_images": 10, **params})


def test_only_single_fitted_models(fit):
    ensemble = v1.EnsembleRegressor.from_members([fit(v1.CNNRegressor)])
    with pytest.raises(TypeError, match=r"an? .*EnsembleRegressor came: .* take the members"):
        receptive_fields(ensemble, 10)
    with pytest.raises(NotFittedError):
        receptive_fields(v1.CNNRegressor(), 10)


@pytest.mark.gpu
def test_cuda_estimates_the_same_fields(fit, kernel):
    estimator, expected = linear_model(fit, kernel)
    field = receptive_fields(estimator.set_params(device="cuda"), 20000, mice=["A"])["A"].values
    error = np.sqrt((expected**2).sum((1, 2, 3), keepdims=True) / 20000)
    assert np.abs((field - expected) / error).max() < 6

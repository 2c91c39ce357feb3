"""Readout positions: closed forms on the recorded image, of all cores and readouts."""

import copy

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.mice import two_mice
from v1tlearn.inspection import readout_positions, receptive_fields

COMMON = {"batch_size": 16, "max_epochs": 1, "random_state": 0, "device": "cpu"}
CNN = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3}
V1T = {"n_blocks": 1, "n_heads": 2, "embed_dim": 8, "mlp_dim": 8}
SHAPE = (24, 36)


class Blur(v1.nn.Core):
    """A core of somebody else's: strided, padded, with a pool, and no word of where cells lie."""

    def __init__(self, input_shape, hidden=3):
        super().__init__(input_shape)
        channels, height, width = input_shape
        self.filters = torch.nn.Conv2d(channels, hidden, 5, padding=2)
        self.output_shape = (hidden, height // 2, width // 2)

    def forward(self, images, behaviors=None, sizes=None):
        return torch.nn.functional.avg_pool2d(torch.nn.functional.elu(self.filters(images)), 2)


class Everywhere(Blur):
    """Every cell sees the whole image."""

    def forward(self, images, behaviors=None, sizes=None):
        return super().forward(images) + images.mean((1, 2, 3), keepdim=True)


class SaysSo(Everywhere):
    def source_positions(self):
        return tuple(3.0 * torch.arange(n).double() for n in self.output_shape[1:])


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(two_mice(n_neurons=[4, 3], n_trials=30, image_shape=SHAPE)).sel(tier="train")


@pytest.fixture(scope="module")
def fit(trials):
    made = {}

    def get(kind, **params):
        key = (kind, *sorted((name, str(value)) for name, value in params.items()))
        if key not in made:
            made[key] = kind(**{**COMMON, **params}).fit(trials)
        return copy.deepcopy(made[key])

    return get


def put(estimator, mouse, cells, spread):
    """Let the neurons of a mouse look at cells (x, y), with a factor of their covariance."""
    readout = estimator.module_.readout(mouse)
    height, width = readout.core_shape[1:]
    half = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    with torch.no_grad():
        readout.position_network = None
        readout.free_mu = torch.nn.Parameter(torch.tensor(cells) / half - 1)
        readout.sigma.copy_(torch.as_tensor(spread) / half[:, None])


CELLS = [[3.0, 2.0], [0.0, 0.0], [4.5, 1.25], [2.0, 4.0]]
CASES = {  # where cell (0, 0) lies in the recorded image, and the distance of cells, (x, y)
    "CNN": (v1.CNNRegressor, CNN, (2.0, 2.0), (1.0, 1.0)),
    # halved, pixel j is at 2 j + 1/2, and cell 0 at pixel 2
    "CNN, halved": (v1.CNNRegressor, CNN | {"image_size": (12, 18)}, (4.5, 4.5), (2.0, 2.0)),
    "V1T": (v1.V1TRegressor, V1T | {"patch_size": 4, "patch_stride": 2}, (1.5, 1.5), (2.0, 2.0)),
    # padding of 3, and every second place of the convolution
    "V1T, cct": (
        v1.V1TRegressor,
        V1T | {"tokenizer": "cct", "patch_size": 3, "patch_stride": 1},
        (-2.0, -2.0),
        (2.0, 2.0),
    ),
    "own core, measured": (v1.EncodingRegressor, {"core": Blur}, (0.5, 0.5), (2.0, 2.0)),
    "own core, told": (v1.EncodingRegressor, {"core": SaysSo}, (0.0, 0.0), (3.0, 3.0)),
}


@pytest.mark.parametrize("case", CASES)
def test_gaussian_readouts_lie_where_their_cells_lie(fit, case):
    kind, params, start, step = CASES[case]
    estimator = fit(kind, **params)
    angle = 0.4
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    put(estimator, "A", CELLS, (turned * [1.5, 0.5]).astype(np.float32))
    found = readout_positions(estimator)["A"]
    cells = np.array(CELLS)
    np.testing.assert_allclose(found["x"], start[0] + step[0] * cells[:, 0], atol=1e-4)
    np.testing.assert_allclose(found["y"], start[1] + step[1] * cells[:, 1], atol=1e-4)
    np.testing.assert_allclose(found["sigma_x"], 1.5 * step[0], rtol=1e-4)
    np.testing.assert_allclose(found["sigma_y"], 0.5 * step[1], rtol=1e-4)
    np.testing.assert_allclose(found["angle"], angle, rtol=1e-4)


def test_a_crop_is_where_it_was_cut(fit):
    estimator = fit(v1.CNNRegressor, **CNN, crop_scale=0.5)
    put(estimator, "A", CELLS, np.eye(2, dtype=np.float32))
    rows, columns = estimator.module_.cropper.source_positions()
    found = readout_positions(estimator)["A"]
    # cell 0 of filters of 5 pixels is pixel 2 of the crop
    np.testing.assert_allclose(found["x"][[0, 1, 3]], columns[[5, 2, 4]], atol=1e-4)
    np.testing.assert_allclose(found["y"][[0, 1, 3]], rows[[4, 2, 6]], atol=1e-4)


@pytest.mark.parametrize("gaussian", ["full", "uncorrelated", "isotropic"])
def test_spread_is_that_of_the_points_that_are_drawn(fit, gaussian):
    """Readouts read a ramp: what they give is where they looked."""
    estimator = fit(v1.CNNRegressor, **CNN, gaussian=gaussian, init_sigma=0.1)
    found = readout_positions(estimator)["A"]
    readout = estimator.module_.readout("A").train()
    height, width = readout.core_shape[1:]
    ramps = torch.zeros(2, *readout.core_shape)
    ramps[0, 0], ramps[1, 0] = torch.arange(width), torch.arange(height)[:, None]
    with torch.no_grad():
        readout.position_network = None
        readout.free_mu = torch.nn.Parameter(torch.zeros(4, 2))
        readout.features.zero_()[:, 0] = 1
        readout.bias.zero_()
        torch.manual_seed(0)
        x = readout(ramps[:1].expand(20_000, -1, -1, -1))
        y = readout(ramps[1:].expand(20_000, -1, -1, -1))
    angle, wide, high = (found[name].values for name in ("angle", "sigma_x", "sigma_y"))
    variance_x = (np.cos(angle) * wide) ** 2 + (np.sin(angle) * high) ** 2
    variance_y = (np.sin(angle) * wide) ** 2 + (np.cos(angle) * high) ** 2
    np.testing.assert_allclose(x.var(0), variance_x, rtol=0.06)
    np.testing.assert_allclose(y.var(0), variance_y, rtol=0.06)


def test_factorized_readouts_lie_at_the_centre_of_mass(fit):
    estimator = fit(v1.EncodingRegressor, core=Blur, readout="factorized", rank=2)
    readout = estimator.module_.readout("A")
    with torch.no_grad():
        for weights in (readout.rows, readout.columns, readout.channels):
            weights.zero_()
        readout.channels[:, 0, 1], readout.channels[:, 1, 2] = 1.0, -3.0
        readout.rows[:, 0, 2], readout.rows[:, 1, 4] = 1.0, 1.0
        readout.columns[:, 0, 3] = 2.0
        readout.columns[:, 1, 5] = 2.0
        readout.channels[3] = 0.0  # sees nothing
    found = readout_positions(estimator)["A"]
    # the second kernel counts three times: cells 3 and 5 of x, 2 and 4 of y, 2 pixels each
    np.testing.assert_allclose(found["x"][:3], 0.5 + 2 * 4.5, rtol=1e-5)
    np.testing.assert_allclose(found["y"][:3], 0.5 + 2 * 3.5, rtol=1e-5)
    long = np.sqrt(2 * 3 / 16) * 2 * 2  # both cells lie on a diagonal
    widths = np.sort([found["sigma_x"][0], found["sigma_y"][0]])
    np.testing.assert_allclose(widths, [0, long], atol=1e-3)
    assert np.isnan(found["x"][3])
    assert np.isnan(found["sigma_x"][3])
    assert found.attrs["from_cortex"] == 0


@pytest.mark.parametrize(("kernel", "aside"), [(3, 0.0), (4, -0.5)])
def test_minimodels_look_through_their_pools(fit, kernel, aside):
    full = fit(v1.FullModelRegressor, channels=(4, 8), kernels=(5, 3))
    estimator = fit(v1.MinimodelRegressor, full_model=full, hidden_channels=4, hidden_kernel=kernel)
    reading = estimator.module_.readout("B").reading
    with torch.no_grad():
        reading.rows.zero_()[:, 0, 3] = 1
        reading.columns.zero_()[:, 0, 6] = 1
    found = readout_positions(estimator, mice="B")["B"]
    np.testing.assert_allclose(found["y"], 2 * (3 + aside) + 0.5)
    np.testing.assert_allclose(found["x"], 2 * (6 + aside) + 0.5)


@pytest.mark.parametrize("kind", ["cnn", "ln"])
def test_movie_models(kind):
    recordings = v1.make_movie_recordings(1, 3, 6, 1, 3, image_shape=(12, 16), random_state=0)
    movies = v1.Trials(recordings).sel(tier="train")
    if kind == "cnn":
        small = {"hidden_channels": 4, "n_layers": 2, "input_kernel": (5, 3), "hidden_kernel": 3}
        model = v1.MovieCNNRegressor(**small, max_epochs=1, random_state=0, device="cpu")
        estimator = model.fit(movies)
        readout = estimator.module_.readout("A")
        readout = getattr(readout, "readout", readout)
        with torch.no_grad():
            mu = readout.mu().double().numpy()
        height, width = readout.core_shape[1:]
        x, y = 1 + (mu[:, 0] + 1) * (width - 1) / 2, 2 + (mu[:, 1] + 1) * (height - 1) / 2
    else:
        model = v1.MovieLNRegressor(n_lags=3, max_epochs=1, random_state=0, device="cpu")
        estimator = model.fit(movies)
        with torch.no_grad():
            estimator.module_.readout("A").space.zero_()[:, :, :, 4, 9] = -2.0
        x, y = 9.0, 4.0
    found = readout_positions(estimator)["A"]
    np.testing.assert_allclose(found["x"], np.broadcast_to(x, 3), atol=1e-4)
    np.testing.assert_allclose(found["y"], np.broadcast_to(y, 3), atol=1e-4)


def test_measured_cells_are_those_that_cores_tell(fit, monkeypatch):
    for kind, params in (
        (v1.CNNRegressor, CNN),
        (v1.FullModelRegressor, {"channels": (4, 8), "kernels": (6, 3)}),
        (v1.FullModelRegressor, {"channels": (4, 8), "kernels": (5, 4), "pooling": "stride"}),
    ):
        estimator = fit(kind, **params)
        told = readout_positions(estimator)["A"]
        kind = type(estimator.module_.core)
        monkeypatch.setattr(kind, "source_positions", v1.nn.Core.source_positions)
        measured = readout_positions(estimator)["A"]
        monkeypatch.undo()
        np.testing.assert_allclose(measured["x"], told["x"], atol=1e-6)
        np.testing.assert_allclose(measured["y"], told["y"], atol=1e-6)


def test_labels_units_and_cortical_positions(fit, trials):
    found = readout_positions(fit(v1.CNNRegressor, **CNN))["B"]
    assert found["neuron"].values.tolist() == [1, 2, 3]
    assert found["area"].sizes == {"neuron": 3}
    assert found.attrs == {"mouse_id": "B", "image_size": [24, 36], "from_cortex": 1}
    assert found["x"].attrs["units"] == "pixel"
    assert found["position"].attrs["units"] == "micrometre"
    expected = trials.recordings["B"]["position"]
    np.testing.assert_allclose(found["position"], expected)
    assert found["axis"].values.tolist() == ["x", "y", "z"]
    turned = readout_positions(fit(v1.CNNRegressor, **CNN), degrees_per_pixel=(2.0, 1.5))["B"]
    np.testing.assert_allclose(turned["x"], 1.5 * found["x"])
    np.testing.assert_allclose(turned["y"], 2.0 * found["y"])
    assert turned["sigma_x"].attrs["units"] == "degree"
    free = readout_positions(fit(v1.CNNRegressor, **CNN, position_network=False))["B"]
    assert free.attrs["from_cortex"] == 0


def test_receptive_fields_lie_where_readouts_look(fit):
    """Of a model whose filters are one pixel, in the middle."""
    params = {"behavior_mode": "none", "n_layers": 1, "hidden_channels": 4, "input_kernel": 5}
    estimator = fit(v1.LNRegressor, **params, image_size=(12, 18))
    put(estimator, "A", [[3.0, 2.0], [0.0, 0.0], [4.0, 1.0], [2.0, 4.0]], np.eye(2, dtype="f4"))
    with torch.no_grad():
        estimator.module_.core.layers[0][0].weight.zero_()[:, :, 2, 2] = 1.0
        estimator.module_.readout("A").features.fill_(1.0)
    places = readout_positions(estimator)["A"]
    fields = receptive_fields(estimator, method="gradient", mice=["A"])["A"][:, 0]
    for neuron in range(4):
        peak = np.abs(fields[neuron]).argmax(("height", "width"))
        assert float(fields["width"][peak["width"]]) == pytest.approx(float(places["x"][neuron]))
        assert float(fields["height"][peak["height"]]) == pytest.approx(float(places["y"][neuron]))


class NoPlace(v1.nn.Readout):
    def __init__(self, core_shape, n_neurons, **options):
        super().__init__(n_neurons)
        self.weights = torch.nn.Linear(int(np.prod(core_shape)), n_neurons)

    def forward(self, features, shift=None):
        return self.weights(features.flatten(1))


def test_what_has_no_position_says_so(fit, trials):
    with pytest.raises(ValueError, match="Everywhere does not tell where the cells"):
        readout_positions(fit(v1.EncodingRegressor, core=Everywhere))
    estimator = fit(v1.CNNRegressor, **CNN)
    estimator.module_.readouts[0] = NoPlace(estimator.module_.core.output_shape, 4)
    with pytest.raises(ValueError, match="mouse 'A': its NoPlace has no position"):
        readout_positions(estimator)
    with pytest.raises(ValueError, match=r"mice: \['C'\] came"):
        readout_positions(estimator, mice=["C"])
    with pytest.raises(ValueError, match="two positive numbers"):
        readout_positions(estimator, degrees_per_pixel=(1.0, -1.0))
    with pytest.raises(TypeError, match=r"EnsembleRegressor came.*take the members"):
        readout_positions(v1.EnsembleRegressor.from_members([estimator]))


def test_published_grids_are_no_places(fit):
    published = V1T | {"patch_size": 8, "patch_stride": 8, "token_grid": "published"}
    with pytest.raises(ValueError, match="token_grid='true'"):
        readout_positions(fit(v1.V1TRegressor, **published))

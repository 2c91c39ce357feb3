"""One neuron per feature map: the entries of what all neurons read, and their gradients."""

from contextlib import nullcontext

import pytest
import torch

from v1tlearn import nn

MAP = (6, 8, 10)
N = 5


def readouts():
    torch.manual_seed(0)
    gaussian = nn.GaussianReadout(MAP, N)
    torch.nn.init.normal_(gaussian.features)
    edge = nn.GaussianReadout(MAP, N, beyond_map="edge")
    factorized = nn.FactorizedReadout(MAP, N, rank=2, space_init=0.5, channel_init=0.5)
    minimodels = nn.MinimodelReadout(MAP, N, hidden_channels=4, hidden_kernel=3)

    class Foreign(nn.Readout):
        def __init__(self):
            super().__init__(N)
            self.weight = torch.nn.Parameter(torch.randn(N, MAP[0]))

        def forward(self, features, shift=None):
            return features.mean((2, 3)) @ self.weight.T

    return {
        "gaussian": gaussian,
        "edge": edge,
        "factorized": factorized,
        "minimodels": minimodels,
        "foreign": Foreign(),
    }


@pytest.mark.parametrize("name", list(readouts()))
@pytest.mark.parametrize("shifted", [False, True])
def test_each_reads_its_own(name, shifted):
    readout = readouts()[name].double().eval()
    if shifted and not readout.takes_shift:
        pytest.skip(f"receptive fields of {name} do not move")
    neurons = torch.tensor([3, 0, 3, 4, 1, 2, 0])
    features = torch.randn(7, *MAP, dtype=torch.float64, requires_grad=True)
    shift = 0.4 * torch.randn(7, 2, dtype=torch.float64) if shifted else None
    found = readout.read_each(features, neurons, shift)
    expected = readout(features, shift)[torch.arange(7), neurons]
    torch.testing.assert_close(found, expected)
    weights = torch.randn(7, dtype=torch.float64)
    (ours,) = torch.autograd.grad(found @ weights, features)
    (theirs,) = torch.autograd.grad(expected @ weights, features)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["elu", "of each neuron"])
def test_rates_of_each(kind):
    class OfEachNeuron(nn.Head):
        def forward(self, outputs):
            return outputs * torch.arange(1, N + 1)

    core = nn.Stacked2dCore((1, 12, 14), n_layers=1, hidden_channels=6, input_kernel=5)
    readout = nn.GaussianReadout(core.output_shape, N)
    head = nn.EluHead() if kind == "elu" else OfEachNeuron()
    cropper = nn.ImageCropper((12, 14))
    model = nn.EncodingModel(core, {"A": readout}, cropper=cropper, heads={"A": head}).eval()
    features = model.encode("A", torch.randn(4, 1, 12, 14))
    neurons = torch.tensor([4, 1, 1, 0])
    for activate in (True, False):
        found = model.respond_each("A", features, neurons, activate=activate)
        expected = model.respond("A", features, activate=activate)[torch.arange(4), neurons]
        torch.testing.assert_close(found, expected)


CORES = {
    "one layer": {"n_layers": 1, "input_kernel": 5},
    "three layers": {"n_layers": 3, "input_kernel": 5, "hidden_kernel": 3},
    "full convolutions": {"n_layers": 2, "input_kernel": 4, "depth_separable": False},
    "sees all of the height": {"n_layers": 3, "input_kernel": 5, "hidden_kernel": 5},
    "linear": {"n_layers": 2, "input_kernel": 3, "hidden_kernel": 3, "linear": True},
}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", list(CORES))
@pytest.mark.parametrize("beyond_map", ["zeros", "edge"])
def test_the_part_that_a_neuron_sees_is_enough(name, beyond_map, plain):
    """Neurons all over the map, at its corners, and moved beyond it; with planes of behaviour."""
    torch.manual_seed(0)
    size, n = (14, 23), 40
    core = nn.Stacked2dCore((3, *size), hidden_channels=4, **CORES[name])
    for norm in core.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(norm.running_mean)
            torch.nn.init.normal_(norm.bias)
    readout = nn.GaussianReadout(core.output_shape, n, beyond_map=beyond_map)
    torch.nn.init.normal_(readout.features)
    torch.nn.init.uniform_(readout.free_mu, -1, 1)
    with torch.no_grad():
        readout.free_mu[:4] = torch.tensor([[-1.0, -1], [1, 1], [-1, 1], [0, 0]])
    shifter = nn.Shifter()
    for weights in shifter.parameters():
        torch.nn.init.normal_(weights)
    cropper = nn.ImageCropper(size)
    model = nn.EncodingModel(
        core, {"A": readout}, cropper=cropper, shifters={"A": shifter}, behavior_channels=True
    )
    model = model.double().eval()
    images = torch.randn(n, 1, *size, dtype=torch.float64, requires_grad=True)
    behaviors, pupil = torch.randn(n, 2).double(), torch.randn(n, 2).double()
    neurons = torch.randperm(n)
    for eye in (None, pupil):
        with nn.plain() if plain else nullcontext():
            found = model.respond_to_each("A", images, neurons, behaviors, eye)
            features = model.encode("A", images, behaviors)
            expected = model.respond_each("A", features, neurons, eye)
        torch.testing.assert_close(found, expected)
        weights = torch.randn(n, dtype=torch.float64)
        (ours,) = torch.autograd.grad(found @ weights, images)
        (theirs,) = torch.autograd.grad(expected @ weights, images)
        torch.testing.assert_close(ours, theirs)


def test_cores_and_readouts_that_see_more_get_whole_images():
    class Centred(nn.Stacked2dCore):
        def forward(self, images, behaviors=None, sizes=None):
            maps = super().forward(images, behaviors, sizes)
            return maps - maps.mean((2, 3), keepdim=True)

    class Everywhere(nn.GaussianReadout):
        def forward(self, features, shift=None):
            return super().forward(features, shift) + features.mean((1, 2, 3))[:, None]

    options = {"n_layers": 2, "hidden_channels": 6, "input_kernel": 3, "hidden_kernel": 3}
    for core_kind, readout_kind in (
        (Centred, nn.GaussianReadout),
        (nn.Stacked2dCore, Everywhere),
        (nn.Stacked2dCore, nn.FactorizedReadout),
    ):
        core = core_kind((1, 16, 20), **options)
        readout = readout_kind(core.output_shape, N)
        model = nn.EncodingModel(core, {"A": readout}, cropper=nn.ImageCropper((16, 20))).eval()
        images, neurons = torch.randn(4, 1, 16, 20), torch.tensor([4, 1, 1, 0])
        found = model.respond_to_each("A", images, neurons)
        expected = model.respond("A", model.encode("A", images))[torch.arange(4), neurons]
        torch.testing.assert_close(found, expected)

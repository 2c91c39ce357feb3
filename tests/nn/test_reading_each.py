"""One neuron per feature map: the entries of what all neurons read, and their gradients."""

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

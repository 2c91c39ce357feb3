"""Receptive fields that the eye moves beyond the feature map, and neurons that are lost there."""

import numpy as np
import pytest
import torch

import v1tlearn as v1
from v1tlearn.nn import GaussianReadout


def readout(beyond_map, n_neurons=4):
    torch.manual_seed(0)
    made = GaussianReadout((3, 5, 6), n_neurons, beyond_map=beyond_map).eval()
    with torch.no_grad():
        made.features.normal_()
    return made


@pytest.mark.parametrize("shift", [0.0, 0.4, -0.6])
def test_on_the_map_nothing_changes(shift):
    features, moved = torch.randn(2, 3, 5, 6), torch.full((2, 2), shift)
    torch.testing.assert_close(
        readout("edge")(features, moved), readout("zeros")(features, moved), rtol=0, atol=0
    )


@pytest.mark.parametrize("away", [1.5, -1.5])
def test_beyond_the_map_its_edge_is_read_and_gradients_lead_back(away):
    features = torch.randn(3, 3, 5, 6)
    column = 5 if away > 0 else 0
    edge, zeros = readout("edge"), readout("zeros")
    for one in (edge, zeros):
        with torch.no_grad():
            one.free_mu[:, 1] = 0.0  # the middle row
    shift = torch.zeros(3, 2)
    shift[:, 0] = 2 * away
    expected = features[:, :, 2, column] @ edge.features.T
    torch.testing.assert_close(edge(features, shift), expected, rtol=0, atol=1e-4)
    assert not zeros(features, shift).any()
    inwards = {}
    for sign in (1.0, -1.0):
        moved = shift.clone().requires_grad_()
        (sign * edge(features, moved)).sum().backward()
        inwards[sign] = moved.grad[:, 0] * np.sign(away)
    # descent goes against the gradient: what leads back is there, what leads away is not
    assert all((gradient >= 0).all() for gradient in inwards.values())
    assert all(inwards[1.0][i] or inwards[-1.0][i] for i in range(3))
    inside = shift.clone().fill_(0.2).requires_grad_()
    edge(features, inside).sum().backward()
    assert inside.grad.all()


def test_a_shifter_that_moved_all_neurons_off_the_map_comes_back():
    torch.manual_seed(0)
    features = torch.randn(64, 3, 5, 6)
    found = {}
    for beyond_map in ("edge", "zeros"):
        one = readout(beyond_map)
        target = one(features, torch.zeros(64, 2)).detach()
        shift = torch.full((2,), 2.0, requires_grad=True)
        optimizer = torch.optim.Adam([shift], lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            (one(features, shift.expand(64, -1)) - target).square().mean().backward()
            optimizer.step()
        found[beyond_map] = shift.detach()
    assert (found["zeros"] == 2).all()
    assert (found["edge"].abs() < 0.9).all()  # on the map again


def test_derivatives_on_the_map_are_those_of_the_plain_mathematics():
    one = readout("edge").double().train(False)
    features = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    shift = torch.rand(2, 2, dtype=torch.float64).mul_(0.1).requires_grad_()
    assert torch.autograd.gradcheck(one, (features, shift))
    with v1.nn.plain():
        assert torch.autograd.gradcheck(one, (features, shift))
        assert torch.autograd.gradgradcheck(one, (features, shift))
    jacobian = torch.func.jacrev(lambda s: one(features.detach(), s))
    assert torch.isfinite(torch.func.jacrev(jacobian)(shift.detach())).all()


def test_the_default_keeps_them_on_the_map_and_presets_are_as_published(small):
    assert small().beyond_map == "edge"
    for kind, name in ((v1.CNNRegressor, "sensorium2022"), (v1.V1TRegressor, "v1t2023")):
        assert kind.from_preset(name).beyond_map == "zeros"
    with pytest.raises(ValueError, match="beyond_map"):
        small(beyond_map="reflection").fit([[1]])


def off_the_map(mouse):
    """What moves all neurons of a mouse off the map after each epoch."""

    def told(record):
        with torch.no_grad():
            told.model.module_.shifter(mouse).network[-2].bias.fill_(-20.0)

    return told


@pytest.mark.parametrize("beyond_map", ["edge", "zeros"])
def test_a_mouse_whose_neurons_are_lost_is_told(small, trials, beyond_map):
    move = off_the_map("A")  # its positions are on the left, in the upper half
    move.model = small(beyond_map=beyond_map, max_epochs=2, lr=1e-5, validation_fraction=0)
    with pytest.warns(UserWarning, match="mouse 'A': 5 of 5 neurons cannot follow") as caught:
        # the second epoch begins where the first was moved to, and hardly moves
        move.model.fit(trials, on_epoch=move)
    assert [w.filename for w in caught] == [__file__]


def test_constant_predictions_are_told(trials):
    class Constant(v1.nn.Core):
        def __init__(self, input_shape):
            super().__init__(input_shape)
            self.output_shape = (2, *input_shape[1:])
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, images, behaviors=None, sizes=None):
            return self.weight.expand(len(images), *self.output_shape)

    model = v1.EncodingRegressor(Constant, max_epochs=1, shift="none", device="cpu")
    with pytest.warns(UserWarning, match="5 are predicted to be constant"):
        model.fit(trials.sel(mouse_id="A"))


class Noted(GaussianReadout):
    """Notes for how many trials at a time positions are asked."""

    def shifted(self, points, shift):
        self.most = max(getattr(self, "most", 0), len(shift))
        return super().shifted(points, shift)


def test_positions_of_many_trials_are_looked_at_block_by_block():
    recordings = v1.make_v1_recordings(
        n_mice=1, n_neurons=3, n_trials=150, n_test_images=2, n_repeats=2, image_shape=(8, 8)
    )

    class Plain(v1.nn.Core):
        def __init__(self, input_shape):
            super().__init__(input_shape)
            self.output_shape = input_shape

        def forward(self, images, behaviors=None, sizes=None):
            return images

    model = v1.EncodingRegressor(
        Plain, readout=Noted, max_epochs=1, batch_size=8, shift="readout", device="cpu"
    )
    model.fit(v1.Trials(recordings).sel(tier="train"))
    assert model.module_.readout("A").most <= 64


def test_the_history_tells_the_mice_apart(small, trials):
    model = small(max_epochs=2).fit(trials)
    for record in model.history_:
        own = [record[f"validation_correlation_{mouse}"] for mouse in trials.mice]
        assert record["validation_correlation"] == pytest.approx(np.mean(own))

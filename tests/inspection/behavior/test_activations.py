"""Outputs of behaviour networks against the networks by hand."""

import numpy as np
import pytest

import v1tlearn as v1
from tests.inspection.behavior.conftest import VIT
from v1tlearn.inspection import BehaviorActivationDisplay, behavior_activations


def by_hand(model, trials, mouse, network):
    statistics = model.statistics_[mouse]
    raw = trials.get("behaviors", mouse).astype(float)
    x = (raw - statistics["behavior_shift"]) / statistics["behavior_scale"]
    first, _, second, _ = network
    x = np.tanh(x @ first.weight.detach().numpy().T + first.bias.detach().numpy())
    return np.tanh(x @ second.weight.detach().numpy().T + second.bias.detach().numpy())


@pytest.mark.parametrize(
    ("mode", "blocks"),
    [
        ("b_mlp", [0, 1, 2]),
        ("b_mlp_first_block", [0]),
        ("b_mlp_shared", [0]),
        ("b_mlp_per_mouse", [0, 1, 2]),
    ],
)
def test_networks_by_hand(trials, test, mode, blocks):
    model = v1.V1TRegressor(**VIT, behavior_mode=mode).fit(trials.sel(tier="train"))
    found = behavior_activations(model, test[::-1])
    for number, (mouse, own) in enumerate(found.items()):
        assert own.dims == ("block", "trial", "unit")
        assert own["block"].values.tolist() == blocks
        for block in blocks:
            networks = model.module_.core.behavior_mlp(block).networks
            network = networks[number if mode == "b_mlp_per_mouse" else 0]
            expected = by_hand(model, test[::-1], mouse, network)
            assert expected.std() > 1e-4
            np.testing.assert_allclose(own.sel(block=block), expected, atol=1e-5)
        assert own["image_id"].values.tolist() == test[::-1][mouse]["image_id"].values.tolist()


def test_models_without_networks(cnn, trials, test):
    with pytest.raises(ValueError, match="no behaviour networks: its core is a Stacked2dCore"):
        behavior_activations(cnn, test)
    plain = v1.V1TRegressor(**VIT, behavior_mode="none").fit(trials.sel(tier="train"))
    with pytest.raises(ValueError, match="ViTCore with behavior_mode='none'"):
        behavior_activations(plain, test)


def test_distributions_sum_to_one(figures, trials, test):
    model = v1.V1TRegressor(**VIT).fit(trials.sel(tier="train"))
    display = BehaviorActivationDisplay.from_estimator(model, test, n_bins=20)
    assert len(display.axes_) == 3
    for axis in display.axes_:
        assert len(axis.patches) == 2  # mice
        for stairs in axis.patches:
            values, edges, _ = stairs.get_data()
            assert values.sum() == pytest.approx(1)
            assert (edges[0], edges[-1]) == (-1, 1)
    found = behavior_activations(model, test)
    with pytest.raises(ValueError, match="ahead of different blocks"):
        BehaviorActivationDisplay({"A": found["A"], "B": found["B"].isel(block=[0])})
    with pytest.raises(ValueError, match="at least one mouse"):
        BehaviorActivationDisplay({})

"""Groups of parameters: which there are, in which order, and what they keep of an earlier run."""

import copy

import pytest
import torch

from tests.training.loop_runs import make_model
from v1tlearn import nn
from v1tlearn.training import clip_gradients, make_optimizer, update_groups


def test_the_core_comes_first_and_the_rest_second():
    model = make_model()
    core, rest = make_optimizer(model, "adamw", lr=0.1, core_lr=0.01, weight_decay=0.2).param_groups
    others = [p for name, p in model.named_parameters() if not name.startswith("core.")]
    assert [id(p) for p in core["params"]] == [id(p) for p in model.core.parameters()]
    assert [id(p) for p in rest["params"]] == [id(p) for p in others]
    assert (core["lr"], rest["lr"], core["weight_decay"]) == (0.01, 0.1, 0.2)
    core, rest = make_optimizer(model, lr=0.1).param_groups
    assert core["lr"] == rest["lr"] == 0.1


def test_a_frozen_core_is_left_out():
    model = make_model()
    model.core.freeze()
    assert make_optimizer(model, lr=0.1).param_groups[0]["params"] == []


class TwoRates(nn.Stacked2dCore):
    """Its first layer learns more slowly than the others."""

    def groups(self):
        first = list(self.layers[0].parameters())
        others = [p for layer in self.layers[1:] for p in layer.parameters()]
        return [{"params": first, "lr": 1e-5}, {"params": others}]


class Decayed(nn.GaussianReadout):
    def groups(self):
        others = [p for p in self.parameters() if p is not self.features]
        return [{"params": [self.features], "weight_decay": 0.5}, {"params": others}]


def test_modules_have_rates_and_decays_of_their_own():
    core = TwoRates((3, 8, 10), n_layers=2, hidden_channels=4, input_kernel=3, hidden_kernel=3)
    model = make_model(core=core)
    model.readouts[1] = Decayed(core.output_shape, 3)
    groups = make_optimizer(model, lr=0.1, core_lr=0.01, weight_decay=0.2).param_groups
    assert [group["lr"] for group in groups] == [0.01, 1e-5, 0.1, 0.1]
    assert [group["weight_decay"] for group in groups] == [0.2, 0.2, 0.5, 0.2]
    assert groups[1]["params"][0] is core.layers[0][0].weight
    assert groups[2]["params"][0] is model.readouts[1].features
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())  # each once


def test_rates_that_were_lowered_stay_unless_others_are_asked_for():
    model = make_model()
    optimizer = make_optimizer(model, lr=0.1, core_lr=0.01)
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    saved = copy.deepcopy(optimizer.state_dict())
    now = make_optimizer(model, lr=0.1, core_lr=0.02, weight_decay=0.3)
    now.load_state_dict(update_groups(saved, now))
    assert [group["lr"] for group in now.param_groups] == [0.02, 0.05]
    assert all(group["weight_decay"] == 0.3 for group in now.param_groups)


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 1.0), (-0.1, 0.9)])
def test_betas_are_checked(betas):
    with pytest.raises(ValueError, match="expected two numbers from 0 to below 1"):
        make_optimizer(make_model(), lr=0.1, betas=betas)


def test_steps_are_those_of_torch():
    models = [make_model(), make_model()]
    options = {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1}
    ours = make_optimizer(models[0], "adamw", **options)
    theirs = torch.optim.AdamW(models[1].parameters(), fused=True, **options)
    for model, optimizer in zip(models, (ours, theirs), strict=True):
        sum(p.square().sum() for p in model.parameters()).backward()
        optimizer.step()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


def test_the_norm_of_millions_of_gradients_is_right_to_the_last_digits():
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (3_000_000, 5, 2)]
    for p in parameters[:2]:
        p.grad = torch.full_like(p, 0.1)
    norm = 0.1 * 3_000_005**0.5
    clip_gradients(parameters, 2 * norm)
    assert all((p.grad == 0.1).all() for p in parameters[:2])
    clip_gradients(parameters, 1.0)
    for p in parameters[:2]:
        torch.testing.assert_close(p.grad, torch.full_like(p, 0.1 / norm), rtol=1e-6, atol=0)
    assert parameters[2].grad is None

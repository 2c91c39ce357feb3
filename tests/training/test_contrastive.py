"""The alignment as an objective: exact in parts, repeats, ranks, a run that knows none of it."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from v1tlearn import nn
from v1tlearn.training import (
    ConstantSchedule,
    ContrastiveObjective,
    MouseData,
    Run,
    TrainingSettings,
    initial_rng,
    make_optimizers,
    new_state,
    train,
)
from v1tlearn.training.contrastive import first_ranks

SIZES = {"A": (12, 6), "b.2": (9, 3)}


@pytest.fixture(autouse=True)
def _generator_as_found():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def make_data(seed=0, repeats=2, streamed=False):
    """Responses that are linear in the image; every image `repeats` times."""
    generator = torch.Generator().manual_seed(seed)
    data = {}
    for mouse, (n, n_neurons) in SIZES.items():
        shown = torch.randint(0, 256, (n, 1, 8, 10), generator=generator)
        filters = torch.randn(80, n_neurons, generator=generator) / 400
        labels = torch.arange(n).repeat(repeats)
        responses = (shown.flatten(1).float() @ filters)[labels]
        responses = responses + 0.01 * torch.randn(responses.shape, generator=generator)
        data[mouse] = MouseData(
            shown[labels].to(torch.uint8),
            image_mean=128.0,
            image_std=64.0,
            labels=labels,
            responses=responses,
            scale_trials=len(labels),
        )
    return data


def make_model(dropout=0.0, seed=0):
    torch.manual_seed(seed)
    core = nn.CNNTower((1, 8, 10), (2, 4, 5), hidden_channels=6, n_layers=2, input_kernel=3)
    towers = {
        m: nn.MLPTower(
            n, (2, 4, 5), grid=(4, 5), hidden_units=(12,), hidden_channels=4, dropout=dropout
        )
        for m, (_, n) in SIZES.items()
    }
    return nn.AlignmentModel(core, towers, cropper=nn.ImageCropper((8, 10)), temperature=0.1)


def batch_of(data, rows=slice(None)):
    return {m: d.batch(rows) for m, d in data.items()}, {
        m: d.targets(rows) for m, d in data.items()
    }


def gradients(model, objective, data):
    inputs, targets = batch_of(data)
    losses = objective.loss(model, inputs, targets, data, {m: len(d) for m, d in data.items()})
    sum(loss.minimised for loss in losses.values()).backward()
    return losses, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("at_once", [1, 5, 17, 100])
@pytest.mark.parametrize("weights", [(1, 0, 0), (1, 0.5, 0.5)])
def test_parts_have_the_gradient_of_the_batch(at_once, weights):
    data, model = make_data(), make_model().double()
    for mouse in data.values():
        mouse.responses = mouse.responses.double()
    whole = copy.deepcopy(model)
    images = {m: d.images for m, d in data.items()}

    def as_double(objective, model):
        inputs, targets = batch_of(data)
        inputs = {m: b._replace(images=b.images.double()) for m, b in inputs.items()}
        losses = objective.loss(model, inputs, targets, data, {})
        sum(loss.minimised for loss in losses.values()).backward()
        return {m: loss.minimised.item() for m, loss in losses.items()}

    expected = as_double(ContrastiveObjective(weights), whole)
    found = as_double(ContrastiveObjective(weights, at_once=at_once), model)
    assert images.keys() == found.keys()
    assert found == pytest.approx(expected, rel=1e-12)
    for (name, one), other in zip(model.named_parameters(), whole.parameters(), strict=True):
        if name != "log_temperature":
            assert other.grad.abs().max() > 0, name
            assert torch.allclose(one.grad, other.grad, rtol=1e-9, atol=1e-12), name


def test_parts_keep_maps_and_no_activations():
    data, kept = make_data(), []
    for at_once in (None, 2):
        held = 0

        def note(tensor):
            nonlocal held
            held = held + tensor.numel()
            return tensor

        inputs, targets = batch_of(data)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            ContrastiveObjective(at_once=at_once).loss(make_model(), inputs, targets, data, {})
        kept.append(held)
    assert kept[1] < kept[0] / 2


def test_dropout_is_the_same_when_parts_are_computed_again():
    data, model = make_data(), make_model(dropout=0.5).train()
    torch.manual_seed(3)
    losses, found = gradients(model, ContrastiveObjective(at_once=24), data)
    torch.manual_seed(3)
    whole = copy.deepcopy(model)
    whole.zero_grad()
    expected_losses, expected = gradients(whole, ContrastiveObjective(), data)
    # one part per mouse: the same draws, so only the second computation could differ
    for mouse, loss in losses.items():
        assert loss.summed.item() == pytest.approx(expected_losses[mouse].summed.item(), rel=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-6), name


def test_repeats_are_no_negatives():
    data = make_data(repeats=1)
    inputs, targets = batch_of(data)
    doubled = {m: nn.MouseBatch(b.images.repeat(2, 1, 1, 1)) for m, b in inputs.items()}
    twice = {m: (t.repeat(2, 1), None) for m, (t, _) in targets.items()}
    labelled = {m: b._replace(labels=data[m].labels.repeat(2)) for m, b in doubled.items()}
    model, objective = make_model(), ContrastiveObjective()
    once = objective.loss(model, inputs, targets, data, {})
    known = objective.loss(model, labelled, twice, data, {})
    unknown = objective.loss(model, doubled, twice, data, {})
    for mouse in data:
        # each negative twice, and never a repeat among them
        assert known[mouse].minimised < unknown[mouse].minimised
        assert known[mouse].minimised > once[mouse].minimised


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_ranks_in_any_order(seed, n, n_images):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_images, n)
    gallery = rng.normal(size=(n_images, 3))
    images, responses = gallery[labels], rng.normal(size=(n, 3))
    ranks = first_ranks(*(torch.from_numpy(x) for x in (responses, images, labels)))
    cosine = [[r @ g / np.linalg.norm(r) / np.linalg.norm(g) for g in gallery] for r in responses]
    there = sorted(set(labels.tolist()))
    expected = [
        1 + sum(cosine[i][g] > cosine[i][labels[i]] for g in there if g != labels[i])
        for i in range(n)
    ]
    assert ranks.tolist() == expected
    order = rng.permutation(n)
    moved = first_ranks(*(torch.from_numpy(x[order]) for x in (responses, images, labels)))
    assert moved.tolist() == ranks[order].tolist()


def test_maps_without_contrast_find_nothing():
    flat = torch.zeros(4, 1, 2, 2)
    assert first_ranks(flat, flat, torch.arange(4)).tolist() == [4] * 4
    assert first_ranks(torch.rand(4, 1, 2, 2), flat, torch.arange(4)).tolist() == [4] * 4


def make_run(max_epochs, *, at_once=None, selection="top1", state=None, batch_size=24):
    model = make_model()
    return Run(
        model,
        ContrastiveObjective(at_once=at_once, selection=selection),
        make_optimizers(model, image_lr=3e-3, neural_lr=3e-3),
        ConstantSchedule(),
        make_data(),
        TrainingSettings(batch_size, max_epochs, micro_batch_size="auto"),
        state if state is not None else new_state(initial_rng(0)),
        validation=make_data(),
    )


def test_a_run_trains_the_alignment_and_tells_its_scores():
    state = train(make_run(60))
    history = state["history"]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    found = [record["validation_top1"] for record in history]
    assert found[-1] > max(0.6, found[0])  # chance is 0.1
    last = history[-1]
    assert last["validation_score"] == -last["validation_loss"]
    for name in ("validation_loss", "validation_top1"):
        own = [last[f"{name}_{mouse}"] for mouse in SIZES]
        assert last[name] == pytest.approx(sum(own) / 2)
    assert set(last) >= {"lr", "penalty", "seconds", "epoch"}


def test_a_run_in_parts_is_the_same_run():
    whole, parts = (train(make_run(3, at_once=at_once)) for at_once in (None, 7))
    for one, other in zip(whole["history"], parts["history"], strict=True):
        for name in ("loss", "validation_loss"):
            assert one[name] == pytest.approx(other[name], rel=1e-4)


def test_a_run_goes_on_where_it_was():
    whole = train(make_run(4))
    first = train(make_run(2))
    rest = train(make_run(2, state=copy.deepcopy(first)))
    for name, weight in whole["model"].items():
        assert torch.equal(weight, rest["model"][name]), name


def test_shuffled_pairs_are_found_by_chance():
    run = make_run(30)
    generator = torch.Generator().manual_seed(5)
    for mouse in run.data.values():
        mouse.responses = mouse.responses[torch.randperm(len(mouse), generator=generator)]
    assert train(run)["history"][-1]["validation_top1"] < 0.4


def test_responses_that_were_not_recorded_reach_no_loss():
    data, losses = make_data(), []
    for filler in (0.0, 1e6):
        inputs, targets = batch_of(data)
        recorded = (
            torch.rand(targets["A"][0].shape, generator=torch.Generator().manual_seed(1)) > 0.3
        )
        scaled = {m: torch.ones(n) for m, (_, n) in SIZES.items()}
        model = make_model()
        model.scalers = torch.nn.ModuleList(
            nn.ResponseScaler(0 * one, one, one / 2) for one in scaled.values()
        )
        targets["A"] = torch.where(recorded, targets["A"][0], filler), recorded
        losses.append(ContrastiveObjective().loss(model, inputs, targets, data, {})["A"].summed)
    assert losses[0].item() == losses[1].item()


def test_optimizers_of_a_frozen_image_tower_leave_it_out():
    model = make_model()
    assert len(make_optimizers(model)) == 2
    model.core.freeze()
    (neural,) = make_optimizers(model)
    assert isinstance(neural, torch.optim.RMSprop)
    _, found = gradients(model, ContrastiveObjective(), make_data())
    assert not any(name.startswith("core.") for name in found)

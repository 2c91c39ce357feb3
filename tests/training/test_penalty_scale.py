"""The scale of penalties beside the loss."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from v1tlearn import nn
from v1tlearn.training import MouseData, PoissonObjective, TrainingSettings
from v1tlearn.training.steps import backward

SHAPE = (2, 3, 4)
TRIALS = st.integers(1, 60)
NEURONS = st.integers(1, 5)
LOSS_SCALES = st.sampled_from(["sqrt", "sqrt_recording", 0.5, "per_neuron", "per_recorded"])
MEANS = ("per_neuron", "per_recorded")


class Scaled(nn.Core):
    """Images times a weight per channel, whose absolute values are the penalty."""

    def __init__(self):
        super().__init__(SHAPE)
        self.output_shape = SHAPE
        self.weights = torch.nn.Parameter(torch.tensor([[[0.5]], [[-2.0]]]))

    def forward(self, images, behaviors=None, sizes=None):
        return images * self.weights

    def penalty(self):
        return 0.3 * self.weights.abs().sum()


def readout(n_neurons, seed):
    made = nn.FactorizedReadout(
        SHAPE, n_neurons, space_l1=0.2, channel_l2=0.7, channel_hoyer=0.1, channel_init=1.0
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in made.parameters():
            weights.copy_(torch.rand(weights.shape, generator=generator) + 0.1)
    return made


def model_of(readouts):
    return nn.EncodingModel(Scaled(), readouts, cropper=nn.ImageCropper(SHAPE[1:])).double()


def trials_of(n_trials, n_neurons, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    images, responses = (
        torch.rand(n_trials, *SHAPE, **draw),
        torch.rand(n_trials, n_neurons, **draw),
    )
    return MouseData(images, responses=responses, scale_trials=n_trials)


def twice(values, dim=0):
    return torch.cat([values, values], dim)


def repeated(trials):
    return MouseData(
        twice(trials.images),
        responses=twice(trials.responses),
        scale_trials=2 * trials.scale_trials,
    )


def step(model, data, rows=slice(None), **scales):
    """Loss and penalty as they are minimised, and the gradient of both, of all mice in a pass."""
    objective = PoissonObjective(**scales)
    inputs = {m: nn.MouseBatch(d.images[rows]) for m, d in data.items()}
    targets = {m: (d.responses[rows], None) for m, d in data.items()}
    sizes = {m: len(batch.images) for m, batch in inputs.items()}
    losses = objective.loss(model, inputs, targets, data, sizes)
    loss = sum(found.minimised for found in losses.values()).item()
    model.zero_grad()
    whole = TrainingSettings(100, 1, micro_batch_size=100)
    _, _, penalty = backward(model, objective, inputs, targets, data, whole)
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss, penalty.item(), gradients


@given(
    sizes=st.dictionaries(st.sampled_from("ABC"), st.tuples(TRIALS, NEURONS), min_size=1),
    loss_scale=LOSS_SCALES,
)
def test_relative_penalties_are_shares_of_those_of_a_published_mouse(sizes, loss_scale):
    model = model_of({m: readout(n, i) for i, (m, (_, n)) in enumerate(sizes.items())})
    data = {m: trials_of(*size, 0) for m, size in sizes.items()}
    objective = PoissonObjective(loss_scale=loss_scale, penalty_scale="relative")
    expected = 0.0
    for mouse, (n_trials, n_neurons) in sizes.items():
        root = (n_trials / 4500) ** 0.5 if str(loss_scale).startswith("sqrt") else 1.0
        of_readout, share = model.readout(mouse).penalty().item(), n_neurons / 8000
        if loss_scale in MEANS:
            of_readout, share = of_readout / n_neurons, 1.0
        expected += root * (share * 0.3 * 2.5 + of_readout)
    assert objective.penalty(model, data).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss_scale", ["sqrt", "sqrt_recording", 1.0, *MEANS])
def test_of_mice_of_the_published_size_they_are_what_was_published(loss_scale):
    """One penalty of the core for each mouse, since each had a pass of its own."""
    model = model_of({"A": readout(8000, 0), "B": readout(8000, 1)})
    data = {m: MouseData(torch.zeros(1, *SHAPE), scale_trials=4500) for m in "AB"}
    scales = {"loss_scale": loss_scale}
    absolute = PoissonObjective(**scales)
    published = sum(absolute.penalty(model, {m: data[m]}) for m in "AB")
    relative = PoissonObjective(**scales, penalty_scale="relative")
    assert relative.penalty(model, data).item() == pytest.approx(published.item(), rel=1e-12)
    together = model.core_penalty() + sum(model.readout_penalty(m) for m in "AB")
    assert torch.equal(PoissonObjective().penalty(model, data), together)


@settings(max_examples=30)
@given(n_trials=TRIALS, n_neurons=NEURONS, seed=st.integers(0, 99), loss_scale=LOSS_SCALES)
def test_neurons_counted_twice_leave_loss_and_penalty_in_proportion(
    n_trials, n_neurons, seed, loss_scale
):
    scales = {"loss_scale": loss_scale, "penalty_scale": "relative"}
    one = model_of({"A": readout(n_neurons, seed)})
    data = trials_of(n_trials, n_neurons, seed)
    two = model_of({"A": readout(2 * n_neurons, seed)})
    with torch.no_grad():
        for weights, given_once in zip(
            two.readout("A").parameters(), one.readout("A").parameters(), strict=True
        ):
            weights.copy_(twice(given_once))
    doubled = MouseData(
        data.images, responses=twice(data.responses, 1), scale_trials=data.scale_trials
    )
    loss, penalty, gradients = step(one, {"A": data}, **scales)
    again = step(two, {"A": doubled}, **scales)
    factor = 1 if loss_scale in MEANS else 2
    assert again[0] == pytest.approx(factor * loss, rel=1e-12)
    assert again[1] == pytest.approx(factor * penalty, rel=1e-12)
    torch.testing.assert_close(again[2]["core.weights"], factor * gradients["core.weights"])


@given(n_trials=st.integers(2, 30), seed=st.integers(0, 99), loss_scale=LOSS_SCALES)
def test_trials_seen_twice_leave_loss_and_penalty_in_proportion(n_trials, seed, loss_scale):
    """Batches hold as many as before; of the number of trials both get the root, or neither."""
    scales = {"loss_scale": loss_scale, "penalty_scale": "relative"}
    model = model_of({"A": readout(3, seed)})
    data = trials_of(n_trials, 3, seed)
    batch = slice(0, n_trials)
    loss, penalty, gradients = step(model, {"A": data}, batch, **scales)
    factor = 2**0.5 if str(loss_scale).startswith("sqrt") else 1.0
    again = step(model, {"A": repeated(data)}, batch, **scales)
    assert again[0] == pytest.approx(factor * loss, rel=1e-12)
    assert again[1] == pytest.approx(factor * penalty, rel=1e-12)
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[2][name], factor * gradient)


@settings(max_examples=30)
@given(sizes=st.tuples(TRIALS, TRIALS), seed=st.integers(0, 99))
def test_mice_together_bear_what_they_bear_one_by_one(sizes, seed):
    model = model_of({"A": readout(2, seed), "B": readout(3, seed + 1)})
    data = {"A": trials_of(sizes[0], 2, seed), "B": trials_of(sizes[1], 3, seed)}
    together = step(model, data, penalty_scale="relative")
    parts = [step(model, {m: data[m]}, penalty_scale="relative") for m in "AB"]
    assert together[1] == pytest.approx(sum(part[1] for part in parts), rel=1e-12)
    gradient = sum(part[2]["core.weights"] for part in parts)
    torch.testing.assert_close(together[2]["core.weights"], gradient)


def test_a_frozen_core_costs_nothing_under_either_scale():
    model = model_of({"A": readout(2, 0)})
    model.core.freeze()
    data = {"A": trials_of(45, 2, 0)}
    own = model.readout_penalty("A").item()
    assert PoissonObjective().penalty(model, data).item() == pytest.approx(own)
    relative = PoissonObjective(penalty_scale="relative").penalty(model, data).item()
    assert relative == pytest.approx(own / 10)


def test_factorised_penalties_of_a_neuron_do_not_depend_on_the_others():
    """Its own share of the gradient is the same among many as alone."""
    alone, among = model_of({"A": readout(1, 3)}), model_of({"A": readout(4, 3)})
    first = among.readout("A")
    with torch.no_grad():
        for weights, own in zip(first.parameters(), alone.readout("A").parameters(), strict=True):
            weights[0] = own[0]
    gradients = []
    for model in (alone, among):
        data = {"A": MouseData(torch.zeros(1, *SHAPE), scale_trials=1000)}
        PoissonObjective(penalty_scale="relative").penalty(model, data).backward()
        gradients.append(model.readout("A").channels.grad[0])
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)

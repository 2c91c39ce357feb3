"""Scales of the loss and of penalties, and scores, against sums written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.loop_runs import make_data, make_model
from v1tlearn import nn
from v1tlearn.metrics.tensors import variance_explained
from v1tlearn.training import PoissonObjective, RateObjective, TrainingSettings

EPS = 1e-3


def one_batch(seed=0, n=4):
    """Inputs and targets of the first trials of both mice; mouse A has gaps, b.2 has none."""
    data = make_data(seed)
    inputs = {m: trials.batch(slice(n)) for m, trials in data.items()}
    return data, inputs, {m: trials.targets(slice(n)) for m, trials in data.items()}


def losses(rates, target, recorded, squared=False):
    """(trials, neurons), 0 where not recorded."""
    per = (rates - target) ** 2 if squared else rates + EPS - (target + EPS) * (rates + EPS).log()
    return per if recorded is None else torch.where(recorded, per, 0)


@pytest.mark.parametrize("squared", [False, True])
@given(n=st.integers(1, 6), seed=st.integers(0, 50))
def test_means_over_neurons(squared, n, seed):
    model = make_model().eval()
    data, inputs, targets = one_batch(seed, n)
    sizes = dict.fromkeys(data, n)
    found = {}
    for scale in ("per_neuron", "per_recorded"):
        made = PoissonObjective(loss_scale=scale, loss_epsilon=EPS)
        if squared:
            made = RateObjective(nn.squared_loss, loss_scale=scale)
        torch.manual_seed(0)
        found[scale] = made.loss(model, inputs, targets, data, sizes)
    torch.manual_seed(0)
    for mouse, rates in model(inputs).items():
        target, recorded = targets[mouse]
        per = losses(rates, target, recorded, squared)
        counts = len(target) if recorded is None else recorded.sum(0)
        expected = {
            "per_neuron": per.sum(0).mean(),
            "per_recorded": (per.sum(0) / (counts + 1e-6)).mean(),
        }
        for scale, value in expected.items():
            torch.testing.assert_close(found[scale][mouse].minimised, value, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(found[scale][mouse].summed, per.sum(), rtol=1e-5, atol=1e-5)


def test_parts_of_a_batch_add_up_unless_counts_of_the_whole_matter():
    assert PoissonObjective(loss_scale="per_neuron").in_parts
    assert not PoissonObjective(loss_scale="per_recorded").in_parts
    model = make_model().eval()
    data, inputs, targets = one_batch()
    made, sizes = PoissonObjective(loss_scale="per_neuron"), dict.fromkeys(data, 4)
    for readout in model.readouts:
        readout.sigma.requires_grad_(False).zero_()
    whole = made.loss(model, inputs, targets, data, sizes)["A"].minimised
    parts = 0.0
    for rows in (slice(0, 3), slice(3, 4)):
        some = {"A": data["A"].batch(rows)}
        known = {"A": data["A"].targets(rows)}
        parts = parts + made.loss(model, some, known, data, sizes)["A"].minimised
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize(
    ("scale", "averaged"),
    [("per_neuron", True), ("per_recorded", True), ("sqrt", False), (1.0, False)],
)
def test_penalties_of_readouts_follow_the_loss(scale, averaged):
    model, made = make_model(), PoissonObjective(loss_scale=scale)
    own = sum(
        model.readout_penalty(mouse) / (model.readout(mouse).n_neurons if averaged else 1)
        for mouse in model.mice
    )
    expected = model.core_penalty() + own
    torch.testing.assert_close(made.penalty(model, make_data()), expected)


def test_further_scores_are_told_and_do_not_judge():
    def neurons(predictions, responses, recorded):
        return torch.tensor(float(responses.shape[1]))

    def trials(predictions, responses, recorded):
        return torch.tensor(float(len(responses)))

    made = PoissonObjective(neurons, score_name="validation_n", also={"validation_t": trials})
    record = made.score(make_model(), make_data(), TrainingSettings(4, 1), "neurons")
    assert made.score_name == "validation_n"
    assert record["validation_n"] == pytest.approx((4 * 4 + 3 * 3) / 7)
    assert record["validation_t"] == pytest.approx((4 * 11 + 3 * 7) / 7)
    assert (record["validation_n_A"], record["validation_t_b.2"]) == (4, 7)


# ------------------------------------------------------------------------ variance explained


@given(st.integers(0, 500), st.integers(2, 30), st.booleans(), st.sampled_from([0.0, 3e4]))
def test_variance_explained_over_recorded_pairs(seed, n, masked, offset):
    rng = torch.Generator().manual_seed(seed)
    target = torch.randn(n, 4, generator=rng) + offset
    prediction = target + torch.randn(n, 4, generator=rng)
    recorded = torch.rand(n, 4, generator=rng) > 0.3 if masked else None
    target[:, 3] = offset + 0.25
    found = variance_explained(prediction, target, recorded)
    for k in range(4):
        kept = slice(None) if recorded is None else recorded[:, k]
        y, p = target[kept, k].double(), prediction[kept, k].double()
        if len(y.unique()) < 2:
            assert found[k].isnan()
        else:
            expected = 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum()
            torch.testing.assert_close(found[k], expected, rtol=1e-9, atol=1e-9)


def test_missing_values_of_the_variance_explained():
    target = torch.tensor([[1.0, torch.nan], [3.0, torch.nan], [torch.nan, 2.0]])
    found = variance_explained(torch.ones(3, 2), target)
    assert found[0] == pytest.approx(1 - 4 / 2)
    assert found[1].isnan()
    with pytest.raises(ValueError, match="expected the same"):
        variance_explained(torch.ones(3, 1), target)
    assert variance_explained(torch.ones(0, 2), torch.ones(0, 2)).isnan().all()

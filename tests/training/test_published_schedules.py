"""Periods, cosine and plateau rates: traces of the published code, torch, and the rules retold."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.loop_runs import make_run, run
from v1tlearn.training import (
    ConstantSchedule,
    CosineSchedule,
    NonFiniteLossError,
    PeriodsSchedule,
    ReduceSchedule,
    Verdict,
    train,
)

REFERENCE = Path(__file__).parents[1] / "reference"
MINIMODEL = np.load(REFERENCE / "minimodel" / "schedules.npz")
ENCODING = np.load(REFERENCE / "vit_encoding" / "schedules.npz")
PERIODS = sorted({name.split("/")[0] for name in MINIMODEL.files})
RATES = sorted({name.split("/")[1] for name in ENCODING.files if name.count("/") == 2})


def course(schedule, scores, losses=None, rates=(1e-3,), max_epochs=10**6):
    """What a run makes of verdicts: epochs with their rates, the best, and what weights went in."""
    epochs, best, before = [], -1, -1
    for epoch, score in enumerate(scores[:max_epochs]):
        epochs.append([schedule.step_rate(rate, epoch) for rate in rates])
        lost = losses is not None and not math.isfinite(losses[epoch])
        verdict = schedule.lost() if lost else schedule.step(score)
        best = epoch if verdict.improved else best
        epochs[-1].append(before)
        before = best if verdict.restore else epoch
        rates = [max(r * verdict.lr_factor, min(schedule.min_lr, r)) for r in rates]
        if verdict.stop:
            break
    *used, befores = zip(*epochs, strict=True)
    return np.array(used), list(befores), best, rates


@pytest.mark.parametrize("name", PERIODS)
@pytest.mark.parametrize("carry", [True, False])
def test_published_periods(name, carry):
    prefix = f"{name}/{'published_counter_kept' if carry else 'counter_reset'}/"
    expected = {k.removeprefix(prefix): MINIMODEL[k] for k in MINIMODEL if k.startswith(prefix)}
    periods, patience = MINIMODEL[f"{name}/max_epochs"].tolist(), int(MINIMODEL[f"{name}/patience"])
    schedule = PeriodsSchedule(periods, patience, carry_patience=carry)
    losses, seen = MINIMODEL[f"{name}/train_loss"], []
    lengths = expected["epochs_run_per_period"]

    class Noting(PeriodsSchedule):
        def step_rate(self, rate, epochs):
            seen.append((self.period, self.epoch))
            return rate

    schedule.__class__ = Noting
    rates, before, best, _ = course(schedule, MINIMODEL[f"{name}/metric"], losses)
    np.testing.assert_allclose(rates[0], expected["learning_rate"], rtol=1e-12)
    assert [epoch for _, epoch in seen] == expected["epoch_in_period"].tolist()
    assert [sum(p == k for p, _ in seen) for k in range(len(lengths))] == lengths.tolist()
    assert before == expected["state_before_call_trained_at_call"].tolist()
    assert best == expected["best_call"]


def test_a_new_period_has_a_new_optimiser():
    schedule = PeriodsSchedule((1, 2))
    assert schedule.step(0.1) == Verdict(True, restore=True, lr_factor=1 / 3, fresh=True)
    assert schedule.step(0.2) == Verdict(True)
    assert schedule.step(0.2) == Verdict(restore=True, stop=True)
    assert schedule.ending == "2 periods are over"


@pytest.mark.parametrize("epochs", [(), (3, 0), (2.5,), ("a",)])
def test_periods_without_epochs_are_named(epochs):
    with pytest.raises(ValueError, match="at least one whole number, each at least 1"):
        PeriodsSchedule(epochs)
    with pytest.raises(ValueError, match="patience of a period is 0"):
        PeriodsSchedule((1,), 0)


def trace(kind, name):
    values = {k.rsplit("/", 1)[1]: ENCODING[k] for k in ENCODING if k.startswith(f"{kind}/{name}/")}
    scores = values["metric"]
    losses = np.where(np.arange(len(scores)) == 7, np.nan, 1) if name.startswith("nan_") else None
    return values, scores, losses


@pytest.mark.parametrize("name", RATES)
def test_published_reduction_on_a_plateau(name):
    values, scores, losses = trace("plateau", name)
    schedule = ReduceSchedule(1e-3, int(ENCODING["plateau/patience"]))
    limit = int(ENCODING["plateau/max_epochs"])
    rates, _, best, (last,) = course(schedule, scores, losses, max_epochs=limit)
    np.testing.assert_allclose(rates[0], values["learning_rate_during_epoch"], rtol=1e-12)
    assert len(rates[0]) == values["epochs_run"]
    assert best == values["best_epoch"]
    if "learning_rate_at_the_end" in values:
        assert last == pytest.approx(values["learning_rate_at_the_end"][0], rel=1e-12)


@pytest.mark.parametrize("name", RATES)
def test_published_cosine(name):
    values, scores, losses = trace("cosine", name)
    n_epochs, patience = int(ENCODING["cosine/max_epochs"]), int(ENCODING["cosine/patience"])
    base = ENCODING["cosine/base_learning_rates"].tolist()
    schedule = CosineSchedule(n_epochs, patience, 1e-7)
    rates, _, best, _ = course(schedule, scores, losses, base, n_epochs)
    expected = values["learning_rates_during_epoch_backbone_readout"]
    np.testing.assert_allclose(rates.T, expected, rtol=1e-12)
    assert len(rates[0]) == values["epochs_run"]
    assert best == values["best_epoch"]


@given(
    scores=st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 0.50002, 1.0]), min_size=1, max_size=40),
    patience=st.integers(0, 3),
    factor=st.sampled_from([0.1, 0.5]),
)
def test_the_rates_of_torch_on_a_plateau(scores, patience, factor):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=factor, patience=patience, min_lr=1e-3
    )
    schedule, rate = ReduceSchedule(1e-2, patience, factor, 1e-3), 1e-2
    for score in scores:
        torchs.step(score)
        verdict = schedule.step(score)
        rate = max(rate * verdict.lr_factor, schedule.min_lr)
        assert rate == optimizer.param_groups[0]["lr"] == schedule.lr
        assert verdict.stop == (rate <= 1e-3)
        if verdict.stop:
            break


def test_the_cosine_of_torch_and_its_end():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7, eta_min=0.01)
    schedule = CosineSchedule(7, min_lr=0.01)
    for epoch in range(8):
        rate = optimizer.param_groups[0]["lr"]
        assert schedule.step_rate(0.3, epoch + 0.6) == pytest.approx(rate, rel=1e-12)
        optimizer.step()
        torchs.step()
    assert schedule.step_rate(0.3, 40.0) == pytest.approx(0.01)


@pytest.mark.parametrize("rate", [1e-6, 0.01])
def test_the_cosine_never_raises_a_rate(rate):
    schedule = CosineSchedule(7, min_lr=0.01)
    assert {schedule.step_rate(rate, epoch) for epoch in range(9)} == {rate}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CosineSchedule(0), "expected at least 1 of either"),
        (lambda: CosineSchedule(3, patience=0), "expected at least 1 of either"),
        (lambda: ReduceSchedule(1e-5), "least rate above 0 and below the first"),
        (lambda: ReduceSchedule(1e-2, factor=1.0), "a factor below 1"),
        (lambda: ReduceSchedule(1e-2, min_lr=0), "least rate above 0"),
    ],
)
def test_schedules_that_would_never_end_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------------- within a training run


class Lossy:
    """Makes the loss of some epochs NaN, by weights that are."""

    def __init__(self, made, epochs):
        self.epochs, self.state, core = epochs, made.state, made.model.core
        core.register_forward_pre_hook(self)

    def __call__(self, core, inputs):
        if core.training and self.state["epoch"] in self.epochs:
            next(core.parameters()).data.fill_(math.nan)


def test_a_lost_epoch_ends_a_period_and_the_best_weights_come_back():
    made = make_run(6, schedule=PeriodsSchedule((3, 2)), score=None)
    scores = iter([0.1, 0.2, 0.1, 0.3])
    made.objective.score_of_mouse = lambda *_: torch.tensor(next(scores) if turn() else 0.0)
    calls = iter(range(100))

    def turn():
        return next(calls) % 2 == 0  # of the two mice the first

    Lossy(made, {1})
    records, weights = [], []
    for record in made.epochs():
        records.append(record)
        weights.append({k: v.clone() for k, v in made.model.state_dict().items()})
    assert [math.isfinite(r["loss"]) for r in records] == [True, False, True, True]
    assert [r["lr"] for r in records] == pytest.approx([0.02, 0.02, 0.02 / 3, 0.02 / 3])
    assert math.isnan(records[1]["validation_correlation"])
    assert math.isnan(records[1]["validation_correlation_A"])
    for name, value in weights[1].items():
        assert torch.equal(value, weights[0][name])  # epoch 1 was the best
    assert made.state["stop_reason"] == "schedule"
    assert all(v.isfinite().all() for v in made.model.state_dict().values())


def test_other_schedules_refuse_a_lost_epoch():
    made = make_run(3, schedule=ConstantSchedule())
    Lossy(made, {0})
    with pytest.raises(NonFiniteLossError):
        train(made)


def test_the_optimiser_begins_anew_with_a_period():
    steps = []

    class Noting(torch.optim.Adam):
        def step(self):
            super().step()
            steps.append(int(next(iter(self.state.values()))["step"]))

    run(3, schedule=PeriodsSchedule((1, 2)), optimizer=Noting)
    assert steps == [1, 2, 3, 1, 2, 3, 4, 5, 6]  # 3 steps an epoch


def test_rates_of_the_cosine_are_those_of_the_steps():
    rates = []

    class Noting(torch.optim.SGD):
        def step(self):
            rates.append(self.param_groups[0]["lr"])
            super().step()

    schedule = CosineSchedule(2, min_lr=0.01)
    _, state = run(2, schedule=schedule, optimizer=Noting, lr=0.03)
    assert rates == pytest.approx([0.03] * 3 + [0.02] * 3)
    assert [record["lr"] for record in state["history"]] == pytest.approx([0.03, 0.02])


@pytest.mark.parametrize("clip_norm", [1e-3, 1e3])
def test_the_gradient_of_all_parameters_together_is_clipped(clip_norm):
    norms = []

    class Noting(torch.optim.SGD):
        def step(self):
            of_all = [p.grad.flatten() for g in self.param_groups for p in g["params"]]
            norms.append(torch.cat(of_all).norm().item())
            super().step()

    run(1, optimizer=Noting, clip_norm=None)
    free, norms = norms, []
    run(1, optimizer=Noting, clip_norm=clip_norm)
    expected = free[0] * min(1, clip_norm / (free[0] + 1e-6))
    assert norms[0] == pytest.approx(expected, rel=1e-5)

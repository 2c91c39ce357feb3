"""Rates and averages of Vi-ST: traces of the published code, and the mean written out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from v1tlearn.training import EpochAverage, Verdict, WarmupSchedule

# Of the file `weights_final` is not compared: it is the average and one more step with a gradient
# that is no longer of it, a slip that is not repeated. Neither are the running statistics, and what
# stands under `without_averaging` beside rates: the file does not tell the batches they came of.
REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "vist" / "schedule.npz")
CASES = ("published", "without_averaging", "short")
each_case = pytest.mark.parametrize("name", CASES)


def settings(name):
    peak, start, least, warmup, n_epochs, average, rate, anneal = REFERENCE[f"{name}/settings"]
    # The published averaging begins one epoch earlier than its number says.
    average_from = int(average) - 1 if average else None
    schedule = WarmupSchedule(
        int(n_epochs), int(warmup), start, least,
        average_from=average_from, average_lr=rate, anneal_epochs=int(anneal),
    )  # fmt: skip
    return schedule, peak, average_from, int(n_epochs)


@each_case
def test_rates_are_the_published_ones(name):
    schedule, peak, *_ = settings(name)
    lr = REFERENCE[f"{name}/lr"]
    found = [
        schedule.step_rate(peak, epoch + part) for epoch in range(len(lr)) for part in (0, 0.9)
    ]
    np.testing.assert_allclose(found, np.repeat(lr, 2), rtol=1e-12)


def test_the_best_epoch_is_that_of_the_best_score_or_else_the_last():
    schedule = WarmupSchedule(10)
    scores = [0.1, 0.3, 0.2, float("nan"), 0.4]
    assert [schedule.step(s) for s in scores] == [
        Verdict(improved=i) for i in (True, True, False, False, True)
    ]
    again = WarmupSchedule(10)
    again.load_state_dict(schedule.state_dict())
    assert not again.step(0.35).improved
    assert all(WarmupSchedule(10).step(None).improved for _ in range(3))


@pytest.mark.parametrize("name", ["published", "short"])
@pytest.mark.parametrize("steps", [1, 3])
def test_averages_are_the_published_ones(name, steps):
    *_, first, n_epochs = settings(name)
    at_start = torch.from_numpy(REFERENCE[f"{name}/weights_at_epoch_start"])
    model = torch.nn.Linear(at_start.shape[1], 1, bias=False)
    average = EpochAverage(range(first, n_epochs), steps)
    generator = torch.Generator().manual_seed(0)
    for step in range(len(at_start) * steps):
        epoch, inside = divmod(step, steps)
        weights = at_start[epoch] if not inside else torch.randn(1, generator=generator)
        with torch.no_grad():
            model.weight.copy_(weights)
        if step == 0:
            average.restart(model.state_dict())
        else:
            average.update(model)
        if step == first * steps - 1:
            assert torch.equal(average.weights()["weight"], model.weight)
        if step == (first + 2) * steps:  # going on from a saved state changes nothing
            state, average = average.state_dict(), EpochAverage(range(first, n_epochs), steps)
            average.load_state_dict(state)
    found = average.weights()["weight"][0].numpy()
    np.testing.assert_allclose(found, REFERENCE[f"{name}/averaged_weights"], rtol=1e-5, atol=1e-6)


def test_going_back_to_other_weights_begins_the_average_anew_at_the_next_epoch():
    model, average = torch.nn.Linear(1, 1, bias=False), EpochAverage(range(1, 9), 1)
    average.restart(model.state_dict())
    for value in (1.0, 3.0):
        torch.nn.init.constant_(model.weight, value)
        average.update(model)
    assert average.weights()["weight"].item() == 2.0
    average.restart({"weight": torch.full((1, 1), 7.0)})
    assert average.weights()["weight"].item() == 7.0
    average.update(model)
    assert average.weights()["weight"].item() == 3.0


def test_weights_are_looked_at_only_where_an_epoch_begins_that_counts():
    class Counting(torch.nn.Linear):
        looks = 0

        def state_dict(self, *args, **kwargs):
            self.looks += 1
            return super().state_dict(*args, **kwargs)

    model, average = Counting(1, 1), EpochAverage(range(2, 4), 3)
    average.restart({name: p.detach() for name, p in model.named_parameters()})
    for _ in range(12):
        average.update(model)
    assert model.looks == 2


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="a warm-up of 5 of 5 epochs"):
        WarmupSchedule(5)
    with pytest.raises(ValueError, match="and 0 to the rate for averaging"):
        WarmupSchedule(9, anneal_epochs=0)
    for epochs, steps in ((range(0), 3), (range(0, 4), 3), (range(1, 4), 0)):
        with pytest.raises(ValueError, match="expected at least one epoch, none before 1"):
            EpochAverage(epochs, steps)

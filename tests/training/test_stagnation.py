"""The schedule of the alignment, against the published course and torch's own rule."""

import math
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn.training import StagnationSchedule

PREPARATION = Path(__file__).parents[1] / "reference" / "dina" / "preparation.npz"


def test_the_published_course_of_the_rate():
    with np.load(PREPARATION) as file:
        losses, expected = file["plateau_loss"], file["plateau_lr"]
    schedule, lr, rates = StagnationSchedule(), float(expected[0]), []
    for loss in losses:
        rates.append(lr)
        verdict = schedule.step(-loss)
        assert not verdict.stop
        lr *= verdict.lr_factor
    assert rates == expected.tolist()


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=40), st.integers(0, 4))
def test_it_is_the_rule_of_torch_for_losses(losses, patience):
    losses = [abs(loss) for loss in losses]
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience)
    ours, lr = StagnationSchedule(patience), 1.0
    for loss in losses:
        theirs.step(loss)
        lr *= ours.step(-loss).lr_factor
        if lr > 1e-7:  # theirs leaves changes below 1e-8 out
            assert lr == optimizer.param_groups[0]["lr"]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(1, 5))
def test_it_keeps_the_best_epoch_and_ends_after_so_many_without(scores, end_after):
    schedule, best, without = StagnationSchedule(end_after=end_after), -math.inf, 0
    for score in scores:
        verdict = schedule.step(float(score))
        assert verdict.improved == (score > best)
        best, without = (score, 0) if score > best else (best, without + 1)
        assert verdict.stop == (without >= end_after)
        if verdict.stop:
            break


def test_the_last_epoch_is_kept_where_asked():
    schedule = StagnationSchedule(keep_last=True)
    assert all(schedule.step(score).improved for score in (2.0, 1.0, 0.0))

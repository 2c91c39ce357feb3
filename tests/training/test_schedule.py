"""Schedules against traces of the publications and a plain retelling of their rules."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn.training import (
    ConstantSchedule,
    PeriodsSchedule,
    PlateauSchedule,
    ReduceSchedule,
    RoundsSchedule,
    StagnationSchedule,
)

SCORES = st.lists(st.integers(0, 6), min_size=1, max_size=60)


def run(schedule, scores):
    """Verdicts until the schedule stops."""
    verdicts = []
    for score in scores:
        verdicts.append(schedule.step(score))
        if verdicts[-1].stop:
            break
    return verdicts


def drops(verdicts):
    return [i for i, v in enumerate(verdicts, 1) if v.lr_factor != 1]


def test_a_constant_score_drops_at_12_and_23_and_stops_at_34():
    verdicts = run(PlateauSchedule(), [0.3] * 100)
    assert verdicts[0].improved
    assert not any(v.improved for v in verdicts[1:])
    assert drops(verdicts) == [12, 23]
    assert [i for i, v in enumerate(verdicts, 1) if v.restore] == [12, 23, 34]
    assert len(verdicts) == 34
    assert verdicts[-1].stop
    assert verdicts[11].lr_factor == 0.3


def test_an_improvement_starts_both_counts_anew():
    # drop at 12; a new best at 20, then again two drops before the end
    verdicts = run(PlateauSchedule(), [0.3] * 19 + [0.4] * 100)
    assert verdicts[19].improved
    assert drops(verdicts) == [12, 31, 42]
    assert len(verdicts) == 53


def test_parameters_of_the_plateau():
    verdicts = run(PlateauSchedule(patience=0, factor=0.5, max_drops=1), [1.0] * 9)
    assert [v.lr_factor for v in verdicts] == [1.0, 0.5, 1.0]
    assert len(run(PlateauSchedule(patience=2, max_drops=0), [1.0] * 9)) == 4


@given(scores=SCORES, patience=st.integers(0, 4), max_drops=st.integers(0, 3))
def test_the_plateau_rule_told_over_the_whole_course(scores, patience, max_drops):
    """Every patience + 1 bad epochs since the best one drop; one drop too many stops."""
    schedule = PlateauSchedule(patience, 0.1, max_drops)
    for epoch, score in enumerate(scores):
        verdict = schedule.step(score)
        best = int(np.argmax(scores[: epoch + 1]))  # the first of equals
        bad = epoch - best
        full = bad > 0 and bad % (patience + 1) == 0
        stop = full and bad // (patience + 1) > max_drops
        assert verdict.improved == (bad == 0)
        assert verdict.restore == full
        assert verdict.stop == stop
        assert verdict.lr_factor == (0.1 if full and not stop else 1.0)
        if stop:
            break


def rounds(initial, scores, patience, n_rounds, tolerance=1e-6):
    """The published nested loops: (epoch, improved, restored) until the last round is over."""
    out, scores = [], iter(scores)
    best = initial
    for _ in range(n_rounds):
        counter = 0
        while counter < patience:
            score = next(scores, None)
            if score is None:
                return out, False
            if score > best + tolerance:
                best, counter = score, 0
                out.append("improved")
            else:
                counter += 1
                out.append("bad")
        out[-1] = "restored"
    return out, True


@given(
    initial=st.integers(0, 6),
    scores=SCORES,
    patience=st.integers(1, 4),
    n_rounds=st.integers(1, 4),
)
def test_rounds_against_nested_loops_and_torch(initial, scores, patience, n_rounds):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode="max",
        factor=0.5,
        patience=patience,
        threshold=1e-6,
        threshold_mode="abs",
        eps=0,
    )
    schedule = RoundsSchedule(patience, 0.5, n_rounds, min_lr=0)
    schedule.start(initial)
    verdicts = run(schedule, scores)
    told, over = rounds(initial, scores, patience, n_rounds)
    assert len(verdicts) == len(told)
    assert verdicts[-1].stop == over
    lr = 1.0
    for verdict, what, score in zip(verdicts, told, scores, strict=False):
        plateau.step(score)
        lr *= verdict.lr_factor
        assert lr == optimizer.param_groups[0]["lr"]
        assert verdict.improved == (what == "improved")
        assert verdict.restore == (what == "restored")


def test_published_rounds_on_a_constant_score():
    """Restored after five bad epochs; the rate falls only with the sixth, and drifts apart."""
    schedule = RoundsSchedule()
    schedule.start(0.0)
    verdicts = run(schedule, [0.5] * 100)
    assert [i for i, v in enumerate(verdicts, 1) if v.restore] == [6, 11, 16, 21]
    assert drops(verdicts) == [7, 13, 19]
    assert len(verdicts) == 21


def test_initial_weights_can_be_the_best():
    schedule = RoundsSchedule(patience=2, n_rounds=1)
    schedule.start(0.7)
    assert not any(v.improved for v in run(schedule, [0.1, 0.6]))
    assert schedule.scores_initial_weights
    assert not PlateauSchedule.scores_initial_weights


def test_tiny_gains_are_no_improvement_of_a_round():
    schedule = RoundsSchedule(tolerance=0.1)
    schedule.start(0.0)
    assert [v.improved for v in run(schedule, [0.2, 0.25, 0.31])] == [True, False, True]


def test_the_constant_schedule_keeps_the_best_or_the_last():
    verdicts = run(ConstantSchedule(), [0.1, 0.3, 0.2, 0.3, 0.4])
    assert [v.improved for v in verdicts] == [True, True, False, False, True]
    assert all(v.lr_factor == 1 and not v.stop and not v.restore for v in verdicts)
    assert all(v.improved for v in run(ConstantSchedule(), [None] * 3))


@pytest.mark.parametrize("cls", [ConstantSchedule, PlateauSchedule, RoundsSchedule])
@given(scores=SCORES, cut=st.integers(0, 60))
def test_going_on_from_a_saved_state(cls, scores, cut):
    whole = run(cls(), scores)
    first = cls()
    before = [first.step(score) for score in scores[:cut]]
    second = cls()
    second.load_state_dict(first.state_dict())
    assert all(isinstance(v, int | float) for v in first.state_dict().values())
    after = [second.step(score) for score in scores[cut:]]
    assert (before + after)[: len(whole)] == whole


def test_the_state_of_another_schedule_is_not_taken():
    schedule = PlateauSchedule()
    rounds = RoundsSchedule()
    rounds.step(0.5)
    schedule.load_state_dict(rounds.state_dict())
    assert schedule.state_dict() == PlateauSchedule().state_dict()


@pytest.mark.parametrize(
    "schedule",
    [
        PlateauSchedule(),
        RoundsSchedule(),
        PeriodsSchedule(),
        ReduceSchedule(0.1),
        StagnationSchedule(),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_schedules_that_need_scores_say_so(schedule):
    with pytest.raises(ValueError, match=r"there are none: give the run validation trials"):
        schedule.step(None)

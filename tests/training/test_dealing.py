"""How batches are dealt out to processes; real processes are in tests/estimators."""

import pytest
import torch

from tests.training.loop_runs import make_data, make_model
from tests.training.models import Transformer
from v1tlearn.training import (
    ALONE,
    PoissonObjective,
    Ranks,
    TrainingSettings,
    resolve_settings,
)
from v1tlearn.training.data import epoch_batches
from v1tlearn.training.dealing import deal, drawing_for_all

LENGTHS = {"A": 23, "B": 11, "C": 16}
CPU = torch.device("cpu")


def ranks(rank, size):
    one = Ranks()
    one.rank, one.size = rank, size
    return one


@pytest.mark.parametrize("size", [2, 3, 4])
def test_shares_make_up_the_batch_in_its_order(size):
    torch.manual_seed(0)
    steps = epoch_batches(LENGTHS, 6, CPU)
    shares = [deal(steps, LENGTHS, ranks(rank, size)) for rank in range(size)]
    for number, step in enumerate(steps):
        own = [share[number] for share in shares]
        if not own[0].is_part:
            continue
        for mouse, rows in step.items():
            assert torch.equal(torch.cat([s.rows[mouse] for s in own]), rows)
            ends = [s.starts[mouse] + len(s.rows[mouse]) for s in own]
            assert ends == [*(s.starts[mouse] for s in own[1:]), len(rows)]
            assert own[0].sizes[mouse] == len(rows)
        trials = [sum(map(len, s.rows.values())) for s in own]
        assert max(trials) - min(trials) <= 1
    assert any(share.is_part for share in shares[0])


def test_a_batch_of_too_few_trials_is_computed_by_each():
    step = {"A": torch.arange(4), "B": torch.arange(1)}
    for rank in range(2):
        (share,) = deal([step], LENGTHS, ranks(rank, 2))
        assert not share.is_part
        assert share.rows is step


def test_slices_are_cut():
    step = {"A": slice(0, 9, 2), "B": slice(8, None)}
    own = [deal([step], LENGTHS, ranks(rank, 2))[0] for rank in range(2)]
    rows = [[list(range(LENGTHS[m])[s.rows[m]]) for m in step] for s in own]
    assert rows == [[[0, 2, 4], [8]], [[6, 8], [9, 10]]]


def test_one_process_has_everything():
    steps = epoch_batches(LENGTHS, 6, CPU)
    assert [share.rows for share in deal(steps, LENGTHS)] == steps


def test_processes_draw_alike_for_whole_batches_and_apart_for_their_own():
    drawn, after = [], []
    for rank in range(2):
        torch.manual_seed(5)
        state = {"rng": {"seed": 3}, "epoch": 2}
        with drawing_for_all(ranks(rank, 2), state, CPU) as common:
            drawn.append((torch.rand(4), torch.rand(4, generator=common)))
        after.append(torch.rand(4))
    assert torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][0], drawn[1][0])
    torch.manual_seed(5)  # as one process would go on
    assert torch.equal(drawn[0][1], torch.rand(4))
    assert torch.equal(after[0], torch.rand(4))
    assert torch.equal(after[0], after[1])
    with drawing_for_all(ALONE, state, CPU) as common:
        assert common is None


def test_memory_is_planned_for_the_share_of_a_process():
    settings = TrainingSettings(8, 1, micro_batch_size=3)
    model, objective = make_model(core=Transformer(0.0)), PoissonObjective()
    alone = resolve_settings(model, objective, make_data(), settings)
    shared = resolve_settings(model, objective, make_data(), settings, ranks(0, 2))
    # 8 trials in parts of 3, 3 and 2; 4 trials in two of 2
    assert (alone.micro_batch_size, shared.micro_batch_size) == (3, 2)


def test_what_several_processes_cannot_do_is_refused():
    model, objective, data = make_model(), PoissonObjective(), make_data()
    with pytest.raises(ValueError, match="2 processes train a core with batch normalisation"):
        resolve_settings(model, objective, data, TrainingSettings(8, 1, compile=True), ranks(0, 2))
    with pytest.raises(ValueError, match=r"batch_size=2 .* fewer than the 3 processes"):
        resolve_settings(model, objective, data, TrainingSettings(2, 1), ranks(0, 3))

"""Running statistics of batch normalisation, for weights that are averages: as torch takes them."""

import copy

import pytest
import torch
from torch.optim.swa_utils import update_bn

from tests.training.loop_runs import assert_same, make_data, make_model, make_run
from v1tlearn.nn import plain
from v1tlearn.training import EpochAverage, initial_rng, new_state, train
from v1tlearn.training.averaging import renew_statistics
from v1tlearn.training.data import step_batches


def in_order(lengths, batch_size, device):
    """Batches of an epoch, each mouse from its first trial to its last, and again."""
    starts = range(0, max(lengths.values()), batch_size)
    return [
        {mouse: torch.arange(i, i + batch_size) % n for mouse, n in lengths.items()} for i in starts
    ]


def batches():
    data = make_data()
    steps = in_order({mouse: len(trials) for mouse, trials in data.items()}, 4, None)
    return [inputs for inputs, _ in step_batches(data, steps)]


class ByTorch(torch.nn.Module):
    """A model of torch's own layers, which know the mean over batches that `update_bn` asks for."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        with plain():
            return self.model(batch)


def statistics_of(state):
    names = ("running_mean", "running_var", "num_batches_tracked")
    return {name: value for name, value in state.items() if name.endswith(names)}


def assert_statistics_by_torch(state, given):
    """That statistics are those of a pass over these batches with the weights beside them."""
    model = make_model()
    model.load_state_dict(state)
    update_bn(given, ByTorch(model))
    found, expected = statistics_of(state), statistics_of(model.state_dict())
    assert len(found) == 6
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("per_mouse", [False, True])
def test_statistics_are_those_of_torch(per_mouse):
    model, given = make_model(3), batches()
    if per_mouse:
        given = [{mouse: batch} for step in given for mouse, batch in step.items()]
    before = {name: p.clone() for name, p in model.named_parameters()}
    renew_statistics(model, given)
    assert_statistics_by_torch(model.state_dict(), given)
    assert_same(dict(model.named_parameters()), before)
    momenta = {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert momenta == {0.1}


def test_frozen_layers_keep_theirs():
    model = make_model(3)
    before = copy.deepcopy(model.state_dict())
    model.core.freeze("all")
    renew_statistics(model, batches())
    assert_same(model.state_dict(), before)


def averaged(max_epochs=4, **options):
    average = EpochAverage(range(2, 9), 3)
    return make_run(max_epochs, average=average, validation=False, lr=0.05, **options)


@pytest.mark.parametrize("joint", [True, False])
def test_averaged_weights_are_kept_with_their_own_statistics(joint):
    made = averaged(joint=joint)
    made.draw = in_order
    train(made)
    given = batches()
    if not joint:
        given = [{mouse: batch} for step in given for mouse, batch in step.items()]
    best = made.state["best"]
    assert made.state["best_epoch"] == 4
    assert_statistics_by_torch(best, given)
    mean = statistics_of(made.average.weights())
    name = "core.layers.0.1.running_var"
    assert not torch.allclose(best[name], mean[name], rtol=0.01)  # means of others are not them


def test_statistics_are_as_trained_before_there_is_an_average():
    early, plain_run = averaged(1), make_run(1, validation=False, lr=0.05)
    for one in (early, plain_run):
        train(one)
    assert_same(early.state["best"], plain_run.state["best"])


def test_they_change_nothing_of_the_training():
    made, without = averaged(), make_run(4, validation=False, lr=0.05)
    for one in (made, without):
        train(one)
    assert_same(made.state["model"], without.state["model"])
    assert torch.equal(made.state["rng"]["cpu"], without.state["rng"]["cpu"])


def test_going_on_from_a_state_gives_the_same():
    made = averaged()
    train(made)
    state = new_state(initial_rng(1))
    train(averaged(3, state=state))
    again = averaged(1, model=make_model(7), state=state)
    train(again)
    assert_same(made.state["best"], again.state["best"])

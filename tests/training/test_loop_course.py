"""The course of a training: schedules, going on, randomness, losses that are not finite."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch

from tests.training.loop_runs import (
    CPU,
    assert_same,
    make_data,
    make_model,
    mean_rate_score,
    run,
)
from v1tlearn import nn
from v1tlearn.training import (
    ConstantSchedule,
    NonFiniteLossError,
    PlateauSchedule,
    PoissonObjective,
    RoundsSchedule,
    Run,
    Schedule,
    TrainingSettings,
    Verdict,
    initial_rng,
    isolated_rng,
    new_state,
    train,
)
from v1tlearn.training.data import epoch_batches

# -------------------------------------------------------------------- course of the training


class Script(Schedule):
    """A schedule with a given course, which notes what it is told."""

    def __init__(self, *verdicts):
        self.verdicts, self.scores = list(verdicts), []

    def step(self, score):
        self.scores.append(score)
        return self.verdicts[len(self.scores) - 1]

    def state_dict(self):
        return {"n": len(self.scores)}

    def load_state_dict(self, state):
        pass


def test_the_best_weights_come_back_at_the_end():
    kept = []

    def keep(record):
        kept.append(record["epoch"])

    model = make_model()
    course = [Verdict(improved=i == 1) for i in range(4)]
    _, state = run(4, model=model, schedule=Script(*course), on_epoch=keep)
    assert kept == [1, 2, 3, 4]
    two_epochs, _ = run(2, schedule=Script(*[Verdict(improved=True)] * 2))
    assert_same(model.state_dict(), two_epochs.state_dict())
    assert_same(state["best"], two_epochs.state_dict())
    assert not model.training
    with pytest.raises(AssertionError):
        assert_same(state["model"], state["best"])


def test_without_any_improvement_the_initial_weights_come_back():
    model = make_model()
    initial = copy.deepcopy(model.state_dict())
    run(2, model=model, schedule=Script(Verdict(), Verdict()))
    assert_same(model.state_dict(), initial)


def test_restore_goes_on_from_the_best_weights():
    """After a restoration in epoch 2 the third epoch starts from the weights of epoch 1."""
    steps = [Verdict(improved=True), Verdict(restore=True), Verdict(), Verdict(stop=True)]
    starts = {}

    class Spy(nn.Stacked2dCore):
        def forward(self, images, *others):
            if self.training:
                epoch = len(schedule.scores)
                weight = self.layers[0][0].weight.detach().clone()
                starts.setdefault(epoch, weight)
            return super().forward(images, *others)

    schedule = Script(*steps)
    core = Spy((3, 8, 10), n_layers=2, hidden_channels=4, input_kernel=3, hidden_kernel=3)
    _, state = run(9, model=make_model(core=core), schedule=schedule)
    torch.testing.assert_close(starts[2], starts[1], rtol=0, atol=0)
    assert not torch.equal(starts[3], starts[2])
    assert state["epoch"] == 4
    assert state["finished"]


def test_learning_rates_follow_the_schedule_group_by_group():
    model = make_model()
    groups = [
        {"params": list(model.core.parameters()), "lr": 0.3},
        {"params": list(model.readouts.parameters()), "lr": 0.02},
    ]
    schedule = Script(Verdict(lr_factor=0.1), Verdict(lr_factor=0.1), Verdict())
    schedule.min_lr = 0.005
    optimizer = torch.optim.SGD(groups)
    state = new_state(initial_rng(0))
    objective = PoissonObjective(mean_rate_score, loss_scale=1e-3)
    settings, validation = TrainingSettings(4, 3), make_data(9)
    data = make_data()
    train(Run(model, objective, optimizer, schedule, data, settings, state, validation=validation))
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.005, 0.005])
    assert [r["lr"] for r in state["history"]] == pytest.approx([0.02, 0.005, 0.005])


def test_a_rate_below_the_smallest_is_left_alone():
    model = make_model()
    schedule = Script(Verdict(lr_factor=0.1))
    schedule.min_lr = 1.0
    _, state = run(1, model=model, schedule=schedule, lr=0.01)
    assert state["optimizer"]["param_groups"][0]["lr"] == 0.01


def test_the_score_is_asked_once_per_epoch_and_mouse():
    calls = []

    def score(predictions, responses, recorded):
        calls.append(predictions.shape)
        return predictions.mean()

    run(3, score=score)
    assert calls == [(11, 4), (7, 3)] * 3
    calls.clear()
    schedule = RoundsSchedule()
    run(2, score=score, schedule=schedule)
    assert len(calls) == 2 * 3  # once before any training
    assert schedule.best > -math.inf


def test_history_has_one_plain_record_per_epoch():
    told = []
    _, state = run(3, schedule=PlateauSchedule(), on_epoch=told.append)
    assert told == state["history"]
    for epoch, record in enumerate(told, 1):
        assert set(record) == {
            "epoch",
            "loss",
            "penalty",
            "validation_loss",
            "validation_correlation",
            "validation_correlation_A",
            "validation_correlation_b.2",
            "lr",
            "seconds",
        }
        own = [record[f"validation_correlation_{mouse}"] for mouse in ("A", "b.2")]
        assert record["validation_correlation"] == pytest.approx(sum(own) / 2)
        assert record["epoch"] == epoch
        assert all(isinstance(value, int | float) for value in record.values())
    _, state = run(1, validation=False)
    assert "validation_loss" not in state["history"][0]


@pytest.mark.parametrize("wanted", [{}, {"checkpoint_activations": True}, {"compile": True}])
@pytest.mark.usefixtures("compiler")
def test_the_model_may_be_copied_between_epochs(wanted):
    model, copies = make_model(), []

    def keep(record):
        copies.extend([copy.deepcopy(model), pickle.loads(pickle.dumps(model))])

    run(2, model=model, on_epoch=keep, validation=False, **wanted)
    images = torch.rand(2, 3, 8, 10)
    for kept in copies:
        expected = model.core.eval()(images)
        with torch.no_grad():
            for parameter in kept.core.parameters():
                parameter.zero_()
        assert torch.equal(model.core(images), expected)
        assert not torch.equal(kept.core.eval()(images), expected)  # it has weights of its own


def test_no_epoch_leaves_the_weights_alone():
    model = make_model()
    initial = copy.deepcopy(model.state_dict())
    _, state = run(0, model=model)
    assert_same(model.state_dict(), initial)
    assert state["history"] == []


# ------------------------------------------------------------------- going on, and randomness


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [ConstantSchedule, PlateauSchedule, RoundsSchedule])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_going_on_is_training_without_a_break(schedule, optimizer):
    whole, at_once = run(5, schedule=schedule(), optimizer=optimizer)
    _, state = run(2, schedule=schedule(), optimizer=optimizer)
    state = copy.deepcopy(state)
    torch.manual_seed(123)
    model, state = run(
        3, model=make_model(7), state=state, schedule=schedule(), optimizer=optimizer
    )
    assert_same(model.state_dict(), whole.state_dict())
    assert_same(state["model"], at_once["model"])
    assert state["epoch"] == 5
    for one, other in zip(state["history"], at_once["history"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_state_is_one_plain_tree():
    _, state = run(2, schedule=PlateauSchedule())

    def check(tree):
        if isinstance(tree, dict):
            for key, value in tree.items():
                assert isinstance(key, str | int)
                check(value)
        elif isinstance(tree, list | tuple):
            for value in tree:
                check(value)
        else:
            assert tree is None or isinstance(tree, torch.Tensor | bool | int | float | str)

    check(state)


def test_an_interrupted_run_goes_on():
    def interrupt(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    state, model = new_state(initial_rng(1)), make_model()
    with pytest.raises(KeyboardInterrupt):
        run(5, model=model, state=state, on_epoch=interrupt)
    assert state["epoch"] == 2
    model, state = run(3, model=model, state=state)
    whole, _ = run(5)
    assert_same(model.state_dict(), whole.state_dict())


def test_the_same_seed_gives_the_same_weights_and_others_do_not():
    torch.manual_seed(0)
    first, _ = run(2)
    torch.manual_seed(99)
    torch.rand(5)
    again, _ = run(2)
    assert_same(first.state_dict(), again.state_dict())
    other, _ = run(2, state=new_state(initial_rng(2)))
    assert not torch.equal(other.readouts[0].features, first.readouts[0].features)


def test_global_generators_and_switches_are_left_as_found():
    model = make_model()
    generator = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    run(1, model=model, deterministic=True)
    assert torch.equal(torch.get_rng_state(), generator)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.is_grad_enabled()


# --------------------------------------------------------------------------------- not finite


def spoil(data, mouse, row):
    data[mouse].responses[row] = torch.inf
    return data


def test_the_mouse_whose_loss_is_not_finite_is_named_and_the_best_weights_stay():
    _, state = run(2)
    best = copy.deepcopy(state["best"])
    model = make_model()
    with pytest.raises(NonFiniteLossError, match=r"mouse 'b\.2' is not finite at step") as error:
        run(2, model=model, state=state, data=spoil(make_data(), "b.2", slice(None)))
    assert (error.value.mouse, error.value.epoch) == ("b.2", 3)
    assert "Lower lr" in str(error.value)
    again = pickle.loads(pickle.dumps(error.value))  # as on its way out of a process
    assert (str(again), again.mouse) == (str(error.value), "b.2")
    assert_same(model.state_dict(), best)
    assert_same(state["best"], best)
    assert state["epoch"] == len(state["history"]) == 2
    model, state = run(1, model=model, state=state)  # nothing of it is left
    assert all(p.isfinite().all() for p in model.parameters())
    assert state["epoch"] == 3


def test_the_step_is_told():
    data = spoil(make_data(trials={"A": 12, "b.2": 12}), "A", 5)
    with isolated_rng(initial_rng(1), CPU):
        batches = epoch_batches({"A": 12, "b.2": 12}, 4, CPU)
    step = next(i for i, rows in enumerate(batches, 1) if 5 in rows["A"])
    with pytest.raises(
        NonFiniteLossError, match=f"mouse 'A' is not finite at step {step} of epoch 1"
    ):
        run(1, data=data)


def test_weights_spoilt_by_the_last_step_are_noticed_without_validation():
    class Explode(torch.optim.SGD):
        def step(self, *args):
            super().step(*args)
            self.param_groups[0]["params"][0].data.fill_(torch.nan)

    model = make_model()
    initial = copy.deepcopy(model.state_dict())
    with pytest.raises(NonFiniteLossError, match="step 1 of epoch 1"):
        run(1, model=model, validation=False, batch_size=50, optimizer=Explode, lr=1e-6)
    assert_same(model.state_dict(), initial)

"""A run that is suspended between epochs: whole, out of everybody's way, and able to go on."""

import copy
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.sweeps import quick
from tests.training.loop_runs import (
    CPU,
    assert_same,
    make_data,
    make_model,
    make_run,
    mean_rate_score,
    run,
)
from v1tlearn import nn
from v1tlearn.training import (
    ConstantSchedule,
    ExponentialAverage,
    MouseLoss,
    PlateauSchedule,
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


def without_time(history):
    return [{**record, "seconds": 0} for record in history]


def assert_same_state(one, other):
    for name in ("model", "best"):
        assert_same(one[name], other[name])
    assert without_time(one["history"]) == without_time(other["history"])
    names = ("epoch", "best_epoch", "schedule", "finished", "stop_reason")
    assert [one[name] for name in names] == [other[name] for name in names]
    assert torch.equal(one["rng"]["cpu"], other["rng"]["cpu"])


# ------------------------------------------------------------------------------- cut, and going on


@pytest.mark.parametrize(
    ("schedule", "settings"),
    quick(
        [
            (ConstantSchedule, {}),
            (lambda: PlateauSchedule(patience=0, max_drops=2), {"lr": 0.3}),
            (lambda: RoundsSchedule(patience=1, n_rounds=3), {"lr": 0.3}),
            (ConstantSchedule, {"ema_decay": 0.8}),
            (lambda: PlateauSchedule(patience=0, max_drops=2), {"lr": 0.3, "ema_decay": 0.5}),
        ],
        1,
    ),
)
def test_a_run_cut_after_any_epoch_goes_on_as_if_it_was_not(schedule, settings):
    """By way of a pickle of the state, taken while the run is suspended."""
    whole = make_run(6, schedule=schedule(), **settings)
    cuts = [pickle.dumps(whole.state_dict()) for _ in whole.epochs()]
    assert len(cuts) > 2
    for epoch, cut in enumerate(cuts[:-1], 1):
        state = pickle.loads(cut)
        assert state["epoch"] == epoch
        assert state["stop_reason"] is None
        left = len(cuts) - epoch
        other = make_run(left, model=make_model(7), schedule=schedule(), state=state, **settings)
        train(other)
        state["stop_reason"] = whole.state["stop_reason"]  # the epochs of this one may be over
        assert_same_state(other.state_dict(), whole.state_dict())
        assert_same(other.model.state_dict(), whole.model.state_dict())
    assert pickle.loads(cuts[-1])["stop_reason"] == whole.state["stop_reason"]


def test_a_state_is_whole_before_the_first_epoch_and_after_the_last():
    made = make_run(2)
    before = copy.deepcopy(made.state_dict())
    train(made)
    model, state = run(2, state=before)
    assert_same_state(state, made.state_dict())
    other, _ = run(0, model=make_model(7), state=copy.deepcopy(state))
    assert_same(other.state_dict(), model.state_dict())


def test_without_a_state_every_run_draws_its_own_numbers():
    model, settings = make_model(), TrainingSettings(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    runs = [Run(model, None, optimizer, Schedule(), make_data(), settings) for _ in range(2)]
    assert runs[0].state["rng"]["seed"] != runs[1].state["rng"]["seed"]


# ------------------------------------------------------------------------------------ suspended


def test_between_epochs_nothing_of_torch_is_taken():
    model = make_model()
    generator = torch.get_rng_state()
    made = make_run(2, model=model, deterministic=True)
    seen = []
    for _ in made.epochs():
        assert torch.equal(torch.get_rng_state(), generator)
        assert not torch.are_deterministic_algorithms_enabled()
        assert not any("forward" in vars(module) for module in model.modules())
        with ThreadPoolExecutor(1) as thread:  # waits for ever if the run still has its turn
            seen.append(thread.submit(draw).result(timeout=60))
    assert seen[0] == seen[1]


def draw():
    with isolated_rng(initial_rng(0), CPU):
        return torch.rand(()).item()


def disturb(model):
    torch.rand(1)
    torch.manual_seed(5)
    copied = copy.deepcopy(model).eval()
    run(1, model=copied, lr=0.5)
    model.eval()
    with torch.inference_mode():
        model.core(torch.rand(2, 3, 8, 10))


@pytest.mark.parametrize("settings", [{}, {"checkpoint_activations": True, "ema_decay": 0.5}])
def test_what_a_callback_does_changes_nothing(settings):
    expected, state = run(3, **settings)
    model = make_model()
    _, other = run(3, model=model, on_epoch=lambda _: disturb(model), **settings)
    assert_same(model.state_dict(), expected.state_dict())
    assert_same_state(other, state)


def test_runs_in_two_threads_give_what_they_give_alone():
    def work(seed):
        state = new_state(initial_rng(seed))
        model, state = run(4, model=models[seed], state=state, deterministic=seed == 1)
        return model.state_dict(), state

    models = [make_model(seed) for seed in range(2)]
    alone = [work(seed) for seed in range(2)]
    models = [make_model(seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(work, range(2)))
    for (weights, state), (other, other_state) in zip(alone, together, strict=True):
        assert_same(weights, other)
        assert_same_state(state, other_state)


# --------------------------------------------------------------------------------- other endings


def test_a_run_that_is_closed_leaves_all_in_order():
    made = make_run(9)
    for record in made.epochs():
        if record["epoch"] == 2:
            break
    state = made.state_dict()
    assert (state["epoch"], state["stop_reason"]) == (2, "closed")
    assert_same(made.model.state_dict(), state["best"])
    assert not made.model.training
    model, _ = run(3, model=make_model(7), state=state)
    assert_same(model.state_dict(), run(5)[0].state_dict())


def test_an_interrupted_epoch_leaves_the_best_weights():
    model, schedule = make_model(), Scripted(Verdict(improved=True), Verdict())
    passes = itertools.count(1)

    def interrupt(module, inputs):
        if module.training and next(passes) == 3 * 3 - 1:
            raise KeyboardInterrupt

    model.core.register_forward_pre_hook(interrupt)
    made = make_run(9, model=model, schedule=schedule, micro_batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        train(made)
    state = made.state_dict()
    assert (state["epoch"], state["best_epoch"]) == (2, 1)
    assert (state["stop_reason"], state["finished"]) == ("interrupted", False)
    assert_same(model.state_dict(), run(1)[0].state_dict())
    assert all(p.grad is None for p in model.parameters())


def test_an_error_of_the_callback_does_not_spoil_the_run():
    def fail(record):
        raise MemoryError("of something else")

    made = make_run(5)
    with pytest.raises(MemoryError, match="of something else"):
        train(made, fail)
    state = made.state_dict()
    assert state["stop_reason"] == "on_epoch"
    model, _ = run(4, model=make_model(7), state=state)
    assert_same(model.state_dict(), run(5)[0].state_dict())


# ------------------------------------------------------------------------------------ averaging


class Scripted(Schedule):
    """A schedule with a given course, after which it changes nothing."""

    def __init__(self, *verdicts):
        self.verdicts = list(verdicts)

    def step(self, score):
        return self.verdicts.pop(0) if self.verdicts else Verdict()


class Watched(torch.optim.SGD):
    """Notes the parameters after every step."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen = []

    def step(self):
        super().step()
        self.seen.append([p.detach().clone() for p in self.param_groups[0]["params"]])


def test_averages_have_their_closed_form():
    decay, model = 0.7, make_model()
    initial = [p.detach().clone() for p in model.parameters()]
    made = make_run(2, model=model, optimizer=Watched, ema_decay=decay, validation=False)
    train(made)
    steps = made.optimizers[0].seen
    assert len(steps) == 6
    for i, kept in enumerate(model.parameters()):
        shares = [decay ** (len(steps) - k) * (1 - decay) for k in range(1, len(steps) + 1)]
        expected = decay ** len(steps) * initial[i].double()
        expected = expected + sum(s * w[i].double() for s, w in zip(shares, steps, strict=True))
        torch.testing.assert_close(kept.detach(), expected.float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            made.state["model"][list(dict(model.named_parameters()))[i]], steps[-1][i]
        )  # the last weights go on


def test_averages_are_validated_and_kept_and_come_back():
    seen = []

    def score(predictions, responses, recorded):
        seen.append(predictions)
        return mean_rate_score(predictions, responses, recorded)

    made = make_run(1, ema_decay=0.5, score=score)
    train(made)
    mice = zip(make_data(9).items(), seen, strict=True)
    for (mouse, trials), predictions in mice:
        expected = made.model({mouse: trials.batch(slice(None))})[mouse]
        torch.testing.assert_close(predictions, expected.detach())
    last, best = (made.state[name]["readouts.0.bias"] for name in ("model", "best"))
    assert not torch.equal(last, best)
    made = make_run(2, ema_decay=0.5, schedule=Scripted(Verdict(True), Verdict(restore=True)))
    train(made)
    assert_same(made.state["model"], made.state["best"])
    assert_same(made.state["average"], made.state["best"])


def test_no_average_is_one_that_forgets_at_once():
    for name, settings in (("best", {}), ("model", {"ema_decay": 0.9})):
        _, plain = run(2)
        _, state = run(2, **{"ema_decay": 0.0} | settings)
        assert_same(state[name], plain[name])  # an average does not touch the training
    with pytest.raises(ValueError, match="ema_decay is 1: expected"):
        make_run(1, ema_decay=1)


class EqualAverage(ExponentialAverage):
    """The mean of the weights after all steps, as in stochastic weight averaging."""

    def __init__(self):
        self.n = 0

    def update(self, model):
        self.n += 1
        self.decay = 1 - 1 / self.n
        super().update(model)


def test_other_averages_fit_in():
    model = make_model()
    made = make_run(
        2, model=model, optimizer=Watched, average=EqualAverage(), validation=False, lr=0.01
    )
    train(made)
    for i, kept in enumerate(model.parameters()):
        steps = torch.stack([weights[i].double() for weights in made.optimizers[0].seen])
        torch.testing.assert_close(kept.detach().double(), steps.mean(0), rtol=1e-5, atol=1e-6)


# ------------------------------------------------------- optimisers, rates, constraints, objectives


def test_two_optimisers_of_two_parts_are_one_of_both():
    def options(model):
        rest = [p for n, p in model.named_parameters() if not n.startswith("core.")]
        return model.core.parameters(), rest

    expected, state = run(4, schedule=Scripted(Verdict(True), Verdict(lr_factor=0.1)))
    results = []
    for cut in (None, 2):
        model = make_model()
        made = make_run(cut or 4, model=model)
        made.schedule = Scripted(Verdict(True), Verdict(lr_factor=0.1))
        made.optimizers = [torch.optim.Adam(p, lr=0.02) for p in options(model)]
        train(made)
        if cut is not None:
            assert len(made.state["optimizer"]) == 2
            model = make_model(7)
            made = make_run(4 - cut, model=model, state=pickle.loads(pickle.dumps(made.state)))
            made.schedule = Scripted()
            made.optimizers = [torch.optim.Adam(p, lr=0.02) for p in options(model)]
            train(made)
        results.append(made)
    for made in results:
        assert_same(made.state["model"], state["model"])
        assert_same(made.model.state_dict(), expected.state_dict())


class WarmUp(ConstantSchedule):
    """Rates rise over the first two epochs, step by step."""

    def step_rate(self, rate, epochs):
        return rate * min(1.0, epochs / 2)


def test_rates_may_change_with_every_step():
    rates = []

    class Noting(torch.optim.SGD):
        def step(self):
            rates.append(self.param_groups[0]["lr"])
            super().step()

    _, state = run(3, schedule=WarmUp(), optimizer=Noting, lr=0.06)
    assert rates == pytest.approx([0.01 * k for k in range(6)] + [0.06] * 3)  # 3 steps an epoch
    assert [record["lr"] for record in state["history"]] == pytest.approx([0.02, 0.05, 0.06])
    assert state["optimizer"]["param_groups"][0]["lr"] == 0.06


def test_rates_of_an_epoch_are_put_back_where_it_fails():
    model = make_model()
    model.core.register_forward_pre_hook(lambda *_: 1 / 0)
    made = make_run(1, model=model, schedule=WarmUp(), micro_batch_size=4)
    with pytest.raises(ZeroDivisionError):
        train(made)
    assert made.state["optimizer"]["param_groups"][0]["lr"] == 0.02


class Clamped(nn.GaussianReadout):
    def project_(self):
        with torch.no_grad():
            self.features.clamp_(min=0.3)


class Halved(nn.Stacked2dCore):
    projected = 0

    def project_(self):
        self.projected += 1


def test_constraints_hold_after_every_step():
    core = Halved((3, 8, 10), n_layers=2, hidden_channels=4, input_kernel=3, hidden_kernel=3)
    model = make_model(core=core)
    model.readouts[0] = Clamped(core.output_shape, 4)
    run(2, model=model, lr=0.5)
    assert (model.readouts[0].features >= 0.3).all()
    assert (model.readouts[1].features < 0.3).any()
    assert core.projected == 6


class SquaredError:
    """Mean squared error, which is no sum over trials, and a score of its own name."""

    score_name, in_parts = "validation_r2", False

    def loss(self, model, inputs, targets, data, sizes):
        losses = {}
        for mouse, rates in model(inputs).items():
            target, recorded = targets[mouse]
            error = (rates - target).square()
            error = error if recorded is None else torch.where(recorded, error, 0)
            losses[mouse] = MouseLoss(error.mean(), error.sum().detach(), error.numel())
        return losses

    def penalty(self, model, mice):
        return torch.zeros(())

    @torch.no_grad()
    def score(self, model, data, settings, mean_over="mice"):
        model.eval()
        errors = []
        for mouse, trials in data.items():
            rows = slice(None)
            target, _ = trials.targets(rows)
            errors.append((model({mouse: trials.batch(rows)})[mouse] - target).square().mean())
        return {"validation_r2": -torch.stack(errors).mean().item()}


def test_another_objective_is_trained_and_judged(caplog):
    model, settings = make_model(), TrainingSettings(4, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data, validation = make_data(), make_data(9)
    schedule, state = PlateauSchedule(), new_state(initial_rng(0))
    with caplog.at_level("INFO", "v1tlearn"):
        train(
            Run(
                model,
                SquaredError(),
                optimizer,
                schedule,
                data,
                settings,
                state,
                validation=validation,
            )
        )
    scores = [record["validation_r2"] for record in state["history"]]
    assert state["history"][-1]["loss"] < state["history"][0]["loss"]
    assert all(record["penalty"] == 0 for record in state["history"])
    assert schedule.best == max(scores)
    assert state["best_epoch"] == scores.index(max(scores)) + 1
    assert f"validation r2 {max(scores):.4f}" in caplog.messages[-1]

"""The training loop against a plain retelling, and what it promises around it."""

import copy
import math
import pickle
import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from v1tlearn import nn
from v1tlearn.training import (
    ConstantSchedule,
    MouseData,
    NonFiniteLossError,
    PlateauSchedule,
    RoundsSchedule,
    TrainingSettings,
    evaluate,
    initial_rng,
    isolated_rng,
    new_state,
    predict_mouse,
    train,
)
from v1tlearn.training.data import StreamedMouseData, epoch_batches
from v1tlearn.training.schedule import Verdict
from v1tlearn.training.streaming import HostArray

CPU = torch.device("cpu")
TRIALS, NEURONS = {"A": 11, "b.2": 7}, {"A": 4, "b.2": 3}
EPS = torch.finfo(torch.float32).eps


def make_data(seed=0, trials=TRIALS, device=CPU, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(seed)
    data = {}
    for mouse, n in trials.items():
        responses = -torch.rand(n, NEURONS[mouse], generator=generator).log()
        recorded = torch.rand(n, NEURONS[mouse], generator=generator) > 0.2
        data[mouse] = MouseData(
            torch.randint(0, 256, (n, 1, 8, 10), generator=generator).to(device, dtype),
            image_mean=120.0,
            image_std=60.0,
            behaviors=torch.randn(n, 2, generator=generator).to(device),
            pupil=torch.randn(n, 2, generator=generator).to(device),
            responses=torch.where(recorded, responses, 0).to(device),
            recorded=recorded.to(device) if mouse == "A" else None,
            scale_trials=n,
        )
    return data


def make_model(seed=0, core=None):
    torch.manual_seed(seed)
    core = core or nn.Stacked2dCore(
        (3, 8, 10), n_layers=2, hidden_channels=4, input_kernel=3, hidden_kernel=3
    )
    return nn.EncodingModel(
        core,
        {m: nn.GaussianReadout(core.output_shape, n) for m, n in NEURONS.items()},
        cropper=nn.ImageCropper((8, 10)),
        shifters={"A": nn.Shifter()},
        behavior_channels=core.input_shape[0] == 3,
    )


def mean_rate_score(predictions, responses, recorded):
    """Some score on the device that depends on the weights."""
    return -(predictions - responses).square().mean()


def run(
    max_epochs=3,
    *,
    schedule=None,
    model=None,
    state=None,
    data=None,
    validation=True,
    score=mean_rate_score,
    optimizer=torch.optim.Adam,
    lr=0.02,
    on_epoch=None,
    **settings,
):
    model = make_model() if model is None else model
    state = new_state(initial_rng(1)) if state is None else state
    data = make_data() if data is None else data
    device = next(iter(data.values())).images.device
    schedule = ConstantSchedule() if schedule is None else schedule
    settings = TrainingSettings(**{"batch_size": 4, "max_epochs": max_epochs} | settings)
    train(
        model,
        data,
        settings,
        optimizer(model.parameters(), lr=lr),
        schedule,
        state,
        validation=make_data(9, device=device) if validation else None,
        score=score if validation else None,
        on_epoch=on_epoch,
    )
    return model, state


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0, msg=name)


# -------------------------------------------------------------------------------- the loss


def test_published_loss_scale():
    data = MouseData(torch.zeros(1, 1, 2, 2), scale_trials=4490)
    settings = TrainingSettings(batch_size=16, max_epochs=1)
    assert settings.scale(data, 16) == pytest.approx(16.75, abs=0.005)
    assert settings.scale(data, 10) == pytest.approx(math.sqrt(449))  # a short batch counts more
    assert TrainingSettings(16, 1, loss_scale=2).scale(data, 16) == 2.0


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("loss_scale", ["sqrt", 0.5])
def test_weights_after_training_are_those_of_a_plain_loop(joint, loss_scale):
    model, data = make_model(), make_data()
    trained, state = run(
        2,
        model=copy.deepcopy(model),
        validation=False,
        optimizer=torch.optim.SGD,
        lr=1e-3,
        joint=joint,
        loss_scale=loss_scale,
    )
    # not Adam, which makes steps of the float noise in gradients that are zero in truth
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    table = []
    with isolated_rng(initial_rng(1), CPU):
        for _ in range(2):
            total_loss, count, penalties = 0.0, 0, []
            for rows in epoch_batches(TRIALS, 4, CPU):
                optimizer.zero_grad()
                batches = {
                    m: nn.MouseBatch(
                        (d.images[rows[m]].float() - 120) / 60,
                        d.behaviors[rows[m]],
                        d.pupil[rows[m]],
                    )
                    for m, d in data.items()
                }
                predictions = model(batches, joint=joint)
                loss, penalty = 0.0, (1 if joint else 2) * model.core.penalty()
                for mouse, d in data.items():
                    penalty = penalty + 0.0076 * model.readout(mouse).features.abs().sum()
                    rate, response = predictions[mouse] + EPS, d.responses[rows[mouse]]
                    terms = rate - (response + EPS) * rate.log()
                    if d.recorded is not None:
                        terms = terms[d.recorded[rows[mouse]]]
                    scale = loss_scale
                    if loss_scale == "sqrt":
                        scale = math.sqrt(TRIALS[mouse] / len(response))
                    loss = loss + scale * terms.sum()
                    total_loss, count = total_loss + terms.sum().item(), count + terms.numel()
                (loss + penalty).backward()
                optimizer.step()
                penalties.append(penalty.item())
            table.append((total_loss / count, np.mean(penalties)))
    for (name, one), other in zip(
        trained.state_dict().items(), model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)
    history = [(r["loss"], r["penalty"]) for r in state["history"]]
    np.testing.assert_allclose(history, table, rtol=1e-5)


def test_loss_and_score_of_validation():
    model, data = make_model().eval(), make_data()
    settings = TrainingSettings(batch_size=3, max_epochs=1)
    seen = []

    def score(predictions, responses, recorded):
        seen.append((predictions, responses, recorded))
        return torch.tensor(float(len(seen)))

    record = evaluate(model, data, settings, score)
    assert record["validation_correlation"] == 1.5  # mean over mice
    neurons = [d.responses.shape[1] for d in data.values()]
    scores = iter(torch.tensor([1.0, 2.0]))
    by_neurons = evaluate(model, data, settings, lambda *_: next(scores), "neurons")
    expected = (1 * neurons[0] + 2 * neurons[1]) / sum(neurons)
    assert by_neurons["validation_correlation"] == pytest.approx(expected)
    loss, count = 0.0, 0
    for (predictions, responses, recorded), (mouse, d) in zip(seen, data.items(), strict=True):
        batch = d.batch(slice(None))
        torch.testing.assert_close(predictions, model({mouse: batch})[mouse].detach())
        assert responses is not None
        assert (recorded is None) == (d.recorded is None)
        rate = predictions.double() + EPS
        terms = rate - (responses.double() + EPS) * rate.log()
        terms = terms if recorded is None else terms[recorded]
        loss, count = loss + terms.sum().item(), count + terms.numel()
    assert record["validation_loss"] == pytest.approx(loss / count, rel=1e-5)


@pytest.mark.parametrize("size", [1, 4, 50])
def test_streamed_trials_are_read_ahead_in_validation(size):
    class Watched(HostArray):
        def read(self, rows, out):
            read.append((threading.current_thread() is threading.main_thread(), len(rows)))
            super().read(rows, out)

    model, data, read = make_model().eval(), make_data(), []
    streamed = {
        mouse: StreamedMouseData(
            Watched(d.images.numpy()),
            d.image_mean,
            d.image_std,
            d.behaviors,
            d.pupil,
            responses=Watched(
                d.responses.numpy()
                if d.recorded is None
                else np.where(d.recorded, d.responses, np.nan).astype(np.float32)
            ),
            complete=d.recorded is None,
        )
        for mouse, d in data.items()
    }
    settings = TrainingSettings(batch_size=3, max_epochs=1, prediction_batch_size=size)
    first, second = (evaluate(model, d, settings, mean_rate_score) for d in (data, streamed))
    assert first == second
    assert not any(in_main for in_main, _ in read)
    assert sum(n for _, n in read) == 2 * sum(TRIALS.values())  # images and responses, once
    assert max(n for _, n in read) <= size


def test_prediction_does_not_depend_on_the_batch_size():
    model, data = make_model().eval(), make_data()
    whole = predict_mouse(model, "A", data["A"], 100, "float32")
    assert whole.shape == (11, 4)
    assert not whole.requires_grad
    for size in (1, 4, 11):
        parts = predict_mouse(model, "A", data["A"], size, "float32")
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------- course of the training


class Script:
    """A schedule with a given course, which notes what it is told."""

    min_lr, scores_initial_weights, mean_over = 0.0, False, "mice"

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
    train(
        model,
        make_data(),
        TrainingSettings(4, 3, loss_scale=1e-3),
        optimizer,
        schedule,
        state,
        validation=make_data(9),
        score=mean_rate_score,
    )
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
            "lr",
            "seconds",
        }
        assert record["epoch"] == epoch
        assert all(isinstance(value, int | float) for value in record.values())
    _, state = run(1, validation=False)
    assert "validation_loss" not in state["history"][0]


@pytest.mark.parametrize("wanted", [{}, {"checkpoint_activations": True}, {"compile": True}])
def test_the_model_may_be_copied_between_epochs(monkeypatch, wanted):
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda *args: function(*args))
    monkeypatch.setattr("v1tlearn.training.compilation.missing_compiler", lambda device: None)
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
    data["A"].recorded = None
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


# -------------------------------------------------------------------------------------- speed


class HostReads(TorchDispatchMode):
    """Counts what waits for the device: numbers read from tensors, shapes that depend on data."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        boolean_index = name in ("index", "index_put_", "_unsafe_index") and any(
            t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]
        )
        self.count += boolean_index or name.startswith(self.WAITS)
        return func(*args, **(kwargs or {}))


def vit_core(**rates):
    return nn.ViTCore(
        (1, 8, 10),
        patch_size=4,
        n_blocks=1,
        n_heads=2,
        embed_dim=6,
        mlp_dim=5,
        behavior_mode="b_mlp_per_mouse",
        n_behaviors=2,
        mice=tuple(TRIALS),
        **rates,
    )


def vit_core_without_dropout():
    """Dropout on the CPU, and nowhere else, takes a seed on the host; CUDA has tests of its own."""
    return vit_core(patch_dropout=0.0, attention_dropout=0.0, mlp_dropout=0.0)


@pytest.mark.parametrize("core", [None, vit_core_without_dropout])
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_host_reads_per_epoch_do_not_depend_on_the_number_of_steps(
    monkeypatch, core, joint, optimizer
):
    # torch imports more of itself at a process's first step, and reads tensors meanwhile
    run(1, model=make_model(), optimizer=partial(optimizer, fused=True))
    lists = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: lists.append(t.shape) or tolist(t))

    counts = []
    for batch_size in (12, 4, 1):  # 1, 3 and 11 steps
        with HostReads() as reads:
            run(
                2,
                model=make_model(core=core and core()),
                optimizer=partial(optimizer, fused=True),
                joint=joint,
                batch_size=batch_size,
            )
        counts.append((reads.count, len(lists)))
        lists.clear()
    assert counts[0] == counts[1] == counts[2]
    assert counts[0][1] == 2 * 2  # per epoch one for training, one for validation


# ------------------------------------------------------------------------------------ devices


@pytest.mark.gpu
@pytest.mark.parametrize("core", [None, vit_core])
def test_training_on_cuda_in_bfloat16(core):
    device = torch.device("cuda")
    results = []
    for _ in range(2):
        model = make_model(core=core and core()).to(device)
        before = torch.cuda.get_rng_state()
        _, state = run(
            3,
            model=model,
            data=make_data(device=device),
            precision="bfloat16",
            deterministic=True,
        )
        assert torch.equal(torch.cuda.get_rng_state(), before)
        assert all(p.dtype == torch.float32 and p.is_cuda for p in model.parameters())
        assert all(math.isfinite(r["validation_loss"]) for r in state["history"])
        results.append(model.state_dict())
    assert_same(*results)


def test_training_under_bfloat16_autocast_stays_near_float32():
    exact, _ = run(2, validation=False)
    rough, state = run(2, validation=False, precision="bfloat16")
    assert all(p.dtype == torch.float32 for p in rough.parameters())
    assert all(math.isfinite(r["loss"]) for r in state["history"])
    one, other = (predict_mouse(m, "A", make_data()["A"], 99, "float32") for m in (exact, rough))
    assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.9

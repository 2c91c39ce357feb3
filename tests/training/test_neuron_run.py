"""Runs of minimodels: each neuron as if it were trained alone."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch

from tests.nn.minimodel_files import images_of
from tests.nn.minimodels import FILES, NAMES, array_of, load, model_of, random_readout
from tests.training.test_published_runs import in_published_order, near, trials
from v1tlearn import nn
from v1tlearn.metrics.tensors import correlation, variance_explained
from v1tlearn.training import (
    ConstantSchedule,
    MouseData,
    NeuronObjective,
    NeuronOptions,
    NeuronRun,
    NeuronSchedule,
    NonFiniteLossError,
    PeriodsSchedule,
    TrainingSettings,
    train,
)

SCORE = "validation_variance_explained"
OBJECTIVE = NeuronObjective(
    partial(nn.poisson_loss, eps=1e-12),
    {SCORE: variance_explained, "validation_correlation": correlation},
)
OPTIONS = NeuronOptions(1e-3, weight_decay=0.1)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("keep", [True, False])
def test_published_steps_of_two_minimodels_at_once(precision, keep):
    files = load(*FILES)
    prefix, tolerance = ("f64/", 1e-10) if precision == "float64" else ("", 1e-4)
    model = model_of(files, getattr(torch, precision))
    order, size = torch.from_numpy(files[0]["step/order"]), int(files[0]["step/batch_size"])
    both = {
        name: np.concatenate([file[name] for file in files], 1)
        for name in ("responses", "val_responses")
    }
    both |= {name: files[0][name] for name in ("images", "val_images")}
    run = NeuronRun(
        model,
        OBJECTIVE,
        OPTIONS,
        NeuronSchedule(ConstantSchedule, {"mouse": [True, True]}),
        trials(both, "", precision),
        TrainingSettings(size, 1, checkpoint_activations=not keep),
        validation=trials(both, "val_", precision),
        draw=lambda lengths, size, device: [{"mouse": rows} for rows in order.split(size)],
    )
    (record,) = train(run)["history"]
    n, n_steps = len(order), -(-len(order) // size)
    told = sum(float(file[f"{prefix}step/train_loss"]) for file in files)
    found = 2 * (record["loss"] * n + record["penalty"] * n_steps) / n
    near([found], [told], tolerance)
    readout = model.readout("mouse")
    for name, value in readout.state_dict().items():
        near(value, array_of(files, f"{prefix}state3/", name, value), tolerance)
    judged = f"{prefix}validation_after_3_steps"
    explained = [float(file[f"{judged}/variance_explained"][0]) for file in files]
    near([record[SCORE]], [np.mean(explained)], tolerance)
    near([2 * record["validation_loss"]], [sum(f[f"{judged}/loss"] for f in files)], tolerance)


@pytest.mark.parametrize(
    ("precision", "prefix", "carry", "tolerance"),
    [
        ("float32", "", True, 1e-4),
        ("float64", "f64/", True, 1e-8),
        ("float64", "f64_counter_reset/", False, 1e-8),
    ],
)
def test_a_published_run_of_four_periods(precision, prefix, carry, tolerance):
    (arrays,) = load("run_minimodel")
    model = model_of([arrays], getattr(torch, precision))
    patience, periods = int(arrays["patience"]), arrays["max_epochs"].tolist()
    make = partial(PeriodsSchedule, periods, patience, carry_patience=carry)
    schedule = NeuronSchedule(make, {"mouse": [True]})
    size = int(arrays["batch_size"])
    (course,) = schedule.courses["mouse"]
    data, validation = trials(arrays, "", precision), trials(arrays, "val_", precision)
    settings = TrainingSettings(size, sum(periods))
    run = NeuronRun(
        model,
        OBJECTIVE,
        OPTIONS,
        schedule,
        data,
        settings,
        validation=validation,
        draw=in_published_order(lambda: course.schedule.epoch),
    )
    history = train(run)["history"]
    scores = arrays[f"{prefix}history/val_variance_explained_mean"]
    assert len(history) == len(scores)
    rates = arrays[f"{prefix}history/learning_rate"]
    np.testing.assert_allclose([r["lr"] for r in history], rates, rtol=1e-12, atol=0)
    n, n_steps = len(arrays["images"]), -(-len(arrays["images"]) // size)
    losses = [r["loss"] + r["penalty"] * n_steps / n for r in history]
    near(losses, arrays[f"{prefix}history/train_loss"], tolerance)
    near([r["validation_loss"] for r in history], arrays[f"{prefix}history/val_loss"], tolerance)
    near([r[SCORE] for r in history], scores, tolerance)
    assert course.best_epoch == run.state["best_epoch"] == 1 + int(np.argmax(scores))
    with torch.no_grad():
        out = model({"mouse": validation["mouse"].batch(slice(None))})["mouse"]
    near(out, arrays[f"{prefix}best/val_prediction"], tolerance)
    if prefix != "f64_counter_reset/":
        for name, value in model.readout("mouse").state_dict().items():
            near(value, array_of([arrays], f"{prefix}best_state/", name, value), tolerance)


# ------------------------------------------------------------------------ as if one by one


def example(n_neurons, dtype, missing=0.0, seed=0):
    """A model of some neurons, and trials of training and validation."""
    rng = np.random.default_rng(seed)
    readout = random_readout(
        (3, 8, 10), n_neurons, seed, dtype, hidden_channels=4, hidden_kernel=3,
        factorized={"channel_hoyer": 0.03, "space_weight_decay": 1.0, "channel_weight_decay": 0.2},
    )  # fmt: skip
    core = nn.FirstConvolution((1, 8, 10), 3, 5)
    core.freeze()
    model = nn.EncodingModel(core, {"mouse": readout}, cropper=nn.ImageCropper((8, 10))).to(dtype)
    arrays = {}
    for prefix, n in (("", 23), ("val_", 9)):
        arrays[f"{prefix}images"] = rng.normal(size=(n, 8, 10))
        arrays[f"{prefix}responses"] = rng.exponential(size=(n, n_neurons))
        arrays[f"{prefix}mask"] = rng.random((n, n_neurons)) >= missing
    return model, arrays


def trained(model, arrays, dtype, neurons, epochs=5, make=None, **options):
    """State and model after a run of some of the neurons, with batches drawn alike."""
    own = nn.EncodingModel(
        deepcopy(model.core),
        {"mouse": model.readout("mouse").selected(torch.tensor(neurons))},
        cropper=model.cropper,
    )
    data = {}
    for prefix in ("", "val_"):
        responses = torch.from_numpy(arrays[f"{prefix}responses"][:, neurons]).to(dtype)
        responses[~torch.from_numpy(arrays[f"{prefix}mask"][:, neurons])] = torch.nan
        complete = not bool(responses.isnan().any())
        images = images_of(arrays[f"{prefix}images"], str(dtype).removeprefix("torch."))
        kind = type(trials(load(FILES[0])[0], "", "float32")["mouse"])
        data[prefix] = {"mouse": kind(images, responses=responses, complete=complete)}
    make = make or ConstantSchedule
    schedule = NeuronSchedule(make, {"mouse": [True] * len(neurons)})
    settings = {"checkpoint_activations": options.pop("checkpoint_activations", "auto")}
    objective = options.pop("objective", OBJECTIVE)
    state = {"rng": {"seed": 3, "cpu": None, "device": None}}
    from v1tlearn.training import new_state

    run = NeuronRun(
        own, objective, options.pop("options", OPTIONS), schedule, data[""],
        TrainingSettings(5, epochs, **settings), new_state(state["rng"]),
        validation=data["val_"], **options,
    )  # fmt: skip
    train(run)
    return run


def weights(run):
    return run.model.readout("mouse").state_dict()


def assert_alike(run, others, rtol):
    """Weights of all neurons of a run are those of the runs of single ones."""
    for name, values in weights(run).items():
        single = torch.cat([weights(other)[name] for other in others])
        scale = single.abs().max()
        assert (values - single).abs().max() <= rtol * scale, name


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_neurons_at_once_are_as_one_by_one_over_25_steps(dtype, rtol, missing):
    # With seed 0 one neuron diverges, and any rounding of float32 grows by five orders; here none.
    model, arrays = example(4, dtype, missing, seed=1)
    together = trained(model, arrays, dtype, [0, 1, 2, 3])
    alone = [trained(model, arrays, dtype, [i]) for i in range(4)]
    assert_alike(together, alone, rtol)
    before = model.readout("mouse").state_dict()
    moved = {n for n, v in weights(together).items() if not torch.equal(v, before[n])}
    assert moved == set(before)
    for epoch in range(5):
        own = [run.state["history"][epoch][SCORE] for run in alone]
        assert together.state["history"][epoch][SCORE] == pytest.approx(np.mean(own), rel=1e-3)


def test_neurons_end_by_their_own_schedules_and_drop_out():
    model, arrays = example(4, torch.float64)
    make = partial(PeriodsSchedule, (5, 3, 2), 2)
    together = trained(model, arrays, torch.float64, range(4), 10, make)
    alone = [trained(model, arrays, torch.float64, [i], 10, make) for i in range(4)]
    assert_alike(together, alone, 1e-9)
    lengths = [len(run.state["history"]) for run in alone]
    assert len(set(lengths)) > 1  # or nothing drops out
    history = together.state["history"]
    assert len(history) == max(lengths)
    for epoch, record in enumerate(history):
        assert record["n_trained"] == sum(length > epoch for length in lengths)
    found = [course.best_epoch for course in together.schedule.courses["mouse"]]
    assert found == [run.state["best_epoch"] for run in alone]
    assert together.state["finished"]
    assert together.state["stop_reason"] == "schedule"
    last = [run.state["history"][run.state["best_epoch"] - 1][SCORE] for run in alone]
    over = [course.best[SCORE] for course in together.schedule.courses["mouse"]]
    assert over == pytest.approx(last, rel=1e-9)


@pytest.mark.parametrize(("at_once", "recompute"), [(1, True), (2, False), (3, True)])
def test_memory_does_not_change_the_result(at_once, recompute):
    model, arrays = example(5, torch.float64, 0.2)
    make = partial(PeriodsSchedule, (4, 3), 2)
    usual = trained(model, arrays, torch.float64, range(5), 7, make)
    sparing = trained(
        model, arrays, torch.float64, range(5), 7, make,
        neurons_at_once=at_once, checkpoint_activations=recompute,
    )  # fmt: skip
    assert_alike(usual, [sparing], 1e-10)
    names = ("loss", "validation_loss", SCORE, "validation_correlation", "penalty", "n_trained")
    for first, second in zip(usual.state["history"], sparing.state["history"], strict=True):
        assert [first[n] for n in names] == pytest.approx([second[n] for n in names], rel=1e-9)


def test_responses_that_are_missing_reach_nothing():
    model, arrays = example(3, torch.float64, 0.3)
    one = trained(model, arrays, torch.float64, range(3))
    for name in ("responses", "val_responses"):
        hidden = ~arrays[name.replace("responses", "mask")]
        arrays[name] = np.where(hidden, 1e6, arrays[name])
    assert_alike(one, [trained(model, arrays, torch.float64, range(3))], 1e-14)


def test_loss_per_recorded_response():
    """A single trial per batch counts the same, whichever way; several are a mean."""
    model, arrays = example(2, torch.float64)
    mean = OBJECTIVE._replace(per_recorded=True)
    plain = NeuronOptions(1e-3, decoupled=False)
    losses, target = torch.tensor([6.0, 3.0]), torch.zeros(3, 2)
    torch.testing.assert_close(mean.scaled(losses, target, None), losses / (3 + 1e-6))
    recorded = torch.tensor([[True, False], [True, True], [True, False]])
    expected = losses / torch.tensor([3 + 1e-6, 1 + 1e-6])
    torch.testing.assert_close(mean.scaled(losses, target, recorded), expected)
    one = trained(model, arrays, torch.float64, range(2), objective=mean, options=plain)
    two = trained(model, arrays, torch.float64, range(2), options=plain)
    assert not torch.equal(weights(one)["mixing"], weights(two)["mixing"])


@pytest.mark.parametrize("decoupled", [True, False])
def test_steps_are_those_of_torch(decoupled):
    model, arrays = example(1, torch.float64)
    options = NeuronOptions(3e-3, (0.8, 0.99), 0.05, decoupled)
    run = trained(model, arrays, torch.float64, [0], 1, options=options)
    readout = deepcopy(model.readout("mouse")).train()
    groups = [{"weight_decay": 0.05} | group for group in readout.groups()]
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = kind(groups, lr=3e-3, betas=(0.8, 0.99))
    order = torch.randperm(23, generator=torch.Generator().manual_seed(3))
    images = images_of(arrays["images"], "float64")
    responses = torch.from_numpy(arrays["responses"])
    for rows in order.split(5):
        optimizer.zero_grad()
        rates = nn.elu_plus_one(readout(model.core(images[rows])))
        loss = nn.poisson_loss(rates, responses[rows], eps=1e-12) + readout.penalty()
        loss.backward()
        optimizer.step()
        readout.project_()
    for name, value in readout.state_dict().items():
        torch.testing.assert_close(weights(run)[name], value, rtol=1e-9, atol=1e-12)


# --------------------------------------------------------------------------- what goes wrong


def test_a_neuron_that_runs_off_takes_none_with_it():
    model, arrays = example(3, torch.float64)
    arrays["responses"][7, 1] = np.inf
    make = partial(PeriodsSchedule, (3, 3), 2)
    run = trained(model, arrays, torch.float64, range(3), 6, make)
    others = trained(model, arrays, torch.float64, [0, 2], 6, make)
    for name, values in weights(run).items():
        torch.testing.assert_close(values[[0, 2]], weights(others)[name], rtol=1e-9, atol=1e-12)
        assert torch.equal(values[1], model.readout("mouse").state_dict()[name][1])
    assert [course.lost for course in run.schedule.courses["mouse"]] == [False, True, False]
    assert all(np.isfinite(record[SCORE]) for record in run.state["history"])


def test_a_mouse_of_which_every_neuron_runs_off_is_an_error():
    model, arrays = example(2, torch.float64)
    arrays["responses"][7] = np.inf
    with pytest.raises(NonFiniteLossError, match="mouse"):
        trained(model, arrays, torch.float64, range(2))


def test_constant_validation_responses_are_judged_by_their_error():
    model, arrays = example(2, torch.float64)
    arrays["val_responses"][:, 1] = 0.5
    run = trained(model, arrays, torch.float64, range(2), 5)
    best = run.schedule.courses["mouse"][1].best_epoch
    errors = []
    for epochs in range(1, 6):
        ended = trained(model, arrays, torch.float64, [1], epochs)
        ended.model.load_state_dict(ended.state["model"])
        images = images_of(arrays["val_images"], "float64")
        with torch.no_grad():
            rates = ended.model({"mouse": nn.MouseBatch(images)})["mouse"]
        errors.append(float((rates - 0.5).square().mean()))
    assert best == 1 + int(np.argmin(errors))


def test_without_validation_responses_the_last_epoch_is_kept():
    model, arrays = example(2, torch.float64)
    arrays["val_mask"][:, 1] = False
    run = trained(model, arrays, torch.float64, range(2), 4)
    assert run.schedule.courses["mouse"][1].best_epoch == 4
    last = run.state["model"]
    for name, values in weights(run).items():
        assert torch.equal(values[1], last[f"readouts.0.{name}"][1])


def test_an_interrupted_run_goes_on_to_the_same_end():
    model, arrays = example(3, torch.float64)
    make = partial(PeriodsSchedule, (4, 3), 2)
    whole = trained(model, arrays, torch.float64, range(3), 7, make)
    first = trained(model, arrays, torch.float64, range(3), 3, make)
    schedule = NeuronSchedule(make, {"mouse": [True] * 3})
    state = deepcopy(first.state_dict())
    again = NeuronRun(
        first.model, OBJECTIVE, OPTIONS, schedule, first.data, TrainingSettings(5, 4), state,
        validation=first.validation,
    )  # fmt: skip
    train(again)
    for name, values in weights(whole).items():
        assert torch.equal(values, weights(again)[name]), name


def test_data_of_several_mice_are_trained_side_by_side():
    model, arrays = example(3, torch.float64)
    usual = trained(model, arrays, torch.float64, range(3), 3)
    assert isinstance(usual.data["mouse"], MouseData)
    both = nn.EncodingModel(
        deepcopy(model.core),
        {m: deepcopy(model.readout("mouse")) for m in ("a", "b")},
        cropper=model.cropper,
    )
    schedule = NeuronSchedule(ConstantSchedule, {"a": [True] * 3, "b": [True, False, True]})
    before = deepcopy(both.readout("b").state_dict())
    run = NeuronRun(
        both, OBJECTIVE, OPTIONS, schedule,
        dict.fromkeys(("a", "b"), usual.data["mouse"]), TrainingSettings(5, 2),
        validation=dict.fromkeys(("a", "b"), usual.validation["mouse"]),
    )  # fmt: skip
    history = train(run)["history"]
    assert [record["n_trained"] for record in history] == [5, 5]
    for record in history:
        own = [record[f"{SCORE}_{m}"] for m in ("a", "b")]
        assert record[SCORE] == pytest.approx(np.mean(own))
    after = both.readout("b").state_dict()
    for name, values in before.items():
        assert torch.equal(after[name][1], values[1])
        if name in NAMES and name != "first_mean":
            assert not torch.equal(after[name][0], values[0])

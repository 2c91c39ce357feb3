"""Whole published runs of full models through the public classes of a training."""

import numpy as np
import pytest
import torch

from tests.nn.minimodel_files import REFERENCE, images_of, model_of, state
from v1tlearn.metrics.tensors import variance_explained
from v1tlearn.training import (
    ConstantSchedule,
    MouseData,
    PeriodsSchedule,
    PoissonObjective,
    Run,
    TrainingSettings,
    make_optimizer,
    train,
)

NAME = "validation_variance_explained"


def load(name):
    with np.load(REFERENCE / f"{name}.npz") as file:
        return dict(file)


class InOneFormat(MouseData):
    """Trials whose images stay in their own number format, float64 included."""

    def batch(self, rows, images=None):
        return super().batch(rows, images)._replace(images=self.images[rows])


def trials(arrays, prefix, precision, recorded=None):
    responses = torch.from_numpy(arrays[f"{prefix}responses"]).to(getattr(torch, precision))
    if recorded is not None:
        responses[~torch.from_numpy(recorded)] = torch.nan
    images = images_of(arrays[f"{prefix}images"], precision)
    return {"mouse": InOneFormat(images, responses=responses, complete=recorded is None)}


def score(predictions, responses, recorded):
    return variance_explained(predictions, responses, recorded).mean()


def optimizer_of(model, lr=1e-3):
    return make_optimizer(model, "adamw", lr=lr)


def near(found, expected, tolerance):
    found, expected = np.asarray(found), np.asarray(expected)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < tolerance, error


def in_published_order(number):
    """Batches of an epoch in the order of the legacy generator, seeded with its number."""

    def draw(lengths, batch_size, device):
        order = np.random.RandomState(number()).permutation(lengths["mouse"])
        return [{"mouse": rows} for rows in torch.from_numpy(order).split(batch_size)]

    return draw


@pytest.mark.parametrize(
    ("precision", "prefix", "carry", "tolerance"),
    [
        ("float32", "", True, 1e-4),
        ("float64", "f64/", True, 1e-8),
        ("float64", "f64_counter_reset/", False, 1e-8),
    ],
)
def test_a_published_run_of_four_periods(precision, prefix, carry, tolerance):
    arrays = load("run_fullmodel")
    model = model_of(arrays, "run_fullmodel", precision)
    patience, periods = int(arrays["patience"]), arrays["max_epochs"].tolist()
    schedule = PeriodsSchedule(periods, patience, carry_patience=carry)
    size = int(arrays["batch_size"])
    objective = PoissonObjective(
        score, loss_scale="per_neuron", score_name=NAME, loss_epsilon=1e-12
    )
    settings = TrainingSettings(size, sum(periods))
    validation = trials(arrays, "val_", precision)
    run = Run(
        model,
        objective,
        optimizer_of(model),
        schedule,
        trials(arrays, "", precision),
        settings,
        validation=validation,
        draw=in_published_order(lambda: schedule.epoch),
    )
    history = train(run)["history"]
    expected = {n: arrays[f"{prefix}history/{n}"] for n in ("learning_rate", "train_loss")}
    expected |= {n: arrays[f"{prefix}history/{n}"] for n in ("val_loss",)}
    scores = arrays[f"{prefix}history/val_variance_explained_mean"]
    assert len(history) == len(scores)
    np.testing.assert_allclose(
        [r["lr"] for r in history], expected["learning_rate"], rtol=1e-12, atol=0
    )
    near([r["loss"] for r in history], expected["train_loss"], tolerance)
    near([r["validation_loss"] for r in history], expected["val_loss"], tolerance)
    near([r[NAME] for r in history], scores, tolerance)
    assert run.state["best_epoch"] == 1 + int(np.argmax(scores))
    with torch.no_grad():
        out = model({"mouse": validation["mouse"].batch(slice(None))})["mouse"]
    near(out, arrays[f"{prefix}best/val_prediction"], tolerance)
    if prefix != "f64_counter_reset/":
        for name, value in state(arrays, "best_state/", precision).items():
            near(model.state_dict()[name], value, tolerance)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_published_loss_of_what_was_recorded(precision):
    arrays = load("masked_loss")
    prefix, tolerance = ("f64/", 1e-10) if precision == "float64" else ("", 1e-4)
    model = model_of(arrays, "masked_loss", precision)
    size, data = int(arrays["batch_size"]), trials(arrays, "", precision, arrays["mask"])
    objective, found = PoissonObjective(loss_scale="per_recorded", loss_epsilon=1e-12), []

    def noting(*args):
        losses = PoissonObjective.loss(objective, *args)
        penalty = objective.penalty(model, ["mouse"]).detach() if model.training else 0.0
        found.append(float(losses["mouse"].minimised.detach() + penalty))
        return losses

    images = data["mouse"].images
    predictions = model.eval()({"mouse": data["mouse"].batch(slice(None))})["mouse"].detach()
    near(predictions, arrays[f"{prefix}eval/prediction"], 1e-10 if prefix else 1e-5)
    for rows in torch.arange(len(images)).split(size):
        inputs, targets = data["mouse"].batch(rows), data["mouse"].targets(rows)
        noting(model, {"mouse": inputs}, {"mouse": targets}, data, {"mouse": len(rows)})
    near(sum(found) / len(images), arrays[f"{prefix}validation/loss"], 1e-10 if prefix else 1e-5)
    target, recorded = data["mouse"].targets(slice(None))
    explained = variance_explained(predictions, target, recorded)
    stated = arrays["validation/variance_explained_masked_stated"]
    near(explained, stated, 1e-10 if prefix else 1e-5)

    objective.loss = noting
    run = Run(
        model,
        objective,
        optimizer_of(model, float(arrays["optim/lr"])),
        ConstantSchedule(),
        data,
        TrainingSettings(size, 1),
        draw=in_published_order(lambda: 0),
    )
    train(run)
    steps = -(-len(images) // size)  # a trial step ahead of them measures the memory
    near(sum(found[-steps:]) / len(images), arrays[f"{prefix}train_loss"], tolerance)
    for name, value in state(arrays, "state3/", precision).items():
        near(model.state_dict()[name], value, tolerance)

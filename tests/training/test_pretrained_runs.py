"""Whole trainings of readouts on frozen backbones, and of the fine-tuning that follows."""

import numpy as np
import pytest
import torch

from tests.backbones import FAMILIES, arrays, own_name, reference_backbone, reference_pixels
from v1tlearn import nn
from v1tlearn.metrics.tensors import variance_explained
from v1tlearn.training import (
    CosineSchedule,
    MouseData,
    PoissonObjective,
    ReduceSchedule,
    Run,
    TrainingSettings,
    make_optimizer,
)

NAMES = {"Wy": "rows", "Wx": "columns", "Wc": "channels", "bias": "bias"}


class MapsOfPixels(nn.PretrainedViTCore):
    """The published pixels are resized after they were scaled: they come in as they are."""

    def forward(self, images, behaviors=None, sizes=None):
        return self.maps(images)


def model_of(family, found, fine_tune, l2, decays, core_decay=None):
    core = MapsOfPixels(
        (3, *found["input_size"].tolist()),
        reference_backbone(family),
        block=found["extraction_blocks"].tolist(),
        fine_tune=fine_tune,
        weight_decay=core_decay,
    )
    readout = nn.FactorizedReadout(
        core.output_shape,
        len(found["readout0/bias"]),
        space_l2=l2,
        channel_l2=l2,
        space_weight_decay=decays and decays[0],
        channel_weight_decay=decays and decays[1],
    )
    cropper = nn.ImageCropper(core.input_shape[1:])
    return nn.EncodingModel(core, {"A": readout}, cropper=cropper)


def score(predictions, responses, recorded):
    return variance_explained(predictions, responses, recorded).nanmean()


def trained(model, found, told, schedule, *, core_lr, decay):
    """History of a run over the published batches, in the precision of the model."""
    n, size = int(found["n_train"]), int(found["batch_size"])
    dtype = next(model.parameters()).dtype
    pixels = reference_pixels(found, dtype)
    responses = torch.tensor(found["responses"]).to(dtype)
    training = MouseData(pixels[:n], responses=responses[:n], scale_trials=n)
    held_out = MouseData(pixels[n:], responses=responses[n:], scale_trials=len(pixels) - n)
    order = iter(told["order"])

    def draw(lengths, batch_size, device):
        return [{"A": rows} for rows in torch.tensor(next(order)).split(batch_size)]

    run = Run(
        model,
        PoissonObjective(
            score,
            loss_scale="per_neuron",
            loss_epsilon=0.0,
            score_name="validation_variance_explained",
        ),
        make_optimizer(model, "adamw", lr=1e-3, core_lr=core_lr, weight_decay=decay),
        schedule,
        {"A": training},
        TrainingSettings(batch_size=size, max_epochs=len(told["order"]), clip_norm=1.0),
        validation={"A": held_out},
        draw=draw,
    )
    return list(run.epochs())


def compare(model, history, told, tolerance=1e-4):
    scores = [record["validation_variance_explained"] for record in history]
    np.testing.assert_allclose(scores, told["val_variance_explained_mean"], rtol=tolerance)
    steps = told["batch_losses"].reshape(len(history), -1).sum(1)
    sums = [record["loss"] for record in history]  # per response, without penalties
    assert np.all(np.diff(sums) < 0) == np.all(np.diff(steps) < 0)
    for name, own in NAMES.items():
        values = getattr(model.readouts[0], own).detach()
        expected = told[f"best_state/readout.{name}"]
        room = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(values, expected, rtol=tolerance, atol=room)


def part(runs, name):
    return {k.removeprefix(f"{name}/"): runs[k] for k in runs.files if k.startswith(f"{name}/")}


@pytest.mark.parametrize("family", FAMILIES)
def test_published_training_on_a_frozen_backbone(family):
    found, runs = arrays(f"{family}_training"), arrays(f"{family}_runs")
    told = part(runs, "run_readout")
    model = model_of(family, found, "none", 0.1, (1.0, 0.1))
    for name, own in NAMES.items():
        getattr(model.readouts[0], own).data = torch.tensor(found[f"readout0/{name}"])
    before = {k: v.clone() for k, v in model.core.state_dict().items()}
    schedule = ReduceSchedule(1e-3, 5, 0.5, 1e-5)
    history = trained(model, found, told, schedule, core_lr=None, decay=0.0)
    compare(model, history, told)
    assert all(torch.equal(v, before[k]) for k, v in model.core.state_dict().items())


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_published_fine_tuning(family, n):
    found, runs = arrays(f"{family}_training"), arrays(f"{family}_runs")
    start, told = part(runs, "run_readout"), part(runs, f"run_finetune_last_{n}")
    model = model_of(family, found, n, 1e-4, None, core_decay=1e-2)
    for name, own in NAMES.items():
        getattr(model.readouts[0], own).data = torch.tensor(start[f"best_state/readout.{name}"])
    before = {k: v.clone() for k, v in model.core.backbone.model.state_dict().items()}
    schedule = CosineSchedule(len(told["order"]), 5, 1e-7)
    history = trained(model, found, told, schedule, core_lr=1e-5, decay=1e-5)
    compare(model, history, told)

    now = model.core.backbone.model.state_dict()
    changed = {k for k in now if not torch.equal(now[k], before[k])}
    published = [name for name in told["changed_names"].tolist() if "readout" not in name]
    names = {name: own_name(name.removeprefix("core.backbone."), now) for name in published}
    assert changed == set(names.values())
    for name, own in names.items():
        if f"best_state/{name}" in told:
            expected = told[f"best_state/{name}"]
            least = 1e-4 if "key.bias" in name else 1e-4 * np.abs(expected).max()
            np.testing.assert_allclose(now[own], expected, rtol=1e-4, atol=least)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_published_fine_tuning_in_float64(family, n):
    found, runs = arrays(f"{family}_training"), arrays(f"{family}_runs")
    start, told = part(runs, "f64/run_readout"), part(runs, f"f64/run_finetune_last_{n}")
    told |= {k: v for k, v in part(runs, f"run_finetune_last_{n}").items() if k not in told}
    model = model_of(family, found, n, 1e-4, None, core_decay=1e-2).double()
    for name, own in NAMES.items():
        getattr(model.readouts[0], own).data = torch.tensor(start[f"best_state/readout.{name}"])
    before = {k: v.clone() for k, v in model.core.backbone.model.state_dict().items()}
    schedule = CosineSchedule(len(told["order"]), 5, 1e-7)
    history = trained(model, found, told, schedule, core_lr=1e-5, decay=1e-5)
    compare(model, history, told, 1e-5)
    now = model.core.backbone.model.state_dict()
    for name, norm in zip(told["changed_names"].tolist(), told["change_norms"], strict=True):
        if "readout" in name or "key.bias" in name:  # which moves by rounding alone
            continue
        own = own_name(name.removeprefix("core.backbone."), now)
        assert (now[own] - before[own]).norm().item() == pytest.approx(norm, rel=1e-4), name

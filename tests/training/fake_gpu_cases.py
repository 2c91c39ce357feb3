"""Training steps on a GPU that is not there: shapes, types, layouts and devices without numbers.

Run as ``python -m tests.training.fake_gpu_cases LIBRARY`` in a process of its own, since what
stands in for CUDA stays. Prints as JSON, for every case, what `Watch` noticed.
"""

import ctypes
import json
import os
import sys
import traceback

if __name__ == "__main__" and len(sys.argv) > 1:
    ctypes.CDLL(sys.argv[1])  # torch looks only once for what it registers

import numpy as np
import torch
from torch import nn as torch_nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from tests.training.fake_gpu import Watch, move, on_device, unwatched
from tests.training.loop_runs import NEURONS, TRIALS
from v1tlearn import nn
from v1tlearn.metrics.tensors import correlation, variance_explained
from v1tlearn.training import (
    ContrastiveObjective,
    ExponentialAverage,
    MouseData,
    NeuronObjective,
    NeuronOptions,
    PoissonObjective,
    RateObjective,
    SequenceObjective,
    TrainingSettings,
    all_windows,
    cut_into_windows,
    make_optimizer,
    make_optimizers,
    numerics,
)
from v1tlearn.training.data import epoch_batches, step_batches
from v1tlearn.training.neuron_steps import Block, Maps, Moments
from v1tlearn.training.prediction import predict_known
from v1tlearn.training.steps import backward

GPU, MPS = torch.device("cuda", 0), torch.device("mps", 0)
IMAGE, MAPS = (12, 14), (2, 4, 5)


def trials(n_frames=1, missing=True, image=IMAGE, channels=1):
    """Trials of images, or frames of movies, with grey levels of a byte."""
    data = {}
    for mouse, n in TRIALS.items():
        n *= n_frames
        data[mouse] = MouseData(
            torch.zeros(n, channels, *image, dtype=torch.uint8),
            image_mean=120.0,
            image_std=60.0,
            behaviors=torch.zeros(n, 2),
            pupil=torch.zeros(n, 2),
            labels=torch.arange(n),
            responses=torch.zeros(n, NEURONS[mouse]),
            complete=not (missing and mouse == "A"),
            scale_trials=n,
        )
    return data


def encoding(core, readout, *, shifted=True, behavior_channels=False, of=IMAGE, **cropper):
    """A model of two mice with a readout each."""
    readouts = {m: readout(core.output_shape, n) for m, n in NEURONS.items()}
    shifters = {m: nn.Shifter() for m in NEURONS} if shifted else None
    return nn.EncodingModel(
        core,
        readouts,
        cropper=nn.ImageCropper(of, **cropper),
        shifters=shifters,
        behavior_channels=behavior_channels,
    )


def cnn(**options):
    sizes = {"n_layers": 3, "hidden_channels": 4, "input_kernel": 3, "hidden_kernel": 3}
    return nn.Stacked2dCore((3, *IMAGE), **sizes | options)


def vit(**options):
    sizes = {"patch_size": 4, "patch_stride": 2, "n_blocks": 2, "n_heads": 2, "embed_dim": 8}
    return nn.ViTCore((1, *IMAGE), mlp_dim=5, **sizes | options)


def v1t(**options):
    return vit(behavior_mode="b_mlp_per_mouse", n_behaviors=2, mice=tuple(NEURONS), **options)


def two_layers():
    return nn.TwoLayerCore((1, *IMAGE), channels=(2, 3), kernels=(5, 3))


def positioned(core_shape, n):
    return nn.GaussianReadout(core_shape, n, positions=torch.rand(n, 2), beyond_map="edge")


# ---------------------------------------------------------------------------------------- the cases


def step(device, precision, model, data, objective, optimizers, clip=None):
    """Take a step as a run does, its batch included; maps of the core."""
    settings = TrainingSettings(4, 1, micro_batch_size=4, precision=precision)
    average, maps = ExponentialAverage(0.9), []
    average.restart(model.state_dict())
    model.core.register_forward_hook(lambda _, args, out: maps.append(out))
    model.train()
    lengths = {mouse: len(own) for mouse, own in data.items()}
    ((inputs, targets),) = step_batches(data, epoch_batches(lengths, 4, device)[:1])
    if device.type != "cuda":
        objective.loss(model, inputs, targets, data, dict.fromkeys(data, 4))
        return maps[0]
    losses, _, _ = backward(model, objective, inputs, targets, data, settings)
    assert losses.dtype == torch.float32
    if clip is not None:
        torch_nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    for module in (model.core, *model.readouts):
        module.project_()
    average.update(model)
    trained = [p for o in optimizers for g in o.param_groups for p in g["params"]]
    assert all(p.dtype == torch.float32 and p.device == device for p in trained)
    return maps[0]


def fitted(core, readout=nn.GaussianReadout, loss=None, *, judged=False, **options):
    """A step of an encoding model, and its predictions where they are judged."""

    def made():
        model, data = encoding(core(), readout, **options), trials()

        def case(device, precision):
            move(model, device)
            there = on_device(data, device)
            optimizers = [make_optimizer(model, "adamw", lr=1e-3, weight_decay=0.1)]
            objective = loss or PoissonObjective()
            maps = step(device, precision, model, there, objective, optimizers, clip=1.0)
            if judged:
                judge(model, there, precision)
            return maps

        return case

    return made


@torch.no_grad()
def judge(model, data, precision):
    """Predict, and score by what validation scores with."""
    model.eval()
    for mouse, own in data.items():
        predicted, target, recorded = predict_known(model, mouse, own, 4, precision)
        assert predicted.dtype == torch.float32
        for score in (correlation, variance_explained):
            assert score(predicted, target, recorded).shape == (NEURONS[mouse],)


def movies(core, readout):
    """Steps on windows of movies."""

    def made():
        model, lengths = encoding(core(), readout, shifted=False), {"A": [12, 10], "b.2": [14]}
        lengths = {mouse: np.array(own) for mouse, own in lengths.items()}
        data = cut_into_windows(trials(2), lengths, model.context_frames, 4)
        assert all(own.n_counted > 0 for own in data.values())

        def case(device, precision):
            move(model, device)
            there, optimizers = on_device(data, device), [make_optimizer(model, lr=1e-3)]
            return step(device, precision, model, there, PoissonObjective(), optimizers)

        return case

    return made


def minimodels():
    """Steps of neurons one by one on maps that are kept."""
    core = nn.FirstConvolution((1, *IMAGE), 3, 5)
    core.freeze()
    sizes = {"hidden_channels": 4, "hidden_kernel": 3}
    readouts = {m: nn.MinimodelReadout(core.output_shape, n, **sizes) for m, n in NEURONS.items()}
    model = nn.EncodingModel(core, readouts, cropper=nn.ImageCropper(IMAGE))
    data = trials(missing=False)
    objective = NeuronObjective(nn.poisson_loss, {"r": correlation}, per_recorded=True)

    def case(device, precision):
        move(model, device)
        there = on_device(data, device)
        for mouse, own in there.items():
            readout, maps = model.readout(mouse), Maps(model, mouse, own, 4, True)
            moments, options = Moments.of(readout, 1e-3), NeuronOptions(1e-3, weight_decay=0.1)
            with unwatched():
                block = Block(readout, moments, torch.arange(2), options)
            drawn = [r[mouse] for r in epoch_batches({mouse: len(own)}, 4, device)[:1]]
            for pooled, (target, recorded) in maps.batches(drawn):
                block.step(pooled, target, recorded, model.head(mouse), objective)
                block.predict(pooled, model.head(mouse))
            block.finite()

    return case


def alignment(tower, weights, at_once=None):
    """Steps of an alignment of images and responses."""

    def made():
        core = nn.CNNTower((1, *IMAGE), MAPS, hidden_channels=6, n_layers=2, input_kernel=3)
        towers = {m: tower(n) for m, n in NEURONS.items()}
        cropper = nn.ImageCropper(IMAGE)
        model = nn.AlignmentModel(core, towers, cropper=cropper, learn_temperature=True)
        data = trials(missing=False)

        def case(device, precision):
            move(model, device)
            there, objective = (
                on_device(data, device),
                ContrastiveObjective(weights, at_once=at_once),
            )
            return step(device, precision, model, there, objective, make_optimizers(model))

        return case

    return made


def attention_tower(n):
    return nn.AttentionTower(n, MAPS, grid=(2, 3), embed_dim=4, n_heads=2)


def mlp_tower(n):
    return nn.MLPTower(n, MAPS, grid=(4, 5), hidden_units=(12,), dropout=0.2)


def vist():
    """Steps of Vi-ST on features of frames that are kept."""

    def readout(shape, n):
        sizes = {"n_layers": 2, "channels": 4, "kernels": ((1, 3),)}
        return nn.ViSTReadout(shape, n, receptive_field=torch.rand(n, 6, 6), **sizes)

    model = encoding(nn.FramesCore((3, 6, 6)), readout, shifted=False, of=(6, 6))
    frames = {"A": trials(4, missing=False, image=(6, 6), channels=3)["A"]}
    data = all_windows(frames, {"A": np.array([44])}, {"A": np.ones(44, bool)}, 40)

    def case(device, precision):
        move(model, device)
        there, optimizers = on_device(data, device), [make_optimizer(model, "adamw", lr=1e-3)]
        objective = SequenceObjective(nn.vist_loss, nn.squared_loss)
        return step(device, precision, model, there, objective, optimizers)

    return case


def soft_dtw():
    """The divergence and its gradient."""

    def case(device, precision):
        x, y = (torch.empty(3, n, 4, device=device, requires_grad=True) for n in (6, 5))
        found = nn.soft_dtw_divergence(x, y, gamma=0.5).sum()
        if device.type == "cuda":
            found.backward()
            assert x.grad.dtype == torch.float32

    return case


CASES = {
    "cnn": fitted(cnn, judged=True, behavior_channels=True),
    "cnn, factorised": fitted(
        cnn, nn.FactorizedReadout, shifted=False, behavior_channels=True
    ),
    "two layers": fitted(
        two_layers,
        nn.FactorizedReadout,
        RateObjective(nn.poisson_loss, loss_scale="per_recorded"),
        shifted=False,
    ),
    "vit": fitted(vit, positioned, RateObjective(nn.squared_loss, loss_scale=1.0)),
    "vit, lsa": fitted(lambda: vit(attention="lsa")),
    "v1t": fitted(lambda: v1t(drop_path=0.2)),
    **{
        f"vit, {kind}": fitted(lambda kind=kind: vit(tokenizer=kind))
        for kind in ("conv", "spt", "cct", "dual_norm")
    },
    "moved stimuli": fitted(
        vit, shifted=False, crop_scale=0.8, image_size=IMAGE,
        shifters={m: nn.StimulusShifter(max_shift=0.2) for m in NEURONS},
    ),
    "movies, cnn": movies(
        lambda: nn.MovieCNNCore(
            (1, *IMAGE), n_layers=2, hidden_channels=4, input_kernel=3, hidden_kernel=3,
            input_time_kernel=3, hidden_time_kernel=2, recurrent=True, memory_frames=2,
        ),
        nn.GaussianReadout,
    ),
    "movies, kernels": movies(
        lambda: nn.FramesCore((1, *IMAGE)), lambda shape, n: nn.KernelReadout(shape, n, 3)
    ),
    "movies, lags": movies(
        vit, lambda shape, n: nn.TemporalReadout(nn.GaussianReadout(shape, n), 3)
    ),
    "vist": vist,
    "minimodels": minimodels,
    "alignment": alignment(attention_tower, (1.0, 0.5, 0.5)),
    "alignment in parts": alignment(mlp_tower, (1.0, 0.0, 0.0), at_once=2),
    "soft-dtw": soft_dtw,
}  # fmt: skip


IN_FLOAT32 = ("cnn", "vit", "minimodels")
ON_MPS = ("cnn", "two layers", "movies, kernels", "alignment", "soft-dtw")  # forward alone


def run(case, device, precision):
    """What was noted of a case, and the error that it ended with."""
    watch = unwatched.watch = Watch()
    found = {"error": None, "layout": None}
    try:
        steps = case()
        gradients = torch.set_grad_enabled(device.type == "cuda")
        with FakeTensorMode(), gradients, numerics(precision, device, deterministic=True), watch:
            maps = steps(device, precision)
        if maps is not None:
            assert isinstance(maps, FakeTensor)
            found["layout"] = "last" if maps.stride(-3) == 1 else "first"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)
        own = [f"{f.filename}:{f.lineno}" for f in last if "v1tlearn/" in f.filename][-3:]
        found["error"] = f"{type(error).__name__}: {error} at {own}"
    noted = {"waits": watch.waits, "wide": watch.wide, "chance": watch.chance}
    return found | {name: sorted(values) for name, values in noted.items()}


def main():
    if not torch.cuda.is_available():  # which torch asks ahead of numbers of half the length
        torch.cuda.amp.common.amp_definitely_not_available = lambda: False
        torch.cuda.is_bf16_supported = lambda *args, **how: True
    told = {f"{name}, bfloat16": run(case, GPU, "bfloat16") for name, case in CASES.items()}
    told |= {f"{name}, float32": run(CASES[name], GPU, "float32") for name in IN_FLOAT32}
    told |= {f"{name}, mps": run(CASES[name], MPS, "float32") for name in ON_MPS}
    sys.stdout.write(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)  # threads of a device that is not there do not end


if __name__ == "__main__":
    main()

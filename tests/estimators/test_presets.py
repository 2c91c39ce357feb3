"""Presets train to the letter as published: against plain loops in float64, step by step.

The loops below are the published ones told anew: one batch of one mouse after another, a step
once every mouse had one, penalties with every batch. Models, losses and optimisers are written
out by hand; only the initial weights and the random draws of training are those of the run.
Schedules alone are in `tests/training/test_schedule.py`.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

import v1tlearn as v1
from tests.sweeps import quick

EPSILON = 2.0**-23  # of float32
N_TRIALS = {"A": 40, "B": 23}
TINY_V1T = {"patch_size": 4, "patch_stride": 4, "n_blocks": 2, "n_heads": 2}
TINY_V1T |= {"embed_dim": 8, "mlp_dim": 6, "random_state": 3, "device": "cpu"}
NO_DROPOUT = {"patch_dropout": 0.0, "attention_dropout": 0.0, "mlp_dropout": 0.0}
TINY_CNN = {"n_layers": 3, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3}
TINY_CNN |= {"batch_size": 16, "random_state": 3, "device": "cpu"}


@pytest.fixture(scope="module")
def unequal(trials):
    """More trials of mouse A than of mouse B."""
    return trials[np.concatenate([trials.rows(m)[0][:n] for m, n in N_TRIALS.items()])]


@pytest.fixture(scope="module")
def validation(recordings):
    return v1.Trials(recordings).sel(tier="validation")


def double(array):
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


def standardized(trials):
    """What enters the models, per mouse: images, behaviour, pupil, responses, positions."""
    out = {}
    for mouse in trials.mice:
        images, behaviors, responses = (
            double(trials.get(name, mouse)) for name in ("stimuli", "behaviors", "responses")
        )
        names = list(trials.behavior_names(mouse))
        std = behaviors.std(0, correction=0)
        pupil = [names.index(c) for c in ("pupil_x", "pupil_y")]
        mean = torch.zeros(len(names), dtype=torch.float64)
        mean[pupil] = behaviors.mean(0)[pupil]
        behaviors = (behaviors - mean) / std
        scale = responses.std(0, correction=0)
        positions = double(trials.positions(mouse))[:, :2]
        positions = positions - positions.mean(0)
        out[mouse] = {
            "images": (images - images.mean()) / images.std(correction=0),
            "behaviors": behaviors,
            "others": behaviors[:, [i for i in range(len(names)) if i not in pupil]],
            "pupil": behaviors[:, pupil],
            "responses": responses / torch.maximum(scale, 0.01 * scale.mean()),
            "positions": positions / positions.abs().max(),
        }
    return out


class Draws:
    """The random numbers of a run, from where its training begins."""

    def __init__(self, untrained):
        self.generator = torch.Generator()
        self.generator.set_state(untrained.state_["rng"]["cpu"])

    def batches(self, mouse_lengths, batch_size):
        """(mouse, rows) in turn until the longest mouse is through; shorter ones start again."""
        n_turns = max(-(-n // batch_size) for n in mouse_lengths.values())
        loaders = {}
        for mouse, n in mouse_lengths.items():
            loaders[mouse] = []
            while len(loaders[mouse]) < n_turns:
                order = torch.randperm(n, generator=self.generator)
                loaders[mouse] += [order[i : i + batch_size] for i in range(0, n, batch_size)]
        return [(mouse, loaders[mouse][turn]) for turn in range(n_turns) for mouse in loaders]

    def noise(self, *shape):
        """Standard normal numbers, drawn in float32."""
        return torch.randn(*shape, generator=self.generator).double()


def affine(x, p, name):
    x = x @ p[f"{name}.weight"].T
    return x + p[f"{name}.bias"] if f"{name}.bias" in p else x


def layer_norm(x, p, name):
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * p[f"{name}.weight"] + p[f"{name}.bias"]


def vision_transformer(p, images, behaviors, patch=4, n_blocks=2, n_heads=2):
    """V1T core on patches side by side: maps (B, d, h', w')."""
    n, _, height, width = images.shape
    rows, columns = height // patch, width // patch
    patches = images.reshape(n, -1, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
    tokens = affine(patches.reshape(n, rows * columns, -1), p, "core.tokenizer.projection")
    d = tokens.shape[-1]
    tokens = torch.cat((p["core.class_token"].expand(n, 1, d), tokens), 1) + p["core.positions"]
    for i in range(n_blocks):
        network = f"core.behavior_mlps.{i}.networks.0"
        hidden = affine(behaviors, p, f"{network}.0").tanh()
        tokens = tokens + affine(hidden, p, f"{network}.2").tanh()[:, None]
        block = f"core.blocks.{i}"
        x = layer_norm(tokens, p, f"{block}.attention.norm")
        q, k, v = affine(x, p, f"{block}.attention.to_qkv").chunk(3, -1)
        heads = []
        for h in range(n_heads):
            part = slice(h * d, (h + 1) * d)
            logits = q[..., part] @ k[..., part].transpose(1, 2) / d**0.5
            heads.append(logits.softmax(-1) @ v[..., part])
        tokens = tokens + affine(torch.cat(heads, -1), p, f"{block}.attention.projection")
        x = affine(layer_norm(tokens, p, f"{block}.mlp.0"), p, f"{block}.mlp.1")
        x = x * (1 + torch.erf(x / 2**0.5)) / 2
        tokens = tokens + affine(x, p, f"{block}.mlp.4")
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (rows, columns))


def gaussian_readout(p, index, maps, positions, pupil, noise):
    """Rates (B, n) at positions drawn with a full covariance, moved by the pupil."""
    name = f"readouts.{index}"
    hidden = F.elu(affine(positions, p, f"{name}.position_network.0"))
    mu = affine(hidden, p, f"{name}.position_network.2").tanh()
    points = mu + torch.einsum("nij,bnj->bni", p[f"{name}.sigma"], noise)
    shift = pupil
    for layer in (0, 2, 4):
        shift = affine(shift, p, f"shifters.{index}.network.{layer}").tanh()
    points = points.clamp(-1, 1) + shift[:, None]
    sampled = F.grid_sample(maps, points[:, :, None], align_corners=True)[..., 0]  # (B, C, n)
    out = torch.einsum("bcn,nc->bn", sampled, p[f"{name}.features"]) + p[f"{name}.bias"]
    return torch.where(out > 0, out + 1, out.clamp(max=0).exp())


def adam(p, gradients, moments, step, lr, betas):
    """One step of Adam, which AdamW without weight decay is."""
    for name, gradient in gradients.items():
        first, second = moments.setdefault(name, [torch.zeros_like(gradient)] * 2)
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        moments[name] = [first, second]
        corrected = first / (1 - betas[0] ** step)
        spread = (second / (1 - betas[1] ** step)).sqrt()
        with torch.no_grad():
            p[name] -= lr * corrected / (spread + 1e-8)


def watched_fit(est, *args, **kwargs):
    """Parameters and running statistics after every step of a fit, by name."""
    steps = []

    def look(optimizer, args, kwargs):
        state = est.module_.state_dict()
        steps.append({name: value.double() for name, value in state.items()})

    hook = register_optimizer_step_post_hook(look)
    try:
        est.fit(*args, **kwargs)
    finally:
        hook.remove()
    return steps


def untrained(est, *args, **kwargs):
    """The same run before its first step, and its weights as leaves in float64."""
    start = type(est)(**est.get_params() | {"max_epochs": 0}).fit(*args, **kwargs)
    weights = {
        name: value.detach().double().requires_grad_()
        for name, value in start.module_.named_parameters()
    }
    return start, weights


def published_loop(p, loss, draws, n_epochs, batch_size, lr, betas):
    """Train the weights `p` in place; yields them after every step.

    ``loss(mouse, rows)`` is the objective of one batch of one mouse, penalties included.
    """
    moments, gradients, step = {}, {}, 0
    for _ in range(n_epochs):
        for turn, (mouse, rows) in enumerate(draws.batches(N_TRIALS, batch_size), 1):
            found = torch.autograd.grad(loss(mouse, rows), list(p.values()), allow_unused=True)
            for name, gradient in zip(p, found, strict=True):
                if gradient is not None:
                    gradients[name] = gradients.get(name, 0) + gradient
            if turn % len(N_TRIALS) == 0:
                step += 1
                adam(p, gradients, moments, step, lr, betas)
                gradients = {}
                yield {name: value.detach().clone() for name, value in p.items()}


def assert_same(ours, theirs, step, atol, rtol=0):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name],
            value,
            rtol=rtol,
            atol=atol,
            msg=lambda text, n=name: f"step {step}, {n}: {text}",
        )


def test_v1t2023_step_by_step(unequal, validation):
    est = v1.V1TRegressor.from_preset("v1t2023", **TINY_V1T, **NO_DROPOUT, max_epochs=4)
    start, p = untrained(est, unequal, validation=validation)
    initial = {name: value.detach().clone() for name, value in p.items()}
    draws, data = Draws(start), standardized(unequal)

    def loss(mouse, rows):
        index, whole = list(data).index(mouse), data[mouse]
        maps = vision_transformer(p, whole["images"][rows], whole["behaviors"][rows])
        noise = draws.noise(len(rows), whole["responses"].shape[1], 2)
        rates = gaussian_readout(p, index, maps, whole["positions"], whole["pupil"][rows], noise)
        terms = (rates + EPSILON) - (whole["responses"][rows] + EPSILON) * (rates + EPSILON).log()
        core = sum(value.abs().sum() for name, value in p.items() if name.startswith("core."))
        return (
            (N_TRIALS[mouse] / len(rows)) ** 0.5 * terms.sum()
            + 0.5379 * core
            + 0.0076 * p[f"readouts.{index}.features"].abs().sum()
        )

    theirs = list(published_loop(p, loss, draws, 4, 16, lr=0.001647, betas=(0.9, 0.9999)))
    ours = watched_fit(est, unequal, validation=validation)
    assert len(ours) == len(theirs) == 12  # three batches of the longer mouse, four times
    for step, (state, expected) in enumerate(zip(ours, theirs, strict=True), 1):
        # A step moves a weight by up to 1.6e-3; rounding of weights near 1 gives 6e-8 per step.
        parameters = {name: state[name] for name in expected}
        assert_same(parameters, expected, step, atol=1e-6)
    for name, value in theirs[-1].items():
        assert (value - initial[name]).abs().max() > 1e-4, name  # nothing agrees by standing still


def batch_norm(x, p, buffers, name, momentum):
    """Normalise by the batch, and let the running statistics follow it."""
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    n = x.numel() // x.shape[1]
    for key, value in (("mean", mean), ("var", var * n / (n - 1))):
        running = buffers[f"{name}.running_{key}"]
        buffers[f"{name}.running_{key}"] = (1 - momentum) * running + momentum * value.detach()
    x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    return x * p[f"{name}.weight"][:, None, None] + p[f"{name}.bias"][:, None, None]


def stacked_2d(p, buffers, images, n_layers=3, momentum=0.9):
    """CNN core in training mode."""
    x = F.conv2d(images, p["core.layers.0.0.weight"])
    for i in range(n_layers):
        if i > 0:
            for j, options in enumerate(({}, {"padding": 1, "groups": x.shape[1]}, {})):
                name = f"core.layers.{i}.0.{j}"
                x = F.conv2d(x, p[f"{name}.weight"], p.get(f"{name}.bias"), **options)
        x = F.elu(batch_norm(x, p, buffers, f"core.layers.{i}.1", momentum))
    return x


def roughness(filters):
    """Laplacian of each filter, zeros around it."""
    laplacian = double([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])[None, None]
    planes = filters.reshape(-1, 1, *filters.shape[-2:])
    return F.conv2d(planes, laplacian, padding=1).square().sum() / filters.square().sum()


@pytest.mark.parametrize(
    ("name", "bias"),
    quick([("sensorium2022", True), ("sensorium2022", False), ("v1t2023", True)], 2),
)
def test_cnn_presets_step_by_step(unequal, validation, recordings, name, bias):
    est = v1.CNNRegressor.from_preset(name, **TINY_CNN, bias=bias, max_epochs=3)
    start, p = untrained(est, unequal, validation=validation)
    initial = {name: value.detach().clone() for name, value in p.items()}
    draws, data = Draws(start), standardized(unequal)
    buffers = {n: b.double() for n, b in start.module_.named_buffers() if "running" in n}
    recorded = {mouse: recordings[mouse].sizes["trial"] for mouse in data}
    assert recorded["A"] > N_TRIALS["A"]

    def loss(mouse, rows):
        index, whole = list(data).index(mouse), data[mouse]
        images = whole["images"][rows]
        planes = whole["others"][rows][:, :, None, None].expand(-1, -1, *images.shape[2:])
        maps = stacked_2d(p, buffers, torch.cat((images, planes), 1))
        noise = draws.noise(len(rows), whole["responses"].shape[1], 2)
        rates = gaussian_readout(p, index, maps, whole["positions"], whole["pupil"][rows], noise)
        responses = whole["responses"][rows]
        if name == "sensorium2022":
            n_trials, terms = recorded, rates - responses * (rates + 1e-8).log()
        else:
            n_trials = N_TRIALS
            terms = (rates + EPSILON) - (responses + EPSILON) * (rates + EPSILON).log()
        return (
            (n_trials[mouse] / len(rows)) ** 0.5 * terms.sum()
            + 6.3831 * roughness(p["core.layers.0.0.weight"])
            + 0.0076 * p[f"readouts.{index}.features"].abs().sum()
        )

    # Normalisation takes these biases out again: their true gradient is zero, and where rounding
    # leads them changes nothing but the running means. The loop follows them.
    no_effect = [f"core.layers.{i}.0.{j}.bias" for i in (1, 2) for j in (1, 2) if bias]
    ours = watched_fit(est, unequal, validation=validation)
    betas = (0.9, 0.999) if name == "sensorium2022" else (0.9, 0.9999)
    theirs = published_loop(p, loss, draws, 3, 16, lr=0.009, betas=betas)
    assert len(ours) == 9  # three batches of the longer mouse, three times
    for step, (state, expected) in enumerate(zip(ours, theirs, strict=True), 1):
        for key in no_effect:
            p[key].data.copy_(state[key])
            expected[key] = state[key]
        # A step moves a weight by up to 9e-3.
        assert_same({key: state[key] for key in expected}, expected, step, atol=1e-5, rtol=1e-5)
        # Maps are sums over many weights, so that what these may differ by adds up; they reach 25.
        assert_same({key: state[key] for key in buffers}, buffers, step, atol=1e-5, rtol=1e-4)
    for key in p.keys() - set(no_effect):
        assert (p[key] - initial[key]).abs().max() > 1e-3, key


# ---------------------------------------------------------------------------------- schedules


def watched_course(est, trials):
    """Fit with a score that is constant, whatever is learned; the weights after every epoch.

    In the validation trials of a mouse all stimuli and behaviour are the same, so predictions are
    too, and nothing correlates.
    """
    arrays = {}
    for name in ("stimuli", "behaviors", "responses"):
        first = {m: np.array(trials.get(name, m)[:1]) for m in trials.mice}
        arrays[name] = {m: np.repeat(v, 4, axis=0) for m, v in first.items()}
    for values in arrays["responses"].values():
        values += np.arange(4, dtype=values.dtype)[:, None]
    weights = []

    def keep(record):
        weights.append({n: v.clone() for n, v in est.module_.state_dict().items()})

    with pytest.warns(UserWarning, match="look like images that were trained on"):  # they are
        est.fit(trials, validation=v1.Trials.from_arrays(**arrays), on_epoch=keep)
    assert {record["validation_correlation"] for record in est.history_} == {0.0}
    return weights


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_v1t2023_drops_at_12_and_23_and_stops_at_34_when_the_score_is_constant(unequal):
    est = v1.V1TRegressor.from_preset("v1t2023", **TINY_V1T | {"n_blocks": 1}, batch_size=40)
    weights = watched_course(est, unequal)
    rates = [record["lr"] for record in est.history_]
    expected = [0.001647] * 12 + [0.3 * 0.001647] * 11 + [0.09 * 0.001647] * 11
    assert rates == pytest.approx(expected, rel=1e-12)
    back = [epoch for epoch, w in enumerate(weights, 1) if equal(w, weights[0])]
    assert back == [1, 12, 23, 34]  # the best weights, those of the first epoch, came back
    assert equal(est.module_.state_dict(), weights[0])


def test_sensorium2022_ends_after_four_rounds_of_five_when_the_score_is_constant(unequal):
    """The initial weights are scored too, and come back; the rate falls out of step with them."""
    est = v1.CNNRegressor.from_preset("sensorium2022", **TINY_CNN | {"batch_size": 40})
    start = untrained(est, unequal)[0].module_.state_dict()
    weights = watched_course(est, unequal)
    rates = [record["lr"] for record in est.history_]
    expected = [0.009] * 7 + [0.0027] * 6 + [0.00081] * 6 + [0.000243]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert [e for e, w in enumerate(weights, 1) if equal(w, start)] == [5, 10, 15, 20]
    assert equal(est.module_.state_dict(), start)


# ------------------------------------------------------------------------------------ numbers

READOUT = {"gaussian": "full", "init_sigma": 0.1, "init_mu_range": 0.3, "readout_bias": "zero"}
READOUT |= {
    "readout_l1": 0.0076,
    "position_network": True,
    "position_dims": 2,
    "beyond_map": "zeros",
}
READOUT |= {"readout": "gaussian", "rank": 1, "space_init": 0.01, "channel_init": 0.01}
READOUT |= {
    f"{part}_{kind}": 0.0 for part in ("space", "channel") for kind in ("l1", "l2", "hoyer")
}
READOUT |= {"space_weight_decay": None, "channel_weight_decay": None}
READOUT |= {"position_hidden_layers": 1, "position_hidden_units": 30}
WAYS = {"carry_patience": False, "clip_norm": None, "min_lr": 1e-5, "selection": "correlation"}
WAYS |= {"period_epochs": (100, 30, 30, 30), "shuffle_block": 1}
INPUT = {"behavior_mode": "auto", "shift": "readout", "shift_columns": "pupil"}
INPUT |= {"crop_scale": 1.0, "image_size": "auto", "standardize": True}
PLATEAU = {"schedule": "plateau", "lr_patience": 10, "lr_factor": 0.3, "max_lr_drops": 2}
V1T_TRAINING = {"optimizer": "adamw", "core_lr": None, "betas": (0.9, 0.9999), "batch_size": 16}
V1T_TRAINING |= {"weight_decay": 0.0, "max_epochs": 400, "loss_scale": "sqrt"}
V1T_TRAINING |= {"penalty_scale": "absolute"}
V1T_TRAINING |= {"loss_epsilon": EPSILON, "core_pass": "per_mouse", "ema_decay": None} | PLATEAU
TRANSFORMER = {"patch_size": 8, "patch_stride": 1, "tokenizer": "unfold", "patch_dropout": 0.0229}
TRANSFORMER |= {"position_embedding": "auto", "token_grid": "true", "attention": "standard"}
TRANSFORMER |= {"n_blocks": 4, "n_heads": 4, "embed_dim": 155, "mlp_dim": 488}
TRANSFORMER |= {"attention_dropout": 0.2544, "mlp_dropout": 0.2544, "drop_path": 0.0}
TRANSFORMER |= {"bias": True, "core_l1": 0.5379, "lr": 0.001647, "readout_lags": 1}
CONVOLUTION = {"n_layers": 4, "hidden_channels": 64, "input_kernel": 9, "hidden_kernel": 7}
CONVOLUTION |= {"depth_separable": True, "bias": True, "batch_norm_momentum": 0.9}
CONVOLUTION |= {"laplace": 6.3831, "lr": 0.009, "behavior_columns": "non_pupil"}
SENSORIUM_TRAINING = {"optimizer": "adam", "core_lr": None, "betas": (0.9, 0.999)}
SENSORIUM_TRAINING |= {"batch_size": 128, "weight_decay": 0.0, "max_epochs": 200}
SENSORIUM_TRAINING |= {"loss_scale": "sqrt_recording", "loss_epsilon": 1e-8, "schedule": "rounds"}
SENSORIUM_TRAINING |= {"lr_patience": 5, "lr_factor": 0.3, "max_lr_drops": 3}
SENSORIUM_TRAINING |= {"core_pass": "per_mouse", "ema_decay": None, "penalty_scale": "absolute"}
COMPACT = {"channels": (16, 320), "kernels": (25, 9, 5), "pooling": "max", "activation": "elu"}
COMPACT |= {"depth_separable": True, "pointwise_output": True, "batch_norm_momentum": 0.9}
COMPACT |= {"core_weight_decay": 0.1, "space_weight_decay": 1.0, "channel_weight_decay": 0.1}
COMPACT |= {"readout": "factorized", "beyond_map": "edge", "behavior_columns": "non_pupil"}
COMPACT |= {"behavior_mode": "none", "shift": "none"}
PERIODS = {"optimizer": "adamw", "lr": 1e-3, "core_lr": None, "betas": (0.9, 0.999)}
PERIODS |= {"weight_decay": 0.0, "batch_size": 100, "max_epochs": 190, "ema_decay": None}
PERIODS |= {"loss_scale": "per_neuron", "loss_epsilon": 1e-12, "core_pass": "per_mouse"}
PERIODS |= {"schedule": "periods", "lr_patience": 5, "lr_factor": 1 / 3, "carry_patience": True}
PERIODS |= {"selection": "variance_explained", "max_lr_drops": 2}
PERIODS |= {"penalty_scale": "absolute"}
# ecker-lab/sensorium_2023: benchmarks_training.ipynb and video_training_loop.py.
MOVIES = {"n_layers": 3, "hidden_channels": (32, 64, 128), "input_kernel": 11, "hidden_kernel": 5}
MOVIES |= {"input_time_kernel": 11, "hidden_time_kernel": 5, "causal": True, "recurrent": False}
MOVIES |= {"memory_frames": 20, "batch_norm_momentum": 0.7, "laplace": 10.0, "head": "elu"}
MOVIES |= {"init_mu_range": 0.2, "init_sigma": 1.0, "readout_l1": 0.0, "lr": 0.005}
MOVIES |= {"readout_bias": "published_mean_over_std", "behavior_columns": "non_pupil"}
DYNAMIC_TRAINING = SENSORIUM_TRAINING | {"optimizer": "adamw", "weight_decay": 0.01}
DYNAMIC_TRAINING |= {"batch_size": 8}
PUBLISHED = {
    (v1.V1TRegressor, "v1t2023"): TRANSFORMER | V1T_TRAINING | {"behavior_columns": "all"},
    (v1.ViTRegressor, "v1t2023"): TRANSFORMER | V1T_TRAINING | {"behavior_columns": "non_pupil"},
    (v1.CNNRegressor, "v1t2023"): CONVOLUTION | V1T_TRAINING,
    (v1.LNRegressor, "v1t2023"): CONVOLUTION | V1T_TRAINING,
    (v1.CNNRegressor, "sensorium2022"): CONVOLUTION | SENSORIUM_TRAINING,
    (v1.LNRegressor, "sensorium2022"): CONVOLUTION | SENSORIUM_TRAINING | {"n_layers": 3},
    (v1.FullModelRegressor, "minimodel2025"): COMPACT | PERIODS,
    (v1.MovieCNNRegressor, "sensorium2023"): MOVIES | DYNAMIC_TRAINING,
}
# What says nothing of model and training as published.
OF_THE_RUN = {"validation_fraction", "device", "precision", "deterministic", "random_state"}
OF_THE_RUN |= {"compile", "micro_batch_size", "low_memory", "window_frames"}
OF_THE_RUN |= {"warm_start", "verbose"}


@pytest.mark.parametrize(("kind", "name"), list(PUBLISHED))
def test_every_number_of_a_preset_is_the_published_one(kind, name):
    params = kind.from_preset(name).get_params()
    expected = READOUT | INPUT | WAYS | PUBLISHED[kind, name]
    assert {n: v for n, v in params.items() if n not in OF_THE_RUN} == expected


def test_every_preset_is_in_the_table_above():
    kinds = (v1.V1TRegressor, v1.ViTRegressor, v1.CNNRegressor, v1.LNRegressor)
    kinds += (v1.FullModelRegressor, v1.MovieCNNRegressor)
    assert {(kind, name) for kind in kinds for name in kind._presets} == set(PUBLISHED)


@pytest.mark.parametrize(("kind", "name"), list(PUBLISHED))
def test_differences_of_defaults_are_documented(kind, name):
    page = Path(__file__).parents[2] / "docs" / "defaults_and_presets.rst"
    section = re.split(r"\n[^\n]+\n-{5,}\n", page.read_text(encoding="utf-8"))[1]
    rows = re.findall(r"\* - (.*?)\n     - ", section, flags=re.DOTALL)
    documented = set(re.findall(r"``(\w+)``", " ".join(rows)))
    default, preset = kind().get_params(), kind.from_preset(name).get_params()
    differing = {n for n in default if default[n] != preset[n]}
    assert differing <= documented


def test_the_movie_preset_trains_as_published_on_windows_of_80_frames(tmp_path):
    recordings = v1.make_movie_recordings(
        2, [3, 4], 6, 2, 2, n_frames=(90, 100), image_shape=(14, 16), random_state=0
    )
    train = v1.Trials(recordings).sel(tier="train")
    est = v1.MovieCNNRegressor.from_preset(
        "sensorium2023", hidden_channels=(2, 3, 4), max_epochs=1, random_state=0, device="cpu"
    ).fit(train)
    core = est.module_.core
    assert core.output_shape == (4, 4, 6)
    assert [layer.space.out_channels for layer in core.layers] == [2, 3, 4]
    # of 80 frames the convolutions of the published core leave the last 62
    assert est.window_frames + core.context_frames[0] == 80
    for mouse, n in est.n_neurons_.items():
        assert est.module_.readout(mouse).bias.shape == (n,)
    assert np.isfinite(est.score(train))
    est.save(tmp_path / "model")
    again = v1.load(tmp_path / "model")
    assert again.hidden_channels == (2, 3, 4)
    np.testing.assert_array_equal(again.predict(train)["B"], est.predict(train)["B"])


def test_the_movie_preset_sees_what_the_published_model_does():
    """Grey level, dilation and speed come in; the pupil's place moves readouts."""
    rng = np.random.default_rng(0)
    columns = ["pupil_dilation", "running_speed", "pupil_x", "pupil_y"]
    trials = v1.Trials.from_arrays(
        {"A": rng.integers(0, 256, (4, 64, 1, 14, 16), dtype=np.uint8)},
        {"A": rng.normal(size=(4, 64, 4)).astype(np.float32)},
        {"A": rng.gamma(2.0, 1.0, (4, 64, 3)).astype(np.float32)},
        frame_rate=30.0,
        behavior_names=columns,
    )
    est = v1.MovieCNNRegressor.from_preset(
        "sensorium2023", hidden_channels=(2, 3, 4), max_epochs=0, random_state=0, device="cpu",
        validation_fraction=0.0,
    ).fit(trials)  # fmt: skip
    assert est.module_.core.input_shape == (3, 14, 16)
    assert sum(p.numel() for p in est.module_.shifter("A").parameters()) == 57
    responses = trials.responses.get("A").astype(float)
    wanted = responses.mean((0, 1)) / responses.std((0, 1))
    np.testing.assert_allclose(est.module_.readout("A").bias.detach().numpy(), wanted, rtol=1e-4)

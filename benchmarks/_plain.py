"""Plain implementations of what the package computes, to compare it with.

They take the weights of an `EncodingModel` and write the mathematics down as the published code
does: attention weights materialised, NCHW convolutions, `grid_sample` readouts, one mouse after
another, penalties parameter by parameter, an unfused optimiser, one file per trial and variable.

The transformer is that of `v1tlearn.nn.plain`. Convolutions and readouts are stated here once more:
by torch's operations for them, which are quicker than the plain layers, so that ratios flatter
nobody; and so they tell, as `tests/test_plain_models.py` does, whether the package is right.
"""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from v1tlearn.nn import (
    Core,
    EncodingModel,
    GaussianReadout,
    MouseBatch,
    Stacked2dCore,
    ViTCore,
    plain,
)
from v1tlearn.training import MouseData, PoissonObjective, TrainingSettings
from v1tlearn.training.devices import autocast
from v1tlearn.training.memory import checkpointed, plan
from v1tlearn.training.steps import backward

Targets = Mapping[str, tuple[Tensor, Tensor | None]]


class PlainViT(nn.Module):
    """A `ViTCore` whose attention weights (B, H, N, N) are tensors like any other.

    Parameters
    ----------
    core : ViTCore
        Its parameters are used, not copied.
    checkpoint_blocks : bool, default=False
        Keep the inputs of blocks only, and compute each block again when going back.
    """

    def __init__(self, core: ViTCore, checkpoint_blocks: bool = False) -> None:
        super().__init__()
        self.core = core
        self.checkpoint_blocks = checkpoint_blocks

    def penalty(self) -> Tensor:
        """Sum of absolute values, parameter by parameter."""
        return self.core.l1 * sum(p.abs().sum() for p in self.core.parameters())

    def forward(
        self, images: Tensor, behaviors: Tensor | None, sizes: list[tuple[str, int]]
    ) -> Tensor:
        """Feature maps (B, d, h', w') of images (B, c, h, w)."""
        core = self.core
        with plain():
            if not (self.checkpoint_blocks and self.training):
                return core(images, behaviors, sizes)
            tokens = core.embed(images)
            for i, block in enumerate(core.blocks):
                if (network := core.behavior_mlp(i)) is not None:
                    tokens = tokens + network(behaviors, sizes)
                # Going back is another thread's work on a GPU, where this would not hold.
                tokens = checkpoint(
                    block, tokens, use_reentrant=False, context_fn=lambda: (plain(), plain())
                )
        if core.class_token is not None:
            tokens = tokens[:, 1:]
        return tokens.transpose(1, 2).reshape(len(images), -1, *core.output_shape[1:])


class PlainCNN(nn.Module):
    """A `Stacked2dCore` on NCHW maps.

    Parameters
    ----------
    core : Stacked2dCore
        Its parameters and running statistics are used, not copied.
    """

    def __init__(self, core: Stacked2dCore) -> None:
        super().__init__()
        self.core = core
        for parameter in core.parameters():
            parameter.data = parameter.data.contiguous()  # no channels-last weights

    def penalty(self) -> Tensor:
        """Energy of the filters' Laplacian, by a convolution, over their own."""
        weight = self.core.layers[0][0].weight
        kernel = weight.new_tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])
        planes = weight.reshape(-1, 1, *weight.shape[-2:])
        rough = F.conv2d(planes, kernel[None, None], padding=1)
        return self.core.laplace * rough.pow(2).sum() / weight.pow(2).sum()

    def _convolve(self, layer: nn.Module, x: Tensor, *, pad: bool) -> Tensor:
        if isinstance(layer, nn.Sequential):
            for part in layer:
                x = self._convolve(part, x, pad=True)
            return x
        padding = layer.weight.shape[-1] // 2 if pad else 0
        groups = x.shape[1] // layer.weight.shape[1]
        return F.conv2d(x, layer.weight, layer.bias, padding=padding, groups=groups)

    def forward(
        self, images: Tensor, behaviors: Tensor | None, sizes: list[tuple[str, int]]
    ) -> Tensor:
        """Feature maps (B, C, h', w') of images (B, c, h, w)."""
        x = images.contiguous()
        for i, (convolution, norm, activation) in enumerate(self.core.layers):
            x = self._convolve(convolution, x, pad=i > 0)
            if self.training:
                norm.num_batches_tracked.add_(1)
            x = F.batch_norm(
                x,
                norm.running_mean,
                norm.running_var,
                norm.weight,
                norm.bias,
                self.training,
                norm.momentum,
                norm.eps,
            )
            if not isinstance(activation, nn.Identity):
                x = F.elu(x)
        return x


class PlainModel(nn.Module):
    """An encoding model that walks the mice one after the other.

    Parameters
    ----------
    model : EncodingModel
        Its weights are copied; training the one leaves the other as it is.
    checkpoint_activations : bool, default=False
        Compute the blocks of a transformer again when going back.

    Raises
    ------
    ValueError
        If the core is frozen, or of a kind that has no plain form here.
    """

    def __init__(self, model: EncodingModel, checkpoint_activations: bool = False) -> None:
        super().__init__()
        if isinstance(model.core, Core) and model.core.frozen:
            raise ValueError("the core is frozen; compare models whose core is trained.")
        copied = copy.deepcopy(model)
        if isinstance(copied.core, ViTCore):
            self.core: nn.Module = PlainViT(copied.core, checkpoint_activations)
        elif isinstance(copied.core, Stacked2dCore):
            self.core = PlainCNN(copied.core)
        else:
            raise ValueError(
                f"no plain form of a {type(copied.core).__name__}; add one to {__file__}."
            )
        self.mice = copied.mice
        self.cropper = copied.cropper
        self.behavior_channels = copied.behavior_channels
        self.readouts = copied.readouts
        self.shifters = copied.shifters
        self._model = [copied]  # in a list: no second owner of the parameters
        self.train(model.training)

    def readout_penalty(self, mouse: str) -> Tensor:
        """Sum of absolute feature weights of one mouse."""
        readout = self._model[0].readout(mouse)
        return readout.l1 * readout.features.abs().sum()

    def _read(self, readout: GaussianReadout, features: Tensor, shift: Tensor | None) -> Tensor:
        n_images, mu = features.shape[0], readout.mu()
        points = mu.expand(n_images, -1, -1)  # (B, n, 2)
        if self.training:
            noise = torch.randn_like(points)
            if readout.gaussian == "full":
                offset = torch.einsum("nij,bnj->bni", readout.sigma, noise)
            else:
                offset = readout.sigma * noise
            points = (points + offset).clamp(-1, 1)
        if shift is not None:
            points = points + shift[:, None]
        beyond = "border" if readout.beyond_map == "edge" else "zeros"
        sampled = F.grid_sample(  # (B, C, n, 1)
            features, points[:, :, None], align_corners=True, padding_mode=beyond
        )
        return (sampled[..., 0] * readout.features.t()[None]).sum(1) + readout.bias

    def predict_mouse(self, mouse: str, batch: MouseBatch) -> Tensor:
        """Rates (B, n) of one mouse."""
        inputs = batch.pupil if batch.shifter_inputs is None else batch.shifter_inputs
        images = self.cropper(batch.images, mouse, inputs)
        if self.behavior_channels:
            planes = batch.behaviors[:, :, None, None].expand(-1, -1, *images.shape[2:])
            images = torch.cat((images, planes), dim=1)
        features = self.core(images, batch.behaviors, [(mouse, len(images))])
        shifter = self._model[0].shifter(mouse)
        shift = None if shifter is None else shifter(batch.pupil)
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self._model[0].readout(mouse).features.dtype)
            out = self._read(self._model[0].readout(mouse), features.contiguous(), shift)
        return F.elu(out) + 1

    def forward(self, batches: Mapping[str, MouseBatch]) -> dict[str, Tensor]:
        """Rates (B_m, n_m) of each mouse."""
        return {mouse: self.predict_mouse(mouse, batch) for mouse, batch in batches.items()}


def plain_model(model: EncodingModel, checkpoint_activations: bool = False) -> PlainModel:
    """Plain module with copies of a model's weights that computes the same."""
    return PlainModel(model, checkpoint_activations)


def plain_poisson_loss(
    prediction: Tensor, target: Tensor, mask: Tensor | None = None, eps: float = 2**-23
) -> Tensor:
    """Poisson loss, summed over trials and neurons; `mask` is True where recorded."""
    if mask is not None:
        prediction, target = prediction[mask], target[mask]
    return (prediction + eps - (target + eps) * torch.log(prediction + eps)).sum()


def plain_optimizer(
    model: nn.Module, lr: float = 1e-3, kind: str = "adamw", **options: Any
) -> torch.optim.Adam:
    """Optimiser that updates one parameter after the other."""
    options = {"lr": lr, "weight_decay": 0.0} | options
    return _optimizer(kind)(model.parameters(), foreach=False, fused=False, **options)


def our_optimizer(model: nn.Module, lr: float = 1e-3, kind: str = "adamw") -> torch.optim.Adam:
    """Optimiser as the estimators build it."""
    return _optimizer(kind)(model.parameters(), lr=lr, weight_decay=0.0, fused=True)


def _optimizer(kind: str) -> type[torch.optim.Adam]:
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]


def plain_step(
    model: PlainModel,
    batches: Mapping[str, MouseBatch],
    targets: Targets,
    optimizer: torch.optim.Optimizer,
    precision: str = "float32",
    scale: float = 1.0,
) -> Tensor:
    """One training step, a pass forward and back for each mouse.

    The core's penalty is computed for each mouse, and counts once altogether, as ours does.

    Parameters
    ----------
    model : PlainModel
        In training mode.
    batches : dict of str to MouseBatch
    targets : dict of str to (responses, recorded)
        As `v1tlearn.training.data.MouseData.targets` gives them; `recorded` may be None.
    optimizer : torch.optim.Optimizer
    precision : {"float32", "tf32", "bfloat16"}, default="float32"
    scale : float, default=1.0
        Factor on the loss.

    Returns
    -------
    Tensor
        Loss, penalties included, detached.
    """
    total: Tensor | float = 0.0
    for mouse, batch in batches.items():
        with autocast(precision, batch.images.device):
            prediction = model.predict_mouse(mouse, batch)
        loss = scale * plain_poisson_loss(prediction, *targets[mouse])
        loss = loss + model.core.penalty() / len(batches) + model.readout_penalty(mouse)
        loss.backward()
        total = total + loss.detach()
    optimizer.step()
    optimizer.zero_grad()
    return total


def our_step(
    model: EncodingModel,
    batches: Mapping[str, MouseBatch],
    targets: Targets,
    optimizer: torch.optim.Optimizer,
    precision: str = "float32",
    scale: float = 1.0,
) -> Callable[[], Tensor]:
    """Prepare training steps as `v1tlearn.training.train` takes them, without compilation.

    All mice go through the core together, whole batches or the parts of them that the loop chooses
    for this device, with activations kept or computed again, as it chooses.

    Parameters
    ----------
    model : EncodingModel
        In training mode.
    batches, targets, optimizer, precision, scale
        As of `plain_step`.

    Returns
    -------
    callable
        Each call takes a step on the same batches, and returns the loss, penalties included.
    """
    data = {
        mouse: MouseData(
            batch.images,
            behaviors=batch.behaviors,
            pupil=batch.pupil,
            shifter_inputs=batch.shifter_inputs,
            responses=targets[mouse][0],
        )
        for mouse, batch in batches.items()
    }
    n = max(len(batch.images) for batch in batches.values())
    objective = PoissonObjective(loss_scale=scale)
    settings = TrainingSettings(n, 1, precision=precision, compile=False)
    settings = plan(model, objective, data, settings)

    def step() -> Tensor:
        """Take one step."""
        with checkpointed(model.core, settings.checkpoint_activations):
            losses, _, penalty = backward(model, objective, batches, targets, data, settings)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return scale * losses.sum() + penalty

    return step


@torch.no_grad()
def check_same(
    model: EncodingModel,
    plain: PlainModel,
    batches: Mapping[str, MouseBatch],
    precision: str = "float32",
    tolerance: float = 1e-4,
) -> float:
    """Check that a model and its plain form predict the same, both in evaluation mode.

    Parameters
    ----------
    model : EncodingModel
    plain : PlainModel
    batches : dict of str to MouseBatch
    precision : {"float32", "tf32", "bfloat16"}, default="float32"
        Of the package's model; the plain one computes in float32.
    tolerance : float, default=1e-4
        Largest difference, as a share of the largest rate.

    Returns
    -------
    float
        The largest difference found, as a share of the largest rate.

    Raises
    ------
    AssertionError
        If they differ by more; the mouse is named.
    """
    modes = model.training, plain.training
    model.eval()
    plain.eval()
    worst = 0.0
    try:
        with autocast(precision, next(iter(batches.values())).images.device):
            predictions = model(batches)
        for mouse, expected in plain(batches).items():
            difference = (predictions[mouse] - expected).abs().max() / expected.abs().max()
            worst = max(worst, float(difference))
            if not difference <= tolerance:
                raise AssertionError(
                    f"mouse {mouse!r}: the plain model and ours differ by {float(difference):.2g} "
                    f"of the largest rate, more than {tolerance:.2g}; they are not the same model."
                )
    finally:
        model.train(modes[0])
        plain.train(modes[1])
    return worst


def training_flop(core: ViTCore) -> float:
    """Work of the matrix products of one training step, for one image.

    Forward and twice that backward, 2 per multiplication and addition; embedding of patches and
    readouts, some percent at most, and what is computed again are left out.

    Parameters
    ----------
    core : ViTCore

    Returns
    -------
    float
        FLOP; 103e9 at the published size.
    """
    n = core.grid[0] * core.grid[1] + (core.class_token is not None)
    forward = 0
    for block in core.blocks:
        layers = [m for m in block.modules() if isinstance(m, nn.Linear)]
        forward += 2 * n * sum(layer.weight.numel() for layer in layers)
        forward += 4 * n * n * block.attention.n_heads * block.attention.head_dim
    return 3.0 * forward


class PerTrialFiles(torch.utils.data.Dataset):
    """Trials of one mouse in the Sensorium layout, read file by file as they are asked for.

    Parameters
    ----------
    path : str or Path
        Directory or zip file of one mouse, with ``data/<variable>/<trial>.npy``.
    variables : tuple of str, optional
        Directories below ``data``.
    """

    def __init__(
        self,
        path: str | Path,
        variables: tuple[str, ...] = ("images", "behavior", "pupil_center", "responses"),
    ) -> None:
        path = Path(path)
        self.variables = variables
        self.archive = zipfile.ZipFile(path) if zipfile.is_zipfile(path) else None
        if self.archive is None:
            names = [file.relative_to(path).as_posix() for file in path.rglob("*.npy")]
        else:
            names = self.archive.namelist()
        self.path = path
        first = next((n for n in names if f"data/{variables[0]}/" in n), None)
        if first is None:
            raise ValueError(f"{path} holds no data/{variables[0]}/*.npy; expected one mouse.")
        self.prefix = first.split(f"data/{variables[0]}/")[0]
        start = f"{self.prefix}data/{variables[0]}/"
        self.n_trials = sum(n.startswith(start) and n.endswith(".npy") for n in names)

    def __len__(self) -> int:
        return self.n_trials

    def __getitem__(self, trial: int) -> dict[str, np.ndarray]:
        """Arrays of one trial by variable."""
        names = {v: f"{self.prefix}data/{v}/{trial}.npy" for v in self.variables}
        if self.archive is None:
            return {v: np.load(self.path / name) for v, name in names.items()}
        return {v: np.load(io.BytesIO(self.archive.read(name))) for v, name in names.items()}


def plain_read(path: str | Path, **options: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read all trials of one mouse in a loop of `numpy.load`, and stack them."""
    files = PerTrialFiles(path, **options)
    trials = [files[i] for i in range(len(files))]
    return {v: np.stack([trial[v] for trial in trials]) for v in files.variables}

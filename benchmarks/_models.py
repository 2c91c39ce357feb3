"""What is measured: sizes of the models, the models themselves, random batches and recordings.

The plain implementations of the same stand in `_plain.py`, the clocks in `_measure.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import v1tlearn as v1
from v1tlearn.nn import (
    EncodingModel,
    GaussianReadout,
    ImageCropper,
    MouseBatch,
    Shifter,
    Stacked2dCore,
    ViTCore,
)

IMAGE, TINY_IMAGE = (36, 64), (16, 24)  # height and width of what the models see
BEHAVIORS = 5  # of a recording: pupil dilation, its derivative, running speed, pupil x and y
CNN_BEHAVIORS = 3  # the pupil's position is left to the shifter
# Parameters of cores and of estimators; the published size is their default.
V1T: dict[str, dict[str, int]] = {
    "published": {},
    "small": {"patch_stride": 4, "n_blocks": 2, "n_heads": 4, "embed_dim": 32, "mlp_dim": 64},
    "tiny": {"patch_stride": 4, "n_blocks": 1, "n_heads": 2, "embed_dim": 8, "mlp_dim": 8},
}
CNN: dict[str, dict[str, int]] = {
    "published": {},
    "small": {"n_layers": 3, "hidden_channels": 16},
    "tiny": {"n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3},
}

Targets = dict[str, tuple[Tensor, Tensor | None]]


def image_size(size: str) -> tuple[int, int]:
    """Height and width of the images of a model called "published", "small" or "tiny"."""
    return TINY_IMAGE if size == "tiny" else IMAGE


def make_model(
    kind: str,
    options: dict[str, int],
    mice: int,
    neurons: int,
    image: tuple[int, int] = IMAGE,
    device: torch.device | str = "cpu",
    n_behaviors: int = BEHAVIORS,
) -> EncodingModel:
    """Build a model in training mode, with readout and shifter of every mouse.

    Parameters
    ----------
    kind : {"V1T", "ViT", "CNN"}
    options : dict
        Of the core, such as an entry of `V1T` or `CNN`.
    mice, neurons : int
        Mice, and neurons of each.
    image : tuple of int
        Height and width.
    device : torch.device or str
    n_behaviors : int
        Of the networks in the blocks (V1T), or planes beside the image (CNN).

    Returns
    -------
    EncodingModel
        Always with the same weights.
    """
    torch.manual_seed(0)
    core: torch.nn.Module
    if kind == "CNN":
        core = Stacked2dCore((1 + n_behaviors, *image), **options)
    elif kind == "V1T":
        core = ViTCore((1, *image), behavior_mode="b_mlp", n_behaviors=n_behaviors, **options)
    else:
        core = ViTCore((1, *image), **options)
    names = [f"mouse {i}" for i in range(mice)]
    return EncodingModel(
        core,
        {
            m: GaussianReadout(core.output_shape, neurons, positions=torch.rand(neurons, 2))
            for m in names
        },
        cropper=ImageCropper(image),
        shifters={m: Shifter() for m in names},
        behavior_channels=kind == "CNN",
    ).to(device)


def make_batch(
    model: EncodingModel, n: int, n_behaviors: int = BEHAVIORS
) -> tuple[dict[str, MouseBatch], Targets]:
    """Draw a batch, and its responses.

    Parameters
    ----------
    model : EncodingModel
    n : int
        Trials of each mouse.
    n_behaviors : int
        Behaviours of each trial.

    Returns
    -------
    batches : dict of str to MouseBatch
        On the model's device.
    targets : dict of str to (responses, None)
        Everything was recorded.
    """
    device = next(model.parameters()).device
    make = torch.Generator(device).manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make, device=device)

    size = model.cropper.output_size
    batches, targets = {}, {}
    for mouse in model.mice:
        shape = (n, model.readout(mouse).n_neurons)
        batches[mouse] = MouseBatch(normal(n, 1, *size), normal(n, n_behaviors), normal(n, 2))
        targets[mouse] = (-torch.rand(*shape, generator=make, device=device).log(), None)
    return batches, targets


def make_trials(
    mice: int,
    trials: int,
    neurons: int,
    image: tuple[int, int] = IMAGE,
    *,
    positions: bool = True,
    seed: int = 0,
) -> v1.Trials:
    """Draw recordings of noise, with images of one byte per pixel as recordings have them.

    Parameters
    ----------
    mice, trials, neurons : int
        Mice, trials and neurons of each.
    image : tuple of int
        Height and width.
    positions : bool
        Whether the neurons' positions in the cortex are known.
    seed : int

    Returns
    -------
    v1tlearn.Trials
    """
    rng = np.random.default_rng(seed)
    names = [f"mouse {i}" for i in range(mice)]
    return v1.Trials.from_arrays(
        {m: rng.integers(0, 256, (trials, 1, *image), dtype=np.uint8) for m in names},
        {m: rng.standard_normal((trials, BEHAVIORS), dtype=np.float32) for m in names},
        {m: rng.standard_exponential((trials, neurons), dtype=np.float32) for m in names},
        image_ids={m: np.arange(trials) for m in names},
        positions={m: rng.random((neurons, 2)) for m in names} if positions else None,
    )


def make_estimator(
    kind: type, params: dict[str, Any], trials: v1.Trials, device: str
) -> v1.CNNRegressor:
    """Model with its initial weights, and statistics of the trials."""
    options = {"max_epochs": 0, "validation_fraction": 0, "random_state": 0, "device": device}
    options |= {"penalty_scale": "absolute"}  # as the plain models add them
    return kind(**options, **params).fit(trials)

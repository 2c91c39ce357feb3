"""What a transformer core attends to: its attention weights, and their rollout over the image.

Weights are made one block at a time, for evaluation only; training never makes them. A core of your
own offers them by `attention_by_block` and `grid`, as `ViTCore` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor

from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.cores.vit import Block, ViTCore
from v1tlearn.nn.fast.choice import sized
from v1tlearn.nn.layers.images import resize

# Attention weights of one block that are held at a time: 64 MB.
_MAX_HELD_WEIGHTS = 2**24

HEAD_REDUCTIONS = ("mean", "max")
PLACEMENTS = ("stretched", "centers")

Sizes = Sequence[tuple[str, int]]


def has_attention(core: Core) -> bool:
    """Tell whether a core offers attention weights.

    Parameters
    ----------
    core : Core

    Returns
    -------
    bool
        Whether it has ``attention_by_block(images, behaviors, sizes)``, which gives the weights
        (n_images, n_heads, n_tokens, n_tokens) of one block after the other, and ``grid``, the rows
        and columns of its patches; their tokens come last, row by row.
    """
    return hasattr(core, "attention_by_block") and hasattr(core, "grid")


def _check(
    core: Core, images: Tensor, behaviors: Tensor | None, sizes: Sizes
) -> list[tuple[str, int]]:
    """Check what came, and return the sizes as a list."""
    if not has_attention(core):
        raise TypeError(
            "attention is that of a ViTCore or PretrainedViTCore, got a "
            f"{type(core).__name__}; a core of your own offers it by a method attention_by_block "
            "and an attribute grid."
        )
    if core.training:
        raise ValueError(
            "the core is in training mode, where dropout changes the attention at random; call "
            "core.eval() first."
        )
    n_images = images.shape[0]
    sizes = list(sizes)
    if not isinstance(core, ViTCore):
        return sizes
    if core.behavior_mode != "none" and (behaviors is None or len(behaviors) != n_images):
        raise ValueError(
            f"behavior_mode {core.behavior_mode!r} needs the behaviour of each of {n_images} "
            f"images, got {'none' if behaviors is None else f'that of {len(behaviors)}'}."
        )
    if core.behavior_mode == "b_mlp_per_mouse" and sum(n for _, n in sizes) != n_images:
        raise ValueError(
            f"behavior_mode 'b_mlp_per_mouse' needs the mouse of each of {n_images} images, but "
            f"sizes are {sizes}; pass (mouse, number of images) in the order of the images."
        )
    return sizes


def _weights_by_block(
    core: Any, images: Tensor, behaviors: Tensor | None, sizes: Sizes
) -> Iterator[Tensor]:
    """Attention weights (B, H, N, N) of one block after the other, of a form that is checked."""
    n_patches = core.grid[0] * core.grid[1]
    n_blocks = 0
    for weights in core.attention_by_block(images, behaviors, sizes):
        n_blocks += 1
        shape = tuple(weights.shape)
        square = len(shape) == 4 and shape[0] == len(images) and shape[2] == shape[3]
        if not square or shape[2] < n_patches:
            raise ValueError(
                f"{type(core).__name__}.attention_by_block gave weights of the shape {shape} of "
                f"{len(images)} images: expected (images, heads, tokens, tokens), with at least "
                f"{n_patches} tokens, one for each patch of the grid {tuple(core.grid)}."
            )
        yield weights
    if not n_blocks:
        raise ValueError(
            f"{type(core).__name__}.attention_by_block gave no weights: expected those of at least "
            "one block."
        )


@torch.no_grad()
def attention_weights(
    core: Core, images: Tensor, behaviors: Tensor | None = None, sizes: Sizes = ()
) -> Tensor:
    """Softmax attention weights of all blocks, heads and tokens.

    At the published size these are 175 MB per image; `attention_rollout` never holds them all.

    Parameters
    ----------
    core : ViTCore, or a core with ``attention_by_block`` and ``grid``
        In evaluation mode.
    images : Tensor of shape (n_images, n_channels, height, width)
        Images as the core takes them: standardised, cropped, resized.
    behaviors : Tensor of shape (n_images, n_behaviors), optional
        Standardised behaviour, where the core uses it.
    sizes : sequence of (str, int), default=()
        Mice and their numbers of images, in order; for "b_mlp_per_mouse" only.

    Returns
    -------
    Tensor of shape (n_images, n_blocks, n_heads, n_tokens, n_tokens)
        Each row, of one query over all keys, sums to 1. The class token comes first where the core
        has one, then the patches row by row.

    Raises
    ------
    TypeError
        If the core is no transformer.
    ValueError
        If the core is in training mode, or behaviour or mice are missing.
    """
    sizes = _check(core, images, behaviors, sizes)
    return torch.stack(list(_weights_by_block(core, images, behaviors, sizes)), 1)


def _rollout(
    core: Any, images: Tensor, behaviors: Tensor | None, sizes: Sizes, head_reduction: str
) -> tuple[Tensor, int]:
    """Share (B, h', w') of each patch in what is read out of the last block; weights per image."""
    steps, held = [], 0
    for weights in _weights_by_block(core, images, behaviors, sizes):  # (B, H, N, N)
        held = max(held, weights[0].numel())
        reduced = weights.mean(1) if head_reduction == "mean" else weights.amax(1)
        reduced.diagonal(dim1=-2, dim2=-1).add_(1)
        steps.append(reduced / reduced.sum(-1, keepdim=True))  # (B, N, N)
    n_tokens, n_patches = steps[0].shape[-1], core.grid[0] * core.grid[1]
    shares = _read(core, n_tokens, n_patches).to(images)
    shares = shares.expand(len(images), -1, -1)
    # A row of A_n ... A_2 A_1 needs no product of two matrices when it starts from the last block.
    for step in reversed(steps):
        shares = shares @ step.to(shares.dtype)
    per_image = max(held, len(steps) * n_tokens**2)
    return shares[:, 0, -n_patches:].unflatten(1, tuple(core.grid)), per_image


def _read(core: Any, n_tokens: int, n_patches: int) -> Tensor:
    """How much each token counts in what is read out of the last block, (1, N)."""
    of_class = torch.eye(1, n_tokens)
    of_patches = torch.zeros(1, n_tokens)
    of_patches[:, -n_patches:] = 1 / n_patches
    usual = "patches" if n_tokens == n_patches else "class"
    return {"class": of_class, "patches": of_patches, "both": (of_class + of_patches) / 2}[
        getattr(core, "read_tokens", usual)
    ]


def _weights_per_image(core: Core) -> int | None:
    """Weights that are held of an image; of a core of others the first image tells."""
    if not isinstance(core, ViTCore):
        return None
    n_tokens = core.grid[0] * core.grid[1] + (core.class_token is not None)
    n_heads = cast(Block, core.blocks[0]).attention.n_heads
    return max(n_heads, len(core.blocks)) * n_tokens**2


def _images_at_once(weights_per_image: int | None) -> int:
    return max(1, sized(_MAX_HELD_WEIGHTS) // weights_per_image) if weights_per_image else 1


def _between(centers: Tensor, n_pixels: int) -> Tensor:
    """Linear interpolation (n_pixels, n) between values at centres; beyond them, the outermost."""
    pixels = torch.arange(n_pixels, dtype=torch.float64)
    if len(centers) == 1:
        return torch.ones(n_pixels, 1, dtype=torch.float64)
    right = torch.searchsorted(centers, pixels).clamp(1, len(centers) - 1)
    left = right - 1
    share = ((pixels - centers[left]) / (centers[right] - centers[left])).clamp(0, 1)
    out = torch.zeros(n_pixels, len(centers), dtype=torch.float64)
    rows = torch.arange(n_pixels)
    out[rows, left], out[rows, right] = 1 - share, share
    return out


def _placed(core: Any, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, h', w') between the true centres of patches, over the image (B, h, w)."""
    if not hasattr(core, "patch_centers"):
        raise ValueError(
            f"placement='centers' needs to know where patches are: give {type(core).__name__} a "
            "method patch_centers(), of rows and columns in pixels, or take 'stretched'."
        )
    centers = (side.double().cpu() for side in core.patch_centers())
    rows, columns = (
        _between(side, n).to(maps) for side, n in zip(centers, core.input_shape[1:], strict=True)
    )
    return resize((rows @ maps @ columns.T)[:, None], size)[:, 0]


@torch.no_grad()
def attention_rollout(
    core: Core,
    images: Tensor,
    behaviors: Tensor | None = None,
    *,
    head_reduction: str = "mean",
    placement: str = "stretched",
    image_size: tuple[int, int] | None = None,
    sizes: Sizes = (),
) -> Tensor:
    """Attention rollout: how much each place of an image reaches the output of the last block.

    Per block the weights are reduced over heads, the identity is added for the residual connection
    and rows are normalised to sum 1; these matrices are multiplied, later blocks from the left
    (Abnar and Zuidema 2020). Of the product the row of the class token is kept, without its own
    column and those of register tokens; a core without class token (tokenizer "cct") gives the mean
    over all rows. A core with an attribute ``read_tokens``, such as `PretrainedViTCore`, gives the
    row of the tokens that it reads: that of the "class" token, the mean of those of "patches", or
    of "both" their mean. The patches stand on the grid they were cut from, whatever grid the core
    arranges its tokens on. Each map is scaled to minimum 0 and maximum 1, then resized bilinearly.

    Parameters
    ----------
    core : ViTCore, or a core with ``attention_by_block`` and ``grid``
        In evaluation mode.
    images : Tensor of shape (n_images, n_channels, height, width)
        Images as the core takes them: standardised, cropped, resized.
    behaviors : Tensor of shape (n_images, n_behaviors), optional
        Standardised behaviour, where the core uses it.
    head_reduction : {"mean", "max"}, default="mean"
        How heads are reduced; "max" is what the code of Li et al. (2023) does.
    placement : {"stretched", "centers"}, default="stretched"
        "stretched", as published, spreads the grid over the whole image, as if patches did not
        overlap; "centers" interpolates between the true centres of the patches, and is constant
        beyond the outermost. They are the same where patches tile the image.
    image_size : tuple of int, optional
        Height and width of the maps, in pixels; by default those of the images.
    sizes : sequence of (str, int), default=()
        Mice and their numbers of images, in order; for "b_mlp_per_mouse" only.

    Returns
    -------
    Tensor of shape (n_images, height, width)
        Maps between 0 and 1; all zeros where every place counts alike, up to rounding.

    Raises
    ------
    TypeError
        If the core is no transformer.
    ValueError
        If the core is in training mode, behaviour or mice are missing, or an option is unknown.
    """
    sizes = _check(core, images, behaviors, sizes)
    if head_reduction not in HEAD_REDUCTIONS:
        raise ValueError(f"head_reduction must be 'mean' or 'max', got {head_reduction!r}.")
    if placement not in PLACEMENTS:
        raise ValueError(f"placement must be 'stretched' or 'centers', got {placement!r}.")
    owners = [mouse for mouse, n in sizes for _ in range(n)]
    maps: list[Tensor] = []
    start, n_at_once = 0, _images_at_once(_weights_per_image(core))
    while start < len(images):
        rows = slice(start, start + n_at_once)
        some = None if behaviors is None else behaviors[rows]
        own = [(mouse, len(list(same))) for mouse, same in groupby(owners[rows])]
        found, per_image = _rollout(core, images[rows], some, own, head_reduction)
        maps.append(found)
        start += n_at_once
        n_at_once = _images_at_once(per_image)
    shares = torch.cat(maps)  # (B, h', w')
    low, high = (limit(shares, (1, 2), keepdim=True) for limit in (torch.amin, torch.amax))
    flat = high - low <= 16 * torch.finfo(shares.dtype).eps * high  # differences are rounding
    scaled = torch.where(flat, 0, (shares - low) / torch.where(flat, 1, high - low))
    height, width = images.shape[-2:] if image_size is None else image_size
    size = (int(height), int(width))
    if placement == "centers":
        return _placed(core, scaled, size)
    return resize(scaled[:, None], size)[:, 0]

"""What a transformer core attends to: its attention weights, and their rollout over the image.

Weights are made one block at a time, for evaluation only; training never makes them.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from v1tlearn.nn.cores.vit import Block, ViTCore
from v1tlearn.nn.fast.choice import sized
from v1tlearn.nn.layers.attention import weigh
from v1tlearn.nn.layers.images import resize

# Attention weights of one block that are held at a time: 64 MB.
_MAX_HELD_WEIGHTS = 2**24

Sizes = Sequence[tuple[str, int]]


def _check(
    core: ViTCore, images: Tensor, behaviors: Tensor | None, sizes: Sizes
) -> list[tuple[str, int]]:
    """Check what came, and return the sizes as a list."""
    if not isinstance(core, ViTCore):
        raise TypeError(f"attention is that of a ViTCore, got a {type(core).__name__}.")
    if core.training:
        raise ValueError(
            "the core is in training mode, where dropout changes the attention at random; call "
            "core.eval() first."
        )
    n_images = images.shape[0]
    if core.behavior_mode != "none" and (behaviors is None or len(behaviors) != n_images):
        raise ValueError(
            f"behavior_mode {core.behavior_mode!r} needs the behaviour of each of {n_images} "
            f"images, got {'none' if behaviors is None else f'that of {len(behaviors)}'}."
        )
    sizes = list(sizes)
    if core.behavior_mode == "b_mlp_per_mouse" and sum(n for _, n in sizes) != n_images:
        raise ValueError(
            f"behavior_mode 'b_mlp_per_mouse' needs the mouse of each of {n_images} images, but "
            f"sizes are {sizes}; pass (mouse, number of images) in the order of the images."
        )
    return sizes


def _blocks(core: ViTCore) -> list[Block]:
    return cast(list[Block], list(core.blocks))


def _weights_by_block(
    core: ViTCore, images: Tensor, behaviors: Tensor | None, sizes: Sizes
) -> Iterator[Tensor]:
    """Attention weights (B, H, N, N) of one block after the other."""
    tokens = core.embed(images)
    for i, block in enumerate(_blocks(core)):
        if (network := core.behavior_mlp(i)) is not None:
            tokens = tokens + network(behaviors, sizes)
        q, k, _ = block.attention.queries_keys_values(tokens)
        yield weigh(q, k, local=block.attention.local)
        if i + 1 < len(core.blocks):
            tokens = block(tokens)


@torch.no_grad()
def attention_weights(
    core: ViTCore, images: Tensor, behaviors: Tensor | None = None, sizes: Sizes = ()
) -> Tensor:
    """Softmax attention weights of all blocks, heads and tokens.

    At the published size these are 175 MB per image; `attention_rollout` never holds them all.

    Parameters
    ----------
    core : ViTCore
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
    core: ViTCore, images: Tensor, behaviors: Tensor | None, sizes: Sizes, head_reduction: str
) -> Tensor:
    """Share (B, h', w') of each patch in what is read out of the last block."""
    steps = []
    for weights in _weights_by_block(core, images, behaviors, sizes):  # (B, H, N, N)
        reduced = weights.mean(1) if head_reduction == "mean" else weights.amax(1)
        reduced.diagonal(dim1=-2, dim2=-1).add_(1)
        steps.append(reduced / reduced.sum(-1, keepdim=True))  # (B, N, N)
    n_tokens = steps[0].shape[-1]
    if core.class_token is None:
        shares = images.new_full((len(images), 1, n_tokens), 1 / n_tokens)
    else:
        shares = torch.eye(1, n_tokens, dtype=images.dtype, device=images.device)
        shares = shares.expand(len(images), -1, -1)
    # A row of A_n ... A_2 A_1 needs no product of two matrices when it starts from the last block.
    for step in reversed(steps):
        shares = shares @ step.to(shares.dtype)
    if core.class_token is not None:
        shares = shares[..., 1:]
    return shares[:, 0].unflatten(1, core.grid)


@torch.no_grad()
def attention_rollout(
    core: ViTCore,
    images: Tensor,
    behaviors: Tensor | None = None,
    *,
    head_reduction: str = "mean",
    image_size: tuple[int, int] | None = None,
    sizes: Sizes = (),
) -> Tensor:
    """Attention rollout: how much each place of an image reaches the output of the last block.

    Per block the weights are reduced over heads, the identity is added for the residual connection
    and rows are normalised to sum 1; these matrices are multiplied, later blocks from the left
    (Abnar and Zuidema 2020). Of the product the row of the class token is kept, without its own
    column; a core without class token (tokenizer "cct") gives the mean over all rows. The patches
    stand on the grid they were cut from, whatever grid the core arranges its tokens on. Each map
    is scaled to minimum 0 and maximum 1, then resized bilinearly.

    Parameters
    ----------
    core : ViTCore
        In evaluation mode.
    images : Tensor of shape (n_images, n_channels, height, width)
        Images as the core takes them: standardised, cropped, resized.
    behaviors : Tensor of shape (n_images, n_behaviors), optional
        Standardised behaviour, where the core uses it.
    head_reduction : {"mean", "max"}, default="mean"
        How heads are reduced; "max" is what the code of Li et al. (2023) does.
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
    if head_reduction not in ("mean", "max"):
        raise ValueError(f"head_reduction must be 'mean' or 'max', got {head_reduction!r}.")
    n_tokens = core.grid[0] * core.grid[1] + (core.class_token is not None)
    per_image = max(_blocks(core)[0].attention.n_heads, len(core.blocks)) * n_tokens**2
    n_at_once = max(1, sized(_MAX_HELD_WEIGHTS) // per_image)
    owners = [mouse for mouse, n in sizes for _ in range(n)]
    maps = []
    for start in range(0, len(images), n_at_once):
        rows = slice(start, start + n_at_once)
        some = None if behaviors is None else behaviors[rows]
        one_by_one = [(mouse, 1) for mouse in owners[rows]]
        maps.append(_rollout(core, images[rows], some, one_by_one, head_reduction))
    shares = torch.cat(maps)  # (B, h', w')
    low, high = (limit(shares, (1, 2), keepdim=True) for limit in (torch.amin, torch.amax))
    flat = high - low <= 16 * torch.finfo(shares.dtype).eps * high  # differences are rounding
    scaled = torch.where(flat, 0, (shares - low) / torch.where(flat, 1, high - low))
    return resize(scaled[:, None], image_size or tuple(images.shape[-2:]))[:, 0]

"""Maps times weights of space times weights of channels, image by image, on a CPU.

Three matrix products, of the outputs, of the maps' gradient and of that of space, are nearly all of
the work. They are laid out so that rows of all results have a round number of values, and the maps
stay as they are, channels last.
"""

from typing import Any

import torch
from torch import Tensor

from v1tlearn.nn.fast.choice import is_plain, sized
from v1tlearn.nn.fast.derivatives import differentiable_once

# Products of which there must be so many for the detour to be worth it.
_LEAST_WORK = 2**24

# Values that are kept for the gradient of the channels, 1 GB in float32; more are worked out again.
_MOST_KEPT = 2**28


def worth_contracting(maps: Tensor, n_kernels: int) -> bool:
    """Tell whether `contract_separable` is the quicker way.

    Parameters
    ----------
    maps : Tensor of shape (n_images, n_channels, height, width)
    n_kernels : int

    Returns
    -------
    bool
    """
    if maps.device.type != "cpu" or torch.compiler.is_compiling() or is_plain():
        return False
    return maps.numel() * n_kernels >= sized(_LEAST_WORK)


def _by_place(image: Tensor) -> Tensor:
    """Maps of one image (C, h, w) as a matrix (h w, C), without a copy where channels are last."""
    return image.permute(1, 2, 0).flatten(0, 1)


class _Separable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, space: Tensor, channels: Tensor) -> Tensor:
        """See `contract_separable`."""
        keeps = ctx.needs_input_grad[2] and len(maps) * channels.numel() <= sized(_MOST_KEPT)
        n_kept = len(maps) if keeps else 1
        seen = maps.new_empty((n_kept, *channels.shape))  # (B, m, C)
        out = maps.new_empty((len(maps), len(channels)))
        for i, (image, outputs) in enumerate(zip(maps, out, strict=True)):
            of_image = torch.mm(space, _by_place(image), out=seen[i % n_kept])
            torch.linalg.vecdot(of_image, channels, out=outputs)
        ctx.save_for_backward(maps, space, channels)
        ctx.seen = seen if keeps else None
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Image by image; sums over images as they come."""
        maps, space, channels = ctx.saved_tensors
        need_maps, need_space, need_channels = ctx.needs_input_grad
        by_place = to_space = to_channels = None
        n_places = space.shape[1]
        if need_maps:
            by_place = maps.new_empty((len(maps), n_places, maps.shape[1]))  # (B, h w, C)
        if need_space:
            to_space = space.new_zeros((n_places, len(space)))
        if need_channels:
            to_channels = torch.zeros_like(channels)
        for i, (image, given) in enumerate(zip(maps, gradient, strict=True)):
            weighted = channels * given[:, None]  # (m, C)
            if by_place is not None:
                torch.mm(space.T, weighted, out=by_place[i])
            if to_space is not None:
                to_space.addmm_(_by_place(image), weighted.T)
            if to_channels is not None:
                seen = space @ _by_place(image) if ctx.seen is None else ctx.seen[i]
                to_channels.addcmul_(seen, given[:, None])
        if by_place is not None:
            by_place = by_place.unflatten(1, maps.shape[2:]).permute(0, 3, 1, 2)
        return by_place, None if to_space is None else to_space.T, to_channels


def contract_separable(maps: Tensor, space: Tensor, channels: Tensor) -> Tensor:
    """Sum maps over channels and places, with weights of either.

    Parameters
    ----------
    maps : Tensor of shape (n_images, n_channels, height, width)
        On a CPU, best channels last.
    space : Tensor of shape (n_kernels, height * width)
    channels : Tensor of shape (n_kernels, n_channels)

    Returns
    -------
    Tensor of shape (n_images, n_kernels)
    """
    return _Separable.apply(maps, space, channels)

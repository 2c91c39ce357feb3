"""Layers that see time: a convolution along it, and a memory that each frame adds to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.layers.past import Past


def context_of(n_taps: int, *, dilation: int = 1, causal: bool = True) -> tuple[int, int]:
    """Frames before and after a frame that a kernel in time covers.

    Parameters
    ----------
    n_taps : int
        Frames of the kernel.
    dilation : int, default=1
        Frames from one tap to the next.
    causal : bool, default=True
        Whether the last tap is the present frame; else the middle one is.

    Returns
    -------
    (int, int)

    Raises
    ------
    ValueError
        If there is no tap, or no middle one where it should be.
    """
    if n_taps < 1 or not (causal or n_taps % 2):
        raise ValueError(
            f"a {'causal' if causal else 'symmetric'} kernel of {n_taps} frames: expected at least "
            "one frame, and an odd number of them where it is symmetric."
        )
    reach = (n_taps - 1) * dilation
    return (reach, 0) if causal else (reach // 2, reach // 2)


def check_past(context: tuple[int, int], past: Past | None) -> None:
    """Check that movies which come in parts come to no layer that looks ahead.

    Parameters
    ----------
    context : (int, int)
        Frames before and after a frame that the layer looks at.
    past : Past or None

    Raises
    ------
    ValueError
        If a past comes and there are frames after.
    """
    if past is not None and context[1]:
        raise ValueError(
            f"a symmetric kernel looks {context[1]} frames ahead, of which a part of a movie does "
            "not have the last ones: hand over whole movies, without a past, or parts with "
            "`context_frames` more frames on both sides, and leave out what these give."
        )


def lengthened(
    layer: nn.Module, values: Tensor, context: tuple[int, int], past: Past | None = None
) -> Tensor:
    """Frames (B, T, ...) with those around them: zeros, or what was before them.

    Parameters
    ----------
    layer : Module
        Who asks.
    values : Tensor of shape (n_movies, n_frames, ...)
    context : (int, int)
        Frames before and after.
    past : Past, optional
        What this layer saw of the movies before these frames.

    Returns
    -------
    Tensor of shape (n_movies, before + n_frames + after, ...)

    Raises
    ------
    ValueError
        If a past comes to a layer that looks ahead.
    """
    check_past(context, past)
    before, after = context
    if past is None:
        return F.pad(values, (0, 0) * (values.dim() - 2) + (before, after))
    return past.lengthen(layer, values, before, dim=1) if before else values


class TemporalConvolution(nn.Conv2d):
    """Convolution of each place along time, which mixes channels.

    Parameters
    ----------
    channels : int
    n_taps : int
        Frames of the kernel.
    causal : bool, default=True
        Whether it looks back alone; else as far back as ahead.
    """

    def __init__(self, channels: int, n_taps: int, *, causal: bool = True) -> None:
        context = context_of(n_taps, causal=causal)
        super().__init__(channels, channels, (n_taps, 1), bias=False)
        self.context_frames = context

    def forward(self, movies: Tensor, past: Past | None = None) -> Tensor:
        """Movies (B, T, C, h, w) of such movies."""
        # Time takes the place of height, and places that of width: much faster than in three
        # dimensions, with channels last all along.
        frames = movies.permute(0, 1, 3, 4, 2)  # (B, T, h, w, C)
        longer = lengthened(self, frames, self.context_frames, past)
        out = super().forward(longer.flatten(2, 3).permute(0, 3, 1, 2))  # (B, C, T, h w)
        return out.permute(0, 2, 1, 3).unflatten(3, movies.shape[3:])


class ConvGRU(nn.Module):
    """A gated memory of maps, whose recurrent weights are convolutions (Ballas et al. 2016).

    Of maps x and memory h, ``z, r = sigmoid(W x + U * h)``, ``n = tanh(W_n x + U_n * (r h))``, and
    the memory becomes ``z h + (1 - z) n``. It begins with zeros.

    Parameters
    ----------
    channels : int
        Of maps and memory.
    kernel : int, default=3
        Side of the recurrent filters in pixels, odd.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"the side of recurrent filters must be odd, got {kernel}.")
        self.of_input = nn.Conv2d(channels, 3 * channels, 1)
        self.of_gates = nn.Conv2d(channels, 2 * channels, kernel, padding=kernel // 2, bias=False)
        self.of_memory = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)

    def forward(self, movies: Tensor, past: Past | None = None) -> Tensor:
        """Memories (B, T, C, h, w) after each frame of movies (B, T, C, h, w)."""
        channels = movies.shape[2]
        inputs = self.of_input(movies.flatten(0, 1)).unflatten(0, movies.shape[:2])
        memory, memories = movies.new_zeros(movies[:, 0].shape), []
        if past is not None:  # its last frame, or zeros
            memory = past.lengthen(self, movies[:, :0], 1, dim=1)[:, 0]
        for given in inputs.unbind(1):
            gates = torch.sigmoid(given[:, : 2 * channels] + self.of_gates(memory))
            keep, reset = gates.chunk(2, 1)
            new = torch.tanh(given[:, 2 * channels :] + self.of_memory(reset * memory))
            memory = keep * memory + (1 - keep) * new
            memories.append(memory)
        if past is not None:
            past.lengthen(self, memory[:, None], 1, dim=1)
        return torch.stack(memories, 1)

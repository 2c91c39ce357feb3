"""Blocks that mix a convolution and self-attention, each over half of the channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn import fast
from v1tlearn.nn.fast.attention import attend_across
from v1tlearn.nn.layers.normalization import LayerNorm, batch_norm


def gather(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend from tokens to others.

    Parameters
    ----------
    q : Tensor of shape (n_images, n_heads, n_queries, head_dim)
        Queries, times their factor.
    k, v : Tensor of shape (n_images, n_heads, n_keys, head_dim)

    Returns
    -------
    Tensor of shape (n_images, n_heads, n_queries, head_dim)
    """
    if fast.is_plain():
        return (q @ k.transpose(-1, -2)).softmax(-1) @ v
    return attend_across(q, k, v)


class MixBlock(nn.Module):
    """A convolution over half of the channels, self-attention over the others, and cross attention.

    The self-attention works on a coarser grid. Then each half asks the other one: the cells of the
    convolution gather from the tokens, and the tokens from the cells; both halves are joined and
    followed by a channel-wise perceptron. The block of the image tower of Wang et al. (2026), after
    the dual-stream network of Mao et al. (2021).

    Parameters
    ----------
    dim : int
        Channels; even, and half of them divisible by `n_heads`.
    n_heads : int
        Of the self-attention. The cross attention has one.
    reduction : int
        The tokens lie on a grid so many times coarser.
    mlp_ratio : int, default=4
        Hidden channels of the perceptron over `dim`.
    cross_attention : {"stated", "published"}, default="stated"
        "stated" is the mathematics. "published" reads what was gathered, (tokens, channels), column
        by column into rows, as the released code does, which scrambles tokens and channels: for
        weights that were trained with it.

    Raises
    ------
    ValueError
        If the channels cannot be halved and divided among the heads, or an option is unknown.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        reduction: int,
        *,
        mlp_ratio: int = 4,
        cross_attention: str = "stated",
    ) -> None:
        super().__init__()
        if dim % 2 or (dim // 2) % n_heads:
            raise ValueError(
                f"dim={dim} with n_heads={n_heads}: expected an even number of channels, half of "
                "which the heads can share."
            )
        if cross_attention not in ("stated", "published"):
            raise ValueError(
                f"cross_attention={cross_attention!r}: expected 'stated' or 'published'."
            )
        half = dim // 2
        self.n_heads, self.reduction, self.scrambled = (
            n_heads,
            reduction,
            cross_attention != "stated",
        )
        self.scale = (half // n_heads) ** -0.5
        self.position = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm_in, self.conv_in = nn.BatchNorm2d(dim), nn.Conv2d(dim, dim, 1)
        self.conv_norm = nn.BatchNorm2d(half)
        self.conv = nn.Conv2d(half, half, 3, padding=1, groups=half)
        self.token_norm, self.to_qkv = LayerNorm(half), nn.Linear(half, 3 * half)
        self.cross_conv_norm = nn.BatchNorm2d(half)
        self.cross_conv_qkv = nn.Conv2d(half, 3 * half, 1)
        self.cross_token_norm = LayerNorm(half)
        self.cross_token_qkv = nn.Linear(half, 3 * half)
        self.fuse_conv, self.fuse_tokens = nn.Linear(half, half), nn.Linear(half, half)
        self.conv_out = nn.Conv2d(dim, dim, 1)
        self.mlp_norm = nn.BatchNorm2d(dim)
        self.mlp = nn.Sequential(
            nn.Conv2d(dim, mlp_ratio * dim, 1), nn.GELU(), nn.Conv2d(mlp_ratio * dim, dim, 1)
        )

    def _attend_within(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, c) and what their heads gather from each other."""
        qkv = self.to_qkv(self.token_norm(tokens))
        q, k, v = qkv.unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        return tokens + gather(q * self.scale, k, v).transpose(1, 2).flatten(2)

    def _attend_across(self, cells: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What the convolution (B, c, H, W) gathers from tokens (B, N, c), and they from it."""
        by_cell = self.cross_conv_qkv(batch_norm(cells, self.cross_conv_norm))
        by_cell = by_cell.flatten(2).transpose(1, 2)
        by_token = self.cross_token_qkv(self.cross_token_norm(tokens))
        cell_q, cell_k, cell_v = by_cell[:, None].chunk(3, -1)  # one head: (B, 1, H W, c)
        token_q, token_k, token_v = by_token[:, None].chunk(3, -1)
        to_cells = gather(cell_q * self.scale, token_k, token_v)[:, 0]
        to_tokens = gather(token_q * self.scale, cell_k, cell_v)[:, 0]
        if self.scrambled:
            to_cells, to_tokens = (
                x.transpose(1, 2).reshape(x.shape) for x in (to_cells, to_tokens)
            )
        return self.fuse_conv(to_cells), self.fuse_tokens(to_tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (B, C, H, W) of feature maps (B, C, H, W)."""
        x = x + self.position(x)
        height, width = x.shape[-2:]
        coarse = height // self.reduction, width // self.reduction
        of_tokens, of_conv = self.conv_in(batch_norm(x, self.norm_in)).chunk(2, 1)
        cells = of_conv + self.conv(batch_norm(of_conv, self.conv_norm))
        tokens = F.interpolate(of_tokens, coarse, mode="nearest").flatten(2).transpose(1, 2)
        cells, tokens = self._attend_across(cells, self._attend_within(tokens))
        cells = cells.transpose(1, 2).unflatten(2, (height, width))
        tokens = tokens.transpose(1, 2).unflatten(2, coarse)
        tokens = F.interpolate(tokens, (height, width), mode="nearest")
        x = x + self.conv_out(torch.cat((cells, tokens), 1))
        return x + self.mlp(batch_norm(x, self.mlp_norm))

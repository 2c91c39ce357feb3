"""The vision transformer core of V1T and ViT, behaviour included."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.drawing import drawn
from v1tlearn.nn.layers.attention import Attention, weigh
from v1tlearn.nn.layers.behavior import BehaviorMLP
from v1tlearn.nn.layers.dropout import Dropout
from v1tlearn.nn.layers.geometry import most_square_grid, window_centers
from v1tlearn.nn.layers.normalization import LayerNorm
from v1tlearn.nn.layers.tokenizers import make_tokenizer, sinusoidal_positions
from v1tlearn.nn.losses import l1_penalty

_BEHAVIOR_MODES = ("none", "b_mlp", "b_mlp_first_block", "b_mlp_shared", "b_mlp_per_mouse")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class StochasticDepth(nn.Module):
    """Drop the output of a residual branch for whole images (Huang et al. 2016).

    Parameters
    ----------
    rate : float
        Probability of dropping, at least 0 and below 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Branch (B, N, d), zero for some images and scaled up for the others."""
        if not self.training or self.rate == 0:
            return branch
        keep = 1 - self.rate
        draw = partial(_kept, keep, branch.device)
        compiling = torch.compiler.is_compiling()
        kept = draw(len(branch)) if compiling else drawn(draw, len(branch))
        return branch * (kept / keep).to(branch.dtype)


def _kept(probability: float, device: torch.device, n: int) -> Tensor:
    """Which of some branches are kept, 1 or 0, (n, 1, 1)."""
    return torch.empty(n, 1, 1, device=device).bernoulli_(probability)


class Block(nn.Module):
    """Transformer block: attention and perceptron, each normalised first and added.

    Parameters
    ----------
    attention : Attention
        Self-attention, its normalisation included.
    embed_dim : int
        Length of a token.
    mlp_dim : int
        Hidden units of the perceptron.
    dropout : float
        Probability within the perceptron.
    drop_path : float
        Rate of stochastic depth of either branch.
    bias : bool
        Biases of the perceptron.
    """

    def __init__(
        self,
        attention: Attention,
        embed_dim: int,
        mlp_dim: int,
        *,
        dropout: float,
        drop_path: float,
        bias: bool,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.mlp = nn.Sequential(
            LayerNorm(embed_dim),
            nn.Linear(embed_dim, mlp_dim, bias=bias),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(mlp_dim, embed_dim, bias=bias),
            Dropout(dropout),
        )
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, d) to tokens (B, N, d)."""
        tokens = tokens + self.drop_path(self.attention(tokens))
        return tokens + self.drop_path(self.mlp(tokens))


class ViTCore(Core):
    """Vision transformer core with behaviour (Li et al. 2023), sizes as published by default.

    The tokenizer "cct" makes the compact transformer of the published code: no class token, fixed
    sinusoidal positions, ``embed_dim // n_heads`` dimensions for all heads together and a rate of
    stochastic depth that grows linearly over the blocks. The other tokenizers come with a class
    token, learned positions, `embed_dim` dimensions for every head and one rate for all blocks.
    `position_embedding` can choose the positions otherwise.
    Linear layers of the blocks start truncated-normal (standard deviation 0.02) without bias.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the images.
    patch_size, patch_stride : int, default=8, 1
        Side of a patch and step between patches, in pixels.
    tokenizer : {"unfold", "conv", "spt", "cct", "dual_norm"}, default="unfold"
        How patches become tokens.
    position_embedding : {"auto", "learned", "sinusoidal"}, default="auto"
        What is added to tokens to tell where they are: one learned vector each, or fixed sines
        and cosines.
    token_grid : {"true", "published"}, default="true"
        Where tokens lie on the feature map: where their patches are, or on the most square grid
        of as many positions, which is what the published code makes of them.
    n_blocks, n_heads : int, default=4, 4
        Blocks, and heads of each.
    embed_dim, mlp_dim : int, default=155, 488
        Length of a token, hidden units of the perceptrons.
    behavior_mode : str, default="none"
        "none"; "b_mlp": a network per block adds behaviour to all tokens; "b_mlp_first_block":
        only ahead of the first block; "b_mlp_shared": one network for all blocks;
        "b_mlp_per_mouse": per block and mouse.
    n_behaviors : int, default=0
        Number of behavioural variables.
    mice : sequence of str, default=()
        Mouse ids, for "b_mlp_per_mouse".
    attention : {"standard", "lsa"}, default="standard"
        "lsa" keeps tokens from attending to themselves and learns a factor per head.
    patch_dropout : float, default=0.0229
        Probability for single elements of the embedded tokens.
    attention_dropout : float, default=0.2544
        Probability for attention weights and attention output.
    mlp_dropout : float, default=0.2544
        Probability within the perceptrons.
    drop_path : float, default=0.0
        Rate of stochastic depth, per image and branch.
    bias : bool, default=True
        Biases of attention output, perceptrons and behaviour networks.
    l1 : float, default=0.5379
        Weight of the absolute values of all parameters in `penalty`.

    Attributes
    ----------
    grid : tuple of int
        Rows and columns of tokens, from the patch geometry.
    output_shape : tuple of int
        Channels, height and width of the feature map: those of `grid`, or of the grid that
        ``token_grid="published"`` takes.

    Raises
    ------
    ValueError
        If a patch does not fit into the image, an option is unknown, a number out of its range, or
        behaviour and its mode do not go together.
    """

    positions: Tensor

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        patch_size: int = 8,
        patch_stride: int = 1,
        tokenizer: str = "unfold",
        position_embedding: str = "auto",
        token_grid: str = "true",
        n_blocks: int = 4,
        n_heads: int = 4,
        embed_dim: int = 155,
        mlp_dim: int = 488,
        behavior_mode: str = "none",
        n_behaviors: int = 0,
        mice: Sequence[str] = (),
        attention: str = "standard",
        patch_dropout: float = 0.0229,
        attention_dropout: float = 0.2544,
        mlp_dropout: float = 0.2544,
        drop_path: float = 0.0,
        bias: bool = True,
        l1: float = 0.5379,
    ) -> None:
        super().__init__(input_shape)
        sizes = {"n_blocks": n_blocks, "n_heads": n_heads, "mlp_dim": mlp_dim}
        for name, value in sizes.items():
            _check(value >= 1, f"{name} must be at least 1, got {value}.")
        _check(embed_dim >= 2, f"embed_dim must be at least 2, got {embed_dim}.")
        _check(0 <= drop_path < 1, f"drop_path must be at least 0 and below 1, got {drop_path}.")
        _check(
            attention in ("standard", "lsa"),
            f"attention must be 'standard' or 'lsa', got {attention!r}.",
        )
        _check(
            position_embedding in ("auto", "learned", "sinusoidal"),
            f"position_embedding must be 'auto', 'learned' or 'sinusoidal', got "
            f"{position_embedding!r}.",
        )
        _check(
            token_grid in ("true", "published"),
            f"token_grid must be 'true' or 'published', got {token_grid!r}.",
        )
        _check(
            behavior_mode in _BEHAVIOR_MODES,
            f"behavior_mode must be one of {', '.join(map(repr, _BEHAVIOR_MODES))}, got "
            f"{behavior_mode!r}.",
        )
        _check(
            behavior_mode == "none" or n_behaviors >= 1,
            f"behavior_mode {behavior_mode!r} needs at least one behavioural variable, got "
            f"n_behaviors={n_behaviors}.",
        )
        per_mouse = behavior_mode == "b_mlp_per_mouse"
        _check(not per_mouse or len(mice) > 0, "'b_mlp_per_mouse' needs the ids of the mice.")

        self.needs_contrast = tokenizer == "dual_norm"
        compact = tokenizer == "cct"
        self.behavior_mode = behavior_mode
        self.l1 = l1
        self.tokenizer = make_tokenizer(tokenizer, input_shape, patch_size, patch_stride, embed_dim)
        self.grid = self.tokenizer.grid
        n_tokens = self.grid[0] * self.grid[1]
        map_size = self.grid if token_grid == "true" else most_square_grid(n_tokens)
        self.output_shape = (embed_dim, *map_size)
        if compact:
            inner_dim = embed_dim // n_heads
            _check(
                inner_dim >= n_heads and inner_dim % n_heads == 0,
                f"the compact transformer (tokenizer='cct') shares embed_dim // n_heads = "
                f"{inner_dim} dimensions among {n_heads} heads, which does not come out even; "
                f"choose embed_dim as a multiple of n_heads squared, {n_heads**2}, such as "
                f"{-(-embed_dim // n_heads**2) * n_heads**2}.",
            )
            head_dim, scale = inner_dim // n_heads, inner_dim**-0.5
            self.class_token = None
        else:
            head_dim, scale = embed_dim, embed_dim**-0.5
            n_tokens += 1
            self.class_token = nn.Parameter(torch.randn(1, 1, embed_dim))
        if position_embedding == "sinusoidal" or (compact and position_embedding == "auto"):
            positions = sinusoidal_positions(n_tokens, embed_dim)
            self.register_buffer("positions", positions, persistent=False)
        else:
            self.positions = nn.Parameter(torch.randn(n_tokens, embed_dim))
        self.patch_dropout = Dropout(patch_dropout)

        self.blocks = nn.ModuleList(
            Block(
                Attention(
                    embed_dim,
                    n_heads,
                    n_tokens,
                    head_dim=head_dim,
                    scale=scale,
                    local=attention == "lsa",
                    dropout=attention_dropout,
                    bias=bias,
                ),
                embed_dim,
                mlp_dim,
                dropout=mlp_dropout,
                drop_path=drop_path * i / max(n_blocks - 1, 1) if compact else drop_path,
                bias=bias,
            )
            for i in range(n_blocks)
        )
        n_networks = {"none": 0, "b_mlp_first_block": 1, "b_mlp_shared": 1}
        self.behavior_mlps = nn.ModuleList(
            BehaviorMLP(n_behaviors, embed_dim, mice if per_mouse else (), bias)
            for _ in range(n_networks.get(behavior_mode, n_blocks))
        )
        for module in (*self.blocks.modules(), *self.behavior_mlps.modules()):
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.float()  # whatever torch's default dtype is

    def behavior_mlp(self, block: int) -> BehaviorMLP | None:
        """Behaviour network whose output is added ahead of a block.

        Parameters
        ----------
        block : int
            Number of the block, from 0.

        Returns
        -------
        BehaviorMLP or None
            None where no behaviour enters.
        """
        if self.behavior_mode == "none" or (self.behavior_mode == "b_mlp_first_block" and block):
            return None
        return cast(BehaviorMLP, self.behavior_mlps[block % len(self.behavior_mlps)])

    def mouse_parameters(self) -> list[str]:
        """Names of the parameters that belong to single mice, and not to the shared core.

        Returns
        -------
        list of str
            Those of the behaviour networks, if each mouse has its own.
        """
        if self.behavior_mode != "b_mlp_per_mouse":
            return []
        return [n for n, _ in self.named_parameters() if n.startswith("behavior_mlps.")]

    def recomputed_parts(self) -> list[nn.Module]:
        """Parts whose activations may be computed again in the backward pass, to save memory.

        Returns
        -------
        list of Module
            The transformer blocks.
        """
        return list(self.blocks)

    def penalty(self) -> Tensor:
        """Weighted sum of the absolute values of all parameters, as published.

        Returns
        -------
        Tensor
            Scalar.
        """
        return self.l1 * l1_penalty(self.parameters())

    def attention_by_block(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Iterator[Tensor]:
        """Give the attention weights of one block after the other.

        Parameters
        ----------
        images, behaviors, sizes
            As `forward` takes them.

        Yields
        ------
        Tensor of shape (n_images, n_heads, n_tokens, n_tokens)
            Rows, of one query over all keys, sum to 1.
        """
        tokens = self.embed(images)
        for i, block in enumerate(cast(list[Block], list(self.blocks))):
            if (network := self.behavior_mlp(i)) is not None:
                tokens = tokens + network(behaviors, sizes or ())
            q, k, _ = block.attention.queries_keys_values(tokens)
            yield weigh(q, k, local=block.attention.local)
            if i + 1 < len(self.blocks):
                tokens = block(tokens)

    def patch_centers(self) -> tuple[Tensor, Tensor]:
        """Where the centres of patches lie in the images.

        Returns
        -------
        rows : Tensor of shape (grid rows,)
            Float64, in pixels from the centre of the uppermost row.
        columns : Tensor of shape (grid columns,)
            From the centre of the leftmost column.
        """
        rows, columns = (window_centers(n, *self.tokenizer.windows) for n in self.grid)
        return rows, columns

    def embed(self, images: Tensor) -> Tensor:
        """Tokens ahead of the first block.

        Parameters
        ----------
        images : Tensor of shape (n_images, n_channels, height, width)
            Standardised images.

        Returns
        -------
        Tensor of shape (n_images, n_tokens, embed_dim)
            The class token, where there is one, and the patches row by row, with positions added.

        Raises
        ------
        ValueError
            If the images have another shape than the core is made for.
        """
        _check(
            tuple(images.shape[1:]) == self.input_shape,
            f"the core is made for images of shape {self.input_shape}, got "
            f"{tuple(images.shape[1:])}.",
        )
        tokens = self.tokenizer(images)  # (B, h' w', d)
        if self.class_token is not None:
            token = self.class_token.expand(tokens.shape[0], -1, -1).to(tokens.dtype)
            tokens = torch.cat((token, tokens), dim=1)
        return self.patch_dropout(tokens + self.positions)

    def source_positions(self) -> tuple[Tensor, Tensor]:
        """Where the cells of the feature maps lie: in the middle of the patches of their tokens.

        Returns
        -------
        rows, columns : Tensor of shape (output height,), (output width,)
            See `Core.source_positions`.

        Raises
        ------
        ValueError
            If the published code's grid puts tokens elsewhere than where their patches are.
        """
        _check(
            self.output_shape[1:] == self.grid,
            f"tokens of {self.grid[0]} x {self.grid[1]} patches lie on a map of "
            f"{self.output_shape[1]} x {self.output_shape[2]} cells (token_grid='published'), so "
            "that places on the map are no places in the image; fit with token_grid='true'.",
        )
        rows, columns = (window_centers(n, *self.tokenizer.windows) for n in self.grid)
        return rows, columns

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Feature maps (B, d, h', w') of images (B, c, h, w) and behaviour (B, v).

        `sizes`, the mice and their numbers of images in the order of the batch, is used by
        "b_mlp_per_mouse" only.
        """
        _check(
            behaviors is not None or self.behavior_mode == "none",
            f"behavior_mode {self.behavior_mode!r} needs the behaviour of every trial, and none "
            f"came; pass it, or use behavior_mode='none'.",
        )
        tokens = self.embed(images)
        for i, block in enumerate(self.blocks):
            if (network := self.behavior_mlp(i)) is not None:
                tokens = tokens + network(behaviors, sizes or ())
            tokens = block(tokens)
        if self.class_token is not None:
            tokens = tokens[:, 1:]
        return tokens.transpose(1, 2).unflatten(2, self.output_shape[1:])  # channels last in memory

"""A pretrained vision transformer as core: tokens of chosen blocks as feature maps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.cores.backbone import Backbone, BackboneError
from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.layers.geometry import window_centers
from v1tlearn.nn.layers.pixels import Pixels


class PretrainedViTCore(Core):
    """Tokens of a pretrained vision transformer, frozen or fine-tuned, as feature maps.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, 1 or 3, height and width of the images.
    model : Module
        The transformer, see `v1tlearn.nn.Backbone`. It is changed.
    block : int or sequence of int
        Whose output is read, from 0; of several the channels come one after the other.
    tokens : {"patch", "cls", "both"}, default="patch"
        Tokens of patches as maps; the class token as a map of one pixel; or both, with the class
        token as further channels, the same everywhere.
    normalize : {"none", "final", "layer"}, default="none"
        What is done to the tokens: nothing (the residual stream), the model's own final
        normalisation, or one of each token to mean 0 and variance 1.
    patch_stride : int, optional
        Distance between patches in pixels; their side by default.
    pixel_scaling : {"per_image", "recording"}, default="per_image"
        See `v1tlearn.nn.Pixels`.
    fine_tune : "none", "all" or int, default="none"
        Of the stages embeddings, block 0, ... up to the last block that is read, how many are
        trained, counted from the end.
    augment_positions : bool, default=False
        See `v1tlearn.nn.Backbone`.
    weight_decay : float, optional
        Of what is fine-tuned, where it differs from the model's.
    upsample : int, default=1
        Factor by which images were enlarged before they come here; where they do not divide into
        patches, errors name sides ahead of it.
    kept_elsewhere : bool, default=False
        Leave weights that were never trained out of `state_dict`, with a checksum in their place.

    Attributes
    ----------
    backbone : Backbone
    checksum : Tensor of uint8, of shape (16,)
        Of the backbone's configuration, and of the weights that are kept elsewhere.

    Raises
    ------
    BackboneError
        If the model cannot be read so, or images do not divide into patches; see
        `v1tlearn.nn.Backbone`.
    ValueError
        If an option is out of its range.
    """

    checksum: Tensor

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        model: nn.Module,
        *,
        block: int | Sequence[int],
        tokens: str = "patch",
        normalize: str = "none",
        patch_stride: int | None = None,
        pixel_scaling: str = "per_image",
        fine_tune: str | int = "none",
        augment_positions: bool = False,
        weight_decay: float | None = None,
        upsample: int = 1,
        kept_elsewhere: bool = False,
    ) -> None:
        super().__init__(input_shape)
        blocks = _block_numbers(block)
        self.pixels = Pixels(input_shape[0], pixel_scaling)
        self.needs_contrast = pixel_scaling == "per_image"
        self.backbone = Backbone(
            model,
            blocks,
            patch_stride=patch_stride,
            augment_positions=augment_positions,
            final_norm=normalize == "final",
        )
        self.tokens, self.normalize, self.weight_decay = tokens, normalize, weight_decay
        self.grid = self.backbone.grid(input_shape[1:], upsample)
        n_channels = self.backbone.width * len(blocks)
        self.output_shape = {
            "patch": (n_channels, *self.grid),
            "cls": (n_channels, 1, 1),
            "both": (2 * n_channels, *self.grid),
        }[tokens]
        self._elsewhere: set[str] = set()
        self.float()  # whatever torch's default dtype is
        self.register_buffer("checksum", torch.zeros(16, dtype=torch.uint8))
        self.fine_tune(fine_tune)
        if kept_elsewhere:
            weights = self.backbone.named_parameters()
            self._elsewhere = {name for name, p in weights if not p.requires_grad}
        self._sign()
        self._check()

    def fine_tune(self, stages: str | int) -> None:
        """Choose what is trained from now on.

        Parameters
        ----------
        stages : "none", "all" or int
            How many of the last stages; the first one are the embeddings. With "none" the core is
            frozen, and works as in evaluation. A final normalisation that is used is trained with
            any.

        Raises
        ------
        ValueError
            If there are not so many.
        """
        found = self.backbone.stages
        named: dict[str | int, str | int] = {"none": 0, "all": len(found)}
        n = named.get(stages, stages)
        if not isinstance(n, int) or not 0 <= n <= len(found):
            raise ValueError(
                f"fine_tune={stages!r}: expected 'none', 'all', or 1 to {len(found)}: the "
                f"embeddings and {len(found) - 1} blocks up to the last that is read."
            )
        if n == 0:
            self.freeze()
            return
        self.frozen = False
        self.requires_grad_(False)
        for stage in (*found[-n:], self.backbone.norm):
            stage.requires_grad_(True)
        trained = {name for name, p in self.backbone.named_parameters() if p.requires_grad}
        if self._elsewhere & trained:
            self._elsewhere -= trained
            self._sign()

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Feature maps (B, C, h', w') of images (B, c, h, w)."""
        return self.maps(self.pixels(images))

    def maps(self, pixels: Tensor) -> Tensor:
        """Read feature maps from pixels that are scaled already.

        Parameters
        ----------
        pixels : Tensor of shape (n_images, 3, height, width)

        Returns
        -------
        Tensor of shape (n_images, channels, height, width)
        """
        out = self.backbone(pixels)
        if self.normalize == "layer":
            out = [F.layer_norm(tokens, tokens.shape[-1:]) for tokens in out]
        whole = torch.cat(out, -1).mT  # (B, C, prefix + patches)
        if self.tokens == "cls":
            return whole[:, :, :1, None]
        patches = whole[:, :, self.backbone.n_prefix :].unflatten(2, self.grid)
        if self.tokens == "patch":
            return patches
        return torch.cat((patches, whole[:, :, :1, None].expand_as(patches)), 1)

    @property
    def read_tokens(self) -> str:
        """From which tokens features come: "class", "patches" or "both"."""
        return {"cls": "class", "patch": "patches", "both": "both"}[self.tokens]

    def attention_by_block(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Iterator[Tensor]:
        """Give the attention weights of one block after the other, up to the last that is read.

        Parameters
        ----------
        images, behaviors, sizes
            As `forward` takes them.

        Yields
        ------
        Tensor of shape (n_images, n_heads, n_tokens, n_tokens)
            Rows, of one query over all keys, sum to 1; class token and registers come first.
        """
        yield from self.backbone.attention_by_block(self.pixels(images))

    def patch_centers(self) -> tuple[Tensor, Tensor]:
        """Where the centres of patches lie in the images.

        Returns
        -------
        rows : Tensor of shape (grid rows,)
            Float64, in pixels from the centre of the uppermost row.
        columns : Tensor of shape (grid columns,)
            From the centre of the leftmost column.
        """
        window = (self.backbone.patch_size, self.backbone.patch_stride, 0)
        rows, columns = (window_centers(n, window) for n in self.grid)
        return rows, columns

    def source_positions(self) -> tuple[Tensor, Tensor]:
        """Where the cells of the feature maps lie: in the middle of the patches of their tokens.

        Returns
        -------
        rows, columns : Tensor of shape (output height,), (output width,)
            See `Core.source_positions`.

        Raises
        ------
        ValueError
            If the class token alone is read, which is nowhere.
        """
        if self.tokens == "cls":
            raise ValueError(
                "the class token is a map of one cell, which lies nowhere in the image: take "
                "tokens='patch' or 'both'."
            )
        return self.patch_centers()

    def signature(self) -> bytes:
        """Tell apart cores that give the same image different feature maps.

        Returns
        -------
        bytes
            Of weights, the configuration and modules of the backbone, images and options.
        """
        own = self.backbone
        options = (self.tokens, self.normalize, self.pixels.scaling, _text(own.options), repr(own))
        told = (self.input_shape, own.read, own.patch_stride, *options)
        return repr(told).encode() + _digest([*own.parameters(), *own.buffers()])

    def recomputed_parts(self) -> list[nn.Module]:
        """Parts whose activations may be computed again in the backward pass, to save memory.

        Returns
        -------
        list of Module
            The blocks.
        """
        return [] if self.frozen else list(self.backbone.blocks)

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimiser, in groups.

        Returns
        -------
        list of dict
            What is fine-tuned, with its own weight decay where there is one.
        """
        group: dict[str, Any] = {"params": [p for p in self.parameters() if p.requires_grad]}
        if self.weight_decay is not None:
            group["weight_decay"] = self.weight_decay
        return [group] if group["params"] else []

    def _check(self) -> None:
        """Check by an image without contrast that tokens come as the configuration says."""
        size = self.input_shape[1:]
        expected = self.backbone.n_prefix + self.grid[0] * self.grid[1]
        try:
            with torch.no_grad():
                mode = self.training
                (tokens, *_) = self.eval().backbone(torch.zeros(1, 3, *size))
                self.train(mode)
        except (ValueError, RuntimeError, AttributeError, TypeError) as error:
            own = self.backbone
            strided = ""
            if own.patch_stride != own.patch_size:
                strided = (
                    f" with patch_stride={own.patch_stride}; where it works without, it is not of "
                    "the DINOv2 or DINOv3 family, whose patches alone can overlap"
                )
            raise BackboneError(
                f"the backbone {type(own.model).__name__} does not take images of {size[0]} x "
                f"{size[1]} pixels{strided}: {error}"
            ) from error
        if tokens.shape[1] != expected:
            raise BackboneError(
                f"the backbone {type(self.backbone.model).__name__} has no patch grid: images of "
                f"{size[0]} x {size[1]} pixels gave {tokens.shape[1]} tokens, expected {expected}, "
                f"{self.backbone.n_prefix} of them ahead of the patches."
            )

    # ----------------------------------------------------------------- weights that lie elsewhere

    def _sign(self) -> None:
        """Note by which configuration, and weights that are kept elsewhere, this core works."""
        digest = self._checksum(self._elsewhere)
        self.checksum.copy_(torch.tensor(list(digest), dtype=torch.uint8))

    def _checksum(self, names: Iterable[str]) -> bytes:
        weights = dict(self.backbone.named_parameters())
        one = hashlib.blake2b(_text(self.backbone.options).encode(), digest_size=16)
        one.update(_digest([weights[name] for name in names]))
        return one.digest()

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        """Weights by name, without those that are kept elsewhere.

        Parameters
        ----------
        *arguments, **options
            Of `torch.nn.Module.state_dict`.

        Returns
        -------
        dict of str to Tensor
        """
        out = super().state_dict(*arguments, **options)
        prefix = options.get("prefix", "")
        for name in self._elsewhere:
            out.pop(f"{prefix}backbone.{name}", None)
        return out

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Let weights that are kept elsewhere stay, after a look at the checksum."""
        weights = dict(self.backbone.named_parameters())
        missing = {name for name in weights if f"{prefix}backbone.{name}" not in state}
        told = state.get(f"{prefix}checksum", torch.zeros(0))
        signed = bool(told.any())
        if signed:
            if bytes(told.tolist()) != self._checksum(missing):
                raise BackboneError(
                    "the pretrained weights or their configuration are not those that this model "
                    "was fitted with: their checksum differs. Bring the files of the backbone back "
                    "as they were at fit, or fit anew."
                )
            for name in missing:
                state[f"{prefix}backbone.{name}"] = weights[name].detach()
        super()._load_from_state_dict(state, prefix, *arguments)
        if signed:
            self._elsewhere &= missing  # the others were trained once
            self._sign()


def _block_numbers(block: int | Sequence[int]) -> list[int]:
    blocks = [block] if isinstance(block, int | Integral) else list(block)
    if not blocks:
        raise ValueError("block is empty: expected the number of a block, or several.")
    if not all(isinstance(n, Integral) and not isinstance(n, bool) for n in blocks):
        raise ValueError(
            f"block={block!r}: expected the number of a block, or several, whole numbers from 0."
        )
    return [int(number) for number in blocks]


def _text(options: Mapping[str, Any]) -> str:
    """Options as text, the same in any order and in every process."""
    return json.dumps(options, sort_keys=True, default=_name)


def _name(value: Any) -> str:
    """Name a function by itself, an object by its class: neither by an address in memory."""
    return getattr(value, "__qualname__", type(value).__qualname__)


def _digest(weights: Sequence[Tensor]) -> bytes:
    """Checksum of weights in any order: names differ between versions of a library."""
    digests = []
    for weight in weights:
        values = weight.detach().cpu().contiguous()
        one = hashlib.blake2b(repr(tuple(values.shape)).encode(), digest_size=16)
        one.update(values.reshape(-1).view(torch.uint8).numpy().data)
        digests.append(one.digest())
    return hashlib.blake2b(b"".join(sorted(digests)), digest_size=16).digest()

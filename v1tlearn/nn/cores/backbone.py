"""Reading a pretrained vision transformer: its blocks, its patches, and where they are.

Parts are found by what they are, not by name, since names differ between families and versions.
Loading weights is not done here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from v1tlearn.nn.layers.positions import RotaryPositions, resampled_positions

_EXPECTED = (
    "expected a plain vision transformer of the DINOv2 or DINOv3 family, whose patches keep their "
    "places from the first block to the last"
)
_ATTENTION = "_attn_implementation"  # where configurations say how attention is computed

# Parts of a configuration that change no token.
_OF_ORIGIN = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}


class BackboneError(ValueError):
    """A pretrained backbone cannot be read or found, or cannot take these images."""


class Backbone(nn.Module):
    """The first blocks of a pretrained vision transformer, from pixels to tokens.

    What comes after the last block that is read is cut away.

    Parameters
    ----------
    model : Module
        Of the library transformers, or with such a ``config``: ``hidden_size``,
        ``num_hidden_layers``, ``patch_size``, and perhaps ``num_register_tokens``. It is changed.
    blocks : sequence of int
        Which are read, from 0.
    patch_stride : int, optional
        Distance between patches, in pixels; that of the model by default.
    augment_positions : bool, default=False
        In training mode draw rotary coordinates at random, as the configuration of DINOv3 says.
    final_norm : bool, default=False
        Keep the final normalisation.

    Attributes
    ----------
    width : int
        Of a token.
    n_prefix : int
        Tokens ahead of those of patches: class and registers.
    patch_size, patch_stride : int
        In pixels.
    options : dict
        What the configuration says otherwise than its class, but for where the model comes from.

    Raises
    ------
    BackboneError
        If the model is no plain vision transformer, lacks a block, or holds NaN.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[int],
        *,
        patch_stride: int | None = None,
        augment_positions: bool = False,
        final_norm: bool = False,
    ) -> None:
        super().__init__()
        config = getattr(model, "config", None)
        self.options = _options(config)
        self.width, n_blocks, self.patch_size = _sizes(model, config)
        self.n_prefix = 1 + int(getattr(config, "num_register_tokens", 0) or 0)
        self.read = tuple(blocks)
        if wrong := [b for b in self.read if not 0 <= b < n_blocks]:
            raise BackboneError(
                f"block={wrong[0]}, but {type(model).__name__} has {n_blocks} blocks, counted from "
                f"0: choose from 0 to {n_blocks - 1}."
            )
        self.patch_stride = self.patch_size if patch_stride is None else patch_stride
        if not 1 <= self.patch_stride <= self.patch_size:
            raise BackboneError(
                f"patch_stride={patch_stride}: expected 1 to {self.patch_size}, the side of a "
                "patch in pixels, so that no pixel is left out between patches."
            )
        found = _trunk(model, self.width, n_blocks, self.patch_size)
        self.model, self._embeddings, self._blocks, place = found
        self._set_stride()
        self._set_rotary(config, augment_positions)
        _put(self.model, self._blocks, nn.ModuleList(list(self.blocks)[: max(self.read) + 1]))
        self.norm = self.model.get_submodule(place) if final_norm else nn.Identity()
        _put(self.model, place, nn.Identity())
        _check_finite(self)
        self._seen: list[Tensor] = []
        for number in sorted(set(self.read)):
            self.blocks[number].register_forward_hook(self._see)

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks that are there, from the first on."""
        return cast(nn.ModuleList, self.model.get_submodule(self._blocks))

    @property
    def stages(self) -> list[nn.Module]:
        """What can be trained: embeddings, then the blocks."""
        return [self.model.get_submodule(self._embeddings), *self.blocks]

    def grid(self, size: tuple[int, int], upsample: int = 1) -> tuple[int, int]:
        """Count rows and columns of patches.

        Parameters
        ----------
        size : (int, int)
            Height and width of the images, in pixels.
        upsample : int, default=1
            Factor by which they were enlarged; sides are named ahead of it.

        Returns
        -------
        (int, int)

        Raises
        ------
        BackboneError
            If patches do not fill the image, with the sides that they would fill.
        """
        patch, stride = self.patch_size, self.patch_stride
        if all(side >= patch and (side - patch) % stride == 0 for side in size):
            rows, columns = ((side - patch) // stride + 1 for side in size)
            return rows, columns
        raise BackboneError(_no_grid(size, patch, stride, upsample))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Tokens (B, prefix + patches, width) after each block that is read, of (B, 3, h, w)."""
        self._seen.clear()
        self.model(pixels)
        seen = dict(zip(sorted(set(self.read)), self._seen, strict=True))
        self._seen.clear()
        return [self.norm(seen[number]) for number in self.read]

    def attention_by_block(self, pixels: Tensor) -> Iterator[Tensor]:
        """Give the attention weights of one block after the other, up to the last that is read.

        What comes to each block is noted in one pass, and each block works again for its weights.

        Parameters
        ----------
        pixels : Tensor of shape (n_images, 3, height, width)

        Yields
        ------
        Tensor of shape (n_images, n_heads, n_tokens, n_tokens)
            Class and registers come ahead of the patches.

        Raises
        ------
        BackboneError
            If blocks give no weights.
        """
        came: list[tuple[Any, Any]] = []

        def _note(module: nn.Module, arguments: Any, options: Any) -> None:
            came.append((arguments, options))

        hooks = [b.register_forward_pre_hook(_note, with_kwargs=True) for b in self.blocks]
        try:
            self(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        for number, block in enumerate(self.blocks):
            (arguments, options), came[number] = came[number], ((), {})
            yield self._weights(block, arguments, options)

    def _weights(self, block: nn.Module, arguments: Any, options: Any) -> Tensor:
        """Attention weights of a block, which gives them where it computes attention plainly."""
        found: list[Tensor] = []

        def _look(module: nn.Module, _: Any, output: Any) -> None:
            for value in output if isinstance(output, tuple) else ():
                if isinstance(value, Tensor) and value.ndim == 4:  # all else has three dimensions
                    found.append(value)

        configs = {id(c): c for m in self.modules() if (c := getattr(m, "config", None))}
        chosen = [(c, getattr(c, _ATTENTION, None)) for c in configs.values()]
        hooks = [module.register_forward_hook(_look) for module in block.modules()]
        try:
            for config, _ in chosen:
                setattr(config, _ATTENTION, "eager")
            block(*arguments, **options)
        finally:
            for config, before in chosen:
                setattr(config, _ATTENTION, before)
            for hook in hooks:
                hook.remove()
            self._seen.clear()
        if not found:
            raise BackboneError(
                f"the blocks of {type(self.model).__name__}, of the class {type(block).__name__}, "
                "give no attention weights: expected those of the library transformers."
            )
        return found[0]

    def _see(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._seen.append(output[0] if isinstance(output, tuple) else output)

    def _set_stride(self) -> None:
        if self.patch_stride == self.patch_size:
            return
        embeddings = self.model.get_submodule(self._embeddings)
        patches = next(_patch_convolutions(embeddings, self.patch_size))
        patches.stride = (self.patch_stride, self.patch_stride)
        if getattr(embeddings, "position_embeddings", None) is not None:
            strided = StridedEmbeddings(embeddings, self.patch_size, self.patch_stride)
            _put(self.model, self._embeddings, strided)

    def _set_rotary(self, config: Any, augment: bool) -> None:
        """Let coordinates follow the stride, and move in training only where that is asked for."""
        for name, module in list(self.model.named_modules()):
            if isinstance(getattr(module, "inv_freq", None), Tensor):
                bounds = ("shift", "jitter", "rescale") if augment else ()
                moved = {kind: getattr(config, f"pos_embed_{kind}", None) for kind in bounds}
                rotary = RotaryPositions(
                    module.inv_freq, self.patch_size, self.patch_stride, **moved
                )
                _put(self.model, name, rotary)


class StridedEmbeddings(nn.Module):
    """Embeddings of DINOv2 for patches that overlap, with positions at their true centres.

    Parameters
    ----------
    embeddings : Module
        Of transformers, its convolution with the new stride.
    patch_size, stride : int
        In pixels.
    """

    def __init__(self, embeddings: nn.Module, patch_size: int, stride: int) -> None:
        super().__init__()
        self.embeddings, self.patch_size, self.stride = embeddings, patch_size, stride

    def forward(self, pixel_values: Tensor, bool_masked_pos: Tensor | None = None) -> Tensor:
        """Tokens (B, prefix + patches, width) of pixels (B, 3, h, w); nothing is masked."""
        own: Any = self.embeddings  # whose parts have the names that DINOv2 gives them
        registers = getattr(own, "register_tokens", None)
        patches = next(_patch_convolutions(own, self.patch_size))(pixel_values)
        patches = patches.flatten(2).mT  # (B, patches, width)
        table = own.position_embeddings[0]  # class, then the cells of a square
        side = round((len(table) - 1) ** 0.5)
        places = resampled_positions(
            table[1:].unflatten(0, (side, side)),
            pixel_values.shape[-2:],
            self.patch_size,
            self.stride,
            antialias=registers is not None,  # as the two kinds of models do
        )
        prefix = own.cls_token + table[:1]
        if registers is not None:
            prefix = torch.cat((prefix, registers), 1)
        prefix = prefix.expand(len(patches), -1, -1)
        return own.dropout(torch.cat((prefix, patches + places), 1))


def _options(config: Any) -> dict[str, Any]:
    """Values of a configuration that another version of the library reads alike."""
    if not hasattr(config, "to_dict"):
        return dict(getattr(config, "__dict__", {}))
    values, usual = config.to_dict(), {}
    if not getattr(config, "has_no_defaults_at_init", False):
        usual = type(config)().to_dict()
    return {
        name: value
        for name, value in values.items()
        if name not in _OF_ORIGIN and not (name in usual and usual[name] == value)
    }


def _sizes(model: nn.Module, config: Any) -> tuple[int, int, int]:
    """Width of a token, number of blocks, side of a patch."""
    names = ("hidden_size", "num_hidden_layers", "patch_size")
    found: dict[str, Any] = {name: getattr(config, name, None) for name in names}
    patch = found["patch_size"]
    if isinstance(patch, list | tuple) and len(set(patch)) == 1:
        found["patch_size"] = patch[0]
    if missing := [name for name, value in found.items() if not isinstance(value, int)]:
        raise BackboneError(
            f"the backbone {type(model).__name__} has no patch grid: its config says nothing, or "
            f"no single number, of {missing}; {_EXPECTED}."
        )
    width, n_blocks, patch = (found[name] for name in names)
    return width, n_blocks, patch


def _no_grid(size: tuple[int, int], patch: int, stride: int, upsample: int) -> str:
    """Say which sides, ahead of enlarging, are cut into patches without rest."""
    given = [side // upsample for side in size]
    steps = "" if stride == patch else f", {stride} apart,"
    enlarged = "" if upsample == 1 else f", upsample={upsample} times as many on a side,"
    told = (
        f"images of {given[0]} x {given[1]} pixels{enlarged} cannot be cut into patches of {patch} "
        f"x {patch} pixels{steps} without rest. "
    )
    step = stride // math.gcd(stride, upsample)
    least = -(-patch // upsample)
    fitting = (s for s in range(least, least + step) if (s * upsample - patch) % stride == 0)
    first = next(fitting, None)
    if first is None:
        return f"{told}No side can with this upsample: set another patch_stride or upsample."
    allowed = []
    for side in given:
        lower = first + max(side - first, 0) // step * step
        allowed.append(f"{lower}" if lower == side else f"{lower} or {lower + step}")
    return (
        f"{told}Allowed sides next to these: height {allowed[0]}, width {allowed[1]}; in general "
        f"{first} plus a multiple of {step}. Set image_size=(height, width), or another "
        "patch_stride."
    )


def _trunk(
    model: nn.Module, width: int, n_blocks: int, patch_size: int
) -> tuple[nn.Module, str, str, str]:
    """Find what has embeddings, blocks and a final norm: the model, or what it has beside heads.

    These three are given as places within it.
    """
    lacks = ""
    for module in model.modules():
        found = {
            f"a convolution over patches of {patch_size} pixels and three colours": next(
                (n for n, c in module.named_children() if any(_patch_convolutions(c, patch_size))),
                None,
            ),
            f"a list of {n_blocks} equal blocks": next(
                (n for n, m in module.named_modules() if _are_blocks(m, n_blocks)), None
            ),
            "a final norm": next(
                (n for n, c in module.named_children() if _is_norm(c, width)), None
            ),
        }
        embeddings, blocks, norm = found.values()
        if embeddings is not None and blocks is not None and norm is not None:
            return module, embeddings, blocks, norm
        lacks = lacks or next(what for what, place in found.items() if place is None)
    raise BackboneError(
        f"the backbone {type(model).__name__} has no patch grid: it lacks {lacks}; {_EXPECTED}."
    )


def _patch_convolutions(module: nn.Module, patch_size: int) -> Iterator[nn.Conv2d]:
    size = (patch_size, patch_size)
    convolutions = (m for m in module.modules() if isinstance(m, nn.Conv2d))
    return (c for c in convolutions if c.kernel_size == size and c.in_channels == 3)


def _are_blocks(module: nn.Module, n_blocks: int) -> bool:
    if not isinstance(module, nn.ModuleList) or len(module) != n_blocks:
        return False
    return len({type(block) for block in module}) == 1


def _is_norm(module: nn.Module, width: int) -> bool:
    return isinstance(module, nn.LayerNorm) and module.normalized_shape == (width,)


def _check_finite(backbone: Backbone) -> None:
    """Refuse weights that make every token NaN."""
    arrays = (*backbone.model.named_parameters(), *backbone.norm.named_parameters("norm"))
    for name, values in (*arrays, *backbone.model.named_buffers()):
        if wrong := int((~values.isfinite()).sum()):
            raise BackboneError(
                f"{name} of the backbone {type(backbone.model).__name__} holds NaN or infinite "
                f"values, {wrong} of {values.numel()}: get its weights anew."
            )


def _put(model: nn.Module, place: str, module: nn.Module) -> None:
    owner, _, name = place.rpartition(".")
    setattr(model.get_submodule(owner), name, module)

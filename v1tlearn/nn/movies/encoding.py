"""Vi-ST as parts of an encoding model: features of single frames, and a network per mouse."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.layers.past import Past
from v1tlearn.nn.movies.patches import frame_patches
from v1tlearn.nn.movies.vist import PUBLISHED_KERNELS, ViST
from v1tlearn.nn.readouts.readout import Readout


class PatchCore(Core):
    """Pixels of patches as features of frames; with patches of one pixel, frames as they are.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the frames.
    grid : int
        Patches along either side.

    Raises
    ------
    ValueError
        If the sides of frames are no multiples of the grid.
    """

    def __init__(self, input_shape: Sequence[int], grid: int) -> None:
        super().__init__(input_shape)
        channels, height, width = self.input_shape
        if height % grid or width % grid:
            raise ValueError(
                f"frames of {height} x {width} pixels do not divide into {grid} x {grid} patches: "
                "set grid to a common divisor of both sides, or image_size to multiples of it."
            )
        self.output_shape = (channels * (height // grid) * (width // grid), grid, grid)

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Maps (B, c h w / g^2, g, g) of frames (B, c, h, w)."""
        grid = self.output_shape[1]
        return frame_patches(images[:, None], grid)[:, 0].mT.unflatten(2, (grid, grid))


class CallableCore(Core):
    """Features of frames that a callable gives, which is not trained.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the frames.
    features : callable
        ``features(frames)`` of frames (n, channels, height, width), float32 on the device of the
        model, gives features (n, patches, k), patches row by row of a square grid, of each frame
        for itself. A module is copied, brought to the device, and set to evaluation mode.

    Raises
    ------
    TypeError
        If it does not give a tensor.
    ValueError
        If features have another shape, or those of an empty frame are not finite.
    """

    def __init__(self, input_shape: Sequence[int], features: Callable[[Tensor], Tensor]) -> None:
        super().__init__(input_shape)
        if isinstance(features, nn.Module):
            features = deepcopy(features).eval().requires_grad_(False)
        self._features = [features]  # in a list: its weights are no part of the state
        found = self._of(torch.zeros(1, *self.input_shape))
        grid = round(found.shape[1] ** 0.5)
        if grid**2 != found.shape[1] or not found.isfinite().all():
            raise ValueError(
                f"prior gave features of the shape {tuple(found.shape)} for a frame, "
                f"{int((~found.isfinite()).sum())} of them not finite: expected finite ones of "
                "(n, patches, k), of as many patches as a square grid has."
            )
        self.output_shape = (found.shape[2], grid, grid)
        self.freeze()

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Maps (B, k, g, g) of frames (B, c, h, w)."""
        channels, *grid = self.output_shape
        found = self._of(images)
        if found.shape[1:] != (grid[0] ** 2, channels):
            raise ValueError(
                f"prior gave features of the shape {tuple(found.shape)}, and of "
                f"{grid[0] ** 2} patches and {channels} features before: expected the same always."
            )
        return found.mT.unflatten(2, grid)

    def _of(self, frames: Tensor) -> Tensor:
        function = self._features[0]
        if isinstance(function, nn.Module):
            function.to(frames.device)
        with torch.no_grad():
            found = function(frames)
        if not isinstance(found, Tensor):
            raise TypeError(
                f"prior gave a {type(found).__name__}: expected a tensor of shape (n, patches, k)."
            )
        if found.ndim != 3 or len(found) != len(frames):
            raise ValueError(
                f"prior gave features of the shape {tuple(found.shape)} for {len(frames)} frames: "
                f"expected ({len(frames)}, patches, k), features of these frames and no others."
            )
        return found.to(frames.device, torch.float32)

    def signature(self) -> bytes | None:
        """Tell apart modules that give the same frame different features.

        Returns
        -------
        bytes or None
            Of its layers and weights; None of other callables, of which nobody knows.
        """
        function = self._features[0]
        if not isinstance(function, nn.Module):
            return None
        digest = hashlib.blake2b(repr((self.input_shape, repr(function))).encode())
        for name, value in function.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.digest()


class ViSTReadout(Readout):
    """The network of Vi-ST of one mouse, behind the features of frames that mice share.

    Parameters
    ----------
    core_shape : tuple of int
        Features, rows and columns of the maps of frames; as many rows as columns.
    n_neurons : int
    receptive_field : array of shape (n_neurons, height, width), optional
        Maps of the frames, where `condition` asks for them. They are averaged over the areas of
        patches; where they are coarser than the grid they are interpolated.
    n_layers, channels, kernels, causal, condition, dropout
        As of `ViST`.

    Attributes
    ----------
    network : ViST

    Raises
    ------
    ValueError
        If the grid is not square or too small, or maps are missing or of another shape.
    """

    takes_shift = False

    def __init__(
        self,
        core_shape: Sequence[int],
        n_neurons: int,
        *,
        receptive_field: object | None = None,
        n_layers: int = 6,
        channels: int = 256,
        kernels: Sequence[Sequence[int]] = PUBLISHED_KERNELS,
        causal: bool | tuple[bool, bool] = True,
        condition: str = "receptive_fields",
        dropout: float = 0.25,
    ) -> None:
        super().__init__(n_neurons)
        n_features, rows, columns = core_shape
        if rows != columns:
            raise ValueError(
                f"features lie on a grid of {rows} x {columns} patches: expected as many rows as "
                "columns; set image_size to a square, or crop the movies."
            )
        self.network = ViST(
            n_features,
            n_neurons,
            grid=rows,
            n_layers=n_layers,
            channels=channels,
            kernels=kernels,
            causal=causal,
            condition=condition,
            dropout=dropout,
        )
        before, after = self.network.context_frames
        self.context_frames = (before, after)
        fields = None
        if self.network.takes_fields:
            if receptive_field is None:
                raise ValueError(f"condition={condition!r} needs receptive fields, none came.")
            fields = _on_grid(receptive_field, n_neurons, rows)
        self.register_buffer("fields", fields, persistent=False)
        self.float()  # whatever torch's default dtype is

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Maps (B, D, g, g) of frames as they are: `through_time` makes outputs of them."""
        return features

    def through_time(self, outputs: Tensor, past: Past | None = None) -> Tensor:
        """Responses over time.

        Parameters
        ----------
        outputs : Tensor of shape (n_movies, n_frames, n_features, rows, columns)
        past : Past, optional

        Returns
        -------
        Tensor of shape (n_movies, n_frames, n_neurons)
        """
        return self.network(outputs.flatten(3).mT, self.fields, past)  # (B, T, g g, D)


def _on_grid(fields: object, n_neurons: int, grid: int) -> Tensor:
    """Receptive fields (n, grid, grid) of maps (n, height, width)."""
    maps = torch.as_tensor(fields, dtype=torch.float32).clone()
    if maps.ndim != 3 or len(maps) != n_neurons or not maps.isfinite().all():
        raise ValueError(
            f"receptive fields have the shape {tuple(maps.shape)}, "
            f"{int((~maps.isfinite()).sum())} values not finite: expected finite maps (neurons, "
            f"rows, columns) of the {n_neurons} neurons of the model, in their order."
        )
    if min(maps.shape[1:]) >= grid:
        return F.adaptive_avg_pool2d(maps, grid)
    return F.interpolate(maps[:, None], (grid, grid), mode="bilinear", align_corners=False)[:, 0]

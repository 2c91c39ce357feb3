"""A model that begins behind its core."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from v1tlearn.nn.batches import MouseBatch
from v1tlearn.nn.layers.past import Past
from v1tlearn.nn.model import EncodingModel


class FeatureModel(EncodingModel):
    """A model whose batches bring feature maps in place of images; all its modules are shared.

    Parameters
    ----------
    model : EncodingModel
    """

    def __init__(self, model: EncodingModel) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(vars(model))

    def forward(
        self,
        batches: Mapping[str, MouseBatch],
        *,
        activate: bool = True,
        past: Past | None = None,
    ) -> dict[str, Tensor]:
        """Predicted rates (B_m, [T,] n_m) of each mouse, from maps (B_m, [T,] *output_shape)."""
        n_frames = self._n_frames(batches)
        batches = {mouse: batch.by_frame() for mouse, batch in batches.items()}
        outputs = {mouse: self._respond(mouse, b, b.images) for mouse, b in batches.items()}
        return self._rates(outputs, n_frames, activate=activate, past=past)

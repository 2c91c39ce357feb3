"""Where the cells of feature maps lie in the image: as cores tell, or else by derivatives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from v1tlearn.estimators._fitted import Fitted
from v1tlearn.nn import EncodingModel

Sides = tuple[np.ndarray, np.ndarray]

_IMAGES = 2  # of noise, by which dead units of one are alive in the other
_NOTHING = 1e-6  # of the largest derivative, below which there is none but for rounding
_ASIDE = 0.26  # pixels that centres may lie aside of a line: those of pooled places alternate


def cells_of(fitted: Fitted, model: EncodingModel, mouse: str) -> Sides:
    """Rows and columns of the feature maps, in pixels of the images that the core takes.

    Parameters
    ----------
    fitted : Fitted
    model : EncodingModel
        In evaluation mode.
    mouse : str
        By whose images they are measured, where the core does not tell.

    Returns
    -------
    (ndarray of shape (output height,), ndarray of shape (output width,))

    Raises
    ------
    ValueError
        If nothing tells, or the core tells it of other maps than its own.
    """
    core = model.core
    told = core.source_positions()
    if told is not None:
        rows, columns = (side.cpu().double().numpy() for side in told)
        expected = core.output_shape[1:]
        if (len(rows), len(columns)) != tuple(expected):
            raise ValueError(
                f"{type(core).__name__}.source_positions gives {len(rows)} rows and {len(columns)} "
                f"columns, its maps have {expected[0]} and {expected[1]}."
            )
        return rows, columns
    measured = None
    if core.context_frames is None:
        measured = _measured_positions(model, mouse, len(fitted.core_columns))
    if measured is None:
        raise ValueError(
            f"{type(core).__name__} does not tell where the cells of its maps lie in the image, "
            "and what they see does not either: say so in source_positions(), see "
            "v1tlearn.nn.Core."
        )
    return measured


@torch.inference_mode(False)
def _measured_positions(
    model: EncodingModel, mouse: str, n_behaviors: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows and columns of the image in which what each row and column of a map sees is centred.

    Only windows that end within the image tell their centre: it is put in a line through these.

    Parameters
    ----------
    model : EncodingModel
    mouse : str
    n_behaviors : int
        Columns of behaviour that enter the core.

    Returns
    -------
    (ndarray of shape (output height,), ndarray of shape (output width,)) or None
        In pixels of the images that come to the core. None where windows reach over the whole
        image, or lie at uneven distances.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    channels = model.core.input_shape[0] - (n_behaviors if model.behavior_channels else 0)
    shape = (_IMAGES, channels, *model.cropper.output_size)
    images = torch.randn(shape, generator=generator).to(device).requires_grad_()
    behaviors = torch.zeros(_IMAGES, n_behaviors, device=device) if n_behaviors else None
    with torch.enable_grad():
        features = model.encode(mouse, images, behaviors)
        weights = torch.randn(features.shape[1:], generator=generator).to(features)
        weighted = features * weights
    found = []
    for side in (2, 3):
        ends = np.array([_seen(part.sum(), images, side) for part in weighted.split(1, side)])
        centers = _in_line(ends, images.shape[side])
        if centers is None:
            return None
        found.append(centers)
    return found[0], found[1]


def _seen(total: Tensor, images: Tensor, side: int) -> tuple[int, int]:
    """First and last row, or column, of the images on which a sum depends; (0, -1) if on none."""
    (slopes,) = torch.autograd.grad(total, images, retain_graph=True)
    size = slopes.abs().movedim(side, 0).flatten(1).amax(1)
    seen = torch.nonzero(size > _NOTHING * size.max()).flatten().tolist()
    return (seen[0], seen[-1]) if seen else (0, -1)


def _in_line(ends: np.ndarray, side: int) -> np.ndarray | None:
    """Centres of evenly spaced windows; None where those inside do not tell, or are uneven."""
    inside = np.flatnonzero((ends[:, 0] > 0) & (ends[:, 1] < side - 1))
    if len(inside) < 2:
        return None
    centers = ends[inside].mean(1)
    slope, start = np.polyfit(inside, centers, 1)
    if np.abs(start + slope * inside - centers).max() > _ASIDE:
        return None
    return start + slope * np.arange(len(ends))

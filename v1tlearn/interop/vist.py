"""Opening models of the published Vi-ST code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from v1tlearn.estimators import ViSTRegressor
from v1tlearn.estimators._build import begin, bounded_by
from v1tlearn.estimators._fitted import Fitted, Mouse
from v1tlearn.interop.models import as_model, read_state
from v1tlearn.nn import MultiscaleBlock, ViST, vist_from_published

_MOUSE = "mouse"


def load_vist(
    source: str | os.PathLike | Mapping[str, Any],
    receptive_fields: Any = None,
    *,
    causal: bool | None = None,
) -> ViSTRegressor:
    """Open a model of the published Vi-ST code as a fitted estimator of one animal, "mouse".

    Sizes, layers, kernels and the grid are read from the arrays. Nothing in a file is executed.

    Parameters
    ----------
    source : path or mapping of str to array
        The state of a model of wurining/Vi-ST, or the file it was saved to: names are
        ``stage1.layers.0.conv_dilated.weight`` and the like, with or without the prefix ``net.`` of
        checkpoints. A file ends in ``.npz`` or was written by torch.
    receptive_fields : array of shape (neurons, rows, columns), optional
        As the model was trained with, needed where it is conditioned on them; used as they are, but
        averaged over the patches of the grid where they are finer.
    causal : bool, optional
        Whether the network looks back only. By default the names tell: branches of causal blocks
        are called ``embed.0.0.conv`` in a saved state, others ``embed.0.0``.

    Returns
    -------
    ViSTRegressor
        Fitted, with the parameters of the preset "vist2024" but for ``prior="features"``: movies
        are features of frames, (movies, time, features, rows, columns), such as a
        `v1tlearn.nn.PretrainedViTCore` gives. Responses are in the units of the training.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If this is no mapping from names to arrays.
    ValueError
        If the file is damaged or asks for code to be run; if arrays are missing, have other shapes
        than the rest of the model asks for, hold NaN, or have no place in such a model; if
        receptive fields are missing, of other cells, or not finite; if `causal` is not what the
        names tell.

    References
    ----------
    Wu et al., "Aligning neuronal coding of dynamic visual scenes with foundation vision models",
    ECCV, 2024; code and models at https://github.com/wurining/Vi-ST.
    """
    arrays = read_state(source, "source")
    tensors = arrays.tensors()
    with as_model(arrays.origin):
        published = vist_from_published(tensors, causal=causal)
    estimator = ViSTRegressor.from_preset("vist2024", **_parameters(published))
    estimator._validate_params()
    n_features, grid = published.n_features, published.grid
    fitted = Fitted(
        parameters=estimator._plain_params(),
        mice={_MOUSE: _animal(published, receptive_fields)},
        image_shape=(n_features, grid, grid),
        behavior_mode="none",
        core_columns=[],
    )
    with torch.inference_mode(False), bounded_by(tensors):
        model, state = begin(estimator._recipe(fitted.parameters), fitted)
        model.readout(_MOUSE).network.load_state_dict(published.state_dict())
    return estimator._become(fitted, model, state)


def _parameters(published: ViST) -> dict[str, Any]:
    """Parameters of an estimator with such a network."""
    n_layers = len(published.layers)
    parameters: dict[str, Any] = {
        "prior": "features",
        "backbone": None,
        "image_size": "auto",
        "extractor": "dilated" if n_layers else "none",
        "condition": "receptive_fields" if published.takes_fields else "none",
        "kernels": tuple(map(_kernels, published.blocks)),
        "causal": not published.context_frames[1],
    }
    if n_layers:
        parameters |= {"n_layers": n_layers, "channels": published.read_in.out_channels}
    return parameters


def _kernels(block: torch.nn.Module) -> tuple[int, ...]:
    """Frames of the branches of a block."""
    assert isinstance(block, MultiscaleBlock)
    weights = dict(block.branches.named_parameters())
    return tuple(value.shape[2] for name, value in weights.items() if name.endswith("weight"))


def _animal(published: ViST, fields: Any) -> Mouse:
    statistics: dict[str, Any] = {
        "response_mean": np.zeros(published.n_neurons, np.float32),
        "response_scale": np.ones(published.n_neurons, np.float32),
        "image_mean": 0.0,
        "image_std": 1.0,
    }
    if published.takes_fields:
        if fields is None:
            raise ValueError(
                "the model is conditioned on receptive fields: give receptive_fields, maps of its "
                f"{published.n_neurons} neurons, (neurons, rows, columns), as it was trained with."
            )
        statistics["receptive_field"] = np.array(fields, dtype=np.float32)  # the readout checks it
    elif fields is not None:
        raise ValueError(
            "receptive_fields came, but the model has no arrays 'adaln...', by which it would be "
            "conditioned on them: leave them out."
        )
    return Mouse(published.n_neurons, None, [], None, {}, statistics)

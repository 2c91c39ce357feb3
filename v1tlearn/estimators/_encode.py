"""From a fitted model and trials to predicted responses: batches, precision, order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from v1tlearn.estimators import _tensors
from v1tlearn.training import numerics, predict_mouse, resolve_precision
from v1tlearn.trials import Trials

if TYPE_CHECKING:
    from v1tlearn.estimators.base import EncodingRegressor


def predict(
    estimator: EncodingRegressor, trials: Trials, *, activate: bool = True
) -> dict[str, np.ndarray]:
    """Predict every mouse of the trials, block by block.

    Parameters
    ----------
    estimator : EncodingRegressor
        Fitted, its module on its device.
    trials : Trials
    activate : bool, default=True
        Apply the output non-linearity.

    Returns
    -------
    dict of str to ndarray of shape (n_trials, n_neurons)
        In data units; without `activate` in standardised ones.
    """
    module, device = estimator.module_.eval(), estimator.device_
    precision = resolve_precision(estimator.precision, device, training=False)
    out = {}
    with (
        torch.inference_mode(),
        numerics(precision, device, deterministic=estimator.deterministic),
    ):
        for mouse in trials.mice:
            scale = estimator.statistics_[mouse]["response_scale"] if activate else 1.0
            blocks = []
            for block in trials.blocks(mouse):
                data = _tensors.mouse_data(estimator, block, mouse, None)
                outputs = predict_mouse(
                    module, mouse, data, estimator.batch_size, precision, activate=activate
                )
                blocks.append(outputs.cpu().numpy() * scale)
            out[mouse] = np.concatenate(blocks)
    return out

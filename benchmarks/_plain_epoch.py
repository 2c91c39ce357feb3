"""A plain epoch of training: a loader per mouse that hands out single trials.

The steps are those of `_plain.plain_step`; what an epoch is, and in which order trials come, is as
in the published code.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from _plain import PlainModel, plain_step
from torch import Tensor

import v1tlearn as v1
from v1tlearn.nn import MouseBatch

PUPIL = ("pupil_x", "pupil_y")


class PerTrialArrays(torch.utils.data.Dataset):
    """Trials of one mouse in memory, standardised one by one as they are asked for.

    Parameters
    ----------
    estimator : EncodingRegressor
        Fitted; it knows how recordings are standardised.
    trials : Trials
        With responses, and with behaviour and pupil for the core and the shifters.
    mouse : str
    """

    def __init__(self, estimator: v1.CNNRegressor, trials: v1.Trials, mouse: str) -> None:
        names = list(trials.behavior_names(mouse))
        self.statistics = estimator.statistics_[mouse]
        self.core = [names.index(column) for column in estimator.core_columns_]
        self.pupil = [names.index(column) for column in PUPIL]
        self.images = np.asarray(trials.get("stimuli", mouse), np.float32)
        self.behaviors = np.asarray(trials.get("behaviors", mouse), np.float32)
        self.responses = np.asarray(trials.responses.get(mouse), np.float32)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, trial: int) -> tuple[np.ndarray, ...]:
        """Image, behaviour of the core, pupil and responses of one trial."""
        known = self.statistics
        image = (self.images[trial] - known["image_mean"]) / known["image_std"]
        behavior = (self.behaviors[trial] - known["behavior_shift"]) / known["behavior_scale"]
        response = self.responses[trial] / known["response_scale"]
        parts = (image, behavior[self.core], behavior[self.pupil], response)
        return tuple(np.asarray(part, np.float32) for part in parts)


def plain_epoch(
    model: PlainModel,
    recordings: Mapping[str, PerTrialArrays],
    batch_size: int,
    optimizer: torch.optim.Optimizer,
) -> Tensor:
    """Train once on every trial.

    Parameters
    ----------
    model : PlainModel
        In training mode.
    recordings : dict of str to PerTrialArrays
        Mice with equally many trials.
    batch_size : int
        Trials of each mouse per step.
    optimizer : torch.optim.Optimizer

    Returns
    -------
    Tensor
        Losses of all steps, penalties included; added up.
    """
    device = next(model.parameters()).device
    loaders = [
        torch.utils.data.DataLoader(trials, batch_size, shuffle=True)
        for trials in recordings.values()
    ]
    n_trials = len(next(iter(recordings.values())))
    total = torch.zeros((), device=device)
    for step in zip(*loaders, strict=True):
        batches, targets = {}, {}
        for mouse, values in zip(recordings, step, strict=True):
            image, behavior, pupil, response = (value.to(device) for value in values)
            batches[mouse] = MouseBatch(image, behavior, pupil)
            targets[mouse] = (response, None)
        scale = (n_trials / len(step[0][0])) ** 0.5
        total = total + plain_step(model, batches, targets, optimizer, scale=scale)
    return total

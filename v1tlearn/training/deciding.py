"""What "auto" means in the settings of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from v1tlearn.nn.model import EncodingModel
from v1tlearn.training import memory
from v1tlearn.training.compilation import resolve_compile
from v1tlearn.training.data import MouseData, n_steps
from v1tlearn.training.objectives import Objective
from v1tlearn.training.settings import TrainingSettings


def resolve_settings(
    model: EncodingModel,
    objective: Objective,
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
) -> TrainingSettings:
    """Decide what "auto" means for this model, data and device.

    Parameters
    ----------
    model : EncodingModel
        On its device.
    objective : Objective
    data : dict of str to MouseData
        Training trials per mouse.
    settings : TrainingSettings

    Returns
    -------
    TrainingSettings
        With numbers and truth values in place of "auto".

    Raises
    ------
    ValueError
        If a micro-batch size was given that would change the result, or compilation is asked for
        without a compiler.
    """
    device = next(iter(data.values())).device
    lengths = {mouse: len(trials) for mouse, trials in data.items()}
    steps = settings.max_epochs * n_steps(lengths, settings.batch_size)
    fast = resolve_compile(settings.compile, model.core, device, steps)
    return memory.plan(model, objective, data, replace(settings, compile=fast))

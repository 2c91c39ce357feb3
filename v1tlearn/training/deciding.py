"""What "auto" means in the settings of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from v1tlearn.nn.model import EncodingModel
from v1tlearn.training import memory
from v1tlearn.training.compilation import resolve_compile
from v1tlearn.training.data import MouseData, n_steps
from v1tlearn.training.objectives import Objective, is_shared
from v1tlearn.training.ranks import ALONE, Ranks
from v1tlearn.training.settings import TrainingSettings


def resolve_settings(
    model: EncodingModel,
    objective: Objective,
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
    ranks: Ranks = ALONE,
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
    ranks : Ranks, optional
        The processes that share batches, where these can be cut into parts.

    Returns
    -------
    TrainingSettings
        With numbers and truth values in place of "auto".

    Raises
    ------
    ValueError
        If a micro-batch size was given that would change the result, compilation is asked for
        without a compiler, or for a core with batch normalisation that several processes train, or
        a batch has fewer trials than there are processes.
    """
    device = next(iter(data.values())).device
    lengths = {mouse: len(trials) for mouse, trials in data.items()}
    steps = settings.max_epochs * n_steps(lengths, settings.batch_size)
    ranks = ranks if is_shared(objective) else ALONE
    if settings.batch_size < ranks.size and objective.in_parts:
        raise ValueError(
            f"batch_size={settings.batch_size} trials of each mouse are fewer than the "
            f"{ranks.size} processes that are to share them: start fewer, or set a larger "
            "batch_size."
        )
    wanted = settings.compile
    if ranks.size > 1 and memory.takes_batch_statistics(model):
        if wanted is True:
            raise ValueError(
                f"compile=True: {ranks.size} processes train a core with batch normalisation, and "
                "what they tell each other within it is not compiled. Use compile='auto'."
            )
        wanted = False
    fast = resolve_compile(wanted, model.core, device, steps)
    return memory.plan(
        model, objective, data, replace(settings, compile=fast), processes=ranks.size
    )


def agreed(settings: TrainingSettings, ranks: Ranks) -> TrainingSettings:
    """Settings that suit the process with the least memory.

    Parameters
    ----------
    settings : TrainingSettings
        Resolved.
    ranks : Ranks

    Returns
    -------
    TrainingSettings
        The same in all processes.
    """
    if ranks.size == 1:
        return settings
    once, trials, predicted = ranks.least(
        [
            float(not settings.checkpoint_activations),
            float(settings.micro_batch_size),
            float(settings.prediction_batch_size or settings.batch_size),
        ]
    )
    return replace(
        settings,
        checkpoint_activations=not once,
        micro_batch_size=int(trials),
        prediction_batch_size=int(predicted),
    )

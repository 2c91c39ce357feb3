"""How the model came about: the section about its training."""

from __future__ import annotations

from typing import Any

import numpy as np

from v1tlearn._models import last_step, short_name
from v1tlearn.inspection._drawing import axes_for
from v1tlearn.inspection.colors import model_color
from v1tlearn.inspection.reports._asking import asked
from v1tlearn.inspection.reports._parts import Absent, Section
from v1tlearn.inspection.reports._pictures import picture
from v1tlearn.inspection.training import TrainingDisplay

_TOP1 = "validation_top1"  # by which alignments are judged


def training_section(estimator: Any) -> Section:
    """Draw losses and validation scores by epoch.

    Parameters
    ----------
    estimator : estimator

    Returns
    -------
    Section
    """
    section = Section("training", "Training")
    history = getattr(last_step(estimator), "history_", [])
    if history and "loss" in history[0] and any(_TOP1 in record for record in history):
        figure = _alignment_curves(history, model_color(short_name(estimator)))
        told = "Loss, and share of the validation trials whose image is found, by epoch."
        section.parts.append(picture(figure, told, told))
        return section
    shown = asked("training curves", TrainingDisplay.from_estimator, estimator)
    if isinstance(shown, Absent):
        section.parts.append(shown)
        return section
    told = "Losses and, where there was validation, its correlation, by epoch."
    section.parts.append(picture(shown.figure_, told, told))
    return section


def _alignment_curves(history: list[dict[str, float]], color: str) -> Any:
    axes, figure = axes_for(None, 2, "report", (2, 1), (5.0, 4.8), sharex=True)
    epochs = [record["epoch"] for record in history]
    for axis, key, label, style in (
        (axes[0], "loss", "training", {}),
        (axes[0], "validation_loss", "validation", {"ls": "--"}),
        (axes[1], _TOP1, "validation", {}),
    ):
        values = np.array([record.get(key, np.nan) for record in history])
        axis.plot(epochs, values, color=color, lw=1.5, label=label, **style)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("contrastive loss")
    axes[0].legend(frameon=False, fontsize="small")
    axes[1].set(ylabel="share of validation\nimages found", xlabel="epoch")
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    return figure

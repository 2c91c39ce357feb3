"""Predictions that displays are given: of which mouse, and of the same trials as the responses."""

from __future__ import annotations

from collections.abc import Mapping

from v1tlearn._models import by_text
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials._arithmetic import check_alike


def one_mouse(view: Trials | Responses, mouse_id: str | None) -> str:
    """Name of the mouse that is asked for, or of the only one."""
    mice = view.mice
    if mouse_id is None and len(mice) > 1:
        raise ValueError(f"there are the mice {mice}: name one, mouse_id={mice[0]!r}.")
    mouse = mice[0] if mouse_id is None else str(mouse_id)
    if mouse not in mice:
        raise ValueError(f"unknown mouse {mouse!r}: the trials are of {mice}.")
    return mouse


def models_alike(
    y_true: Responses, predictions: Responses | Mapping[str, Responses], display: str
) -> dict[str, Responses]:
    """Predictions per model, whose trials and neurons are those of the responses."""
    if isinstance(predictions, Responses):
        predictions = {"model": predictions}
    models = by_text("predictions", predictions)
    for name, values in [("y_true", y_true), *models.items()]:
        if not isinstance(values, Responses):
            raise TypeError(
                f"{name} is a {type(values).__name__}: expected Responses, as trials.responses "
                f"and predict(trials) give them; arrays go to {display}(...)."
            )
        try:
            check_alike(y_true, values)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return models

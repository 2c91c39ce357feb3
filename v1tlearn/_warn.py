"""Warnings that point at the caller's line, however deep in the package they arise."""

from __future__ import annotations

import sys
import warnings

# What may lie on the way: of joblib and Optuna where fits are tasks of this process.
_BETWEEN = (
    *("v1tlearn.", "torch.", "contextlib", "joblib.", "optuna."),
    *("sklearn.callback.", "sklearn.utils."),
)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the first line outside the package."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)

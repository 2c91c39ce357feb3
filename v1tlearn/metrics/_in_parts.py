"""The single-trial correlation of predictions that come in parts and are never held together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from v1tlearn.metrics._arrays import arrays_by_mouse, there
from v1tlearn.metrics._evaluate import _mean, _warn_of_undefined
from v1tlearn.metrics.tensors import CorrelationSums
from v1tlearn.trials import Responses

_ADDED = 2**19  # values that become float64 at once


def correlation_of_parts(parts: Iterable[tuple[Responses, Responses]]) -> float:
    """Correlation per neuron over trials, mean over neurons, then over mice.

    That of `single_trial_correlation`, but for rounding, by sums over trials.

    Parameters
    ----------
    parts : iterable of (Responses, Responses)
        Recorded and predicted responses of some trials after the others; predictions are finite
        where a response was recorded.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If responses are infinite, or a mouse has fewer than two trials.
    """
    sums: dict[str, CorrelationSums] = {}
    n_trials: dict[str, int] = {}
    for mouse, true, pred in _arrays(parts):
        n_trials[mouse] = n_trials.get(mouse, 0) + len(true)
        own = sums.setdefault(mouse, CorrelationSums())
        step = max(1, _ADDED // max(1, true.shape[1]))
        for start in range(0, len(true), step):
            own.add(_tensor(pred[start : start + step]), _tensor(true[start : start + step]))
    for mouse, n in n_trials.items():
        if n < 2:
            raise ValueError(
                f"mouse {mouse!r}: single_trial_correlation needs at least 2 trials, got {n}."
            )
    scores = {mouse: _mean(own.value().numpy()) for mouse, own in sums.items()}
    _warn_of_undefined(scores, "left out of the mean over mice")
    return _mean(np.array(list(scores.values())))


def _arrays(
    parts: Iterable[tuple[Responses, Responses]],
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Responses and predictions of each mouse (n_trials, n_neurons), some after the others."""
    for target, predicted in parts:
        for arrays in arrays_by_mouse(target, predicted):
            if np.isinf(arrays.true).any():
                raise ValueError(
                    f"mouse {arrays.mouse!r}: y_true holds Inf; a response that was not recorded "
                    "is NaN."
                )
            yield arrays.mouse, arrays.true, there(arrays.pred)


def _tensor(values: np.ndarray) -> torch.Tensor:
    kept = values.dtype in (np.float32, np.float64)
    return torch.from_numpy(np.ascontiguousarray(values if kept else values.astype(np.float64)))

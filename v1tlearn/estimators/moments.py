"""Mean and standard deviation of responses over trials, block by block of any that are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from v1tlearn._rounding import rounding_of
from v1tlearn.trials import Responses
from v1tlearn.trials._reading import BLOCK

_BUFFER = 2**16  # numbers that are summed at once: they stay in the cache


class ResponseMoments(NamedTuple):
    """What is known of the responses of one mouse over some trials, in their units.

    Attributes
    ----------
    mean, std : ndarray of shape (n_neurons,)
        Over the trials that were recorded, float64, of the population; NaN for neurons that were
        never recorded, not finite where responses are infinite or their squares too large. The
        standard deviation of neurons that vary by rounding only is 0.
    total : ndarray of shape (n_neurons,)
        Sum; not finite where responses are infinite.
    count : ndarray of shape (n_neurons,)
        Trials that were recorded.
    lowest : float
        The smallest response.
    """

    mean: np.ndarray
    std: np.ndarray
    total: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # of trials, not the method of tuples
    lowest: float


def response_blocks(target: Responses, mouse: str, size: int = BLOCK) -> Iterator[np.ndarray]:
    """Read the responses of one mouse, at most `size` trials at once.

    Parameters
    ----------
    target : Responses
    mouse : str
    size : int

    Yields
    ------
    ndarray of shape (n_trials, n_neurons)
    """
    assert target.n_frames is None  # movies are folded to their frames before
    positions = target.rows(mouse)[0]
    for start in range(0, len(positions), size):
        yield target[positions[start : start + size]].get(mouse)


def moments_in_blocks(blocks: Callable[[], Iterable[np.ndarray]]) -> ResponseMoments:
    """Moments of responses that are passed through twice.

    Rows are added one after the other, so that the sums are those over the whole matrix.

    Parameters
    ----------
    blocks : callable
        Gives arrays (trials, neurons), at least one; NaN where not recorded.

    Returns
    -------
    ResponseMoments
    """
    count: np.ndarray | int = 0
    total: np.ndarray | None = None
    lowest, rounding = np.inf, 0.0
    for part in _parts(blocks()):
        if total is None:
            total = np.zeros(part.shape[1])
            rounding = rounding_of(part.dtype)
        total, recorded = _add(total, part.astype(np.float64), part)
        count = count + (len(part) if recorded is None else recorded.sum(axis=0))
        given = part if recorded is None else part[recorded]
        lowest = min(lowest, given.min()) if given.size else lowest
    assert total is not None  # of at least one block
    counts = np.broadcast_to(count, total.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        n = counts / (counts > 0)
        mean, squares = total / n, np.zeros_like(total)
        for part in _parts(blocks()):
            values = part - mean
            values *= values
            squares, _ = _add(squares, values, part)
        std = np.sqrt(squares / n)
        std[std <= rounding * np.abs(mean)] = 0.0
        return ResponseMoments(mean, std, total, counts, float(lowest))


def _parts(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for block in blocks:
        step = max(1, _BUFFER // max(1, block.shape[1]))
        for start in range(0, len(block), step):
            yield block[start : start + step]


def _add(
    total: np.ndarray, values: np.ndarray, part: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Add rows to a sum; leave out, and tell, what is NaN in `part`, of which they were made."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values of both signs
        added = np.concatenate([total[None], values]).sum(axis=0)
        if not np.isnan(added).any():
            return added, None
        recorded = ~np.isnan(part)
        values = np.where(recorded, values, 0)
        return np.concatenate([total[None], values]).sum(axis=0), recorded

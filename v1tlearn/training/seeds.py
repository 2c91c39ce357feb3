"""One seed out of what scikit-learn calls `random_state`, without touching global generators."""

from __future__ import annotations

import numbers

import numpy as np

RandomState = int | np.random.RandomState | np.random.Generator | None


def draw_seed(random_state: RandomState = None) -> int:
    """Draw one seed for the generators of a run.

    Parameters
    ----------
    random_state : int, RandomState, Generator or None
        An int is the seed itself; a generator is advanced by one draw; None takes fresh entropy
        of the operating system, never numpy's global generator.

    Returns
    -------
    int
        In [0, 2**63).

    Raises
    ------
    ValueError
        If `random_state` is a negative or too large int, or of another type.
    """
    if random_state is None:
        return int(np.random.default_rng().integers(2**63))
    if isinstance(random_state, numbers.Integral) and 0 <= int(random_state) < 2**63:
        return int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**63))
    raise ValueError(
        f"random_state is {random_state!r}; expected None, an int from 0 to 2**63 - 1, a "
        "numpy.random.RandomState or a numpy.random.Generator."
    )

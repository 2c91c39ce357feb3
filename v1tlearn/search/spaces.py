"""What is searched: distributions of parameters, and the spaces of the models.

Nothing here needs Optuna; `_optuna` turns spaces into its distributions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from scipy.stats import loguniform, randint, uniform

Space = dict[str, Any]


@dataclass(frozen=True)
class LogInteger:
    """Integers from `low` to `high`, both included, evenly spread on a logarithmic scale.

    scipy has no such distribution. It works wherever scikit-learn takes one of scipy's.

    Parameters
    ----------
    low, high : int
        Limits, at least 1.

    Raises
    ------
    ValueError
        If the limits are not 1 <= low <= high.

    Examples
    --------
    >>> from v1tlearn.search import LogInteger
    >>> 8 <= LogInteger(8, 1024).rvs(random_state=0) <= 1024
    True
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise ValueError(f"expected 1 <= low <= high, got {self}.")

    def rvs(self, size: Any = None, random_state: Any = None) -> Any:
        """Draw integers.

        Parameters
        ----------
        size : int or tuple of int, optional
            Shape of what is drawn; one integer without it.
        random_state : int, RandomState, Generator or None
            Drives the draw.

        Returns
        -------
        int or ndarray of int
            Between the limits.
        """
        if isinstance(random_state, np.random.RandomState | np.random.Generator):
            rng = random_state
        else:
            rng = np.random.default_rng(random_state)
        drawn = np.exp(rng.uniform(np.log(self.low - 0.5), np.log(self.high + 0.5), size))
        drawn = np.clip(np.rint(drawn).astype(int), self.low, self.high)
        return int(drawn) if size is None else drawn


@dataclass(frozen=True)
class IntegerUpTo:
    """Integers from `low` up to the value that another parameter has in the same trial.

    `HyperbandSearch` takes it as it is. scikit-learn's searches draw every parameter by itself, so
    a space with this goes to them through `scikit_learn_space`, as an error says otherwise.

    Parameters
    ----------
    parameter : str
        The parameter that is the limit, itself one of integers: in the space, or else with its
        value in the estimator.
    low : int, default=1
        The smallest value.

    Examples
    --------
    >>> from scipy.stats import randint
    >>> from v1tlearn.search import IntegerUpTo
    >>> space = {"patch_size": randint(2, 17), "patch_stride": IntegerUpTo("patch_size")}
    """

    parameter: str
    low: int = 1

    def rvs(self, size: Any = None, random_state: Any = None) -> NoReturn:
        """Refuse to draw: scikit-learn's searches find this where they expect a distribution.

        Parameters
        ----------
        size, random_state
            Not used.

        Raises
        ------
        TypeError
            Always, saying what to give scikit-learn's searches.
        """
        raise TypeError(
            f"an integer up to {self.parameter!r} cannot be drawn by itself, as scikit-learn's "
            "searches draw: give them v1tlearn.search.scikit_learn_space(space) in place of the "
            "space. HyperbandSearch takes the space as it is."
        )


V1T_SPACE: Space = {
    "patch_size": randint(2, 17),
    "patch_stride": IntegerUpTo("patch_size"),
    "n_blocks": randint(1, 9),
    "n_heads": randint(2, 17),
    "embed_dim": LogInteger(8, 1024),
    "mlp_dim": LogInteger(8, 1024),
    "patch_dropout": uniform(0, 0.5),
    "attention_dropout": uniform(0, 0.5),
    "mlp_dropout": uniform(0, 0.5),
    "drop_path": uniform(0, 0.5),
    "core_l1": uniform(0, 1),
    "lr": loguniform(1e-4, 1e-1),
}
"""Search space of `V1TRegressor` and `ViTRegressor`: a dict of distributions.

`HyperbandSearch` takes it as it is, scikit-learn's random searches as
``scikit_learn_space(V1T_SPACE)``, since the stride depends on the size of the patch.

Patches of 2 to 16 pixels with strides of 1 to the size of the patch, 135 pairs, are those of Li et
al. (2023). The limits of ``n_blocks``, ``n_heads``, ``embed_dim``, ``mlp_dim``, the dropouts,
``core_l1`` and ``lr`` are those of a search with Hyperband and Bayesian optimisation configured in
the public code of that paper (``sweep_configs/sweep_vit.yaml``); they hold the published final
values, but that file is older than the paper, and they were not compared with its Table A.2.

Our choices are: ``drop_path``, which that file does not have, around the published final value of
0; ``lr`` on a logarithmic scale, there linear; ``embed_dim`` and ``mlp_dim`` in steps of 1, there
of 8, which the published ``embed_dim`` of 155 does not fit; and dropouts of attention and of the
MLP apart, there one value. That search also varied the shifter and its penalty, how behaviour
enters, and the learning rate of the core.
"""

CNN_SPACE: Space = {
    "n_layers": randint(2, 7),
    "hidden_channels": LogInteger(8, 128),
    "input_kernel": [5, 7, 9, 11, 13],
    "hidden_kernel": [3, 5, 7, 9],
    "laplace": loguniform(1e-1, 1e2),
    "readout_l1": loguniform(1e-4, 1e-1),
    "lr": loguniform(1e-3, 3e-2),
}
"""Search space of `CNNRegressor` and `LNRegressor`: a dict of distributions.

`HyperbandSearch` and scikit-learn's random searches take it as it is.
All of it is our choice around the published final values; no published search space was found.
"""


def scikit_learn_space(space: Mapping[str, Any]) -> list[Space]:
    """Write a space such that scikit-learn's random searches can draw from it.

    A parameter that is the limit of another, see `IntegerUpTo`, is written out, one dict for each
    of its values. scikit-learn draws a dict, each as likely, and then from its distributions.

    Parameters
    ----------
    space : dict
        Distributions and lists by parameter.

    Returns
    -------
    list of dict
        For ``param_distributions`` of `RandomizedSearchCV` and `HalvingRandomSearchCV`.

    Raises
    ------
    ValueError
        If a limit is not in the space, or its values cannot be enumerated.

    Examples
    --------
    >>> from v1tlearn.search import V1T_SPACE, scikit_learn_space
    >>> spaces = scikit_learn_space(V1T_SPACE)
    >>> len(spaces), spaces[6]["patch_size"], int(spaces[6]["patch_stride"].support()[1])
    (15, [8], 8)
    """
    spaces = [dict(space)]
    for limit in dict.fromkeys(d.parameter for d in space.values() if isinstance(d, IntegerUpTo)):
        bounded = {
            name: distribution
            for name, distribution in space.items()
            if isinstance(distribution, IntegerUpTo) and distribution.parameter == limit
        }
        values = _values(space, limit, next(iter(bounded)))
        spaces = [
            {
                **one,
                limit: [value],
                **{name: randint(d.low, value + 1) for name, d in bounded.items()},
            }
            for one in spaces
            for value in values
        ]
    return spaces


def _values(space: Mapping[str, Any], limit: str, bounded: str) -> list[int]:
    """All values of a parameter that limits another."""
    if limit not in space:
        raise ValueError(
            f"{bounded!r} goes up to {limit!r}, which is not in the space: add {limit!r}, or give "
            f"{bounded!r} a distribution of its own."
        )
    found = space[limit]
    if isinstance(found, list | tuple | np.ndarray):
        return [int(value) for value in found]
    if getattr(getattr(found, "dist", None), "name", None) == "randint":
        low, high = found.support()
        return list(range(int(low), int(high) + 1))
    raise ValueError(
        f"{bounded!r} goes up to {limit!r}, whose values cannot be enumerated: expected a list of "
        f"integers or scipy.stats.randint, got {found!r}."
    )

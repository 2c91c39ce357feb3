"""Hyper-parameter search: Hyperband with TPE, and the search spaces of the models."""

from v1tlearn.search.hyperband import HyperbandSearch
from v1tlearn.search.spaces import (
    CNN_SPACE,
    V1T_SPACE,
    IntegerUpTo,
    LogInteger,
    scikit_learn_space,
)

__all__ = [
    "HyperbandSearch",
    "V1T_SPACE",
    "CNN_SPACE",
    "LogInteger",
    "IntegerUpTo",
    "scikit_learn_space",
]

"""Weights of pretrained transformers under the names that the library of today gives them.

Versions of transformers call the same weights otherwise, and a model is saved with names of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

_Value = TypeVar("_Value")

# What parts of a block have been called, and what stands for all of these names.
_CALLED = [
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.(?:(?:model|encoder)\.)*layers?\.(?=\d)", ".layers."),
]


def renamed(weights: Mapping[str, _Value], known: Iterable[str]) -> dict[str, _Value]:
    """Give weights the names of today.

    Parameters
    ----------
    weights : dict of str to Tensor
        Under names of any version.
    known : iterable of str
        Names of today, of all weights of a model.

    Returns
    -------
    dict of str to Tensor
        Those that no name of today stands for keep theirs.
    """
    names = set(known)
    today = {_common(name): name for name in names - weights.keys()}
    return {
        name if name in names else today.get(_common(name), name): value
        for name, value in weights.items()
    }


def _common(name: str) -> str:
    for pattern, common in _CALLED:
        name = re.sub(pattern, common, name)
    return name

"""The order of mice that a training goes by, whatever the order of a dict is."""

from __future__ import annotations

import re
from typing import TypeVar

import numpy as np

from v1tlearn.trials._view import View

V = TypeVar("V", bound=View)


def in_order_of_names(view: V) -> V:
    """Give the same trials in the same order, with their mice in the order of their names."""
    given = list(view._recordings)
    ordered = sorted(given, key=_by_name)
    if ordered == given:
        return view
    index = view._index.copy()
    index[:, 0] = np.array([ordered.index(mouse) for mouse in given])[index[:, 0]]
    recordings = {mouse: view._recordings[mouse] for mouse in ordered}
    return view._copy(_recordings=recordings, _index=index)


def _by_name(mouse: str) -> tuple[list[tuple[int, str]], str]:
    """Text by its letters, numbers in it by their size: "2" and "m2" ahead of "10" and "m10"."""
    parts = re.split(r"([0-9]+)", mouse)
    sized = [(len(part), part) for part in (digits.lstrip("0") for digits in parts[1::2])]
    texts = [(0, text) for text in parts[::2]]
    return [part for pair in zip(texts, [*sized, (0, "")], strict=True) for part in pair], mouse

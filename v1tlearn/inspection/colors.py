"""The colours of the models, the same in every figure of the project."""

from __future__ import annotations

import re
from collections.abc import Iterable
from zlib import crc32

MODEL_COLORS = {
    "LN": "#999999",
    "CNN": "#0072b2",
    "ViT": "#009e73",
    "V1T": "#d55e00",
    "ensemble": "#cc79a7",
    "oracle": "#000000",
    "recorded": "#4d4d4d",
}
"""Colours that colour-blind readers tell apart (Wong, "Points of view", Nature Methods, 2011)."""

# For names of your own: what that palette has left, and others of Tol's (2021) far from all those.
_OTHERS = ("#56b4e9", "#e69f00", "#882255", "#44aa99", "#332288", "#b8a000", "#661100", "#6699cc")

_LIGHTEST = 0.65  # share of white in the lightest of several shades


def model_color(name: str, others: Iterable[str] = ()) -> str:
    """Colour of a model in every figure.

    Parameters
    ----------
    name : str
        "V1T", "V1TRegressor" or any text that begins with the name of a model, such as
        "CNN, 64 channels"; or a name of your own, whose colour is always the same, too.
    others : iterable of str, default=()
        All the names in the figure, in their order: no two names of your own get one colour, as
        long as there are enough.

    Returns
    -------
    str
        As matplotlib takes it.

    Examples
    --------
    >>> from v1tlearn.inspection import model_color
    >>> model_color("V1TRegressor") == model_color("V1T, 4 blocks")
    True
    >>> model_color("my model") == model_color("ours", ["my model", "ours"])
    False
    """
    if known := _known(name):
        return MODEL_COLORS[known]
    own = [other for other in dict.fromkeys([*others, name]) if not _known(other)]
    taken: dict[int, str] = {}
    for other in own:
        free = [i for i in range(len(_OTHERS)) if i not in taken] or range(len(_OTHERS))
        # its own colour, or where that is taken the next free one
        wanted = crc32(other.encode()) % len(_OTHERS)
        place = min(free, key=lambda i: (i - wanted) % len(_OTHERS))
        if other == name:
            return _OTHERS[place]
        taken[place] = other
    raise AssertionError  # `own` ends with the name


def figure_colors(names: Iterable[str]) -> dict[str, str]:
    """Colours of everything in one figure: shades where several bear the name of one model.

    Parameters
    ----------
    names : iterable of str
        In the order of the figure.

    Returns
    -------
    dict of str to str
    """
    names = list(dict.fromkeys(names))
    out = {name: model_color(name, names) for name in names}
    for known in MODEL_COLORS:
        same = [name for name in names if _known(name) == known]
        out |= dict(zip(same, shades(MODEL_COLORS[known], len(same)), strict=True))
    return out


def shades(color: str, n: int) -> list[str]:
    """Shades of a colour, itself first, then lighter and lighter.

    Parameters
    ----------
    color : str
        "#rrggbb".
    n : int

    Returns
    -------
    list of str
    """
    levels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    white = [_LIGHTEST * i / max(n - 1, 1) for i in range(n)]
    return [
        "#" + "".join(f"{round(level + (255 - level) * share):02x}" for level in levels)
        for share in white
    ]


def _known(name: str) -> str | None:
    """The model whose name the text begins with, as a word of its own."""
    for known in MODEL_COLORS:
        if re.match(rf"{re.escape(known)}(?:regressor)?(?![a-z])", name, re.IGNORECASE):
            return known
    return None

"""The colours of the models, the same in every figure of the project."""

from __future__ import annotations

MODEL_COLORS = {
    "LN": "#999999",
    "CNN": "#0072b2",
    "ViT": "#009e73",
    "V1T": "#d55e00",
    "ensemble": "#cc79a7",
    "oracle": "#000000",
}
"""Colours that colour-blind readers tell apart (Wong, "Points of view", Nature Methods, 2011)."""

_OTHERS = ("#56b4e9", "#e69f00", "#f0e442")  # what that palette has left, for names of your own


def model_color(name: str, others: tuple[str, ...] = ()) -> str:
    """Colour of a model in every figure.

    Parameters
    ----------
    name : str
        "V1T", "V1TRegressor" or any text that begins with the name of a model, such as
        "CNN, 64 channels".
    others : tuple of str, default=()
        All the names in the figure that are no models' names, so that each gets its own colour.

    Returns
    -------
    str
        As matplotlib takes it.

    Examples
    --------
    >>> from v1tlearn.inspection import model_color
    >>> model_color("V1TRegressor") == model_color("V1T, 4 blocks")
    True
    """
    for known, color in MODEL_COLORS.items():
        if name.lower().startswith(known.lower()):
            return color
    return _OTHERS[others.index(name) % len(_OTHERS) if name in others else 0]

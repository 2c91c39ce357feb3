"""Figures as pictures within a page, alike whatever the settings of the session."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from v1tlearn.inspection._drawing import pyplot
from v1tlearn.inspection.reports._parts import Picture

_PER_INCH = 100  # pixels of the page
_SHARPNESS = 2  # pixels of the picture per pixel of the page


@contextmanager
def plain_figures() -> Iterator[Any]:
    """Draw by the defaults of matplotlib, show nothing, and take text as it is.

    Yields
    ------
    module
        matplotlib.pyplot
    """
    plt = pyplot("report")
    with plt.ioff(), plt.style.context("default"), plt.rc_context({"text.parse_math": False}):
        yield plt


def picture(figure: Any, alt: str, caption: str = "") -> Picture:
    """Turn a figure into a picture, and close it.

    Parameters
    ----------
    figure : Figure
    alt, caption : str

    Returns
    -------
    Picture
    """
    plt = pyplot("report")
    width, height = (round(side * _PER_INCH) for side in figure.get_size_inches())
    file = io.BytesIO()
    plain = {"Software": None}  # which would tell the version
    figure.savefig(file, format="png", dpi=_PER_INCH * _SHARPNESS, metadata=plain)
    plt.close(figure)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(data, alt, width, height, caption)

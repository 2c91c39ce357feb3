"""What a page is made of: sections with texts, tables and pictures; all plain text, not HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes
    ----------
    heads : sequence of str
    rows : sequence of sequence of str
        Their first cell names the row.
    caption : str
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    kind: str = "table"


@dataclass(frozen=True)
class Picture:
    """A figure as a file within the page.

    Attributes
    ----------
    data : str
        PNG in base64, two pixels per pixel of the page.
    alt : str
        What is to be seen, for those who do not.
    width, height : int
        In pixels of the page.
    caption : str
    """

    data: str
    alt: str
    width: int
    height: int
    caption: str = ""
    kind: str = "picture"


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes
    ----------
    text : str
    """

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Absent:
    """Why something is not there.

    Attributes
    ----------
    what : str
    reason : str
        What the analysis said.
    """

    what: str
    reason: str
    kind: str = "absent"


@dataclass(frozen=True)
class Markup:
    """HTML of another library, which escapes what it is given.

    Attributes
    ----------
    html : str
    """

    html: str
    kind: str = "markup"


Part = Table | Picture | Text | Absent | Markup


@dataclass
class Section:
    """A part of the page with a title of its own.

    Attributes
    ----------
    name : str
        For links.
    title : str
    parts : list of Part
    warnings : list of str
        Of the analyses.
    """

    name: str
    title: str
    parts: list[Part] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def number(value: float) -> str:
    """Write a number in three digits, or a dash where it is unknown.

    Parameters
    ----------
    value : float

    Returns
    -------
    str
    """
    return "–" if value != value else f"{value:z.3f}".replace("-", "−")


def counted(n: int, one: str, several: str = "") -> str:
    """Write a number of things.

    Parameters
    ----------
    n : int
    one : str
        Their name, as of one.
    several : str, optional
        As of several; by default with an s.

    Returns
    -------
    str
    """
    return f"{n} {one}" if n == 1 else f"{n} {several or one + 's'}"

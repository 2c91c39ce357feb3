"""A page about a model: how its parts become HTML, and how it is kept and shown."""

from __future__ import annotations

import html
import os
import webbrowser
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import jinja2
from markupsafe import Markup

from v1tlearn._replacing import make_folder, replacing
from v1tlearn.inspection.reports._parts import Absent, Picture, Section

_MARK = "v1tlearn report"  # by which a page is known as one
_BEGIN = 4096  # characters within which the mark is looked for
_SHOWN_HEIGHT = 800  # pixels, in notebooks


class Report:
    """A page about a fitted model, of which all is in one file.

    `v1tlearn.inspection.report` makes one.

    Parameters
    ----------
    html : str
        The page.
    absent : dict of str to str
        Per analysis that has no meaning for the model what it said.

    Examples
    --------
    >>> from v1tlearn.inspection import Report
    >>> Report("<!DOCTYPE html><title>A page</title>", {})
    <Report: 36 characters>
    """

    def __init__(self, html: str, absent: dict[str, str]) -> None:
        self.html, self.absent = html, absent

    def save(self, path: str | os.PathLike) -> None:
        """Write the page into a file.

        Parameters
        ----------
        path : str or path
            Such as "model.html"; an earlier report there is replaced when the new one is fully
            written.

        Raises
        ------
        FileExistsError
            If something that is no report is in the way.
        """
        path = Path(path)
        check_free(path)
        make_folder(path.parent)
        with replacing(path) as new:
            new.write_text(self.html, encoding="utf-8", newline="\n")

    def open_in_browser(self, path: str | os.PathLike) -> None:
        """Save the page, and open it in the browser.

        Parameters
        ----------
        path : str or path
            As of `save`.
        """
        self.save(path)
        webbrowser.open(Path(path).resolve().as_uri())

    def __repr__(self) -> str:
        return f"<Report: {len(self.html)} characters>"

    def _repr_html_(self) -> str:
        """Show the page in a notebook, in a frame of its own."""
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" width="100%" height="{_SHOWN_HEIGHT}" '
            'style="border: 0" title="Report of a fitted model"></iframe>'
        )


def check_free(path: Path) -> None:
    """Check that a report may be written to a place.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FileExistsError
        If something that is no report is in the way.
    """
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            if f'<meta name="generator" content="{_MARK}' in file.read(_BEGIN):
                return
    if path.exists():
        raise FileExistsError(
            f"{path} exists and is no report: choose another path, or remove it first."
        )


def rendered(title: str, lead: str, sections: Sequence[Section]) -> Report:
    """Make a page of its parts.

    Parameters
    ----------
    title, lead : str
    sections : sequence of Section

    Returns
    -------
    Report
    """
    here = resources.files(__package__)
    # undefined names are faults, not gaps
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((here / "page.html.jinja").read_text(encoding="utf-8"))
    parts = [part for section in sections for part in section.parts]
    pictures = [part for part in parts if isinstance(part, Picture)]
    page = template.render(
        title=title,
        lead=lead,
        sections=sections,
        generator=f"{_MARK}, version {version('v1tlearn')}",
        style=Markup((here / "page.css").read_text(encoding="utf-8")),
        unescaped=Markup,
        n_pictures=len(pictures),
        megabytes=f"{sum(len(one.data) for one in pictures) / 1e6:.1f}",
    )
    return Report(page, {part.what: part.reason for part in parts if isinstance(part, Absent)})

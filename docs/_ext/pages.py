"""What pages show beyond what Sphinx, autodoc and numpydoc make of them.

Models have some 45 parameters: their lists get a heading per group, after the groups that the
package itself has, and their signatures, as long as the lists, are left out. "Edit this page" leads
to the file that a page is made from, which is not the page's own where it is generated.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]


def methods_of(found: type) -> list[str]:
    """Public methods and properties that this package wrote, in the order of their writing.

    Without those that scikit-learn adds, and fitted attributes, which the docstring lists.
    """
    names = {}
    for base in found.__mro__:
        if base.__module__.startswith("v1tlearn"):
            for name, member in vars(base).items():
                shown = isinstance(member, property) or inspect.isroutine(member)
                if shown and not (name.startswith("_") or name.endswith(("_", "_request"))):
                    names[name] = None
    return sorted(names, key=lambda name: name != "fit")  # which comes first


def add_methods(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list) -> None:
    """Put a table of the methods ahead of the parameters, a line for each."""
    if what != "class" or ":Parameters:" not in lines or not (names := methods_of(found)):
        return
    table = [".. rubric:: Methods", "", ".. autosummary::", "   :nosignatures:", ""]
    table += [f"   ~{found.__name__}.{method}" for method in names]
    at = lines.index(":Parameters:")
    lines[at:at] = [*table, ""]


def add_headings(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list) -> None:
    """Put a heading before the first parameter of each group, and links to all ahead of them."""
    groups = getattr(found, "_parameter_groups", None)
    if what != "class" or groups is None:
        return
    label = found.__name__.lower()
    links = " · ".join(f"`{group} <#{label}-{group}>`__" for group in groups)
    for group, names in groups.items():
        start = re.compile(rf"( *)\*\*{names[0]}\b")
        (at,) = (i for i, line in enumerate(lines) if start.match(line))
        indent = start.match(lines[at])[1]
        heading = [".. rubric:: " + group.capitalize(), f"   :name: {label}-{group}"]
        heading += ["   :class: parameter-group"]
        if group == next(iter(groups)):
            heading = [links, "", *heading]
        lines[at:at] = [*((indent + line).rstrip() for line in heading), ""]
    # the overview is for `help`, which has no headings
    whole = "\n".join(lines)
    whole = re.sub(r"Parameters come in groups:.*?\.\n\n", "", whole, count=1, flags=re.DOTALL)
    lines[:] = whole.split("\n")


def shorten_signature(
    app: Sphinx, what: str, name: str, found: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Replace the signature of a class whose parameters come in groups."""
    if what == "class" and hasattr(found, "_parameter_groups"):
        return "(**parameters)", returns
    return None


def source_of(page: str) -> Path:
    """File that a page is made from, relative to the root of the repository."""
    folder, _, name = page.rpartition("/")
    if folder.startswith("auto_examples"):
        file = "GALLERY_HEADER.rst" if name == "index" else f"{name}.py"
        return Path("examples", *Path(folder).parts[1:], file)
    if folder == "generated":
        module, _, attribute = name.rpartition(".")
        found = getattr(importlib.import_module(module), attribute)
        return Path(inspect.getsourcefile(inspect.unwrap(found))).relative_to(ROOT)
    whole = {"changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
    return Path(whole[page]) if page in whole else Path("docs", f"{page}.rst")


def link_to_source(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Let "Edit this page" lead to the source."""
    if doctree is None or page.rpartition("/")[2].startswith("sg_"):  # no file
        context["theme_use_edit_page_button"] = False
        return
    url = f"{app.config.html_context['repository']}/edit/main/{source_of(page).as_posix()}"
    context["get_edit_provider_and_url"] = lambda: ("GitHub", url)


def fill_in_addresses(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the repository's address, which stands in one place, into pages and their code."""
    source[0] = source[0].replace("REPOSITORY_URL", app.config.html_context["repository"])


def mark_options(app: Sphinx, doctree: Any) -> None:
    """Mark options of commands, which browsers would cut behind one of their hyphens."""
    for literal in doctree.findall(lambda node: node.tagname == "literal"):
        if literal.astext().startswith("--") and len(literal.astext()) <= 20:
            literal["classes"].append("option")


def skip_fitted(
    app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out fitted attributes, which the docstrings of estimators list."""
    return True if isinstance(member, property) and name.endswith("_") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the above, after numpydoc and the theme."""
    app.connect("autodoc-skip-member", skip_fitted)
    app.connect("autodoc-process-docstring", add_methods, priority=800)
    app.connect("autodoc-process-docstring", add_headings, priority=900)
    app.connect("autodoc-process-signature", shorten_signature, priority=900)
    app.connect("source-read", fill_in_addresses)
    app.connect("doctree-read", mark_options)
    app.connect("html-page-context", link_to_source, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

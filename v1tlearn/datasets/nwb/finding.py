"""What an NWB file holds, by name: one of a kind is found, several are listed in an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from v1tlearn.datasets.nwb.opening import refuse


def name_of(container: Any) -> str:
    """Where something stands in the file, "ophys/DfOverF/plane_1".

    Parameters
    ----------
    container : container of pynwb

    Returns
    -------
    str
    """
    parts: list[str] = []
    while container.parent is not None:
        parts.insert(0, container.name)
        container = container.parent
    return "/".join(parts)


def choose(
    path: Path, what: str, candidates: Mapping[str, Any], wanted: str | None, argument: str
) -> tuple[str, Any]:
    """Give the candidate of a name, or the only one.

    Parameters
    ----------
    path : Path
    what : str
        What is looked for, in errors.
    candidates : mapping of str to container
        By what `name_of` gives.
    wanted : str or None
        A name, or the end of one that no other ends in.
    argument : str
        By which it is chosen, in errors.

    Returns
    -------
    tuple of str and container
    """
    if wanted is None:
        found = list(candidates)
    else:
        ends = [name for name in candidates if name == wanted or name.endswith(f"/{wanted}")]
        found = [wanted] if wanted in candidates else ends
    if len(found) == 1:
        return found[0], candidates[found[0]]
    listed = ", ".join(map(repr, sorted(candidates)))  # a file has no order
    if not candidates:
        refuse(path, f"there are no {what}", f"one, or another {argument}")
    if wanted is None:
        refuse(path, f"there are several {what}, {listed}", f"the name of one: pass {argument}=")
    said = f"fits {', '.join(map(repr, sorted(found)))}" if found else "is not there"
    refuse(path, f"{argument} {wanted!r} {said}; the {what} are {listed}", "the name of one")

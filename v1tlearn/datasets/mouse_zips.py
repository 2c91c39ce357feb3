"""Downloads of data sets that have a zip for each mouse, which a letter names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from v1tlearn.datasets.addresses import address_and_name, asked_for


@dataclass(frozen=True)
class MouseZip:
    """Where the zip of a mouse is found."""

    key: str  # data key of the mouse
    name: str  # of the zip
    folder_url: str


def fetch_zips(
    dataset: str,
    known: Mapping[str, MouseZip],
    mice: str | Sequence[str],
    cache_dir: str | os.PathLike | None,
    base_url: str | None,
    files: Mapping[str, str] | None,
    *options: Any,
) -> list[Path]:
    """Download the zips of mice, {letter: zip}, in the order in which they are asked for.

    The dataset names the folder in the cache, and the variable with a mirror's address.
    """
    from v1tlearn.datasets.download import data_folder, download

    base_url = base_url or os.environ.get(f"V1TLEARN_{dataset.upper()}_URL")
    asked = _files(mice, known, base_url, files)
    return download(asked, data_folder(cache_dir, dataset), *options)


def _files(
    mice: str | Sequence[str],
    known: Mapping[str, MouseZip],
    base_url: str | None,
    files: Mapping[str, str] | None,
) -> dict[str, tuple[str, str]]:
    """Return {data key: (address, file name)} of the mice asked for, in their order."""
    names = {one.key: one.name for one in known.values()} | dict(files or {})
    folders = {one.key: one.folder_url for one in known.values()}
    letters = {letter: one.key for letter, one in known.items()}
    elsewhere = base_url or next(iter(folders.values()))  # where other mice are
    asked = asked_for(mice)
    keys = list(names) if asked == ["all"] else [letters.get(mouse, mouse) for mouse in asked]
    unknown = [key for key in keys if key not in names]
    if unknown or not keys:
        listed = ", ".join(f"{letter} ({key})" for letter, key in letters.items())
        raise ValueError(
            f"mice holds {', '.join(map(repr, unknown)) or 'nothing'}; expected 'all' or any of "
            f"{listed}: another mouse needs files={{data key: file name or address}}"
        )
    found: dict[str, tuple[str, str]] = {}
    for key in keys:
        url, name = address_and_name(key, names[key], base_url or folders.get(key, elsewhere))
        for other, (_, taken) in found.items():
            if taken == name and other != key:
                raise ValueError(
                    f"the zips of the mice {other!r} and {key!r} are both called {name!r}, so that "
                    "one would be taken for the other; fetch them into two cache_dir"
                )
        found[key] = url, name
    return found

"""Files of recordings that a reader is given: their paths, and what the mice are called."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from v1tlearn._instead import path_of


def paths_of(responses: Any, reader: str) -> list[Path]:
    """Paths of one or several files, for the reader of a name; they need not be there."""
    if isinstance(responses, Mapping):
        raise TypeError(
            f"responses is a {type(responses).__name__}: expected a sequence of paths. The call is "
            f"{reader}(list(paths.values()), images, names=list(paths))."
        )
    several = isinstance(responses, Iterable) and not isinstance(responses, str | os.PathLike)
    given = list(responses) if several else [responses]
    if not given:
        raise ValueError("no paths given; expected at least one file of responses")
    call = f"{reader}(responses, images)"
    return [Path(path_of("responses", one, call)) for one in given]


def mouse_names(found: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """Names of the mice: those given, or else those found, and no two alike."""
    mice = list(found) if names is None else [str(name) for name in names]
    if isinstance(names, str) or len(mice) != len(found) or len(set(mice)) != len(mice):
        raise ValueError(
            f"the {len(found)} recordings are called {mice}; expected a name for each, and no two "
            "alike: pass names=[...]"
        )
    return mice


def check_there(paths: Iterable[Path], layout: str) -> None:
    """Raise FileNotFoundError for the first that is missing."""
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: expected a file of {layout}.")

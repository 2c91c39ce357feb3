"""The files below a folder, read by number: the same doors as those of a zip in zip_files.py."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn._opening import check_plain, content_of, read_plain


class FolderFiles:
    """The files below a folder, in whatever case their names are written."""

    def __init__(self, root: Path):
        self.root = Path(os.path.abspath(root))

    def __str__(self) -> str:
        return str(self.root)

    def listdir(self, folder: str) -> list[str]:
        """Return the names of files in `folder`, hidden ones left out; none if it is missing."""
        path = find_entry(self.root, folder)
        try:
            entries = [] if path is None else list(os.scandir(path))
        except NotADirectoryError:
            return []
        return [entry.name for entry in entries if not is_junk(entry.name)]

    def read(self, name: str) -> bytes | None:
        """Return the content of one file, None if it is missing."""
        path = find_entry(self.root, name)
        return None if path is None else read_plain(path)

    def fingerprint(self) -> str:
        """Return a text that changes with the names, sizes or times of the files."""
        found = []
        for folder in filter(None, (find_entry(self.root, name) for name in ("data", "meta"))):
            for parent, _, names in os.walk(folder, followlinks=True):
                for name in names:
                    path = os.path.join(parent, name)
                    found.append(f"{path[len(str(self.root)) :]}\0{_state(path)}")
        config = self.read("config.json") or b""
        text = "\n".join(sorted(found)).encode("utf-8", "surrogateescape")
        return hashlib.sha256(text + config).hexdigest()

    def members(self, folder: str, names: Sequence[str]) -> FolderMembers:
        """Return a reader of the files `names` of `folder`, by number."""
        path = find_entry(self.root, folder) or self.root / folder
        asked = set(names)
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name in asked and not entry.is_file():
                    check_plain(entry.path)  # once here, not whenever one is read
        return FolderMembers(str(path), tuple(names))


@dataclass(frozen=True)
class FolderMembers:
    """Files of a folder, read by their number in `names`."""

    folder: str
    names: tuple[str, ...]

    def __getstate__(self) -> dict[str, Any]:
        """Pickles differ where files do, for those who compare them, as joblib's Memory does."""
        states = "\n".join(_state(self.where(number)) for number in range(len(self.names)))
        return {**self.__dict__, "state": hashlib.sha256(states.encode()).hexdigest()}

    def shares(self, numbers: np.ndarray, n_shares: int) -> list[np.ndarray]:
        """Split positions in `numbers` into parts of about equal size."""
        return [part for part in np.array_split(np.arange(len(numbers)), n_shares) if len(part)]

    def read_many(self, numbers: np.ndarray) -> Iterator[tuple[int, bytes]]:
        """Yield (position in `numbers`, content) of files."""
        for position, number in enumerate(numbers.tolist()):
            yield position, content_of(os.path.join(self.folder, self.names[number]))

    def where(self, number: int) -> str:
        """Return the path of one file."""
        return os.path.join(self.folder, self.names[number])


def _state(path: str) -> str:
    """Give a text that changes with a file; the second time is that of the system alone."""
    try:
        found = os.stat(path)
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def is_junk(name: str) -> bool:
    """Whether a file or folder is of an operating system: hidden, or one of its well-known."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini", "__macosx")


def find_entry(root: Path, name: str) -> Path | None:
    """Return the path of a file or folder below `root`, in whatever case its name is written."""
    path = root
    for part in name.split("/"):
        if not os.path.lexists(path / part):
            try:
                alike = [n for n in os.listdir(path) if n.lower() == part.lower()]
            except (FileNotFoundError, NotADirectoryError):
                return None
            if len(alike) > 1:
                raise ValueError(
                    f"{path} holds {' and '.join(sorted(alike))}, which are both {part}; expected "
                    "one: remove the other"
                )
            if not alike:
                return None
            part = alike[0]
        path = path / part
    return path

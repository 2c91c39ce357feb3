"""The state of a fit after its epochs, in a directory: what a killed one goes on from."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from v1tlearn._paths import MODEL_FILE
from v1tlearn._replacing import alone_in, discard, make_folder, replacing
from v1tlearn._values import without_addresses
from v1tlearn._warn import warn
from v1tlearn.estimators import _files
from v1tlearn.training import Ranks, is_first

logger = logging.getLogger("v1tlearn")

_KEPT = 2
# Parameters that change nothing of what an epoch does.
_FREE = ("max_epochs", "verbose", "n_jobs")


class Checkpoints:
    """States of one fit, the last two of which are kept.

    Processes that train the same, such as one that outlived who began it, write the same in turn.

    Parameters
    ----------
    folder : Path
        Made when the first state is written.
    kind : str
        Name of the class of the model.

    Attributes
    ----------
    found : dict or None
        The newest state that can be read, as `write` got it.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder, self._kind = folder.absolute(), kind  # wherever a fit goes
        self._from = self._folder  # where `found` is
        self.found = self._newest()

    def _states(self) -> list[Path]:
        """Directories of whole states, the newest first."""
        if not self._folder.exists():
            return []
        if not self._folder.is_dir():
            raise ValueError(f"checkpoint_dir is {self._folder}, a file: expected a directory.")
        found = [
            path
            for path in self._folder.iterdir()
            if re.fullmatch(r"epoch-\d{6,}", path.name) and (path / MODEL_FILE).is_file()
        ]
        return sorted(found, key=lambda path: int(path.name.partition("-")[2]), reverse=True)

    def _newest(self) -> dict[str, Any] | None:
        with alone_in(self._folder):  # or another process may remove what is read
            for path in self._states():
                self._from = path
                try:
                    return _files.read(path, self._kind)
                except _files.DamagedModelError as error:
                    warn(
                        f"{error} The training goes on from the state before it.",
                    )
        return None

    def damage_named(self) -> AbstractContextManager[None]:
        """Name the state that was found in what goes wrong while a model is built of it."""
        return _files.damage_named(self._from, building=True)

    def check(self, marks: Mapping[str, Any], as_ever: Mapping[str, Any]) -> dict[str, Any] | None:
        """Check that what was found is of this fit, and give it.

        What an earlier version did not have, and so not note, counts as what it has always been.
        """
        if self.found is None:
            return None
        were = self.found["marks"]
        told = []
        for what in dict.fromkeys([*were, *marks]):
            now = marks.get(what) or {}
            was = {n: v for n, v in as_ever.get(what, {}).items() if n in now} | (
                were.get(what) or {}
            )
            told += [
                f"{what} {name} (was {was.get(name, 'not there')}, is {now.get(name, 'not there')})"
                for name in dict.fromkeys([*was, *now])
                if was.get(name) != now.get(name)
            ]
        if told:
            raise ValueError(
                f"checkpoint_dir {self._folder} holds the state of another fit; there differ: "
                f"{'; '.join(told)}. Give what that fit was given, another directory, or remove "
                "this one to begin anew."
            )
        logger.info("%s: goes on from %s", self._kind, self._folder)
        return self.found

    def check_alike(self, ranks: Ranks) -> None:
        """Check that processes that train together go on from the same state."""
        epoch = -1.0 if self.found is None else float(self.found["state"]["epoch"])
        least, most = ranks.least([epoch, -epoch])
        if least != -most:
            raise ValueError(
                f"checkpoint_dir {self._folder} does not hold the same state for all processes "
                "that train together: give a directory on a file system that all of them share."
            )

    def write(self, epoch: int, content: dict[str, Any]) -> None:
        """Write the state after an epoch, and remove older ones; the first process alone does."""
        if not is_first():
            return
        path = self._folder / f"epoch-{epoch:06d}"
        make_folder(self._folder)
        with alone_in(self._folder):
            with replacing(path) as beside:
                _files.write(beside, self._kind, content)
                # a damaged one, or of another process, or a training that went on from before it
                if (path / MODEL_FILE).exists():
                    discard(path)
            for old in self._states()[_KEPT:]:
                discard(old)
        logger.debug("wrote %s", path)


def as_told(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Give the parameters that tell fits apart, as text."""
    told = {name: v for name, v in parameters.items() if name not in _FREE}
    return {name: without_addresses(repr(value)) for name, value in told.items()}

"""Curves of a training for TensorBoard."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from v1tlearn._instead import path_of
from v1tlearn._replacing import alone_in, append, make_folder


class TensorBoardLog:
    """Writes the scalars of every epoch for TensorBoard, as ``on_epoch`` of a fit.

    Every entry of a record of `history_` is a scalar of its name, the epoch is the step. Candidates
    of ensembles and searches are runs of their own, in subfolders ``candidate-000`` and so on. A
    training that goes on, from the states in its ``checkpoint_dir`` or by ``warm_start``, writes
    the epochs before once more into a new file, and TensorBoard shows these in place of the
    earlier ones. An epoch is on the disk before the training goes on. Needs the extra
    ``tensorboard``. ``tensorboard --logdir FOLDER`` shows it.

    Parameters
    ----------
    folder : path
        Made where it is missing. Folders beside each other are runs beside each other.

    Raises
    ------
    ImportError
        Without TensorBoard.
    FileExistsError
        As a training begins anew in a folder with events of an earlier one, which would be shown
        as one; or after its first epoch, if another process began at the same time.

    See Also
    --------
    CSVLog : The same numbers as a table, which needs nothing else.

    Examples
    --------
    ::

        model.fit(train, on_epoch=[CSVLog("cnn.csv"), TensorBoardLog("runs/cnn")])
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = path_of("folder", folder, "TensorBoardLog(folder)").absolute()
        _record()
        self._files: dict[int | None, Path] = {}
        self._others: dict[int | None, set[str]] = {}  # files of earlier trainings
        self._before: dict[int | None, list[dict[str, Any]]] = {}

    def __repr__(self) -> str:
        return f"TensorBoardLog({str(self.folder)!r})"

    def begin(self, history: Sequence[Mapping[str, Any]], candidate: int | None = None) -> None:
        """Note what was trained already; a file is made with the next epoch.

        Parameters
        ----------
        history : sequence of dict
            Records of the epochs that a training goes on from.
        candidate : int, optional
            Whose they are.
        """
        self.end(candidate)
        place = self._place(candidate)
        self._others[candidate] = _files_in(place)
        if not history and self._others[candidate]:
            raise FileExistsError(
                f"{place} holds events of an earlier training, and this one begins anew: choose "
                "another folder, remove that one, or give fit the checkpoint_dir of that training."
            )
        self._before[candidate] = [dict(record) for record in history]

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Write the scalars of an epoch.

        Parameters
        ----------
        record : dict
        """
        candidate = record.get("candidate")
        before = self._before.pop(candidate, [])
        content = b"".join(_scalars(one) for one in (*before, record))
        if candidate not in self._files:
            content = _head(again=bool(before)) + content
            place = self._place(candidate)
            make_folder(place)
            with alone_in(place):
                if _files_in(place) - self._others.get(candidate, set()):
                    raise FileExistsError(
                        f"another process has begun a training in {place}: choose another folder."
                    )
                self._files[candidate] = _new_file(place)
                append(self._files[candidate], content)
            return
        append(self._files[candidate], content)

    def end(self, candidate: int | None = None) -> None:
        """Let the next training begin a file of its own.

        Parameters
        ----------
        candidate : int, optional
        """
        self._files.pop(candidate, None)

    def _place(self, candidate: int | None) -> Path:
        return self.folder if candidate is None else self.folder / f"candidate-{int(candidate):03d}"

    def __getstate__(self) -> dict[str, Any]:
        """Go to another process, which writes files of its own."""
        return self.__dict__ | {"_files": {}}


def _files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("events.out.tfevents.*")}


def _new_file(folder: Path) -> Path:
    """Name the next file of a folder; TensorBoard reads them in the order of their names."""
    seconds = (name.split(".")[3] for name in _files_in(folder))
    later = max((1 + int(second) for second in seconds if second.isdecimal()), default=0)
    second = max(int(time.time()), later)
    return folder / f"events.out.tfevents.{second:010d}.{socket.gethostname()}.{os.getpid()}.0"


def _head(*, again: bool) -> bytes:
    """How a file begins; whether epochs of earlier files do not count."""
    head = _record(file_version="brain.Event:2")
    return head + (_record(step=1, session_log={"status": "START"}) if again else b"")


def _scalars(record: Mapping[str, Any]) -> bytes:
    kept = [(n, float(v)) for n, v in record.items() if n not in ("epoch", "candidate")]
    values = [{"tag": name, "simple_value": value} for name, value in kept]
    return _record(step=int(record["epoch"]), summary={"value": values})


def _record(**content: Any) -> bytes:
    """Write an event as it stands in a file, with checksums."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise ImportError(
            'TensorBoardLog needs TensorBoard: install the extra "tensorboard", from the folder of '
            'v1tlearn with pip install -e ".[tensorboard]". CSVLog does without it.'
        ) from error
    file = BytesIO()
    RecordWriter(file).write(Event(wall_time=time.time(), **content).SerializeToString())
    return file.getvalue()

"""Curves of a training for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from v1tlearn._instead import path_of


class TensorBoardLog:
    """Writes the scalars of every epoch for TensorBoard, as ``on_epoch`` of a fit.

    Every entry of a record of `history_` is a scalar of its name, the epoch is the step. Candidates
    of ensembles and searches are runs of their own, in subfolders ``candidate-000`` and so on. A
    training that goes on, from the states in its ``checkpoint_dir`` or by ``warm_start``, writes
    the epochs before once more into a new file, and TensorBoard shows these in place of the
    earlier ones. Needs the extra ``tensorboard``. ``tensorboard --logdir FOLDER`` shows it.

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
        as one.

    See Also
    --------
    CSVLog : The same numbers as a table, which needs nothing else.

    Examples
    --------
    ::

        model.fit(train, on_epoch=[CSVLog("cnn.csv"), TensorBoardLog("runs/cnn")])
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = path_of("folder", folder, "TensorBoardLog(folder)")
        _writer_class()
        self._writers: dict[int | None, Any] = {}
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
        if not history and any(place.glob("events.out.tfevents.*")):
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
        if candidate not in self._writers:
            place = self._place(candidate)
            again = 1 if before else None  # from which step on earlier files do not count
            self._writers[candidate] = _writer_class()(str(place), purge_step=again)
        writer = self._writers[candidate]
        for one in (*before, record):
            for name, value in one.items():
                if name not in ("epoch", "candidate"):
                    writer.add_scalar(name, float(value), int(one["epoch"]))
        writer.flush()

    def end(self, candidate: int | None = None) -> None:
        """Close the file of a training.

        Parameters
        ----------
        candidate : int, optional
        """
        writer = self._writers.pop(candidate, None)
        if writer is not None:
            writer.close()

    def _place(self, candidate: int | None) -> Path:
        return self.folder if candidate is None else self.folder / f"candidate-{int(candidate):03d}"

    def __getstate__(self) -> dict[str, Any]:
        """Go to another process, which writes files of its own."""
        return self.__dict__ | {"_writers": {}}


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            'TensorBoardLog needs TensorBoard: install the extra "tensorboard", from the folder of '
            'v1tlearn with pip install -e ".[tensorboard]". CSVLog does without it.'
        ) from error
    return SummaryWriter

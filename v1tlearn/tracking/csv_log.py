"""A table of epochs that grows line by line, whole after every epoch, whatever ends the process."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from v1tlearn._instead import path_of
from v1tlearn._opening import read_plain
from v1tlearn._replacing import alone_in, append, replacing
from v1tlearn._values import as_flag

_LABEL = "candidate"
_Row = dict[str, str]


class CSVLog:
    """Writes a line of a CSV file for every epoch, as ``on_epoch`` of a fit.

    Columns are those of `history_`, "candidate" ahead of them where an ensemble or a search is
    fitted. The line is on the disk before the training goes on. A training that goes on from the
    states in its ``checkpoint_dir``, or by ``warm_start``, goes on with the file, too: a line that
    was half written when its process died is removed, lines that are missing are added, none is
    there twice. Processes that train candidates may share a file.

    Parameters
    ----------
    path : path
        The file, made with the first epoch; its folder has to be there.
    replace : bool, default=False
        Whether a training that begins anew may replace the log of an earlier one.

    Raises
    ------
    FileExistsError
        As a training begins: if there is something that is no such log, or the log of another
        training.
    FileNotFoundError
        If there is no folder to write into.
    TypeError
        If `path` is no path, or `replace` neither True nor False.

    See Also
    --------
    TensorBoardLog : For curves of several trainings side by side.
    RunFolder : What ran: parameters, versions, recordings.

    Notes
    -----
    Numbers have all digits: those that are read are those of `history_`. What is not finite is
    "nan" or "inf". A value that an epoch does not have is empty.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> import v1tlearn as v1
    >>> from v1tlearn.tracking import CSVLog
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.LNRegressor(hidden_channels=4, batch_size=16, max_epochs=2, random_state=0)
    >>> path = tempfile.mkdtemp() + "/epochs.csv"
    >>> model = model.fit(trials.sel(tier="train"), on_epoch=CSVLog(path))
    >>> table = pd.read_csv(path)
    >>> table["epoch"].tolist(), table.columns.tolist() == list(model.history_[0])
    ([1, 2], True)
    """

    def __init__(self, path: str | os.PathLike, *, replace: bool = False) -> None:
        self.path = path_of("path", path, "CSVLog(path)").absolute()  # wherever a fit goes
        self.replace = as_flag(replace, "replace")
        self._columns: list[str] | None = None  # of the file, once it is known to be in order
        self._size: int | None = 0  # of the file, as this process left it

    def __repr__(self) -> str:
        return f"CSVLog({str(self.path)!r})"

    def begin(self, history: Sequence[Mapping[str, Any]], candidate: int | None = None) -> None:
        """Bring the file to what was trained already.

        Parameters
        ----------
        history : sequence of dict
            Records of the epochs that a training goes on from.
        candidate : int, optional
            Whose they are.
        """
        self._check_folder()
        rows = [_as_text(record, candidate) for record in history]
        with alone_in(self.path.parent):
            own, others = _parted(self._read(), candidate)
            if not rows and own and not self.replace:
                raise FileExistsError(self._taken(own, "begins anew"))
            if not self.replace and any(_differ(a, b) for a, b in zip(own, rows, strict=False)):
                raise FileExistsError(self._taken(own, "has other losses"))
            self._columns = self._write([*others, *rows])
            self._size = self._size_now()

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Add the line of an epoch.

        Parameters
        ----------
        record : dict

        Raises
        ------
        FileExistsError
            If another process, whose training differs, writes into the file, too.
        """
        row, is_behind = _as_text(record), False
        self._check_folder()
        with alone_in(self.path.parent):
            if self._columns is None or not self._ends_whole():  # nobody told that it begins
                own, others = _parted(self._read(), record.get(_LABEL))
                if own and row["epoch"] == "1" and not self.replace:
                    raise FileExistsError(self._taken(own, "begins anew"))
                kept = [one for one in own if int(one["epoch"]) < int(row["epoch"])]
                self._columns = self._write([*others, *kept, row])
            elif own := self._later(row):  # of a process that trains the same
                same = [one for one in own if one["epoch"] == row["epoch"]]
                is_behind = len(own) > len(same)
                if any(_differ(one, row) for one in same):
                    raise FileExistsError(self._taken(own, "has other losses"))
                if not same:
                    rows = sorted([*self._read(), row], key=lambda one: int(one["epoch"]))
                    self._columns = self._write(rows)
            elif set(row) <= set(self._columns) and self._header() == self._columns:
                append(self.path, _lines([row], self._columns))
            else:
                self._columns = self._write([*self._read(), row])
            self._size = None if is_behind else self._size_now()  # the next one may be there, too

    # ------------------------------------------------------------------------------------- the file

    def _check_folder(self) -> None:
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"there is no folder {self.path.parent} to write {self.path.name} into; make it "
                "first"
            )

    def _taken(self, own: list[_Row], why: str) -> str:
        last = own[-1]["epoch"]
        return (
            f"{self.path} holds epochs up to {last} of an earlier training, and this one {why}: "
            "choose another path, remove the file, give CSVLog replace=True, or give fit the "
            "checkpoint_dir of that training."
        )

    def _read(self) -> list[_Row]:
        """Rows of the file, without a last one that is not whole."""
        if not self.path.exists():
            return []
        content = read_plain(self.path)
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            return []
        try:
            columns, *rows = csv.reader(io.StringIO(whole.decode("utf-8"), newline=""))
            place = columns.index("epoch")
            ours = len(set(columns)) == len(columns) and all(
                len(row) == len(columns) and row[place].isdecimal() and all(map(_is_number, row))
                for row in rows
            )
        except (csv.Error, ValueError):
            ours = False
        if not ours:
            raise FileExistsError(
                f"{self.path} is there, and no log of epochs: choose another path, or remove it."
            )
        return [{n: v for n, v in zip(columns, row, strict=True) if v} for row in rows]

    def _size_now(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _later(self, row: _Row) -> list[_Row]:
        """Epochs of the same candidate, from that of a row on, that others wrote."""
        if self._size_now() == self._size:
            return []
        own, _ = _parted(self._read(), row.get(_LABEL))
        return [one for one in own if int(one["epoch"]) >= int(row["epoch"])]

    def _ends_whole(self) -> bool:
        """Whether there is nothing yet, or no other process died within a line."""
        if not self.path.exists() or not self.path.stat().st_size:
            return not self._columns
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _header(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file), [])

    def _write(self, rows: list[_Row]) -> list[str]:
        """Write the whole file beside it and put it in place, unless it is so already."""
        if not rows:
            self.path.unlink(missing_ok=True)
            return []
        columns = list(dict.fromkeys(name for row in rows for name in row))
        if _LABEL in columns:
            columns = [_LABEL, *(name for name in columns if name != _LABEL)]
        content = _lines([dict(zip(columns, columns, strict=True)), *rows], columns)
        if not self.path.exists() or self.path.read_bytes() != content:
            with replacing(self.path) as beside:
                beside.write_bytes(content)
        return columns


def _lines(rows: Iterable[_Row], columns: Sequence[str]) -> bytes:
    lines = []
    for row in rows:
        text = io.StringIO()  # ended by both characters, each of which is quoted in names then
        csv.DictWriter(text, columns, lineterminator="\r\n").writerow(row)
        lines.append(text.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines).encode()


def _as_text(record: Mapping[str, Any], candidate: int | None = None) -> _Row:
    label = {} if candidate is None else {_LABEL: candidate}
    return {name: _number(value) for name, value in {**label, **record}.items()}


def _number(value: Any) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    """Whether a value is one that `_number` writes, or none."""
    try:
        return not text or _number(float(text)) in (text, f"{text}.0")
    except ValueError:
        return False


def _parted(rows: list[_Row], candidate: int | str | None) -> tuple[list[_Row], list[_Row]]:
    """Rows of a candidate, and of all others."""
    label = None if candidate is None else str(int(candidate))
    own = [row for row in rows if row.get(_LABEL) == label]
    return own, [row for row in rows if row.get(_LABEL) != label]


def _differ(one: _Row, other: _Row) -> bool:
    return any(one.get(name) != other.get(name) for name in ("epoch", "loss"))

"""A log that the disk has no room for: the file is named, and the lines before it stay whole."""

import errno
import os
from functools import partial

import pytest

from tests.exact_csv import read_csv
from v1tlearn.tracking import CSVLog, TensorBoardLog

processes = pytest.importorskip(
    "tests.interruptions.processes",
    reason="processes of this system do not fork",
    exc_type=ImportError,
)
RECORDS = [{"epoch": epoch, "loss": epoch / 7} for epoch in (1, 2, 3)]


def filled_up(log, path):
    """Write an epoch, and another one that half of it has room for; what that raises."""
    log.begin([])
    log(RECORDS[0])
    (file,) = path.glob("*") if path.is_dir() else [path]
    size = file.stat().st_size
    told = processes.in_child(
        lambda: log(RECORDS[1]), partial(processes.limit_files, size + size // 4)
    )
    assert (told.error, told.errno) == ("OSError", errno.EFBIG)
    assert told.message.endswith(f"'{file}'")
    assert file.stat().st_size == size
    log(RECORDS[1])
    log.end() if hasattr(log, "end") else None


def test_a_table_keeps_whole_lines(tmp_path):
    path = tmp_path / "log.csv"
    log = CSVLog(path)
    filled_up(log, path)
    assert read_csv(path).to_dict("records") == RECORDS[:2]


def test_curves_keep_whole_points(tmp_path):
    from tests.tracking.test_tensorboard_log import curve, scalars

    filled_up(TensorBoardLog(tmp_path), tmp_path)
    assert scalars(tmp_path)["loss"] == curve(RECORDS[:2], "loss")


def test_files_of_one_second_are_read_in_their_order(tmp_path):
    from tests.tracking.test_tensorboard_log import curve, scalars

    for stop in (1, 2, 3):
        log = TensorBoardLog(tmp_path)
        log.begin(RECORDS[: stop - 1])
        log(RECORDS[stop - 1])
    assert len(os.listdir(tmp_path)) == 3
    assert scalars(tmp_path)["loss"] == curve(RECORDS, "loss")


def test_logs_stay_where_they_were_begun(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    logs = CSVLog("log.csv"), TensorBoardLog("curves")
    for log in logs:
        log.begin([])
    monkeypatch.chdir("elsewhere")
    for log in logs:
        log(RECORDS[0])
    assert sorted(os.listdir(tmp_path)) == ["curves", "elsewhere", "log.csv"]
    assert os.listdir(".") == []

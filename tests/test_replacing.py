"""Files of writers that were killed go, those of living ones and of the user stay."""

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import v1tlearn as v1

processes = pytest.importorskip(
    "tests.interruptions.processes",
    reason="processes of this system do not fork",
    exc_type=ImportError,
)
ROOT = Path(__file__).parents[1]

WRITES = """
    import sys
    import numpy as np, xarray as xr
    from xarray.backends import BackendArray
    from xarray.core import indexing
    import v1tlearn as v1

    class Slow(BackendArray):
        '''Says that it is read, and comes to no end.'''
        shape, dtype = (4, 1, 2, 3), np.dtype("u1")
        def __getitem__(self, key):
            print("reading", flush=True)
            sys.stdin.read()
            raise SystemExit

    stimuli = ("trial", "channel", "height", "width"), indexing.LazilyIndexedArray(Slow())
    v1.save_recordings({"A": xr.Dataset({"stimuli": stimuli})}, sys.argv[1])
"""


def start(path):
    command = [sys.executable, "-c", textwrap.dedent(WRITES), str(path)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout.readline() == "reading\n"
    return process


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system kills in another way")
def test_the_next_writer_removes_what_killed_ones_left_and_nothing_else(tmp_path):
    users = [".r.nc.part", "r.nc.part", ".v1tlearn-notes.part", "tensors-1.safetensors"]
    for name in users:
        (tmp_path / name).write_text("mine")
    recording = v1.make_v1_recordings(
        n_mice=1,
        n_neurons=2,
        n_trials=4,
        random_state=0,
        n_test_images=1,
        n_repeats=2,
        image_shape=(8, 12),
    )
    living, killed = start(tmp_path / "a.nc"), start(tmp_path / "b.nc")
    assert len(os.listdir(tmp_path)) == len(users) + 2
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    v1.save_recordings(recording, tmp_path / "c.nc")
    left = set(os.listdir(tmp_path)) - {*users, "c.nc"}
    assert [f"-{living.pid}-" in name for name in left] == [True]
    living.communicate("")
    assert set(os.listdir(tmp_path)) == {*users, "c.nc"}
    assert {(tmp_path / name).read_text() for name in users} == {"mine"}


def test_a_failed_write_leaves_nothing_and_the_earlier_file(tmp_path):
    path = tmp_path / "r.nc"
    path.write_text("earlier")
    stimuli = (("trial", "channel", "height", "width"), np.zeros((2, 1, 2, 2), np.uint8))
    odd = xr.Dataset({"stimuli": stimuli}, {"half": ("trial", np.zeros(2, "f2"))})
    with pytest.raises(ValueError, match="mouse 'A', half: netCDF has no dtype float16"):
        v1.save_recordings({"A": odd}, path)
    assert os.listdir(tmp_path) == ["r.nc"]
    assert path.read_text() == "earlier"


@pytest.fixture
def table():
    return pd.DataFrame({"mouse": ["A", "B"], "score": [0.25, 0.5]})


@pytest.mark.skipif(os.name == "nt", reason="its files have other permissions")
def test_a_file_keeps_its_permissions_and_a_new_one_has_those_of_the_umask(table, tmp_path):
    before = os.umask(0o027)
    try:
        v1.save_table(table, tmp_path / "t.csv")
        assert stat.S_IMODE((tmp_path / "t.csv").stat().st_mode) == 0o640
        (tmp_path / "t.csv").chmod(0o664)
        v1.save_table(table, tmp_path / "t.csv")
        assert stat.S_IMODE((tmp_path / "t.csv").stat().st_mode) == 0o664
    finally:
        os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="its files have other permissions")
def test_models_are_for_those_whom_the_umask_lets_read(tmp_path):
    trials = v1.Trials(v1.make_v1_recordings(1, 2, 12, 2, 2, image_shape=(8, 12), random_state=0))
    model = v1.LNRegressor(input_kernel=3, max_epochs=1, device="cpu", random_state=0)
    model.fit(trials.sel(tier="train"))
    before = os.umask(0o027)
    try:
        model.save(tmp_path / "m", card={})
        model.save(tmp_path / "m", card={})
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "m").iterdir()}
    assert len(modes) == 3
    assert set(modes.values()) == {0o640}


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_stays_and_leads_to_what_is_new(table, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "t.csv").symlink_to(tmp_path / "far" / "kept.csv")
    v1.save_table(table, tmp_path / "t.csv")
    v1.save_table(table[:1], tmp_path / "t.csv")
    assert (tmp_path / "t.csv").is_symlink()
    assert os.listdir(tmp_path / "far") == ["kept.csv"]
    assert len(pd.read_csv(tmp_path / "far" / "kept.csv")) == 1


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="root alone becomes another user"
)
def test_a_file_that_is_read_only_is_not_replaced(table, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("earlier")
    for place in (path, tmp_path):
        os.chown(place, processes.NOBODY, processes.NOBODY)
    for parent in tmp_path.parents[:3]:
        parent.chmod(0o755)
    path.chmod(0o444)
    told = processes.in_child(lambda: v1.save_table(table, path), processes.become_nobody)
    assert (told.error, told.errno) == ("PermissionError", errno.EACCES)
    assert told.message == f"[Errno {errno.EACCES}] the file is read-only: '{path}'"
    assert path.read_text() == "earlier"


@pytest.mark.parametrize("name", ["ä ö 漢字 with spaces", "x" * 251, "-rf", "a'b\"c;$(ls)&"])
def test_any_name_is_one(table, tmp_path, name):
    path = tmp_path / f"{name}.csv"
    v1.save_table(table, path)
    v1.save_table(table[:1], path)
    assert os.listdir(tmp_path) == [path.name]
    assert len(pd.read_csv(path)) == 1


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_folder_that_is_missing_is_told_by_the_name_of_the_file(table, tmp_path, suffix):
    path = tmp_path / "none" / f"t{suffix}"
    with pytest.raises(FileNotFoundError) as told:
        v1.save_table(table, path)
    assert told.value.filename == str(path)
    assert ".v1tlearn" not in str(told.value)

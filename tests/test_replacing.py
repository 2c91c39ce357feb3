"""Files of writers that were killed go, those of living ones and of the user stay."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1

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

"""Checksums behind the end of a file are believed only as far as they can be true."""

import base64
import json
import struct
import subprocess
import sys
import textwrap
import zlib

import netCDF4
import numpy as np
import pytest
import xarray as xr

from v1tlearn.datasets.store import open_recordings, save_recordings

END = struct.Struct("<IQ8s")


def recording(n_trials=4):
    rng = np.random.default_rng(0)
    stimuli = rng.integers(0, 256, (n_trials, 1, 2, 3), np.uint8)
    return xr.Dataset(
        {
            "stimuli": (("trial", "channel", "height", "width"), stimuli),
            "responses": (("trial", "neuron"), rng.random((n_trials, 5), "f4")),
        }
    )


def rewritten(path, change):
    """Put other checksums behind a file, themselves with a right checksum."""
    content = path.read_bytes()
    _, length, signature = END.unpack(content[-END.size :])
    told = json.loads(content[-END.size - length : -END.size])
    text = json.dumps(change(told) or told).encode()
    kept = content[: -END.size - length]
    path.write_bytes(kept + text + END.pack(zlib.crc32(text), len(text), signature))


def short_by_one(told):
    entry = told["trials"]["/A/responses"]
    entry["checksums"] = base64.b64encode(base64.b64decode(entry["checksums"])[4:]).decode()


@pytest.mark.parametrize(
    "change",
    [
        lambda told: [told],
        lambda told: {"size": told["size"]},
        lambda told: told.update(size=2**60),
        lambda told: told.update(size=-1),
        lambda told: told.update(size=str(told["size"])),
        lambda told: told.update(size=True),
        lambda told: told.update(rest=None),
        lambda told: told.update(trials=[]),
        lambda told: told["trials"].update({"/A/responses": 3}),
        lambda told: told["trials"]["/A/responses"].update(place=[0]),
        lambda told: told["trials"]["/A/responses"].update(place=[0, 10**9]),
        lambda told: told["trials"]["/A/responses"].update(place=[9, 5]),
        lambda told: told["trials"]["/A/responses"].update(place=[-5, 5]),
        lambda told: told["trials"]["/A/responses"].update(place=["0", "5"]),
        lambda told: told["trials"]["/A/responses"].update(place=5),
        lambda told: told["trials"]["/A/responses"].update(checksums=7),
        lambda told: told["trials"]["/A/responses"].update(checksums="?"),
        lambda told: told["trials"]["/A/responses"].update(checksums="AAA="),
        short_by_one,
    ],
)
def test_checksums_that_cannot_be_true_are_refused(tmp_path, change):
    path = tmp_path / "r.nc"
    save_recordings({"A": recording()}, path, compression=None)
    rewritten(path, change)
    with pytest.raises(ValueError, match=r"r\.nc is not a readable netCDF4 file .*checksums"):
        open_recordings(path)


@pytest.mark.parametrize("notes", ["[]", "{", '{"a": 5}', '{"a": ["array1:<U9", ["x"]]}', 7])
def test_odd_notes_of_attributes_are_refused(tmp_path, notes):
    path = tmp_path / "r.nc"
    save_recordings({"A": recording()}, path)
    with netCDF4.Dataset(path, "a") as file:
        file["A"].setncattr("v1tlearn_attributes", notes)
    with pytest.raises(ValueError, match=r"r\.nc is not a readable netCDF4 file"):
        open_recordings(path)


@pytest.mark.parametrize("compression", ["zlib", None])
@pytest.mark.parametrize("none", [slice(0, 0), [], np.zeros(4, bool)])
def test_no_trials_are_read_as_none(tmp_path, compression, none):
    save_recordings({"A": recording()}, tmp_path / "r.nc", compression=compression)
    with open_recordings(tmp_path / "r.nc") as opened:
        for name, variable in recording().items():
            found = opened["A"][name].isel(trial=none)
            xr.testing.assert_identical(found.load(), variable[:0])


MANY = """
    import errno, resource, sys
    import v1tlearn as v1
    trees = v1.open_recordings(sys.argv[1])
    trees["A"].stimuli[0].values
    trees.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
    held = []
    try:
        while True:
            held.append(open(sys.argv[1]))
    except OSError:
        pass
    for read in (lambda: v1.open_recordings(sys.argv[1]), trees["A"].stimuli[0].load):
        try:
            read()
        except OSError as error:
            print(error.errno == errno.EMFILE, error.filename == sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it has no limit of open files to set")
def test_too_many_open_files_are_no_damage(tmp_path):
    path = tmp_path / "r.nc"
    save_recordings({"A": recording()}, path)
    command = [sys.executable, "-c", textwrap.dedent(MANY), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4


def test_a_library_that_another_process_lacks_is_told_each_time(tmp_path, monkeypatch, caplog):
    path = tmp_path / "r.nc"
    xr.DataTree.from_dict({"A": recording()}).to_netcdf(path, engine="netcdf4")
    (tmp_path / "netCDF4.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for number in (1, 2):
        open_recordings(path).close()
        assert caplog.text.count(f"{path} is opened unchecked") == number

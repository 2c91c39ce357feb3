"""Trials that lie in a row in a file come straight from the system, as the library gives them."""

import os
import sys

import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import v1tlearn as v1
from v1tlearn.datasets import checksums, netcdf, stored_rows
from v1tlearn.datasets.open_files import file_state
from v1tlearn.estimators.placement import StoredImages, StoredResponses

N = 60


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A store without compression, and what was written into it."""
    path = tmp_path_factory.mktemp("rows") / "a.nc"
    rng = np.random.default_rng(0)
    arrays = {
        "stimuli": (
            ("trial", "channel", "height", "width"),
            rng.integers(0, 256, (N, 1, 6, 7), np.uint8),
        ),
        "responses": (("trial", "neuron"), rng.random((N, 5), "f4")),
        "expected_responses": (("trial", "neuron"), rng.random((N, 5))),
    }
    recording = xr.Dataset(arrays, {"image_id": ("trial", np.arange(N))})
    v1.save_recordings({"A": recording}, path, compression=None)
    return path, {name: values for name, (_, values) in arrays.items()}


def library_is_used(monkeypatch):
    """Count what the library is asked to read."""
    asked = []
    known = netcdf.StoredArray.get_array

    def get_array(self, needs_lock=True):
        asked.append(self.variable_name)
        return known(self, needs_lock)

    monkeypatch.setattr(netcdf.StoredArray, "get_array", get_array)
    return asked


@given(
    rows=st.lists(st.integers(0, N - 1), max_size=2 * N),
    start=st.integers(0, 5),
    name=st.sampled_from(["stimuli", "responses", "expected_responses"]),
)
def test_any_rows_come_in_the_order_asked_for(stored, rows, start, name):
    path, values = stored
    trials = v1.Trials.open(path)[start:]
    rows = np.array(rows, dtype=int) % (N - start)
    np.testing.assert_array_equal(trials[rows].get(name, "A"), values[name][start:][rows])
    some = v1.Trials(trials.recordings)[rows]  # a view of a selection
    np.testing.assert_array_equal(some.get(name, "A"), values[name][start:][rows])


def test_the_library_is_left_alone_and_parts_are_the_same(stored, monkeypatch):
    path, values = stored
    recording = v1.open_recordings(path)["A"]
    asked = library_is_used(monkeypatch)
    np.testing.assert_array_equal(recording["stimuli"].values, values["stimuli"])
    np.testing.assert_array_equal(recording["responses"][7:30, 2:4], values["responses"][7:30, 2:4])
    np.testing.assert_array_equal(recording["responses"][5], values["responses"][5])
    assert not asked
    monkeypatch.setattr(netcdf, "IS_OFFERED", False)  # as on systems that have no such call
    np.testing.assert_array_equal(v1.open_recordings(path)["A"]["stimuli"], values["stimuli"])
    assert asked


def test_a_short_answer_of_the_system_is_gone_on_from(stored, monkeypatch):
    path, values = stored
    preadv = os.preadv
    monkeypatch.setattr(
        stored_rows.os, "preadv", lambda file, parts, place: preadv(file, [parts[0][:5]], place)
    )
    rows = np.array([3, 4, 5, 1, 30, 31])
    got = v1.Trials.open(path)[rows].get("stimuli", "A")
    np.testing.assert_array_equal(got, values["stimuli"][rows])


def test_trials_that_are_read_soon_are_announced_to_the_system(stored, monkeypatch):
    path, values = stored
    rows = np.array([30, 3, 4, 5, 1, 31])
    told = []
    monkeypatch.setattr(stored_rows, "_ANNOUNCED", 64)
    monkeypatch.setattr(
        stored_rows.os, "posix_fadvise", lambda file, *told_of: told.append(told_of), raising=False
    )
    monkeypatch.setattr(stored_rows.os, "POSIX_FADV_WILLNEED", "needed", raising=False)
    trials = v1.Trials.open(path)
    images = StoredImages(trials[2:], "A")
    responses = StoredResponses(trials.responses[::-1], "A", np.ones(5))
    told.clear()
    images.announce(rows - 1)
    responses.announce(rows)
    content = path.read_bytes()
    found = [content[place : place + size] for place, size, what in told if what == "needed"]
    assert len(found) == len(told)
    assert max(map(len, found)) <= 64
    stimuli, recorded = values["stimuli"][[2, 4, 5, 6, 31, 32]], values["responses"]
    wanted = [stimuli, recorded[N - 1 - np.sort(rows)[::-1]]]
    assert b"".join(found) == b"".join(v.tobytes() for v in wanted)
    monkeypatch.setattr(stored_rows, "state_of", lambda found: None)  # written anew meanwhile
    told.clear()
    images.announce(rows)
    assert not told


def test_damage_is_told_and_another_file_is_not_read(stored, tmp_path):
    path, values = stored
    copy = tmp_path / "copy.nc"
    content = path.read_bytes()
    place = content.index(values["responses"].tobytes())
    copy.write_bytes(content[: place + 9 * 20] + b"\x7f" + content[place + 9 * 20 + 1 :])
    trials = v1.Trials.open(copy)
    np.testing.assert_array_equal(trials[:9].get("responses", "A"), values["responses"][:9])
    with pytest.raises(ValueError, match=r"damaged at responses.*1 trials differ.*first 9"):
        trials[5:15].get("responses", "A")
    copy.write_bytes(content)
    with pytest.raises(ValueError, match="written anew"):
        trials[5:15].get("responses", "A")


def test_a_file_that_ends_early_is_told(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(bytes(10))
    out = np.empty((2, 8), np.uint8)
    with pytest.raises(OSError, match="ends early"):
        stored_rows.read_rows(path, file_state(path), 0, np.array([0, 1]), out)


def test_values_in_another_order_of_bytes_are_those_of_the_library(tmp_path):
    """Such a file is of another machine; the place of its trials is known all the same."""
    path = tmp_path / "a.nc"
    values = np.arange(40, dtype=">f4" if sys.byteorder == "little" else "<f4").reshape(8, 5)
    with netCDF4.Dataset(path, "w") as file:
        group = file.createGroup("A")
        sizes = {"trial": 8, "channel": 1, "height": 2, "width": 3, "neuron": 5}
        for name, size in sizes.items():
            group.createDimension(name, size)
        group.createVariable("stimuli", "u1", list(sizes)[:4], contiguous=True)[:] = 0
        options = {"contiguous": True, "endian": {">": "big", "<": "little"}[values.dtype.str[0]]}
        group.createVariable("responses", values.dtype, ("trial", "neuron"), **options)[:] = values
    checksums.append(path, {"/A/responses": (values[:1], checksums.of_trials(values))})
    np.testing.assert_array_equal(v1.Trials.open(path).get("responses", "A"), values)

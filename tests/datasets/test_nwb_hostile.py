"""NWB files made to hang or crash a reader, to reach other files, or to give other data."""

import os

import h5py
import numpy as np
import pytest

from tests.datasets.nwb_files import calcium
from v1tlearn.datasets import read_nwb

SERIES = "processing/ophys/DfOverF/plane"
SHOWN = "stimulus/presentation/shown"


def link(place, target):
    """Put a link in place of what is there."""

    def change(file):
        del file[place]
        file[place] = target(file) if callable(target) else target

    return change


def put(place, **made):
    """Put another array in place of the one that is there, with its attributes."""

    def change(file):
        attrs = dict(file[place].attrs)
        del file[place]
        dataset = file.create_dataset(place, **made)
        dataset.attrs.update(attrs)

    return change


def referring_to_nothing(file):
    """Let the templates of the presentations be an object that is no more."""
    lost = file.create_group("lost")
    file[f"{SHOWN}/indexed_images"].attrs["target"] = lost.ref
    del file["lost"]
    del file[f"{SHOWN}/indexed_images"]
    file[f"{SHOWN}/indexed_images"] = h5py.SoftLink("/lost")


def without(place, name):
    """Take an attribute away."""
    return lambda file: file[place].attrs.__delitem__(name)


TEXT = h5py.string_dtype()
REFUSED = {
    "link to another file": link(f"{SERIES}/data", h5py.ExternalLink("/etc/passwd", "/")),
    "link to itself": link(f"{SERIES}/data", h5py.SoftLink(f"/{SERIES}/data")),
    "link to nothing": link(f"{SERIES}/data", h5py.SoftLink("/nowhere")),
    "data in its own group": link(f"{SERIES}/data", lambda file: file[SERIES]),
    "the file in itself": link(f"{SERIES}/rois", lambda file: file["/"]),
    "templates that are no more": referring_to_nothing,
    "indices out of range": put(f"{SHOWN}/data", data=np.full(4, 2**31, "u4")),
    "opaque traces": put(f"{SERIES}/data", data=np.zeros((60, 4), "V8")),
    "texts for traces": put(f"{SERIES}/data", data=np.full((60, 4), "1", object), dtype=TEXT),
    "ragged traces": put(f"{SERIES}/data", shape=(60, 4), dtype=h5py.vlen_dtype("f4")),
    "nothing for traces": put(f"{SERIES}/data", data=h5py.Empty("f4")),
    "regions out of range": put(f"{SERIES}/rois", data=np.array([0, 1, 2, 10**6])),
    "regions before the first": put(f"{SERIES}/rois", data=np.array([0, 1, 2, -5])),
    "timestamps of NaN": put(f"{SHOWN}/timestamps", data=np.array([1, np.nan, 3, 4])),
    "timestamps that fall": put(f"{SHOWN}/timestamps", data=np.array([4.0, 3, 2, 1])),
    "bomb": put(f"{SERIES}/data", shape=(2**26, 64), dtype="f4", chunks=(2**20, 64), compression=9),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name(name, tmp_path):
    path = tmp_path / "mouse.nwb"
    calcium(path, n_trials=4, behavior=False)
    with h5py.File(path, "r+") as file:
        REFUSED[name](file)
    with pytest.raises(ValueError, match=r"mouse\.nwb"):
        read_nwb(path)


@pytest.mark.slow
def test_chunks_that_are_larger_than_the_array_take_no_memory(tmp_path):
    path = tmp_path / "mouse.nwb"
    calcium(path, n_trials=4, behavior=False)
    expected = read_nwb(path).load()
    with h5py.File(path, "r+") as file:
        data = file[f"{SERIES}/data"][()]
        wide = {"data": data, "maxshape": (None, None), "chunks": (2**19, 256), "compression": 9}
        put(f"{SERIES}/data", **wide)(file)
    assert os.path.getsize(path) < 2**21
    with pytest.raises(ValueError, match=r"mouse\.nwb is no readable .*chunks of"):
        read_nwb(path)
    with h5py.File(path, "r+") as file:
        put(f"{SERIES}/data", **wide | {"chunks": (256, 4)})(file)
    np.testing.assert_array_equal(read_nwb(path)["responses"], expected["responses"])


def test_a_series_that_tells_no_unit_has_an_unknown_one(tmp_path):
    path = tmp_path / "mouse.nwb"
    calcium(path, n_trials=4, behavior=False)
    with h5py.File(path, "r+") as file:
        without(f"{SERIES}/data", "unit")(file)
    assert read_nwb(path)["responses"].attrs["units"] == "unknown"

"""Attributes and names come back as they were, or are refused before anything is written."""

import os

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import v1tlearn as v1


def recording(n_trials=3):
    stimuli = np.arange(n_trials * 24, dtype=np.uint8).reshape(n_trials, 1, 4, 6)
    responses = np.linspace(0, 1, n_trials * 2, dtype="f4").reshape(n_trials, 2)
    return xr.Dataset(
        {
            "stimuli": (("trial", "channel", "height", "width"), stimuli),
            "responses": (("trial", "neuron"), responses),
        },
        coords={"tier": ("trial", ["train"] * n_trials), "neuron": [4, 7]},
    )


def same(came, was):
    assert type(came) is type(was)
    if isinstance(was, np.ndarray):
        assert came.dtype == was.dtype
        np.testing.assert_array_equal(came, was)
    elif isinstance(was, list | tuple):
        assert len(came) == len(was)
        for one, other in zip(came, was, strict=True):
            same(one, other)
    else:
        np.testing.assert_array_equal(came, was)  # NaN is NaN


def same_attrs(came, was):
    assert set(came) == set(was)
    for name, value in was.items():
        same(came[name], value)


MEANT = [
    "units", "calendar", "dtype", "_NCProperties", "DIMENSION_LIST", "REFERENCE_LIST", "CLASS",
    "NAME", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict", "_Unsigned", "_Encoding",
    "grid_mapping", "bounds", "least_significant_digit", "valid_range", "v1tlearn_attributes",
    "v1tlearn_coordinates", "v1tlearn_dtype", "long_name", "e\u0301", "\xe9", "a/b", "a b", "",
    "n" * 300, "_x", "0",
]  # fmt: skip
REFUSED = {"_FillValue", "missing_value", "scale_factor", "add_offset", "coordinates"}
numbers = st.integers() | st.floats()
values = st.one_of(
    st.sampled_from(["ms since stimulus onset", "days", "s", "days since 1970-01-01", "noleap"]),
    st.text(max_size=5),
    numbers,
    st.lists(numbers, min_size=1, max_size=3),
    st.lists(st.text(max_size=3), min_size=1, max_size=3).map(tuple),
    npst.arrays(st.sampled_from(["u1", "i2", "i8", "f2", "f4", "f8"]), st.integers(1, 3)),
    st.sampled_from([np.float32(0.1), np.int8(3), np.float16(2), np.uint64(2**64 - 1)]),
)
attributes = st.dictionaries(st.sampled_from(MEANT) | st.text(max_size=4), values, max_size=4).map(
    lambda attrs: {name: value for name, value in attrs.items() if name not in REFUSED}
)


@settings(max_examples=15)
@given(attributes, attributes, attributes, attributes)
@example({"units": "ms since stimulus onset"}, {"units": "days"}, {"dtype": "bool"}, {"a": ""})
def test_attributes_come_back_as_they_were(tmp_path_factory, mouse, stimuli, responses, labels):
    path = tmp_path_factory.mktemp("attrs") / "r.nc"
    dataset = recording().assign_attrs(mouse)
    for name, attrs in (("stimuli", stimuli), ("responses", responses), ("neuron", labels)):
        dataset[name].attrs = attrs
    v1.save_recordings({"A": dataset}, path)
    with v1.open_recordings(path) as opened:
        same_attrs(opened["A"].attrs, mouse)
        same_attrs(opened["A"].stimuli.attrs, stimuli)
        same_attrs(opened["A"].responses.attrs, responses)
        same_attrs(opened["A"].neuron.attrs, labels)
        np.testing.assert_array_equal(opened["A"].responses, dataset.responses)
    v1.Trials({"A": dataset}).responses.to_netcdf(path.with_name("y.nc"))
    same_attrs(v1.Responses.open(path.with_name("y.nc"))["A"].attrs, responses)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_attributes_that_change_values_for_other_readers_are_refused(tmp_path, name):
    dataset = recording()
    dataset.responses.attrs[name] = 1.0
    with pytest.raises(ValueError, match=f"mouse 'A', responses: the attribute '{name}' has a"):
        v1.save_recordings({"A": dataset}, tmp_path / "r.nc")
    assert os.listdir(tmp_path) == []


def test_other_readers_see_plain_attributes(tmp_path):
    dataset = recording()
    dataset.responses.attrs = {"units": "s", "window": [0.05, 0.5], "n": 3, "names": ["a", "b"]}
    v1.save_recordings({"A": dataset}, tmp_path / "r.nc")
    with xr.open_dataset(tmp_path / "r.nc", group="A", decode_timedelta=False) as plain:
        attrs = plain.responses.attrs
        assert (attrs["units"], attrs["n"], attrs["names"]) == ("s", 3, ["a", "b"])
        np.testing.assert_array_equal(attrs["window"], [0.05, 0.5])


@pytest.mark.parametrize(
    "values",
    [
        np.array(["2020-01-01", "NaT", "2021-03-04T05:06:07"], "M8[s]"),
        np.array(["2020-01-01", "2021-03-04T05:06:07.123456789", "NaT"], "M8[ns]"),
        np.array([1, -5, 10**6], "m8[ms]"),
        np.array([True, False, True]),
        np.array(["", "a b", "e\u0301"]),
        np.array([b"ab", b"", b"c"]),
        np.array([1, 2, 2**64 - 1], np.uint64),
        np.array([np.nan, np.inf, -0.0]),
    ],
    ids=lambda values: str(values.dtype),
)
@pytest.mark.parametrize("name", ["when", "with a space", "_under", "é"])
@pytest.mark.parametrize("units", [{}, {"units": "ms since onset", "calendar": "mine"}])
def test_labels_come_back_as_they_were(tmp_path, values, name, units):
    dataset = recording().assign_coords({name: ("trial", values, units)})
    dataset["data " + name] = ("trial", values)
    v1.save_recordings({"A": dataset}, tmp_path / "r.nc")
    with v1.open_recordings(tmp_path / "r.nc") as opened:
        came = opened["A"].to_dataset()
        assert set(came.coords) == set(dataset.coords)
        for variable in (name, "data " + name):
            assert came[variable].dtype.kind == values.dtype.kind
            assert values.dtype.kind in "US" or came[variable].dtype == values.dtype
            np.testing.assert_array_equal(came[variable], values)
        assert came[name].attrs == units


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"odd": ("trial", np.array(["a", 1, None], object))}, r"'A', odd: 2 of 3 .* number 1, is"),
        ({"odd": ("trial", ["a\0b", "", ""])}, r"'A', odd: 1 of 3 .*without\s+zero characters"),
        ({"odd": ("trial", ["\ud800", "", ""])}, r"'A', odd: 1 of 3 values are no text"),
        ({"odd": ("trial", np.zeros(3, "c8"))}, r"'A', odd: netCDF has no dtype complex64"),
        ({"odd": ("trial", np.zeros(3, "f2"))}, r"'A', odd: netCDF has no dtype float16"),
        ({"odd": ("trial", np.zeros(3, "i4,f4"))}, r"'A', odd: netCDF has no dtype"),
        ({"odd": ("trial", pd.Categorical(["a", "b", "a"]))}, r"'A', odd: netCDF has no dtype cat"),
        ({"e\u0301": ("trial", [1, 2, 3])}, r"'A', 'e.*': netCDF cannot name .* the form NFC"),
        ({"n" * 300: ("trial", [1, 2, 3])}, r"'A', 'nnn.*': netCDF cannot name"),
        ({"a/b": ("trial", [1, 2, 3])}, r"'A', 'a/b': netCDF cannot name a variable"),
        ({5: ("trial", [1, 2, 3])}, r"'A', 5: netCDF cannot name a variable"),
        ({"odd": ("a/b", [1, 2, 3])}, r"'A', 'a/b': netCDF cannot name a variable or dimension"),
    ],
)
def test_labels_that_cannot_be_held_are_refused_by_name(tmp_path, labels, message):
    with pytest.raises(ValueError, match=rf"(?s)mouse {message}"):
        v1.save_recordings({"A": recording().assign_coords(labels)}, tmp_path / "r.nc")
    assert os.listdir(tmp_path) == []


def test_a_multiindex_is_refused_by_name(tmp_path):
    levels = pd.MultiIndex.from_arrays([["a", "a", "b"], [1, 2, 1]], names=["day", "run"])
    dataset = recording().assign_coords(xr.Coordinates.from_pandas_multiindex(levels, "trial"))
    with pytest.raises(ValueError, match=r"mouse 'A', \w+: netCDF cannot hold a MultiIndex"):
        v1.save_recordings({"A": dataset}, tmp_path / "r.nc")
    with pytest.raises(ValueError, match=r"mouse 'A', \w+: netCDF cannot hold a MultiIndex"):
        v1.Trials({"A": dataset}).responses.to_netcdf(tmp_path / "r.nc")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mouse", ["e\u0301", "m" * 300, "a\ud800", "m\x01b"])
def test_mice_that_cannot_be_named_are_refused(tmp_path, mouse):
    with pytest.raises(ValueError, match=r"mouse '.*netCDF cannot name a group so"):
        v1.save_recordings({mouse: recording()}, tmp_path / "r.nc")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["r?x=1.nc", "r#mode=zarr.nc", "r%20.nc", "[x]=y z.nc", "a:b.nc"])
def test_names_of_files_are_no_addresses(tmp_path, name):
    v1.save_recordings({"A": recording()}, tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    np.testing.assert_array_equal(v1.Trials.open(tmp_path / name).tiers, ["train"] * 3)

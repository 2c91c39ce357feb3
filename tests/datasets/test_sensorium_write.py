import json
import os
import zipfile

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tests.datasets.sensorium_files import COLOR, GRAY, recording, write_by_hand
from v1tlearn.datasets.schema import BEHAVIOR_NAMES
from v1tlearn.datasets.sensorium import read_sensorium, write_sensorium


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("color", [False, True])
def test_what_was_read_is_written_and_read_back_identical(tmp_path, zipped, color):
    name = COLOR if color else GRAY
    write_by_hand(tmp_path / "in" / name, image_shape=(1 + color, 3, 4), color=color)
    first = read_sensorium(tmp_path / "in")
    paths = write_sensorium(first, tmp_path / "out", zip=zipped)
    assert [path.suffix == ".zip" for path in paths] == [zipped]
    assert sorted(os.listdir(tmp_path / "out")) == [path.name for path in paths]
    second = read_sensorium(paths)
    xr.testing.assert_identical(first, second)
    assert second.children[next(iter(first.children))].stimuli.dtype == np.uint8
    stem = "colorframeprojector" if color else "frame"
    assert set(_files(paths[0], "meta/trials")) == {
        "tiers.npy",
        "trial_idx.npy",
        *(f"{stem}_{name}.npy" for name in ("image_id", "image_class", "trial_ts")),
    }


@pytest.mark.parametrize("zipped", [False, True])
def test_positions_are_written_as_variable_or_as_coordinate(tmp_path, zipped):
    position = (("neuron", "axis"), np.arange(9, dtype="f4").reshape(3, 3), {"units": "um"})
    for name, dataset in {
        "variable": recording(position=position),
        "coordinate": recording().assign_coords(position=position),
    }.items():
        given = {"m": dataset}
        write_sensorium(given, tmp_path / name, zip=zipped)
        assert given["m"] is dataset
        found = read_sensorium(tmp_path / name)["m"].to_dataset()
        np.testing.assert_array_equal(found["position"], position[1])
        assert found["position"].attrs == {"units": "um"}
        assert "position" in found.coords


def _files(path, folder):
    if path.is_dir():
        return os.listdir(path / folder)
    names = zipfile.ZipFile(path).namelist()
    return [name.split("/")[-1] for name in names if name.startswith(folder + "/")]


def test_what_the_layout_has_no_place_for_comes_back_too(tmp_path):
    dataset = recording(expected_responses=(("trial", "neuron"), np.ones((4, 3), "f4")))
    dataset = dataset.assign_coords(
        trial=[7, 8, 9, 10],
        temperature=("trial", [1.5, 2.5, 3.5, 4.5], {"units": "degC"}),
        trial_temperature=("trial", [1, 2, 3, 4]),
        trial_tiers=("trial", [0, 1, 2, 3]),
        unit_ids=("trial", [1, 1, 1, 1]),
        neuron=["a", "b", "c"],
        depth=("neuron", [1, 2, 3]),
    )
    dataset.attrs = {"description": "µm²", "rate": 8.0, "values": np.array([1, 2])}
    dataset.responses.attrs = {"units": "spikes/s"}
    write_sensorium({"a.b c": dataset}, tmp_path)
    xr.testing.assert_identical(read_sensorium(tmp_path)["a.b c"].to_dataset(), dataset)


@given(
    dtype=st.sampled_from(["u1", "f4"]),
    n_trials=st.integers(1, 12),
    shape=npst.array_shapes(min_dims=3, max_dims=3, max_side=5),
    n_neurons=st.integers(1, 6),
    n_columns=st.sampled_from([0, 2, 3, 5]),
    zipped=st.booleans(),
    data=st.data(),
)
def test_any_recording_is_read_back_identical(
    tmp_path_factory, dtype, n_trials, shape, n_neurons, n_columns, zipped, data
):
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
    pixels = finite if dtype == "f4" else st.integers(0, 255)
    texts = st.text("abcé/0", min_size=1, max_size=9)
    dataset = xr.Dataset(
        {
            "stimuli": (
                ("trial", "channel", "height", "width"),
                data.draw(npst.arrays(dtype, (n_trials, *shape), elements=pixels)),
            ),
            "responses": (
                ("trial", "neuron"),
                data.draw(
                    npst.arrays("f4", (n_trials, n_neurons), elements=finite | st.just(np.nan))
                ),
            ),
        },
        coords={
            "tier": ("trial", np.array(["train"] * n_trials)),
            "image_id": ("trial", data.draw(npst.arrays("U9", n_trials, elements=texts))),
            "trial_id": ("trial", data.draw(npst.arrays("i8", n_trials))),
        },
    )
    if n_columns:
        names = BEHAVIOR_NAMES[3:] if n_columns == 2 else BEHAVIOR_NAMES[:n_columns]
        values = data.draw(npst.arrays("f4", (n_trials, n_columns), elements=finite))
        dataset["behaviors"] = (("trial", "behavior"), values)
        dataset["behavior"] = list(names)
    folder = tmp_path_factory.mktemp("any")
    write_sensorium({"A": dataset}, folder, zip=zipped)
    read = read_sensorium(folder)["A"].to_dataset()
    xr.testing.assert_identical(read, dataset)
    assert {n: v.dtype.kind for n, v in read.variables.items()} == {
        n: v.dtype.kind for n, v in dataset.variables.items()
    }


def test_equal_recordings_give_equal_zips(tmp_path):
    for name in "ab":
        (path,) = write_sensorium({"A": recording()}, tmp_path / name, zip=True)
    assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()


def test_nothing_is_overwritten_and_nothing_half_written_stays(tmp_path):
    write_sensorium({"A": recording()}, tmp_path)
    with pytest.raises(FileExistsError, match=r"mouse 'A'.*exists already"):
        write_sensorium({"B": recording(), "A": recording()}, tmp_path)
    assert os.listdir(tmp_path) == ["staticA-GrayImageNet"]
    broken = recording()
    broken.attrs["function"] = len
    for zipped in (False, True):
        with pytest.raises(ValueError, match=r"mouse 'B', attributes of the recording: .*JSON"):
            write_sensorium({"B": broken}, tmp_path, zip=zipped)
        assert os.listdir(tmp_path) == ["staticA-GrayImageNet"]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (recording().drop_vars("tier"), "tier is missing"),
        (recording().drop_vars("responses"), "responses is missing"),
        (recording(spectrum=(("trial", "f"), np.ones((4, 2)))), "spectrum: .* no place for it"),
        (recording(mood=("trial", np.ones(4))), "mood: only coordinates can be labels"),
        (
            recording(behaviors=(("trial", "behavior"), np.ones((4, 2)))).assign_coords(
                behavior=["running_speed", "pupil_dilation"]
            ),
            "behavior: columns are running_speed, pupil_dilation; the Sensorium layout holds",
        ),
        (
            recording().assign_coords(notes=("trial", np.array([1, "a", None, 2], object))),
            "notes: holds Python objects",
        ),
    ],
)
def test_a_recording_that_the_layout_cannot_hold_is_refused(tmp_path, dataset, message):
    with pytest.raises(ValueError, match=f"mouse 'A'.*{message}"):
        write_sensorium({"A": dataset}, tmp_path)


def test_written_files_have_the_published_layout(tmp_path):
    write_by_hand(tmp_path / GRAY)
    (root,) = write_sensorium(read_sensorium(tmp_path / GRAY), tmp_path / "out")
    assert root.name == "static1-2-3-GrayImageNet"
    assert json.loads((root / "config.json").read_text())["links"] == {}
    original = {p.relative_to(tmp_path / GRAY) for p in (tmp_path / GRAY).rglob("*.npy")}
    assert {p.relative_to(root) for p in root.rglob("*.npy")} == original
    for name in sorted(original):
        theirs, ours = np.load(tmp_path / GRAY / name), np.load(root / name)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-6) if ours.dtype.kind == "f" else (
            np.testing.assert_array_equal(ours, theirs)
        )

"""Readers and writers that are given what another one takes: that one is named."""

import re

import pytest

import v1tlearn as v1
from v1tlearn.trials import Trials


@pytest.fixture(scope="module")
def recordings():
    return v1.make_v1_recordings(
        n_mice=1, n_neurons=3, n_trials=8, n_test_images=2, n_repeats=2, image_shape=(8, 8)
    )


@pytest.fixture(scope="module")
def folder(recordings, tmp_path_factory):
    """A netCDF file, a folder and a zip of a mouse, and a text."""
    path = tmp_path_factory.mktemp("files")
    v1.save_recordings(recordings, path / "r.nc")
    v1.write_sensorium(recordings, path / "folders")
    v1.write_sensorium(recordings, path / "zips", zip=True)
    (path / "notes.txt").write_text("a text")
    return path


def says(*parts):
    """Match a message that holds all parts, in this order."""
    return "(?s)" + ".*".join(re.escape(part) for part in parts)


def test_netcdf_for_the_reader_of_sensorium(folder):
    with pytest.raises(ValueError, match=says("r.nc", "open_recordings('", "Trials.open")):
        v1.read_sensorium(folder / "r.nc")


def test_what_is_neither(folder):
    with pytest.raises(ValueError, match=says("notes.txt", "a folder of these")) as error:
        v1.read_sensorium(folder / "notes.txt")
    assert "truncated" not in str(error.value)


def test_recordings_for_the_reader(recordings):
    with pytest.raises(TypeError, match=says("path is a DataTree", "read_sensorium(path)")):
        v1.read_sensorium(recordings)


def test_paths_of_any_kind_in_any_sequence(recordings, folder):
    paths = (folder / "zips").glob("*.zip")
    assert list(v1.read_sensorium(paths).children) == list(recordings.children)


def test_arguments_in_the_other_order(recordings, tmp_path):
    with pytest.raises(TypeError, match=says("save_recordings(recordings, path)")):
        v1.save_recordings(tmp_path / "r.nc", recordings)
    with pytest.raises(TypeError, match=says("write_sensorium(recordings, folder)")):
        v1.write_sensorium(tmp_path, recordings)


def test_trials_and_paths_for_recordings(recordings, folder, tmp_path):
    trials = Trials(recordings)
    for write in (v1.save_recordings, v1.write_sensorium):
        with pytest.raises(TypeError, match=says("Trials came", "trials.recordings")):
            write(trials, tmp_path / "x.nc")
    with pytest.raises(TypeError, match=says("Trials came", "trials.recordings")):
        v1.validate_recordings(trials)
    with pytest.raises(TypeError, match=says("open it, v1tlearn.open_recordings('")):
        v1.validate_recordings(folder / "r.nc")


def test_a_folder_that_is_not_there(recordings, tmp_path):
    with pytest.raises(FileNotFoundError, match=says("there is no folder", "nowhere", "make it")):
        v1.save_recordings(recordings, tmp_path / "nowhere" / "r.nc")

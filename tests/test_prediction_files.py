"""Predictions that are written part by part are those of all trials at once."""

import gc
import tracemalloc

import numpy as np
import pytest
import xarray as xr
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from tests.mice import two_mice

SMALL = {"n_layers": 1, "hidden_channels": 2, "input_kernel": 3, "batch_size": 16}
SMALL |= {"max_epochs": 1, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def recordings():
    return two_mice()


@pytest.fixture(scope="module")
def model(recordings):
    return v1.CNNRegressor(**SMALL).fit(v1.Trials(recordings).sel(tier="train"))


def same_files(one, other):
    one, other = v1.Responses.open(one), v1.Responses.open(other)
    assert one.name == other.name == "predictions"
    assert one.mouse_ids.tolist() == other.mouse_ids.tolist()
    for mouse in one.mice:
        xr.testing.assert_allclose(one[mouse], other[mouse], rtol=1e-5)
        labels = (r[mouse].coords.to_dataset() for r in (one, other))
        xr.testing.assert_identical(*labels)
    assert one.image_ids.tolist() == other.image_ids.tolist()


class Counted:
    """A model that notes how many trials it is given at a time."""

    def __init__(self, model):
        self.model, self.given = model, []

    def predict(self, trials):
        self.given.append(len(trials))
        return self.model.predict(trials)


@pytest.mark.parametrize(("values", "at_once"), [(1, 1), (70, 14), (10**6, 60)])
def test_parts_make_the_whole(model, recordings, tmp_path, values, at_once):
    rng = np.random.default_rng(0)
    trials = v1.Trials(recordings)
    trials = trials[rng.permutation(len(trials))]  # mice in turn
    counted = Counted(model)
    v1.save_predictions(counted, trials, tmp_path / "a.nc", part_bytes=4 * values)
    assert max(counted.given) == at_once
    assert sum(counted.given) == len(trials)
    model.predict(trials).to_netcdf(tmp_path / "b.nc")
    same_files(tmp_path / "a.nc", tmp_path / "b.nc")


class Large:
    """A model of many neurons that notes how much memory is held when it is asked."""

    def __init__(self, n_neurons):
        self.n_neurons, self.held = n_neurons, []

    def predict(self, trials):
        gc.collect()
        self.held.append(tracemalloc.get_traced_memory()[0])
        values = np.ones((len(trials), self.n_neurons), np.float32)
        return v1.Responses.from_arrays(dict.fromkeys(trials.mice, values), like=trials)


def test_no_part_is_held_while_the_next_one_is_made(tmp_path):
    n, at_once, n_neurons = 60, 20, 5000
    trials = v1.Trials.from_arrays(
        np.zeros((n, 1, 4, 4), np.uint8), None, np.ones((n, n_neurons), np.float32)
    )
    model, part = Large(n_neurons), at_once * n_neurons * 4
    tracemalloc.start()
    try:
        v1.save_predictions(model, trials, tmp_path / "a.nc", part_bytes=part)
    finally:
        tracemalloc.stop()
    _, *parts = model.held  # the first is one trial, which tells the shape
    assert len(parts) == n // at_once
    assert max(parts) - parts[0] < part / 2


def test_pipelines_and_mice_without_unit_ids(recordings, tmp_path):
    trials = v1.Trials({"A": recordings["A"].to_dataset().drop_vars("neuron")})
    pipeline = make_pipeline(v1.TrialStandardizer(), v1.CNNRegressor(**SMALL, standardize=False))
    pipeline.fit(trials.sel(tier="train"))
    v1.save_predictions(pipeline, trials, tmp_path / "a.nc", part_bytes=100)
    pipeline.predict(trials).to_netcdf(tmp_path / "b.nc")
    same_files(tmp_path / "a.nc", tmp_path / "b.nc")


def test_movies_of_different_lengths(tmp_path):
    trials = v1.Trials(v1.make_movie_recordings(1, 4, 6, 2, 2, random_state=0))
    recording = trials["A"].assign_coords(n_frames=("trial", 40 + np.arange(len(trials)) % 20))
    there = recording["time"].dims[0], np.arange(recording.sizes["time"])
    inside = xr.DataArray(there[1], dims=there[0]) < recording["n_frames"]
    recording = recording.assign(
        {n: recording[n].where(inside) for n in ("stimuli", "responses", "behaviors")
         if n in recording}
    )  # fmt: skip
    trials = v1.Trials({"A": recording.drop_vars("expected_responses", errors="ignore")})
    model = v1.MovieLNRegressor(n_lags=3, max_epochs=1, random_state=0, device="cpu")
    model.fit(trials.sel(tier="train"))
    v1.save_predictions(model, trials, tmp_path / "a.nc", part_bytes=1)
    model.predict(trials).to_netcdf(tmp_path / "b.nc")
    same_files(tmp_path / "a.nc", tmp_path / "b.nc")


def test_an_earlier_file_stays_until_the_new_one_is_complete(model, recordings, tmp_path):
    trials, path = v1.Trials(recordings), tmp_path / "a.nc"
    v1.save_predictions(model, trials, path)
    before = path.read_bytes()

    class Fails(Counted):
        def predict(self, trials):
            if len(self.given) == 4:
                raise KeyboardInterrupt
            return super().predict(trials)

    with pytest.raises(KeyboardInterrupt):
        v1.save_predictions(Fails(model), trials, path, part_bytes=200)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.nc"]


def test_recordings_are_not_replaced_by_what_is_made_of_them(model, recordings, tmp_path):
    path = tmp_path / "r.nc"
    v1.save_recordings(recordings, path)
    before = path.read_bytes()
    with v1.open_recordings(path) as opened:
        trials = v1.Trials(opened)
        for write in (
            lambda: v1.save_predictions(model, trials, path),
            lambda: trials.responses.to_netcdf(path),
        ):
            with pytest.raises(FileExistsError, match=r"r\.nc holds recordings, and their stimuli"):
                write()
    assert path.read_bytes() == before
    path.write_bytes(before[: len(before) // 2])  # what nobody can read may go
    v1.Trials(recordings).responses.to_netcdf(path)
    assert v1.Responses.open(path).mice == v1.Trials(recordings).mice


def test_a_byte_that_changed_is_told(model, recordings, tmp_path):
    path = tmp_path / "a.nc"
    v1.save_predictions(model, v1.Trials(recordings), path)
    values = v1.Responses.open(path).get("B")
    content = bytearray(path.read_bytes())
    content[content.find(values[3].tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.nc is damaged at values of '/B'"):
        v1.Responses.open(path)


def test_wrong_arguments(model, recordings, tmp_path):
    trials = v1.Trials(recordings)
    with pytest.raises(TypeError, match="trials is a DataTree: expected Trials"):
        v1.save_predictions(model, recordings, tmp_path / "a.nc")
    with pytest.raises(ValueError, match="part_bytes=0"):
        v1.save_predictions(model, trials, tmp_path / "a.nc", part_bytes=0)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        v1.save_predictions(model, trials, tmp_path / "none" / "a.nc")
    with pytest.raises(ValueError, match="no trials"):
        v1.save_predictions(model, trials[:0], tmp_path / "a.nc")

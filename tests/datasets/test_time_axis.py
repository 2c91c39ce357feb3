"""Movies in recordings: what fits the schema, what is refused, and how files hold them."""

import tracemalloc

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from v1tlearn.datasets.schema import check_structure
from v1tlearn.datasets.time_axis import frame_rate_of, frames_of, time_coordinate


def movies(n_trials=4, n_frames=10, n_neurons=3, dtype="u1"):
    rng = np.random.default_rng(0)
    counts = np.full(n_trials, n_frames)
    counts[1] = 6
    padding = (np.arange(n_frames) >= counts[:, None])[..., None]
    responses = rng.random((n_trials, n_frames, n_neurons)).astype("f4")
    stimuli = rng.integers(0, 256, (n_trials, n_frames, 1, 5, 7)).astype(dtype)
    return xr.Dataset(
        {
            "stimuli": (("trial", "time", "channel", "height", "width"), stimuli),
            "behaviors": (("trial", "time", "behavior"), rng.random((n_trials, n_frames, 3))),
            "responses": (("trial", "time", "neuron"), np.where(padding, np.nan, responses)),
        },
        coords={
            "behavior": ["pupil_dilation", "pupil_dilation_derivative", "running_speed"],
            "time": time_coordinate(n_frames, 20.0),
            "n_frames": ("trial", counts),
            "image_id": ("trial", np.arange(n_trials) % 3),
        },
    )


def with_value(name, index, value):
    def change(dataset):
        values = dataset[name].values.copy()
        values[index] = value
        return dataset.assign({name: (dataset[name].dims, values)})

    return change


def at_times(times, **attrs):
    return lambda dataset: dataset.assign_coords(time=("time", np.asarray(times), attrs))


def test_movies_are_recordings_with_and_without_lengths_of_their_own():
    v1.validate_recordings({"A": movies()})
    v1.validate_recordings({"A": movies().isel(trial=[0, 2]).drop_vars("n_frames")})
    v1.validate_recordings({"A": movies()[["stimuli"]]})


def test_what_stands_behind_the_last_frame_of_stimuli_and_behavior_is_not_looked_at():
    padded = with_value("stimuli", (1, 6), np.nan)(movies(dtype="f4"))
    v1.validate_recordings({"A": with_value("behaviors", (1, 7), np.inf)(padded)})


def test_times_may_be_rounded_to_float32_far_from_zero():
    times = (1000 + np.arange(10) / 30).astype("f4")
    v1.validate_recordings({"A": at_times(times)(movies())})


def test_the_frame_rate_is_told_by_the_times_where_they_are_seconds():
    assert frame_rate_of(movies()) == pytest.approx(20.0)
    assert frame_rate_of(movies().assign_coords(time=time_coordinate(10, None))) is None
    assert frame_rate_of(movies().isel(time=[0])) is None


@pytest.mark.parametrize("frame_rate", [29.97, 30, 60, 1000 / 7])
@pytest.mark.parametrize("n_frames", [2, 84, 90, 108_000])
def test_the_frame_rate_is_the_one_that_was_given(frame_rate, n_frames):
    coords = {"time": time_coordinate(n_frames, frame_rate)}
    assert frame_rate_of(xr.Dataset(coords=coords)) == float(f"{frame_rate:.12g}")


def test_frames_are_counted_by_n_frames_or_by_the_time_axis():
    assert frames_of(movies()).tolist() == [10, 6, 10, 10]
    assert frames_of(movies().drop_vars("n_frames")).tolist() == [10, 10, 10, 10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("time"), "mouse 'A', time: the 10 frames .*assign_coords"),
        (at_times(np.arange(10), units="ms"), "time: is in 'ms', expected seconds"),
        (at_times(list("abcdefghij")), "time: dtype is <U1, expected seconds"),
        (at_times([0, 1, 2, 3, np.nan, 5, 6, 7, 8, 9]), "time: holds NaN"),
        (at_times([0, 1, 2, 3, 3, 5, 6, 7, 8, 9]), "time: does not rise, 3 s .* at frame 4"),
        (at_times([0, 1, 2, 3, 4, 5.4, 6, 7, 8, 9]), "not even, frame 5 comes 1.4 s .*average 1 s"),
        (with_value("n_frames", 2, 11), "n_frames: trial 2 has 11 frames, expected 1 to 10"),
        (with_value("n_frames", 2, 0), "n_frames: trial 2 has 0 frames"),
        (
            lambda d: d.assign_coords(n_frames=d.n_frames.astype(float)),
            "n_frames: dtype is float64",
        ),
        (
            lambda d: d.assign(responses=d.responses.fillna(0).astype(int)),
            "responses: dtype is int64, but trial 1 ends after 6 of 10 frames",
        ),
        (
            lambda d: d.assign(responses=d.responses.isel(time=0, drop=True)),
            r"responses: dims are \('trial', 'neuron'\).*'time'.* because stimuli have a time axis",
        ),
        (
            lambda d: d.assign(stimuli=d.stimuli.isel(time=0, drop=True)),
            "behaviors: dims are .* because stimuli have no time axis",
        ),
        (
            lambda d: d[["stimuli"]].isel(time=0),
            "time: came for stimuli without a dimension 'time'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        check_structure("A", change(movies()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_value("stimuli", (3, 9, 0, 1, 1), np.nan), "stimuli: nan in frame 9 of trial 3"),
        (with_value("behaviors", (1, 5, 1), np.nan), "behaviors: nan in frame 5 of trial 1, which"),
        (with_value("responses", (2, 4, 1), np.inf), "responses: inf in frame 4 of trial 2"),
        (with_value("responses", (1, 8, 2), 0.5), "there are responses in frame 8 of trial 1"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_frame_and_trial(change, message):
    with pytest.raises(ValueError, match=message):
        v1.validate_recordings({"A": change(movies(dtype="f4"))})


def test_nan_in_a_frame_that_exists_means_not_recorded():
    v1.validate_recordings({"A": with_value("responses", (1, 3, 1), np.nan)(movies())})


@pytest.mark.parametrize("compression", ["zlib", None])
def test_movies_come_back_from_a_file_as_they_were(tmp_path, compression):
    path = tmp_path / "movies.nc"
    v1.save_recordings({"A": movies(), "B": movies(3, 12)}, path, compression=compression)
    with v1.open_recordings(path) as tree:
        assert tree["A"].to_dataset().load().identical(movies())
        assert tree["B"].to_dataset().load().identical(movies(3, 12))


@pytest.mark.parametrize("compression", ["zlib", None])
def test_a_part_of_a_movie_is_read_without_the_rest(tmp_path, compression):
    n_frames = 2000
    whole = movies(2, n_frames).isel(trial=[0])
    stimuli = np.random.default_rng(0).integers(0, 256, (1, n_frames, 1, 40, 60)).astype("u1")
    whole = whole.assign(stimuli=(whole.stimuli.dims, stimuli))
    path = tmp_path / "movies.nc"
    v1.save_recordings({"A": whole}, path, compression=compression)
    with v1.open_recordings(path) as tree:
        stored = tree["A"]["stimuli"]
        assert stored.encoding["chunksizes"] == (1, 40, 1, 40, 60)  # two seconds at 20 Hz
        tracemalloc.start()
        part = stored[0, 500:540].values
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        np.testing.assert_array_equal(part, stimuli[0, 500:540])
        assert most < stimuli.nbytes / 5


def test_writing_a_movie_never_holds_it_whole(tmp_path):
    one, other = tmp_path / "one.nc", tmp_path / "other.nc"
    n_frames = 20_000
    stimuli = np.zeros((1, n_frames, 1, 40, 60), "u1")
    whole = movies(2, n_frames)[["stimuli"]].isel(trial=[0])
    v1.save_recordings({"A": whole.assign(stimuli=(whole.stimuli.dims, stimuli))}, one)
    with v1.open_recordings(one) as tree:
        tracemalloc.start()
        v1.save_recordings(tree, other)
        v1.validate_recordings(tree)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < stimuli.nbytes

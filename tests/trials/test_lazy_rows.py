"""Folded and cut movies are read as arrays that were folded and cut by hand, however indexed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import v1tlearn as v1
from v1tlearn.trials.cutting import cut_in_time
from v1tlearn.trials.folding import fold_time

COUNTS = [6, 4, 7, 5]
SPANS = [[(0, 3), (4, 6)], [(1, 9)], [], [(2, 4)]]


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """Movies in memory, and in a file."""
    rng = np.random.default_rng(0)
    movies = [rng.integers(0, 256, (n, 1, 4, 5)).astype("u1") for n in COUNTS]
    responses = [rng.random((n, 3)).astype("f4") for n in COUNTS]
    trials = v1.Trials.from_arrays(
        {"A": movies}, None, {"A": responses}, image_ids={"A": [*"abca"]}
    )
    path = tmp_path_factory.mktemp("movies") / "movies.nc"
    trials.to_netcdf(path)
    return trials, v1.Trials.open(path)


def keys(size):
    return st.one_of(
        st.integers(0, size - 1),
        st.slices(size).filter(lambda key: (key.step or 1) > 0),  # of others xarray fails at some
        st.lists(st.integers(0, size - 1), min_size=1, max_size=6).map(np.array),
    )


@pytest.mark.parametrize("stored", [False, True])
@given(data=st.data())
def test_frames_are_read_as_those_of_an_array(views, stored, data):
    folded = fold_time(views[stored])["A"]["stimuli"]
    whole = np.concatenate(
        [m[:n] for m, n in zip(views[0].get("stimuli", "A"), COUNTS, strict=True)]
    )
    rows, columns = data.draw(keys(len(whole))), data.draw(keys(5))
    wanted = whole[rows][..., columns]
    np.testing.assert_array_equal(folded[rows].isel(width=columns).values, wanted)
    np.testing.assert_array_equal(folded.isel(trial=rows, width=columns).values, wanted)


@pytest.mark.parametrize("stored", [False, True])
@given(data=st.data())
def test_parts_are_read_as_those_of_an_array(views, stored, data):
    cut = cut_in_time(views[stored], SPANS)["A"]["responses"]
    values = views[0].get("responses", "A")
    whole = np.full((4, 3, 3), np.nan, "f4")
    parts = [values[0, 0:3], values[0, 4:6], values[1, 1:4], values[3, 2:4]]
    for place, part in enumerate(parts):
        whole[place, : len(part)] = part
    rows, frames = data.draw(keys(4)), data.draw(keys(3))
    found = cut.isel(trial=rows, time=frames).values
    wanted = (
        whole[rows][frames]
        if np.ndim(rows) == 0 and isinstance(rows, int)
        else whole[rows][:, frames]
    )
    np.testing.assert_array_equal(found, wanted)


def test_parts_bear_the_labels_of_their_movies(views):
    cut = cut_in_time(views[0], SPANS)
    assert cut.image_ids.tolist() == ["a[0:3]", "a[4:6]", "b[1:9]", "a[2:4]"]
    assert cut.n_frames.tolist() == [3, 2, 3, 2]
    frames = fold_time(views[0])
    assert frames.image_ids.tolist()[:7] == [*(f"a[{n}]" for n in range(6)), "b[0]"]
    assert set(fold_time(views[0], "movies").image_ids) == {*"abc"}


def keys_within(n, most):
    return st.lists(st.integers(0, n - 1), min_size=1, max_size=most).map(np.array)


@pytest.fixture(scope="module")
def long_movies(tmp_path_factory):
    """Two movies of several chunks each, in a file; and what stands there, frame after frame."""
    rng = np.random.default_rng(1)
    movies = [rng.integers(0, 256, (n, 1, 2, 3)).astype("u1") for n in (190, 130)]
    path = tmp_path_factory.mktemp("movies") / "long.nc"
    v1.Trials.from_arrays({"A": movies}, frame_rate=30.0).to_netcdf(path)
    return fold_time(v1.Trials.open(path), None), np.concatenate(movies)


@given(st.one_of(keys_within(320, 6), keys_within(320, 200), keys_within(90, 60)))
def test_scattered_frames_of_files_come_in_the_order_asked_for(long_movies, key):
    """Few of a movie, or many near each other, and some of them again."""
    frames, expected = long_movies
    variable = frames.recordings["A"]["stimuli"].variable
    np.testing.assert_array_equal(np.asarray(variable[key]), expected[key])
    np.testing.assert_array_equal(frames[key].get("stimuli", "A"), expected[key])

"""Views of movies: one trial is a movie, and ends where its frames end."""

import pickle

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1


@pytest.fixture(scope="module")
def tree():
    return v1.make_movie_recordings(2, [3, 4], 6, 2, 3, n_frames=(12, 20), random_state=0)


@pytest.fixture(scope="module")
def trials(tree):
    return v1.Trials(tree)


def movies(n=3, lengths=(8, 6, 8), columns=3, neurons=4, seed=0):
    """Lists of movies, behaviour and responses."""
    rng = np.random.default_rng(seed)
    stimuli = [rng.integers(0, 256, (k, 1, 5, 7)).astype("u1") for k in lengths[:n]]
    behaviors = [rng.random((k, columns)) for k in lengths[:n]]
    responses = [rng.random((k, neurons)).astype("f4") for k in lengths[:n]]
    return stimuli, behaviors, responses


def test_a_movie_is_a_trial_that_tells_how_long_it_is(tree, trials):
    assert len(trials) == 24
    wanted = np.concatenate([tree[mouse]["n_frames"].values for mouse in ("A", "B")])
    np.testing.assert_array_equal(trials.n_frames, wanted)
    assert trials.frame_rate("A") == pytest.approx(30)
    turned = trials[::-1]
    np.testing.assert_array_equal(turned.n_frames, wanted[::-1])
    assert len(trials.sel(tier="test")) == 12


def test_trials_without_n_frames_last_as_long_as_the_time_axis():
    one = v1.Trials.from_arrays(np.zeros((2, 5, 1, 4, 4), "u1"), frame_rate=10)
    np.testing.assert_array_equal(one.n_frames, [5, 5])
    assert v1.Trials.from_arrays(np.zeros((2, 1, 4, 4), "u1")).n_frames is None


def test_text_and_page_tell_frames_rate_and_seconds(trials):
    text, page = repr(trials), trials._repr_html_()
    shortest, longest = trials.sel(mouse_id="A").n_frames.min(), trials.n_frames.max()
    seconds = trials.sel(mouse_id="A").n_frames.sum() / 30
    for told in (f"{shortest}–{longest}", "30 Hz", f"{seconds:.4g} s"):
        assert told in text
        assert told in page
    assert "1 × 18 × 32" in page
    assert "30 Hz" in repr(trials.responses)


def test_responses_are_labelled_with_time(tree, trials):
    responses = trials.responses["A"]
    assert responses.dims == ("trial", "time", "neuron")
    xr.testing.assert_equal(responses["time"], tree["A"]["time"])
    ragged = np.asarray(trials.responses)
    assert [len(movie) for movie in ragged] == trials.n_frames.tolist()
    assert all(np.isfinite(movie).all() for movie in ragged)
    np.testing.assert_array_equal(ragged[0], tree["A"]["responses"].values[0, : len(ragged[0])])


def test_inputs_are_labelled_with_time(trials):
    assert trials.stimuli["A"].dims == ("trial", "time", "channel", "height", "width")
    assert trials.behaviors["A"].dims == ("trial", "time", "behavior")
    assert [len(movie) for movie in np.asarray(trials.stimuli)] == trials.n_frames.tolist()


def test_arithmetic_and_selected_neurons(trials):
    noise = trials.responses - trials.expected_responses
    wanted = trials.get("responses", "B") - trials.get("expected_responses", "B")
    np.testing.assert_array_equal(noise.get("B"), wanted)
    some = trials.sel(neuron={"B": [3, 1]})
    np.testing.assert_array_equal(
        some.responses.get("B"), trials.get("responses", "B")[..., [2, 0]]
    )
    np.testing.assert_array_equal(some.get("responses", "B"), some.responses.get("B"))


def test_means_over_repeats_frame_by_frame(trials):
    test = trials.sel(tier="test", mouse_id="A")
    means = test.responses.mean("image_id")
    assert len(means) == 2
    values = test.get("responses", "A")
    for place, image in enumerate(means.image_ids):
        own = values[test.image_ids == image]
        frames = means.n_frames[place]
        np.testing.assert_allclose(means.get("A")[place, :frames], own[:, :frames].mean(0), 1e-6)
        assert np.isnan(means.get("A")[place, frames:]).all()


def test_means_over_time_trials_and_neurons(trials):
    responses = trials.responses
    over_time = responses.mean("time")
    assert over_time["A"].dims == ("trial", "neuron")
    assert over_time.n_frames is None
    np.testing.assert_allclose(over_time.get("A"), np.nanmean(responses.get("A"), axis=1), 1e-6)
    np.testing.assert_allclose(
        responses.mean("trial").sel(mouse="B"), np.nanmean(responses.get("B"), axis=(0, 1)), 1e-6
    )
    with pytest.raises(ValueError, match="neurons of movies has a time axis"):
        responses.mean("neuron")


def test_a_table_has_a_row_per_frame_that_there_is(trials):
    test = trials.sel(tier="test")
    table = test.responses.to_dataframe()
    n_neurons = np.where(test.mouse_ids == "A", 3, 4)
    assert len(table) == (test.n_frames * n_neurons).sum()
    assert table["responses"].notna().all()
    row = table[(table.mouse == "B") & (table.trial == 8) & (table.neuron == 2)].iloc[5]
    position = np.flatnonzero(test.rows("B")[0] == 8)[0]
    assert row["responses"] == test.get("responses", "B")[position, 5, 1]
    assert row["time"] == pytest.approx(5 / 30)


def test_responses_come_back_from_a_file(trials, tmp_path):
    responses = trials.sel(tier="test").responses
    responses.to_netcdf(tmp_path / "responses.nc")
    again = v1.Responses.open(tmp_path / "responses.nc")
    for mouse in responses.mice:
        np.testing.assert_array_equal(again.get(mouse), responses.get(mouse))
        xr.testing.assert_equal(again[mouse]["time"], responses[mouse]["time"])
    np.testing.assert_array_equal(again.n_frames, responses.n_frames)
    again - responses  # of the same trials


def test_trials_come_back_from_a_file_and_stay_there(trials, tmp_path):
    trials.to_netcdf(tmp_path / "movies.nc")
    again = v1.Trials.open(tmp_path / "movies.nc")
    test = again.sel(tier="test")
    np.testing.assert_array_equal(
        test.get("stimuli", "A"), trials.sel(tier="test").get("stimuli", "A")
    )
    assert not again._recordings["A"].variables["stimuli"]._in_memory
    again.recordings.close()


def test_pickles_keep_frames(trials):
    again = pickle.loads(pickle.dumps(trials[3:7]))
    np.testing.assert_array_equal(again.n_frames, trials[3:7].n_frames)
    responses = pickle.loads(pickle.dumps(trials[3:7].responses))
    np.testing.assert_array_equal(responses.get("A"), trials[3:7].get("responses", "A"))
    np.testing.assert_array_equal(responses.n_frames, trials[3:7].n_frames)


def test_movies_are_joined_with_movies(trials):
    joined = v1.concat([trials.sel(tier="test"), trials.sel(tier="train")])
    assert len(joined) == len(trials) - len(trials.sel(tier="validation"))
    other = v1.make_movie_recordings(1, 3, 4, 1, 1, n_frames=20, random_state=5)["A"].to_dataset()
    twice = v1.concat([v1.Trials({"Z": other}), v1.Trials({"Z": other.copy(deep=True)})])
    np.testing.assert_array_equal(twice.n_frames, [20] * 10)


def test_images_and_movies_do_not_stand_side_by_side(tree):
    images = v1.make_v1_recordings(1, 3, 4, 2, 2, (16, 16), random_state=0)["A"].to_dataset()
    with pytest.raises(ValueError, match=r"the mice \['A'\] saw movies, the mice \['Z'\] images"):
        v1.Trials({"A": tree["A"].to_dataset(), "Z": images})
    with pytest.raises(ValueError, match="saw movies"):
        v1.concat([v1.Trials({"A": tree["A"].to_dataset()}), v1.Trials({"Z": images})])


def test_responses_of_other_lengths_do_not_combine(trials):
    one = trials.sel(mouse_id="A")
    by_length = np.argsort(one.n_frames, kind="stable")
    with pytest.raises(ValueError, match="frames in one and"):
        one[by_length].responses + one[by_length[::-1]].responses
    with pytest.raises(ValueError, match="to images and to movies do not combine"):
        one.responses - one.responses.mean("time")


def test_values_behind_the_end_of_a_movie_are_refused(trials):
    values = {mouse: np.nan_to_num(trials.get("responses", mouse)) for mouse in trials.mice}
    with pytest.raises(ValueError, match="mouse 'A': there are values behind the last of"):
        v1.Responses.from_arrays(values, like=trials)
    shorter = {mouse: trials.get("responses", mouse)[:, :-1] for mouse in trials.mice}
    with pytest.raises(ValueError, match=r"values have .* frames, the movies up to"):
        v1.Responses.from_arrays(shorter, like=trials)


# --------------------------------------------------------------------------------- from_arrays


def test_lists_of_movies_are_padded():
    stimuli, behaviors, responses = movies()
    trials = v1.Trials.from_arrays(
        {"A": stimuli}, {"A": behaviors}, {"A": responses}, frame_rate=20
    )
    np.testing.assert_array_equal(trials.n_frames, [8, 6, 8])
    assert trials.frame_rate("A") == pytest.approx(20)
    for one, two in zip(np.asarray(trials.stimuli), stimuli, strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(np.asarray(trials.responses), responses, strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.isnan(trials.get("responses", "A")[1, 6:]).all()
    v1.validate_recordings(trials.recordings)


def as_objects(values):
    out = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        out[place] = value
    return out


@pytest.mark.parametrize("form", ["dict", "list", "flat", "single", "arrays"])
def test_every_form_takes_movies(form):
    stimuli, behaviors, responses = movies()
    if form == "arrays":
        lengths = (8, 8, 8)
        stimuli, behaviors, responses = (np.stack(v) for v in movies(lengths=lengths))
    given = {
        "dict": [{"A": v} for v in (stimuli, behaviors, responses)],
        "list": [[v] for v in (stimuli, behaviors, responses)],
        "flat": [as_objects(v) for v in (stimuli, behaviors, responses)],
        "single": [as_objects(v) for v in (stimuli, behaviors, responses)],
        "arrays": [stimuli, behaviors, responses],
    }[form]
    ids = {"list": ["A"], "flat": ["A"] * 3}.get(form)
    trials = v1.Trials.from_arrays(*given, ids)
    for one, two in zip(np.asarray(trials.responses), responses, strict=True):
        np.testing.assert_array_equal(one, two)
    assert trials.mice == ["mouse" if form in ("single", "arrays") else "A"]


def test_arrays_of_floats_end_where_they_are_nan():
    stimuli = np.zeros((2, 6, 1, 4, 4))
    stimuli[1, 4:] = np.nan
    responses = np.ones((2, 6, 3))
    responses[1, 4:] = np.nan
    trials = v1.Trials.from_arrays(stimuli, None, responses)
    np.testing.assert_array_equal(trials.n_frames, [6, 4])


def test_responses_behind_the_end_of_stimuli_are_refused():
    stimuli, responses = np.zeros((3, 6, 1, 4, 4)), np.ones((3, 6, 2))
    stimuli[1, 4:] = np.nan
    said = r"'mouse': trial 1 has 4 frames of stimuli, and responses of 6: expected NaN behind"
    with pytest.raises(ValueError, match=said):
        v1.Trials.from_arrays(stimuli, None, responses)
    movies = [np.zeros((n, 1, 4, 4), "u1") for n in (6, 4, 6)]
    with pytest.raises(ValueError, match=said.replace("mouse", "A")):
        v1.Trials.from_arrays({"A": movies}, None, {"A": responses})
    responses[1, 4:] = np.nan
    for given in (stimuli, movies):
        trials = v1.Trials.from_arrays({"A": given}, None, {"A": responses})
        np.testing.assert_array_equal(trials.n_frames, [6, 4, 6])


def test_an_array_of_stimuli_is_not_cut_to_shorter_responses():
    stimuli = np.zeros((3, 6, 1, 4, 4), "u1")
    with pytest.raises(ValueError, match="'A': stimuli have 6 frames, the longest of responses 5"):
        v1.Trials.from_arrays({"A": stimuli}, None, {"A": [np.ones((5, 2))] * 3})
    responses = [np.ones((n, 2)) for n in (6, 3, 6)]  # tell where integers are padded
    trials = v1.Trials.from_arrays({"A": stimuli}, None, {"A": responses})
    np.testing.assert_array_equal(trials.n_frames, [6, 3, 6])
    padded = stimuli.astype("f4")
    padded[1, 4:] = np.nan
    said = "'A': trial 1 has 4 frames of stimuli and 3 of responses"
    with pytest.raises(ValueError, match=said):
        v1.Trials.from_arrays({"A": padded}, None, {"A": responses})


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float64"])
def test_whole_numbers_of_movies_of_different_lengths_end_in_nan(dtype):
    stimuli, _, responses = movies()
    counts = [np.floor(10 * values).astype(dtype) for values in responses]
    trials = v1.Trials.from_arrays({"A": stimuli}, None, {"A": counts})
    found = trials.get("responses", "A")
    assert found.dtype.kind == "f"
    assert np.isnan(found[1, 6:]).all()
    for one, two in zip(np.asarray(trials.responses), counts, strict=True):
        np.testing.assert_array_equal(one, two)


def test_without_a_rate_time_is_counted_in_frames():
    trials = v1.Trials.from_arrays(np.zeros((2, 6, 1, 4, 4), "u1"))
    assert trials.frame_rate("mouse") is None
    time = trials["mouse"]["time"]
    assert time.attrs["units"] == "frame"
    np.testing.assert_array_equal(time, np.arange(6))


def test_labelled_movies_bring_their_times():
    labelled = xr.DataArray(
        np.zeros((6, 2, 1, 4, 4), "u1"),
        dims=("time", "trial", "channel", "height", "width"),
        coords={"time": np.arange(6) / 50},
    )
    trials = v1.Trials.from_arrays(labelled)
    assert trials.frame_rate("mouse") == pytest.approx(50)
    with pytest.raises(ValueError, match=r"frame_rate is 30\.0, but stimuli bear"):
        v1.Trials.from_arrays(labelled, frame_rate=30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s, b, r: (s, b, [*r[:2], r[2][:5]]),
            "mouse 'A': trial 2 has 8 frames of stimuli and 5 of responses: .*one frame rate",
        ),
        (
            lambda s, b, r: (np.zeros((3, 4, 1, 5, 7)), None, r),
            "trial 0 has 8 frames of responses, stimuli 4",
        ),
        (
            lambda s, b, r: (s, None, np.ones((3, 4, 2))),
            r"movies of up to 8 frames, responses has shape \(3, 4, 2\): .*one frame rate",
        ),
        (
            lambda s, b, r: (s, None, np.ones((3, 2))),
            r"movies of up to 8 frames, responses has shape \(3, 2\)",
        ),
        (
            lambda s, b, r: (np.zeros((3, 1, 5, 7)), None, r),
            "responses is a list of arrays .frames, neurons., one per movie, but stimuli",
        ),
        (
            lambda s, b, r: ([*s[:2], s[2][..., :3]], b, r),
            "stimuli are movies of the shapes",
        ),
        (lambda s, b, r: (s[:2], b[:2], r), "different numbers of trials"),
    ],
)
def test_movies_that_do_not_fit_are_refused(change, message):
    stimuli, behaviors, responses = change(*movies())
    given = ({"A": stimuli}, None if behaviors is None else {"A": behaviors}, {"A": responses})
    with pytest.raises(ValueError, match=message):
        v1.Trials.from_arrays(*given)


@pytest.mark.parametrize("rate", [0, -1.0, float("inf")])
def test_a_rate_is_a_number_above_zero(rate):
    with pytest.raises(ValueError, match="expected frames per second"):
        v1.Trials.from_arrays(np.zeros((1, 2, 1, 4, 4), "u1"), frame_rate=rate)


def test_images_have_no_rate():
    with pytest.raises(ValueError, match="but stimuli are images"):
        v1.Trials.from_arrays(np.zeros((2, 1, 4, 4), "u1"), frame_rate=30)

"""Odd movies for models that see time: what comes is used as it is, or refused by name."""

import numpy as np
import pytest

import v1tlearn as v1
from tests.sweeps import quick

TRAINING = {"window_frames": 6, "max_epochs": 2, "random_state": 0, "device": "cpu"}
LENGTHS = (12, 20, 15, 9, 12, 30)


def ln(**changes):
    return v1.MovieLNRegressor(**(TRAINING | {"n_lags": 5} | changes))


def cnn(**changes):
    options = {"n_layers": 2, "hidden_channels": 3, "input_kernel": 3, "hidden_kernel": 3}
    options |= {"input_time_kernel": 4, "hidden_time_kernel": 3}
    return v1.MovieCNNRegressor(**(TRAINING | options | changes))


def vist(**changes):
    options = {"grid": 4, "n_layers": 2, "channels": 6, "kernels": ((1, 5),), "loss": "rmse"}
    options |= {"condition": "none", "batch_size": 3, "steps_per_epoch": 2, "warmup_epochs": 1}
    return v1.ViSTRegressor(**(TRAINING | options | changes))


MAKE = [ln, cnn, vist]
each = pytest.mark.parametrize("make", MAKE)


def drawn(lengths=LENGTHS, n_neurons=3, seed=0):
    """Lists of movies and of the responses to them."""
    rng = np.random.default_rng(seed)
    movies = [rng.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8) for n in lengths]
    return movies, [rng.gamma(1, 1, (n, n_neurons)).astype(np.float32) for n in lengths]


@pytest.fixture(scope="module")
def fitted():
    movies, responses = drawn()
    return {make: make().fit({"A": movies}, None, {"A": responses}) for make in MAKE}


def padded(values):
    """One array of movies, NaN behind the end of each."""
    out = np.full((len(values), max(map(len, values)), *values[0].shape[1:]), np.nan, np.float32)
    for place, one in enumerate(values):
        out[place, : len(one)] = one
    return out


# ------------------------------------------------------------------------ the same in other forms


@each
def test_a_movie_is_predicted_alike_alone_and_among_others(fitted, make):
    movies, _ = drawn()
    together = fitted[make].predict({"A": movies})["A"]
    for place, movie in enumerate(movies):
        alone = fitted[make].predict({"A": [movie]})["A"]
        np.testing.assert_array_equal(alone[0], together[place, : len(movie)])


@each
def test_lists_and_arrays_that_end_in_nan_are_one(fitted, make):
    movies, responses = drawn()
    other = make().fit(padded(movies), None, padded(responses))
    assert other.history_[-1]["loss"] == fitted[make].history_[-1]["loss"]
    wanted = fitted[make].predict({"A": movies})["A"]
    np.testing.assert_array_equal(other.predict(padded(movies)), wanted)


@each
@pytest.mark.parametrize("dtype", quick(["float64", "float32", "int64", "int16"], 2))
def test_grey_levels_of_any_type_are_the_same_movies(fitted, make, dtype):
    movies, responses = drawn()
    given = {"A": [movie.astype(dtype) for movie in movies]}
    other = make().fit(given, None, {"A": responses})
    np.testing.assert_array_equal(
        other.predict(given)["A"], fitted[make].predict({"A": movies})["A"]
    )


@each
def test_counts_of_spikes_may_be_whole_numbers(make):
    movies, responses = drawn()
    counts = [np.floor(3 * values) for values in responses]
    losses = []
    for dtype in ("float32", "uint8", "int32", "int64"):
        given = {"A": [values.astype(dtype) for values in counts]}
        losses.append(make().fit({"A": movies}, None, given).history_[-1]["loss"])
    assert len(set(losses)) == 1


@each
@pytest.mark.parametrize("n", [1, 3])
def test_movies_shorter_than_the_context_are_beginnings_of_longer_ones(fitted, make, n):
    movies, _ = drawn()
    whole = fitted[make].predict({"A": movies})["A"][:, :n]
    short = fitted[make].predict({"A": [movie[:n] for movie in movies]})["A"]
    np.testing.assert_allclose(short, whole, rtol=1e-5, atol=1e-6)


@each
def test_movies_of_one_frame_can_be_fitted(make):
    movies, responses = drawn([1] * 20)
    model = make(window_frames=1).fit({"A": movies}, None, {"A": responses})
    assert model.predict({"A": movies})["A"].shape == (20, 1, 3)


@each
def test_stored_movies_give_the_same_model(make, tmp_path):
    """Of mice whose longest movies differ, read where they are needed."""
    movies, responses = drawn()
    trials = v1.Trials.from_arrays(
        {"A": movies, "B": movies[:4]}, None, {"A": responses, "B": responses[:4]}, frame_rate=30.0
    )
    trials.to_netcdf(tmp_path / "movies.nc")
    stored = v1.Trials.open(tmp_path / "movies.nc")
    wanted = make().fit(trials).predict(trials)
    found = make(low_memory=True).fit(stored).predict(stored[::-1])[::-1]
    for mouse in trials.mice:
        np.testing.assert_array_equal(found.get(mouse), wanted.get(mouse))


@each
def test_arrays_of_several_mice_are_those_of_each(make):
    movies, responses = drawn([10] * 6)
    given, mice = (np.stack(movies), np.stack(responses)), np.array(list("ABABAB"))
    flat = make(validation_fraction=0).fit(given[0], None, given[1], mice)
    by_mouse = [{"A": values[::2], "B": values[1::2]} for values in given]
    other = make(validation_fraction=0).fit(by_mouse[0], None, by_mouse[1])
    found, wanted = flat.predict(given[0], mouse_ids=mice), other.predict(by_mouse[0])
    for trial, mouse in enumerate(mice):
        np.testing.assert_array_equal(found[trial], wanted[mouse][trial // 2])


@each
def test_repeats_of_other_lengths_fall_on_one_side(make):
    movies, responses = drawn()
    ids = list("aabbac")
    trials = v1.Trials.from_arrays({"A": movies}, None, {"A": responses}, image_ids={"A": ids})
    model = make(validation_fraction=0.3).fit(trials)  # which warns of repeats on both sides
    assert np.isfinite(model.history_[-1]["validation_correlation"])
    assert np.isfinite(v1.metrics.average_correlation(trials.responses, model.predict(trials)))


@pytest.mark.parametrize("make", [ln, cnn])
def test_behavior_that_never_changes_is_no_harm(make):
    movies, responses = drawn()
    behaviors = [np.full((len(movie), 3), 2.0, np.float32) for movie in movies]
    given = {"A": movies}, {"A": behaviors}
    model = make(behavior_mode="channels").fit(*given, {"A": responses})
    assert np.isfinite(model.predict(*given)["A"][-1]).all()


@pytest.mark.parametrize("make", [ln, cnn])
def test_a_gap_in_the_middle_of_a_movie_does_not_count(make):
    movies, responses = drawn()
    found = []
    for value in (0.0, 1e6):
        values = [own.copy() for own in responses]
        values[1][5:9] = value  # what stands under the mask is not looked at
        masked = [np.ma.masked_array(own, np.zeros(own.shape, bool)) for own in values]
        masked[1].mask[5:9] = True
        model = make().fit({"A": movies}, None, {"A": masked})
        found.append([record["loss"] for record in model.history_])
    whole = make().fit({"A": movies}, None, {"A": responses})
    assert found[0] == found[1]
    assert found[0] != [record["loss"] for record in whole.history_]


# ----------------------------------------------------------------------------- frames per second


@each
def test_the_frame_rate_of_arrays_is_told_to_fit_and_predict(make):
    movies, responses = (np.stack(x) for x in drawn([10] * 6))
    model = make(validation_fraction=0).fit(movies, None, responses, frame_rate=30.0)
    trials = v1.Trials.from_arrays(movies, None, responses, frame_rate=30.0)
    same = make(validation_fraction=0).fit(trials)
    wanted = same.predict(trials).get("mouse")
    for rate in (30.0, 30, None):
        np.testing.assert_array_equal(model.predict(movies, frame_rate=rate), wanted)
    said = r"'mouse': movies have 60 frames per second, the model was fitted to movies of 30, and"
    with pytest.raises(ValueError, match=said):
        model.predict(movies, frame_rate=60.0)
    with pytest.raises(ValueError, match=said):
        model.partial_fit(movies, None, responses, frame_rate=60.0)
    with pytest.raises(TypeError, match=r"so frame_rate cannot be given beside them"):
        make().fit(trials, frame_rate=30.0)
    with pytest.raises(TypeError, match="Trials bring behaviour, names, mouse ids and times"):
        model.predict(trials, frame_rate=30.0)
    told = model.score(movies, None, responses, frame_rate=30.0)
    assert told == model.score(trials) == model.score(movies, None, responses)
    with pytest.raises(ValueError, match=said):
        model.score(movies, None, responses, frame_rate=60.0)
    with pytest.raises(TypeError, match=r"so frame_rate cannot be given beside them"):
        model.score(trials, frame_rate=30.0)


def test_images_have_no_frame_rate():
    movies, responses = (np.stack(x)[:, 0] for x in drawn([1] * 6))
    with pytest.raises(ValueError, match=r"frame_rate is 30\.0, but stimuli are images"):
        v1.CNNRegressor().fit(movies, None, responses, frame_rate=30.0)


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("make", [ln, cnn])
def test_movies_without_any_response_are_refused(make):
    movies, responses = drawn()
    responses[2][:] = np.nan
    said = r"'A': responses of trial 2 are NaN in all of its 15 frames .* Leave this one out"
    with pytest.raises(ValueError, match=said):
        make(validation_fraction=0).fit({"A": movies}, None, {"A": responses})


def test_movies_that_no_window_fits_into_are_told_of():
    movies, responses = drawn()
    said = (
        r"'A': 1 of 6 movies have no 10 frames in a row .*, one of them 9, and are not trained on"
    )
    with pytest.warns(UserWarning, match=said):
        vist(window_frames=10, validation_fraction=0).fit({"A": movies}, None, {"A": responses})
    responses[1][5::6] = np.nan
    with pytest.warns(UserWarning, match=r"2 of 6 movies .* one of them 5, and are not trained on"):
        vist(window_frames=10, validation_fraction=0).fit({"A": movies}, None, {"A": responses})


@each
def test_a_frame_that_is_not_a_number_is_named_by_its_movie(fitted, make):
    movies = [movie.astype(np.float32) for movie in drawn()[0]]
    movies[2][4] = np.nan
    with pytest.raises(ValueError, match=r"'A': stimuli hold NaN .* in frame 4 of trial 2: leave"):
        fitted[make].predict({"A": movies})
    with pytest.raises(ValueError, match=r"'A': stimuli hold NaN .* in frame 4 of trial 2: leave"):
        make(validation_fraction=0).fit({"A": movies}, None, {"A": drawn()[1]})


def test_behavior_that_is_not_a_number_is_named_by_its_movie():
    movies, responses = drawn()
    behaviors = [np.ones((len(movie), 3), np.float32) for movie in movies]
    behaviors[1][3:5, 1] = np.nan
    said = r"'A': behaviors hold NaN .* in .*, the frames 3 of trial 1, 4 of trial 1: leave"
    with pytest.raises(ValueError, match=said):
        cnn(behavior_mode="channels").fit({"A": movies}, {"A": behaviors}, {"A": responses})


@each
def test_negative_responses_are_warned_of(make):
    movies, responses = drawn()
    with pytest.warns(UserWarning, match="responses are negative: of mouse 'A'"):
        make().fit({"A": movies}, None, {"A": [values - 1 for values in responses]})


@each
def test_one_mouse_of_short_movies_is_refused_by_name(make):
    movies, responses = drawn()
    mice = {"A": movies, "B": [movie[:5] for movie in movies]}
    given = {"A": responses, "B": [values[:5] for values in responses]}
    with pytest.raises(ValueError, match=r"mouse 'B': window_frames is 6, .* 5 frames.*et window"):
        make(validation_fraction=0).fit(mice, None, given)

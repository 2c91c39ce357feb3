"""Spike-triggered averages and regression, against sums written out and closed forms."""

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from v1tlearn.inspection import space_time_components, spike_triggered_average

N_LAGS, SHAPE, N_NEURONS = 3, (3, 4), 4


def noise_movies(lengths=(12, 9, 15), seed=0, n_neurons=N_NEURONS):
    """Movies of white noise, and responses of linear cells."""
    rng = np.random.default_rng(seed)
    movies = [rng.normal(size=(n, 1, *SHAPE)) for n in lengths]
    responses = [rng.gamma(1.0, 1.0, (n, n_neurons)).astype("f4") for n in lengths]
    return movies, responses


def windows(movies, responses, n_lags=N_LAGS):
    """Rows of what was shown, lag 0 first, and the responses to it: as the definition has it."""
    x, y = [], []
    for movie, response in zip(movies, responses, strict=True):
        for frame in range(n_lags - 1, len(movie)):
            x.append(np.concatenate([movie[frame - lag].ravel() for lag in range(n_lags)]))
            y.append(response[frame])
    return np.array(x, np.float64), np.array(y, np.float64)


def trials_of(movies, responses, **more):
    movies = [movie.astype("f4") for movie in movies]
    if responses is not None:
        responses = {"A": responses}
    return v1.Trials.from_arrays({"A": movies}, responses=responses, frame_rate=20.0, **more)


@pytest.fixture
def movies():
    found, responses = noise_movies()
    return [movie.astype("f4") for movie in found], responses


def test_averages_are_the_sums_of_the_definition(movies):
    found = spike_triggered_average(trials_of(*movies), N_LAGS)
    (found,) = found.values()
    x, y = windows(*movies)
    expected = (y.T @ x) / y.sum(axis=0)[:, None] - x.mean(axis=0)
    assert found.dims == ("neuron", "lag", "channel", "height", "width")
    np.testing.assert_allclose(found.values.reshape(N_NEURONS, -1), expected, atol=1e-6)
    np.testing.assert_allclose(found["lag"].values, [0, 0.05, 0.1])
    assert found["lag"].attrs["units"] == "s"


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_regression_is_the_closed_form_with_an_intercept(ridge):
    movies, responses = noise_movies((60, 40))
    (found,) = spike_triggered_average(trials_of(movies, responses), N_LAGS, ridge=ridge).values()
    x, y = windows([movie.astype("f4") for movie in movies], responses)
    centred = x - x.mean(axis=0)
    penalty = ridge * (centred**2).sum() / x.shape[1]
    # least squares with the penalty as rows of its own, and the intercept as a column
    rows = np.vstack([centred, np.sqrt(penalty) * np.eye(x.shape[1])])
    wanted = np.vstack([y - y.mean(axis=0), np.zeros((x.shape[1], N_NEURONS))])
    expected = np.linalg.lstsq(rows, wanted, rcond=None)[0].T
    np.testing.assert_allclose(found.values.reshape(N_NEURONS, -1), expected, atol=1e-6)


@pytest.mark.parametrize("ridge", [None, 0.2])
def test_frames_in_which_a_neuron_was_not_recorded_do_not_count(ridge):
    movies, responses = noise_movies((40, 30))
    for response in responses:
        response[5:20, 1] = np.nan
    responses[1][:, 3] = np.nan
    (found,) = spike_triggered_average(trials_of(movies, responses), N_LAGS, ridge=ridge).values()
    x, y = windows([movie.astype("f4") for movie in movies], responses)
    for neuron in range(N_NEURONS):
        rows = ~np.isnan(y[:, neuron])
        one, own = x[rows], y[rows, neuron]
        centred = one - one.mean(axis=0)
        if ridge is None:
            expected = own @ one / own.sum() - one.mean(axis=0)
        else:
            gram = centred.T @ centred
            gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
            expected = np.linalg.solve(gram, centred.T @ own)
        np.testing.assert_allclose(found.values[neuron].ravel(), expected, atol=1e-6)


def test_images_have_no_lags():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(300, 2, *SHAPE)).astype("f4")
    responses = rng.gamma(1.0, 1.0, (300, 3)).astype("f4")
    (found,) = spike_triggered_average(v1.Trials.from_arrays(images, responses=responses)).values()
    assert found.dims == ("neuron", "channel", "height", "width")
    x, y = images.reshape(300, -1).astype(float), responses.astype(float)
    expected = y.T @ x / y.sum(axis=0)[:, None] - x.mean(axis=0)
    np.testing.assert_allclose(found.values.reshape(3, -1), expected, atol=1e-6)


def cell_recordings():
    """Cells with a known filter that saw white noise, and rectify."""
    rng = np.random.default_rng(3)
    maps = rng.normal(size=(2, *SHAPE))
    courses = np.array([[0.2, 1.0, 0.4], [1.0, -0.5, 0.0]])
    movie = rng.normal(size=(6000, 1, *SHAPE)).astype("f4")
    drive = np.zeros((6000, 2))
    in_space = np.einsum("thw,nhw->tn", movie[:, 0], maps)
    for lag in range(3):
        drive[lag:] += courses[:, lag] * in_space[: 6000 - lag]
    responses = np.maximum(drive, 0).astype("f4")
    return maps, courses, trials_of([movie], [responses])


@pytest.mark.parametrize("ridge", [None, 0.0])
def test_noise_gives_back_the_filters_of_rectifying_cells(ridge):
    maps, courses, trials = cell_recordings()
    (averages,) = spike_triggered_average(trials, 5, ridge=ridge).values()
    parts = space_time_components(averages)
    for neuron in range(2):
        true = np.zeros((5, *SHAPE))
        true[:3] = courses[neuron][:, None, None] * maps[neuron]
        found = averages.values[neuron, :, 0]
        assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > 0.98
        space = np.corrcoef(parts["receptive_field"][neuron].values.ravel(), maps[neuron].ravel())
        assert space[0, 1] > 0.98
        assert np.corrcoef(parts["temporal_filter"][neuron, :3], courses[neuron])[0, 1] > 0.98
        assert parts["separability"][neuron] > 0.9


def test_components_multiply_to_the_best_product_of_a_map_and_a_course():
    rng = np.random.default_rng(0)
    course, one = rng.normal(size=5), rng.normal(size=SHAPE)
    kernel = course[:, None, None] * one
    averages = xr.DataArray(
        np.stack([kernel, np.full_like(kernel, np.nan)]), dims=("neuron", "lag", "height", "width")
    )
    parts = space_time_components(averages)
    product = parts["strength"] * parts["temporal_filter"] * parts["receptive_field"]
    np.testing.assert_allclose(product[0].values, kernel, atol=1e-5)
    assert parts["separability"].values[0] == pytest.approx(1)
    assert np.isnan(parts["receptive_field"][1]).all()
    peak = np.abs(parts["temporal_filter"][0].values).argmax()
    assert parts["temporal_filter"][0, peak] > 0


def test_fields_go_into_the_recording_by_unit_id():
    recordings = v1.make_movie_recordings(1, 4, 6, 1, 2, n_frames=40, random_state=0)
    train = v1.Trials(recordings).sel(tier="train")
    averages = spike_triggered_average(train.sel(neuron=[3, 1, 2, 4]), 6)["A"]
    assert averages["neuron"].values.tolist() == [3, 1, 2, 4]
    maps = space_time_components(averages.isel(neuron=[2, 0, 3, 1]))["receptive_field"]
    out = v1.with_receptive_fields(recordings, {"A": maps}, (9, 16))
    v1.validate_recordings(out)
    again = v1.with_receptive_fields(
        recordings, {"A": space_time_components(averages)["receptive_field"]}, (9, 16)
    )
    np.testing.assert_array_equal(
        out["A"]["receptive_field"].values, again["A"]["receptive_field"].values
    )


def test_preprocessing_of_the_trials_is_applied(movies):
    trials = trials_of(*movies)
    small = v1.ResizeStimuli((2, 2)).fit(trials).transform(trials)
    (found,) = spike_triggered_average(small, 2).values()
    assert found.shape == (N_NEURONS, 2, 1, 2, 2)


def test_silent_neurons_have_no_average(movies):
    stimuli, responses = movies
    for response in responses:
        response[:, 2] = 0
    (found,) = spike_triggered_average(trials_of(stimuli, responses), 2).values()
    assert np.isnan(found.values).any(axis=(1, 2, 3, 4)).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "n_lags=None: expected the number of frames"),
        ({"n_lags": 16}, "the longest movie has 15 frames"),
        ({"n_lags": 2, "ridge": -1}, "ridge=-1"),
        ({"n_lags": 5, "ridge": 0}, "60 pixels of 5 lags are not independent in the 24 frames"),
    ],
)
def test_wrong_arguments_are_refused(movies, arguments, message):
    with pytest.raises(ValueError, match=message):
        spike_triggered_average(trials_of(*movies), **arguments)


def test_neurons_that_were_never_recorded_are_named(movies):
    stimuli, responses = movies
    for response in responses:
        response[2:, 1] = np.nan
    with pytest.raises(ValueError, match=r"neuron .*1.* and 0 others were recorded in no frame"):
        spike_triggered_average(trials_of(stimuli, responses), N_LAGS)


def test_what_are_no_trials_of_responses_is_refused(movies):
    with pytest.raises(TypeError, match="expected Trials"):
        spike_triggered_average(movies[0], 3)
    with pytest.raises(TypeError, match="expected trials with responses"):
        spike_triggered_average(trials_of(movies[0], None), 3)
    dims = ("neuron", "lag", "channel", "height", "width")
    coloured = xr.DataArray(np.ones((1, 2, 2, 3, 4)), dims=dims)
    with pytest.raises(ValueError, match="one channel"):
        space_time_components(coloured)
    big = v1.Trials.from_arrays(np.zeros((4, 1, 120, 120), "f4"), responses=np.ones((4, 1), "f4"))
    with pytest.raises(ValueError, match="14400 weights, at most 12000"):
        spike_triggered_average(big, ridge=0.1)

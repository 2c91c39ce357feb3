"""Traces over time, and kernels in space and time, as they are drawn."""

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.inspection import KernelDisplay, MoviePredictionDisplay, spike_triggered_average


@pytest.fixture(scope="module")
def movies():
    recordings = v1.make_movie_recordings(
        1, 5, 4, 2, 3, n_frames=(20, 30), image_shape=(8, 12), random_state=0
    )
    return v1.Trials(recordings)


@pytest.fixture(scope="module")
def test_movies(movies):
    return movies.sel(tier="test")


def lines(axis):
    return {line.get_label(): line.get_ydata() for line in axis.lines}


def test_traces_are_the_means_over_repeats(test_movies, figures):
    predicted = {"LN": test_movies.expected_responses, "CNN": test_movies.responses}
    neurons = test_movies.neuron_ids("A")[[3, 0]]
    display = MoviePredictionDisplay.from_predictions(
        test_movies, predicted, image_id=1, neurons=neurons
    )
    rows = test_movies.sel(image_id=1)
    n = int(rows.n_frames[0])
    recorded = rows.get("responses", "A")[:, :n].astype(float)
    truth = rows.get("expected_responses", "A")[:, :n].astype(float)
    for axis, neuron in zip(display.axes_, [3, 0], strict=True):
        drawn = lines(axis)
        np.testing.assert_allclose(drawn["recorded"], recorded[:, :, neuron].mean(axis=0))
        np.testing.assert_allclose(drawn["LN"], truth[:, :, neuron].mean(axis=0))
        np.testing.assert_allclose(drawn["CNN"], drawn["recorded"])
    np.testing.assert_allclose(
        display.spread, (recorded.std(axis=0, ddof=1) / np.sqrt(3))[:, [3, 0]]
    )
    np.testing.assert_allclose(display.times, np.arange(n) / 30)
    assert "movie 1, 3 repeats" in display.title


def test_colors_may_be_given(test_movies, figures):
    predicted = {"LN": test_movies.expected_responses, "CNN": test_movies.responses}
    colors = {"LN": "#d55e00", "CNN": "#0072b2"}
    display = MoviePredictionDisplay.from_predictions(test_movies, predicted, colors=colors)
    drawn = {line.get_label(): line.get_color() for line in display.axes_[0].lines}
    assert (drawn["LN"], drawn["CNN"]) == ("#d55e00", "#0072b2")


def test_frames_stand_over_the_time_at_which_they_were_shown(test_movies, figures):
    display = MoviePredictionDisplay.from_predictions(test_movies, test_movies.responses)
    shown = test_movies.get("stimuli", "A")[0]
    (strip,) = display.frame_ax_.images
    pixels = np.ma.filled(strip.get_array(), np.nan)
    width = pixels.shape[1] // len(display.shown_frames)
    for place, frame in enumerate(display.shown_frames):
        part = pixels[:, place * width : (place + 1) * width]
        np.testing.assert_array_equal(part[:, ~np.isnan(part).any(axis=0)], shown[frame, 0])
        middle = (place + 0.5) / len(display.shown_frames) * len(display.times)
        assert abs(frame - middle) <= 1


def test_unrecorded_repeats_are_left_out_of_both(movies, figures):
    dataset = movies.recordings["A"].to_dataset().copy(deep=True)
    test = np.flatnonzero((dataset.tier == "test").values & (dataset.image_id == 0).values)
    dataset["responses"][test[0]] = np.nan
    trials = v1.Trials({"A": dataset}).sel(tier="test")
    display = MoviePredictionDisplay.from_predictions(
        trials, trials.expected_responses, image_id=0, neurons=trials.neuron_ids("A")[0]
    )
    rows = trials.sel(image_id=0).get("expected_responses", "A")[1:, :, 0]
    np.testing.assert_allclose(
        display.predicted["model"][:, 0], rows[:, : len(display.times)].mean(0)
    )


def test_a_neuron_that_was_never_recorded_is_not_chosen(movies, figures):
    dataset = movies.recordings["A"].to_dataset().load()
    responses = dataset["responses"].values.copy()
    mean = responses[(dataset.tier == "test").values & (dataset.image_id == 0).values].mean(0)
    vary = np.nanstd(mean, axis=0) / np.nanmean(mean, axis=0)
    responses[..., vary.argmax()] = np.nan
    dataset["responses"] = dataset["responses"].copy(data=responses)
    trials = v1.Trials({"A": dataset}).sel(tier="test")
    display = MoviePredictionDisplay.from_predictions(trials, trials.expected_responses, image_id=0)
    ids = trials.neuron_ids("A")[np.sort(np.argsort(-vary)[1:4])]
    assert display.neurons == [f"neuron {one}" for one in ids]


def test_a_fitted_model_is_drawn(movies, test_movies, figures):
    model = v1.LNRegressor(
        n_layers=1, hidden_channels=2, input_kernel=3, max_epochs=1, random_state=0
    )
    model.fit(movies.sel(tier="train"))
    display = MoviePredictionDisplay.from_estimator(model, test_movies)
    assert len(display.axes_) == 3
    assert list(display.predicted) == ["LN"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_id": 9}, r"unknown movie 9, there are \[0, 1\]"),
        ({"mouse_id": "B"}, "unknown mouse 'B'"),
        ({"neurons": [99]}, r"unknown neurons \[99\]"),
    ],
)
def test_unknown_labels_are_named(test_movies, arguments, message):
    with pytest.raises(ValueError, match=message):
        MoviePredictionDisplay.from_predictions(test_movies, test_movies.responses, **arguments)


def test_traces_that_do_not_fit_are_refused(test_movies, test_trials):
    with pytest.raises(ValueError, match=r"shape \(4, 2\), what was recorded \(5, 2\)"):
        MoviePredictionDisplay(np.ones((5, 2)), {"LN": np.ones((4, 2))})
    with pytest.raises(ValueError, match="images, which have no time"):
        MoviePredictionDisplay.from_predictions(test_trials, test_trials.responses)
    with pytest.raises(TypeError, match="LN is a ndarray: expected Responses"):
        MoviePredictionDisplay.from_predictions(test_movies, {"LN": np.ones(3)})
    with pytest.raises(ValueError, match=r"expected \(5, channels"):
        MoviePredictionDisplay(np.ones((5, 2)), {"LN": np.ones((5, 2))}, np.ones((4, 1, 2, 2)))


def test_maps_are_drawn_upright_from_the_past_on_one_scale(movies, figures):
    averages = spike_triggered_average(movies.sel(tier="train"), 7)["A"]
    display = KernelDisplay.from_kernels(averages, n_neurons=2, n_maps=4)
    assert display.axes_.shape == (2, 5)
    assert display.shown_lags.tolist() == [6, 4, 2, 0]
    for row in range(2):
        kernel = averages.values[row, :, 0]
        for axis, lag in zip(display.axes_[row, :-1], display.shown_lags, strict=True):
            (image,) = axis.images
            np.testing.assert_allclose(image.get_array(), kernel[lag])
            assert image.origin == "upper"
            assert image.get_clim() == pytest.approx((-abs(kernel).max(), abs(kernel).max()))
        course = display.axes_[row, -1].lines[1]
        np.testing.assert_allclose(course.get_xdata(), -1000 / 30 * np.arange(7))
        assert course.get_ydata().max() == pytest.approx(kernel.max())


def test_lines_of_pixels_become_one_map_of_space_and_time(figures):
    kernels = np.random.default_rng(0).normal(size=(1, 6, 9, 1))
    display = KernelDisplay(kernels, np.arange(6) / 10, units="s").plot()
    (image,) = display.axes_[0, 0].images
    np.testing.assert_array_equal(image.get_array(), kernels[0, ::-1, :, 0].T)
    left, right, bottom, top = image.get_extent()
    assert (left, right) == pytest.approx((-550, 50))
    assert bottom > top


def test_kernels_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"expected .neurons, lags, height"):
        KernelDisplay(np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match=r"lags have the shape \(2,\)"):
        KernelDisplay(np.ones((1, 3, 4, 4)), [0, 1])
    with pytest.raises(TypeError, match="expected a DataArray"):
        KernelDisplay.from_kernels(np.ones((1, 3, 4, 4)))
    with pytest.raises(ValueError, match=r"expected .'neuron', 'lag'"):
        KernelDisplay.from_kernels(xr.DataArray(np.ones((1, 4)), dims=("neuron", "height")))


@pytest.mark.parametrize("shape", [(4, 12, 12, 12), (2, 9, 8, 20), (2, 12, 1, 12)])
@pytest.mark.parametrize("n_maps", quick([1, 3, 5], 1))
def test_labels_of_kernels_lie_within_the_figure(shape, n_maps, figures):
    kernels = np.random.default_rng(0).normal(size=shape)
    names = ["cell 1\ntrue"] * len(kernels)
    lags = np.arange(shape[1]) / 30
    display = KernelDisplay(kernels, lags, units="s", titles=names, n_maps=n_maps).plot()
    display.figure_.canvas.draw()
    width = display.figure_.bbox.width
    boxes = [a.xaxis.label.get_window_extent() for a in display.axes_.flat if a.get_xlabel()]
    assert boxes
    assert all(box.x0 >= 0 and box.x1 <= width for box in boxes)

"""Predicted against recorded responses: recorded to the right, both axes alike."""

import re

import numpy as np
import pytest

from v1tlearn.inspection import MODEL_COLORS, PredictionDisplay


def offsets(display):
    return {d.get_label(): np.asarray(d.get_offsets()) for d in display.ax_.collections}


def test_axes_are_the_same(figures):
    display = PredictionDisplay(
        [0.0, 10.0, np.nan], {"CNN": [2.0, -3.0, 1.0], "LN": [0.0, 1.0, 2.0]}, units="spikes"
    ).plot()
    ax = display.ax_
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_xlim()[0] < -3
    assert ax.get_xlim()[1] > 10
    assert ax.get_aspect() == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("recorded (spikes)", "predicted (spikes)")
    for name, dots in zip(("CNN", "LN"), ax.collections, strict=True):
        assert dots.get_label() == name
        assert 0 < dots.get_alpha() < 1
        color = figures.matplotlib.colors.to_hex(dots.get_facecolor()[0])
        assert color == MODEL_COLORS[name]
    np.testing.assert_allclose(offsets(display)["CNN"][:2], [(0, 2), (10, -3)])
    assert [line.get_slope() for line in ax.get_lines()] == [1]


def test_means_over_repeats_of_one_neuron(noisy_predictions, test_trials, figures):
    y_true, y_pred = test_trials.responses, noisy_predictions(0.3)
    display = PredictionDisplay.from_predictions(
        y_true, {"CNN": y_pred, "mine": y_true}, mouse_id="B", neuron=2
    )
    images = y_true.image_ids[y_true.rows("B")[0]]
    expected = [
        [r.get("B")[images == image, 1].mean() for r in (y_true, y_pred)]
        for image in np.unique(images)
    ]
    assert len(expected) == 5
    found = offsets(display)
    np.testing.assert_allclose(sorted(found["CNN"].tolist()), sorted(expected), rtol=1e-6)
    np.testing.assert_allclose(found["mine"][:, 0], found["mine"][:, 1])
    assert display.ax_.get_title() == "Mouse B, neuron 2"


def test_single_trials_of_all_neurons(noisy_predictions, test_trials, figures):
    y_true, y_pred = test_trials.responses, noisy_predictions(0.3)
    display = PredictionDisplay.from_predictions(y_true, y_pred, mouse_id="A", average=False)
    expected = np.column_stack([y_true.get("A").ravel(), y_pred.get("A").ravel()])
    np.testing.assert_allclose(offsets(display)["model"], expected)
    assert display.ax_.get_xlabel() == f"recorded ({y_true['A'].attrs['units']})"


def test_means_are_over_the_repeats_that_were_recorded(noisy_predictions, test_trials, figures):
    y_true, y_pred = test_trials.responses, noisy_predictions(0.3)
    values = {m: y_true.get(m).copy() for m in y_true.mice}
    values["A"][:7] = np.nan
    gaps = type(y_true).from_arrays(values, like=test_trials)
    display = PredictionDisplay.from_predictions(gaps, y_pred, mouse_id="A", neuron=1)
    images = y_true.image_ids[y_true.rows("A")[0]]
    rows = np.arange(len(images)) >= 7
    expected = {
        image: [r.get("A")[rows & (images == image), 0].mean() for r in (y_true, y_pred)]
        for image in np.unique(images[rows])
    }
    found = offsets(display)["model"]
    found = found[~np.isnan(found).any(1)]
    np.testing.assert_allclose(sorted(found.tolist()), sorted(expected.values()), rtol=1e-6)


def test_fitted_models(models, test_trials, figures):
    display = PredictionDisplay.from_estimator(models, test_trials, mouse_id="A", average=False)
    assert list(offsets(display)) == ["LN", "CNN"]
    predicted = models["CNN"].predict(test_trials.sel(mouse_id="A")).get("A").ravel()
    np.testing.assert_allclose(offsets(display)["CNN"][:, 1], predicted, rtol=1e-6)
    fig = figures.matplotlib.figure.Figure()
    figures.close("all")
    ax = fig.subplots()
    one = test_trials.sel(mouse_id="A")
    display = PredictionDisplay.from_estimator(
        models["LN"], one, neuron=3, ax=ax, scatter_kw={"alpha": 0.1}
    )
    assert display.ax_ is ax
    assert ax.collections[0].get_alpha() == 0.1
    assert figures.get_fignums() == []


def test_errors(noisy_predictions, test_trials, models):
    y_true, y_pred = test_trials.responses, noisy_predictions(0.3)
    make = PredictionDisplay.from_predictions
    with pytest.raises(ValueError, match=r"there are the mice \['A', 'B'\]: name one"):
        make(y_true, y_pred)
    with pytest.raises(ValueError, match="unknown mouse 'C'"):
        make(y_true, y_pred, mouse_id="C")
    with pytest.raises(ValueError, match=r"no neuron with the id .*9.*mouse 'B'"):
        make(y_true, y_pred, mouse_id="B", neuron=9)
    with pytest.raises(TypeError, match="CNN is a dict: expected Responses"):
        make(y_true, {"CNN": {"A": y_pred.get("A")}}, mouse_id="A")
    with pytest.raises(ValueError, match=r"CNN: .*select the same trials"):
        make(y_true, {"CNN": y_pred[:5]}, mouse_id="A")
    with pytest.raises(ValueError, match=r"neuron=\[1, 2\]: expected the unit id of one"):
        make(y_true, y_pred, mouse_id="B", neuron=[1, 2])
    with pytest.raises(ValueError, match="two are called '1'"):
        PredictionDisplay([1.0], {1: [1.0], "1": [2.0]})
    with pytest.raises(ValueError, match="2 predictions came for 1 recorded"):
        PredictionDisplay([1.0], {"CNN": [1.0, 2.0]})
    with pytest.raises(ValueError, match="predicted is empty"):
        PredictionDisplay([1.0], {})
    with pytest.raises(TypeError, match="trials is a dict: expected Trials"):
        PredictionDisplay.from_estimator(models, {})
    with pytest.raises(TypeError, match="estimators: a str came as 'str'"):
        PredictionDisplay.from_estimator("CNN", test_trials.sel(mouse_id="A"))


def test_other_trials_and_neurons_are_refused(noisy_predictions, test_trials):
    one = test_trials.sel(mouse_id="A")
    y_true, y_pred = one.responses, noisy_predictions(0.3, one)
    ids = y_true["A"]["neuron"].values
    for other in (y_pred[::-1], y_pred.sel(neuron=ids[::-1])):
        for average in (True, False):
            with pytest.raises(ValueError, match=r"^CNN: "):
                PredictionDisplay.from_predictions(y_true, {"CNN": other}, average=average)


@pytest.mark.parametrize("neuron", [2, np.int64(2), "2"])
def test_unit_ids_as_in_sel(neuron, noisy_predictions, test_trials, figures):
    y_true, y_pred = test_trials.responses, noisy_predictions(0.3)

    def draw():
        return PredictionDisplay.from_predictions(
            y_true, y_pred, mouse_id="B", neuron=neuron, average=False
        )

    try:
        expected = y_true.sel(mouse_id="B", neuron=neuron).get("B").ravel()
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            draw()
    else:
        np.testing.assert_array_equal(draw().recorded, expected)

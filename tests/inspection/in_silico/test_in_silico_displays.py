"""Displays draw what they are given, on the scale that they tell."""

import numpy as np
import pytest
import xarray as xr

from v1tlearn.inspection import (
    MostExcitingImagesDisplay,
    TuningCurveDisplay,
    gratings,
    most_exciting_images,
    tuning_curves,
)

SHAPE = (12, 16)


def test_images_share_one_scale_around_the_mean(fit, figures):
    images = most_exciting_images(fit(), n_steps=3)["A"]
    display = MostExcitingImagesDisplay(images, n_images=3).plot()
    assert len(display.axes_) == 3
    low, high = display.images_[0].get_clim()
    assert (low + high) / 2 == pytest.approx(images.attrs["image_mean"], rel=1e-4)
    assert all(drawn.get_clim() == (low, high) for drawn in display.images_)
    for drawn, values in zip(display.images_, images["image"].values, strict=False):
        np.testing.assert_array_equal(drawn.get_array(), values[0])
    assert display.ax_.get_title().startswith("neuron 1\n")


def test_what_is_no_image_is_refused(fit, figures):
    with pytest.raises(TypeError, match="Dataset of one mouse"):
        MostExcitingImagesDisplay(np.zeros((2, 2)))
    images = most_exciting_images(fit(), {"A": [2]}, n_steps=1)["A"]
    with pytest.raises(ValueError, match="select with a list"):
        MostExcitingImagesDisplay(images.isel(neuron=0))


def test_curves_are_drawn_at_the_best_of_the_others(figures):
    values = np.arange(24.0).reshape(2, 3, 4)
    curves = xr.DataArray(
        values,
        dims=("neuron", "orientation", "phase"),
        coords={"neuron": [3, 9], "orientation": [0, 60, 120]},
    )
    display = TuningCurveDisplay({"CNN": curves, "LN": curves + 1}).plot()
    assert [axis.get_title() for axis in display.axes_] == ["neuron 3", "neuron 9"]
    assert len(display.lines_) == 4
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), values[0, :, 3])
    np.testing.assert_array_equal(display.lines_[0].get_xdata(), [0, 60, 120])
    assert "orientation" in display.ax_.get_xlabel()


def test_curves_of_a_model_bring_their_units(fit, figures):
    stimuli = gratings(SHAPE, spatial_frequency=[0.1, 0.2], phase=[0, 180])
    display = TuningCurveDisplay(
        tuning_curves(fit(), stimuli)["A"], along="spatial_frequency", n_neurons=1
    ).plot()
    assert display.ax_.get_xlabel() == "spatial frequency (cycle per pixel)"
    assert display.ax_.get_xscale() == "log"


def test_curves_that_cannot_be_drawn_are_refused(figures):
    with pytest.raises(TypeError, match="tuning_curves gives"):
        TuningCurveDisplay(np.ones(3))
    with pytest.raises(ValueError, match="set `along`"):
        TuningCurveDisplay(xr.DataArray(np.ones((2, 3)), dims=("neuron", "contrast")))

"""Widths of spatial weights, against published values and known shapes."""

from pathlib import Path

import numpy as np
import pytest
import torch

import v1tlearn as v1
from v1tlearn.inspection import pooling_sizes

FILE = Path(__file__).parents[1] / "reference" / "minimodel" / "pooling_size.npz"
MOUSE_DEGREES = (65 / 66, 270 / 264)


def model(n_neurons, size, readout="factorized", **params):
    """A full model that was never trained, whose maps have half the size of its images."""
    rng = np.random.default_rng(0)
    stimuli = rng.integers(0, 255, (20, 1, *size)).astype(np.uint8)
    responses = rng.exponential(size=(20, n_neurons))
    est = v1.FullModelRegressor(
        channels=(1, 1), kernels=(1, 1), max_epochs=0, readout=readout, device="cpu", **params
    )
    with pytest.warns(UserWarning, match="max_epochs is 0"):
        return est.fit(stimuli, responses=responses)


def set_space(est, rows, columns):
    readout = est.module_.readouts[0]
    with torch.no_grad():
        readout.rows[:, 0], readout.columns[:, 0] = map(torch.as_tensor, (rows, columns))
    (mouse,) = est.mice_
    return mouse


def test_published_sizes():
    with np.load(FILE) as file:
        known = dict(file)
    est = model(6, (66, 130))
    mouse = set_space(est, known["Wy"], known["Wx"])
    pixels = pooling_sizes(est)[mouse]
    for axis, name in {"x": "Wx", "y": "Wy"}.items():
        np.testing.assert_array_equal(pixels[f"width_{axis}"], 2 * known[f"{name}/bandwidth"])
        np.testing.assert_array_equal(pixels[axis], 2 * known[f"{name}/centre"])
    degrees = pooling_sizes(est, degrees_per_pixel=MOUSE_DEGREES)[mouse]
    np.testing.assert_allclose(degrees["size"], known["pooling_size_degrees_mouse"], rtol=1e-12)
    assert degrees["size"].attrs["units"] == "degree"


def test_gaussian_weights_have_their_width():
    est = model(3, (80, 120))
    places, sigma, centre = np.arange(60), np.array([4.0, 6.0, 8.0]), np.array([20.0, 30.0, 35.0])
    gaussians = np.exp(-0.5 * ((places - centre[:, None]) / sigma[:, None]) ** 2)
    mouse = set_space(est, np.ones((3, 40)), gaussians)
    found = pooling_sizes(est)[mouse]
    smoothed = np.hypot(sigma, 1.5 * 59 / 119 * 2)  # three steps of the finer grid
    expected = 2 * np.sqrt(2 * np.log(2)) * smoothed * 2  # two pixels a place
    np.testing.assert_allclose(found["width_x"], expected, atol=2.1)
    np.testing.assert_allclose(found["x"], 2 * centre, atol=2.1)
    assert dict(found.sizes) == {"neuron": 3}


def test_what_has_no_such_weights_is_refused():
    with pytest.raises(TypeError, match="has a GaussianReadout: expected a factorised readout"):
        pooling_sizes(model(2, (8, 8), readout="gaussian"))
    with pytest.raises(ValueError, match="rank 2"):
        pooling_sizes(model(2, (8, 8), rank=2))
    with pytest.raises(ValueError, match="two positive numbers"):
        pooling_sizes(model(2, (8, 8)), degrees_per_pixel=(1.0, 0.0))

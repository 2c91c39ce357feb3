"""Gaussian fits: planted Gaussians are found, with noise and without, and bad fits are marked."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from v1tlearn.inspection import fit_gaussians

HEIGHT, WIDTH = 24, 40
Y, X = np.mgrid[:HEIGHT, :WIDTH]


def planted(x=15.0, y=10.0, sigma_x=4.0, sigma_y=2.0, angle=0.0, amplitude=1.0):
    dx, dy = X - x, Y - y
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    return amplitude * np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))


def labelled(*fields):
    return xr.DataArray(
        np.stack(fields)[:, None],
        dims=("neuron", "channel", "height", "width"),
        coords={"neuron": 10 + np.arange(len(fields))},
        attrs={"mouse_id": "A", "n_images": 5},
    )


def noisy(field, seed=0, level=0.05):
    return field + level * np.random.default_rng(seed).normal(size=field.shape)


@settings(max_examples=10)
@given(
    st.floats(8, WIDTH - 8),
    st.floats(7, HEIGHT - 7),
    st.floats(2.5, 4),
    st.floats(1.2, 2),
    st.floats(-1.3, 1.3),
    st.sampled_from([-3.0, 0.5]),
)
def test_a_planted_gaussian_is_found(x, y, sigma_x, sigma_y, angle, amplitude):
    field = noisy(planted(x, y, sigma_x, sigma_y, angle, amplitude), level=0.02 * abs(amplitude))
    fit = fit_gaussians(labelled(field), worst=0)
    assert fit["good"].item()
    assert abs(fit["x"].item() - x) < 0.3
    assert abs(fit["y"].item() - y) < 0.3
    widths = sorted((fit["sigma_x"].item(), fit["sigma_y"].item()))
    np.testing.assert_allclose(widths, (sigma_y, sigma_x), rtol=0.15)
    long_axis = fit["angle"].item() + np.pi / 2 * (fit["sigma_x"] < fit["sigma_y"]).item()
    assert abs(np.sin(long_axis - angle)) < 0.3


def test_labels_and_units():
    fit = fit_gaussians(labelled(planted(), planted(20)), worst=0)
    assert fit.sizes == {"neuron": 2}
    assert fit["neuron"].values.tolist() == [10, 11]
    assert fit.attrs == {"mouse_id": "A"}
    assert fit["sigma_x"].attrs["units"] == "pixel"
    assert fit["angle"].attrs["units"] == "radian"


def test_neither_scale_nor_sign_nor_offset_of_a_field_counts():
    field = noisy(planted())
    fit = fit_gaussians(labelled(field, 1e-6 * field, 3 - 5 * field), worst=0)
    for name in ("x", "y", "sigma_x", "sigma_y", "amplitude"):
        np.testing.assert_allclose(fit[name], fit[name][0].item(), rtol=1e-4)


def test_flat_fields_are_marked():
    fit = fit_gaussians(labelled(np.full((HEIGHT, WIDTH), 2.0), planted()), worst=0)
    assert fit["good"].values.tolist() == [False, True]
    assert np.isnan(fit["x"].values[0])


def test_the_widest_are_marked():
    fields = [noisy(planted(sigma_x=2 + 0.1 * i, sigma_y=2), level=0.001) for i in range(20)]
    fit = fit_gaussians(labelled(*fields), worst=0.1)
    assert not fit["good"].values[-2:].any()
    assert fit["good"].values[:-2].sum() >= 16  # two more at most for the other axis


def test_errors():
    with pytest.raises(TypeError, match="expected the DataArray of one mouse"):
        fit_gaussians({"A": labelled(planted())})
    with pytest.raises(ValueError, match="has the dimensions"):
        fit_gaussians(labelled(planted())[0])
    with pytest.raises(ValueError, match=r"worst=1\.5: expected a share"):
        fit_gaussians(labelled(planted()), worst=1.5)

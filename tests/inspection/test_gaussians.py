"""Gaussian fits: planted Gaussians are found, with noise and without, and bad fits are marked."""

import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import OptimizeWarning, curve_fit

from v1tlearn.inspection import fit_gaussians
from v1tlearn.nn import ImageCropper

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
    assert fit.attrs == {"mouse_id": "A", "core_pixel": [1, 1]}
    assert fit["sigma_x"].attrs["units"] == "pixel"
    assert fit["angle"].attrs["units"] == "radian"
    fields = labelled(planted(), planted(20)).assign_coords(area=("neuron", ["V1", "LM"]))
    assert fit_gaussians(fields, worst=0).sel(neuron=11)["area"].item() == "LM"


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


def test_fields_of_one_level_on_either_side_are_marked():
    field = np.where(X < WIDTH / 2, -1.0, 1.0)
    assert not fit_gaussians(labelled(field), worst=0)["good"].any()


@pytest.mark.parametrize("shape", [(12, 16), (18, 32)])
def test_noise_is_marked(shape):
    fields = np.random.default_rng(0).normal(size=(25, *shape))
    assert not fit_gaussians(labelled(*fields), worst=0)["good"].any()


@pytest.mark.parametrize("place", [(0, 0), (WIDTH - 1, HEIGHT - 1), (20, 0), (-0.4, 12)])
def test_fields_at_the_border_are_found(place):
    field = noisy(planted(*place, sigma_x=3, sigma_y=2.5), level=0.02)
    fit = fit_gaussians(labelled(field), worst=0)
    assert fit["good"].item()
    np.testing.assert_allclose([fit["x"].item(), fit["y"].item()], place, atol=0.4)


@pytest.mark.parametrize("place", [(-3, 12), (WIDTH + 2, 12), (20, -3), (20, HEIGHT + 2)])
def test_fields_beyond_the_border_are_marked(place):
    fit = fit_gaussians(labelled(planted(*place, sigma_x=4, sigma_y=4)), worst=0)
    assert not fit["good"].item()


def test_single_pixels_and_lines_are_marked():
    """Whatever their widths, they are below half a pixel."""
    pixel, line = np.zeros((2, HEIGHT, WIDTH))
    pixel[10, 20] = line[:, 20] = 1
    fit = fit_gaussians(labelled(noisy(pixel, level=0.01), noisy(line, level=0.01)), worst=0)
    assert not fit["good"].any()


def test_a_hole_is_marked():
    """Taken absolute, a field of noise but for one place has a hole there."""
    field = np.random.default_rng(0).choice([-1.0, 1.0], (HEIGHT, WIDTH)) * (1 - planted())
    fit = fit_gaussians(labelled(field), worst=0)
    assert not fit["good"].item()


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.3, 1.0, 3.0]))
def test_good_fits_keep_the_promises(seed, level):
    rng = np.random.default_rng(seed)
    field = planted(
        rng.uniform(-4, 20), rng.uniform(-4, 16), *rng.uniform(0.1, 6, 2), rng.uniform(-2, 2)
    )[:12, :16]
    field = field + level * rng.normal(size=field.shape)
    fit = fit_gaussians(labelled(field), worst=0).isel(neuron=0)
    if fit["good"]:
        assert np.isfinite([fit[name].item() for name in fit.data_vars]).all()
        assert fit["amplitude"] > 0
        assert fit["sigma_x"] >= 0.5
        assert fit["sigma_y"] >= 0.5
        assert -0.5 <= fit["x"] <= 15.5
        assert -0.5 <= fit["y"] <= 11.5
        absolute = np.abs((field - field.mean()) / field.std())
        y, x = np.mgrid[:12, :16]
        dx, dy = x - fit["x"].item(), y - fit["y"].item()
        found = {name: fit[name].item() for name in fit.data_vars}
        c, s = np.cos(found["angle"]), np.sin(found["angle"])
        along, across = (dx * c + dy * s) / found["sigma_x"], (dy * c - dx * s) / found["sigma_y"]
        model = found["offset"] + found["amplitude"] * np.exp(-0.5 * (along**2 + across**2))
        share = 1 - ((absolute - model) ** 2).mean() / absolute.var()
        assert share == pytest.approx(fit["explained"].item(), abs=1e-9)
        assert share * absolute.size > 25


# ------------------------------------------------------------------------------------ coordinates


@settings(max_examples=10)
@given(
    st.tuples(st.floats(30, 90), st.floats(20, 50)),
    st.tuples(st.floats(10, 14), st.floats(5, 8)),
    st.floats(-1.5, 1.5),
    st.tuples(st.floats(2, 4), st.floats(1.5, 4)),
)
def test_gaussians_are_given_in_the_coordinates_of_the_pixels(place, widths, angle, scale):
    columns = 7.5 + scale[0] * np.arange(120 // scale[0])
    rows = -3 + scale[1] * np.arange(80 // scale[1])
    x, y = np.meshgrid(columns, rows)
    dx, dy = x - place[0], y - place[1]
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    field = np.exp(-0.5 * ((along / widths[0]) ** 2 + (across / widths[1]) ** 2))
    fields = labelled(noisy(field, level=1e-3)).assign_coords(height=rows, width=columns)
    fit = fit_gaussians(fields, worst=0)
    assert fit.attrs["core_pixel"] == pytest.approx([scale[1], scale[0]])

    def gaussian(_, amplitude, x0, y0, along, across, turn, offset):
        dx, dy = x - x0, y - y0
        u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        return (offset + amplitude * np.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2))).ravel()

    values = fields.values[0, 0]
    values = np.abs(values - values.mean()) / values.std()
    start = (values.max(), *place, *widths, angle, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # of the covariance
        best, _ = curve_fit(gaussian, None, values.ravel(), p0=start)
    found = {name: fit[name].item() for name in fit.data_vars}
    np.testing.assert_allclose([found["x"], found["y"]], best[1:3], atol=0.01)
    order = (0, 1) if found["sigma_x"] > found["sigma_y"] else (1, 0)
    sigmas = np.array([found["sigma_x"], found["sigma_y"]])[list(order)]
    np.testing.assert_allclose(sigmas, np.abs(best[3:5]), rtol=1e-3)
    assert abs(np.sin(found["angle"] + np.pi / 2 * order[0] - best[5])) < 1e-3
    assert -np.pi / 2 <= found["angle"] <= np.pi / 2


@pytest.mark.parametrize(
    ("crop_scale", "size"), [(1.0, (18, 32)), (0.8, None), (0.77, (24, 40)), (0.6, (86, 90))]
)
def test_a_field_painted_on_the_recorded_image_is_found_there(crop_scale, size):
    y, x = np.mgrid[:72, :128]
    dx, dy = x - 70, y - 31
    along, across = (dx + dy) / 2**0.5, (dy - dx) / 2**0.5
    image = np.exp(-0.5 * ((along / 6) ** 2 + (across / 3.5) ** 2))
    cropper = ImageCropper((72, 128), crop_scale=crop_scale, image_size=size)
    field = cropper(torch.from_numpy(image)[None, None])[0, 0].numpy()
    rows, columns = cropper.source_positions()
    fields = labelled(noisy(field, level=1e-3))
    fields = fields.assign_coords(height=rows.numpy(), width=columns.numpy())
    fit = fit_gaussians(fields, worst=0).isel(neuron=0)
    assert fit["good"]
    assert abs(fit["x"].item() - 70) < 0.5
    assert abs(fit["y"].item() - 31) < 0.5
    found = np.array([fit["sigma_x"].item(), fit["sigma_y"].item()])
    np.testing.assert_allclose(np.sort(found), [3.5, 6], rtol=0.15)  # centring costs so much
    long_axis = fit["angle"].item() + np.pi / 2 * (found[0] < found[1])
    assert abs(np.sin(long_axis - np.pi / 4)) < 0.1


def test_errors():
    with pytest.raises(TypeError, match="expected the DataArray of one mouse"):
        fit_gaussians({"A": labelled(planted())})
    with pytest.raises(ValueError, match="has the dimensions"):
        fit_gaussians(labelled(planted())[0])
    with pytest.raises(ValueError, match=r"worst=1\.5: expected a share"):
        fit_gaussians(labelled(planted()), worst=1.5)


@pytest.mark.slow
def test_processes_share_neurons():
    fields = labelled(*(noisy(planted(x), seed=x) for x in range(10, 30)))
    one, two = fit_gaussians(fields), fit_gaussians(fields, n_jobs=2)
    xr.testing.assert_identical(one, two)

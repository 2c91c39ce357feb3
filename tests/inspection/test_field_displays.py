"""Displays of receptive fields and retinotopy: what is drawn is what was given."""

import numpy as np
import pytest
import xarray as xr

from tests.sweeps import quick
from v1tlearn.inspection import (
    FieldDistributionDisplay,
    ReceptiveFieldDisplay,
    RetinotopyDisplay,
    fit_gaussians,
    model_color,
    readout_positions,
    receptive_fields,
    retinotopy_smoothness,
)

Y, X = np.mgrid[:18, :32]


def planted(*places, step=1.0, start=0.0):
    """Receptive fields at places (x, y) in pixels of the image, sampled every `step` pixels."""
    fields = [np.exp(-((X - x) ** 2 / 32 + (Y - y) ** 2 / 8)) for x, y in places]
    return xr.DataArray(
        np.stack(fields)[:, None],
        dims=("neuron", "channel", "height", "width"),
        coords={
            "neuron": 7 + np.arange(len(places)),
            "height": start + step * np.arange(18),
            "width": start + step * np.arange(32),
        },
    )


def test_fields_and_ellipses_share_coordinates(figures):
    fields = planted((10, 6), (20, 12), step=4.0, start=1.5)
    fits = fit_gaussians(fields, worst=0)
    display = ReceptiveFieldDisplay.from_fields(fields)
    assert [axis.get_title() for axis in display.axes_] == ["neuron 7", "neuron 8"]
    assert display.images_[0].get_extent() == [-0.5, 127.5, 71.5, -0.5]
    for number, (x, y) in enumerate([(10, 6), (20, 12)]):
        ellipse, fit = display.ellipses_[number], fits.isel(neuron=number)
        np.testing.assert_allclose(ellipse.center, (4 * x + 1.5, 4 * y + 1.5), atol=0.5)
        assert ellipse.width == pytest.approx(4 * float(fit["sigma_x"]))  # two s.d. to each side
        assert ellipse.height == pytest.approx(4 * float(fit["sigma_y"]))
        assert ellipse.angle == pytest.approx(np.degrees(float(fit["angle"])))
    assert display.axes_[0].get_ylim() == (71.5, -0.5)  # row 0 at the top


def test_zero_is_white_and_each_field_has_its_own_scale(figures):
    fields = planted((10, 6), (20, 12)) * xr.DataArray([1.0, -5.0], dims="neuron")
    display = ReceptiveFieldDisplay(fields).plot()
    assert [image.norm.vmin for image in display.images_] == pytest.approx([-1, -5])
    for image in display.images_:
        assert image.norm.vmax == -image.norm.vmin
        assert image.cmap.name == "RdBu_r"
    assert display.ellipses_ == [None, None]


def test_bad_fits_are_dotted_and_failed_ones_are_not_drawn(figures):
    fields = planted((10, 6), (20, 12), (15, 9))
    fits = fit_gaussians(fields, worst=0)
    fits["good"][1] = False
    fits["x"][2] = np.nan
    display = ReceptiveFieldDisplay(fields, fits).plot()
    assert [e and e.get_linestyle() for e in display.ellipses_] == ["-", ":", None]


def test_gaussians_go_by_unit_ids(figures):
    fields = planted((10, 6), (20, 12))
    fits = fit_gaussians(fields, worst=0).isel(neuron=[1, 0])
    display = ReceptiveFieldDisplay(fields, fits).plot()
    np.testing.assert_allclose(display.ellipses_[0].center, (10, 6), atol=0.2)
    with pytest.raises(ValueError, match="gaussians lacks 1 of the 2 neurons of fields"):
        ReceptiveFieldDisplay(fields, fits.isel(neuron=[0]))


def test_over_an_image(figures):
    fields = planted((10, 6), step=2.0, start=0.5)
    display = ReceptiveFieldDisplay.from_fields(fields, image=np.zeros((50, 70)))
    whole, field = display.axes_[0].get_images()
    assert whole.get_extent() == [-0.5, 69.5, 49.5, -0.5]
    assert display.axes_[0].get_xlim() == (-0.5, 69.5)
    alpha = field.get_alpha()
    assert alpha.max() == 1
    assert alpha[0, -1] < 0.1
    with pytest.raises(ValueError, match=r"image has the shape \(3,\)"):
        ReceptiveFieldDisplay(fields, image=np.zeros(3))


def test_of_a_model(figures, models):
    display = ReceptiveFieldDisplay.from_estimator(models["CNN"], mouse_id="B", neurons=[3, 1])
    assert display.titles == ["neuron 3", "neuron 1"]
    expected = receptive_fields(models["CNN"], method="gradient", mice="B")["B"]
    most = float(np.abs(expected).max())
    np.testing.assert_allclose(
        display.fields, expected.sel(neuron=[3, 1]).mean("channel"), atol=1e-5 * most
    )
    first = ReceptiveFieldDisplay.from_estimator(
        models["LN"], n_fields=2, n_images=50, method="sum"
    )
    assert first.titles == ["neuron 1", "neuron 2"]
    with pytest.raises(ValueError, match="mice"):
        ReceptiveFieldDisplay.from_estimator(models["LN"], mouse_id="Z")


def test_fields_of_other_forms_are_refused():
    with pytest.raises(TypeError, match="fields is a dict"):
        ReceptiveFieldDisplay({})
    with pytest.raises(ValueError, match="fields has the dimensions"):
        ReceptiveFieldDisplay(planted((3, 3)).isel(height=0))
    with pytest.raises(TypeError, match=r"gaussians is a Dataset without \['angle'"):
        ReceptiveFieldDisplay(planted((3, 3)), xr.Dataset())


def gaussians(n, seed, bad=0, units="pixel"):
    rng = np.random.default_rng(seed)
    data = {v: ("neuron", rng.uniform(2, 20, n), {"units": units}) for v in ("x", "y")}
    data |= {v: ("neuron", rng.uniform(1, 3 + seed, n)) for v in ("sigma_x", "sigma_y")}
    return xr.Dataset(data | {"good": ("neuron", np.arange(n) >= bad)})


def test_distributions_of_two_models(figures):
    own, other = gaussians(30, 0, bad=4), {"A": gaussians(20, 1), "B": gaussians(10, 2)}
    display = FieldDistributionDisplay.from_gaussians({"CNN": own, "V1T": other})
    assert display.counts_ == {"CNN": (26, 30), "V1T": (30, 30)}
    assert display.medians_["CNN"]["sigma_x"] == np.median(own["sigma_x"][4:])
    assert len(display.axes_) == 4
    points = display.axes_[0].collections[0].get_offsets()
    np.testing.assert_allclose(points, np.stack([own["x"][4:], own["y"][4:]], 1))
    assert display.axes_[0].get_title() == "CNN: 26 of 30 neurons"
    assert display.axes_[0].get_xlim() == display.axes_[1].get_xlim()
    assert display.axes_[0].yaxis_inverted()
    legend = display.axes_[2].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["CNN", "V1T"]
    colors = pytest.importorskip("matplotlib.colors")
    drawn = display.axes_[2].patches[0].get_edgecolor()
    assert drawn == pytest.approx(colors.to_rgba(model_color("CNN")))
    assert "pixel" in display.axes_[3].get_xlabel()


def test_shares_of_neurons_add_up(figures):
    display = FieldDistributionDisplay({"CNN": gaussians(30, 0), "V1T": gaussians(9, 1)}).plot()
    for patch in display.axes_[2].patches:  # outlines of steps, from left to right
        corners = patch.get_xy()
        heights = corners[1:-1:2, 1]
        assert heights.sum() == pytest.approx(1)


def test_distributions_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="empty"):
        FieldDistributionDisplay({})
    with pytest.raises(TypeError, match="'CNN': a ndarray came"):
        FieldDistributionDisplay({"CNN": np.zeros(3)})
    with pytest.raises(ValueError, match="none of 5 neurons has a good fit"):
        FieldDistributionDisplay({"CNN": gaussians(5, 0, bad=5)})
    with pytest.raises(ValueError, match=r"\['degree', 'pixel'\]"):
        FieldDistributionDisplay({"a": gaussians(5, 0), "b": gaussians(5, 0, units="degree")})


def test_retinotopy_of_a_model(figures, models):
    display = RetinotopyDisplay.from_estimator(models["CNN"], mouse_id="B")
    found = readout_positions(models["CNN"])["B"]
    for axis, name in zip(display.axes_, "xy", strict=True):
        drawn = axis.collections[0]
        np.testing.assert_allclose(drawn.get_offsets(), found["position"][:, :2])
        np.testing.assert_allclose(drawn.get_array(), found[name])
        assert axis.get_xlabel() == "cortex, x (µm)"
    bars = [axis for axis in display.figure_.axes if axis not in list(display.axes_)]
    assert [bar.get_ylabel() for bar in bars] == ["looks at x (pixel)", "looks at y (pixel)"]
    assert bars[1].yaxis_inverted()


@pytest.mark.parametrize("seed", quick(range(4), 0))
def test_nothing_of_a_retinotopy_is_cut_off(figures, seed):
    rng = np.random.default_rng(seed)
    cortex = rng.uniform((-350, 80), (270, 700), (41, 2))
    limits = {"x": (5, 27), "y": (0, 17)}
    places = xr.Dataset({axis: ("neuron", rng.uniform(*ends, 41)) for axis, ends in limits.items()})
    smoothness = retinotopy_smoothness(places, cortex, n_permutations=9)
    figure = RetinotopyDisplay(places, cortex, smoothness=smoothness).plot().figure_
    figure.canvas.draw()
    assert len(figure.axes) == 4  # maps and their colour bars
    for axis in figure.axes:
        drawn = axis.get_tightbbox(figure.canvas.get_renderer())
        assert figure.bbox.x0 <= drawn.x0 < drawn.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= drawn.y0 < drawn.y1 <= figure.bbox.y1


def test_retinotopy_tells_its_smoothness(figures):
    rng = np.random.default_rng(0)
    cortex = rng.uniform(0, 600, (40, 2))
    places = xr.Dataset({v: ("neuron", cortex[:, i] / 20) for i, v in enumerate("xy")})
    smoothness = retinotopy_smoothness(places, cortex, n_permutations=99)
    display = RetinotopyDisplay(places, cortex, smoothness=smoothness).plot()
    assert "p = 0.01" in display.figure_.get_suptitle()
    with pytest.raises(ValueError, match="have no cortical position"):
        RetinotopyDisplay(places)
    scaled = places.assign(position=(("neuron", "axis"), cortex / 600, {"units": "1"}))
    assert RetinotopyDisplay(scaled).plot().axes_[0].get_xlabel() == "cortex, x"


def test_axes_of_the_caller(figures, models):
    _, axes = figures.subplots(1, 4)
    display = RetinotopyDisplay.from_estimator(models["LN"], ax=axes[:2])
    assert list(display.axes_) == list(axes[:2])
    with pytest.raises(ValueError, match="4 axes came, RetinotopyDisplay draws 2"):
        RetinotopyDisplay.from_estimator(models["LN"], ax=axes)

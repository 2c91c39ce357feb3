"""Images the right way up: row 0 at the top, square pixels, one grey scale; fields around zero."""

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from v1tlearn.inspection import ImageDisplay
from v1tlearn.preprocessing import CenterCrop


def on_screen(display, number=0):
    """Pixels of an image as they are drawn, from the top down: red, green, blue from 0 to 1."""
    axis = display.axes_[number]
    display.figure_.set_dpi(100)
    display.figure_.canvas.draw()
    box = axis.get_window_extent()
    screen = np.asarray(display.figure_.canvas.buffer_rgba())[..., :3] / 255
    height = screen.shape[0]
    n_rows, n_columns = display.images[number].shape[-2:]
    y = height - box.y1 + (np.arange(n_rows) + 0.5) * box.height / n_rows
    x = box.x0 + (np.arange(n_columns) + 0.5) * box.width / n_columns
    return screen[y.astype(int)[:, None], x.astype(int)]


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (6, 9)).astype(np.uint8)


def test_row_0_is_at_the_top_and_pixels_are_square(image, figures):
    display = ImageDisplay(image[None, None], limits=(0, 255))
    assert display.plot() is display
    np.testing.assert_allclose(
        on_screen(display), np.repeat(image[..., None], 3, 2) / 255, atol=0.01
    )
    box = display.ax_.get_window_extent()
    assert box.width / box.height == pytest.approx(9 / 6, rel=0.02)
    assert display.ax_.get_aspect() == 1


def test_one_grey_scale_for_all(image, figures):
    dark, bright = image // 4, 150 + image // 4
    display = ImageDisplay(np.stack([dark, bright])[:, None]).plot()
    assert {drawn.get_clim() for drawn in display.images_} == {(dark.min(), bright.max())}


def test_two_channels_are_uv_and_green(figures):
    uv, green, both, none = ((1, 0), (0, 1), (1, 1), (0, 0))
    pixels = np.array([[uv, green], [both, none]], dtype=float)
    display = ImageDisplay(np.moveaxis(pixels, -1, 0)[None]).plot()
    expected = [[(1, 0, 1), (0, 1, 0)], [(1, 1, 1), (0, 0, 0)]]
    np.testing.assert_allclose(on_screen(display), expected, atol=0.01)


def test_three_channels_are_colors(image, figures):
    colors = np.stack([image, image[::-1], 255 - image])
    display = ImageDisplay(colors[None], limits=(0, 255)).plot()
    np.testing.assert_allclose(on_screen(display), np.moveaxis(colors, 0, -1) / 255, atol=0.01)


# ------------------------------------------------------------------------------------------ trials


def test_trials_with_labels(test_trials, figures):
    order = [3, 25, 1, 30]
    shown = test_trials[order]
    display = ImageDisplay.from_trials(
        shown, labels=("mouse_id", "image_id", "tier"), behaviors=["running_speed"]
    )
    assert len(display.axes_) == 4
    for number, axis in enumerate(display.axes_):
        mouse, image = shown.mouse_ids[number], shown.image_ids[number]
        row = shown[[number]]
        np.testing.assert_array_equal(display.images[number], row.get("stimuli", mouse)[0])
        speed = row.get("behaviors", mouse)[0, 2]
        title = f"mouse {mouse}, image {image}, test\nrunning speed {speed:.3g}"
        assert axis.get_title() == title
        assert display.images_[number].get_clim() == (0, 255)


def test_as_many_trials_as_asked_for(test_trials, figures):
    assert len(ImageDisplay.from_trials(test_trials).axes_) == 6
    assert len(ImageDisplay.from_trials(test_trials, n_images=2).axes_) == 2
    few = ImageDisplay.from_trials(test_trials[:4], labels=())
    assert len(few.axes_) == len(few.figure_.axes) == 4
    assert few.axes_[0].get_title() == ""


def test_preprocessing_is_applied(test_trials, figures):
    display = ImageDisplay.from_trials(CenterCrop(0.5).fit_transform(test_trials), n_images=1)
    assert display.images.shape == (1, 1, 6, 8)


def seen_by(model, trials):
    """All that the core is given for trials, in grey levels."""
    given = []
    hook = model.module_.core.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    model.predict(trials)
    hook.remove()
    statistics = model.statistics_[trials.mice[0]]
    images = torch.cat(given)[:, :1].numpy()  # planes of behaviour follow
    return images * statistics["image_std"] + statistics["image_mean"]


def test_as_the_estimator_sees_them(models, test_trials, figures):
    model = models["CNN"]  # crops and resizes
    expected = seen_by(model, test_trials[:2])
    for estimator in (model, v1.EnsembleRegressor.from_members([model, model])):
        display = ImageDisplay.from_trials(test_trials[:2], estimator=estimator)
        np.testing.assert_allclose(display.images, expected, atol=1e-3)
        assert display.images_[0].get_clim() == (0, 255)


def test_crops_that_move_with_the_eye_and_pipelines(models, recordings, test_trials, figures):
    train = v1.Trials(recordings).sel(tier="train")
    model = models["LN"]
    moving = v1.LNRegressor(**{**model.get_params(), "shift": "stimulus", "crop_scale": 0.7})
    moving.fit(train)
    images = ImageDisplay.from_trials(test_trials[:3], estimator=moving).images
    seen = seen_by(moving, test_trials[:3])
    inside = np.isclose(images, seen, atol=1e-3)
    outside = images == 0  # beyond the image: black here, the mean to the core
    assert (inside | outside).all()
    piped = make_pipeline(CenterCrop(0.5), v1.LNRegressor(**model.get_params())).fit(train)
    images = ImageDisplay.from_trials(test_trials, estimator=piped).images
    assert images.shape[2:] == (6, 8)
    search = GridSearchCV(piped, {"lnregressor__max_epochs": [1]}, cv=GroupKFold(2))
    search.fit(train, groups=train.image_ids)
    shown = ImageDisplay.from_trials(test_trials, estimator=search).images
    np.testing.assert_allclose(shown, images, atol=1e-3)


def test_own_axes_and_keywords(test_trials, figures):
    fig = figures.matplotlib.figure.Figure()
    axes = fig.subplots(2)
    display = ImageDisplay.from_trials(test_trials[:2], ax=axes, image_kw={"cmap": "viridis"})
    assert display.figure_ is fig
    assert display.axes_.tolist() == axes.tolist()
    assert display.images_[1].get_cmap().name == "viridis"
    assert figures.get_fignums() == []
    with pytest.raises(ValueError, match="2 axes came, ImageDisplay draws 3"):
        ImageDisplay.from_trials(test_trials[:3], ax=axes)


# ------------------------------------------------------------------------------------------ fields


@pytest.fixture
def fields():
    values = np.random.default_rng(0).normal(size=(3, 1, 4, 6))
    values[1] *= 100
    coords = {
        "neuron": [7, 9, 8],
        "height": 4 * np.arange(4) + 1.5,
        "width": 2 * np.arange(6) + 0.5,
    }
    return xr.DataArray(values, dims=("neuron", "channel", "height", "width"), coords=coords)


def test_fields_around_zero(fields, figures):
    display = ImageDisplay.from_fields(fields)
    assert [axis.get_title() for axis in display.axes_] == ["neuron 7", "neuron 9", "neuron 8"]
    for drawn, field in zip(display.images_, fields.values[:, 0], strict=True):
        np.testing.assert_array_equal(drawn.get_array(), field)
        most = np.abs(field).max()
        assert drawn.get_clim() == pytest.approx((-most, most))
        assert drawn.get_cmap()(0.5)[:3] == pytest.approx((1, 1, 1), abs=0.05)


def test_fields_lie_at_their_coordinates(fields, figures):
    display = ImageDisplay.from_fields(fields)
    assert display.images_[0].get_extent() == [-0.5, 11.5, 15.5, -0.5]
    axis = display.axes_[0]
    assert axis.get_ylim() == (15.5, -0.5)  # downwards
    assert axis.get_aspect() == 1  # a pixel of the recorded image is square
    field = fields[0, 0]
    row, column = np.unravel_index(np.abs(field.values).argmax(), field.shape)
    red, green, blue = on_screen(display)[row, column]
    assert (red < blue) if field[row, column] < 0 else (red > blue)
    assert green < 0.5


@pytest.mark.slow
def test_fields_of_any_other_dimensions(fields, figures):
    one = ImageDisplay.from_fields(fields[0, 0])
    assert len(one.axes_) == 1
    assert one.axes_[0].get_title() == ""
    two = ImageDisplay.from_fields(
        fields.isel(channel=0).transpose("width", "height", "neuron"), n_fields=2
    )
    np.testing.assert_array_equal(two.images[1, 0], fields.values[1, 0])
    channels = xr.concat([fields, -fields], "channel")
    titles = [axis.get_title() for axis in ImageDisplay.from_fields(channels).axes_]
    assert titles[:2] == ["neuron 7, channel 0", "neuron 7, channel 1"]
    bare = ImageDisplay.from_fields(fields.drop_vars(["height", "width", "neuron"]))
    assert bare.images_[0].get_extent() == [-0.5, 5.5, 3.5, -0.5]
    assert bare.axes_[1].get_title() == "neuron 1"


def test_xarray_puts_row_0_at_the_top_where_it_is_told(fields, figures):
    """As the documentation of receptive fields says; it does not of its own accord."""
    fields[0, 0].plot(yincrease=False)
    low, high = figures.gca().get_ylim()
    assert low > high
    figures.figure()
    fields[0, 0].plot()
    low, high = figures.gca().get_ylim()
    assert low < high


def test_errors(test_trials, fields):
    with pytest.raises(ValueError, match=r"shape \(6, 9\): expected \(images, channels"):
        ImageDisplay(np.zeros((6, 9)))
    with pytest.raises(ValueError, match="4 channels: expected 1, 2 or 3"):
        ImageDisplay(np.zeros((1, 4, 6, 9)))
    with pytest.raises(ValueError, match="3 channels: expected 1 of signed"):
        ImageDisplay(np.zeros((1, 3, 6, 9)), signed=True)
    with pytest.raises(ValueError, match="1 titles came for 2 images"):
        ImageDisplay(np.zeros((2, 1, 6, 9)), ["one"])
    with pytest.raises(TypeError, match="trials is a ndarray: expected Trials"):
        ImageDisplay.from_trials(np.zeros((2, 1, 6, 9)))
    with pytest.raises(ValueError, match=r"labels: \['day'\] came"):
        ImageDisplay.from_trials(test_trials, labels=["day"])
    with pytest.raises(ValueError, match=r"mouse 'A': behaviors asks for \['licks'\]"):
        ImageDisplay.from_trials(test_trials, behaviors="licks")
    with pytest.raises(ValueError, match="n_images=0"):
        ImageDisplay.from_trials(test_trials, n_images=0)
    with pytest.raises(TypeError, match="fields is a dict: expected a DataArray"):
        ImageDisplay.from_fields({"A": fields})
    with pytest.raises(ValueError, match="height and width needed"):
        ImageDisplay.from_fields(fields.rename(height="row"))
    with pytest.raises(ValueError, match="n_fields=0"):
        ImageDisplay.from_fields(fields, n_fields=0)
    with pytest.raises(ValueError, match="n_fields=True"):
        ImageDisplay.from_fields(fields, n_fields=True)
    with pytest.raises(ValueError, match=r"n_images=2\.0: expected a whole number"):
        ImageDisplay.from_trials(test_trials, n_images=2.0)
    for number in (0, 1.5):
        with pytest.raises(ValueError, match=f"n_columns={number}: expected a whole number"):
            ImageDisplay.from_trials(test_trials, n_columns=number)
    with pytest.raises(ValueError, match=r"fields is empty, .*'neuron': 0"):
        ImageDisplay.from_fields(fields[:0])


@pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (127, np.int8), (-3.5, float)])
def test_limits_of_even_images(value, dtype):
    display = ImageDisplay(np.full((1, 1, 4, 4), value, dtype))
    assert display.limits == (value, value + 1)


def test_dimensions_are_taken_by_name(fields):
    images = ImageDisplay(fields).images
    np.testing.assert_array_equal(images, fields.values)
    turned = fields.transpose("width", "channel", "height", "neuron")
    np.testing.assert_array_equal(ImageDisplay(turned).images, fields.values)
    unnamed = fields.rename(height="a", width="b", channel="c")
    np.testing.assert_array_equal(ImageDisplay(unnamed).images, fields.values)

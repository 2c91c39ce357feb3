"""Maps over images: what is drawn where, and titles."""

import numpy as np
import pytest

from v1tlearn.inspection import (
    AttentionRolloutDisplay,
    ImageDisplay,
    attention_center_of_mass,
    attention_rollout,
)

pytestmark = pytest.mark.usefixtures("figures")


def test_maps_lie_over_the_images_that_they_are_of(fit, trials):
    test = trials.sel(tier="test")[3:]
    model = fit(crop_scale=0.75, image_size=(9, 12))
    display = AttentionRolloutDisplay.from_estimator(model, test, n_images=4)
    assert len(display.axes_) == 4
    seen = ImageDisplay.from_trials(test, estimator=model, n_images=4)
    np.testing.assert_allclose(display.images, seen.images, rtol=1e-4, atol=1e-3)
    mouse = test.mouse_ids[0]
    maps = attention_rollout(model, test[:4])[mouse]
    np.testing.assert_array_equal(display.maps[0], maps.values[0])
    left, right, bottom, top = display.maps_[0].get_extent()
    assert 0 < left < right < 16
    assert 0 < top < bottom < 12
    cross = display.ax_.get_lines()[0]
    x, y = attention_center_of_mass(maps).values[0]
    np.testing.assert_allclose(cross.get_xdata()[0], x, atol=0.5)
    np.testing.assert_allclose(cross.get_ydata()[0], y, atol=0.5)


def test_titles_tell_behaviour(fit, trials):
    test = trials.sel(tier="test", mouse_id="B")
    row = test["B"]["behaviors"].values[0]
    display = AttentionRolloutDisplay.from_estimator(fit(), test, n_images=1)
    title = display.ax_.get_title()
    assert title.startswith(f"mouse B, image {test.image_ids[0]}\ndilation {row[0]:.3g}, ")
    assert title.endswith(f"pupil at ({row[3]:.3g}, {row[4]:.3g})")
    one = AttentionRolloutDisplay.from_estimator(fit(), test, n_images=1, behaviors="running_speed")
    assert one.ax_.get_title().split("\n")[1] == f"speed {row[2]:.3g}"
    with pytest.raises(ValueError, match=r"asks for \['speed'\]"):
        AttentionRolloutDisplay.from_estimator(fit(), test, behaviors=["speed"])


def test_axes_of_the_caller(plt):
    images, maps = np.zeros((2, 1, 5, 6)), np.random.default_rng(0).random((2, 5, 6))
    figure, axes = plt.subplots(1, 2)
    display = AttentionRolloutDisplay(images, maps).plot(axes, map_kw={"alpha": 0.3})
    assert display.figure_ is figure
    assert len(figure.axes) == 2  # no room is taken for a colour bar
    assert display.maps_[0].get_alpha() == 0.3
    with pytest.raises(ValueError, match="as many as images, of their size"):
        AttentionRolloutDisplay(images, maps[:, :3])

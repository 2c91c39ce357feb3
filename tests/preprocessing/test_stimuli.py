import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from v1tlearn.nn.layers.images import ImageCropper
from v1tlearn.preprocessing import CenterCrop, Grayscale, ResizeStimuli
from v1tlearn.trials import Trials

TRANSFORMERS = [CenterCrop(0.75), ResizeStimuli((9, 16)), Grayscale()]


def make_images(shape=(5, 3, 12, 20), dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


def make_trials(images):
    n = len(images)
    return Trials(
        {
            mouse: xr.Dataset(
                {
                    "stimuli": (("trial", "channel", "height", "width"), images + k),
                    "behaviors": (("trial", "behavior"), np.ones((n, 1))),
                    "responses": (("trial", "neuron"), np.ones((n, 2))),
                },
                {"behavior": ["running_speed"]},
            )
            for k, mouse in enumerate("AB")
        }
    )


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=repr)
class TestEach:
    def test_trials_and_arrays_give_the_same_pixels(self, transformer):
        images = make_images()
        view = clone(transformer).fit_transform(make_trials(images))
        assert isinstance(view, Trials)
        for k, mouse in enumerate("AB"):
            np.testing.assert_array_equal(
                view.get("stimuli", mouse), transformer.transform(images + np.uint8(k))
            )
            part = view[view.rows(mouse)[0][[3, 1]]].get("stimuli", mouse)
            np.testing.assert_array_equal(part, view.get("stimuli", mouse)[[3, 1]])
            np.testing.assert_array_equal(view.get("behaviors", mouse), np.ones((5, 1)))
            np.testing.assert_array_equal(view.responses.get(mouse), np.ones((5, 2)))

    def test_data_stay_as_they_are(self, transformer):
        images = make_images()
        before = images.copy()
        images.flags.writeable = False
        trials = make_trials(images)
        transformer.fit_transform(images)
        transformer.fit_transform(trials).get("stimuli", "A")
        np.testing.assert_array_equal(images, before)
        np.testing.assert_array_equal(trials.get("stimuli", "A"), before)

    def test_views_and_transformers_survive_pickle(self, transformer):
        view = transformer.fit_transform(make_trials(make_images()))
        again = pickle.loads(pickle.dumps(view))
        np.testing.assert_array_equal(again.get("stimuli", "B"), view.get("stimuli", "B"))
        copy = pickle.loads(pickle.dumps(transformer))
        assert copy.get_params() == transformer.get_params()
        assert "<div" in transformer._repr_html_()

    def test_no_fit_is_needed(self, transformer):
        assert clone(transformer).transform(make_images()).shape[0] == 5

    @pytest.mark.parametrize("shape", [(5, 12), (5, 12, 20)])
    def test_other_shapes_are_refused(self, transformer, shape):
        name = type(transformer).__name__
        with pytest.raises(ValueError, match=f"{name} takes Trials or stimuli of shape"):
            transformer.fit(np.zeros(shape))
        with pytest.raises(ValueError, match=f"{name} takes Trials or stimuli of shape"):
            transformer.transform(np.zeros(shape))

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64", ">f4"])
    def test_dtypes(self, transformer, dtype):
        images = make_images(dtype=dtype)
        got = transformer.transform(images)
        reference = transformer.transform(images.astype("float64"))
        np.testing.assert_allclose(got, reference, rtol=1e-5)
        if not isinstance(transformer, CenterCrop):
            assert got.dtype == ("float64" if dtype in ("float64", "int32") else "float32")


@given(
    st.integers(4, 40),
    st.integers(4, 40),
    st.floats(0.3, 1),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_outside_equals_inside_the_model(height, width, scale, size):
    images = make_images((2, 1, height, width), "float32")
    outside = make_pipeline(CenterCrop(scale), ResizeStimuli(size)).fit_transform(images)
    inside = ImageCropper((height, width), crop_scale=scale, image_size=size)
    np.testing.assert_array_equal(outside, inside(torch.tensor(images)).numpy())


def test_crop_keeps_pixels_and_their_type():
    images = make_images((2, 1, 144, 256))
    got = CenterCrop(0.8).transform(images)
    assert got.dtype == np.uint8
    assert got.shape == (2, 1, 115, 204)
    np.testing.assert_array_equal(got[..., 0, 0], images[..., 14, 25])  # rows 14.., columns 25..
    np.testing.assert_array_equal(CenterCrop(1.0).transform(images), images)


def test_resize_to_a_quarter_is_the_mean_of_the_central_pixels():
    images = make_images((3, 2, 144, 256))
    blocks = images.reshape(3, 2, 36, 4, 64, 4)[:, :, :, 1:3, :, 1:3]
    expected = blocks.mean(axis=(3, 5))
    np.testing.assert_allclose(ResizeStimuli((36, 64)).transform(images), expected, atol=1e-4)


def test_resize_to_the_same_size_changes_nothing():
    images = make_images()
    got = ResizeStimuli((12, 20)).transform(images)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, images)


def test_grayscale_is_the_mean_over_channels():
    images = make_images()
    got = Grayscale().transform(images)
    assert got.shape == (5, 1, 12, 20)
    np.testing.assert_allclose(got, images.mean(axis=1, keepdims=True), rtol=1e-6)
    one = images[:, :1]
    np.testing.assert_array_equal(Grayscale().transform(one), one)


def test_steps_apply_in_order():
    view = make_pipeline(Grayscale(), CenterCrop(0.5), ResizeStimuli((3, 5))).fit_transform(
        make_trials(make_images())
    )
    assert view.get("stimuli", "A").shape == (5, 1, 3, 5)
    assert view[[1, 0]].get("stimuli", "A").shape == (2, 1, 3, 5)


@pytest.mark.parametrize("scale", [0, -1, 1.1])
def test_crop_scale(scale):
    with pytest.raises(ValueError, match="CenterCrop: scale is"):
        CenterCrop(scale).fit(make_images())
    with pytest.raises(ValueError, match="leaves no pixel"):
        CenterCrop(0.01).transform(make_images())


@pytest.mark.parametrize("size", [36, (36,), (36, 0), (3.5, 4), np.ma.masked_equal((9, 4), 4)])
def test_image_size(size):
    with pytest.raises(ValueError, match="ResizeStimuli: image_size is"):
        ResizeStimuli(size).fit(make_images())

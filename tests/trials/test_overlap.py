"""Images on both sides of a split are found by what they show, and others are not."""

import io

import numpy as np
import pytest
from PIL import Image

import v1tlearn as v1
from v1tlearn.model_selection import overlapping_images


def scenes(n, shape=(36, 64), seed=0):
    """Images of a simulated recording: discs before each other, shown as integers."""
    recordings = v1.make_v1_recordings(
        n_mice=1,
        n_neurons=2,
        n_trials=n,
        n_test_images=1,
        n_repeats=1,
        image_shape=shape,
        random_state=seed,
    )
    trials = v1.Trials(recordings)
    return trials.get("stimuli", trials.mice[0])[:n].astype(np.uint8)


def as_trials(images, names, **params):
    return v1.Trials.from_arrays(
        images, None, np.zeros((len(images), 2), "f4"), image_ids=names, **params
    )


@pytest.fixture(scope="module")
def images():
    return scenes(60)


@pytest.fixture(scope="module")
def train(images):
    return as_trials(images[:40], [f"train {i}" for i in range(40)])


def jpeg(image):
    stream = io.BytesIO()
    Image.fromarray(image[0]).save(stream, "JPEG", quality=75)
    return np.asarray(Image.open(stream))[None]


def resized(image, shape):
    return np.asarray(Image.fromarray(image[0]).resize(shape[::-1], Image.Resampling.BILINEAR))[
        None
    ]


NOISE = np.random.default_rng(0)
CHANGES = {
    "the same": (lambda x: x, "none"),
    "mirrored": (lambda x: x[..., ::-1], "left-right"),
    "upside down": (lambda x: x[:, ::-1], "up-down"),
    "turned by half": (lambda x: x[:, ::-1, ::-1], "both"),
    "brighter": (lambda x: 0.5 * x + 90, "none"),
    "in units of one": (lambda x: x / 255 - 0.5, "none"),
    "compressed": (jpeg, "none"),
    "mirrored and compressed": (lambda x: jpeg(np.ascontiguousarray(x[..., ::-1])), "left-right"),
    "noisy": (lambda x: x + NOISE.normal(0, 3, x.shape), "none"),
    "larger": (lambda x: resized(x, (144, 256)), "none"),
    "smaller": (lambda x: resized(x, (24, 40)), "none"),
    "in colour": (lambda x: np.repeat(x, 3, axis=0), "none"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_image_is_found_however_it_is_stored(images, train, change):
    changed, flip = CHANGES[change]
    stimuli = np.stack([changed(image) for image in images[35:45]])
    found = overlapping_images(train, as_trials(stimuli, [f"test {i}" for i in range(35, 45)]))
    assert found["image_id"].tolist() == [f"test {i}" for i in range(35, 40)]
    assert found["like"].tolist() == [f"train {i}" for i in range(35, 40)]
    assert set(found["flip"]) == {flip}
    assert (found["similarity"] > 0.993).all()
    assert not found["same_id"].any()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(12, 16), (36, 64)])
def test_other_images_are_not(shape):
    """Nine million pairs, flipped in four ways."""
    stimuli = scenes(3000, shape, seed=1)
    first = as_trials(stimuli[:1500], np.arange(1500))
    assert overlapping_images(first, as_trials(stimuli[1500:], np.arange(1500, 3000))).empty


@pytest.mark.parametrize("shape", [(8, 8), (14, 18), (36, 64)])
def test_nor_is_noise(shape):
    stimuli = np.random.default_rng(0).normal(size=(2000, 1, *shape))
    first = as_trials(stimuli[:1000], np.arange(1000))
    assert overlapping_images(first, as_trials(stimuli[1000:], np.arange(1000, 2000))).empty


def test_nor_are_images_without_contrast_or_of_few_pixels():
    flat = np.full((4, 1, 16, 16), 127, np.uint8)
    assert overlapping_images(as_trials(flat[:2], [0, 1]), as_trials(flat[2:], [2, 3])).empty
    few = np.random.default_rng(0).normal(size=(4, 1, 2, 2))
    assert overlapping_images(as_trials(few[:2], [0, 1]), as_trials(few, [2, 3, 4, 5])).empty


def test_ids_are_known_again_whatever_they_show(images):
    flat = np.full((2, 1, 36, 64), 127, np.uint8)
    train = as_trials(np.concatenate([images[:2], flat[:1]]), ["a", "b", "flat"])
    test = as_trials(np.concatenate([images[[5, 1, 1]], flat[:1]]), ["a", "b", "b", "flat"])
    found = overlapping_images(train, test).set_index("image_id")
    assert found["same_id"].all()
    assert found["n_trials"].tolist() == [1, 2, 1]
    assert found.loc["a", "similarity"] < 0.9  # two images bear one id
    assert found.loc["b", "similarity"] == pytest.approx(1, abs=1e-3)
    assert np.isnan(found.loc["flat", "similarity"])


def test_other_mice_and_files_count_too(images, tmp_path):
    two = {"A": images[:20], "B": images[10:30]}
    silent = {m: np.zeros((20, 2), "f4") for m in two}
    ids = {"A": np.arange(20), "B": np.arange(10, 30)}
    train = v1.Trials.from_arrays(two, None, silent, image_ids=ids)
    train.to_netcdf(tmp_path / "train.nc")
    test = as_trials(images[28:32, ..., ::-1], [100, 101, 102, 103])
    for known in (train, v1.Trials.open(tmp_path / "train.nc")):
        found = overlapping_images(known, test)
        assert found[["image_id", "like"]].to_numpy().tolist() == [["100", "28"], ["101", "29"]]


def movies(frames, names):
    return v1.Trials.from_arrays(
        {"A": frames},
        None,
        {"A": [np.zeros((len(own), 2), "f4") for own in frames]},
        image_ids={"A": names},
        frame_rate=30,
    )


def test_movies_share_frames(images):
    train = movies([images[:20], images[20:40]], ["one", "two"])
    part = np.concatenate([images[33:39], images[40:46]])
    test = movies([images[46:56], part, images[5:9, ..., ::-1]], ["new", "half", "mirror"])
    found = overlapping_images(train, test).set_index("image_id")
    assert found.index.tolist() == ["half", "mirror"]
    assert found["like"].tolist() == ["two", "one"]
    assert found["share"].tolist() == [0.5, 1.0]
    assert found["flip"].tolist() == ["none", "left-right"]


def test_what_are_no_trials_is_refused(train):
    with pytest.raises(TypeError, match="overlapping_images was given a list"):
        overlapping_images(train, [train])
    with pytest.raises(TypeError):
        overlapping_images(np.zeros((3, 1, 16, 16)), train)

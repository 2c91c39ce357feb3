"""Stimuli and behaviour in another unit than at fit are told of, and nothing else is."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from tests.estimators.test_dina import TINY
from v1tlearn.inspection import gratings, tuning_curves

UNIT = "stimuli look as if they were in another unit than at fit"


def as_standardized(images):
    return ((images - 110.0) / 55).astype(np.float32)


def as_shares(images):
    return (images / 255).astype(np.float32)


FORMS = {"levels": lambda images: images, "shares": as_shares, "standardized": as_standardized}


@pytest.fixture(scope="module")
def images():
    """Noise over all grey levels, (40, 1, 12, 16), with contrasts from 0.1 to 1."""
    rng = np.random.default_rng(0)
    contrast = np.linspace(0.1, 1, 40)[:, None, None, None]
    noise = 127 + 60 * contrast * rng.normal(size=(40, 1, 12, 16))
    return noise.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def behaviors():
    rng = np.random.default_rng(1)
    columns = [50 + 15 * rng.normal(size=40), rng.normal(size=40), 10 * rng.random(40) ** 4]
    return np.column_stack(columns)


@pytest.fixture(scope="module")
def responses():
    return np.random.default_rng(2).gamma(1, size=(40, 3))


@pytest.fixture(scope="module")
def models(images, behaviors, responses, small):
    """One for each form of the images."""
    made = {form: small(max_epochs=1, standardize=form == "levels") for form in FORMS}
    return {
        form: model.fit(FORMS[form](images), behaviors, responses) for form, model in made.items()
    }


def told(call, *args, **kwargs):
    """Whether a call tells of another unit."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*args, **kwargs)
    return [str(w.message) for w in caught if "another unit than at fit" in str(w.message)]


@pytest.mark.parametrize("was", FORMS)
@pytest.mark.parametrize("now", FORMS)
def test_other_grey_levels_are_told_of_with_their_numbers(was, now, models, images, behaviors):
    model, given = models[was], FORMS[now](images)
    if was == now or (was, now) == ("standardized", "shares"):  # as of low contrast
        assert not told(model.predict, given, behaviors)
        return
    with pytest.warns(UserWarning, match=UNIT) as caught:
        model.predict(given, behaviors)
    (message,) = (str(w.message) for w in caught)
    low, high = (f"{end(given):.3g}" for end in (np.min, np.max))
    assert f"here they are from {low} to {high} (mean {given.mean():.3g}" in message
    assert f"there they were from {FORMS[was](images).min():.3g} to" in message
    assert caught[0].filename == __file__


def grating(contrast, mean=127.0):
    wave = np.sin(np.arange(16) / 2)
    return np.tile(mean * (1 + contrast * wave), (1, 1, 12, 1))


HARMLESS = {
    "black": np.zeros((3, 1, 12, 16), np.uint8),
    "grey": np.full((1, 1, 12, 16), 127.5),
    "white": np.full((1, 1, 12, 16), 255, np.uint8),
    "dark": np.random.default_rng(0).integers(0, 6, (2, 1, 12, 16)).astype(np.uint8),
    "dark, as floats": np.random.default_rng(0).integers(0, 6, (2, 1, 12, 16)).astype(float),
    "dark, resized": 8 * np.random.default_rng(0).random((2, 1, 12, 16)),
    "grating": grating(1.0),
    "faint grating": grating(0.01),
    "a dot": 127.0 + 100.0 * (np.arange(192).reshape(1, 1, 12, 16) == 80),
    "ringing": grating(1.2),
}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("form", FORMS)
def test_what_experiments_show_is_not(name, form, models, behaviors):
    shown = FORMS[form](HARMLESS[name])
    assert not told(models[form].predict, shown, behaviors[: len(shown)])


@given(first=st.integers(0, 39), n=st.integers(1, 40), form=st.sampled_from(sorted(FORMS)))
@settings(max_examples=15)
def test_nor_are_some_of_the_same_images(first, n, form, models, images, behaviors):
    rows = slice(first, first + n)
    shown, moves = FORMS[form](images)[rows], behaviors[rows]
    assert not told(models[form].predict, shown, moves)


@pytest.mark.parametrize(
    ("column", "change", "is_other"),
    [
        (0, lambda v: (v - v.mean()) / v.std(), True),  # standardised
        (0, lambda v: v / v.max(), True),
        (2, lambda v: 1000 * v, True),  # of another unit of length
        (0, lambda v: v + 1e4, True),
        (0, lambda v: 0.6 * v, False),  # in brighter light
        (0, lambda v: np.full_like(v, 40), False),
        (2, np.zeros_like, False),  # a mouse that stands still
        (2, lambda v: 3 * v, False),
        (2, lambda v: np.where(np.arange(len(v)) == 7, 100, v), False),  # an outlier
    ],
)
def test_behaviour_is_told_of_by_its_column(
    column, change, is_other, models, images, behaviors, small
):
    given = behaviors.copy()
    given[:, column] = change(given[:, column])
    found = told(models["levels"].predict, images, given)
    assert bool(found) == is_other
    name = ["pupil_dilation", "pupil_dilation_derivative", "running_speed"][column]
    assert not is_other or re.match(f"mouse 'mouse': values of '{name}' look", found[0])


def test_every_call_tells(images, behaviors, responses, small):
    parts = (as_shares(images), behaviors, responses)
    model = small(max_epochs=1).fit(images, behaviors, responses)
    other = v1.Trials.from_arrays(*parts)
    assert told(model.score, *parts)
    assert told(model.partial_fit, *parts)
    assert told(small(max_epochs=1).fit, images, behaviors, responses, validation=other)
    assert not told(model.transfer, other)  # by statistics of its own
    raw = small(max_epochs=1, standardize=False).fit(images / 100, behaviors / 10, responses)
    assert told(raw.transfer, v1.Trials.from_arrays(images, behaviors, responses))


def test_pipelines_that_standardize_tell_too(images, behaviors, responses, small):
    trials = v1.Trials.from_arrays(images, behaviors, responses)
    model = make_pipeline(v1.TrialStandardizer(), small(max_epochs=1, standardize=False))
    model.fit(trials)
    assert not told(model.predict, trials)
    for change in (as_shares, as_standardized):
        assert told(model.predict, v1.Trials.from_arrays(change(images), behaviors, responses))


def test_alignments_tell_too(images, responses):
    model = v1.DINAAligner(**TINY | {"max_epochs": 1}).fit(images, None, responses)
    assert not told(model.transform_images, images)
    assert told(model.transform_images, as_shares(images))
    assert told(model.transfer, v1.Trials.from_arrays(as_shares(images), None, responses))


def test_movies_tell_too():
    trials = v1.Trials(
        v1.make_movie_recordings(1, 3, 4, 1, 2, n_frames=20, image_shape=(10, 14), random_state=0)
    )
    model = v1.MovieLNRegressor(n_lags=3, window_frames=8, max_epochs=1, random_state=0)
    model.fit(trials.sel(tier="train"))
    movies, behaviors = trials.get("stimuli", "A"), trials.get("behaviors", "A")
    assert not told(model.predict, movies, behaviors)
    for call in (model.predict, model.predict_parts):
        assert told(call, as_shares(movies), behaviors)


def test_the_ranges_are_kept_and_older_models_tell_nothing(
    models, images, behaviors, tmp_path, equal
):
    model = models["levels"]
    model.save(tmp_path)
    opened = v1.load(tmp_path, device="cpu")
    assert told(opened.predict, as_shares(images), behaviors)
    opened.fitted_ = replace(opened.fitted_, ranges=None)
    assert not told(opened.predict, as_shares(images), behaviors)
    assert equal(opened.predict(images, behaviors), model.predict(images, behaviors))


def test_stimuli_made_in_silico_are_not_told_of(models):
    stimuli = gratings((12, 16), orientation=[0, 45], contrast=[0.01, 1])
    assert not told(tuning_curves, models["levels"], stimuli)


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (np.zeros_like, "mean 0, standard deviation 0"),
        (lambda v: 128 + 1e-6 * (v - 128.0), "mean 128, standard deviation 3"),
    ],
)
def test_images_that_do_not_vary_in_float32_are_told_of(
    change, number, images, behaviors, responses, small
):
    ids = np.arange(len(images))
    with pytest.warns(UserWarning, match=f"stimuli do not vary.*float32.*{number}"):
        small(max_epochs=1).fit(change(images), behaviors, responses, image_ids=ids)

"""What a linear model reads from the space of an alignment."""

import pickle
import tracemalloc

import numpy as np
import pytest
import xarray as xr
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1


def spread(n_images=30, n_features=8, repeats=2, noise=0.1, seed=0):
    """Noisy linear features of images; the images; three classes of them; which was shown."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n_images, 1, 3, 4))
    shown = np.arange(n_images).repeat(repeats)
    features = images.reshape(n_images, -1) @ rng.normal(size=(12, n_features))
    classes = np.array(["cat", "bird", "mouse"])[np.argmax(features[:, :3], axis=1)]
    features = features[shown] + noise * rng.normal(size=(len(shown), n_features))
    return features, images[shown], classes[shown], shown


@pytest.fixture(scope="module")
def pixels(aligner, trials):
    """A probe of pixels; not to be changed."""
    return v1.LinearProbe("pixels", aligner=aligner).fit(trials)


@pytest.mark.slow
def test_images_are_read_from_the_maps_of_responses_of_all_mice(pixels, aligner, trials):
    maps = aligner.transform_responses(trials, flat=True).values.astype(float)
    images = np.empty((len(trials), 12 * 16))
    for mouse in trials.mice:
        images[trials.rows(mouse)[0]] = trials.get("stimuli", mouse).reshape(-1, 192)
    oracle = Ridge(pixels.alpha_).fit(maps, images)
    decoded = pixels.predict(trials)
    np.testing.assert_allclose(
        decoded, oracle.predict(maps).reshape(decoded.shape), rtol=0, atol=1e-6
    )
    assert decoded.dims == ("trial", "channel", "height", "width")
    assert decoded.mouse_id.values.tolist() == trials.mouse_ids.tolist()
    assert decoded.image_id.values.tolist() == trials.image_ids.tolist()


def test_maps_and_what_they_are_made_of_are_read_alike(pixels, aligner, test_trials):
    expected = pixels.predict(test_trials)
    assert np.array_equal(pixels.predict(test_trials.responses), expected)
    flat = aligner.transform_responses(test_trials, flat=True)
    np.testing.assert_allclose(pixels.predict(flat), expected, rtol=0, atol=1e-4)
    maps = aligner.transform_responses(test_trials)
    np.testing.assert_allclose(pixels.predict(maps), expected, rtol=0, atol=1e-4)


def test_dimensions_of_maps_and_images_go_by_name(pixels, aligner, test_trials):
    maps = aligner.transform_responses(test_trials)
    expected = pixels.predict(maps)
    for dims in (("trial", "width", "channel", "height"), ("width", "height", "trial", "channel")):
        assert np.array_equal(pixels.predict(maps.transpose(*dims)), expected)
    one = test_trials.sel(mouse_id="A")
    images = xr.DataArray(one.get("stimuli", "A"), dims=("trial", "channel", "height", "width"))
    maps = aligner.transform_responses(one)
    probe = v1.LinearProbe(aligner=aligner, alpha=1.0)
    plain = probe.fit(maps, images.values).predict(maps)
    turned = images.transpose("height", "trial", "width", "channel")
    assert np.array_equal(probe.fit(maps, turned).predict(maps), plain)
    assert probe.score(maps, turned) == probe.score(maps, images.values)


def test_the_first_dimension_of_labelled_features_is_that_of_trials():
    features, images, *_ = spread(4, 8, repeats=2)  # as many trials as features
    labelled = xr.DataArray(features, dims=("trial", "unit"))
    probe = v1.LinearProbe(alpha=1.0)
    expected = probe.fit(features, images).predict(features)
    assert np.array_equal(probe.fit(labelled.T, images).predict(labelled.T), expected)


def test_labelled_arrays_of_responses_and_images_are_no_maps(pixels, aligner, test_trials):
    one = test_trials.sel(mouse_id="A")
    responses, images = one.responses["A"], one.recordings["A"]["stimuli"]
    responses = responses.transpose("neuron", "trial")
    with pytest.raises(ValueError, match="mouse_ids is missing"):  # the aligner is asked
        pixels.predict(responses)
    assert np.array_equal(pixels.predict({"A": responses}), pixels.predict(one))
    best = v1.LinearProbe(aligner=aligner, maps="images", alpha=1.0).fit(images, images)
    assert best.n_features_in_ == 3 * 4 * 6
    assert np.array_equal(best.predict(images), best.predict(images.values))


def test_classes_of_another_kind_or_shape_are_refused():
    features, images, classes, _ = spread()
    probe = v1.LinearProbe("classes", alpha=1.0).fit(features, classes)
    numbers = np.unique(classes, return_inverse=True)[1]
    with pytest.raises(ValueError, match="none of which there was at fit"):
        probe.score(features, numbers)
    with pytest.raises(ValueError, match="expected one class per trial"):
        probe.score(features, classes[:, None])
    images = images.copy()
    images[[2, 5], 0, 1, 1] = np.nan, np.inf
    with pytest.raises(ValueError, match="2 of 60 images, the first number 2, hold NaN"):
        v1.LinearProbe("pixels").fit(features, images)


def test_what_could_be_read_at_best_is_read_from_the_maps_of_images(pixels, aligner, trials):
    best = v1.LinearProbe(aligner=aligner, maps="images").fit(trials)
    assert best.score(trials) > pixels.score(trials)
    # both kinds of maps are in one space
    decoded = pixels.predict(aligner.transform_images(trials))
    assert decoded.shape == (len(trials), 1, 12, 16)


def test_pixels_and_classes_are_read_from_features_of_images_never_seen():
    features, images, classes, shown = spread(60)
    train = shown < 40
    rest = ~train
    probe = v1.LinearProbe("pixels").fit(features[train], images[train], groups=shown[train])
    assert probe.score(features[rest], images[rest]) > 0.6  # 8 of 12 dimensions are there
    probe = v1.LinearProbe("classes").fit(features[train], classes[train], groups=shown[train])
    assert probe.score(features[rest], classes[rest]) > 0.8
    assert probe.classes_.tolist() == ["bird", "cat", "mouse"]


@pytest.mark.parametrize("n_features", [5, 40, 300])
@pytest.mark.parametrize("image_shape", [(1, 3, 4), (2, 10, 12)])
def test_pixels_are_those_of_the_ridge_regression_of_scikit_learn(n_features, image_shape):
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(n_features, np.prod(image_shape)))
    features, others = 3 + rng.normal(size=(2, 50, n_features))  # trials: fewer, or more, than both
    images = 100 + (features @ mixing + rng.normal(size=(50, mixing.shape[1]))).reshape(
        50, *image_shape
    )
    probe = v1.LinearProbe("pixels", alpha=0.5).fit(features, images)
    oracle = Ridge(0.5).fit(features, images.reshape(50, -1))
    for given in (features, others):
        expected = oracle.predict(given).reshape(50, *image_shape)
        np.testing.assert_allclose(probe.predict(given), expected, rtol=0, atol=1e-8)


def test_memory_of_large_maps_and_images_grows_with_trials_and_not_with_their_product():
    rng = np.random.default_rng(0)
    features, images = rng.normal(size=(10, 3000)), rng.normal(size=(10, 1, 40, 50))
    tracemalloc.start()
    try:
        probe = v1.LinearProbe("pixels").fit(features, images)
        probe.predict(features)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    of_trials, of_product = features.nbytes + images.nbytes, 3000 * 2000 * 8
    assert len(pickle.dumps(probe)) < 1.1 * of_trials
    assert most < 20 * of_trials < of_product / 5


def test_classes_are_those_of_scikit_learn():
    features, _, classes, _ = spread()
    probe = v1.LinearProbe("classes", alpha=0.5).fit(features, classes)
    scaled = features / np.sqrt(features.var(axis=0).mean())
    oracle = LogisticRegression(C=2.0, max_iter=1000).fit(scaled, classes)
    assert np.array_equal(probe.predict(features), oracle.predict(scaled))


def test_repeats_of_an_image_are_on_one_side_when_the_penalty_is_chosen():
    rng = np.random.default_rng(0)
    shown = np.arange(20).repeat(10)
    features = rng.normal(size=(20, 40))[shown] + 0.01 * rng.normal(size=(200, 40))
    images = rng.normal(size=(20, 1, 2, 3))[shown]  # which features say nothing of
    by_image = v1.LinearProbe().fit(features, images, groups=shown)
    leaking = v1.LinearProbe().fit(features, images)
    assert by_image.alpha_ > 1000 * leaking.alpha_


def test_classes_come_from_the_recordings(aligner, recordings, trials):
    bright = {
        mouse: ds.stimuli.mean(("channel", "height", "width")) > 118
        for mouse, ds in ((m, recordings[m].to_dataset()) for m in recordings)
    }
    labelled = {
        m: recordings[m].to_dataset().assign_coords(category=("trial", bright[m].values))
        for m in recordings
    }
    named = v1.Trials(labelled).sel(tier="train")
    probe = v1.LinearProbe("classes", aligner=aligner, maps="images", alpha=0.1).fit(named)
    given = np.empty(len(trials), dtype=bool)
    for mouse in trials.mice:
        images = trials.get("stimuli", mouse)
        given[trials.rows(mouse)[0]] = images.mean((1, 2, 3)) > 118
    again = v1.LinearProbe("classes", aligner=aligner, maps="images", alpha=0.1)
    again.fit(trials, given)
    assert np.array_equal(probe.predict(trials), again.predict(trials))
    assert probe.score(named) == again.score(trials, given) > 0.8
    with pytest.raises(ValueError, match="no coordinate `category`"):
        again.fit(trials)


def test_trials_of_unknown_category_are_left_out(aligner, recordings, trials):
    labelled = {}
    for mouse in recordings:
        own = recordings[mouse].to_dataset()
        grey = own.stimuli.mean(("channel", "height", "width")).values
        names = np.where(grey > 118, "bright", np.where(grey > 100, "unknown", "dark"))
        labelled[mouse] = own.assign_coords(category=("trial", names))
    named = v1.Trials(labelled).sel(tier="train")
    known = named.sel(category=["bright", "dark"])
    assert len(known) < len(named)
    first, second = (
        v1.LinearProbe("classes", aligner=aligner, maps="images", alpha=0.1).fit(some)
        for some in (named, known)
    )
    assert first.classes_.tolist() == ["bright", "dark"]
    assert np.array_equal(first.predict(trials), second.predict(trials))
    assert first.score(named) == second.score(known)


def test_a_copy_keeps_the_aligner_and_a_pickle_reads_the_same(pixels, aligner, test_trials):
    copy = clone(pixels)
    assert copy.aligner is aligner
    with pytest.raises(NotFittedError):
        copy.predict(test_trials)
    again = pickle.loads(pickle.dumps(pixels))
    np.testing.assert_allclose(again.predict(test_trials), pixels.predict(test_trials), atol=1e-6)


def test_searches_take_a_probe(aligner, trials):
    search = GridSearchCV(
        v1.LinearProbe(aligner=aligner), {"alpha": [0.1, 1e4]}, cv=GroupKFold(2), refit=False
    )
    search.fit(trials, groups=trials.image_ids)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_second_fit_leaves_nothing_of_the_first():
    features, images, classes, _ = spread()
    probe = v1.LinearProbe("pixels", alpha=1.0).fit(features, images)
    probe.set_params(target="classes").fit(features, classes)
    assert not hasattr(probe, "image_shape_")
    probe.set_params(target="pixels").fit(features[:, :5], images)
    assert not hasattr(probe, "classes_")
    assert not hasattr(probe, "model_")
    assert probe.n_features_in_ == 5


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("target", "change", "told"),
    [
        ("pixels", lambda f, x, c: (f, None), "y is missing"),
        ("pixels", lambda f, x, c: (f, x[:-1]), "y has 59 entries for 60 trials"),
        ("pixels", lambda f, x, c: (f, c), "y"),
        ("pixels", lambda f, x, c: (f, x[:, 0]), r"expected images \(trials, channels"),
        ("pixels", lambda f, x, c: (f, np.ones_like(x)), "all images are equal"),
        ("pixels", lambda f, x, c: (np.ones_like(f), x), "all 60 trials are equal"),
        ("pixels", lambda f, x, c: (np.where(f > 4, np.nan, f), x), "not finite"),
        ("classes", lambda f, x, c: (f, np.zeros(60)), "two classes at least"),
    ],
)
def test_what_nothing_can_be_read_from_is_refused(target, change, told):
    features, images, classes, shown = spread()
    given, y = change(features, images, classes)
    with pytest.raises((ValueError, TypeError), match=told):
        v1.LinearProbe(target).fit(given, y, groups=shown)


def test_a_class_of_one_image_leaves_no_choice_of_the_penalty():
    features, _, classes, shown = spread()
    classes = np.where(shown == 0, "bat", classes)
    with pytest.raises(ValueError, match="class 'bat' has one image only"):
        v1.LinearProbe("classes").fit(features, classes, groups=shown)
    v1.LinearProbe("classes", alpha=1.0).fit(features, classes, groups=shown)


def test_one_image_is_refused(aligner, trials):
    one = trials.sel(image_id=trials.image_ids[0])
    with pytest.raises(ValueError, match="one image"):
        v1.LinearProbe(aligner=aligner).fit(one[[0] * 3])


def test_wrong_features_and_missing_aligners_are_told(trials):
    features, images, _, _ = spread()
    probe = v1.LinearProbe(alpha=1.0).fit(features, images)
    with pytest.raises(ValueError, match="7 features per trial came, at fit there were 8"):
        probe.predict(features[:, :7])
    with pytest.raises(TypeError, match="no aligner"):
        v1.LinearProbe().fit(trials)
    with pytest.raises(NotFittedError):
        v1.LinearProbe(aligner=v1.DINAAligner()).fit(trials)
    with pytest.raises(ValueError, match="target"):
        v1.LinearProbe("colours").fit(features, images)


def test_images_of_the_fit_are_warned_of_where_they_are_scored(aligner, test_trials):
    with pytest.warns(UserWarning, match="test"):
        probe = v1.LinearProbe(aligner=aligner, alpha=1.0).fit(test_trials[::2])
    with pytest.warns(UserWarning, match="too good"):
        probe.score(test_trials[1::2])


def test_images_that_the_aligner_alone_was_fitted_to_are_warned_of(aligner, trials, test_trials):
    leaking = clone(aligner).set_params(max_epochs=1, validation_fraction=0)
    with pytest.warns(UserWarning, match="test"):
        leaking.fit(test_trials[::2])
    probe = v1.LinearProbe(aligner=leaking, alpha=1.0).fit(trials)
    with pytest.warns(UserWarning, match="too good"):
        probe.score(test_trials[1::2])
    with pytest.warns(UserWarning, match="too good"):
        v1.decoding_table(probe, test_trials[1::2], n_bootstrap=0, n_permutations=0)

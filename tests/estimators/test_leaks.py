"""Trials that judge a model and should not: seen images, missing mice; and trainings of nothing."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from v1tlearn.metrics import average_correlation, scorers
from v1tlearn.model_selection import image_train_test_split

# Images that no other has are made by adding a number, which is told of, too.
pytestmark = pytest.mark.filterwarnings("ignore:.*stimuli.*in another unit than at fit")


@pytest.fixture(scope="module")
def repeated(recordings):
    """Both mice, with four repeats of each image, of no tier."""
    trials = v1.Trials(recordings).sel(tier="test")
    mice = trials.mice
    parts = {n: {m: trials.get(n, m) for m in mice} for n in ("stimuli", "behaviors", "responses")}
    ids = {m: trials.image_ids[trials.rows(m)[0]] for m in mice}
    return v1.Trials.from_arrays(*parts.values(), image_ids=ids)


@pytest.fixture
def quick(small):
    return small(max_epochs=1, batch_size=8)


@pytest.mark.parametrize("scoring", [None, "single_trial_correlation", scorers["feve"]])
def test_a_search_that_splits_repeats_is_told(quick, repeated, scoring):
    with pytest.warns(UserWarning, match="groups=trials.image_ids"):
        GridSearchCV(
            quick, {"lr": [1e-3]}, cv=KFold(2, shuffle=True, random_state=0), scoring=scoring
        ).fit(repeated)


def test_a_pipeline_too(quick, repeated):
    model = make_pipeline(v1.TrialStandardizer(), quick.set_params(standardize=False))
    with pytest.warns(UserWarning, match="groups=trials.image_ids"):
        cross_val_score(model, repeated, cv=KFold(2, shuffle=True, random_state=0))


def test_groups_are_silent_and_so_is_the_score_of_the_training_trials(quick, repeated):
    search = GridSearchCV(quick, {"lr": [1e-3]}, cv=GroupKFold(2), return_train_score=True)
    search.fit(repeated, groups=repeated.image_ids)
    search.best_estimator_.score(repeated)


@pytest.fixture(scope="module")
def halves(repeated):
    """Recordings of their own that show the same images, in which rows count from 0."""

    def alone(trials):
        mice = trials.mice
        names = ("stimuli", "behaviors", "responses")
        ids = {m: trials.image_ids[trials.rows(m)[0]] for m in mice}
        arrays = [{m: trials.get(n, m) for m in mice} for n in names]
        return v1.Trials.from_arrays(*arrays, image_ids=ids)

    return alone(repeated[::2]), alone(repeated[1::2])


def test_rows_are_those_of_one_recording(quick, halves):
    training, others = halves
    model = quick.set_params(validation_fraction=0).fit(training)
    with pytest.warns(UserWarning, match="16 of 16 trials that are scored"):
        model.score(others)
    model.score(training)


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_ensemble_knows_what_it_was_trained_on(quick, halves, n_jobs):
    training, others = halves
    model = v1.EnsembleRegressor(quick, 2, 1, n_jobs=n_jobs, random_state=0).fit(training)
    with pytest.warns(UserWarning, match="trials that are scored show images"):
        model.score(others)
    pickle.loads(pickle.dumps(model)).score(others)  # what is unpickled was trained elsewhere


def test_recordings_are_known_through_every_view(quick, recordings):
    quick.fit(v1.Trials(recordings).sel(tier="train")).score(v1.Trials(recordings)[:50])


def test_images_without_labels_are_known_by_their_content(quick, repeated):
    parts = [{m: repeated.get(n, m) for m in repeated.mice} for n in ("stimuli", "behaviors")]
    parts.append({m: repeated.get("responses", m) for m in repeated.mice})
    trials = v1.Trials.from_arrays(*parts)
    with pytest.warns(UserWarning, match="groups=trials.image_ids"):
        cross_val_score(quick, trials, cv=KFold(2, shuffle=True, random_state=0))


def test_validation_images_that_are_trained_on_are_told(quick, repeated):
    held = np.arange(len(repeated)) % 4 == 0
    with pytest.warns(UserWarning, match="8 of 8 validation trials show images that are trained"):
        quick.fit(repeated[~held], validation=repeated[held])
    held = repeated.image_ids == np.unique(repeated.image_ids)[0]
    quick.fit(repeated[~held], validation=repeated[held])


@pytest.mark.parametrize(("n_alike", "told"), [(1, False), (2, True)])
def test_images_that_look_alike_by_chance_are_no_leak(small, n_alike, told):
    """Of 100 validation trials without labels one may, as stripes and noise do."""
    rng = np.random.default_rng(0)
    stimuli = rng.normal(size=(200, 1, 14, 18))
    stimuli[100 : 100 + n_alike] = stimuli[:n_alike]
    trials = v1.Trials.from_arrays(stimuli, None, rng.poisson(1.0, (200, 3)).astype("f4"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small(max_epochs=1).fit(trials[:100], validation=trials[100:])
    leaks = [w for w in caught if f"{n_alike} of 100 validation trials show" in str(w.message)]
    assert len(leaks) == told


def pictures(n, seed=0):
    """Images of noise under names of their own, and responses to them."""
    rng = np.random.default_rng(seed)
    names = np.array([f"{seed}-{i}" for i in range(n)])
    return rng.normal(size=(n, 1, 14, 18)), rng.poisson(1.0, (n, 3)).astype("f4"), names


def mirrored_among_new(n_mirrored, n):
    """Trials of which the first show images of `pictures(40)` from right to left."""
    stimuli, responses, names = pictures(n, seed=1)
    stimuli[:n_mirrored] = 2 * pictures(40)[0][:n_mirrored, ..., ::-1] + 5
    return v1.Trials.from_arrays(stimuli, None, responses, image_ids=names)


@pytest.fixture
def of_pictures():
    stimuli, responses, names = pictures(40)
    return v1.Trials.from_arrays(stimuli, None, responses, image_ids=names)


ALIKE = "{} of {} images look like images that were trained on, the first '1-0' like '0-0', flipped"


def test_mirror_images_of_the_training_are_told(small, of_pictures):
    model = small(max_epochs=1, validation_fraction=0)
    with pytest.warns(UserWarning, match=ALIKE.format(3, 20)):
        model.fit(of_pictures, validation=mirrored_among_new(3, 20))
    with pytest.warns(UserWarning, match=ALIKE.format(2, 30)):
        model.score(mirrored_among_new(2, 30))
    with pytest.warns(UserWarning, match="overlapping_images"):
        scorers["feve"](model, v1.concat([mirrored_among_new(2, 30)] * 2))
    model.score(mirrored_among_new(0, 30))
    model.score(mirrored_among_new(1, 100))  # now and then images look alike
    model.score(of_pictures)


def grating(rng):
    """A grating of any orientation, frequency and phase."""
    angle, frequency, phase = rng.uniform(0, (np.pi, 0.3, 2 * np.pi))
    rows, columns = np.mgrid[:14, :18]
    along = columns * np.cos(angle) + rows * np.sin(angle)
    return np.sin(2 * np.pi * frequency * along + phase)


def wave(rng):
    """A standing wave of any phase."""
    return np.sin(np.arange(18) / 3 + rng.uniform(0, 2 * np.pi)) * np.ones((14, 1))


def blocks(rng):
    """Six numbers, each all over a block of the image."""
    return np.kron(rng.normal(size=(2, 3)), np.ones((7, 6)))


def few_numbers(make, n, seed):
    rng = np.random.default_rng(seed)
    return np.stack([make(rng)[None] for _ in range(n)])


@pytest.mark.parametrize("make", [grating, wave, blocks])
@pytest.mark.parametrize("n", [60, 400])
def test_images_of_few_degrees_of_freedom_are_alike_by_chance(small, make, n):
    stimuli = few_numbers(make, 2 * n, seed=0)
    names = np.arange(2 * n).astype(str)
    trials = v1.Trials.from_arrays(stimuli, None, pictures(2 * n)[1], image_ids=names)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "(?s).*look like images")
        small(max_epochs=0).fit(trials[:n], validation=trials[n:])


@pytest.mark.parametrize("change", [lambda x: x, lambda x: 3 * x[..., ::-1] + 5])
@pytest.mark.parametrize("make", [grating, blocks])
def test_copies_among_images_of_few_degrees_of_freedom_are_told(small, make, change):
    stimuli = few_numbers(make, 120, seed=0)
    stimuli[60:80] = change(stimuli[:20])
    names = np.arange(120).astype(str)
    trials = v1.Trials.from_arrays(stimuli, None, pictures(120)[1], image_ids=names)
    with pytest.warns(UserWarning, match=r"2\d of 60 images look like images"):
        small(max_epochs=0).fit(trials[:60], validation=trials[60:])


def test_arrays_without_names_may_be_the_training_itself_but_not_its_mirror_images(small):
    stimuli, responses, _ = pictures(40)
    model = small(max_epochs=1, validation_fraction=0).fit(stimuli, None, responses)
    again = responses.copy()
    model.score(stimuli.copy(), None, again)
    with pytest.warns(UserWarning, match="40 of 40 images look like .* 'trial 0', flipped left-r"):
        model.score(np.ascontiguousarray(stimuli[..., ::-1]), None, again)


def test_what_looks_alike_is_known_in_this_process_alone(small, of_pictures, tmp_path):
    """Files do not grow by what a model was trained on."""
    model = small(max_epochs=1, validation_fraction=0).fit(of_pictures)
    pickle.loads(pickle.dumps(model)).score(mirrored_among_new(3, 20))
    model.save(tmp_path / "model")
    v1.load(tmp_path / "model").score(mirrored_among_new(3, 20))


def test_files_are_not_read_for_what_they_look_like(small, of_pictures, tmp_path):
    of_pictures.to_netcdf(tmp_path / "train.nc")
    on_file = v1.Trials.open(tmp_path / "train.nc")
    small(max_epochs=1, validation_fraction=0).fit(on_file).score(mirrored_among_new(3, 20))


def test_mice_without_validation_trials_are_told(small, trials):
    training, held = image_train_test_split(trials, 0.2, random_state=0)
    with pytest.warns(UserWarning, match=r"the mice \['B'\] have no trial in the validation set"):
        small(max_epochs=1).fit(training, validation=held.sel(mouse_id="A"))


def test_validation_responses_that_do_not_vary_are_told(small, trials, test_trials):
    parts = [{m: test_trials.get(n, m) for m in trials.mice} for n in ("stimuli", "behaviors")]
    responses = {m: test_trials.get("responses", m).copy() for m in trials.mice}
    responses["B"][:] = 1.5
    constant = v1.Trials.from_arrays(*parts, responses)
    with pytest.warns(UserWarning, match="mouse 'B': no neuron's responses vary"):
        small(max_epochs=1).fit(trials, validation=constant)


def test_no_epochs_are_told(small, trials):
    with pytest.warns(UserWarning, match="max_epochs is 0"):
        model = small(max_epochs=0).fit(trials)
    with pytest.warns(UserWarning, match="max_epochs is 0"):
        model.transfer(trials)


def test_averages_over_nothing_are_told():
    rng = np.random.default_rng(0)
    y, p = rng.random((6, 3)), rng.random((6, 3))
    with pytest.warns(UserWarning, match="no image is repeated"):
        average_correlation(y, p, image_ids=np.arange(6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        average_correlation(y, p, image_ids=[0, 1, 2, 3, 4, 4])


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_trials_are_refused(small, arrays, n):
    few = [{m: v[:n] for m, v in arrays[name].items()} for name in arrays if name != "positions"]
    with pytest.raises(ValueError, match=r"trial|image"):
        small().fit(*few[:3])
    with pytest.raises(ValueError, match=r"trial"):
        small(validation_fraction=0).fit(*few[:3])


def test_no_neurons_are_refused(small, arrays):
    none = {m: r[:, :0] for m, r in arrays["responses"].items()}
    with pytest.raises(ValueError, match="neuron"):
        small().fit(arrays["stimuli"], arrays["behaviors"], none)


def test_one_neuron_is_enough(small, arrays):
    one = {m: r[:, :1] for m, r in arrays["responses"].items()}
    model = small(max_epochs=1).fit(arrays["stimuli"], arrays["behaviors"], one)
    assert model.predict(arrays["stimuli"], arrays["behaviors"])["A"].shape[1] == 1

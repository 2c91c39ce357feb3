"""Predictions: any batch size, images encoded once, against the model in float64 trial by trial."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import v1tlearn as v1
from tests.spoilt import spoil
from tests.sweeps import quick
from v1tlearn.estimators import predicting
from v1tlearn.training import memory

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 1, 12, 16), dtype=np.uint8)
SHOWN = {"A": np.tile(np.arange(6), 5), "B": np.r_[np.repeat([5, 0, 3], 7), [1, 1, 2]]}
N_NEURONS = {"A": 4, "B": 3}
NAMES = ["pupil_dilation", "running_speed", "pupil_x", "pupil_y"]


def make_trials(shown=SHOWN, images=IMAGES, image_ids="shown", dtypes=None):
    """Trials of two mice that show images again and again, with behaviour that never repeats."""
    rng = np.random.default_rng(1)
    dtypes = dtypes or {}
    return v1.Trials.from_arrays(
        {m: images[k].astype(dtypes.get(m, images.dtype)) for m, k in shown.items()},
        {m: rng.normal(size=(len(k), 4)) for m, k in shown.items()},
        {m: rng.gamma(1.0, size=(len(k), N_NEURONS[m])) for m, k in shown.items()},
        image_ids=shown if isinstance(image_ids, str) else image_ids,
        behavior_names=NAMES,
    )


def one_by_one(estimator, trials):
    """Every trial alone through the model in float64, standardised here."""
    model = copy.deepcopy(estimator.module_).double().eval()
    out = {}
    for mouse in trials.mice:
        statistics = estimator.statistics_[mouse]
        images = trials.get("stimuli", mouse).astype(np.float64)
        images = torch.from_numpy((images - statistics["image_mean"]) / statistics["image_std"])
        values = trials.get("behaviors", mouse)
        values = (values - statistics["behavior_shift"]) / statistics["behavior_scale"]
        core = [NAMES.index(c) for c in estimator.core_columns_]
        behaviors = torch.from_numpy(values[:, core]) if core else None
        pupil = torch.from_numpy(values[:, 2:])
        rows = []
        for i in range(len(images)):
            one = slice(i, i + 1)
            given = None if behaviors is None else behaviors[one]
            batch = v1.nn.MouseBatch(images[one], given, pupil[one])
            with torch.no_grad():
                rows.append(model({mouse: batch})[mouse][0].numpy())
        out[mouse] = np.stack(rows) * statistics["response_scale"]
    return out


def assert_agree(found, expected, rtol=2e-5):
    assert list(found.mice) == list(expected)
    for mouse, values in expected.items():
        np.testing.assert_allclose(found.get(mouse), values, rtol=rtol, atol=1e-6)


def predicted(estimator, trials, **sizes):
    """Predictions in blocks and batches of other sizes."""
    values = predicting.predict(
        estimator.module_, estimator.fitted_, trials, torch.device("cpu"), **sizes
    )
    return v1.Responses.from_arrays(values, like=trials)


class Encoded:
    """Counts the images that go through the core of a model."""

    def __init__(self, estimator):
        self.count = 0
        self.handle = estimator.module_.core.register_forward_pre_hook(self.add)

    def add(self, core, args):
        self.count += len(args[0])


@pytest.fixture(scope="module")
def fit(small):
    """Fit tiny models, each once; standardised alike for both mice."""
    made = {}

    def get(kind, **params):
        key = (kind, *sorted(params.items()))
        if key not in made:
            made[key] = small(kind, max_epochs=1, validation_fraction=0, **params)
            made[key].fit(make_trials())
            for statistics in made[key].statistics_.values():
                statistics.update(image_mean=100.0, image_std=70.0)
        return made[key]

    return get


@pytest.fixture
def count():
    """Count the images that go through a model until the test ends."""
    handles = []

    def watch(estimator):
        handles.append(Encoded(estimator))
        return handles[-1]

    yield watch
    for watched in handles:
        watched.handle.remove()


KINDS = [v1.CNNRegressor, v1.LNRegressor, v1.ViTRegressor, v1.V1TRegressor]
KINDS += [v1.FullModelRegressor]


@pytest.mark.parametrize("kind", quick(KINDS, 0, 3))
@pytest.mark.parametrize("shift", ["none", "readout"])
def test_images_without_behavior_are_encoded_once_for_all_mice(fit, count, kind, shift):
    estimator, trials = fit(kind, behavior_mode="none", shift=shift), make_trials()
    encoded = count(estimator)
    found = estimator.predict(trials)
    assert encoded.count == len(IMAGES)
    assert_agree(found, one_by_one(estimator, trials))


@pytest.mark.parametrize("kind", quick(KINDS, 0, 3))
def test_with_behavior_every_trial_is_encoded(fit, count, kind):
    estimator, trials = fit(kind), make_trials()
    encoded = count(estimator)
    found = estimator.predict(trials)
    assert encoded.count == len(trials)
    assert_agree(found, one_by_one(estimator, trials))


def test_images_that_move_with_the_eye_are_encoded_trial_by_trial(fit, count):
    estimator = fit(v1.CNNRegressor, behavior_mode="none", shift="both", crop_scale=0.8)
    encoded = count(estimator)
    trials = make_trials()
    found = estimator.predict(trials)
    assert encoded.count == len(trials)
    assert_agree(found, one_by_one(estimator, trials))


@pytest.mark.parametrize("shift", ["none", "readout"])
def test_mice_that_standardize_otherwise_share_no_image(fit, count, shift):
    estimator = copy.deepcopy(fit(v1.CNNRegressor, behavior_mode="none", shift=shift))
    estimator.statistics_["B"]["image_mean"] = 101.0
    encoded = count(estimator)
    found = estimator.predict(make_trials())
    assert encoded.count == len(set(SHOWN["A"])) + len(set(SHOWN["B"]))
    assert_agree(found, one_by_one(estimator, make_trials()))


def test_labels_are_not_trusted(fit, count):
    """Images under one label may differ; an image under two labels is encoded twice."""
    estimator = fit(v1.CNNRegressor, behavior_mode="none")
    encoded = count(estimator)
    one_label = {m: np.zeros(len(k), dtype=int) for m, k in SHOWN.items()}
    trials = make_trials(image_ids=one_label)
    assert_agree(estimator.predict(trials), one_by_one(estimator, trials))
    per_mouse = {m: [f"{m}{i}" for i in k] for m, k in SHOWN.items()}
    trials, encoded.count = make_trials(image_ids=per_mouse), 0
    assert_agree(estimator.predict(trials), one_by_one(estimator, trials))
    assert encoded.count == len(set(SHOWN["A"])) + len(set(SHOWN["B"]))


def test_content_decides_where_there_are_no_labels(fit, count):
    estimator = fit(v1.CNNRegressor, behavior_mode="none")
    encoded = count(estimator)
    trials = make_trials(image_ids=None)
    assert_agree(estimator.predict(trials), one_by_one(estimator, trials))
    assert encoded.count == len(IMAGES)


def test_only_images_that_were_asked_for_are_read(fit, tmp_path):
    estimator, trials = fit(v1.CNNRegressor, behavior_mode="none"), make_trials(image_ids=None)
    v1.save_recordings(trials.recordings, tmp_path / "r.nc", compression=None)
    rows = [3, 40, 9, 38, 0]  # the second and the fourth are of mouse B
    for mouse, kept in (("A", {3, 9, 0}), ("B", {10, 8})):
        spoil(tmp_path / "r.nc", trials.get("stimuli", mouse), kept)
    stored = v1.Trials.open(tmp_path / "r.nc")
    assert_agree(estimator.predict(stored[rows]), one_by_one(estimator, trials[rows]))
    with pytest.raises(ValueError, match="damaged"):
        estimator.predict(stored)


def test_labels_of_one_mouse_do_not_stand_for_the_content_of_another(fit):
    estimator, trials = fit(v1.CNNRegressor, behavior_mode="none"), make_trials(image_ids=None)
    labelled = v1.Trials({m: make_trials().recordings[m].to_dataset() for m in "A"})
    other = {m: trials.recordings[m].to_dataset() for m in "B"}
    mixed = v1.Trials({"A": labelled.recordings["A"].to_dataset(), **other})
    assert_agree(estimator.predict(mixed), one_by_one(estimator, mixed))


def test_an_image_is_the_same_as_integers_and_as_floats(fit, count):
    estimator = fit(v1.CNNRegressor, behavior_mode="none")
    encoded = count(estimator)
    trials = make_trials(dtypes={"B": np.float32})
    assert_agree(estimator.predict(trials), one_by_one(estimator, trials))
    assert encoded.count == len(IMAGES)


def test_images_of_two_sizes_are_kept_apart(fit, count):
    estimator = fit(v1.CNNRegressor, behavior_mode="none", image_size=(9, 8))
    trials = make_trials()
    resized = v1.ResizeStimuli((9, 8)).fit(trials).transform(trials)
    images = {m: (resized if m == "B" else trials).get("stimuli", m) for m in trials.mice}
    behaviors = {m: trials.get("behaviors", m) for m in trials.mice}
    mixed = v1.Trials.from_arrays(images, behaviors, behavior_names=NAMES, image_ids=SHOWN)
    encoded = count(estimator)
    found = estimator.predict(mixed)
    assert encoded.count == len(set(SHOWN["A"])) + len(set(SHOWN["B"]))
    assert_agree(found, one_by_one(estimator, mixed))


@pytest.mark.parametrize("shift", ["none", "readout"])
@pytest.mark.parametrize(("block", "at_once"), [(1, 1), (1, 3), (2, 16), (1024, 10**6)])
def test_blocks_and_batches_of_any_size(fit, shift, block, at_once):
    estimator, trials = fit(v1.CNNRegressor, behavior_mode="none", shift=shift), make_trials()
    expected = one_by_one(estimator, trials)
    assert_agree(predicted(estimator, trials, block=block, at_once=at_once), expected)


@pytest.mark.parametrize("block", quick([1, 5, 256], 1))
@pytest.mark.parametrize("at_once", [1, 7, 10**6])
def test_batches_of_any_size_with_behavior(fit, block, at_once):
    estimator, trials = fit(v1.V1TRegressor), make_trials()
    expected = one_by_one(estimator, trials)
    assert_agree(predicted(estimator, trials, block=block, at_once=at_once), expected)


@pytest.mark.parametrize("mode", ["none", "auto"])
def test_trials_in_any_order_and_more_than_once(fit, mode):
    estimator, trials = fit(v1.CNNRegressor, behavior_mode=mode), make_trials()
    order = np.random.default_rng(2).integers(0, len(trials), 70)
    expected = estimator.predict(trials)
    found = estimator.predict(trials[order])
    for one, other in zip(np.asarray(found), np.asarray(expected[order]), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["none", "auto"])
def test_the_same_twice(fit, equal, mode):
    estimator, trials = fit(v1.V1TRegressor, behavior_mode=mode), make_trials()
    assert equal(estimator.predict(trials), estimator.predict(trials))


@pytest.mark.parametrize("mode", ["none", "auto"])
def test_batch_size_of_the_training_does_not_count(fit, equal, mode):
    estimator, trials = fit(v1.CNNRegressor, behavior_mode=mode), make_trials()
    expected = estimator.predict(trials)
    assert equal(copy.deepcopy(estimator).set_params(batch_size=1).predict(trials), expected)


@pytest.mark.parametrize("mode", ["none", "auto"])
@pytest.mark.parametrize("kind", [v1.CNNRegressor, v1.V1TRegressor])
def test_bfloat16_is_as_exact_as_its_numbers(fit, kind, mode):
    estimator, trials = fit(kind, behavior_mode=mode), make_trials()
    rough = copy.deepcopy(estimator).set_params(precision="bfloat16").predict(trials)
    exact = one_by_one(estimator, trials)
    assert_agree(rough, exact, rtol=0.05)
    assert max(np.abs(rough.get(m) / exact[m] - 1).max() for m in exact) > 1e-5


def test_ensembles_predict_in_the_same_way(fit, count):
    estimator = fit(v1.CNNRegressor, behavior_mode="none")
    ensemble = v1.EnsembleRegressor.from_members([estimator, estimator])
    encoded = count(estimator)
    found = ensemble.predict(make_trials())
    assert encoded.count == 2 * len(IMAGES)
    assert_agree(found, one_by_one(estimator, make_trials()))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 12))
def test_cuts_hold_every_row_once_and_split_nothing_that_fits(numbers, size):
    numbers = np.sort(numbers)
    cuts = list(predicting._cuts(numbers, size))
    assert np.array_equal(
        np.concatenate([np.arange(len(numbers))[c] for c in cuts]), range(len(numbers))
    )
    assert all(0 < c.stop - c.start <= size for c in cuts)
    for number in set(numbers.tolist()):
        within = [c for c in cuts if number in numbers[c]]
        assert len(within) == 1 or (numbers == number).sum() > size


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_distinct_images_are_found_within_labels(pairs):
    labels, contents = np.array(pairs).T
    images = torch.from_numpy(contents.astype(np.uint8))[:, None, None, None].expand(-1, 1, 2, 2)
    firsts, shown = predicting._distinct(images, labels)
    assert torch.equal(images[firsts[shown]], images)
    # all that equal the first of their label are one image
    for label in set(labels.tolist()):
        of_label = np.flatnonzero(labels == label)
        like_first = of_label[contents[of_label] == contents[of_label[0]]]
        assert len(set(shown[like_first].tolist())) == 1


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=20))
def test_labels_are_numbered_as_they_come(labels):
    numbers = predicting._by_first_appearance(np.array(labels))
    seen = list(dict.fromkeys(labels))
    assert numbers.tolist() == [seen.index(label) for label in labels]


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["none", "auto"])
def test_cuda_predicts_as_the_cpu_does(fit, mode):
    estimator, trials = fit(v1.V1TRegressor, behavior_mode=mode), make_trials()
    on_gpu = copy.deepcopy(estimator).set_params(device="cuda")
    assert_agree(on_gpu.predict(trials), one_by_one(estimator, trials), rtol=1e-3)
    assert memory.prediction_batch_size(on_gpu.module_, on_gpu.device_) >= 1

"""What comes to an alignment: labels are used, and what has no meaning is refused by name."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import v1tlearn as v1
from v1tlearn import nn

TINY = {"map_size": (4, 6), "map_channels": 3, "hidden_channels": 4, "n_layers": 2}
TINY |= {"input_kernel": 3, "hidden_units": (12,), "neural_channels": 4}
TINY |= {"max_epochs": 1, "random_state": 0, "device": "cpu", "batch_size": 16}
IMAGE_DIMS = ("trial", "channel", "height", "width")
UNITS = ["u3", "u1", "u4", "u0"]


def aligner(**parameters):
    return v1.DINAAligner(**TINY | parameters)


@pytest.fixture(scope="module")
def recording():
    """Images of 12 x 12 pixels, twice each, and the responses of four named neurons."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(20, 1, 12, 12)).astype(np.uint8)
    shown = np.arange(20).repeat(2)
    responses = rng.random((40, 4)).astype(np.float32)
    return images[shown], responses, shown


@pytest.fixture(scope="module")
def fitted(recording):
    """Fitted to one mouse, "1", whose neurons have names; not to be changed."""
    images, responses, shown = recording
    labelled = xr.DataArray(responses, dims=("trial", "neuron"), coords={"neuron": UNITS})
    est = aligner(validation_fraction=0)
    return est.fit({1: images}, None, {1: labelled}, image_ids={1: shown})


# ------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 3, 2)])
def test_dimensions_of_images_go_by_name(fitted, recording, order):
    images = recording[0][:5]
    dims = [IMAGE_DIMS[i] for i in order]
    turned = xr.DataArray(images.transpose(order), dims=dims)
    expected = fitted.transform_images(images)
    assert np.array_equal(fitted.transform_images(turned), expected)
    queries = fitted.transform_responses(recording[1][:3])
    assert np.array_equal(fitted.similarity(queries, turned), fitted.similarity(queries, expected))


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (3, 2, 1, 0), (0, 1, 3, 2)])
def test_dimensions_of_maps_go_by_name(fitted, recording, order):
    images, responses, _ = recording
    gallery, queries = fitted.transform_images(images), fitted.transform_responses(responses)
    expected = fitted.similarity(queries, gallery)
    turned = [maps.transpose(*(IMAGE_DIMS[i] for i in order)) for maps in (queries, gallery)]
    assert np.array_equal(fitted.similarity(*turned), expected)
    places = fitted.retrieve(queries, gallery, k=3).places
    assert np.array_equal(fitted.retrieve(*turned, k=3).places, places)
    flat = fitted.transform_images(images, flat=True).transpose("feature", "trial")
    assert np.allclose(fitted.similarity(queries, flat), expected, atol=1e-6)


@pytest.mark.parametrize("form", ["dataarray", "turned", "table", "dict"])
def test_neurons_go_by_label(fitted, recording, form):
    responses = recording[1]
    order = [2, 0, 3, 1]
    moved, names = responses[:, order], [UNITS[i] for i in order]
    if form == "table":
        given = pd.DataFrame(moved, columns=names)
    else:
        given = xr.DataArray(moved, dims=("trial", "neuron"), coords={"neuron": names})
        given = given.T if form == "turned" else {1: given} if form == "dict" else given
    expected = fitted.transform_responses(responses)
    assert np.array_equal(fitted.transform_responses(given), expected)


def test_other_neurons_are_refused(fitted, recording):
    responses = recording[1]
    others = xr.DataArray(
        responses, dims=("trial", "neuron"), coords={"neuron": ["u3", "u1", "u4", "u9"]}
    )
    with pytest.raises(ValueError, match="of other neurons than those of fit"):
        fitted.transform_responses(others)
    moved = xr.DataArray(responses, dims=("trial", "neuron"), coords={"neuron": UNITS[::-1]})
    trials = v1.Trials.from_arrays({1: recording[0]}, None, {1: moved})
    for given in (trials, trials.responses):
        with pytest.raises(ValueError, match="the same unit ids in another order"):
            fitted.transform_responses(given)


def test_mouse_ids_are_text_in_any_order(fitted, recording):
    images, responses, shown = recording
    expected = fitted.transform_responses(responses)
    for given in ({1: responses}, {"1": responses}, {np.int64(1): responses}):
        assert np.array_equal(fitted.transform_responses(given), expected)
    for mouse in (1, "1", np.int64(1), None):
        assert np.array_equal(fitted.transform_responses(responses, mouse), expected)
    both = aligner(validation_fraction=0).fit(
        {1: images, 2: images},
        None,
        {2: responses[:, :2], 1: responses},
        image_ids={2: shown, 1: shown},
    )
    assert both.n_neurons_ == {"1": 4, "2": 2}
    first = both.transform_responses({2: responses[:, :2], 1: responses})
    second = both.transform_responses({1: responses, 2: responses[:, :2]})
    assert first.mouse_id.values.tolist() == ["2"] * 40 + ["1"] * 40
    for mouse in ("1", "2"):
        own = first[first.mouse_id == mouse], second[second.mouse_id == mouse]
        assert np.array_equal(*own)


def test_whose_responses_are_is_told_once(fitted, recording):
    responses = recording[1]
    trials = v1.Trials.from_arrays({1: recording[0]}, None, {1: responses})
    for given in ({1: responses}, trials, trials.responses):
        with pytest.raises(TypeError, match="leave mouse_ids out"):
            fitted.transform_responses(given, 1)
    with pytest.raises(TypeError, match="expected the id of one mouse"):
        fitted.transform_responses(responses, ["1"] * 40)
    with pytest.raises(ValueError, match="unknown mouse '2'"):
        fitted.transform_responses(responses, 2)
    with pytest.raises(ValueError, match="two are called '1'"):
        fitted.transform_responses({1: responses, "1": responses})


def test_maps_of_trials_bear_their_labels(fitted, recording):
    images, responses, shown = recording
    trials = v1.Trials.from_arrays({1: images}, None, {1: responses}, image_ids={1: shown})
    for maps in (fitted.transform_images(trials), fitted.transform_responses(trials)):
        assert maps.image_id.values.tolist() == shown.tolist()
        assert maps.name == "maps"


# ------------------------------------------------------------------------------ what is no meaning


def test_images_and_responses_of_trials_are_not_taken_for_maps(recording):
    images, responses, shown = recording
    est = aligner(map_size=(12, 12), map_channels=1, validation_fraction=0)
    est.fit(images, None, responses, image_ids=shown)  # whose maps have the shape of images
    trials = v1.Trials.from_arrays(images, None, responses, image_ids=shown)
    stimuli, population = trials["mouse"].stimuli, trials["mouse"].responses
    expected = est.similarity(responses, images)
    assert np.array_equal(est.similarity(population, stimuli), expected)
    maps = est.transform_images(images)
    assert np.array_equal(est.similarity(responses, maps), expected)
    with pytest.raises(ValueError, match="may be images or maps"):
        est.similarity(responses, stimuli.rename("pictures"))


def test_maps_of_other_sizes_and_dimensions_are_refused(fitted, recording):
    queries = fitted.transform_responses(recording[1])
    gallery = fitted.transform_images(recording[0])
    for wrong, told in (
        (gallery[:, :, :3], r"maps of the shape \(3, 3, 6\), but those of this model"),
        (
            gallery.transpose("trial", "channel", "height", "width").isel(channel=[0]),
            r"\(1, 4, 6\)",
        ),
        (gallery.isel(trial=0), "has the dimensions"),
        (gallery.rename(channel="neuron"), "has the dimensions"),
        (gallery[:0], "gallery is empty"),
        (gallery.where(gallery.height > 9), "NaN or infinite values in 40 trials"),
        (gallery.astype(str), "gallery has dtype"),
    ):
        with pytest.raises((ValueError, TypeError), match=told):
            fitted.retrieve(queries, wrong, k=1)
    with pytest.raises(ValueError, match="responses is empty"):
        fitted.retrieve(queries[:0], gallery, k=1)


def test_galleries_of_other_sizes_and_kinds_are_refused(fitted, recording):
    images, responses, _ = recording
    for wrong, told in (
        (images[:, :, :6], r"stimuli have the shape \(1, 6, 12\)"),
        (images.repeat(3, 1), r"stimuli have the shape \(3, 12, 12\)"),
        (images[0], "One image alone needs a trial axis"),
        (images[:0], "stimuli is empty"),
        (images > 100, "dtype bool"),
        (images * 1j, "dtype complex128"),
        (images.astype(float) * np.nan, "stimuli hold NaN or infinite values"),
        (list(images), "stimuli is a list"),
        (v1.Trials.from_arrays(images).stimuli, r"Write transform_images\(trials\)"),
    ):
        with pytest.raises((ValueError, TypeError), match=told):
            fitted.retrieve(responses, wrong, k=1)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "uint32", "int64", "float64"])
def test_numbers_of_any_type_have_one_meaning(fitted, recording, kind):
    images, responses, shown = recording
    expected = fitted.transform_images(images)
    assert np.allclose(fitted.transform_images(images.astype(kind)), expected, atol=1e-6)
    counts = (100 * responses).astype(kind)
    other = aligner(validation_fraction=0).fit(images.astype(kind), None, counts, image_ids=shown)
    same = aligner(validation_fraction=0).fit(
        images, None, counts.astype(np.float32), image_ids=shown
    )
    assert np.allclose(other.transform_responses(counts), same.transform_responses(counts))


def test_responses_that_cannot_be_read_are_refused(fitted, recording):
    responses = recording[1]
    for wrong, told in (
        (responses[0], r"shape \(4,\)"),
        (responses[:, :3], r"expected \(trials, 4 neurons\)"),
        (responses[:0], "there are no responses"),
        ({}, "there are no responses"),
        (responses.astype(str), "dtype"),
        (responses * np.inf, "infinite values"),
    ):
        with pytest.raises((ValueError, TypeError), match=told):
            fitted.transform_responses(wrong)


# ------------------------------------------------------------------------------------ missing ones


def test_a_masked_response_counts_as_not_recorded(fitted, recording):
    gaps = recording[1].copy()
    gaps[3, 1] = np.nan
    masked = np.ma.array(recording[1], mask=np.isnan(gaps))
    expected = fitted.transform_responses(gaps)
    assert np.array_equal(fitted.transform_responses(masked), expected)
    assert not np.array_equal(fitted.transform_responses(recording[1]), expected)


def test_a_trial_without_any_response_is_refused(fitted, recording):
    images, responses, shown = recording
    lost = responses.copy()
    lost[[5, 7]] = np.nan
    told = "no response was recorded in the trials 5, 7"
    with pytest.raises(ValueError, match=told):
        fitted.transform_responses(lost)
    with pytest.raises(ValueError, match=told):
        fitted.retrieve(lost, images, k=1)
    with pytest.raises(ValueError, match=told):
        fitted.score(images, None, lost)
    with pytest.raises(ValueError, match=told):
        aligner(validation_fraction=0).fit(images, None, lost, image_ids=shown)
    with pytest.raises(ValueError, match=told):
        aligner().partial_fit(images, None, lost, image_ids=shown)


def test_a_neuron_that_was_never_recorded_is_refused_at_fit_and_its_mean_later(fitted, recording):
    images, responses, shown = recording
    lost = responses.copy()
    lost[:, 2] = np.nan
    with pytest.raises(ValueError, match="neuron 2: their responses are NaN"):
        aligner().fit(images, None, lost, image_ids=shown)
    filled = responses.copy()
    filled[:, 2] = fitted.statistics_["1"]["response_mean"][2]
    assert np.allclose(
        fitted.transform_responses(lost), fitted.transform_responses(filled), atol=1e-5
    )


# ------------------------------------------------------------------------- nothing to tell apart


def test_one_image_is_refused_whatever_it_is_called(recording):
    images, responses, _ = recording
    alike = images[:1].repeat(40, 0)
    est = aligner(validation_fraction=0)
    with pytest.raises(ValueError, match=r"all trials show one image: .* at least 2"):
        est.fit(alike, None, responses)
    with pytest.raises(ValueError, match="all trials show one image, under 40 image ids"):
        est.fit(alike, None, responses, image_ids=np.arange(40))


def test_labels_that_contradict_images_are_warned_of(recording):
    images, responses, shown = recording
    est = aligner(validation_fraction=0)
    with pytest.warns(UserWarning, match=r"20 images have several ids, ids 0, 1, .* too low"):
        est.fit(images, None, responses, image_ids=np.arange(40))
    with pytest.warns(UserWarning, match=r"2 image ids name several images, ids 0, 1:"):
        est.fit(images, None, responses, image_ids=shown % 2)
    trials = v1.Trials.from_arrays(images, None, responses, image_ids=np.arange(40))
    with pytest.warns(UserWarning, match="several ids"):
        score = est.score(trials)
    assert score == 0  # an image as similar as the one that was seen counts against it


def test_a_silent_population_is_refused_at_fit_and_defined_later(fitted, recording):
    images, responses, shown = recording
    with pytest.raises(ValueError, match="is silent"):
        aligner().fit(images, None, 0 * responses, image_ids=shown)
    similarity = fitted.similarity(0 * responses, images)
    assert np.isfinite(similarity).all()
    assert np.allclose(similarity, similarity[:1], atol=1e-6)  # silence has one map


@pytest.mark.parametrize("how", ["center", "minmax"])
def test_flat_maps_are_similar_to_nothing(recording, how):
    class Flat(nn.MLPTower):
        def forward(self, responses):
            return 0.1 + 0 * super().forward(responses)

    images, responses, shown = recording
    est = aligner(neural_tower=Flat, map_scale=how, validation_fraction=0)
    est.fit(images, None, responses, image_ids=shown)
    assert not est.transform_responses(responses).any()
    assert not est.similarity(responses, images).any()
    found = est.retrieve(responses, images, k=3)
    assert found.places.tolist() == [[0, 1, 2]] * 40  # all alike: the first come first
    assert est.score(images, None, responses) == 0

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import v1tlearn as v1
from v1tlearn.metrics import fecv, score_table

REFERENCE = Path(__file__).parents[1] / "reference" / "minimodel"


def raw(*args, **kwargs):
    return np.asarray(fecv(*args, multioutput="raw_values", **kwargs))


def make_data(seed, n_neurons=4, balanced=False):
    """Responses (stimuli, neurons) in a random order, of 3 to 5 categories, and these."""
    rng = np.random.default_rng(seed)
    n_categories = int(rng.integers(3, 6))
    counts = np.full(n_categories, 5) if balanced else rng.integers(2, 9, n_categories)
    labels = rng.permutation(np.repeat(np.arange(n_categories), counts))
    signal = rng.standard_normal((n_categories, n_neurons))[labels]
    return signal + rng.standard_normal(signal.shape), labels, rng


def ratio(groups):
    """The definition, in a loop."""
    total = np.concatenate(groups).var(ddof=1)
    return (total - np.mean([group.var(ddof=1) for group in groups])) / total


@given(st.integers(0, 10_000))
def test_agrees_with_a_loop(seed):
    values, labels, _ = make_data(seed)
    present = np.unique(labels)
    got = raw(values, categories=labels)
    got_pairs = raw(values, categories=labels, pairwise=True, small_difference=0)
    for neuron in range(values.shape[1]):
        groups = [values[labels == label, neuron] for label in present]
        np.testing.assert_allclose(got[neuron], ratio(groups), rtol=1e-10, atol=1e-12)
        pairs = np.mean([ratio(pair) for pair in combinations(groups, 2)])
        np.testing.assert_allclose(got_pairs[neuron], pairs, rtol=1e-10, atol=1e-12)


def close(got, reference, tolerance=1e-10):
    assert np.array_equal(np.isnan(got), np.isnan(reference))
    defined = ~np.isnan(reference)
    scale = np.abs(reference[defined]).max()
    assert np.abs(got - reference)[defined].max() <= tolerance * scale


def test_agrees_with_the_published_implementation():
    with np.load(REFERENCE / "category_variance.npz") as file:
        balanced = file["balanced/responses"]
        n_neurons, n_categories, n_stimuli = balanced.shape
        labels = np.repeat(np.arange(n_categories), n_stimuli)
        flat = balanced.reshape(n_neurons, -1).T
        close(raw(flat, categories=labels), file["balanced/fecv"])

        options = {"pairwise": True}  # small differences count as 0, as published
        values, labels = file["pairwise/responses"].T, file["pairwise/labels"]
        close(raw(values, categories=labels, **options), file["pairwise/fecv"])
        among = file["pairwise_subset/labels_used"]
        got = raw(values, categories=labels, among=among, **options)
        close(got, file["pairwise_subset/fecv"])

        values, labels = file["small_difference/responses"].T, file["small_difference/labels"]
        got = raw(values, categories=labels, **options)
        close(got, file["small_difference/fecv_published"], 1e-8)
        assert got[0] == 0
        assert got[1] > 0
        close(raw(values, categories=labels, **options, small_difference=1e-4), got)
        got = raw(values, categories=labels, **options, small_difference=0)
        close(got, file["small_difference/fecv_without_the_rule"], 1e-8)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05]), st.booleans())
def test_unit_and_orders_do_not_matter(seed, small_difference, pairwise):
    values, labels, rng = make_data(seed)
    options = {"pairwise": pairwise, "small_difference": small_difference}
    expected = raw(values, categories=labels, **options)
    order = rng.permutation(len(labels))
    names = rng.permutation(["bark", "pebbles", "bricks", "grass", "water"])
    scaled = (3e-5 * values + 7.0)[order]
    got = raw(scaled, categories=names[labels[order]], **options)
    np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-9)


def test_is_one_where_categories_tell_all_and_small_where_they_tell_nothing():
    labels = np.repeat(np.arange(4), 50)
    noise = np.random.default_rng(0).standard_normal((200, 3))
    assert fecv(labels[:, None] * [1.0, -2.0], categories=labels) == 1
    assert abs(fecv(noise, categories=labels)) < 0.05


@pytest.mark.parametrize("pairwise", [False, True])
def test_silent_neurons_are_not_counted(pairwise):
    values, labels, _ = make_data(1)
    alone = fecv(values, categories=labels, pairwise=pairwise)
    silent = np.column_stack([values, np.full(len(values), 0.1)])
    assert fecv(silent, categories=labels, pairwise=pairwise) == pytest.approx(alone)
    assert np.isnan(raw(silent, categories=labels, pairwise=pairwise)[-1])


@pytest.mark.parametrize("pairwise", [False, True])
def test_stimuli_of_unknown_category_do_not_count(pairwise):
    values, labels, _ = make_data(4)
    names = np.array(["unknown", "leaves", "stones", "bark", "sand", "grass"])[labels]
    kinds = np.unique(names)
    expected = raw(values, categories=names, among=kinds[kinds != "unknown"], pairwise=pairwise)
    assert np.array_equal(raw(values, categories=names, pairwise=pairwise), expected)
    every = raw(values, categories=names, among=kinds, pairwise=pairwise)
    assert not np.array_equal(every, expected)


def test_pairs_over_which_a_neuron_is_silent_are_not_counted():
    labels = np.repeat([0, 1, 2], 4)
    values = np.where(labels == 2, np.arange(12.0), 0.1)[:, None]
    pairs = [(values[labels == a, 0], values[labels == 2, 0]) for a in (0, 1)]
    expected = np.mean([ratio(pair) for pair in pairs])
    assert fecv(values, categories=labels, pairwise=True) == pytest.approx(expected)


def test_repeats_are_averaged_first_as_far_as_they_were_recorded():
    means, labels, rng = make_data(3)
    images = rng.permutation(np.repeat(np.arange(len(labels)), 3))
    trials = means[images] + rng.standard_normal((len(images), means.shape[1]))
    _, first = np.unique(images, return_index=True)
    missing = rng.random(trials.shape) < 0.3
    missing[first] = False
    trials[missing] = np.nan
    averages = np.array([np.nanmean(trials[images == i], axis=0) for i in range(len(labels))])
    got = raw(trials, categories=labels[images], image_ids=images)
    np.testing.assert_allclose(got, raw(averages, categories=labels))
    single = raw(trials, categories=labels[images])
    assert not np.allclose(single, got)


def test_stimuli_that_were_not_recorded_do_not_exist_for_a_neuron():
    values, labels, _ = make_data(5, balanced=True)
    missing = values.copy()
    missing[labels == 0, 1] = np.nan
    got, pairs = (raw(missing, categories=labels, pairwise=p) for p in (False, True))
    assert got[0] == raw(values, categories=labels)[0]
    others = labels != 0
    assert got[1] == pytest.approx(raw(values[others], categories=labels[others])[1])
    expected = raw(values[others], categories=labels[others], pairwise=True)[1]
    assert pairs[1] == pytest.approx(expected)
    missing[labels != 1, 2] = np.nan
    assert np.isnan(raw(missing, categories=labels)[2])


def test_all_forms_of_arguments_give_the_same():
    recordings = v1.make_v1_recordings(
        n_mice=2, n_neurons=[3, 5], n_trials=30, n_test_images=6, n_repeats=2,
        image_shape=(8, 12), random_state=0,
    )  # fmt: skip
    named = {}
    for mouse, recording in recordings.children.items():
        dataset = recording.to_dataset()
        names = np.array(["even", "odd"])[dataset["image_id"].values.astype(int) % 2]
        named[mouse] = dataset.assign_coords(category=("trial", names))
    trials = v1.Trials(named)
    responses = trials.responses
    expected = fecv(responses)
    labels = {mouse: d["category"].values for mouse, d in named.items()}
    images = {mouse: d["image_id"].values for mouse, d in named.items()}
    matrices = {mouse: responses.get(mouse) for mouse in trials.mice}
    flat = np.concatenate(list(labels.values()))
    assert fecv(matrices, categories=labels, image_ids=images) == expected
    ids = trials.mouse_ids
    objects = np.asarray(responses)
    assert fecv(objects, categories=flat, image_ids=trials.image_ids, mouse_ids=ids) == expected
    first = trials.mice[0]
    per_mouse = fecv(responses, multioutput="mice")
    assert fecv(responses[first]) == per_mouse.sel(mouse=first)
    units = fecv(responses, multioutput="raw_values")
    assert isinstance(units, xr.DataArray)
    assert units.sizes["unit"] == 8

    table = score_table(
        {"truth": Repeater()}, trials, metrics=["fecv", "fecv_pairwise"], oracle=False
    )
    assert table["metric"].unique().tolist() == ["fecv", "fecv_pairwise"]
    values = table[table["metric"] == "fecv"]["value"].to_numpy()
    np.testing.assert_array_equal(values, per_mouse.values)
    plain = v1.Trials(recordings)
    with pytest.raises(ValueError, match="no coordinate `category`"):
        score_table({"truth": Repeater()}, plain, metrics="fecv")


class Repeater:
    """Predicts what was recorded."""

    def predict(self, trials):
        return trials.responses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, c: ((v,), {}), "categories is missing"),
        (lambda v, c: ((v,), {"categories": c[1:]}), "categories has shape"),
        (lambda v, c: ((v,), {"categories": np.zeros_like(c)}), "at least 2 of these"),
        (lambda v, c: ((v[:3],), {"categories": [0, 1, 1]}), r"\{0: 1, 1: 2\}"),
        (lambda v, c: ((v,), {"categories": c, "among": [0, 77]}), r"categories \[77\] of among"),
        (lambda v, c: ((v,), {"categories": c, "image_ids": np.zeros_like(c)}), "one category per"),
    ],
)
def test_what_cannot_be_computed_is_an_error_that_says_what_to_do(change, message):
    values, labels, _ = make_data(2)
    args, kwargs = change(values, labels)
    with pytest.raises(ValueError, match=message):
        fecv(*args, **kwargs)


@pytest.mark.parametrize(
    ("option", "values", "error"),
    [
        ("pairwise", ["no", None, 1], TypeError),
        ("small_difference", ["1e-4", [0.1, 0.2], False], TypeError),
        ("small_difference", [np.nan, -1e-9, -np.inf], ValueError),
    ],
)
def test_options_are_numbers_and_truth_values(option, values, error):
    responses, labels, _ = make_data(2)
    for value in values:
        with pytest.raises(error, match=f"{option} is .*expected"):
            fecv(responses, categories=labels, **{option: value})

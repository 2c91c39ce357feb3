"""All measures of decoders as one table."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from sklearn.exceptions import NotFittedError

import v1tlearn as v1
from v1tlearn.decoding import reconstruct_by_retrieval
from v1tlearn.metrics import pixel_correlation, ssim
from v1tlearn.nn import cosine_similarity, scale_maps

COLUMNS = ["model", "mouse", "direction", "metric", "gallery_size", "value", "low", "high"]
COLUMNS += ["chance", "null", "p_value", "ceiling"]


@pytest.fixture(scope="module")
def ridge(trials):
    return v1.RidgeDecoder(30.0).fit(trials)


@pytest.fixture(scope="module")
def table(ridge, aligner, test_trials):
    """Of both kinds of decoders; not to be changed."""
    models = {"ridge": ridge, "space": aligner}
    return v1.decoding_table(models, test_trials, n_bootstrap=200, n_permutations=200)


def one_row(table, **labels):
    chosen = table
    for name, value in labels.items():
        chosen = chosen[chosen[name].isna() if value is None else chosen[name] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]


def single(images, decoded, shown):
    """Trials of one mouse and reconstructions of them."""
    trials = v1.Trials.from_arrays(
        images, None, np.ones((len(images), 2)), image_ids=np.asarray(shown)
    )
    return xr.DataArray(decoded, dims=("trial", "channel", "height", "width")), trials


def test_the_table_is_tidy(table):
    assert table.columns.tolist() == COLUMNS
    keys = COLUMNS[:5]
    assert not table.duplicated(keys).any()
    assert set(table.mouse) == {"A", "B", "mean"}
    assert table[table.metric.isin(["ssim", "map_ssim"])].gallery_size.isna().all()
    assert set(table[table.metric == "top_1"].gallery_size) == {2, 6}  # of 6 images
    assert set(table[table.metric == "top_5"].gallery_size) == {6}


@pytest.mark.parametrize("mouse", ["A", "B"])
def test_a_decoder_finds_the_image_that_its_reconstruction_is_most_like(
    table, ridge, test_trials, mouse
):
    own = test_trials.sel(mouse_id=mouse)
    ids, first = np.unique(own.image_ids, return_index=True)
    gallery, decoded = own[first].get("stimuli", mouse).astype(float), ridge.predict(own).values
    similarity = np.array([pixel_correlation(gallery, [one] * 6) for one in decoded])
    seen = np.searchsorted(ids, own.image_ids)
    ranks = np.array([(row >= row[j]).sum() for row, j in zip(similarity, seen, strict=True)])
    row = {"model": "ridge", "mouse": mouse, "direction": "response_to_image", "gallery_size": 6}
    assert one_row(table, metric="top_1", **row).value == pytest.approx((ranks == 1).mean())
    assert one_row(table, metric="top_5", **row).value == pytest.approx((ranks <= 5).mean())
    assert one_row(table, metric="mean_reciprocal_rank", **row).value == pytest.approx(
        (1 / ranks).mean()
    )
    assert one_row(table, metric="median_rank", **row).value == np.sort(ranks)[11]  # of 24
    row |= {"gallery_size": 2, "metric": "two_way_identification"}
    assert one_row(table, **row).value == pytest.approx(((6 - ranks) / 5).mean())
    assert one_row(table, **row).chance == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("mouse", ["A", "B"])
def test_an_aligner_finds_the_image_whose_map_is_most_like(table, aligner, test_trials, mouse):
    own = test_trials.sel(mouse_id=mouse)
    ids, first = np.unique(own.image_ids, return_index=True)
    similarity = aligner.similarity(own, own[first])
    seen = np.searchsorted(ids, own.image_ids)
    ranks = np.array([(row >= row[j]).sum() for row, j in zip(similarity, seen, strict=True)])
    row = {"model": "space", "mouse": mouse, "gallery_size": 6, "metric": "top_1"}
    found = one_row(table, direction="response_to_image", **row)
    assert found.value == pytest.approx((ranks == 1).mean())
    assert found.value == pytest.approx(aligner.score(own))
    maps = torch.from_numpy(aligner.transform_responses(own, flat=True).values).double()
    means = torch.stack([maps[seen == i].mean(0) for i in range(6)])
    images = torch.from_numpy(aligner.transform_images(own[first], flat=True).values).double()
    similarity = cosine_similarity(images, means).numpy()
    ranks = np.array([(row >= row[j]).sum() for j, row in enumerate(similarity)])
    found = one_row(table, direction="image_to_response", **row)
    assert found.value == pytest.approx((ranks == 1).mean())


def test_images_and_maps_are_compared_pair_by_pair(table, ridge, aligner, test_trials):
    own = test_trials.sel(mouse_id="B")
    images, decoded = own.get("stimuli", "B").astype(float), ridge.predict(own).values
    row = {"model": "ridge", "mouse": "B", "gallery_size": None}
    expected = pixel_correlation(images, decoded).mean()
    assert one_row(table, metric="pixel_correlation", **row).value == pytest.approx(expected)
    expected = ssim(images, decoded, low=images.min(), high=images.max()).mean()
    assert one_row(table, metric="ssim", **row).value == pytest.approx(expected)
    maps = aligner.transform_images(own).values, aligner.transform_responses(own).values
    row["model"] = "space"
    expected = pixel_correlation(*maps).mean()
    assert one_row(table, metric="map_correlation", **row).value == pytest.approx(expected)
    expected = ssim(*(scale_maps(torch.from_numpy(part)) for part in maps)).mean()
    assert one_row(table, metric="map_ssim", **row).value == pytest.approx(expected)


def test_the_mean_over_mice_is_one_of_values_chances_and_nulls(table):
    wide = table.pivot_table(
        ["value", "chance", "null"],
        ["model", "direction", "metric", table.gallery_size.fillna(0)],
        "mouse",
    )
    for name in ("value", "chance", "null"):
        expected = wide[name][["A", "B"]].mean(axis=1).dropna()
        np.testing.assert_allclose(wide[name]["mean"].dropna(), expected, atol=1e-12)


def test_one_seed_gives_one_table(table, ridge, aligner, test_trials):
    models = {"ridge": ridge, "space": aligner}
    again = v1.decoding_table(models, test_trials, n_bootstrap=200, n_permutations=200)
    pd.testing.assert_frame_equal(again, table)
    other = v1.decoding_table(
        models, test_trials, n_bootstrap=200, n_permutations=200, random_state=1
    )
    assert other.value.equals(table.value)
    assert not other.low.equals(table.low)


# -------------------------------------------------------------------------- intervals and controls


def noisy(n_images=20, repeats=2, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n_images, 1, 4, 5))
    shown = np.arange(n_images).repeat(repeats)
    decoded = images[shown] + noise * rng.normal(size=(len(shown), 1, 4, 5))
    return single(images[shown], decoded, shown)


def test_true_reconstructions_find_all_and_shuffled_ones_are_at_chance():
    decoded, trials = noisy(noise=0.0)
    table = v1.decoding_table({"true": decoded}, trials, gallery_sizes=(5,))
    galleries = table[
        table.metric.isin(["top_1", "mean_reciprocal_rank", "two_way_identification"])
    ]
    for name in ("value", "ceiling", "low", "high"):
        np.testing.assert_allclose(galleries[name], 1, rtol=0, atol=1e-12)
    assert (galleries.p_value < 0.05).all()
    np.testing.assert_allclose(galleries.null, galleries.chance, atol=0.02)
    row = one_row(table, metric="pixel_correlation")
    assert row.value == pytest.approx(1)
    images = decoded.values[::2]
    pairs = np.array([pixel_correlation(images, [one] * 20) for one in images])
    assert row.null == pytest.approx(pairs.mean(), abs=0.01)
    assert row.p_value == 1 / 1001
    assert one_row(table, metric="ssim").p_value == 1 / 20


def test_responses_that_tell_nothing_are_no_better_than_shuffled_ones():
    rng = np.random.default_rng(0)
    shares = []
    for seed in range(30):
        images = rng.normal(size=(15, 1, 3, 4))
        decoded, trials = single(images, rng.normal(size=images.shape), np.arange(15))
        table = v1.decoding_table(
            decoded, trials, n_bootstrap=0, n_permutations=99, random_state=seed
        )
        shares.append(one_row(table, metric="pixel_correlation").p_value)
        assert table.low.isna().all()
    assert 0.3 < np.mean(shares) < 0.7
    assert np.mean(np.array(shares) <= 0.1) < 0.35


def test_the_interval_is_that_of_drawing_images_anew():
    decoded, trials = noisy(40, repeats=3)
    found = v1.decoding_table(decoded, trials, n_bootstrap=4000, n_permutations=0)
    row = one_row(found, metric="pixel_correlation")
    images = trials.get("stimuli", *trials.mice)
    values = pixel_correlation(images, decoded.values).reshape(40, 3).mean(axis=1)
    rng = np.random.default_rng(1)
    drawn = values[rng.integers(40, size=(4000, 40))].mean(axis=1)
    np.testing.assert_allclose(
        [row.low, row.high], np.quantile(drawn, [0.025, 0.975]), rtol=0, atol=0.006
    )
    assert row.low < row.value < row.high
    assert np.isnan(row.p_value)
    narrow = v1.decoding_table(decoded, trials, n_bootstrap=4000, n_permutations=0, level=0.5)
    narrow = one_row(narrow, metric="pixel_correlation")
    assert row.low < narrow.low < narrow.high < row.high


def test_the_ceiling_is_what_two_trials_tell_of_each_other():
    decoded, trials = noisy(12, repeats=3)
    row = one_row(
        v1.decoding_table(decoded, trials, n_permutations=0),
        metric="top_1",
        gallery_size=12,
        direction="response_to_image",
    )
    first, second = decoded.values[0::3], decoded.values[1::3]
    similarity = np.array([pixel_correlation(second, [one] * 12) for one in first])
    found = np.concatenate([similarity.argmax(axis=0), similarity.argmax(axis=1)])
    assert row.ceiling == pytest.approx((found == np.tile(np.arange(12), 2)).mean())


def test_without_repeats_there_is_no_ceiling_and_with_few_one_of_small_galleries():
    decoded, trials = noisy(12, repeats=1)
    table = v1.decoding_table(decoded, trials, n_permutations=0)
    assert table.ceiling.isna().all()
    decoded, trials = noisy(12, repeats=2)
    kept = np.r_[0:10, 10:24:2]  # five images twice
    table = v1.decoding_table(
        decoded[kept], trials[kept], gallery_sizes=(2, 5, 6), n_permutations=0
    )
    known = table[table.metric == "top_1"].groupby("gallery_size").ceiling.count()
    assert known.to_dict() == {2: 2, 5: 2, 6: 0, 12: 0}


def test_mice_of_different_galleries_are_compared_at_the_size_of_the_smallest(trials, test_trials):
    images = np.unique(test_trials.image_ids)
    keep = (test_trials.mouse_ids == "A") | np.isin(test_trials.image_ids, images[:4])
    decoder = v1.RidgeDecoder(30.0).fit(trials)
    table = v1.decoding_table(decoder, test_trials[keep], n_bootstrap=50, n_permutations=9)
    sizes = table[table.metric == "top_1"].groupby("mouse").gallery_size.agg(set).to_dict()
    assert sizes == {"A": {2, 4, 6}, "B": {2, 4}, "mean": {2, 4}}
    assert set(table.model) == {"RidgeDecoder"}


def test_reconstructions_of_any_kind_are_compared(aligner, trials, test_trials):
    found = reconstruct_by_retrieval(aligner, test_trials, trials, k=3)
    probe = v1.LinearProbe(aligner=aligner).fit(trials)
    table = v1.decoding_table(
        {"retrieval": found, "probe": probe}, test_trials, n_bootstrap=10, n_permutations=9
    )
    row = one_row(table, model="probe", mouse="mean", metric="pixel_correlation")
    assert row.value == pytest.approx(probe.score(test_trials))
    assert set(table.model) == {"retrieval", "probe"}


# ------------------------------------------------------------------------------------- bad input


def test_images_without_contrast_are_left_out_of_correlations():
    decoded, trials = noisy(10, repeats=1)
    images = trials.get("stimuli", *trials.mice).copy()
    images[3] = 0.5
    found = v1.decoding_table(*single(images, decoded.values, np.arange(10)), n_permutations=9)
    row = one_row(found, metric="pixel_correlation")
    values = pixel_correlation(images, decoded.values)
    assert row.value == pytest.approx(np.nanmean(values))
    assert np.isfinite([row.low, row.high, row.null]).all()


def test_an_image_that_is_there_twice_counts_against_itself():
    images = np.random.default_rng(0).normal(128, 30, size=(6, 1, 8, 9)).repeat(2, axis=0)
    trials = v1.Trials.from_arrays(
        images, None, np.random.default_rng(1).random((12, 4)), image_ids=np.arange(12)
    )
    decoded = xr.DataArray(images + 0.1, dims=("trial", "channel", "height", "width"))
    found = v1.decoding_table({"both": decoded}, trials, n_bootstrap=0, n_permutations=0)
    whole = found[found.gallery_size == 12]
    assert (whole[whole.metric == "top_1"].value == 0).all()
    assert (whole[whole.metric == "median_rank"].value == 2).all()


def test_reconstructions_without_contrast_find_nothing():
    decoded, trials = noisy(10)
    table = v1.decoding_table(xr.zeros_like(decoded), trials, n_permutations=9)
    assert (table[table.metric.isin(["top_1", "two_way_identification"])].value == 0).all()
    assert (table[table.metric == "median_rank"].value == table.dropna().gallery_size.max()).any()
    assert one_row(table, metric="pixel_correlation").value == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"gallery_sizes": (1,)}, "each of gallery_sizes=1"),
        ({"k": (0,)}, "each of k=0"),
        ({"n_bootstrap": -1}, "n_bootstrap=-1"),
        ({"n_permutations": 2.5}, "n_permutations=2.5"),
        ({"level": 1.0}, "level=1.0"),
    ],
)
def test_wrong_options_are_told(options, told):
    with pytest.raises(ValueError, match=told):
        v1.decoding_table(*noisy(), **options)


def test_what_cannot_be_compared_is_refused(ridge, aligner, trials, test_trials):
    with pytest.raises(ValueError, match="one image"):
        v1.decoding_table(ridge, test_trials.sel(image_id=test_trials.image_ids[0]))
    with pytest.raises(TypeError, match="expected Trials"):
        v1.decoding_table(ridge, test_trials.responses)
    with pytest.raises(TypeError, match="'CNN' is CNNRegressor"):
        v1.decoding_table(v1.CNNRegressor(), test_trials)
    with pytest.raises(NotFittedError):
        v1.decoding_table(v1.RidgeDecoder(), test_trials)
    classes = v1.LinearProbe("classes", aligner=aligner, alpha=1.0)
    classes.fit(trials, np.arange(len(trials)) % 2)
    with pytest.raises(ValueError, match="reads classes"):
        v1.decoding_table(classes, test_trials)
    decoded = ridge.predict(test_trials)
    with pytest.raises(ValueError, match="another image_id"):
        v1.decoding_table(decoded[::-1], test_trials)
    with pytest.raises(ValueError, match="of the 48 trials"):
        v1.decoding_table(decoded[:5], test_trials)


def test_images_of_the_fit_are_warned_of(trials, test_trials):
    with pytest.warns(UserWarning, match="test"):
        decoder = v1.RidgeDecoder(1.0).fit(test_trials[::2])
    with pytest.warns(UserWarning, match="too good"):
        v1.decoding_table(decoder, test_trials[1::2], n_bootstrap=0, n_permutations=0)


def test_images_of_simulated_mice_are_found_and_with_shuffled_pairs_they_are_not():
    recordings = v1.make_coarse_recordings(
        n_neurons=60,
        n_trials=300,
        n_test_images=30,
        image_shape=(16, 24),
        cutoff=3.0,
        explainable_variance=0.8,
        random_state=0,
    )
    trials = v1.Trials(recordings)
    train, test = trials.sel(tier="train"), trials.sel(tier="test")
    options = {"gallery_sizes": (10,), "n_bootstrap": 200, "n_permutations": 199}
    table = v1.decoding_table(v1.RidgeDecoder().fit(train), test, **options)
    found = table[table.metric.isin(["top_1", "mean_reciprocal_rank", "two_way_identification"])]
    assert (found.low > found.chance).all()
    assert (found.p_value == 1 / 200).all()
    assert one_row(table, metric="pixel_correlation").value > 0.15
    dataset = train["A"]
    mixed = dataset.responses.values[np.random.default_rng(0).permutation(len(train))]
    untold = v1.Trials({"A": dataset.assign(responses=(("trial", "neuron"), mixed))})
    table = v1.decoding_table(v1.RidgeDecoder().fit(untold), test, **options)
    untold = table[(table.metric == "top_1") & (table.gallery_size == 30)]
    assert (untold.low <= untold.chance).all()
    assert (untold.p_value > 0.01).all()

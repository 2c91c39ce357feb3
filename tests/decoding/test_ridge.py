"""Images from responses by ridge and reduced-rank ridge regression."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

import v1tlearn as v1


def linear(n_images=24, n_neurons=30, repeats=2, shape=(1, 4, 5), noise=0.3, seed=0):
    """Noisy linear responses to images, as arrays of one mouse; and which image was shown."""
    rng = np.random.default_rng(seed)
    images = 100 + 30 * rng.normal(size=(n_images, *shape))
    filters = rng.normal(size=(images[0].size, n_neurons)) / images[0].size
    shown = np.arange(n_images).repeat(repeats)
    rates = 20 + images.reshape(n_images, -1) @ filters
    responses = rates[shown] + noise * rng.normal(size=(len(shown), n_neurons))
    return images[shown].astype(np.float32), responses, shown


@pytest.mark.parametrize(("n_neurons", "n_images"), [(30, 12), (9, 30)])
@pytest.mark.parametrize("standardize", [True, False])
def test_the_solution_is_that_of_scikit_learn(n_neurons, n_images, standardize):
    images, responses, shown = linear(n_images, n_neurons)
    decoder = v1.RidgeDecoder(alpha=2.5, standardize=standardize)
    decoder.fit(images, None, responses, image_ids=shown)
    scale = responses.std(axis=0) if standardize else 1
    oracle = Ridge(2.5).fit(responses / scale, images.reshape(len(images), -1))
    new = linear(n_images, n_neurons, seed=1)[1]
    decoded = decoder.predict(new)
    expected = oracle.predict(new / scale).reshape(decoded.shape)
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-8)
    assert decoded.dims == ("trial", "channel", "height", "width")
    assert decoded.mouse_id.values.tolist() == ["mouse"] * len(new)


def objective(inputs, goal, coefficients, alpha):
    return ((goal - inputs @ coefficients) ** 2).sum() + alpha * (coefficients**2).sum()


@given(st.integers(1, 3), st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 30.0]))
@settings(max_examples=4, deadline=None)
def test_no_other_regression_of_the_rank_is_better(rank, seed, alpha):
    rng = np.random.default_rng(seed)
    n, n_neurons, shape = 10, 4, (1, 2, 3)
    images = rng.normal(size=(n, *shape))
    responses = rng.normal(size=(n, n_neurons))
    decoder = v1.RidgeDecoder(alpha, rank=rank, standardize=False)
    decoder.fit(images, None, responses, image_ids=np.arange(n))
    zero = decoder.predict(np.zeros((1, n_neurons))).values.reshape(1, -1)
    coefficients = decoder.predict(np.eye(n_neurons)).values.reshape(n_neurons, -1) - zero
    assert np.linalg.matrix_rank(coefficients, tol=1e-8) <= rank
    inputs = torch.from_numpy(responses - responses.mean(axis=0))
    goal = torch.from_numpy(images.reshape(n, -1) - images.reshape(n, -1).mean(axis=0))
    found = objective(inputs, goal, torch.from_numpy(coefficients), alpha).item()
    best = np.inf
    for start in range(3):  # descent on both factors
        generator = torch.Generator().manual_seed(start)
        sizes = ((n_neurons, rank), (rank, goal.shape[1]))
        factors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in sizes]
        factors = [factor.requires_grad_() for factor in factors]
        optimizer = torch.optim.LBFGS(
            factors, max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
        )

        def loss(optimizer=optimizer, factors=factors):
            optimizer.zero_grad()
            value = objective(inputs, goal, factors[0] @ factors[1], alpha)
            value.backward()
            return value

        optimizer.step(loss)
        best = min(best, loss().item())
    assert found == pytest.approx(best, rel=1e-6)


def test_a_rank_that_is_no_limit_changes_nothing():
    images, responses, shown = linear()
    decoders = [
        v1.RidgeDecoder(1.0, rank=rank).fit(images, None, responses, image_ids=shown)
        for rank in (None, 1000)
    ]
    np.testing.assert_allclose(*(d.predict(responses) for d in decoders), rtol=0, atol=1e-8)


@pytest.mark.parametrize("rank", [1, 3])
def test_few_patterns_of_many_are_the_first_ones(rank):
    images, responses, shown = linear(40, 30, repeats=1, shape=(1, 6, 6))
    decoder = v1.RidgeDecoder(1.0, rank=rank, standardize=False)
    decoder.fit(images, None, responses, image_ids=shown)
    inputs = responses - responses.mean(axis=0)
    goal = images.reshape(40, -1).astype(float)
    gram = inputs.T @ inputs + np.eye(30)
    ridge = np.linalg.solve(gram, inputs.T @ (goal - goal.mean(axis=0)))
    axes = np.linalg.svd(np.linalg.cholesky(gram).T @ ridge)[2][:rank]
    expected = goal.mean(axis=0) + inputs @ ridge @ axes.T @ axes
    decoded = decoder.predict(responses).values.reshape(40, -1)
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("rank", [None, 2])
def test_the_penalty_has_the_least_error_in_images_left_out(rank):
    images, responses, shown = linear(noise=2.0)
    alphas = [0.1, 10.0, 1000.0]
    decoder = v1.RidgeDecoder(alphas, rank=rank, n_folds=4, standardize=False)
    decoder.fit(images, None, responses, image_ids=shown)
    errors = np.zeros(3)
    for train, held in GroupKFold(4).split(images, groups=shown):
        assert not set(shown[train]) & set(shown[held])
        for i, alpha in enumerate(alphas):
            part = v1.RidgeDecoder(alpha, rank=rank, standardize=False)
            part.fit(images[train], None, responses[train], image_ids=shown[train])
            errors[i] += ((images[held] - part.predict(responses[held]).values) ** 2).sum()
    np.testing.assert_allclose(decoder.errors_["mouse"], errors / images.size, rtol=1e-5)
    assert decoder.errors_["mouse"].alpha.values.tolist() == alphas
    assert decoder.alpha_ == {"mouse": alphas[errors.argmin()]}


def test_the_automatic_penalty_follows_the_noise():
    found = []
    for noise in (0.05, 5.0):
        images, responses, shown = linear(80, 20, noise=noise)
        decoder = v1.RidgeDecoder().fit(images, None, responses, image_ids=shown)
        found.append(decoder.alpha_["mouse"])
        new, told, _ = linear(80, 20, noise=noise)
        assert decoder.score(new, None, told) > (0.6 if noise < 1 else 0)
    assert found[0] < found[1] / 100


def test_all_call_forms_decode_alike(trials, test_trials, arrays):
    by_trials = v1.RidgeDecoder(10.0).fit(trials)
    names = ("stimuli", "behaviors", "responses")
    by_arrays = v1.RidgeDecoder(10.0).fit(*(arrays[n] for n in names))
    images = by_trials.predict(test_trials)
    assert images.shape == (len(test_trials), 1, 12, 16)
    assert images.mouse_id.values.tolist() == test_trials.mouse_ids.tolist()
    assert images.image_id.values.tolist() == test_trials.image_ids.tolist()
    assert np.array_equal(images, by_arrays.predict(test_trials.responses))
    responses = {m: test_trials.get("responses", m) for m in test_trials.mice}
    per_mouse = by_arrays.predict(responses)
    for mouse in test_trials.mice:
        own = images[test_trials.rows(mouse)[0]].values
        np.testing.assert_allclose(own, by_arrays.predict(responses[mouse], mouse), atol=1e-9)
        np.testing.assert_allclose(own, per_mouse[per_mouse.mouse_id == mouse], atol=1e-9)
    shuffled = np.random.default_rng(0).permutation(len(test_trials))
    np.testing.assert_allclose(by_trials.predict(test_trials[shuffled]), images[shuffled])


def test_a_copy_or_a_pickle_decodes_the_same(trials, test_trials):
    decoder = v1.RidgeDecoder(3.0, rank=2).fit(trials)
    again = pickle.loads(pickle.dumps(decoder))
    assert np.array_equal(again.predict(test_trials), decoder.predict(test_trials))
    with pytest.raises(NotFittedError):
        clone(decoder).predict(test_trials)


@pytest.mark.parametrize("params", [{"alpha": [1.0, 9.0]}, {"alpha": 2.0, "rank": 1}, {}])
def test_a_decoder_comes_back_from_a_folder(trials, test_trials, tmp_path, params):
    decoder = v1.RidgeDecoder(**params).fit(trials)
    decoder.save(tmp_path / "decoder")
    for again in (v1.load(tmp_path / "decoder"), v1.RidgeDecoder.load(tmp_path / "decoder")):
        assert np.array_equal(again.predict(test_trials), decoder.predict(test_trials))
        assert again.get_params() == decoder.get_params()
        assert again.alpha_ == decoder.alpha_
        for mouse, errors in decoder.errors_.items():
            assert errors.identical(again.errors_[mouse])
        turned = test_trials.sel(neuron={"A": test_trials.neuron_ids("A")[::-1]})
        with pytest.raises(ValueError, match="another order"):
            again.predict(turned)


# ------------------------------------------------------------------------------- what is missing


def test_a_response_that_was_not_recorded_counts_as_the_mean_of_its_neuron():
    images, responses, shown = linear()
    lost = responses.copy()
    lost[::3, 4] = np.nan
    decoder = v1.RidgeDecoder(1.0).fit(images, None, lost, image_ids=shown)
    filled = np.where(np.isnan(lost), np.nanmean(lost, axis=0), lost)
    scale = np.nanstd(lost, axis=0)
    oracle = Ridge(1.0).fit(filled / scale, images.reshape(len(images), -1))
    expected = oracle.predict(filled / scale).reshape(images.shape)
    np.testing.assert_allclose(decoder.predict(lost), expected, rtol=0, atol=1e-8)


def test_a_neuron_that_never_varied_counts_nothing_whatever_it_does_later():
    images, responses, shown = linear()
    without = v1.RidgeDecoder(1.0).fit(images, None, responses[:, 2:], image_ids=shown)
    silent = responses.copy()
    silent[:, 0], silent[:, 1] = 3.0, np.nan
    with_them = v1.RidgeDecoder(1.0).fit(images, None, silent, image_ids=shown)
    silent[:, :2] = 1000.0
    expected = without.predict(responses[:, 2:])
    np.testing.assert_allclose(with_them.predict(silent), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x, r, s: (x, r, np.zeros_like(s)), "all 48 trials show one image"),
        (lambda x, r, s: (np.ones_like(x), r, s), "all images are equal"),
        (lambda x, r, s: (x, np.zeros_like(r), s), "none of 30 neurons ever varies"),
        (lambda x, r, s: (x, np.where(r > 20, np.inf, r), s), "infinite"),
    ],
)
def test_what_nothing_can_be_told_from_is_refused(change, told):
    images, responses, shown = change(*linear())
    with pytest.raises(ValueError, match=told):
        v1.RidgeDecoder().fit(images, None, responses, image_ids=shown)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": [1.0, -1.0]}, "above 0"),
        ({"alpha": []}, "several numbers"),
        ({"rank": 0}, "rank"),
        ({"n_folds": 1}, "n_folds"),
    ],
)
def test_wrong_parameters_are_told(trials, params, told):
    with pytest.raises(ValueError, match=told):
        v1.RidgeDecoder(**params).fit(trials)


def test_responses_of_others_are_refused(trials, test_trials):
    decoder = v1.RidgeDecoder(1.0).fit(trials)
    with pytest.raises(ValueError, match="mouse_ids is missing"):
        decoder.predict(test_trials.get("responses", "A"))
    with pytest.raises(ValueError, match="5 neurons"):
        decoder.predict(test_trials.get("responses", "B"), "A")
    with pytest.raises(ValueError, match="unknown mouse 'Z'"):
        decoder.predict({"Z": np.zeros((2, 5))})
    turned = test_trials.sel(neuron={"A": test_trials.neuron_ids("A")[::-1]})
    with pytest.raises(ValueError, match="another order"):
        decoder.predict(turned)


@pytest.mark.parametrize("form", ["dataarray", "turned", "table", "dict"])
def test_neurons_go_by_label(form):
    images, responses, shown = linear(n_neurons=5)
    units = np.array(["u1", "u2", "u3", "u4", "u5"])
    named = xr.DataArray(responses, dims=("trial", "neuron"), coords={"neuron": units})
    decoder = v1.RidgeDecoder(1.0).fit({"A": images}, None, {"A": named}, image_ids={"A": shown})
    order = [2, 0, 4, 3, 1]
    if form == "table":
        given = pd.DataFrame(responses[:, order], columns=units[order])
    else:
        given = named[:, order]
        given = given.T if form == "turned" else {"A": given} if form == "dict" else given
    assert np.array_equal(decoder.predict(given), decoder.predict(responses))
    others = named.assign_coords(neuron=["u1", "u2", "u3", "u4", "u9"])
    with pytest.raises(ValueError, match="of other neurons than those of fit"):
        decoder.predict(others)


def test_whose_responses_are_is_told_once(trials, test_trials):
    decoder = v1.RidgeDecoder(1.0).fit(trials)
    for told in (test_trials, test_trials.responses, {"A": test_trials.get("responses", "A")}):
        with pytest.raises(TypeError, match="leave mouse_ids out"):
            decoder.predict(told, "A")
    with pytest.raises(TypeError, match="expected the id of one mouse"):
        decoder.predict(test_trials.get("responses", "A"), ["A"] * 24)


def test_a_trial_without_any_response_is_refused():
    images, responses, shown = linear()
    decoder = v1.RidgeDecoder(1.0).fit(images, None, responses, image_ids=shown)
    responses[[5, 7]] = np.nan
    told = "no response was recorded in the trials 5, 7"
    with pytest.raises(ValueError, match=told):
        decoder.predict(responses)
    with pytest.raises(ValueError, match=told):
        v1.RidgeDecoder(1.0).fit(images, None, responses, image_ids=shown)


def test_a_masked_response_counts_as_not_recorded():
    images, responses, shown = linear()
    decoder = v1.RidgeDecoder(1.0).fit(images, None, responses, image_ids=shown)
    gaps = responses.copy()
    gaps[3, 1] = np.nan
    masked = np.ma.array(responses, mask=np.isnan(gaps))
    assert np.array_equal(decoder.predict(masked), decoder.predict(gaps))
    assert not np.array_equal(decoder.predict(masked), decoder.predict(responses))


def test_arrays_of_the_only_mouse_are_scored_as_its_trials(trials, test_trials):
    one, other = trials.sel(mouse_id="A"), test_trials.sel(mouse_id="A")
    decoder = v1.RidgeDecoder(1.0).fit(one)
    stimuli, responses = (other.get(name, "A") for name in ("stimuli", "responses"))
    assert decoder.score(stimuli, None, responses) == decoder.score(other)


def test_images_of_the_fit_are_warned_of_where_they_are_scored(trials, test_trials):
    decoder = v1.RidgeDecoder(1.0).fit(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoder.score(test_trials)
    with pytest.warns(UserWarning, match="test"):
        seen = v1.RidgeDecoder(1.0).fit(test_trials[::2])
    with pytest.warns(UserWarning, match="too good"):
        seen.score(test_trials[1::2])


def test_images_without_contrast_do_not_count(trials):
    decoder = v1.RidgeDecoder(1.0).fit(trials.sel(mouse_id="A"))
    images, responses = (trials.get(name, "A").copy() for name in ("stimuli", "responses"))
    whole = decoder.predict(responses).values
    images[:3] = 7
    value = decoder.score(images, None, responses, "A")
    expected = [
        np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(images[3:], whole[3:], strict=True)
    ]
    assert value == pytest.approx(np.mean(expected), abs=1e-9)
    images[:] = np.arange(len(images), dtype=images.dtype)[:, None, None, None]
    with pytest.raises(ValueError, match="no image has contrast"):
        decoder.score(images, None, responses, "A")


def test_mice_stand_in_the_order_of_their_names():
    rng = np.random.default_rng(0)
    images, responses = rng.random((8, 1, 4, 5)), rng.random((8, 3))
    mice = ["m10", "m2", 9, 10, "b", "m02", 2]
    fitted = v1.RidgeDecoder(alpha=1.0).fit(
        dict.fromkeys(mice, images), None, dict.fromkeys(mice, responses)
    )
    assert fitted.mice_ == ["2", "9", "10", "b", "m02", "m2", "m10"]

"""The alignment as an estimator: one space for images and responses of several mice."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.nn import closest

PREPARATION = Path(__file__).parents[1] / "reference" / "dina" / "preparation.npz"
TINY = {"map_size": (4, 6), "map_channels": 3, "hidden_channels": 4, "n_layers": 2}
TINY |= {"input_kernel": 3, "hidden_units": (12,), "neural_channels": 4, "embed_dim": 4}
TINY |= {"max_epochs": 2, "random_state": 0, "device": "cpu", "batch_size": 16}
DSNET = {"image_tower": "dsnet", "stage_dims": (4, 8), "stage_depths": (1, 1)}
DSNET |= {"stage_reductions": (2, 1)}


def aligner(**parameters):
    return v1.DINAAligner(**TINY | parameters)


@pytest.fixture(scope="module")
def fitted_aligner(trials):
    """Fitted to both mice; not to be changed."""
    return aligner().fit(trials)


def weights(est):
    return {n: w.clone() for n, w in est.module_.state_dict().items()}


def same(first, second):
    return all(torch.equal(weight, second[name]) for name, weight in first.items())


def filtered(n_images=60, n_neurons=40, repeats=2, seed=0):
    """Responses of rectified filters of coarse images, as arrays of one mouse."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(n_images, 1, 3, 4))
    images = 128 + 40 * coarse.repeat(4, 2).repeat(4, 3)
    filters = rng.normal(size=(12, n_neurons))
    rates = np.maximum(coarse.reshape(n_images, -1) @ filters, 0)
    shown = np.arange(n_images).repeat(repeats)
    responses = rates[shown] + 0.1 * rng.random((len(shown), n_neurons))
    return images[shown].clip(0, 255).astype(np.uint8), responses.astype(np.float32), shown


# ------------------------------------------------------------------------------- what is learned


def test_a_large_mean_does_not_swallow_the_contrast_of_images():
    rng = np.random.default_rng(0)
    images = 2.0**20 + 4 * rng.integers(-2, 3, size=(30, 1, 12, 16))
    responses = rng.gamma(1, size=(30, 4))
    est = aligner(max_epochs=1, validation_fraction=0).fit(images, None, responses)
    known = est.statistics_["mouse"]
    assert known["image_std"] == pytest.approx((images - 2.0**20).std(), rel=1e-9)


@pytest.mark.parametrize("tower", quick(["mlp", "attention"], 0))
def test_the_image_that_was_seen_is_found(tower):
    images, responses, shown = filtered(100)
    train = shown < 80
    est = aligner(neural_tower=tower, max_epochs=40, batch_size=64, hidden_channels=16)
    est.set_params(map_channels=8, hidden_units=(64,), image_lr=3e-3, neural_lr=2e-3)
    est.set_params(embed_dim=16, grid=(4, 6))
    est.fit(images[train], None, responses[train], image_ids=shown[train])
    score = est.score(images[~train], None, responses[~train])
    assert score > 0.5  # chance is .05
    assert est.history_[-1]["loss"] < est.history_[0]["loss"] / 2
    assert est.best_epoch_ == 1 + np.argmax([r["validation_top1"] for r in est.history_])
    shuffled = np.random.default_rng(1).permutation(responses[~train])
    assert est.score(images[~train], None, shuffled) < 0.2


def test_call_forms_give_one_model(trials, arrays, fitted_aligner):
    names = ("stimuli", "behaviors", "responses")
    by_arrays = aligner().fit(*(arrays[n] for n in names), image_ids=arrays["image_ids"])
    for other in (by_arrays, aligner().fit(trials, trials.responses)):
        assert same(weights(fitted_aligner), weights(other))


@pytest.mark.parametrize("wanted", [True, False, "projection"])
def test_what_of_the_image_tower_is_trained(trials, wanted):
    tower = DSNET if wanted == "projection" else {}
    est = aligner(train_image_tower=wanted, max_epochs=0, **tower).fit(trials)
    before = weights(est)
    est = aligner(train_image_tower=wanted, **tower).fit(trials)
    after = weights(est)
    moved = {
        name
        for name, _ in est.module_.core.named_parameters()
        if not torch.equal(before[f"core.{name}"], after[f"core.{name}"])
    }
    expected = {n for n, _ in est.module_.core.named_parameters()} if wanted is True else set()
    if wanted == "projection":
        expected = {"project.weight"}
    # a bias in front of maps that are centred has no effect, and no gradient but rounding noise
    assert moved - {"join.bias", "project.bias"} == expected - {"join.bias", "project.bias"}


def test_images_of_all_mice_are_standardised_alike(trials):
    est = aligner(validation_fraction=0, max_epochs=1).fit(trials)
    statistics = list(est.statistics_.values())
    assert statistics[0]["image_mean"] == statistics[1]["image_mean"]
    pooled = np.concatenate([trials.get("stimuli", m).ravel() for m in trials.mice])
    assert statistics[0]["image_mean"] == pytest.approx(pooled.mean(), rel=1e-5)
    assert statistics[0]["image_std"] == pytest.approx(pooled.std(), rel=1e-5)
    for mouse, own in est.statistics_.items():
        responses = trials.get("responses", mouse)
        assert np.array_equal(own["response_low"], responses.min(0))
        assert np.array_equal(own["response_high"], responses.max(0))


@pytest.mark.parametrize(("over", "expected"), [("train", "clean"), ("recording", "published")])
def test_responses_are_scaled_over_the_training_trials_or_as_published(over, expected):
    with np.load(PREPARATION) as file:
        responses, scaled = file["responses"], file[f"{expected}_scaled"]
        train = file["split_50/train"]
    images = np.random.default_rng(0).integers(0, 256, (50, 1, 12, 16), dtype=np.uint8)
    trials = v1.Trials.from_arrays(images, None, responses)
    (mouse,) = trials.mice
    for part in (trials[train], trials[train].sel(neuron={mouse: [4, 3, 0]})):
        neurons = part.neuron_ids(mouse)
        est = aligner(range_over=over, max_epochs=0, validation_fraction=0).fit(part)
        scale = est.statistics_[mouse]["response_scale"]
        given = torch.from_numpy(responses[:, neurons] / scale)
        found = est.module_.scalers[0](given).numpy()
        np.testing.assert_allclose(found, scaled[:, neurons], rtol=0, atol=1e-6)


def test_the_range_over_a_recording_is_of_the_trials_set_aside_too(trials):
    whole = v1.Trials({mouse: trials[mouse] for mouse in trials.mice})
    part = whole[::3]
    clean = aligner(max_epochs=0, validation_fraction=0).fit(part).statistics_
    leaking = aligner(max_epochs=0, range_over="recording", validation_fraction=0).fit(part)
    for mouse, own in leaking.statistics_.items():
        assert np.array_equal(own["response_low"], whole.get("responses", mouse).min(0))
        assert np.array_equal(own["response_high"], whole.get("responses", mouse).max(0))
        assert (own["response_high"] >= clean[mouse]["response_high"]).all()
        assert (own["response_high"] > clean[mouse]["response_high"]).any()
        assert np.array_equal(own["response_scale"], clean[mouse]["response_scale"])


def test_the_range_over_a_recording_is_not_that_of_other_responses(trials):
    with pytest.raises(ValueError, match="y holds responses beyond those of the recording, over"):
        aligner(range_over="recording", max_epochs=0).fit(trials, trials.responses + 1)


def test_the_preset_has_the_published_sizes():
    est = v1.DINAAligner.from_preset("dina2026", max_epochs=3)
    assert (est.map_size, est.grid, est.embed_dim) == ((16, 64), (8, 32), 512)
    assert (est.image_lr, est.neural_lr, est.temperature) == (3e-4, 5e-5, 0.01)
    assert (est.selection, est.keep, est.max_epochs) == ("loss", "last", 3)
    with pytest.raises(ValueError, match="dina2026"):
        v1.DINAAligner.from_preset("dina2025")


def test_selection_by_the_loss_keeps_the_last_epoch_where_asked(trials):
    best = aligner(selection="loss", max_epochs=4, image_lr=0.05).fit(trials)
    losses = [record["validation_loss"] for record in best.history_]
    assert best.best_epoch_ == 1 + np.argmin(losses)
    last = aligner(selection="loss", keep="last", max_epochs=4, image_lr=0.05).fit(trials)
    assert last.best_epoch_ == 4


# ------------------------------------------------------------------------------------ the space


def test_maps_keep_their_axes_and_labels(fitted_aligner, test_trials):
    images = fitted_aligner.transform_images(test_trials)
    assert images.dims == ("trial", "channel", "height", "width")
    assert (
        images.shape
        == (len(test_trials), 3, 4, 6)
        == (len(test_trials), *fitted_aligner.map_shape_)
    )
    assert images.image_id.values.tolist() == test_trials.image_ids.tolist()
    responses = fitted_aligner.transform_responses(test_trials)
    assert responses.mouse_id.values.tolist() == test_trials.mouse_ids.tolist()
    flat = fitted_aligner.transform_images(test_trials, flat=True)
    assert flat.dims == ("trial", "feature")
    assert np.linalg.norm(flat, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(fitted_aligner.transform(test_trials), flat)


def test_trials_keep_their_order(fitted_aligner, test_trials):
    order = np.random.default_rng(0).permutation(len(test_trials))
    for transform in (fitted_aligner.transform_images, fitted_aligner.transform_responses):
        together, moved = transform(test_trials), transform(test_trials[order])
        assert np.allclose(together.values[order], moved.values, atol=1e-5)


def test_arrays_and_dicts_of_responses(fitted_aligner, test_trials):
    expected = fitted_aligner.transform_responses(test_trials)
    by_mouse = {m: test_trials.responses.get(m) for m in test_trials.mice}
    together = fitted_aligner.transform_responses(by_mouse)
    for mouse, own in by_mouse.items():
        alone = fitted_aligner.transform_responses(own, mouse)
        assert np.allclose(alone, expected[expected.mouse_id == mouse], atol=1e-6)
        assert np.allclose(alone, together[together.mouse_id == mouse], atol=1e-6)


def test_retrieval_is_the_order_of_similarity(fitted_aligner, test_trials):
    one = test_trials.sel(mouse_id="A")
    similarity = fitted_aligner.similarity(one, one)
    assert similarity.shape == (len(one), len(one))
    found = fitted_aligner.retrieve(one, one, k=4)
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :4]
    top = np.take_along_axis(similarity, found.places, 1)
    assert np.allclose(top, np.take_along_axis(similarity, expected, 1), atol=1e-6)
    assert np.allclose(found.similarities, top, atol=1e-6)
    maps = fitted_aligner.transform_responses(one), fitted_aligner.transform_images(one)
    again = fitted_aligner.retrieve(*maps, k=4)
    assert np.allclose(again.similarities, found.similarities, atol=1e-5)
    flat = fitted_aligner.transform_images(one, flat=True)
    assert np.allclose(fitted_aligner.similarity(maps[0], flat), similarity, atol=1e-5)


def test_a_gallery_in_parts_is_the_same_gallery():
    generator = torch.Generator().manual_seed(0)
    gallery = torch.randn(50, 1, 2, 3, generator=generator)
    gallery[30:40] = gallery[:10]  # as similar: the first come first
    queries = torch.randn(7, 1, 2, 3, generator=generator)
    whole, _ = closest(queries, iter([gallery]), 5)
    for size in (1, 7, 49):
        places, cosines = closest(queries, iter(gallery.split(size)), 5)
        assert places.tolist() == whole.tolist()
        assert (cosines.diff(dim=1) <= 0).all()


def test_score_counts_the_images_that_are_found(fitted_aligner, test_trials):
    expected = []
    for mouse in test_trials.mice:
        one = test_trials.sel(mouse_id=mouse)
        ids, first = np.unique(one.image_ids, return_index=True)
        similarity = fitted_aligner.similarity(one, one[first])
        expected.append(np.mean(ids[similarity.argmax(1)] == one.image_ids))
    assert fitted_aligner.score(test_trials) == pytest.approx(np.mean(expected))


# --------------------------------------------------------------------- as scikit-learn has them


def test_saved_pickled_and_cloned(tmp_path, fitted_aligner, test_trials):
    expected = fitted_aligner.transform_images(test_trials)
    fitted_aligner.save(tmp_path / "model")
    for again in (
        v1.DINAAligner.load(tmp_path / "model"),
        v1.load(tmp_path / "model"),
        pickle.loads(pickle.dumps(fitted_aligner)),
    ):
        assert np.array_equal(again.transform_images(test_trials), expected)
        assert again.history_ == fitted_aligner.history_
    assert clone(fitted_aligner).get_params() == fitted_aligner.get_params()
    with pytest.raises(NotFittedError):
        clone(fitted_aligner).transform_images(test_trials)


def test_a_training_goes_on(tmp_path, trials):
    whole = aligner(max_epochs=4).fit(trials)

    def killed(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        aligner(max_epochs=4).fit(trials, checkpoint_dir=tmp_path, on_epoch=killed)
    rest = aligner(max_epochs=4).fit(trials, checkpoint_dir=tmp_path)
    assert same(weights(whole), weights(rest))
    more = aligner(max_epochs=2, warm_start=True).fit(trials)
    assert len(more.fit(trials).history_) == 4


def test_searched(trials):
    one = trials.sel(mouse_id="A")
    search = GridSearchCV(aligner(max_epochs=1), {"temperature": [0.05, 0.1]}, cv=GroupKFold(2))
    search.fit(one, groups=one.image_ids)
    assert 0 <= search.best_score_ <= 1


@pytest.mark.parametrize(
    "options",
    [
        DSNET | {"image_size": (12, 16)},
        {"neural_tower": "attention", "map_scale": "minmax", "loss_weights": (1, 0.5, 0.5)},
        {"response_scale": "std", "micro_batch_size": 5, "learn_temperature": False},
        {"standardize": False, "validation_fraction": 0, "n_layers": 1},
    ],
)
def test_options_train(trials, options):
    est = aligner(**options).fit(trials)
    assert all(np.isfinite(record["loss"]) for record in est.history_)


def test_responses_may_be_negative():
    images, responses, shown = filtered(20)
    est = aligner(warm_start=True).fit(images, None, responses - 1, image_ids=shown)
    assert len(est.fit(images, None, responses - 1, image_ids=shown).history_) == 4


def test_towers_of_your_own(trials):
    class Plain(v1.nn.Core):
        def __init__(self, input_shape):
            super().__init__(input_shape)
            self.filters = torch.nn.Conv2d(input_shape[0], 2, 3)
            self.output_shape = (2, input_shape[1] - 2, input_shape[2] - 2)

        def forward(self, images, behaviors=None, sizes=None):
            return self.filters(images)

    class Linear(v1.nn.NeuralTower):
        def __init__(self, n_neurons, map_shape):
            super().__init__(n_neurons, map_shape)
            self.weights = torch.nn.Linear(n_neurons, int(np.prod(map_shape)))

        def forward(self, responses):
            return self.weights(responses).unflatten(1, self.map_shape)

    est = aligner(image_tower=Plain, neural_tower=Linear).fit(trials)
    assert est.map_shape_ == (2, 10, 14)
    with pytest.raises(TypeError, match=r"expected a v1tlearn\.nn\.Core"):
        aligner(image_tower=lambda shape: torch.nn.Identity()).fit(trials)
    with pytest.raises(TypeError, match=r"expected a v1tlearn\.nn\.NeuralTower"):
        aligner(neural_tower=lambda n, shape: torch.nn.Identity()).fit(trials)


# -------------------------------------------------------------------------------- what goes wrong


def test_responses_that_were_not_recorded_count_as_the_mean(fitted_aligner, test_trials):
    responses = np.array(test_trials.responses.get("A"))
    gaps = copy.deepcopy(responses)
    gaps[:, 2] = np.nan
    filled = copy.deepcopy(responses)
    filled[:, 2] = fitted_aligner.statistics_["A"]["response_mean"][2]
    maps = fitted_aligner.transform_responses({"A": gaps})
    assert np.allclose(maps, fitted_aligner.transform_responses({"A": filled}), atol=1e-5)


def test_bad_input_is_refused(fitted_aligner, trials, test_trials):
    images, responses, _ = filtered(8)
    alone = images[:1].repeat(8, 0), None, responses[:8]
    with pytest.raises(ValueError, match="all trials show one image"):
        aligner(validation_fraction=0).fit(*alone)
    with pytest.raises(ValueError, match="cannot be split by image"):
        aligner().fit(*alone)
    with pytest.raises(ValueError, match=r"the validation trials .* validation_fraction=0"):
        aligner().fit(images, None, responses)
    with pytest.raises(ValueError, match="is silent"):
        aligner().fit(images, None, 0 * responses)
    one = test_trials.sel(mouse_id="A")
    with pytest.raises(ValueError, match="all trials show one image"):
        fitted_aligner.score(one[one.image_ids == one.image_ids[0]])
    with pytest.raises(ValueError, match="the gallery has 3 images"):
        fitted_aligner.retrieve(one, one[:3], k=4)
    with pytest.raises(ValueError, match="from 1 on"):
        fitted_aligner.retrieve(one, one, k=0)
    with pytest.raises(ValueError, match="mouse_ids is missing"):
        fitted_aligner.transform_responses(np.ones((2, 5)))
    with pytest.raises(ValueError, match=r"expected \(trials, 5 neurons\)"):
        fitted_aligner.transform_responses(np.ones((2, 4)), "A")
    with pytest.raises(ValueError, match="unknown mouse 'C'"):
        fitted_aligner.transform_responses({"C": np.ones((2, 4))})
    with pytest.raises(ValueError, match="stimuli have the shape"):
        fitted_aligner.transform_images(np.ones((3, 1, 5, 5), np.uint8))
    with pytest.raises(ValueError, match="only 'dsnet' and 'pretrained' have a projection"):
        aligner(train_image_tower="projection").fit(trials)
    for weights in ((1, 2), (0, 0, 0), (np.inf, 0, 0), (1, -1, 0), ("1", 0, 0)):
        with pytest.raises(ValueError, match="expected three finite numbers"):
            aligner(loss_weights=weights).fit(trials)
    with pytest.raises(ValueError, match="compares the trials of a batch, and is 0 for one"):
        aligner(batch_size=1).fit(trials)
    with pytest.raises(ValueError, match="makes 0 of each channel of one cell"):
        aligner(map_size=(1, 1)).fit(trials)
    with pytest.raises(ValueError, match="expected two whole numbers"):
        aligner(map_size=(4,)).fit(trials)


def test_what_needs_no_other_trial_and_no_layout_is_learned_all_the_same():
    images, responses, _ = filtered(30)
    for parameters in (
        {"batch_size": 1, "loss_weights": (0, 1, 0), "map_scale": "none"},
        {"map_size": (1, 1), "map_scale": "none", "map_channels": 4},
    ):
        first = aligner(max_epochs=1, keep="last", **parameters).fit(images, None, responses)
        assert 0 < first.partial_fit(images, None, responses).history_[-1]["loss"] < np.inf


@pytest.mark.parametrize("how", ["minmax", "std"])
def test_a_neuron_that_never_varied_tells_nothing_later(how):
    images, responses, shown = filtered(30)
    responses[:, 3] = 2
    est = aligner(response_scale=how).fit(images, None, responses, image_ids=shown)
    later = responses.copy()
    later[:, 3] = np.arange(len(later))
    assert np.array_equal(est.transform_responses(later), est.transform_responses(responses))


def test_both_towers_compute_in_the_precision_that_was_asked_for():
    images, responses, shown = filtered(30)
    est = aligner().fit(images, None, responses, image_ids=shown)
    fine = est.transform_images(images), est.transform_responses(responses)
    est.set_params(precision="bfloat16")
    coarse = est.transform_images(images), est.transform_responses(responses)
    for first, second in zip(fine, coarse, strict=True):
        error = float(np.abs(first - second).max() / np.abs(first).max())
        assert 1e-5 < error < 0.05


def test_constant_maps_and_silent_neurons_are_defined():
    images, responses, _ = filtered(20)
    responses[:, 0] = 0
    est = aligner().fit(images, None, responses)
    flat = est.transform_responses(np.zeros_like(responses))
    assert np.isfinite(flat).all()
    grey = np.full((4, *images.shape[1:]), 128, np.uint8)
    assert np.isfinite(est.similarity(responses, grey)).all()


@pytest.mark.parametrize("response_scale", ["minmax", "std"])
def test_neurons_that_vary_by_rounding_only_tell_nothing(response_scale):
    images, responses, _ = filtered(20)
    odd = np.arange(len(responses)) % 2
    responses[:, 0] = 100 * (1 + np.finfo(np.float32).eps * odd)
    est = aligner(response_scale=response_scale, max_epochs=1).fit(images, None, responses)
    other = responses.copy()
    other[:, 0] = responses[::-1, 0]
    found, expected = est.transform_responses(other), est.transform_responses(responses)
    np.testing.assert_array_equal(found, expected)

"""Rollout of estimators: the published fixtures, matrix products by hand, and known attention."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from v1tlearn.inspection import attention_rollout
from v1tlearn.interop import load_v1t

REFERENCE = Path(__file__).parents[2] / "reference"


@pytest.mark.parametrize("name", ["v1t", "vit", "v1t_lsa_crop"])
def test_published_maps(name):
    io = np.load(REFERENCE / name / "io.npz")
    statistics = {
        mouse: {
            kind: (io[f"{mouse}/stats/{kind}/mean"], io[f"{mouse}/stats/{kind}/std"])
            for kind in ("image", "behavior", "pupil", "response")
        }
        for mouse in "AB"
    }
    model = load_v1t(REFERENCE / name, statistics)
    trials = v1.Trials.from_arrays(
        {mouse: io[f"{mouse}/images"] for mouse in "AB"},
        {mouse: np.c_[io[f"{mouse}/behavior"], io[f"{mouse}/pupil_center"]] for mouse in "AB"},
    )
    found = attention_rollout(model, trials, head_reduction="max")
    expected = np.load(REFERENCE / name / "rollout.npz")
    for mouse, maps in found.items():
        reference = expected[f"{mouse}/attention_rollout_max"]
        assert maps.shape == reference.shape
        assert np.abs(maps - reference).max() <= 1e-4 * np.abs(reference).max()
        other = attention_rollout(model, trials.sel(mouse_id=mouse))[mouse]
        assert np.abs(other - reference).max() > 1e-2  # the mean over heads is another map


def by_hand(model, trials, mouse, head_reduction="mean"):
    """Products of whole matrices in float64, of images that are prepared by hand; and rounding.

    Scaling a map to its lowest and highest value enlarges what float32 rounds.
    """
    core, statistics = model.module_.core, model.statistics_[mouse]
    images = trials.get("stimuli", mouse).astype(np.float32)
    images = torch.from_numpy((images - statistics["image_mean"]) / statistics["image_std"]).float()
    images = v1.nn.center_crop(images, model.crop_scale)
    size = core.input_shape[1:]
    if images.shape[-2:] != size:
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    behaviors, sizes = None, [(mouse, len(images))]
    if model.core_columns_:
        names = trials.behavior_names(mouse)
        raw = trials.get("behaviors", mouse).astype(float)
        shift, scale = (statistics[f"behavior_{kind}"] for kind in ("shift", "scale"))
        scaled = ((raw - shift) / scale)[:, [names.index(c) for c in model.core_columns_]]
        behaviors = torch.from_numpy(scaled).float()
    if model.behavior_mode_ == "channels":
        planes = behaviors[:, :, None, None].expand(-1, -1, *size)
        images, behaviors = torch.cat((images, planes), 1), None
    weights = v1.nn.attention_weights(core, images, behaviors, sizes).double().numpy()
    maps, enlarged = [], 0.0
    for of_image in weights:
        product = np.eye(of_image.shape[-1])
        for block in of_image:
            reduced = block.mean(0) if head_reduction == "mean" else block.max(0)
            step = reduced + np.eye(len(reduced))
            product = step / step.sum(1, keepdims=True) @ product
        row = product.mean(0) if core.class_token is None else product[0, 1:]
        scaled = (row - row.min()) / (row.max() - row.min())
        maps.append(scaled.reshape(core.grid))
        enlarged = max(enlarged, row.max() / (row.max() - row.min()))
    maps = torch.from_numpy(np.stack(maps))[:, None]
    maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[:, 0]
    return maps.numpy(), 32 * enlarged * np.finfo(np.float32).eps


@pytest.mark.parametrize("head_reduction", ["mean", "max"])
@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (v1.V1TRegressor, {}),
        (v1.V1TRegressor, {"tokenizer": "spt", "attention": "lsa"}),
        (v1.V1TRegressor, {"tokenizer": "cct", "behavior_mode": "b_mlp_first_block"}),
        (v1.V1TRegressor, {"tokenizer": "conv", "behavior_mode": "b_mlp_per_mouse"}),
        (v1.V1TRegressor, {"crop_scale": 0.8, "image_size": (8, 12)}),
        (v1.ViTRegressor, {"tokenizer": "dual_norm"}),
        (v1.ViTRegressor, {"behavior_mode": "none"}),
    ],
)
def test_products_of_whole_matrices(fit, trials, kind, params, head_reduction):
    model, test = fit(kind, **params), trials.sel(tier="test")
    found = attention_rollout(model, test, head_reduction=head_reduction)
    assert list(found) == ["A", "B"]
    for mouse, maps in found.items():
        expected, rounding = by_hand(model, test, mouse, head_reduction)
        assert expected.std() > 0.05  # numbers that could be wrong
        assert rounding < 5e-3
        np.testing.assert_allclose(maps.values, expected, rtol=0, atol=rounding)


def test_labels(fit, trials):
    test = trials.sel(tier="test")[::-1]
    maps = attention_rollout(fit(), test)["B"]
    assert maps.dims == ("trial", "height", "width")
    assert maps.dtype == np.float32
    own = test.rows("B")[0]
    assert maps["image_id"].values.tolist() == test.image_ids[own].tolist()
    assert set(maps["tier"].values) == {"test"}
    assert maps["trial_id"].values.tolist() == test["B"]["trial_id"].values.tolist()
    assert maps.attrs["mouse_id"] == "B"
    assert maps.attrs["image_size"] == [12, 16]
    assert (maps.min(("height", "width")) == 0).sum() <= len(maps)
    assert float(maps.min()) >= 0
    assert float(maps.max()) <= 1


def test_maps_of_crops_are_where_the_crop_is(fit, trials):
    test = trials.sel(tier="test")
    maps = attention_rollout(fit(crop_scale=0.75, image_size=(9, 12)), test)["A"]
    # 9 of 12 rows and 12 of 16 columns are kept, around the middle of the image
    for dim, side, kept in (("height", 12, 9), ("width", 16, 12)):
        at = maps[dim].values
        assert len(at) == kept
        assert at[0] > 0
        assert at[-1] < side - 1
        assert abs((at[0] + at[-1]) / 2 - (side - 1) / 2) <= 0.5
    whole = attention_rollout(fit(), test)["A"]
    assert whole["height"].values.tolist() == list(range(12))


def test_crops_that_move_with_the_eye_tell_by_how_much(fit, trials):
    model, test = (
        fit(shift="stimulus", crop_scale=0.75, image_size=(9, 12)),
        trials.sel(tier="test"),
    )
    maps = attention_rollout(model, test)["A"]
    statistics = model.statistics_["A"]
    pupil = test["A"]["behaviors"].values[:, 3:].astype(float)
    pupil = (pupil - statistics["behavior_shift"][3:]) / statistics["behavior_scale"][3:]
    with torch.no_grad():
        shift = model.module_.cropper.shifter("A")(torch.from_numpy(pupil).float()).numpy()
    assert np.ptp(shift) > 1e-3
    np.testing.assert_allclose(maps["moved_x"], shift[:, 0] * 7.5, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(maps["moved_y"], shift[:, 1] * 5.5, rtol=1e-4, atol=1e-6)
    assert "moved_x" not in attention_rollout(fit(), test)["A"].coords


def test_true_centres_of_overlapping_patches(fit, trials):
    """Patches of 4 pixels, 3 apart, have their centres at 1.5, 4.5, ...; between them is a line."""
    model, test = fit(), trials.sel(tier="test", mouse_id="A")
    rows, columns = model.module_.core.grid
    stretched = attention_rollout(model, test)["A"].values
    placed = attention_rollout(model, test, placement="centers")["A"].values
    assert not np.allclose(placed, stretched)
    exact = by_hand_patches(model, test)
    y, x = (np.arange(12).clip(1.5, 1.5 + 3 * (rows - 1)), np.arange(16))
    x = x.clip(1.5, 1.5 + 3 * (columns - 1))
    for one, patches in zip(placed, exact, strict=True):
        across = np.array([np.interp(x, 1.5 + 3 * np.arange(columns), row) for row in patches])
        expected = np.array([np.interp(y, 1.5 + 3 * np.arange(rows), c) for c in across.T]).T
        np.testing.assert_allclose(one, expected, atol=2e-4)


def by_hand_patches(model, trials):
    """Maps on the grid itself: where patches tile, interpolation to the grid gives it back."""
    core = model.module_.core
    images = trials.get("stimuli", "A").astype(np.float32)
    statistics = model.statistics_["A"]
    images = torch.from_numpy((images - statistics["image_mean"]) / statistics["image_std"]).float()
    raw = trials.get("behaviors", "A").astype(float)
    shift, scale = (statistics[f"behavior_{kind}"] for kind in ("shift", "scale"))
    behaviors = torch.from_numpy((raw - shift) / scale).float()
    return v1.nn.attention_rollout(core, images, behaviors, image_size=core.grid).numpy()


def test_patches_that_tile_are_placed_alike(fit, trials):
    model, test = fit(patch_stride=4), trials.sel(tier="test")
    one, two = (attention_rollout(model, test, placement=p)["B"] for p in ("stretched", "centers"))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_few_weights_at_a_time_change_rounding_only(fit, trials):
    model, test = fit(behavior_mode="b_mlp_per_mouse"), trials.sel(tier="test")
    whole = attention_rollout(model, test)
    with v1.nn.fast.using("auto", parts=1e-6):
        for mouse, maps in attention_rollout(model, test).items():
            np.testing.assert_allclose(maps, whole[mouse], rtol=0, atol=1e-4)


def test_behavior_reaches_the_maps_where_the_core_takes_it(fit, trials):
    test = trials.sel(tier="test")
    order = np.argsort(test.image_ids, kind="stable")
    repeats = test[order].sel(mouse_id="A")
    same = np.diff(np.unique(repeats.image_ids, return_inverse=True)[1]) == 0
    blind = attention_rollout(fit(behavior_mode="none"), repeats)["A"].values
    assert np.abs(np.diff(blind, axis=0)[same]).max() < 1e-5
    seeing = attention_rollout(fit(), repeats)["A"].values
    assert np.abs(np.diff(seeing, axis=0)[same]).max() > 1e-3


def test_a_pipeline_prepares_trials(trials):
    from tests.inspection.attention.conftest import SMALL

    train, test = trials.sel(tier="train"), trials.sel(tier="test")
    step = v1.TrialStandardizer()
    inside = v1.V1TRegressor(**SMALL, standardize=False)
    pipeline = make_pipeline(step, inside).fit(train, train.responses)
    whole = attention_rollout(pipeline, test)
    alone = attention_rollout(pipeline[-1], pipeline[:-1].transform(test))
    for mouse, maps in whole.items():
        np.testing.assert_array_equal(maps, alone[mouse])


def test_a_core_of_ones_own_offers_its_weights(looking, trials):
    maps = attention_rollout(looking, trials.sel(tier="test"))["A"]
    assert maps.shape == (16, 12, 16)
    statistics = looking.statistics_["A"]
    pupil = trials.sel(tier="test")["A"]["behaviors"].values[:, 3:]
    pupil = (pupil - statistics["behavior_shift"][3:]) / statistics["behavior_scale"][3:]
    inside = np.abs(pupil) < 2
    place = maps.stack(pixel=("height", "width")).argmax("pixel").values
    peak = np.stack((place % 16, place // 16), 1)
    expected = np.array([7.5, 5.5]) + 2 * pupil  # patches of 2 pixels
    assert inside.any(1).sum() > 10
    assert np.abs(peak - expected)[inside].max() <= 1.5


class Wrong(v1.nn.Core):
    """Offers weights of too few tokens, or none."""

    def __init__(self, input_shape, n_tokens=3):
        super().__init__(input_shape)
        self.grid, self.output_shape, self.n_tokens = (3, 4), (1, *self.input_shape[1:]), n_tokens
        self.mix = torch.nn.Conv2d(self.input_shape[0], 1, 1)

    def forward(self, images, behaviors=None, sizes=None):
        return self.mix(images)

    def attention_by_block(self, images, behaviors=None, sizes=None):
        if self.n_tokens:
            yield images.new_ones(len(images), 1, self.n_tokens, self.n_tokens)


@pytest.mark.parametrize(("n_tokens", "told"), [(3, "at least 12 tokens"), (0, "gave no weights")])
def test_weights_that_do_not_fit_are_refused(trials, n_tokens, told):
    from functools import partial

    model = v1.EncodingRegressor(
        core=partial(Wrong, n_tokens=n_tokens), max_epochs=1, random_state=0, device="cpu"
    )
    with pytest.raises(ValueError, match=told):
        attention_rollout(model.fit(trials.sel(tier="train")), trials.sel(tier="test"))


def test_models_without_attention_say_so(trials):
    train, test = trials.sel(tier="train"), trials.sel(tier="test")
    small = {"n_layers": 2, "hidden_channels": 2, "input_kernel": 5, "max_epochs": 1}
    cnn = v1.CNNRegressor(**small, random_state=0, device="cpu").fit(train)
    with pytest.raises(TypeError, match="Stacked2dCore, has no attention: expected a transformer"):
        attention_rollout(cnn, test)
    own = v1.EncodingRegressor(core=v1.nn.Stacked2dCore, max_epochs=1, device="cpu").fit(train)
    with pytest.raises(TypeError, match="attention_by_block and an attribute grid"):
        attention_rollout(own, test)


def test_errors_say_what_to_do(fit, trials):
    test, model = trials.sel(tier="test"), fit()
    with pytest.raises(ValueError, match="head_reduction='min': expected one of"):
        attention_rollout(model, test, head_reduction="min")
    with pytest.raises(ValueError, match="placement='true': expected one of"):
        attention_rollout(model, test, placement="true")
    with pytest.raises(TypeError, match="trials is a ndarray: expected Trials"):
        attention_rollout(model, test.get("stimuli", "A"))
    with pytest.raises(ValueError, match="at least one trial"):
        attention_rollout(model, test[:0])
    with pytest.raises(TypeError, match="the class V1TRegressor came"):
        attention_rollout(v1.V1TRegressor, test)
    with pytest.raises(TypeError, match=r"EnsembleRegressor came.*estimators_"):
        attention_rollout(v1.EnsembleRegressor(model), test)
    with pytest.raises(NotFittedError):
        attention_rollout(v1.V1TRegressor(), test)

"""Pretrained transformers as image towers of alignments: training, caching, keeping."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file
from sklearn.base import clone

import v1tlearn as v1
from tests.backbones import DINOV2, random_backbone
from tests.sweeps import quick
from v1tlearn import nn
from v1tlearn.nn import BackboneError

TINY = {"image_tower": "pretrained", "block": 1, "map_size": (4, 6), "map_channels": 3}
TINY |= {"hidden_units": (12,), "neural_channels": 4, "max_epochs": 2, "random_state": 0}
TINY |= {"device": "cpu", "batch_size": 16}


@pytest.fixture(scope="module")
def trials(views):
    return views.sel(tier="train")


def random(**options):
    return v1.DINAAligner(**TINY | {"backbone": DINOV2, "weights": None} | options)


def tower_weights(est):
    return {name: w.clone() for name, w in est.module_.core.named_parameters()}


def maps(est, trials):
    return est.transform_images(trials).values


# -------------------------------------------------------------------------------- what is trained


@pytest.mark.parametrize("wanted", ["auto", True, False, "projection"])
def test_gradients_reach_what_is_trained_and_nothing_else(trials, wanted):
    est = random(train_image_tower=wanted, max_epochs=1, feature_cache=None).fit(trials)
    tower = est.module_.core.train()
    images = torch.randn(3, *tower.input_shape)
    weights = torch.randn(3, *tower.output_shape)
    out = tower(images)
    if out.requires_grad:
        (out * weights).sum().backward()
    reached = {n for n, p in tower.named_parameters() if p.grad is not None and p.grad.any()}
    every = {name for name, _ in tower.named_parameters()}
    projection = {"project.weight", "project.bias"}
    if wanted is True:
        of_keys = {n for n in every if n.endswith(("key.bias", "k_proj.bias"))}  # noise
        unread = {n for n in every if n.endswith("mask_token")}  # of masked training alone
        assert reached | of_keys == every - unread
    else:
        assert reached == (set() if wanted is False else projection)


@pytest.mark.parametrize("wanted", [True, False, "projection"])
def test_fits_move_what_is_trained_and_nothing_else(trials, wanted):
    with pytest.warns(UserWarning, match="not trained"):
        before = tower_weights(random(train_image_tower=wanted, max_epochs=0).fit(trials))
    after = tower_weights(random(train_image_tower=wanted, core_lr=1e-3).fit(trials))
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    if wanted is True:
        assert {"project.weight", "features.backbone.model.layernorm.weight"} & moved
        assert any("layer.0." in name for name in moved)
    else:
        assert moved - {"project.bias"} == (set() if wanted is False else {"project.weight"})


def test_the_backbone_has_its_own_learning_rate_and_weight_decay(trials):
    est = random(train_image_tower=True, fine_tune=1, core_lr=1e-4, core_weight_decay=0.3)
    image, neural = est.set_params(image_lr=2e-3).fit(trials).state_["optimizer"]
    backbone, projection = image["param_groups"]
    assert (backbone["lr"], backbone["weight_decay"]) == (1e-4, 0.3)
    assert (projection["lr"], projection["weight_decay"]) == (2e-3, 5e-5)
    assert len(projection["params"]) == 2
    assert neural["param_groups"][0]["lr"] == 3e-4
    trained = {n for n, p in est.module_.core.named_parameters() if p.requires_grad}
    assert {name for name in trained if "backbone" in name} == {
        name for name in trained if "layer.1." in name
    }


def test_a_frozen_fit_goes_on_fine_tuned(folder, trials):
    est = v1.DINAAligner(backbone=folder, warm_start=True, **TINY).fit(trials)
    frozen = tower_weights(est)
    est.set_params(train_image_tower=True, core_lr=1e-3).fit(trials)
    assert len(est.history_) == 4
    now = tower_weights(est)
    assert not torch.equal(now["project.weight"], frozen["project.weight"])
    distance = (now["project.weight"] - frozen["project.weight"]).abs().max()
    assert distance < 0.1  # it went on, and did not begin anew
    assert any("layer.0." in n and not torch.equal(now[n], frozen[n]) for n in now)


# -------------------------------------------------------------------------------------- the maps


def test_maps_are_projected_tokens(trials):
    est = random(map_scale="none", map_size=(2, 3), standardize=False).fit(trials)
    tower, stimuli = est.module_.core, trials.get("stimuli", "A")
    with torch.no_grad():
        tokens = tower.features(torch.from_numpy(stimuli).float())
        expected = torch.einsum("mc,bchw->bmhw", tower.project.weight[..., 0, 0], tokens)
        expected += tower.project.bias[:, None, None]
    np.testing.assert_allclose(maps(est, stimuli), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "grid"),
    [
        ({"upsample": 2}, (4, 6)),
        ({"patch_stride": 7}, (3, 5)),
        ({"crop_columns": "left_half", "image_size": (28, 28)}, (2, 2)),
        ({"crop_columns": (0, 28)}, (2, 2)),
        ({"tokens": "both", "normalize": "layer", "pixel_scaling": "recording"}, (2, 3)),
        ({"block": [0, 1]}, (2, 3)),
    ],
)
def test_images_and_tokens_are_read_as_by_the_encoding_model(trials, options, grid):
    est = random(**options, max_epochs=1).fit(trials)
    other = v1.PretrainedViTRegressor(
        DINOV2, weights=None, random_state=0, max_epochs=1, space_init=0.3, **{"block": 1} | options
    ).fit(trials)
    assert est.module_.core.features.output_shape == other.module_.core.output_shape
    assert est.module_.core.features.grid == grid
    assert maps(est, trials).shape[1:] == est.map_shape_ == (3, 4, 6)


# ------------------------------------------------------------------------------------- the cache


@pytest.mark.parametrize("where", quick(["auto", "device", "memory", "folder"], 3))
@pytest.mark.parametrize("wanted", [False, "projection"])
def test_features_are_kept_and_change_nothing(trials, wanted, where, tmp_path):
    place = tmp_path if where == "folder" else where
    est = random(train_image_tower=wanted, feature_cache=place).fit(trials)
    anew = random(train_image_tower=wanted, feature_cache=None).fit(trials)
    for ours, theirs in zip(est.history_, anew.history_, strict=True):
        for name in ("loss", "validation_loss", "validation_top1"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)
    np.testing.assert_allclose(maps(est, trials), maps(anew, trials), atol=1e-4)
    assert bool(list(tmp_path.rglob("*.features"))) == (where == "folder")


def test_a_folder_of_features_serves_encoding_models_and_alignments(trials, tmp_path):
    v1.PretrainedViTRegressor(
        DINOV2, weights=None, block=1, max_epochs=1, random_state=0, feature_cache=tmp_path
    ).set_params(space_init=0.3).fit(trials)
    kept = list(tmp_path.rglob("*.features"))
    random(feature_cache=tmp_path).fit(trials)
    assert list(tmp_path.rglob("*.features")) == kept


def test_small_batches_of_towers_give_the_same_training(trials):
    whole, parts = random().fit(trials), random(micro_batch_size=5).fit(trials)
    np.testing.assert_allclose(maps(whole, trials), maps(parts, trials), atol=1e-4)


# ----------------------------------------------------------------------------------- how it is kept


def test_frozen_weights_are_kept_by_name_and_checksum(folder, trials, tmp_path):
    est = v1.DINAAligner(backbone=folder, **TINY).fit(trials)
    est.save(tmp_path / "model")
    weights = load(next((tmp_path / "model").glob("*.safetensors")).read_bytes())
    assert not any("backbone" in name for name in weights)
    for again in (v1.load(tmp_path / "model"), pickle.loads(pickle.dumps(est))):
        np.testing.assert_array_equal(maps(again, trials), maps(est, trials))
    file = folder / "model.safetensors"
    tensors = load(file.read_bytes())
    (name,) = [n for n in tensors if n.endswith("layer.0.norm1.weight")]
    save_file({**tensors, name: tensors[name] + 1e-6}, file, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="their checksum differs"):
        v1.load(tmp_path / "model")
    shutil.rmtree(folder)
    with pytest.raises(BackboneError, match="is not there: bring it back"):
        v1.load(tmp_path / "model")


def test_fine_tuned_weights_are_kept(folder, trials, tmp_path):
    est = v1.DINAAligner(backbone=folder, train_image_tower=True, core_lr=1e-3, **TINY)
    est.fit(trials).save(tmp_path / "model")
    np.testing.assert_array_equal(maps(v1.load(tmp_path / "model"), trials), maps(est, trials))


@pytest.mark.parametrize("wanted", ["auto", True])
def test_a_checkpoint_goes_on_to_the_same_model(folder, trials, tmp_path, wanted):
    def stop(record):
        raise KeyboardInterrupt

    def make():
        return v1.DINAAligner(backbone=folder, train_image_tower=wanted, **TINY)

    whole = make().fit(trials)
    with pytest.raises(KeyboardInterrupt):
        make().fit(trials, on_epoch=stop, checkpoint_dir=tmp_path / "states")
    resumed = make().fit(trials, checkpoint_dir=tmp_path / "states")
    np.testing.assert_array_equal(maps(whole, trials), maps(resumed, trials))


def test_a_module_is_copied_and_pickled_but_not_saved(trials, tmp_path):
    model = random_backbone(DINOV2)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    est = v1.DINAAligner(backbone=model, train_image_tower=True, core_lr=0.01, **TINY).fit(trials)
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())
    again = pickle.loads(pickle.dumps(est))
    np.testing.assert_array_equal(maps(again, trials), maps(est, trials))
    with pytest.raises(TypeError, match=r"backbone.*pickle the model"):
        est.save(tmp_path / "model")
    assert isinstance(clone(est).backbone, torch.nn.Module)


# ---------------------------------------------------------------------------------------- refusals


def test_what_cannot_be_a_tower_is_refused(trials):
    with pytest.raises(ValueError, match="needs a backbone"):
        v1.DINAAligner(image_tower="pretrained").fit(trials)
    with pytest.warns(UserWarning, match="backbone has no effect with image_tower='cnn'"):
        v1.DINAAligner(backbone=DINOV2, max_epochs=1, n_layers=1, batch_size=16).fit(trials)
    with pytest.raises(ValueError, match="'tokens' parameter"):
        random(tokens="cls").fit(trials)
    with pytest.raises(BackboneError, match="height 28 or 42, width 28 or 42"):
        random(image_size=(30, 40)).fit(trials)
    with pytest.raises(BackboneError, match=r"block=7, .* choose from 0 to 2"):
        random(block=7).fit(trials)
    core = nn.PretrainedViTCore((1, 28, 42), random_backbone(DINOV2), block=1, tokens="cls")
    with pytest.raises(ValueError, match="have no place in the image"):
        nn.PretrainedTower(core)

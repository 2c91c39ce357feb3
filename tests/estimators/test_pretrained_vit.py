"""Pretrained transformers as cores of estimators: loading, caching, fine-tuning, keeping."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from torch.nn.modules.module import register_module_forward_pre_hook

import v1tlearn as v1
from tests.backbones import DINOV2, DINOV3, random_backbone
from tests.sweeps import quick
from v1tlearn.nn import BackboneError, PretrainedViTCore

ROOT = Path(__file__).parents[2]
QUICK = {"block": 1, "lr": 0.01, "space_init": 0.3, "max_epochs": 2, "random_state": 0}
GAUSSIAN = {"readout": "gaussian", "space_init": 0.01}


@pytest.fixture(scope="module")
def trials(views):
    return views


@pytest.fixture(scope="module")
def train(trials):
    return trials.sel(tier="train")


@contextmanager
def ahead_of_the_core(do):
    """Call a function with the images that are about to go through any core."""

    def hook(module, args):
        if isinstance(module, PretrainedViTCore):
            do(args[0])

    handle = register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.fixture
def images_seen():
    """How many images went through the core."""
    counts = []
    with ahead_of_the_core(lambda images: counts.append(len(images))):
        yield counts


def random(**options):
    return v1.PretrainedViTRegressor(DINOV2, weights=None, **{**QUICK, **options})


def reconfigured(folder, **change):
    """Change the configuration of a backbone, and leave its weights."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


def predicted(est, trials):
    return np.concatenate([est.predict(trials)[m].values for m in est.mice_], axis=1)


# ------------------------------------------------------------------------------------- the cache


@pytest.mark.parametrize("where", quick(["auto", "device", "memory", "folder"], 3))
def test_features_are_computed_once_and_change_nothing(where, train, tmp_path, images_seen):
    place = tmp_path if where == "folder" else where
    est = random(feature_cache=place).fit(train)
    assert sum(images_seen) == n_images(train)
    images_seen.clear()
    anew = random(feature_cache=None).fit(train)
    assert sum(images_seen) > 2 * len(train)
    for ours, theirs in zip(est.history_, anew.history_, strict=True):
        for name in ("loss", "penalty", "validation_loss", "validation_correlation"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(predicted(est, train), predicted(anew, train), rtol=1e-4)


def test_repeated_images_are_computed_once(trials, images_seen):
    test = trials.sel(tier="test")
    stimuli = np.concatenate([np.asarray(test["A"].stimuli)] * 2)
    responses = np.concatenate([np.asarray(test["A"].responses)] * 2)
    random(validation_fraction=0).fit(stimuli, responses=responses)
    assert sum(images_seen) == 4


def n_images(trials):
    """How many there are, those that mice share once."""
    images = np.concatenate([np.asarray(trials[mouse].stimuli) for mouse in trials.mice])
    return len(np.unique(images, axis=0))


def files_in(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_folder_serves_later_fits_of_the_same_weights_and_images(train, tmp_path, images_seen):
    first = random(feature_cache=tmp_path).fit(train)
    images_seen.clear()
    again = random(feature_cache=str(tmp_path), **GAUSSIAN).fit(train)
    assert not images_seen  # what was kept is enough
    assert len(files_in(tmp_path)) == 1
    assert predicted(first, train).shape == predicted(again, train).shape
    images_seen.clear()
    for change in ({"block": 0}, {"normalize": "layer"}, {"pixel_scaling": "recording"}):
        random(feature_cache=tmp_path, **change).fit(train)
    random(feature_cache=tmp_path, random_state=1, validation_fraction=0).fit(train)
    other = {**DINOV2, "num_attention_heads": 4}  # whose weights are the same
    v1.PretrainedViTRegressor(other, weights=None, feature_cache=tmp_path, **QUICK).fit(train)
    assert sum(images_seen) == 4 * n_images(train) + len(train)  # statistics differ between mice
    assert len(files_in(tmp_path)) == 6


@pytest.mark.parametrize("change", [{"num_attention_heads": 4}, {"hidden_act": "relu"}])
def test_features_of_another_configuration_with_the_same_weights_are_not_taken(
    change, folder, train, tmp_path, images_seen
):
    cache = tmp_path / "features"
    cache.mkdir()
    v1.PretrainedViTRegressor(folder, feature_cache=cache, **QUICK).fit(train)
    reconfigured(folder, **change)
    images_seen.clear()
    est = v1.PretrainedViTRegressor(folder, feature_cache=cache, **QUICK).fit(train)
    assert sum(images_seen) == n_images(train)
    anew = v1.PretrainedViTRegressor(folder, feature_cache="memory", **QUICK).fit(train)
    np.testing.assert_array_equal(predicted(est, train), predicted(anew, train))


@pytest.mark.slow
def test_a_folder_serves_other_subsets_and_folds(train, tmp_path, images_seen):
    some, more = train.sel(mouse_id="A"), train
    random(feature_cache=tmp_path).fit(some)
    kept = {path: path.read_bytes() for path in files_in(tmp_path)}
    images_seen.clear()
    est = random(feature_cache=tmp_path).fit(more)
    assert sum(images_seen) == n_images(more) - n_images(some)  # what is new alone
    assert all(path.read_bytes() == kept[path] for path in kept)
    assert len(files_in(tmp_path)) == 2
    sizes = [path.stat().st_size for path in files_in(tmp_path)]
    assert sum(sizes) < (4 * 32 * 6 + 16) * n_images(more) + 1000
    images_seen.clear()
    anew = random(feature_cache=None).fit(more)
    np.testing.assert_allclose(predicted(est, more), predicted(anew, more), rtol=1e-4)

    for rows, _ in GroupKFold(3).split(more, groups=more.image_ids):
        random(feature_cache=tmp_path, max_epochs=1).fit(more[rows])  # of statistics of their own
    assert len(files_in(tmp_path)) == 2
    random(feature_cache=tmp_path, pixel_scaling="recording").fit(some)
    random(feature_cache=tmp_path, pixel_scaling="recording").fit(some[::2])
    assert len(files_in(tmp_path)) == 4  # statistics that count are told apart


def test_fits_may_add_to_a_folder_at_the_same_time(train, tmp_path):
    others = []

    def interrupted(images):
        if not others and len(files_in(tmp_path)) == 1:  # while the first fit writes
            others.append(None)
            others[0] = random(feature_cache=tmp_path).fit(train[::2])

    with ahead_of_the_core(interrupted):
        est = random(feature_cache=tmp_path).fit(train)
    assert len(files_in(tmp_path)) == 2
    for fitted, trials in ((est, train), (others[0], train[::2])):
        anew = random(feature_cache=None).fit(trials)
        np.testing.assert_allclose(predicted(fitted, train), predicted(anew, train), rtol=1e-4)


def test_a_fit_that_is_stopped_leaves_no_features(train, tmp_path, images_seen):
    def stopped(images):
        if files_in(tmp_path):
            raise KeyboardInterrupt

    with ahead_of_the_core(stopped), pytest.raises(KeyboardInterrupt):
        random(feature_cache=tmp_path).fit(train)
    assert not files_in(tmp_path)
    images_seen.clear()
    random(feature_cache=tmp_path).fit(train)
    assert sum(images_seen) == n_images(train)


@pytest.mark.parametrize("kept", quick([0, 10, 0.5], 1))
def test_a_damaged_file_of_features_is_replaced(kept, train, tmp_path, images_seen):
    some = train.sel(mouse_id="A")
    random(feature_cache=tmp_path).fit(some)
    (sound,) = files_in(tmp_path)
    est = random(feature_cache=tmp_path).fit(train)
    (file,) = set(files_in(tmp_path)) - {sound}
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else kept])
    images_seen.clear()
    with pytest.warns(UserWarning, match="are damaged .* computed anew"):
        again = random(feature_cache=tmp_path).fit(train)
    assert sum(images_seen) == n_images(train) - n_images(some)
    assert file.read_bytes() == whole
    np.testing.assert_array_equal(predicted(est, train), predicted(again, train))
    file.write_bytes(whole[:-1])
    with pytest.warns(UserWarning, match="are damaged .* computed anew"):
        random(feature_cache=tmp_path).fit(some)
    assert files_in(tmp_path) == [sound]


def test_features_on_the_device_lie_there_once(train):
    kept = []

    class Noting(v1.PretrainedViTRegressor):
        """Notes where the data of its run lie."""

        def _make_run(self, *args):
            run = super()._make_run(*args)
            kept.extend(d.images for one in (run.data, run.validation) for d in one.values())
            return run

    size = 4 * 32 * 6 * n_images(train)
    options = {"feature_cache": "device", "cache_gigabytes": size / 1e9, **QUICK}
    Noting(DINOV2, weights=None, **options).fit(train)
    assert len(kept) == 4  # two mice, for training and validation
    assert {x.data_ptr() for x in kept} == {kept[0].data_ptr()}
    assert kept[0].nbytes == size


def test_memory_of_features_is_bounded(train, tmp_path):
    gigabytes = 4 * 32 * 6 * (n_images(train) - 1) / 1e9  # one image too few
    for where in ("device", "memory"):
        with pytest.raises(ValueError, match=r"more than cache_gigabytes.*a folder"):
            random(feature_cache=where, cache_gigabytes=gigabytes).fit(train)
    with pytest.warns(UserWarning, match="computed anew in every epoch"):
        random(cache_gigabytes=gigabytes).fit(train)
    random(feature_cache=tmp_path, cache_gigabytes=0).fit(train)
    with pytest.raises(ValueError, match="a folder that is there"):
        random(feature_cache="devise").fit(train)


# ------------------------------------------------------------------------------------ fine-tuning


def test_fine_tuning_goes_on_from_the_frozen_fit(folder, train):
    est = v1.PretrainedViTRegressor(folder, **QUICK).fit(train)
    frozen = {k: v.clone() for k, v in est.module_.core.backbone.named_parameters()}
    assert est.core_frozen_
    assert len(est.history_) == 2
    est.set_params(fine_tune=1, warm_start=True, core_lr=1e-3, core_weight_decay=0.01, space_l2=0.1)
    est.set_params(schedule="cosine", max_epochs=3, lr_patience=10)
    before = est.module_.readouts[0].channels.detach().clone()
    est.fit(train)
    assert not est.core_frozen_
    assert len(est.history_) == 5
    rates = [record["lr"] for record in est.history_[2:]]
    expected = [1e-5 + (0.01 - 1e-5) * (1 + np.cos(np.pi * e / 3)) / 2 for e in range(3)]
    np.testing.assert_allclose(rates, expected)
    core, *_, rest = est.state_["optimizer"]["param_groups"]
    core = est.state_["optimizer"]["param_groups"][1]
    assert (core["parameter_lr"], core["weight_decay"]) == (1e-3, 0.01)
    assert (rest["parameter_lr"], rest["weight_decay"]) == (0.01, 0.0)
    now = dict(est.module_.core.backbone.named_parameters())
    changed = {name for name in now if not torch.equal(now[name], frozen[name])}
    assert changed
    assert all("layer.1." in name for name in changed)
    distance = (est.module_.readouts[0].channels - before).abs().max()
    assert 0 < distance < 0.2  # it went on, and did not begin anew


def test_a_frozen_core_stays_as_it_is_and_others_do_not(train):
    for stages, same in (("none", True), (2, False), ("all", False)):
        est = random(fine_tune=stages, feature_cache=None)
        model = est.fit(train).module_
        start = v1.PretrainedViTRegressor(
            DINOV2, weights=None, **{**QUICK, "max_epochs": 1, "lr": 1e-9, "core_lr": 1e-30}
        ).fit(train)
        ours, theirs = (dict(m.core.named_parameters()) for m in (model, start.module_))
        assert all(torch.equal(ours[n], theirs[n]) for n in ours) == same


def test_augmented_positions_are_drawn_in_training_only(train):
    kind = {**DINOV3, "patch_size": 14}
    options = {**QUICK, "fine_tune": 1, "weights": None}
    steady, moved, again = (
        v1.PretrainedViTRegressor(kind, augment_positions=augment, **options).fit(train)
        for augment in (False, True, True)
    )
    assert steady.history_[0]["loss"] != moved.history_[0]["loss"]
    np.testing.assert_array_equal(predicted(moved, train), predicted(again, train))
    np.testing.assert_array_equal(predicted(moved, train), predicted(moved, train))


# ----------------------------------------------------------------------------------- how it is kept


def test_frozen_weights_are_kept_by_name_and_checksum(folder, train, tmp_path):
    est = v1.PretrainedViTRegressor(folder, **QUICK).fit(train)
    est.save(tmp_path / "model")
    weights = load(next((tmp_path / "model").glob("*.safetensors")).read_bytes())
    assert not any("backbone" in name for name in weights)
    for again in (v1.load(tmp_path / "model"), pickle.loads(pickle.dumps(est))):
        np.testing.assert_array_equal(predicted(again, train), predicted(est, train))

    file = folder / "model.safetensors"
    whole = file.read_bytes()
    tensors = load(whole)
    (name,) = [n for n in tensors if n.endswith("layer.0.norm1.weight")]
    save_file({**tensors, name: tensors[name] + 1e-6}, file, metadata={"format": "pt"})
    for again in (lambda: v1.load(tmp_path / "model"), lambda: pickle.loads(pickle.dumps(est))):
        with pytest.raises(BackboneError, match=r"their checksum differs. Bring the files"):
            again()
    file.write_bytes(whole)
    v1.load(tmp_path / "model")
    shutil.rmtree(folder)
    with pytest.raises(BackboneError, match="is not there: bring it back"):
        v1.load(tmp_path / "model")


@pytest.mark.parametrize(
    "options", quick([{}, {"fine_tune": 1}, {"fine_tune": "all"}, {"weights": None}], 1)
)
def test_a_saved_model_refuses_another_configuration(options, folder, train, tmp_path):
    est = v1.PretrainedViTRegressor(folder, **QUICK, **options).fit(train)
    est.save(tmp_path / "model")
    file = folder / "config.json"
    told = file.read_text()
    for change in ({"num_attention_heads": 4}, {"hidden_act": "relu"}):
        reconfigured(folder, **change)
        for again in (lambda: v1.load(tmp_path / "model"), lambda: pickle.loads(pickle.dumps(est))):
            with pytest.raises(BackboneError, match=r"or their configuration .* checksum differs"):
                again()
        file.write_text(told)
    reconfigured(folder, transformers_version="4.57.6", architectures=["Another"])
    np.testing.assert_array_equal(
        predicted(v1.load(tmp_path / "model"), train), predicted(est, train)
    )


def test_fine_tuned_weights_are_kept(folder, train, tmp_path):
    est = v1.PretrainedViTRegressor(folder, fine_tune=1, core_lr=0.01, **QUICK).fit(train)
    for stages in (1, "none"):  # a core that is frozen again keeps what it learned, too
        est.set_params(fine_tune=stages, warm_start=True).fit(train)
        est.save(tmp_path / "model")
        weights = load(next((tmp_path / "model").glob("*.safetensors")).read_bytes())
        assert any("layer.1.norm1" in name for name in weights)
        assert not any("layer.0.norm1" in name for name in weights)
        again = v1.load(tmp_path / "model")
        assert again.core_frozen_ is (stages == "none")
        np.testing.assert_array_equal(predicted(again, train), predicted(est, train))


def test_random_weights_are_kept_whole(train, tmp_path):
    est = random().fit(train)
    est.save(tmp_path / "model")
    np.testing.assert_array_equal(
        predicted(v1.load(tmp_path / "model"), train), predicted(est, train)
    )
    np.testing.assert_array_equal(predicted(random().fit(train), train), predicted(est, train))


def test_a_module_is_copied_pickled_and_not_saved(train, tmp_path):
    model = random_backbone(DINOV2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    est = v1.PretrainedViTRegressor(model, fine_tune="all", core_lr=0.01, **QUICK).fit(train)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert len(model.encoder.layer) == 3
    again = pickle.loads(pickle.dumps(est))
    np.testing.assert_array_equal(predicted(again, train), predicted(est, train))
    with pytest.raises(TypeError, match=r"backbone.*pickle the model"):
        est.save(tmp_path / "model")


def test_a_module_and_checkpoints_are_refused_before_training(train, tmp_path, images_seen):
    est = v1.PretrainedViTRegressor(random_backbone(DINOV2), **QUICK)
    with pytest.raises(TypeError, match=r"backbone' is a Dinov2Model, which cannot be saved"):
        est.fit(train, checkpoint_dir=tmp_path / "states")
    assert not images_seen
    assert not (tmp_path / "states").exists()


def test_a_checkpoint_goes_on_to_the_same_model(folder, train, tmp_path):
    def stop(record):
        raise KeyboardInterrupt

    def make():
        return v1.PretrainedViTRegressor(folder, fine_tune=1, core_lr=0.01, **QUICK)

    whole = make().fit(train)
    with pytest.raises(KeyboardInterrupt):
        make().fit(train, on_epoch=stop, checkpoint_dir=tmp_path / "states")
    resumed = make().fit(train, checkpoint_dir=tmp_path / "states")
    np.testing.assert_array_equal(predicted(whole, train), predicted(resumed, train))


def test_transfer_takes_the_core_along(folder, train):
    est = v1.PretrainedViTRegressor(folder, fine_tune=1, core_lr=0.01, **QUICK)
    est.fit(train.sel(mouse_id="A"))
    new = est.transfer(train.sel(mouse_id="B"))
    assert new.core_frozen_
    assert new.mice_ == ["B"]
    ours, theirs = (dict(e.module_.core.named_parameters()) for e in (new, est))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# ------------------------------------------------------------------------------- blocks and images


def test_a_search_over_blocks(train):
    search = GridSearchCV(random(), {"block": [0, 1, [0, 1]]}, cv=GroupKFold(2))
    search.fit(train, groups=train.image_ids)
    assert search.best_estimator_.block in (0, 1, [0, 1])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert clone(search.best_estimator_).backbone == DINOV2


def test_every_mouse_has_its_own_window(trials, train):
    windows = {"A": (0, 28), "B": (14, 42)}
    est = random(crop_columns=windows).fit(train)
    cropped = {
        mouse: np.asarray(train[mouse].stimuli)[..., first:last]
        for mouse, (first, last) in windows.items()
    }
    others = (
        {mouse: np.asarray(train[mouse].behaviors) for mouse in windows},
        {mouse: np.asarray(train[mouse].responses) for mouse in windows},
    )
    ids = {m: np.asarray(train[m].image_id) for m in windows}
    positions = {m: np.asarray(train[m].position) for m in windows}
    same = random().fit(cropped, *others, image_ids=ids, positions=positions)
    test = trials.sel(tier="test")
    theirs = same.predict(
        {m: np.asarray(test[m].stimuli)[..., slice(*w)] for m, w in windows.items()},
        {m: np.asarray(test[m].behaviors) for m in windows},
    )
    for mouse in windows:
        np.testing.assert_allclose(est.predict(test)[mouse].values, theirs[mouse], rtol=1e-3)


@pytest.mark.slow
def test_resolution_is_a_parameter(train):
    for options, grid in (
        ({}, (2, 3)),
        ({"upsample": 2}, (4, 6)),
        ({"patch_stride": 7}, (3, 5)),
        ({"upsample": 2, "patch_stride": 7}, (7, 11)),
        ({"image_size": (42, 42)}, (3, 3)),
        ({"crop_columns": "left_half", "image_size": (28, 28)}, (2, 2)),
        ({"tokens": "cls"}, (1, 1)),
    ):
        for readout in ({"readout": "factorized"}, GAUSSIAN):
            est = random(max_epochs=1, **options, **readout)
            assert est.fit(train).module_.core.output_shape[1:] == grid


# ---------------------------------------------------------------------------------------- refusals


def test_images_that_do_not_divide_are_refused_before_training(train):
    with pytest.raises(BackboneError, match="height 28 or 42, width 28 or 42"):
        random(image_size=(30, 40)).fit(train)
    options = {"patch_stride": 10, "upsample": 2}
    with pytest.raises(BackboneError, match=r"of 30 x 42 pixels, .* height 27 or 32, width 42;"):
        random(image_size=(30, 42), **options).fit(train)
    for height in (27, 32):
        random(image_size=(height, 42), max_epochs=1, **options).fit(train)
    with pytest.raises(BackboneError, match=r"block=7, .* choose from 0 to 2"):
        random(block=7).fit(train)


def test_files_that_are_damaged_or_lack_weights_are_refused(folder, train):
    def fit(source=folder, **options):
        v1.PretrainedViTRegressor(source, **QUICK, **options).fit(train)

    file = folder / "model.safetensors"
    whole = file.read_bytes()
    tensors = load(whole)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BackboneError, match=r"damaged or cut short .*: get them anew"):
        fit()
    name = next(n for n in sorted(tensors) if "layer.0" in n)
    save_file({n: t for n, t in tensors.items() if n != name}, file, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lack 1 of its weights, .* random numbers"):
        fit()
    save_file({**tensors, name: torch.zeros(3)}, file, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="holds no backbone that can be read"):
        fit()
    file.unlink()
    with pytest.raises(BackboneError, match=r"holds no backbone .* there is config.json"):
        fit()
    fit(weights=None)  # which needs the configuration alone
    (folder / "config.json").unlink()
    with pytest.raises(BackboneError, match="there is nothing"):
        fit()
    with pytest.raises(BackboneError, match="is not there: bring it back"):
        fit(folder / "elsewhere")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_before_training(value, folder, train):
    file = folder / "model.safetensors"
    tensors = load(file.read_bytes())
    name = next(n for n in sorted(tensors) if "layer.0.norm1.weight" in n)
    tensors[name][3] = value
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"0\.norm1\.weight of .* 1 of 32: get its weights"):
        v1.PretrainedViTRegressor(folder, **QUICK).fit(train)


HUB = {  # how a hub answers for the models of an owner: status, what kind of error it says this is
    "gated": (403, "GatedRepo"),
    "absent": (404, "RepoNotFound"),
    "broken": (400, ""),
    "busy-at-first": (400, ""),
}
ASKING = """
    import json, sys
    import transformers
    import v1tlearn as v1

    trials = v1.Trials(v1.make_v1_recordings(n_mice=1, n_neurons=2, n_trials=20, n_test_images=2,
                                             n_repeats=2, image_shape=(28, 42), random_state=0))
    for name in json.loads(sys.argv[1]):
        for weights in ("pretrained", None):
            est = v1.PretrainedViTRegressor(name, weights=weights, block=1, max_epochs=1)
            try:
                est.fit(trials)
            except v1.nn.BackboneError as error:
                print(json.dumps([name.split("/")[0], str(error)]))
    print("of the library itself:", file=sys.stderr)
    try:
        transformers.AutoConfig.from_pretrained("busy-at-last/vit")
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def told_of_the_hub(tmp_path_factory):
    """What is raised, and printed, where a hub does not give models; and then by the library."""
    asked = Counter()

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            owner = self.path.split("/")[1]
            status, kind = HUB.get(owner, (400, ""))
            if "busy" in owner and self.command == "HEAD":
                asked[owner] += 1
                status = 503 if asked[owner] % 3 else 400  # at the third time it has an answer
            self.send_response(status)
            self.send_header("X-Error-Code", kind)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "NO_PROXY": "127.0.0.1"}
    found |= {"HF_HOME": str(tmp_path_factory.mktemp("hub")), "OMP_NUM_THREADS": "1"}
    names = json.dumps([f"{owner}/vit" for owner in HUB])
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(ASKING), names]
    done = subprocess.run(
        command, env=os.environ | found, cwd=ROOT, capture_output=True, text=True, check=True
    )
    server.shutdown()
    server.server_close()
    ours, theirs = done.stderr.split("of the library itself:")
    assert asked["busy-at-first"] > 2
    return [json.loads(line) for line in done.stdout.splitlines()], ours, theirs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "message"),
    [
        ("gated", "accepted their licence"),
        ("absent", "nor a model of this name on Hugging Face, or it is private"),
        ("broken", "neither a folder here nor a model that could be had"),
        ("busy-at-first", "Check the name and the connection"),
    ],
)
def test_weights_that_cannot_be_had_are_refused(owner, message, told_of_the_hub):
    told = [said for asked, said in told_of_the_hub[0] if asked == owner]
    assert len(told) == 2  # with weights and without
    for said in told:
        assert message in said
        assert f"{owner}/vit" in said


@pytest.mark.slow
def test_what_a_library_says_while_it_tries_again_is_not_printed(told_of_the_hub):
    _, ours, theirs = told_of_the_hub
    if "Retrying" not in theirs:
        pytest.skip("this version of the library does not say so")
    assert "Retrying" not in ours


def test_sources_that_contradict_weights_are_refused(train):
    with pytest.raises(BackboneError, match="set weights=None for random"):
        v1.PretrainedViTRegressor(DINOV2, **QUICK).fit(train)
    with pytest.raises(BackboneError, match="backbone is a module"):
        v1.PretrainedViTRegressor(random_backbone(DINOV2), weights=None, **QUICK).fit(train)
    with pytest.raises(BackboneError, match='no "model_type"'):
        v1.PretrainedViTRegressor({"hidden_size": 3}, weights=None, **QUICK).fit(train)
    with pytest.raises(BackboneError, match="is not one"):
        v1.PretrainedViTRegressor({"model_type": "dinov9"}, weights=None, **QUICK).fit(train)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": "14"}, "patch_size"),
        ({"layer_norm_eps": 1}, "layer_norm_eps"),
        ({"patch_size": 0}, "ZeroDivisionError"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"hidden_act": "none_such"}, "none_such"),
        ({"image_size": []}, "IndexError"),
    ],
)
def test_configurations_with_wrong_values_are_refused(change, message, train):
    with pytest.raises(BackboneError, match=f"configuration of .*(?s:.*){message}"):
        v1.PretrainedViTRegressor({**DINOV2, **change}, weights=None, **QUICK).fit(train)


def test_wrong_values_in_the_folder_of_a_saved_model_are_not_called_damage_of_it(
    folder, train, tmp_path
):
    v1.PretrainedViTRegressor(folder, **QUICK).fit(train).save(tmp_path / "model")
    for change in ({"layer_norm_eps": 1}, {"layer_norm_eps": 1e-6, "num_attention_heads": 0}):
        reconfigured(folder, **change)
        with pytest.raises(
            BackboneError, match=r"holds no backbone that can be read: .*(eps|zero)"
        ):
            v1.load(tmp_path / "model")


def test_the_extra_is_named(train, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r'install the extra "backbones".*"\.\[backbones\]"'):
        random().fit(train)


# ----------------------------------------------------------------------------------------- presets


def test_the_presets_train_as_published():
    frozen = v1.PretrainedViTRegressor.from_preset("vit_encoding2026_frozen")
    tuned = v1.PretrainedViTRegressor.from_preset("vit_encoding2026_fine_tuned")
    common = {
        "backbone": "facebook/dinov3-vits16-pretrain-lvd1689m",
        "image_size": (64, 128),
        "crop_columns": "left_half",
        "pixel_scaling": "per_image",
        "readout": "factorized",
        "loss_scale": "per_neuron",
        "penalty_scale": "absolute",
        "clip_norm": 1.0,
        "selection": "variance_explained",
        "lr": 1e-3,
        "lr_patience": 5,
        "betas": (0.9, 0.999),
    }
    published = {
        frozen: {
            "fine_tune": "none",
            "batch_size": 64,
            "max_epochs": 200,
            "schedule": "reduce",
            "lr_factor": 0.5,
            "min_lr": 1e-5,
            "space_l2": 0.1,
            "channel_l2": 0.1,
            "space_weight_decay": 1.0,
            "channel_weight_decay": 0.1,
        },
        tuned: {
            "fine_tune": 4,
            "batch_size": 32,
            "max_epochs": 100,
            "schedule": "cosine",
            "min_lr": 1e-7,
            "core_lr": 1e-5,
            "core_weight_decay": 0.01,
            "weight_decay": 1e-5,
            "space_l2": 1e-4,
            "channel_l2": 1e-4,
            "space_weight_decay": None,
            "channel_weight_decay": None,
            "augment_positions": True,
        },
    }
    for est, own in published.items():
        assert {name: est.get_params()[name] for name in common | own} == common | own


def test_the_presets_fit_one_after_the_other(trials, tmp_path):
    random_backbone({**DINOV3, "num_hidden_layers": 5}).save_pretrained(tmp_path / "dinov3")
    train = trials.sel(tier="train", mouse_id="A")
    small = {"image_size": (32, 32), "random_state": 0, "backbone": tmp_path / "dinov3"}
    small |= {"space_init": 0.3, "max_epochs": 2}
    est = v1.PretrainedViTRegressor.from_preset("vit_encoding2026_frozen", **small).fit(train)
    tuned = v1.PretrainedViTRegressor.from_preset("vit_encoding2026_fine_tuned", **small)
    est.set_params(**tuned.get_params()).fit(train)
    assert len(est.history_) == 4
    assert est.stop_reason_ == "max_epochs"
    assert "validation_variance_explained" in est.history_[-1]

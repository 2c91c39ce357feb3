"""What `save_v1t` writes: a run directory that the published code reads back."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sklearn.exceptions import NotFittedError

import v1tlearn as v1
from v1tlearn.interop import load_v1t, save_v1t

REFERENCE = Path(__file__).parents[1] / "reference"
FIXTURES = ("v1t", "vit", "v1t_lsa_crop")
RUNS = [
    {"behavior_mode": 0, "shift_mode": 0, "patch_mode": 2},
    {"behavior_mode": 1, "shift_mode": 1, "center_crop": 0.8, "patch_stride": 3},
    {"behavior_mode": 2, "patch_mode": 1, "drop_path": 0.1, "bias_mode": 2, "ds_scale": 0},
    {"shift_mode": 3, "center_crop": 0.75, "use_lsa": True, "core_lr": 1e-4},
    {"behavior_mode": 4, "shift_mode": 4, "patch_mode": 3, "disable_bias": True},
    {"disable_grid_predictor": True, "resize_image": 1, "patch_stride": 7},
    {"grid_predictor_dim": 3, "ds_name": "franke2022", "input_shape": [2, 36, 64], "bias_mode": 1}
    | {"resize_image": 1, "patch_stride": 7},
    {"core": "cct", "patch_stride": 2, "drop_path": 0.2, "input_shape": [1, 24, 24]},
    {"core": "cct", "behavior_mode": 4, "patch_stride": 1},
    {"core": "stacked2d", "behavior_mode": 1, "input_shape": [1, 14, 16]},
    {"core": "stacked2d", "behavior_mode": 0, "linear": True, "input_shape": [1, 14, 16]},
]
MODELS = {
    "none": (v1.ViTRegressor, {"behavior_mode": "none", "shift": "none", "tokenizer": "spt"}),
    "channels": (v1.ViTRegressor, {"crop_scale": 0.9, "shift": "stimulus", "patch_stride": 3}),
    "three columns": (v1.V1TRegressor, {"behavior_columns": "non_pupil", "tokenizer": "conv"}),
    "five columns": (v1.V1TRegressor, {"attention": "lsa", "shift": "both", "bias": False}),
    "per mouse": (
        v1.V1TRegressor,
        {"behavior_mode": "b_mlp_per_mouse", "shift": "both_behavior", "tokenizer": "dual_norm"},
    ),
    "compact": (v1.V1TRegressor, {"tokenizer": "cct", "patch_stride": 1}),
    "free positions": (
        v1.V1TRegressor,
        {"position_network": False, "image_size": (36, 64), "patch_stride": 7},
    ),
    "CNN": (v1.CNNRegressor, {"n_layers": 2}),
    "LN": (v1.LNRegressor, {"n_layers": 2, "behavior_mode": "none", "position_dims": 3}),
}
SMALL = {"patch_stride": 4, "n_blocks": 1, "n_heads": 2, "embed_dim": 8, "mlp_dim": 8}


def read(folder):
    """Arguments and checkpoint, with nothing but the safe loaders of yaml and torch."""
    args = yaml.safe_load((folder / "args.yaml").read_text())
    return args, torch.load(folder / "ckpt" / "model_state.pt", weights_only=True)


def assert_published_reader_takes(published, folder):
    """The published reader makes its model from the arguments, then loads all states strictly."""
    args, checkpoint = read(folder)
    assert set(checkpoint) == {"epoch", "value", "model", "optimizer", "scaler", "scheduler"}
    assert f"{checkpoint['value']:.04f}"
    assert isinstance(checkpoint["epoch"], int)
    expected = published.arrays(args)
    state = checkpoint["model"]
    assert set(state) == set(expected)
    for name, value in expected.items():
        assert (state[name].shape, state[name].dtype) == (value.shape, value.dtype), name
        assert state[name].is_contiguous()
    constants = ("grid", "scale", "mask", "max_value", "keep_prop", "one", "filter", "max_shift")
    for name in expected:  # what follows from the arguments
        if name.rsplit(".", 1)[-1] in constants and not (args.get("use_lsa") and "mha" in name):
            torch.testing.assert_close(state[name], expected[name], msg=name)
    # the optimiser is AdamW with these groups, in this order
    trained = [n for n in expected if _is_parameter(n, args)]
    groups = {"core": "core.", "readouts": "readouts.", "image_cropper": "image_cropper."}
    groups["core_shifter"] = "core_shifter."
    sizes = {g: sum(n.startswith(prefix) for n in trained) for g, prefix in groups.items()}
    parameters = [
        {"params": [torch.zeros(1, requires_grad=True) for _ in range(n)], "name": g}
        for g, n in sizes.items()
        if n
    ]
    optimizer = torch.optim.AdamW(parameters, lr=1, betas=(0.5, 0.5), weight_decay=0)
    optimizer.load_state_dict(checkpoint["optimizer"])
    assert [g["name"] for g in optimizer.param_groups] == [g for g, n in sizes.items() if n]
    for group in optimizer.param_groups:
        assert group["lr"] == args["core_lr" if group["name"] == "core" else "lr"]
        assert group["betas"] == (args["adam_beta1"], args["adam_beta2"])
    # the schedule takes over whatever it finds, and compares scores with the best one
    schedule = checkpoint["scheduler"]
    assert schedule["num_reduce"] == schedule["lr_wait"] == 0
    assert schedule["best_value"] <= 1
    assert not {"optimizer", "model", "checkpoint_dir", "device"} & set(schedule)


def _is_parameter(name, args):
    last = name.rsplit(".", 1)[-1]
    if last == "scale":
        return bool(args.get("use_lsa"))
    if name.startswith("core.tokenizer.pos"):
        return False
    return last in {"weight", "bias", "cls_token", "pos_embedding", "sigma", "features", "_mu"}


# -------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures_come_back_bit_by_bit(name, published, tmp_path):
    save_v1t(load_v1t(REFERENCE / name), tmp_path / "run")
    with torch.serialization.safe_globals([torch.amp.GradScaler]):
        source = torch.load(REFERENCE / name / "ckpt" / "model_state.pt", weights_only=True)
    args, checkpoint = read(tmp_path / "run")
    state = checkpoint["model"]
    assert set(state) == set(source["model"])
    for key, value in source["model"].items():
        assert value.dtype == state[key].dtype
        assert torch.equal(value, state[key]), key
    assert checkpoint["optimizer"]["param_groups"] == source["optimizer"]["param_groups"]
    published_args = yaml.safe_load((REFERENCE / name / "args.yaml").read_text())
    published_args["adam_eps"] = float(published_args["adam_eps"])
    assert {key: args.get(key) for key in published_args} == published_args
    assert_published_reader_takes(published, tmp_path / "run")


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures_predict_the_same_after_a_round_trip(name, tmp_path):
    io = np.load(REFERENCE / name / "io.npz")
    kinds = ("image", "behavior", "pupil", "response")
    statistics = {
        m: {k: (io[f"{m}/stats/{k}/mean"], io[f"{m}/stats/{k}/std"]) for k in kinds} for m in "AB"
    }
    first = load_v1t(REFERENCE / name, statistics)
    save_v1t(first, tmp_path / "run")
    second = load_v1t(tmp_path / "run", statistics)
    assert second.get_params() == first.get_params()
    images = {m: io[f"{m}/images"][:2] for m in "AB"}
    behaviors = {m: np.c_[io[f"{m}/behavior"], io[f"{m}/pupil_center"]][:2] for m in "AB"}
    before, after = (est.predict(images, behaviors) for est in (first, second))
    for mouse in "AB":
        np.testing.assert_array_equal(before[mouse], after[mouse])


@pytest.mark.parametrize("changed", RUNS, ids=lambda changed: ", ".join(map(str, changed)))
def test_runs_come_back(changed, published, tmp_path):
    args = published.arguments(**changed)
    arrays = published.arrays(args)
    first = load_v1t(published.write(tmp_path / "first", args, arrays))
    save_v1t(first, tmp_path / "second")
    assert_published_reader_takes(published, tmp_path / "second")
    saved, checkpoint = read(tmp_path / "second")
    for key, value in arrays.items():
        if key != "core.tokenizer.pos_embedding":  # fixed, made anew
            assert torch.equal(checkpoint["model"][key], value), key
    told = set(args) - {"device", "micro_batch_size"}
    assert {key: saved[key] for key in told} == {key: args[key] for key in told}
    second = load_v1t(tmp_path / "second")
    assert type(second) is type(first)
    assert second.get_params() == first.get_params()
    images, behaviors = published.inputs(args)
    for mouse in first.mice_:
        before, after = (e.predict({mouse: images}, {mouse: behaviors}) for e in (first, second))
        np.testing.assert_array_equal(before[mouse], after[mouse])


def test_numbered_mice_stay_numbers(published, tmp_path):
    args = published.arguments(mouse_ids=[2, 10], output_shapes={2: [5], 10: [4]})
    folder = published.write(tmp_path / "first", args, published.arrays(args))
    first = load_v1t(folder)
    save_v1t(first, tmp_path / "second")
    assert_published_reader_takes(published, tmp_path / "second")
    saved, _ = read(tmp_path / "second")
    assert saved["mouse_ids"] == [2, 10]
    assert saved["output_shapes"] == {2: [5], 10: [4]}
    second = load_v1t(tmp_path / "second")
    assert second.mice_ == first.mice_ == ["2", "10"]
    images, behaviors = published.inputs(args)
    np.testing.assert_array_equal(
        first.predict(images, behaviors, "10"), second.predict(images, behaviors, "10")
    )


def test_names_that_only_look_like_numbers_stay_text(published, tmp_path):
    ids = ["02", "1_0", "21067-10-18"]
    args = published.arguments(mouse_ids=ids, output_shapes={name: [4] for name in ids})
    first = load_v1t(published.write(tmp_path / "first", args, published.arrays(args)))
    save_v1t(first, tmp_path / "second")
    assert read(tmp_path / "second")[0]["mouse_ids"] == ids
    assert load_v1t(tmp_path / "second").mice_ == ids


def test_scrambled_grids_come_back(published, tmp_path):
    args = published.arguments(patch_size=4, patch_stride=4, input_shape=[1, 36, 64])
    folder = published.write(tmp_path / "first", args, published.arrays(args))
    with pytest.warns(UserWarning, match="scrambled"):
        first = load_v1t(folder)
    save_v1t(first, tmp_path / "second")
    with pytest.warns(UserWarning, match="scrambled"):
        second = load_v1t(tmp_path / "second")
    images, behaviors = published.inputs(args)
    before, after = (e.predict({"A": images}, {"A": behaviors})["A"] for e in (first, second))
    np.testing.assert_array_equal(before, after)


@pytest.fixture(scope="module")
def trials():
    recordings = v1.make_v1_recordings(
        n_mice=2,
        n_neurons=[5, 4],
        n_trials=24,
        n_test_images=2,
        n_repeats=2,
        image_shape=(20, 28),
        random_state=0,
    )
    return v1.Trials(recordings).sel(tier="train")


def fitted(kind, trials, **parameters):
    sizes = SMALL if issubclass(kind, v1.ViTRegressor) else {}
    common = {"max_epochs": 1, "validation_fraction": 0.2, "random_state": 0, "device": "cpu"}
    return kind(**{**common, **sizes, **parameters}).fit(trials)


def learned(est):
    """The statistics that a model learned, in the form of `load_v1t`."""
    out = {}
    for mouse, found in est.statistics_.items():
        shift, scale = found["behavior_shift"], found["behavior_scale"]
        out[mouse] = {
            "image": (found["image_mean"], found["image_std"]),
            "behavior": (shift[:3], scale[:3]),
            "pupil": (shift[3:], scale[3:]),
            "response": (found["response_mean"], found["response_scale"]),
        }
    return out


@pytest.mark.parametrize(("kind", "parameters"), MODELS.values(), ids=MODELS.keys())
def test_models_fitted_here_go_there_and_back(kind, parameters, trials, published, tmp_path):
    est = fitted(kind, trials, **parameters)
    save_v1t(est, tmp_path / "run")
    assert_published_reader_takes(published, tmp_path / "run")
    again = load_v1t(tmp_path / "run", learned(est))
    assert type(again) is kind
    before, after = est.predict(trials), again.predict(trials)
    for mouse in est.mice_:
        np.testing.assert_array_equal(np.asarray(after[mouse]), np.asarray(before[mouse]))
    weights = again.module_.state_dict()
    for name, value in est.module_.state_dict().items():
        assert torch.equal(weights[name], value)


def test_what_the_published_forward_pass_makes_of_a_fitted_model(trials, published, tmp_path):
    est = fitted(v1.V1TRegressor, trials, shift="both", crop_scale=0.75)
    save_v1t(est, tmp_path / "run")
    args, checkpoint = read(tmp_path / "run")
    statistics = learned(est)
    for mouse in "AB":
        known = statistics[mouse]
        images = (trials.get("stimuli", mouse) - known["image"][0]) / known["image"][1]
        behaviors = trials.get("behaviors", mouse) / np.r_[known["behavior"][1], known["pupil"][1]]
        behaviors[:, 3:] -= known["pupil"][0] / known["pupil"][1]
        expected = published.prediction(args, checkpoint["model"], mouse, images, behaviors)
        expected = expected * known["response"][1]
        found = np.asarray(est.predict(trials)[mouse])
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


# ----------------------------------------------------------------- what cannot be expressed


@pytest.mark.parametrize(
    ("kind", "parameters", "match"),
    [
        (v1.V1TRegressor, {"behavior_mode": "b_mlp_first_block"}, "behavior_mode='b_mlp_first"),
        (v1.V1TRegressor, {"behavior_mode": "b_mlp_shared"}, "behavior_mode='b_mlp_shared'"),
        (v1.V1TRegressor, {"behavior_columns": ["running_speed"]}, "behavior_columns"),
        (v1.ViTRegressor, {"behavior_columns": "all"}, "behavior_columns"),
        (
            v1.V1TRegressor,
            {"behavior_mode": "b_mlp_per_mouse", "behavior_columns": "non_pupil"},
            "behavior_columns",
        ),
        (v1.V1TRegressor, {"shift_columns": ["running_speed"]}, "shift_columns"),
        (v1.V1TRegressor, {"gaussian": "isotropic"}, "gaussian='isotropic'"),
        (v1.V1TRegressor, {"position_hidden_layers": 2}, "position_hidden_layers=2"),
        (v1.V1TRegressor, {"position_hidden_units": 8}, "position_hidden_units=8"),
        (v1.V1TRegressor, {"position_embedding": "sinusoidal"}, "position_embedding"),
        (v1.V1TRegressor, {"attention_dropout": 0.1}, "attention_dropout=0.1"),
        (v1.V1TRegressor, {"image_size": (24, 32)}, "image_size"),
        (v1.V1TRegressor, {"patch_size": 6, "patch_stride": 6}, "token_grid='true'"),
        (v1.ViTRegressor, {"tokenizer": "spt"}, "tokenizer='spt'"),
        (v1.ViTRegressor, {"tokenizer": "cct", "patch_stride": 1}, "behavior_mode='channels'"),
        (
            v1.V1TRegressor,
            {"tokenizer": "cct", "patch_stride": 1, "attention": "lsa"},
            "attention='lsa'",
        ),
        (v1.V1TRegressor, {"tokenizer": "cct", "patch_stride": 1, "bias": False}, "bias=False"),
        (
            v1.V1TRegressor,
            {"tokenizer": "cct", "patch_stride": 1, "behavior_columns": "non_pupil"},
            "behavior_columns",
        ),
        (v1.CNNRegressor, {"hidden_channels": 4}, "hidden_channels=4"),
        (v1.CNNRegressor, {"input_kernel": 7}, "input_kernel=7"),
        (v1.CNNRegressor, {"hidden_kernel": 5}, "hidden_kernel=5"),
        (v1.CNNRegressor, {"depth_separable": False}, "depth_separable=False"),
        (v1.CNNRegressor, {"bias": False}, "bias=False"),
    ],
)
def test_what_the_layout_lacks_is_named(kind, parameters, match, trials, tmp_path):
    if issubclass(kind, v1.CNNRegressor):
        parameters = {"n_layers": 2, **parameters}
    est = fitted(kind, trials, **{"max_epochs": 0, "validation_fraction": 0, **parameters})
    with pytest.raises(ValueError, match=match):
        save_v1t(est, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_mice_that_cannot_be_modules_are_named(trials, tmp_path):
    recordings = trials.recordings
    for name in ("a.b", "keys"):
        mice = v1.Trials({name: recordings["A"].to_dataset()})
        est = fitted(v1.V1TRegressor, mice, max_epochs=0, validation_fraction=0)
        with pytest.raises(ValueError, match=f"mouse '{name}'"):
            save_v1t(est, tmp_path / "run")


def test_mice_that_differ_are_named(trials, tmp_path):
    datasets = {name: node.to_dataset() for name, node in trials.recordings.children.items()}
    without = {**datasets, "B": datasets["B"].drop_vars("position")}
    est = fitted(v1.V1TRegressor, v1.Trials(without), max_epochs=0, validation_fraction=0)
    with pytest.raises(ValueError, match=r"position_network=True.*without \['B'\]"):
        save_v1t(est, tmp_path / "run")
    blind = {**datasets, "B": datasets["B"].isel(behavior=slice(0, 3))}
    options = {"behavior_columns": "non_pupil", "max_epochs": 0, "validation_fraction": 0}
    est = fitted(v1.V1TRegressor, v1.Trials(blind), **options)
    with pytest.raises(ValueError, match=r"shift='readout'.*without \['B'\]"):
        save_v1t(est, tmp_path / "run")


def test_only_fitted_models_are_written(trials, tmp_path):
    with pytest.raises(NotFittedError):
        save_v1t(v1.V1TRegressor(), tmp_path / "run")
    with pytest.raises(TypeError, match="not a dict"):
        save_v1t({}, tmp_path / "run")


# --------------------------------------------------------------------------- whole or not at all


@pytest.fixture(scope="module")
def model(trials):
    return fitted(v1.V1TRegressor, trials, max_epochs=0, validation_fraction=0)


def test_earlier_runs_are_replaced(model, tmp_path):
    target = tmp_path / "deep" / "run"
    save_v1t(model, str(target))
    inode = target.stat().st_ino
    save_v1t(model, target)
    assert target.stat().st_ino != inode
    assert sorted(os.listdir(target)) == ["args.yaml", "ckpt"]
    assert os.listdir(target.parent) == ["run"]
    (tmp_path / "empty").mkdir()
    save_v1t(model, tmp_path / "empty")
    load_v1t(tmp_path / "empty")


@pytest.mark.parametrize("extra", ["output.log", "ckpt/other.pt", "logs/1"])
def test_other_folders_are_not_touched(model, tmp_path, extra):
    target = tmp_path / "run"
    save_v1t(model, target)
    (target / extra).parent.mkdir(exist_ok=True)
    (target / extra).write_text("precious")
    with pytest.raises(FileExistsError, match="more than a saved model"):
        save_v1t(model, target)
    assert (target / extra).read_text() == "precious"
    (tmp_path / "file").write_text("precious")
    with pytest.raises(FileExistsError):
        save_v1t(model, tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        save_v1t(model, tmp_path / "link")


@pytest.mark.parametrize("when", ["writing", "renaming"])
def test_interruptions_leave_what_was_there(model, tmp_path, monkeypatch, when):
    target = tmp_path / "run"
    save_v1t(model, target)
    before = (target / "ckpt" / "model_state.pt").read_bytes()
    rename = os.rename

    def broken_save(*args, **kwargs):
        raise OSError("disk full")

    def broken_rename(source, destination):
        if Path(destination) == target and "before" not in str(source):
            raise OSError("disk full")
        rename(source, destination)

    if when == "writing":
        monkeypatch.setattr(torch, "save", broken_save)
    else:
        monkeypatch.setattr(os, "rename", broken_rename)
    with pytest.raises(OSError, match="disk full"):
        save_v1t(model, target)
    assert (target / "ckpt" / "model_state.pt").read_bytes() == before
    assert os.listdir(tmp_path) == ["run"]
    with pytest.raises(OSError, match="disk full"):
        save_v1t(model, tmp_path / "run" / ".." / "run")
    assert os.listdir(tmp_path) == ["run"]

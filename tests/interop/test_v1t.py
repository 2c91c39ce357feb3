"""Run directories of the published V1T code, against plain restatements of its forward pass."""

import copy
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone

import v1tlearn as v1
from v1tlearn.interop import load_v1t

REFERENCE = Path(__file__).parents[1] / "reference"
FIXTURES = ("v1t", "vit", "v1t_lsa_crop")
FIVE = ["pupil_dilation", "pupil_dilation_derivative", "running_speed", "pupil_x", "pupil_y"]

# Arguments of runs, and what the estimator must be then.
KINDS = {
    "mode 0, no shift": (
        {"behavior_mode": 0, "shift_mode": 0},
        (v1.ViTRegressor, {"behavior_mode": "none", "shift": "none"}),
    ),
    "mode 1, image shift": (
        {"behavior_mode": 1, "shift_mode": 1, "center_crop": 0.8, "patch_stride": 3},
        (v1.ViTRegressor, {"behavior_mode": "channels", "shift": "stimulus"}),
    ),
    "mode 2, convolution": (
        {"behavior_mode": 2, "patch_mode": 1, "patch_stride": 3, "drop_path": 0.1},
        (
            v1.V1TRegressor,
            {"behavior_mode": "b_mlp", "behavior_columns": "non_pupil", "tokenizer": "conv"}
            | {"drop_path": 0.1},
        ),
    ),
    "mode 3, both shifts, LSA": (
        {"shift_mode": 3, "center_crop": 0.75, "use_lsa": True},
        (
            v1.V1TRegressor,
            {"behavior_mode": "b_mlp", "behavior_columns": "all", "attention": "lsa"}
            | {"shift": "both", "crop_scale": 0.75},
        ),
    ),
    "mode 4, behaviour shifts, dual norm": (
        {
            "behavior_mode": 4,
            "shift_mode": 4,
            "center_crop": 0.8,
            "patch_mode": 3,
            "patch_stride": 3,
        },
        (
            v1.V1TRegressor,
            {"behavior_mode": "b_mlp_per_mouse", "shift": "both_behavior"}
            | {"tokenizer": "dual_norm"},
        ),
    ),
    "shifted patches": ({"patch_mode": 2}, (v1.V1TRegressor, {"tokenizer": "spt"})),
    "no biases, own lr of the core": (
        {"disable_bias": True, "core_lr": 1e-4, "batch_size": 16, "bias_mode": 2, "ds_scale": 0},
        (
            v1.V1TRegressor,
            {"bias": False, "core_lr": 1e-4, "lr": 0.001647, "batch_size": 16, "loss_scale": 1.0}
            | {"readout_bias": "published_mean_over_std"},
        ),
    ),
    "free positions": (
        {"disable_grid_predictor": True, "bias_mode": 1},
        (v1.V1TRegressor, {"position_network": False, "readout_bias": "published_mean"}),
    ),
    "positions of three axes": ({"grid_predictor_dim": 3}, (v1.V1TRegressor, {"position_dims": 3})),
    "resized": (
        {"resize_image": 1, "center_crop": 0.9, "patch_stride": 7, "shift_mode": 1},
        (v1.V1TRegressor, {"image_size": (36, 64)}),
    ),
    "Franke": (
        {
            "ds_name": "franke2022",
            "input_shape": [2, 20, 28],
            "resize_image": 1,
            "behavior_mode": 2,
        },
        (v1.V1TRegressor, {"image_size": "auto"}),
    ),
    "compact, mode 0": (
        {"core": "cct", "behavior_mode": 0, "patch_stride": 1},
        (v1.ViTRegressor, {"tokenizer": "cct"}),
    ),
    "compact, mode 3": (
        {"core": "cct", "patch_stride": 2, "drop_path": 0.2, "input_shape": [1, 24, 24]},
        (v1.V1TRegressor, {"tokenizer": "cct", "behavior_mode": "b_mlp", "drop_path": 0.2}),
    ),
    "compact, mode 4": (
        {"core": "cct", "behavior_mode": 4, "patch_stride": 2, "input_shape": [1, 24, 24]},
        (v1.V1TRegressor, {"tokenizer": "cct", "behavior_mode": "b_mlp_per_mouse"}),
    ),
    "convolutional, mode 0": (
        {"core": "stacked2d", "behavior_mode": 0, "num_layers": 3, "input_shape": [1, 14, 16]},
        (
            v1.CNNRegressor,
            {"n_layers": 3, "batch_norm_momentum": 0.9, "core_pass": "per_mouse", "lr": 0.009}
            | {"optimizer": "adamw", "batch_size": 8, "behavior_mode": "none"},
        ),
    ),
    "convolutional, mode 1, linear": (
        {"core": "stacked2d", "behavior_mode": 1, "linear": True, "input_shape": [1, 14, 16]},
        (v1.LNRegressor, {"n_layers": 2, "behavior_mode": "channels"}),
    ),
}
SCRAMBLED = {
    "4/4 on 36 x 64": ({"patch_size": 4, "patch_stride": 4, "input_shape": [1, 36, 64]}, (9, 16)),
    "mode 1": ({"patch_size": 6, "patch_stride": 6, "behavior_mode": 1}, (3, 4)),
    "compact": ({"core": "cct", "patch_stride": 3, "behavior_mode": 0}, (4, 5)),
}


def assert_agrees(value, reference, tolerance=1e-4):
    assert value.shape == reference.shape
    assert np.abs(value - reference).max() <= tolerance * np.abs(reference).max()


def assert_predicts(est, published, args, arrays):
    images, behaviors = published.inputs(args)
    predictions = est.predict(dict.fromkeys(est.mice_, images), dict.fromkeys(est.mice_, behaviors))
    for mouse in est.mice_:
        assert_agrees(
            predictions[mouse], published.prediction(args, arrays, mouse, images, behaviors)
        )
        assert predictions[mouse].std() > 0.05  # numbers that could be wrong


def fixture_run(name):
    """Numbers of a fixture: raw recordings, their statistics, and predictions in data units."""
    io = dict(np.load(REFERENCE / name / "io.npz"))
    statistics = {
        mouse: {
            kind: (io[f"{mouse}/stats/{kind}/mean"], io[f"{mouse}/stats/{kind}/std"])
            for kind in ("image", "behavior", "pupil", "response")
        }
        for mouse in "AB"
    }
    images = {mouse: io[f"{mouse}/images"] for mouse in "AB"}
    behaviors = {
        mouse: np.c_[io[f"{mouse}/behavior"], io[f"{mouse}/pupil_center"]] for mouse in "AB"
    }
    expected = {}
    for mouse in "AB":
        std = io[f"{mouse}/stats/response/std"]
        expected[mouse] = io[f"{mouse}/prediction"] * np.maximum(std, 0.01 * std.mean())
    return statistics, images, behaviors, expected, io


# ------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures_predict_in_data_units(name):
    statistics, images, behaviors, expected, _ = fixture_run(name)
    est = load_v1t(REFERENCE / name, statistics)
    predictions = est.predict(images, behaviors)
    for mouse in "AB":
        assert_agrees(predictions[mouse], expected[mouse])


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures_without_statistics_are_in_standard_units(name):
    _, _, _, _, io = fixture_run(name)
    est = load_v1t(str(REFERENCE / name))
    for mouse in "AB":
        image = (io[f"{mouse}/images"] - io[f"{mouse}/stats/image/mean"]) / io[
            f"{mouse}/stats/image/std"
        ]
        behavior = np.c_[
            io[f"{mouse}/standardized_behavior"], io[f"{mouse}/standardized_pupil_center"]
        ]
        assert_agrees(
            est.predict({mouse: image}, {mouse: behavior})[mouse], io[f"{mouse}/prediction"]
        )


@pytest.mark.parametrize(("changed", "expected"), KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_run(published, tmp_path, changed, expected):
    args = published.arguments(**changed)
    arrays = published.arrays(args)
    kind, parameters = expected
    est = load_v1t(published.write(tmp_path / "run", args, arrays))
    assert type(est) is kind
    assert {name: est.get_params()[name] for name in parameters} == parameters
    assert est.get_params().get("token_grid", "true") == "true"
    assert_predicts(est, published, args, arrays)


@pytest.mark.parametrize(("changed", "true_grid"), SCRAMBLED.values(), ids=SCRAMBLED.keys())
def test_scrambled_grids_are_reproduced_with_a_warning(published, tmp_path, changed, true_grid):
    args = published.arguments(**changed)
    arrays = published.arrays(args)
    folder = published.write(tmp_path / "run", args, arrays)
    with pytest.warns(UserWarning, match="scrambled") as caught:
        est = load_v1t(folder)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert f"{true_grid[0]} x {true_grid[1]} patches" in str(caught[0].message)
    used = est.module_.core.output_shape[1:]
    assert f"{used[0]} x {used[1]}, so" in str(caught[0].message)
    assert used != true_grid
    assert est.token_grid == "published"
    assert_predicts(est, published, args, arrays)


# ---------------------------------------------------------------------------- older versions


def test_integer_mice(published, tmp_path):
    args = published.arguments(mouse_ids=[2, 3], output_shapes={2: [5], 3: [4]})
    arrays = published.arrays(args)
    est = load_v1t(published.write(tmp_path / "run", args, arrays))
    assert est.mice_ == ["2", "3"]
    images, behaviors = published.inputs(args)
    answer = est.predict({3: images}, {3: behaviors})
    assert_agrees(answer[3], published.prediction(args, arrays, "3", images, behaviors))


def test_order_of_mice_is_that_of_the_run(published, tmp_path):
    args = published.arguments(output_shapes={"B": [4], "A": [5]})
    arrays = published.arrays(args)
    folder = published.write(tmp_path / "run", args, dict(sorted(arrays.items())))
    text = (folder / "args.yaml").read_text()
    (folder / "args.yaml").write_text(
        text.replace("  A:\n  - 5\n  B:\n  - 4", "  B: [4]\n  A: [5]")
    )
    est = load_v1t(folder)
    assert est.mice_ == ["B", "A"]
    assert_predicts(est, published, args, arrays)


def test_missing_arguments_take_published_defaults(published, tmp_path):
    args = published.arguments(patch_stride=1, num_blocks=1, input_shape=[1, 144, 256])
    args |= {"resize_image": 1, "emb_dim": 4, "mlp_dim": 4, "num_heads": 1}
    arrays = published.arrays(args)
    known = {name: args[name] for name in ("core", "patch_size")}
    est = load_v1t(published.write(tmp_path / "run", known, arrays))
    assert type(est) is v1.V1TRegressor
    assert (est.patch_stride, est.batch_size, est.max_epochs) == (1, 8, 400)
    assert (est.patch_dropout, est.mlp_dropout, est.core_l1) == (0.0229, 0.2544, 0.5379)
    assert (est.lr, est.core_lr, est.betas) == (0.001647, None, (0.9, 0.9999))
    assert est.image_shape_ == (1, 144, 256)
    assert est.module_.core.input_shape == (1, 36, 64)


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "_orig_mod.module."])
def test_names_of_older_and_wrapped_models(published, tmp_path, prefix):
    args = published.arguments()
    arrays = published.arrays(args)
    older = {
        prefix + name.replace("b-mlp.models.share.", "b-mlp.model."): value
        for name, value in arrays.items()
    }
    assert_predicts(
        load_v1t(published.write(tmp_path / "run", args, older)), published, args, arrays
    )


def test_checkpoints_written_on_a_gpu(published, tmp_path):
    """Such a file names the device of every array; one made here differs in that name alone."""
    args = published.arguments()
    arrays = published.arrays(args)
    folder = published.write(tmp_path / "run", args, arrays)
    path = folder / "ckpt" / "model_state.pt"
    with zipfile.ZipFile(path) as before:
        members = {name: before.read(name) for name in before.namelist()}
    [record] = [name for name in members if name.endswith("data.pkl")]
    assert b"X\x03\x00\x00\x00cpu" in members[record]
    members[record] = members[record].replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    with zipfile.ZipFile(path, "w") as after:
        for name, content in members.items():
            after.writestr(name, content)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=False)  # our own file
    est = load_v1t(folder)
    assert {p.device.type for p in est.module_.parameters()} == {"cpu"}
    assert_predicts(est, published, args, arrays)


def test_modes_and_dtypes_of_the_caller_do_not_matter(published, tmp_path):
    args = published.arguments()
    arrays = published.arrays(args)
    folder = published.write(tmp_path / "run", args, arrays)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            est = load_v1t(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_predicts(est, published, args, arrays)
    assert all(p.requires_grad and not p.is_inference() for p in est.module_.parameters())
    assert {p.dtype for p in est.module_.parameters()} == {torch.float32}


def test_other_dtypes_are_brought_to_float32(published, tmp_path):
    args = published.arguments()
    arrays = published.arrays(args)
    double = {name: value.double() for name, value in arrays.items()}
    est = load_v1t(published.write(tmp_path / "run", args, double))
    assert {p.dtype for p in est.module_.parameters()} == {torch.float32}
    assert_predicts(est, published, args, arrays)


# ---------------------------------------------------------------------- files that do not fit


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"core": "stn"}, "core is 'stn'"),
        ({"core": "stacked2d"}, "are the two files of one run"),
        ({"readout": "dense"}, "not gaussian2d"),
        ({"behavior_mode": 2}, "behavior_mode is 2"),
        ({"shift_mode": 3}, "shift_mode is 3"),
        ({"patch_mode": 1}, "patch_mode is 1"),
        ({"patch_stride": 3}, "patch_stride"),
        ({"patch_size": 5}, "patch_size 5"),
        ({"num_heads": 4}, "num_heads is 4"),
        ({"input_shape": [1, 24, 28]}, "crop"),
        ({"input_shape": [2, 20, 28]}, "images of 2 channels"),
        ({"input_shape": "large"}, "input_shape is 'large'"),
        ({"center_crop": 1.5}, "center_crop"),
        ({"center_crop": 0.5}, "crop"),
        ({"output_shapes": {"A": [5]}}, r"readouts of \['A', 'B'\]"),
        ({"output_shapes": 5}, "output_shapes is 5"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"lr": [0.1]}, "lr is list"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"ds_scale": "yes"}, "ds_scale is 'yes'"),
        ({"bias_mode": 3}, "bias_mode is 3"),
        ({"ds_name": 7}, "ds_name is 7"),
    ],
)
def test_arguments_that_do_not_fit_the_arrays(published, tmp_path, changed, match):
    arrays = published.arrays(published.arguments())
    folder = published.write(tmp_path / "run", {**published.arguments(), **changed}, arrays)
    with pytest.raises(ValueError, match=match):
        load_v1t(folder)
    with pytest.raises(FileNotFoundError, match="is no folder: expected that of a run"):
        load_v1t(tmp_path / "none")
    with pytest.raises(NotADirectoryError, match="is no folder: expected that of a run"):
        load_v1t(folder / "args.yaml")


@pytest.mark.parametrize(
    ("break_it", "match"),
    [
        (lambda a: a.pop("readouts.B.bias"), "no array 'readouts.B.bias'"),
        (lambda a: a.update({"core.extra": torch.zeros(2)}), "no place for: .'core.extra'"),
        (
            lambda a: a.update({"readouts.B.bias": torch.zeros(3)}),
            r"'readouts.B.bias' has the shape",
        ),
        (lambda a: a.update({"readouts.A.bias": "text"}), "nothing but arrays"),
        (lambda a: a.update({"readouts.A.sigma": torch.zeros(1, 5, 3, 3)}), "sigma"),
        (lambda a: a.update({"readouts.A.bias": torch.zeros(5).to_sparse()}), "is sparse"),
        (lambda a: a.update({"readouts.A.bias": torch.zeros(5) * 1j}), "or complex"),
        (lambda a: a.pop("core_shifter.B.mlp.0.weight"), "core_shifter.B.mlp.0.weight"),
        (
            lambda a: a.update({"core.transformer.blocks.0.mha.scale": torch.tensor(1.0)}),
            "attention is scaled by 1",
        ),
    ],
)
def test_arrays_that_do_not_fit(published, tmp_path, break_it, match):
    args = published.arguments()
    arrays = published.arrays(args)
    break_it(arrays)
    with pytest.raises(ValueError, match=match):
        load_v1t(published.write(tmp_path / "run", args, arrays))


def test_positions_none_is_refused(published, tmp_path):
    args = published.arguments(core="cct", behavior_mode=0, patch_stride=1, pos_emb="none")
    arrays = published.arrays(args)
    del arrays["core.tokenizer.pos_embedding"]
    with pytest.raises(ValueError, match="pos_emb"):
        load_v1t(published.write(tmp_path / "run", args, arrays))


def test_settings_without_parameter_are_told(published, tmp_path):
    args = published.arguments(adam_eps=1e-6, shifter_reg_scale=0.1, criterion="mse")
    arrays = published.arrays(args)
    with pytest.warns(UserWarning, match=r"adam_eps=1e-06, shifter_reg_scale=0.1, criterion='mse'"):
        est = load_v1t(published.write(tmp_path / "run", args, arrays))
    assert_predicts(est, published, args, arrays)


def test_missing_files_are_named(published, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"args\.yaml"):
        load_v1t(tmp_path)
    args = published.arguments()
    folder = published.write(tmp_path / "run", args, published.arrays(args))
    (folder / "ckpt" / "model_state.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"model_state\.pt"):
        load_v1t(folder)


# ----------------------------------------------------------------- what a fitted model can do


@pytest.fixture(scope="module")
def loaded(published, tmp_path_factory):
    args = published.arguments(num_blocks=1, patch_stride=5)
    arrays = published.arrays(args)
    est = load_v1t(published.write(tmp_path_factory.mktemp("runs") / "run", args, arrays))
    images, behaviors = published.inputs(args, n_trials=12)
    responses = {
        mouse: published.prediction(args, arrays, mouse, images, behaviors) for mouse in "AB"
    }
    data = (dict.fromkeys("AB", images), dict.fromkeys("AB", behaviors), responses)
    return est, data


def test_loaded_models_answer_in_every_call_form(loaded):
    est, (images, behaviors, responses) = loaded
    by_dict = est.predict(images, behaviors)
    by_list = est.predict([images["A"], images["B"]], [behaviors["A"], behaviors["B"]], ["A", "B"])
    flat = est.predict(
        np.concatenate([images["A"], images["B"]]),
        np.concatenate([behaviors["A"], behaviors["B"]]),
        ["A"] * 12 + ["B"] * 12,
    )
    trials = v1.Trials.from_arrays(images, behaviors, responses)
    of_trials = est.predict(trials)
    for i, mouse in enumerate("AB"):
        np.testing.assert_array_equal(by_list[i], by_dict[mouse])
        np.testing.assert_array_equal(np.stack(flat[12 * i : 12 * i + 12]), by_dict[mouse])
        np.testing.assert_array_equal(np.asarray(of_trials[mouse]), by_dict[mouse])
    assert est.score(trials) == pytest.approx(1)
    assert est.feature_names_in_.tolist() == FIVE
    assert est.history_ == []


def test_loaded_models_are_saved_pickled_and_cloned(loaded, tmp_path):
    est, (images, behaviors, _) = loaded
    before = est.predict(images, behaviors)
    est.save(tmp_path / "model")
    for again in (
        v1.V1TRegressor.load(tmp_path / "model", device="cpu"),
        pickle.loads(pickle.dumps(est)),
        copy.deepcopy(est),
    ):
        after = again.predict(images, behaviors)
        for mouse in "AB":
            np.testing.assert_array_equal(after[mouse], before[mouse])
    assert clone(est).get_params() == est.get_params()
    assert not hasattr(clone(est), "module_")


def test_loaded_models_train_on(loaded, published):
    est, (images, behaviors, responses) = copy.deepcopy(loaded)
    trials = v1.Trials.from_arrays(images, behaviors, responses)
    frozen = {name: value.clone() for name, value in est.module_.core.state_dict().items()}
    est.set_params(device="cpu", lr=1e-5)
    est.partial_fit(trials)
    assert est.n_iter_ == 1
    assert est.score(trials) > 0.9  # it went on from the weights of the run
    est.set_params(warm_start=True, max_epochs=2, validation_fraction=0.25).fit(trials)
    assert est.n_iter_ == 3
    moved = est.module_.core.state_dict()
    assert any(not torch.equal(moved[name], value) for name, value in frozen.items())
    new = v1.Trials.from_arrays(
        {"C": images["A"]}, {"C": behaviors["A"]}, {"C": responses["A"] + 0.1}
    )
    other = est.transfer(new, max_epochs=1, validation_fraction=0.25)
    for name, value in est.module_.core.state_dict().items():
        assert torch.equal(other.module_.core.state_dict()[name], value)


def test_random_numbers_are_left_alone(published, tmp_path):
    args = published.arguments()
    folder = published.write(tmp_path / "run", args, published.arrays(args))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_v1t(folder)
    assert torch.equal(torch.rand(2), expected)

"""Saved models of Sensorium 2022, against their fixtures and a plain restatement."""

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import v1tlearn as v1
from v1tlearn.interop import load_sensorium

REFERENCE = Path(__file__).parents[1] / "reference"
FIXTURES = ("cnn_gray", "cnn_behavior_channels")
KEYS = ("21067-10-18", "22846-10-16")


def fixture_state(name, key=KEYS[0]):
    """Arrays of a fixture under the names of a saved model, and the rest of it."""
    arrays = dict(np.load(REFERENCE / f"{name}.npz"))
    parts = {"core/": "core.", "readout/": f"readout.{key}.", "shifter/": f"shifter.{key}."}
    state = {
        theirs + full.removeprefix(part): value
        for full, value in arrays.items()
        for part, theirs in parts.items()
        if full.startswith(part)
    }
    return state, arrays


def make_state(
    *,
    channels=1,
    width=6,
    n_layers=3,
    kernels=(5, 3),
    separable=True,
    bias=True,
    hidden_layers=1,
    hidden_units=7,
    dims=2,
    free=False,
    sigma=(2, 2),
    shifter=True,
    keys=KEYS,
    seed=0,
):
    """State of a model with random weights, every array under its published name."""
    rng = np.random.default_rng(seed)
    out = {"core._input_weights_regularizer.laplace.filter": torch.zeros(1, 1, 3, 3)}

    def put(name, *shape, scale=0.5, offset=0.0):
        out[name] = torch.from_numpy(offset + scale * rng.standard_normal(shape)).float()

    for i in range(n_layers):
        base = f"core.features.layer{i}"
        if i == 0:
            put(f"{base}.conv.weight", width, channels, kernels[0], kernels[0], scale=0.2)
        elif separable:
            shapes = {"in_depth": (width, 1, 1), "spatial": (1, kernels[1], kernels[1])}
            for part, shape in {**shapes, "out_depth": (width, 1, 1)}.items():
                put(f"{base}.ds_conv.{part}_conv.weight", width, *shape)
                if bias:
                    put(f"{base}.ds_conv.{part}_conv.bias", width)
        else:
            put(f"{base}.conv.weight", width, width, kernels[1], kernels[1], scale=0.2)
            if bias:
                put(f"{base}.conv.bias", width)
        put(f"{base}.norm.weight", width, scale=0.1, offset=1)
        put(f"{base}.norm.bias", width)
        put(f"{base}.norm.running_mean", width)
        out[f"{base}.norm.running_var"] = torch.from_numpy(rng.uniform(1, 2, width)).float()
        out[f"{base}.norm.num_batches_tracked"] = torch.tensor(9)
    for key, n in zip(keys, (5, 4), strict=False):
        base = f"readout.{key}"
        put(f"{base}.sigma", 1, n, *sigma, scale=0.1)
        put(f"{base}._features", 1, width, 1, n)
        put(f"{base}.bias", n)
        if free:
            put(f"{base}._mu", 1, n, 1, 2, scale=0.3)
        else:
            grid = rng.uniform(-1, 1, (n, dims))
            grid -= grid.mean(0)
            out[f"{base}.source_grid"] = torch.from_numpy(grid / np.abs(grid).max()).float()
            widths = [dims, *[hidden_units] * hidden_layers, 2]
            for i, (n_in, n_out) in enumerate(pairwise(widths)):
                put(f"{base}.mu_transform.{2 * i}.weight", n_out, n_in)
                put(f"{base}.mu_transform.{2 * i}.bias", n_out)
        if shifter:
            for i, sizes in enumerate([(5, 2), (5, 5), (2, 5)]):
                put(f"shifter.{key}.mlp.{2 * i}.weight", *sizes)
                put(f"shifter.{key}.mlp.{2 * i}.bias", sizes[0])
    return out


def restated(state, key, images, behaviors, linear=False):
    """Prediction in evaluation mode and float64; the behaviour of five columns."""
    a = {name: torch.as_tensor(value).double() for name, value in state.items()}
    x, behaviors = torch.as_tensor(images).double(), torch.as_tensor(behaviors).double()
    planes = a["core.features.layer0.conv.weight"].shape[1] - x.shape[1]
    if planes:
        values = behaviors[:, :planes, None, None].expand(-1, -1, *x.shape[2:])
        x = torch.cat((x, values), 1)
    layer = 0
    while (base := f"core.features.layer{layer}") + ".norm.running_mean" in a:
        for part in (
            "conv",
            "ds_conv.in_depth_conv",
            "ds_conv.spatial_conv",
            "ds_conv.out_depth_conv",
        ):
            if (weight := a.get(f"{base}.{part}.weight")) is None:
                continue
            groups = len(weight) if part.endswith("spatial_conv") else 1
            padding = weight.shape[-1] // 2 if layer else 0
            x = F.conv2d(x, weight, a.get(f"{base}.{part}.bias"), padding=padding, groups=groups)
        mean, var = a[f"{base}.norm.running_mean"], a[f"{base}.norm.running_var"]
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        for name, combine in (("weight", torch.mul), ("bias", torch.add)):
            if f"{base}.norm.{name}" in a:
                x = combine(x, a[f"{base}.norm.{name}"][:, None, None])
        if f"{base}.scale.scale" in a:
            x = x * a[f"{base}.scale.scale"]
        if f"{base}.bias.bias" in a:
            x = x + a[f"{base}.bias.bias"]
        x = x if linear else F.elu(x)
        layer += 1
    base = f"readout.{key}"
    if f"{base}._mu" in a:
        mu = a[f"{base}._mu"][0, :, 0].clamp(-1, 1)
    else:
        mu, i = a[f"{base}.source_grid"], 0
        while f"{base}.mu_transform.{i}.weight" in a:
            mu = F.elu(mu) if i else mu
            mu = F.linear(
                mu, a[f"{base}.mu_transform.{i}.weight"], a[f"{base}.mu_transform.{i}.bias"]
            )
            i += 2
        mu = mu.tanh()
    points = mu.expand(len(x), -1, -1)
    if f"shifter.{key}.mlp.0.weight" in a:
        shift = behaviors[:, 3:]
        for i in (0, 2, 4):
            weight, offset = (a[f"shifter.{key}.mlp.{i}.{what}"] for what in ("weight", "bias"))
            shift = F.linear(shift, weight, offset).tanh()
        points = points + shift[:, None]
    sampled = F.grid_sample(x, points[:, :, None], align_corners=True)[..., 0]
    features = a[f"{base}.features" if f"{base}.features" in a else f"{base}._features"]
    out = (sampled * features[0, :, 0]).sum(1) + a.get(f"{base}.bias", 0)
    return (F.elu(out) + 1).numpy()


def inputs(channels=1, size=(14, 18), n_trials=4):
    rng = np.random.default_rng(5)
    images = rng.standard_normal((n_trials, channels, *size), dtype=np.float32)
    return images, rng.standard_normal((n_trials, 5), dtype=np.float32)


def assert_agrees(value, reference, tolerance=1e-4):
    assert value.shape == reference.shape
    assert np.abs(value - reference).max() <= tolerance * np.abs(reference).max()


def assert_predicts(est, state, channels=1, linear=False):
    images, behaviors = inputs(channels)
    for key in est.mice_:
        found = est.predict({key: images}, {key: behaviors})[key]
        assert_agrees(found, restated(state, key, images, behaviors, linear))
        assert found.std() > 0.05


# -------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures(name):
    state, arrays = fixture_state(name)
    est = load_sensorium(state, image_shape=(1, 36, 64))
    behaviors = np.zeros((7, 5), np.float32)
    behaviors[:, : arrays["behaviors"].shape[1]] = arrays["behaviors"]
    behaviors[:, 3:] = arrays["pupil_center"]
    assert type(est) is v1.CNNRegressor
    assert_agrees(est.predict(arrays["x"][:, :1], behaviors), arrays["prediction"])


def test_a_file_that_is_called_as_an_ln_model_is_asks_which_it_is(tmp_path):
    path = tmp_path / "sensorium_ln_model.npz"
    np.savez(path, **make_state())
    with pytest.warns(UserWarning, match=r"sensorium_ln_model.npz is called .* linear=True"):
        assert type(load_sensorium(path, image_shape=(1, 14, 18))) is v1.CNNRegressor
    for linear, kind in ((True, v1.LNRegressor), (False, v1.CNNRegressor)):
        assert type(load_sensorium(path, linear=linear, image_shape=(1, 14, 18))) is kind


def test_grey_levels_are_told_of_where_statistics_are_unknown(tmp_path):
    state, arrays = fixture_state("cnn_gray")
    images, plane = arrays["x"][:, :1], np.zeros((len(arrays["x"]), 5), np.float32)
    grey = (images * 44 + 113).clip(0, 255).astype(np.uint8)
    est = load_sensorium(state, image_shape=(1, 36, 64))
    est.save(tmp_path / "model")
    for opened in (est, v1.load(tmp_path / "model")):
        opened.predict(images, plane)
        for raw in (grey, grey.astype(np.float32)):
            with pytest.warns(UserWarning, match="are grey levels, .* takes standardised ones"):
                opened.predict(raw, plane)
    mine = np.random.default_rng(0).poisson(2.0, size=(len(grey), 3)).astype(np.float32)
    new = v1.Trials.from_arrays({"mine": grey}, {"mine": plane}, {"mine": mine})
    options = {"max_epochs": 1, "validation_fraction": 0.0}
    with pytest.warns(UserWarning, match="'mine': the images are grey levels"):
        est.transfer(new, **options)
    est.transfer(new, standardize=True, **options).predict(new)
    told = {mouse: {"image": (113.0, 44.0)} for mouse in est.mice_}
    load_sensorium(state, told, image_shape=(1, 36, 64)).predict(grey, plane)


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures_in_data_units(name, tmp_path):
    state, arrays = fixture_state(name)
    torch.save({k: torch.from_numpy(np.array(v)) for k, v in state.items()}, tmp_path / "model.pth")
    rng = np.random.default_rng(0)
    std = rng.uniform(0.5, 3, 11)
    std[3] = 1e-6  # raised to 1 % of the mean
    statistics = {
        "image": (110.0, 60.0),
        "behavior": (rng.uniform(size=3), np.array([0.5, 2, 4])),
        "pupil": (np.array([100.0, 90]), np.array([9.0, 7])),
        "response": (rng.uniform(size=11), std),
    }
    est = load_sensorium(tmp_path / "model.pth", {KEYS[0]: statistics}, image_shape=(1, 36, 64))
    images = arrays["x"][:, :1] * 60 + 110
    behaviors = np.zeros((7, 5))
    if arrays["behaviors"].shape[1]:
        behaviors[:, :3] = arrays["behaviors"] * statistics["behavior"][1]
    behaviors[:, 3:] = arrays["pupil_center"] * statistics["pupil"][1] + statistics["pupil"][0]
    expected = arrays["prediction"] * np.maximum(std, 0.01 * std.mean())
    assert_agrees(est.predict(images, behaviors), expected)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, {"depth_separable": True, "bias": True, "n_layers": 3, "hidden_channels": 6}),
        ({"bias": False}, {"bias": False}),
        ({"separable": False, "bias": False, "kernels": (7, 5)}, {"depth_separable": False}),
        ({"separable": False, "kernels": (4, 5)}, {"input_kernel": 4, "hidden_kernel": 5}),
        ({"n_layers": 1}, {"n_layers": 1}),
        ({"hidden_layers": 3}, {"position_hidden_layers": 3, "position_hidden_units": 7}),
        ({"hidden_layers": 0}, {"position_hidden_layers": 0}),
        ({"dims": 3}, {"position_dims": 3}),
        ({"free": True}, {"position_network": False}),
        ({"sigma": (1, 2)}, {"gaussian": "uncorrelated"}),
        ({"sigma": (1, 1)}, {"gaussian": "isotropic"}),
        ({"shifter": False}, {"shift": "none"}),
        ({"channels": 4}, {"behavior_mode": "channels", "behavior_columns": "non_pupil"}),
        ({"channels": 6}, {"behavior_mode": "channels", "behavior_columns": "all"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("linear", [False, True])
def test_every_kind_of_model(options, parameters, linear):
    state = make_state(**options)
    est = load_sensorium(state, linear=linear, image_shape=(1, 14, 18))
    assert type(est) is (v1.LNRegressor if linear else v1.CNNRegressor)
    assert est.mice_ == list(KEYS)
    assert {name: est.get_params()[name] for name in parameters} == parameters
    assert_predicts(est, state, linear=linear)


def test_parameters_are_those_of_the_published_recipe():
    est = load_sensorium(make_state(), image_shape=(1, 14, 18))
    published = v1.CNNRegressor.from_preset("sensorium2022").get_params()
    sizes = {"n_layers", "hidden_channels", "input_kernel", "hidden_kernel", "behavior_mode"}
    sizes |= {"position_hidden_units", "standardize"}
    own = est.get_params()
    assert {k for k in own if own[k] != published[k]} == sizes
    assert est.batch_norm_momentum == 0.9


def test_colour_images():
    state = make_state(channels=5)
    est = load_sensorium(state, image_shape=(2, 14, 18))
    assert est.image_shape_ == (2, 14, 18)
    assert est.core_columns_ == ["pupil_dilation", "pupil_dilation_derivative", "running_speed"]
    assert_predicts(est, state, channels=2)


def test_default_size_is_resized_as_published():
    state = make_state(channels=4, kernels=(9, 7), n_layers=2)
    est = load_sensorium(state)
    assert est.image_shape_ == (1, 144, 256)
    assert est.module_.core.input_shape == (4, 36, 64)
    images, behaviors = inputs(size=(144, 256))
    blocks = images.reshape(4, 1, 36, 4, 64, 4)
    small = blocks[:, :, :, 1:3, :, 1:3].mean((3, 5))  # the central 2 x 2 of 4 x 4 pixels
    found = est.predict({KEYS[1]: images}, {KEYS[1]: behaviors})[KEYS[1]]
    assert_agrees(found, restated(state, KEYS[1], small, behaviors))


def test_models_without_shifter_and_behaviour_need_no_behaviour():
    state = make_state(shifter=False)
    est = load_sensorium(state, image_shape=(1, 14, 18))
    images, behaviors = inputs()
    found = est.predict({KEYS[0]: images})[KEYS[0]]
    assert_agrees(found, restated(state, KEYS[0], images, behaviors))


def test_own_behaviour_columns():
    state = make_state(channels=2, shifter=False)
    est = load_sensorium(state, image_shape=(1, 14, 18), behavior_names=["running_speed"])
    assert est.core_columns_ == ["running_speed"]
    images, behaviors = inputs()
    found = est.predict({KEYS[0]: images}, {KEYS[0]: behaviors[:, :1]})[KEYS[0]]
    assert_agrees(found, restated(state, KEYS[0], images, behaviors))


# -------------------------------------------------------------------------- other versions


def test_normalisation_with_layers_of_its_own():
    state = make_state()
    rng = torch.Generator().manual_seed(0)
    for layer, (name, other) in enumerate(
        (("weight", "scale.scale"), ("bias", "bias.bias"), (None, None))
    ):
        base = f"core.features.layer{layer}."
        del state[base + "norm.weight"], state[base + "norm.bias"]
        del state[base + "norm.num_batches_tracked"]
        if name:
            state[base + other] = 1 + torch.rand(1, 6, 1, 1, generator=rng)
    est = load_sensorium(state, image_shape=(1, 14, 18))
    assert_predicts(est, state)
    state["core.features.layer2.norm.weight"] = torch.ones(6)
    with pytest.raises(ValueError, match=r"layer2 has norm\.weight alone"):
        load_sensorium(state, image_shape=(1, 14, 18))


def test_older_names_and_readouts_without_bias():
    state = make_state()
    for key in KEYS:
        state[f"readout.{key}.features"] = state.pop(f"readout.{key}._features")
        del state[f"readout.{key}.bias"]
    assert_predicts(load_sensorium(state, image_shape=(1, 14, 18)), state)


def test_free_and_predicted_positions_side_by_side():
    state, free = make_state(), make_state(free=True)
    base = f"readout.{KEYS[1]}."
    state = {name: value for name, value in state.items() if not name.startswith(base)}
    state |= {name: value for name, value in free.items() if name.startswith(base)}
    est = load_sensorium(state, image_shape=(1, 14, 18))
    assert est.positions_[KEYS[1]] is None
    assert_predicts(est, state)


def test_training_goes_on_as_if_the_bias_had_stayed():
    """The bias of an ordinary convolution is taken off by batch statistics in any case."""
    state = make_state(separable=False, n_layers=2, kernels=(3, 3))
    core = load_sensorium(state, image_shape=(1, 14, 18)).module_.core.train()
    images, _ = inputs()
    x = torch.as_tensor(images)
    for layer in (0, 1):
        base = f"core.features.layer{layer}."
        x = F.conv2d(x, state[f"{base}conv.weight"], state.get(f"{base}conv.bias"), padding=layer)
        weight, bias = state[f"{base}norm.weight"], state[f"{base}norm.bias"]
        x = F.elu(F.batch_norm(x, None, None, weight, bias, training=True))
    torch.testing.assert_close(core(torch.as_tensor(images)), x, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------- what is not there


def change(**changed):
    def changed_state():
        state = make_state()
        for name, value in changed.items():
            name = name.replace("__", ".").replace("KEY", KEYS[0])
            if value is None:
                del state[name]
            else:
                state[name] = torch.zeros(value)
        return state

    return changed_state


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (change(readout__KEY___features=(1, 18, 1, 5)), "several layers"),
        (change(readout__KEY__scales=(1, 1, 1, 5)), "features shared between neurons"),
        (change(readout__KEY__grid_sharing_index=(5,)), "positions shared between neurons"),
        (change(readout__KEY__sigma=(1, 5, 3)), "4 dimensions"),
        (change(readout__KEY__sigma=(1, 5, 3, 3)), "sigma"),
        (change(readout__KEY__sigma=(1, 5, 1, 1)), "gaussian of mouse"),
        (change(readout__KEY__bias=(4,)), "bias' has the shape"),
        (change(readout__KEY__source_grid=None), "source_grid"),
        (change(shifter__KEY__mlp__0__weight=(2, 2)), "shifter of mouse"),
        (change(shifter__KEY__mlp__6__weight=(2, 2)), "shifter of mouse"),
        (change(shifter__KEY__weight=(2, 2)), "no place for"),
        (change(core__features__layer1__attention_conv__weight=(2,)), "no place for"),
        (change(core__features__layer1__norm__running_mean=None), "no batch normalisation"),
        (change(core__features__layer0__conv__weight=(6, 1, 5, 3)), "5 x 3 pixels"),
        (change(core__features__layer0__conv__weight=None), "layer0.conv.weight"),
        (change(core__features__layer4__norm__bias=(6,)), "layer4"),
        (
            change(core__features__layer2__ds_conv__spatial_conv__weight=(6, 1, 5, 5)),
            "spatial_conv",
        ),
        (change(core__features__layer1__scale__scale=(1, 6, 1, 1)), "expected one"),
        (change(modulator__KEY__weight=(1,)), "no place for"),
        (lambda: {k: v for k, v in make_state().items() if "readout" not in k}, "no readout"),
        (
            lambda: {k: v for k, v in make_state().items() if f"shifter.{KEYS[0]}" not in k},
            "shifters",
        ),
        (dict, "no array"),
    ],
)
def test_models_without_counterpart_are_explained(state, match):
    with pytest.raises(ValueError, match=match):
        load_sensorium(state(), image_shape=(1, 14, 18))


@pytest.mark.parametrize(
    ("channels", "options", "match"),
    [
        (2, {}, "pass image_shape="),
        (5, {}, "pass image_shape="),
        (3, {"image_shape": (1, 14, 18)}, "behavior_names"),
        (1, {"image_shape": (2, 14, 18)}, "image_shape has 2 channels"),
        (1, {"image_shape": (14, 18)}, "image_shape=.14, 18."),
        (1, {"image_shape": (1, 0, 18)}, "image_shape=.1, 0, 18."),
        (1, {"image_shape": 5}, "image_shape=5: expected"),
        (1, {"image_shape": (1, None, 18)}, "image_shape=.1, None, 18."),
        (4, {"behavior_names": ["pupil_x", "pupil_y"]}, "behavior_names"),
        (1, {"image_shape": (1, 14, 18), "behavior_names": ["running_speed"]}, "pupil_x"),
    ],
)
def test_what_arrays_do_not_tell_is_asked_for(channels, options, match):
    with pytest.raises(ValueError, match=match):
        load_sensorium(make_state(channels=channels), **options)


def test_other_things_than_models_are_refused(tmp_path):
    with pytest.raises(TypeError, match="expected arrays by name"):
        load_sensorium([1, 2])
    with pytest.raises(TypeError, match=r"holds 'a', a int"):
        load_sensorium({"a": 1})
    with pytest.raises(FileNotFoundError):
        load_sensorium(tmp_path / "model.pth")
    torch.save({"a": 1}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="state_dict"):
        load_sensorium(str(tmp_path / "model.pth"))


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict"])
def test_states_in_a_checkpoint_are_found(key, tmp_path):
    state = make_state()
    content = {"epoch": 3, key: state, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, tmp_path / "model.pth")
    for given in (content, tmp_path / "model.pth"):
        assert_predicts(load_sensorium(given, image_shape=(1, 14, 18)), state)
    two = dict.fromkeys(("model", "state_dict"), state)
    with pytest.raises(TypeError, match="holds 'model', a dict"):
        load_sensorium(two, image_shape=(1, 14, 18))


def test_files_of_numpy_are_read(tmp_path):
    state = make_state()
    arrays = {name: value.numpy() for name, value in state.items()}
    np.savez(tmp_path / "model.npz", **arrays)
    assert_predicts(load_sensorium(tmp_path / "model.npz", image_shape=(1, 14, 18)), state)
    with pytest.raises(FileNotFoundError):
        load_sensorium(tmp_path / "other.npz")
    np.savez(tmp_path / "other.npz", **arrays, objects=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"other\.npz is no file of plain arrays"):
        load_sensorium(tmp_path / "other.npz")
    content = (tmp_path / "model.npz").read_bytes()
    np.save(tmp_path / "one.npy", np.zeros(3))
    for wrong in (content[:-100], content[100:], b"", b"text", (tmp_path / "one.npy").read_bytes()):
        (tmp_path / "other.npz").write_bytes(wrong)
        with pytest.raises(ValueError, match=r"other\.npz"):
            load_sensorium(tmp_path / "other.npz")


def test_loaded_models_are_whole(tmp_path):
    est = load_sensorium(make_state(), image_shape=(1, 14, 18))
    images, behaviors = inputs(n_trials=16)
    data = [dict.fromkeys(KEYS, values) for values in (images, behaviors)]
    before = est.predict(*data)
    est.save(tmp_path / "model")
    for again in (
        v1.CNNRegressor.load(tmp_path / "model", device="cpu"),
        pickle.loads(pickle.dumps(est)),
    ):
        after = again.predict(*data)
        for key in KEYS:
            np.testing.assert_array_equal(after[key], before[key])
    assert est.score(*data, before) == pytest.approx(1)
    trials = v1.Trials.from_arrays(*data, before)
    est.set_params(device="cpu", lr=1e-5, batch_size=8).partial_fit(trials)
    assert est.n_iter_ == 1
    new = v1.Trials.from_arrays({"C": images}, {"C": behaviors}, {"C": before[KEYS[0]] + 0.1})
    other = est.transfer(new, max_epochs=1, validation_fraction=0.25)
    assert other.mice_ == ["C"]

"""Released full models and minimodels: the reference files, other sizes, and damaged ones."""

import pickle

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.nn.minimodel_files import OPTIONS, REFERENCE
from v1tlearn.interop import load_minimodel

NAMES = sorted(path.stem for path in REFERENCE.glob("*model_*.npz") if "run" not in path.stem)
TOLD = ("activation", "pooling")


def arrays_of(name):
    with np.load(REFERENCE / f"{name}.npz") as file:
        return dict(file)


def released(arrays, prefix="state0/"):
    """State under the published names, as a released file has it."""
    return {
        n.removeprefix(prefix): torch.from_numpy(np.asarray(v))
        for n, v in arrays.items()
        if n.startswith(prefix)
    }


def told(name):
    """Arguments that the arrays do not tell."""
    given = {k: v for k, v in OPTIONS.get(name, {}).items() if k in TOLD}
    return {} if name.startswith("minimodel") else given


def small(name="fullmodel_2layer"):
    return released(arrays_of(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["mapping", "torch", "npz"])
def test_predictions_of_reference_models(name, form, tmp_path):
    arrays = arrays_of(name)
    state = source = released(arrays)
    if form == "torch":
        source = tmp_path / "model.pt"
        torch.save(state, source)
    elif form == "npz":
        source = tmp_path / "model.npz"
        np.savez(source, **{k: v.numpy() for k, v in state.items()})
    est = load_minimodel(source, **told(name))
    assert type(est) is v1.FullModelRegressor
    assert est.mice_ == ["mouse"]
    assert est.n_neurons_ == {"mouse": arrays["responses"].shape[1]}
    assert est.image_shape_ == (1, *arrays["images"].shape[1:])
    out = est.predict(arrays["images"][arrays["batch_index"]][:, None])
    expected = arrays["eval/prediction"]
    assert np.abs(out - expected).max() < 1e-5 * np.abs(expected).max()
    est.save(tmp_path / "saved")
    again = v1.load(tmp_path / "saved").predict(arrays["images"][arrays["batch_index"]][:, None])
    assert np.array_equal(again, out)


def test_a_trained_state():
    arrays = arrays_of("fullmodel_3layer")
    est = load_minimodel(released(arrays, "state3/"))
    out = est.predict(arrays["val_images"][:, None])
    expected = arrays["validation_after_3_steps/prediction"]
    assert np.abs(out - expected).max() < 1e-4 * np.abs(expected).max()


def test_sizes_come_from_the_arrays():
    est = load_minimodel(small())
    assert (est.channels, est.kernels) == ((3, 5), (25, 9))
    assert (est.activation, est.pooling, est.pointwise_output) == ("elu", "max", True)
    assert est.carry_patience
    mini = load_minimodel(small("minimodel_neuron1"))
    assert (mini.channels, mini.activation, mini.pointwise_output) == ((3, 6), "relu", False)
    assert not load_minimodel(small("fullmodel_1layer")).pointwise_output


@pytest.mark.parametrize("pooling", ["max", "mean", "stride"])
@pytest.mark.parametrize("kernels", [(4, 3), (5, 2), (6, 6), (3,)])
@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize("sides", [(13, 16), (18, 21)])
def test_other_geometries(pooling, kernels, separable, sides):
    torch.manual_seed(0)
    core = v1.nn.TwoLayerCore(
        (2, *sides),
        channels=(2, 3)[: len(kernels)],
        kernels=kernels,
        pooling=pooling,
        depth_separable=separable,
        activation="relu",
    ).eval()
    state = {}
    for name, value in core.state_dict().items():
        _, layer, part, *rest = name.split(".")
        parts = ("in_depth_conv", "spatial_conv", "out_depth_conv")
        middle = "norm" if part == "1" else "conv"
        middle = f"ds_conv.{parts[int(rest[0])]}" if len(rest) == 2 else middle
        state[f"core.features.layer{layer}.{middle}.{rest[-1]}"] = value
    c, h, w = core.output_shape
    for name, size in {"Wy": h, "Wx": w, "Wc": c}.items():
        state[f"readout.{name}"] = torch.rand(4, 1, size)
    state["readout.bias"] = torch.randn(4)
    options = {"pooling": pooling, "activation": "relu"}
    est = load_minimodel(state, **options, image_shape=(2, *sides))
    images = torch.randn(3, 2, *sides)
    maps = core(images)
    weights = (state[f"readout.{name}"][:, 0] for name in ("Wc", "Wy", "Wx"))
    seen = torch.einsum("bcyx,nc,ny,nx->bn", maps, *weights) + state["readout.bias"]
    expected = torch.nn.functional.elu(seen) + 1
    np.testing.assert_allclose(est.predict(images.numpy()), expected.detach(), rtol=2e-4, atol=1e-5)
    found = load_minimodel(state, **options).image_shape_
    maps = v1.nn.two_layer_map(found[1:], kernels, pooling=pooling, depth_separable=separable)
    assert found[0] == 2
    assert maps == (h, w)


def test_statistics_bring_data_units(tmp_path):
    arrays = arrays_of("fullmodel_2layer")
    plain = load_minimodel(released(arrays))
    images = arrays["images"][:, None]
    mean, std = np.zeros(4), np.array([2.0, 3.0, 4.0, 5.0])
    given = {"image": (120.0 * np.ones(1), 60.0 * np.ones(1)), "response": (mean, std)}
    for name in ("mouse", "FX20"):
        est = load_minimodel(released(arrays), {name: given})
        out = est.predict(images * 60 + 120)
        np.testing.assert_allclose(out, plain.predict(images) * std, rtol=1e-4, atol=1e-5)
    rng = np.random.default_rng(0)
    trials = v1.Trials.from_arrays(
        {"FX20": images * 60 + 120}, responses={"FX20": rng.exponential(2, (10, 4))}
    )
    est = load_minimodel(released(arrays), trials)
    assert est.statistics_["mouse"]["image_mean"] == pytest.approx(
        (images * 60 + 120).mean(), rel=1e-5
    )
    again = load_minimodel(released(arrays), trials.recordings)
    assert np.array_equal(again.predict(images), est.predict(images))


def test_a_loaded_model_trains_on():
    arrays = arrays_of("fullmodel_2layer")
    est = load_minimodel(released(arrays))
    est.set_params(max_epochs=1, warm_start=True, validation_fraction=0, batch_size=5)
    before = est.predict(arrays["images"][:, None])
    est.fit(arrays["images"][:, None], responses=arrays["responses"])
    assert not np.array_equal(est.predict(arrays["images"][:, None]), before)
    assert (est.module_.readout("mouse").rows >= 0).all()


# ------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "name",
    [
        "core.features.layer0.conv.weight",
        "core.features.layer1.ds_conv.in_depth_conv.weight",
        "core.features.layer1.ds_conv.spatial_conv.weight",
        "core.features.layer0.norm.running_var",
        "readout.Wx",
        "readout.bias",
    ],
)
def test_missing_arrays_are_named(name):
    state = small()
    del state[name]
    with pytest.raises(ValueError, match=f"no array '{name}'"):
        load_minimodel(state)


def test_running_means_and_layers_that_are_missing():
    state = small()
    del state["core.features.layer1.norm.running_mean"]
    with pytest.raises(ValueError, match="layer1 has no batch normalisation"):
        load_minimodel(state)
    state = {n.replace("layer1", "layer2"): v for n, v in small().items()}
    with pytest.raises(ValueError, match="expected 'layer0' on"):
        load_minimodel(state)
    with pytest.raises(ValueError, match="expected 'layer0' on"):
        load_minimodel({"readout.bias": torch.zeros(1)})


@pytest.mark.parametrize("layer", ["layer0", "layer1"])
@pytest.mark.parametrize(("lost", "left"), [("bias", "weight"), ("weight", "bias")])
def test_half_a_normalisation_is_refused(layer, lost, left):
    state = small()
    del state[f"core.features.{layer}.norm.{lost}"]
    with pytest.raises(ValueError, match=rf"{layer} has norm\.{left} alone: expected norm\.weight"):
        load_minimodel(state)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("readout.Wx", lambda v: v[..., :-1], "give maps|asks for|no image"),
        ("readout.Wc", lambda v: v[..., :-1], "'readout.Wc' has 4 channels"),
        ("readout.Wc", lambda v: torch.cat((v, v), 1), "of rank 2: expected rank 1"),
        ("readout.bias", lambda v: v[:-1], "'readout.bias' has the shape"),
        ("core.features.layer0.norm.weight", lambda v: v[:-1], "norm.weight' has the shape"),
        ("core.features.layer0.conv.weight", lambda v: v[..., :-1], "25 x 24"),
        ("core.features.layer0.conv.weight", lambda v: v * torch.nan, "holds NaN or infinite"),
        ("readout.Wy", lambda v: v / 0, "holds NaN or infinite"),
    ],
)
def test_wrong_arrays_are_named(name, change, message):
    state = small()
    state[name] = change(state[name])
    with pytest.raises(ValueError, match=message):
        load_minimodel(state, image_shape=(1, 20, 34))


def test_arrays_without_a_place_are_named():
    state = small() | {"core.features.layer1.conv2.weight": torch.zeros(2)}
    with pytest.raises(ValueError, match="no place for"):
        load_minimodel(state)
    state = small() | {"shifter.weight": torch.zeros(2)}
    with pytest.raises(ValueError, match="no place for"):
        load_minimodel(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "gelu"}, "activation='gelu': expected one of 'elu', 'relu', 'none'"),
        ({"pooling": None}, "pooling=None: expected one of 'max', 'mean', 'stride'"),
        ({"image_shape": (20, 34)}, r"expected \(channels, height, width\)"),
        ({"image_shape": (1, 0, 34)}, r"expected \(channels, height, width\)"),
        ({"image_shape": (2, 20, 34)}, "conv.weight' has the shape"),
        ({"image_shape": (1, 24, 34)}, "'readout.Wy' has the shape"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        load_minimodel(small(), **options)


def test_a_minimodel_has_relu():
    state = small("minimodel_neuron0")
    assert load_minimodel(state, activation="relu").activation == "relu"
    with pytest.raises(ValueError, match="minimodel, whose layers have ReLU"):
        load_minimodel(state, activation="none")


def test_statistics_of_others_are_named():
    two = {"A": {}, "B": {}}
    with pytest.raises(ValueError, match=r"\['mouse'\] are missing"):
        load_minimodel(small(), two)
    with pytest.raises(ValueError, match="3 means and 3 standard deviations: expected 4"):
        load_minimodel(small(), {"mouse": {"response": (np.ones(3), np.ones(3))}})
    with pytest.raises(ValueError, match="mouse 'mouse': the standard deviation of 'image' is 0"):
        load_minimodel(small(), {"mouse": {"image": (2.0, 0.0)}})


class Danger:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_nothing_in_a_file_is_run(tmp_path, capsys):
    path = tmp_path / "model.pt"
    torch.save({**small(), "extra": Danger()}, path)
    with pytest.raises(ValueError, match="was refused, and nothing in it was run"):
        load_minimodel(path)
    path.write_bytes(pickle.dumps(Danger()))
    with pytest.raises(ValueError, match=r"model\.pt"):
        load_minimodel(path)
    np.savez(tmp_path / "model.npz", weights=np.array([Danger()], dtype=object))
    with pytest.raises(ValueError, match=r"model\.npz"):
        load_minimodel(tmp_path / "model.npz")
    assert "must not run" not in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="missing: expected a file"):
        load_minimodel(tmp_path / "none.pt")
    with pytest.raises(TypeError, match="source is a list"):
        load_minimodel([1, 2])

"""Towers in the layout of the published code, opened as a fitted aligner."""

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.nn.towers.published_towers import assert_agrees, load, under


def towers(readout="published", kind="joint"):
    """States after three steps, the arguments that leave no trace, and what to compare with."""
    arrays = load(f"three_steps_{readout}")
    after = under(under(arrays, "start/"), "") | under(arrays, f"{kind}/after/")
    image, neural = under(after, "image/"), under(after, "neural/")
    options = {
        "image_shape": arrays["image"].shape[1:],
        "map_size": arrays["map_size"].tolist(),
        "grid": arrays["grid"].tolist(),
        "heads": int(arrays["neural_heads"]),
        "stage_heads": arrays["heads"].tolist(),
        "cross_attention": readout,
        "image_scale": (128.0, 64.0),
    }
    return arrays, image, neural, options


def apart(neural):
    """State as it is saved: two small layers per neuron."""
    out = {n: w for n, w in neural.items() if n.partition(".")[0] not in ("embedding", "ff")}
    for i, (weight, bias) in enumerate(
        zip(neural["embedding.weight"], neural["embedding.bias"], strict=True)
    ):
        out[f"embedding.embedding_layers.{i}.weight"] = weight[:, None]
        out[f"embedding.embedding_layers.{i}.bias"] = bias
        out[f"ff.embedding_layers.{i}.weight"] = neural["ff.weight"][i][None]
        out[f"ff.embedding_layers.{i}.bias"] = neural["ff.bias"][i : i + 1]
    return out


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("kind", ["joint", "released"])
@pytest.mark.parametrize("readout", ["published", "stated"])
def test_maps_are_those_of_the_published_towers(readout, kind, stacked):
    arrays, image, neural, options = towers(readout, kind)
    est = v1.load_dina(image, neural if stacked else apart(neural), **options)
    maps = est.transform_images(arrays["image"]), est.transform_responses(arrays["s"])
    for own, of in zip(maps, ("image", "neural"), strict=True):
        assert own.dims == ("trial", "channel", "height", "width")
        assert_agrees(own.values, arrays[f"{kind}/eval_map_{of}"], 1e-3)
    assert est.mice_ == ["mouse"]
    assert est.cross_attention == readout


def test_files_and_stages_without_influence(tmp_path):
    arrays, image, neural, options = towers()
    image = image | {
        "base.patch_embed3.proj.weight": np.ones((3, 8, 2, 2)),
        "base.blocks3.0.norm1.weight": np.ones(3),
        "base.norm.weight": np.ones(3),
    }
    image["base.blocks1.0.norm1.num_batches_tracked"] = np.array(4)
    expected = v1.load_dina(image, neural, **options).transform_images(arrays["image"])
    torch.save({n: torch.from_numpy(np.array(w)) for n, w in image.items()}, tmp_path / "image.pt")
    np.savez(tmp_path / "neural.npz", **apart(neural))
    est = v1.load_dina(tmp_path / "image.pt", tmp_path / "neural.npz", **options)
    assert np.array_equal(est.transform_images(arrays["image"]), expected)
    est.save(tmp_path / "saved")
    again = v1.load(tmp_path / "saved")
    assert isinstance(again, v1.DINAAligner)
    assert np.array_equal(again.transform_images(arrays["image"]), expected)


def test_responses_in_their_own_units():
    arrays, image, neural, options = towers()
    scaled = v1.load_dina(image, neural, **options).transform_responses(arrays["s"])
    low, high = np.arange(7.0), np.arange(7.0) + 4
    est = v1.load_dina(image, neural, response_range=(low, high), **options)
    inside = (arrays["s"] >= 0).all() and (arrays["s"] <= 1).all()
    raw = np.clip(arrays["s"], 0, 1) * 4 + low
    clipped = v1.load_dina(image, neural, **options).transform_responses(np.clip(arrays["s"], 0, 1))
    assert_agrees(est.transform_responses(raw).values, clipped.values, 1e-4)
    assert inside == np.allclose(clipped, scaled)


def test_what_does_not_fit_is_refused():
    _, image, neural, options = towers()
    without = {n: w for n, w in image.items() if n != "my_conv.weight"}
    with pytest.raises(ValueError, match=r"no array 'my_conv\.weight'"):
        v1.load_dina(without, neural, **options)
    with pytest.raises(ValueError, match="give their height and width as grid"):
        v1.load_dina(image, neural, **options | {"grid": (3, 3)})
    with pytest.raises(ValueError, match="no place for"):
        v1.load_dina(image | {"head.weight": np.ones(3)}, neural, **options)
    spoilt = neural | {"ff.bias": np.full(7, np.nan)}
    with pytest.raises(ValueError, match=r"'ff\.bias' holds NaN"):
        v1.load_dina(image, spoilt, **options)
    with pytest.raises(ValueError, match="one finite number per neuron"):
        v1.load_dina(image, neural, response_range=(np.zeros(3), np.ones(3)), **options)
    with pytest.raises(ValueError, match=r"image_shape=\(1, 68\.5, 270\): expected"):
        v1.load_dina(image, neural, **options | {"image_shape": (1, 68.5, 270)})
    with pytest.raises(ValueError, match=r"above the highest ones: expected \(lowest, highest\)"):
        v1.load_dina(image, neural, response_range=(1, 0), **options)
    for scale in ((0, 0), (0, -1), (np.nan, 1), (1, 2, 3)):
        with pytest.raises(ValueError, match="a mean and a standard deviation above 0"):
            v1.load_dina(image, neural, **options | {"image_scale": scale})
    with pytest.raises(TypeError, match="image_state is a int"):
        v1.load_dina(3, neural, **options)


# ------------------------------------------------------------------------------ one tower alone


def test_the_image_tower_alone_transforms_images_and_nothing_else(tmp_path):
    arrays, image, neural, options = towers()
    whole = v1.load_dina(image, neural, **options)
    est = v1.load_dina(image, **options)
    maps, responses = est.transform_images(arrays["image"]), arrays["s"]
    assert np.array_equal(maps, whole.transform_images(arrays["image"]))
    assert sum(p.numel() for p in est.module_.readouts.parameters()) == 0
    told = r"no neural tower.* neural_state=\.\.\., beside image_state"
    pictures = arrays["image"]
    for call in (
        lambda: est.transform_responses(responses),
        lambda: est.similarity(responses, pictures),
        lambda: est.retrieve(responses, pictures, k=1),
        lambda: est.score(pictures, None, responses),
        lambda: est.partial_fit(pictures, None, responses),
        lambda: est.set_params(max_epochs=1, validation_fraction=0).fit(pictures, None, responses),
        lambda: est.module_.encode_responses("mouse", torch.from_numpy(responses).float()),
    ):
        with pytest.raises(v1.nn.MissingTowerError, match=told):
            call()
    trials = v1.Trials.from_arrays(pictures, None, responses)
    assert np.array_equal(est.transform_images(trials), maps)
    queries = whole.transform_responses(responses)  # which are maps already
    assert np.array_equal(est.similarity(queries, maps), whole.similarity(responses, pictures))
    est.save(tmp_path / "saved")
    again = v1.load(tmp_path / "saved")
    assert np.array_equal(again.transform_images(pictures), maps)
    with pytest.raises(v1.nn.MissingTowerError, match=told):
        again.transform_responses(responses)


def test_the_neural_tower_alone_transforms_responses_and_nothing_else(tmp_path):
    arrays, image, neural, options = towers()
    whole = v1.load_dina(image, neural, **options)
    est = v1.load_dina(neural_state=neural, **options)
    maps, pictures = est.transform_responses(arrays["s"]), arrays["image"]
    assert np.array_equal(maps, whole.transform_responses(arrays["s"]))
    assert not list(est.module_.core.parameters())
    told = r"no image tower.* image_state=\.\.\., beside neural_state"
    for call in (
        lambda: est.transform_images(pictures),
        lambda: est.transform(pictures),
        lambda: est.similarity(arrays["s"], pictures),
        lambda: est.retrieve(arrays["s"], pictures, k=1),
        lambda: est.score(pictures, None, arrays["s"]),
        lambda: est.partial_fit(pictures, None, arrays["s"]),
    ):
        with pytest.raises(v1.nn.MissingTowerError, match=told):
            call()
    gallery = whole.transform_images(pictures)
    expected = whole.retrieve(arrays["s"], pictures, k=2).places
    assert np.array_equal(est.retrieve(arrays["s"], gallery, k=2).places, expected)
    est.save(tmp_path / "saved")
    assert np.array_equal(v1.load(tmp_path / "saved").transform_responses(arrays["s"]), maps)


def test_no_tower_or_one_that_does_not_fit_is_refused():
    _, _, neural, options = towers()
    with pytest.raises(TypeError, match="image_state, neural_state or both"):
        v1.load_dina()
    with pytest.raises(ValueError, match="give their height and width as grid"):
        v1.load_dina(neural_state=neural, **options | {"grid": (3, 3)})


def test_a_neural_tower_is_trained_beside_a_published_image_tower():
    arrays, image, _, options = towers()
    est = v1.load_dina(image, **options)
    trials = v1.Trials.from_arrays({"A": arrays["image"]}, None, {"A": arrays["s"]})
    train = {"max_epochs": 2, "validation_fraction": 0, "device": "cpu", "random_state": 0}
    new = est.transfer(trials, neural_tower="attention", embed_dim=4, hidden_units=(8,), **train)
    maps = est.transform_images(arrays["image"])
    assert np.allclose(new.transform_images(arrays["image"]), maps, atol=1e-5)
    assert len(new.transform_responses(arrays["s"])) == len(arrays["s"])
    with pytest.raises(v1.nn.MissingTowerError, match="no neural tower"):
        est.transfer(trials, **train)

"""Cores from pretrained vision transformers: published numbers, and what their options mean."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from tests.backbones import (
    CONFIGURATIONS,
    DINOV2,
    DINOV3,
    FAMILIES,
    arrays,
    own_name,
    random_backbone,
    reference_backbone,
    reference_pixels,
)
from v1tlearn import nn


def core_of(family, size, block, **options):
    return nn.PretrainedViTCore((1, *size), reference_backbone(family), block=block, **options)


# ------------------------------------------------------------------------------ published numbers


@pytest.mark.parametrize("name", ["images", "images_upsampled"])
def test_published_pixels(name):
    found = arrays(name)
    raw = torch.tensor(found["raw_images"])[:, None]
    for shape in [key for key in found.files if key.endswith("/shape")]:
        case = shape.removesuffix("/shape")
        n, _, height, width = found[shape]
        cropper = nn.WindowCropper(
            (66, 264), mice=["A"], columns="left_half", image_size=(int(height), int(width))
        )
        pixels = nn.Pixels(1)(cropper(raw, "A"))
        assert pixels.shape == (n, 3, height, width)
        index = int(found[f"{case}/pixel_values_index"])
        if f"{case}/pixel_values" in found.files:
            one, expected = pixels[index], found[f"{case}/pixel_values"]
        else:
            one, expected = pixels[index, 0], found[f"{case}/pixel_values_channel_0"]
        np.testing.assert_allclose(one, expected, atol=1e-5)
        sums = pixels.double().sum((2, 3)), pixels.double().square().sum((2, 3))
        for total, what in zip(sums, ("sum", "sum_of_squares"), strict=True):
            told = found[f"{case}/{what}_per_image_and_channel"]
            np.testing.assert_allclose(total, told, rtol=1e-5, atol=1e-5 * height * width)


@pytest.mark.parametrize("family", FAMILIES)
def test_published_feature_maps(family):
    found = arrays(f"{family}_forward")
    size, pixels = tuple(found["input_size"].tolist()), reference_pixels(found)
    for name in [key for key in found.files if key.startswith("patch_map/")]:
        blocks = name.removeprefix("patch_map/blocks_").split("_")
        last = blocks == ["last"]
        core = core_of(
            family,
            size,
            2 if last else [int(block) for block in blocks],
            normalize="final" if last else "none",
        ).eval()
        with torch.no_grad():
            maps = core.maps(pixels)
        assert tuple(maps.shape[1:]) == core.output_shape
        np.testing.assert_allclose(maps, found[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_published_tokens(family):
    found = arrays(f"{family}_forward")
    core = core_of(family, tuple(found["input_size"].tolist()), [0, 1, 2]).double().eval()
    (embeddings, *_), embedded = core.backbone.stages, []
    embeddings.register_forward_hook(lambda *call: embedded.append(call[-1]))
    with torch.no_grad():
        tokens = core.backbone(reference_pixels(found, torch.float64))
    expected = found["tokens_after_embedding"]
    np.testing.assert_allclose(embedded[0], expected, rtol=1e-5, atol=1e-5)
    for block, values in enumerate(tokens):
        expected = found[f"tokens_after_block_{block}"]
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
    final = core_of(family, tuple(found["input_size"].tolist()), 2, normalize="final").double()
    with torch.no_grad():
        (normed,) = final.backbone(reference_pixels(found, torch.float64))
    told = found["f64/tokens_after_final_norm_sum_per_image_and_channel"]
    np.testing.assert_allclose(normed.sum(1), told, rtol=1e-6, atol=1e-5)


def readout_of(found, core, dtype, l2):
    readout = nn.FactorizedReadout(
        core.output_shape, len(found["readout0/bias"]), space_l2=l2, channel_l2=l2
    ).to(dtype)
    names = {"rows": "Wy", "columns": "Wx", "channels": "Wc", "bias": "bias"}
    weights = {own: torch.tensor(found[f"readout0/{name}"]) for own, name in names.items()}
    readout.load_state_dict(weights)
    return readout, {f"readout.{name}": getattr(readout, own) for own, name in names.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-6)])
@pytest.mark.parametrize("mode", ["frozen", "last_1", "last_2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_published_gradients(family, mode, dtype, tolerance):
    found = arrays(f"{family}_training")
    told = {k.removeprefix("f64/"): found[k] for k in found.files if k.startswith("f64/")}
    told = told if dtype == torch.float64 else found
    core = core_of(
        family,
        tuple(found["input_size"].tolist()),
        found["extraction_blocks"].tolist(),
        fine_tune="none" if mode == "frozen" else int(mode[-1]),
    ).to(dtype)
    core.eval()
    l2 = float(found[f"{mode}/l2_readout"])
    readout, parameters = readout_of(found, core, dtype, l2)
    batch = found["gradient_batch"]
    pixels = reference_pixels(found, dtype)[batch]
    y = torch.tensor(found["responses"], dtype=dtype)[batch]
    rates = nn.EluHead()(readout(core.maps(pixels)))
    n = readout.n_neurons
    loss = (rates - y * rates.log()).sum() / n + readout.penalty() / n
    loss.backward()
    np.testing.assert_allclose(rates.detach(), told["prediction"], rtol=tolerance)
    np.testing.assert_allclose(loss.item(), told[f"{mode}/loss"], rtol=tolerance)

    names = {name for name, _ in core.backbone.model.named_parameters()}
    own = dict(core.backbone.model.named_parameters())
    for name in found[f"{mode}/trainable_names"].tolist():
        if not name.startswith("readout"):
            key = own_name(name.removeprefix("core.backbone."), names)
            if key not in own:  # the final norm of DINOv2, which gets no gradient, is cut away
                assert name in found[f"{mode}/trainable_without_gradient"]
                continue
            parameters[name] = own[key]
    trained = {id(p) for p in core.parameters() if p.requires_grad}
    assert trained == {id(p) for name, p in parameters.items() if not name.startswith("readout")}
    squares = 0.0
    for name, parameter in parameters.items():
        gradient = parameter.grad
        squares += gradient.double().square().sum()
        norm = told[f"{mode}/grad_norm/{name}"]
        # the softmax takes no notice of the bias of keys
        least = 1e-6 if "key.bias" in name else 0.0
        np.testing.assert_allclose(gradient.norm(), norm, rtol=tolerance, atol=least)
        if f"{mode}/grad/{name}" in told:
            expected = told[f"{mode}/grad/{name}"]
            room = tolerance * np.abs(expected).max() + least
            np.testing.assert_allclose(gradient, expected, rtol=tolerance, atol=room)
    total = told[f"{mode}/grad_norm_total"]
    np.testing.assert_allclose(squares.sqrt(), total, rtol=tolerance)


class Drawn(TorchFunctionMode):
    """Within, what is drawn uniformly is one value, and bounds are noted."""

    def __init__(self, value):
        super().__init__()
        self.value, self.bounds = value, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not torch.Tensor.uniform_:
            return function(*args, **kwargs or {})
        values, *bounds = args
        self.bounds.append(tuple(bounds))
        return values.fill_(self.value)


def test_published_predictions_with_rescaled_rotary_coordinates():
    found = arrays("dinov3_training")
    size = tuple(found["input_size"].tolist())
    options = {"block": found["extraction_blocks"].tolist(), "fine_tune": 1}
    core = core_of("dinov3", size, augment_positions=True, **options).train()
    steady = core_of("dinov3", size, **options).train()
    readout, _ = readout_of(found, core, torch.float32, 0.0)
    pixels = reference_pixels(found)[found["gradient_batch"]]
    prefix = "rotary_rescaling_in_training_mode"
    for factor, told in zip(
        found[f"{prefix}/factors"], found[f"{prefix}/predictions"], strict=True
    ):
        drawn = Drawn(np.log(factor))
        with drawn, torch.no_grad():
            rates = nn.EluHead()(readout(core.maps(pixels)))
            assert torch.equal(steady.maps(pixels), steady.eval().maps(pixels))
            steady.train()
        np.testing.assert_allclose(drawn.bounds, [(-np.log(2), np.log(2))])
        np.testing.assert_allclose(rates, told, rtol=1e-4)


# ---------------------------------------------------------------------------- what options mean


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stride_of_the_patch_changes_nothing_and_half_of_it_adds_patches_between(family):
    model = random_backbone(CONFIGURATIONS[family])
    side = CONFIGURATIONS[family]["patch_size"]
    images = torch.randn(2, 3, 3 * side, 4 * side)
    outputs = {}
    for stride in (None, side, side // 2):
        core = nn.PretrainedViTCore(
            images.shape[1:],
            copy.deepcopy(model),
            block=0,
            patch_stride=stride,
            pixel_scaling="recording",
        ).eval()
        # tokens as they enter the first block, where patches do not see each other yet
        entered = []
        core.backbone.blocks[0].register_forward_pre_hook(
            lambda _, given, into=entered: into.append(given[0])
        )
        with torch.no_grad():
            outputs[stride] = core(images)
            tokens = entered[0][:, core.backbone.n_prefix :].unflatten(1, core.grid)
        outputs[stride, "in"] = tokens
    assert torch.equal(outputs[None], outputs[side])
    assert outputs[side // 2].shape[2:] == (5, 7)
    # a rotary position does not show in what enters, a learned one does
    np.testing.assert_allclose(
        outputs[side // 2, "in"][:, ::2, ::2], outputs[None, "in"], rtol=1e-4, atol=1e-5
    )


@settings(max_examples=25, deadline=None)
@given(
    cells=st.integers(2, 9),
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    antialias=st.booleans(),
)
def test_positions_are_resampled_as_torch_does(cells, grid, antialias):
    from v1tlearn.nn.layers.positions import resampled_positions

    table = torch.randn(cells, cells, 3, dtype=torch.float64)
    patch = 14
    size = tuple(patch * n for n in grid)
    ours = resampled_positions(table, size, patch, patch, antialias=antialias)
    theirs = F.interpolate(
        table.permute(2, 0, 1)[None].contiguous(), size=grid, mode="bicubic", antialias=antialias
    )
    np.testing.assert_allclose(ours, theirs[0].flatten(1).T, atol=1e-9)


@given(side=st.integers(1, 12), patch=st.integers(1, 9), data=st.data())
def test_centres_of_patches(side, patch, data):
    from v1tlearn.nn.layers.positions import patch_centres

    stride = data.draw(st.integers(1, patch))
    pixels = patch + stride * (side - 1)
    starts = np.arange(0, pixels - patch + 1, stride)
    np.testing.assert_allclose(
        patch_centres(pixels, patch, stride), (starts + patch / 2) / pixels, rtol=1e-12
    )


def test_tokens_of_several_blocks_come_in_the_order_asked_for():
    model, images = random_backbone(DINOV3), torch.randn(2, 1, 32, 48)

    def maps(**options):
        core = nn.PretrainedViTCore((1, 32, 48), copy.deepcopy(model), **options).eval()
        with torch.no_grad():
            out = core(images)
        assert out.shape == (2, *core.output_shape)
        return out

    first, last = maps(block=0), maps(block=2)
    assert torch.equal(maps(block=[2, 0]), torch.cat((last, first), 1))
    of_class = maps(block=[2, 0], tokens="cls")
    assert of_class.shape == (2, 64, 1, 1)
    both = maps(block=[2, 0], tokens="both")
    assert torch.equal(both[:, :64], torch.cat((last, first), 1))
    assert torch.equal(both[:, 64:], of_class.expand(-1, -1, 2, 3))
    layer = maps(block=2, normalize="layer")
    np.testing.assert_allclose(layer.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(layer.var(1, correction=0), 1, atol=1e-3)
    with torch.no_grad():
        whole = model(nn.Pixels(1)(images)).last_hidden_state
    patches = whole[:, 5:].mT.unflatten(2, (2, 3))
    np.testing.assert_allclose(maps(block=2, normalize="final"), patches, atol=1e-5)


def test_blocks_after_the_last_one_are_cut_away():
    core = nn.PretrainedViTCore((3, 28, 28), random_backbone(DINOV2), block=[1, 0])
    assert len(core.backbone.blocks) == 2
    assert not any("layer.2" in name for name in core.state_dict())


@pytest.mark.parametrize("kind", ["dinov2", "dinov3"])
def test_stages_are_counted_from_the_last_block_that_is_read(kind):
    def trained(stages):
        core = nn.PretrainedViTCore(
            (1, 112, 112), random_backbone(CONFIGURATIONS[kind]), block=1, fine_tune=stages
        )
        own = core.backbone.stages
        every = {id(p): i for i, stage in enumerate(own) for p in stage.parameters()}
        found = {every[id(p)] for p in core.parameters() if p.requires_grad}
        assert core.train().training is (stages != "none")
        assert sum(len(group["params"]) for group in core.groups()) == sum(
            p.requires_grad for p in core.parameters()
        )
        return found

    assert trained("none") == set()
    assert trained(1) == {2}
    assert trained(2) == {1, 2}
    assert trained(3) == trained("all") == {0, 1, 2}
    with pytest.raises(ValueError, match="fine_tune=4: expected 'none', 'all', or 1 to 3"):
        trained(4)


@given(seed=st.integers(0, 100))
@settings(max_examples=5, deadline=None)
def test_scaling_per_image_takes_luminance_and_contrast_away(seed):
    images = torch.rand(3, 1, 5, 7, generator=torch.Generator().manual_seed(seed)) * 200
    pixels = nn.Pixels(1)(images)
    np.testing.assert_allclose(nn.Pixels(1)(0.3 * images - 7), pixels, atol=1e-4)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    grey = pixels * std + mean
    np.testing.assert_allclose(grey.amin((1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(grey.amax((1, 2, 3)), 1, atol=1e-6)
    assert nn.Pixels(1)(torch.full((1, 1, 4, 4), 9.0)).isfinite().all()
    assert torch.equal(nn.Pixels(1, "recording")(images), images.expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match="2 channels: a pretrained backbone takes 1"):
        nn.Pixels(2)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), height=st.integers(3, 9), width=st.integers(4, 12))
def test_windows_are_cut_out_of_the_resized_image(data, height, width):
    first = data.draw(st.integers(0, width - 2))
    last = data.draw(st.integers(first + 1, width))
    factor, tall = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 14))
    images = torch.rand(2, 1, height, width, dtype=torch.float64)
    cropper = nn.WindowCropper(
        (height, width),
        mice=["A", "B"],
        columns={"A": (first, last), "B": (0, width)},
        image_size=(tall, (last - first) * factor),
    )
    whole = F.interpolate(images, size=(tall, width * factor), mode="bilinear")
    np.testing.assert_allclose(
        cropper(images, "A"), whole[..., first * factor : last * factor], atol=1e-12
    )
    n = cropper.output_size[1]
    np.testing.assert_allclose(
        cropper(images, "B"), F.interpolate(images, size=(tall, n), mode="bilinear"), atol=1e-12
    )
    columns = cropper.source_positions("A")[1]
    expected = first + (np.arange(n) + 0.5) / factor - 0.5
    np.testing.assert_allclose(columns, expected, atol=1e-12)


def test_windows_that_are_wrong_are_refused():
    wrong = [(5, 3), (0, 20), (1.5, 3), (1, 2, 3), (None, 3), (True, 3), (0, np.nan), ("0", "3"), 3]
    for columns in (*wrong, {"A": None}, {"A": "03"}):
        with pytest.raises(ValueError, match="crop_columns of mouse 'A' are"):
            nn.WindowCropper((4, 12), mice=["A"], columns=columns)
    with pytest.raises(ValueError, match=r"none for the mice \['B'\]"):
        nn.WindowCropper((4, 12), mice=["A", "B"], columns={"A": (0, 3)})
    with pytest.raises(ValueError, match="set image_size"):
        nn.WindowCropper((4, 12), mice=["A", "B"], columns={"A": (0, 3), "B": (0, 4)})
    cropper = nn.WindowCropper(
        (4, 12), mice=["A", "B"], columns={"A": (0, 3), "B": (1, 4)}, upsample=2
    )
    assert cropper.output_size == (8, 6)
    with pytest.raises(ValueError, match="mouse 'C' has no crop_columns"):
        cropper(torch.zeros(1, 1, 4, 12), "C")


def test_signatures_tell_cores_apart_by_what_they_compute():
    def signature(change=lambda model: None, **configuration):
        model = random_backbone({**DINOV3, **configuration})
        change(model)
        return nn.PretrainedViTCore((1, 32, 48), model, block=1).signature()

    def renamed(model):
        model.config._name_or_path = "elsewhere"

    def other_activation(model):
        for block in (m for m in model.modules() if hasattr(m, "act_fn")):
            block.act_fn = torch.nn.ReLU()

    def other_buffer(model):
        next(m for m in model.modules() if hasattr(m, "inv_freq")).inv_freq.mul_(2)

    same = [signature(), signature(), signature(renamed)]
    others = [
        signature(num_attention_heads=4),
        signature(hidden_act="relu"),
        signature(layer_norm_eps=1e-3),
        signature(other_activation),
        signature(other_buffer),
    ]
    assert len(set(same)) == 1
    assert len({*same, *others}) == 1 + len(others)


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("stride", [4, 5, 10, 14])
@pytest.mark.parametrize("upsample", [1, 2, 3, 4])
def test_sides_that_are_named_ahead_of_enlarging_are_the_nearest_that_fit(stride, upsample):
    backbone = nn.Backbone(random_backbone(DINOV2), [0], patch_stride=stride)
    fit = [s for s in range(1, 80) if s * upsample in range(14, 500, stride)]
    assert fit or (stride, upsample) == (4, 4)
    for side in (s for s in range(1, 60) if s not in fit):
        with pytest.raises(nn.BackboneError) as refused:
            backbone.grid((side * upsample, 42 * upsample), upsample)
        told = str(refused.value)
        assert told.startswith(f"images of {side} x 42 pixels")
        assert ("upsample" in told) == (upsample > 1)
        if not fit:
            assert "set another patch_stride or upsample" in told
            continue
        below = max((s for s in fit if s < side), default=fit[0])
        above = min(s for s in fit if s > below)
        assert f"height {below} or {above}, width" in told
        assert f"in general {fit[0]} plus a multiple of {fit[1] - fit[0]}." in told
        backbone.grid((above * upsample, below * upsample), upsample)


def test_backbones_that_cannot_be_read_are_refused():
    with pytest.raises(nn.BackboneError, match="no patch grid: its config says nothing"):
        nn.PretrainedViTCore((1, 28, 28), torch.nn.Conv2d(3, 4, 14), block=0)
    resnet = transformers.AutoConfig.for_model(
        "resnet", embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]
    )
    with pytest.raises(nn.BackboneError, match="ResNetModel has no patch grid"):
        nn.PretrainedViTCore((1, 28, 28), transformers.AutoModel.from_config(resnet), block=0)
    with pytest.raises(nn.BackboneError, match=r"block=3, .* choose from 0 to 2"):
        nn.PretrainedViTCore((1, 28, 28), random_backbone(DINOV2), block=[0, 3])
    with pytest.raises(nn.BackboneError, match="patch_stride=15: expected 1 to 14"):
        nn.PretrainedViTCore((1, 28, 28), random_backbone(DINOV2), block=0, patch_stride=15)
    with pytest.raises(ValueError, match="block is empty"):
        nn.PretrainedViTCore((1, 28, 28), random_backbone(DINOV2), block=[])


@pytest.mark.parametrize("block", [[1.5], [1.0], True, [0, True], ["1"], "1", [[0]], [None]])
def test_blocks_are_whole_numbers(block):
    with pytest.raises(ValueError, match="expected the number of a block, or several, whole"):
        nn.PretrainedViTCore((1, 28, 28), random_backbone(DINOV2), block=block)


def test_blocks_are_numbers_of_numpy_too():
    cores = [
        nn.PretrainedViTCore((1, 28, 28), random_backbone(DINOV2), block=block)
        for block in (np.int64(1), np.array([1, 0]))
    ]
    assert [core.backbone.read for core in cores] == [(1,), (1, 0)]


def test_patches_of_a_plain_transformer_that_cannot_overlap_are_refused():
    vit = {**DINOV2, "model_type": "vit", "intermediate_size": 64}
    nn.PretrainedViTCore((1, 70, 70), random_backbone(vit), block=0)
    with pytest.raises(nn.BackboneError, match=r"patch_stride=7; .* patches alone can overlap"):
        nn.PretrainedViTCore((1, 70, 70), random_backbone(vit), block=0, patch_stride=7)


def test_allowed_sides_are_named():
    with pytest.raises(nn.BackboneError, match=r"height 28 or 42, width 56 or 70; .* image_size="):
        nn.PretrainedViTCore((1, 36, 64), random_backbone(DINOV2), block=0)
    with pytest.raises(nn.BackboneError, match="height 35 or 42, width 63; in general 14 plus a"):
        nn.PretrainedViTCore((1, 36, 63), random_backbone(DINOV2), block=0, patch_stride=7)
    with pytest.raises(nn.BackboneError, match="height 14 or 28"):
        nn.PretrainedViTCore((1, 10, 28), random_backbone(DINOV2), block=0)


# ----------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"overlap": True}, {"tokens": "both"}])
def test_derivatives_with_respect_to_images_and_weights(family, options):
    """Against differences in float64, of options that the published code does not have."""
    side = CONFIGURATIONS[family]["patch_size"]
    options = {"patch_stride": side // 2} if "overlap" in options else options
    core = nn.PretrainedViTCore(
        (1, side, 2 * side),
        random_backbone(CONFIGURATIONS[family]),
        block=[1, 0],
        normalize="layer",
        fine_tune="all",
        **options,
    )
    core = core.double().eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 1, side, 2 * side, generator=generator, dtype=torch.float64)
    weights = torch.randn(core.output_shape, generator=generator, dtype=torch.float64)

    def value(moved):
        return (core(moved) * weights).sum()

    images.requires_grad_()
    value(images).backward()
    step = 1e-7  # of larger ones, tokens near zero show the bend
    with torch.no_grad():
        direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        ahead, behind = (value(images + sign * step * direction) for sign in (1, -1))
        slope = (images.grad * direction).sum()
        np.testing.assert_allclose((ahead - behind) / (2 * step), slope, rtol=1e-4, atol=1e-5)
        moved = [  # the library resamples tables of positions in float32
            p
            for name, p in core.named_parameters()
            if p.grad is not None and "position_embeddings" not in name
        ]
        directions = [torch.randn(p.shape, generator=generator).double() for p in moved]
        slope = sum((p.grad * d).sum() for p, d in zip(moved, directions, strict=True))
        found = []
        for sign in (1, -2, 1):
            for p, d in zip(moved, directions, strict=True):
                p.add_(sign * step * d)
            found.append(value(images))
    np.testing.assert_allclose((found[0] - found[1]) / (2 * step), slope, rtol=1e-4, atol=1e-5)
    frozen = {n for n, p in core.named_parameters() if p.requires_grad and p.grad is None}
    assert all("mask_token" in name for name in frozen)


def test_a_model_on_features_is_the_model_behind_its_core():
    core = nn.PretrainedViTCore((1, 28, 42), random_backbone(DINOV2), block=1)
    readouts = {m: nn.FactorizedReadout(core.output_shape, n) for m, n in (("A", 3), ("B", 4))}
    model = nn.EncodingModel(core, readouts, cropper=nn.ImageCropper((28, 42)))
    view = nn.FeatureModel(model.eval())
    images = {m: torch.rand(2, 1, 28, 42) for m in "AB"}
    with torch.no_grad():
        whole = model({m: nn.MouseBatch(x) for m, x in images.items()})
        behind = view({m: nn.MouseBatch(core(x)) for m, x in images.items()})
    for mouse, rates in whole.items():
        np.testing.assert_allclose(behind[mouse], rates, rtol=1e-5)
    assert view.readout("A") is model.readout("A")
    assert list(view.state_dict()) == list(model.state_dict())

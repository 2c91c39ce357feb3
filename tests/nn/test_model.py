"""The whole model: mice together and one by one, what reaches what, and its errors."""

import numpy as np
import pytest
import torch

from v1tlearn import nn

SIZES = {"26872-17-20": (3, 5), "a.b": (2, 4), "keys": (4, 6)}


def make_model(behavior="b_mlp_per_mouse", shifters=True, core=None):
    """Three mice whose ids would break a ModuleDict; two of them with shifters."""
    torch.manual_seed(0)
    channels = 1 + 3 * (behavior == "channels")
    core = core or nn.ViTCore(
        (channels, 9, 16),
        patch_size=4,
        n_blocks=1,
        n_heads=2,
        embed_dim=6,
        mlp_dim=5,
        behavior_mode="none" if behavior in ("none", "channels") else behavior,
        n_behaviors=3,
        mice=tuple(SIZES),
    )
    readouts = {m: nn.GaussianReadout(core.output_shape, n) for m, (_, n) in SIZES.items()}
    return nn.EncodingModel(
        core,
        readouts,
        cropper=nn.ImageCropper((36, 64), image_size=(9, 16)),
        shifters={m: nn.Shifter() for m in ("a.b", "keys")} if shifters else None,
        behavior_channels=behavior == "channels",
    ).eval()


def make_batches(seed=0):
    torch.manual_seed(seed)
    return {
        mouse: nn.MouseBatch(torch.rand(b, 1, 36, 64), torch.randn(b, 3), torch.randn(b, 2))
        for mouse, (b, _) in SIZES.items()
    }


@pytest.mark.parametrize("behavior", ["none", "channels", "b_mlp", "b_mlp_per_mouse"])
def test_mice_together_equal_mice_alone(behavior):
    model, batches = make_model(behavior), make_batches()
    together = model(batches)
    assert list(together) == list(batches)
    for name, rates in together.items():
        assert rates.shape == SIZES[name]
        assert (rates > 0).all()
        torch.testing.assert_close(rates, model({name: batches[name]})[name])


def test_order_of_mice_does_not_matter():
    model, batches = make_model(), make_batches()
    backwards = model(dict(reversed(batches.items())))
    for mouse, rates in model(batches).items():
        torch.testing.assert_close(rates, backwards[mouse])


def test_batch_norm_sees_all_mice_at_once():
    core = nn.Stacked2dCore((1, 9, 16), hidden_channels=4, n_layers=1, input_kernel=3)
    model = make_model("none", core=core).train()
    model(make_batches())
    assert core.layers[0][1].num_batches_tracked == 1


def what_the_core_gets(model, batches):
    """Images that a model gives to its core."""
    seen = []
    hook = model.core.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(batches)
    hook.remove()
    return seen[0]


def test_the_core_gets_images_cropped_resized_and_extended_by_planes():
    model, batch = make_model("channels"), make_batches()["keys"]
    images = what_the_core_gets(model, {"keys": batch})
    assert images.shape == (4, 4, 9, 16)
    assert torch.equal(images[:, :1], nn.resize(batch.images, (9, 16)))
    assert torch.equal(images[:, 1:], batch.behaviors[:, :, None, None].expand(-1, -1, 9, 16))


def test_a_convolutional_core_gets_planes_as_numbers():
    core = nn.Stacked2dCore((4, 9, 16), hidden_channels=4, n_layers=2, input_kernel=3)
    model, batches = make_model("channels", core=core), make_batches()
    assert what_the_core_gets(model, batches).shape[1] == 1
    rates = model(batches)
    for mouse, batch in batches.items():
        images = nn.resize(batch.images, (9, 16))
        planes = batch.behaviors[:, :, None, None].expand(-1, -1, 9, 16)
        features = core(torch.cat((images, planes), 1))
        outputs = model.respond(mouse, features, batch.pupil)
        torch.testing.assert_close(rates[mouse], outputs)


def test_only_mice_with_a_shifter_use_the_pupil():
    model, batches = make_model("none"), make_batches()
    moved = {m: b._replace(pupil=b.pupil + 1) for m, b in batches.items()}
    changed = {m: not torch.equal(model(batches)[m], r) for m, r in model(moved).items()}
    assert changed == {"26872-17-20": False, "a.b": True, "keys": True}
    without = {m: b._replace(pupil=None) for m, b in batches.items()}
    assert set(make_model("none", shifters=False)(without)) == set(SIZES)


def test_stimulus_shifter_sees_pupil_or_what_it_is_given():
    shifters = {"A": nn.StimulusShifter(5, max_shift=0.5)}
    cropper = nn.ImageCropper((36, 64), crop_scale=0.5, image_size=(9, 16), shifters=shifters)
    core = nn.Stacked2dCore((1, 9, 16), n_layers=1)
    readouts = {"A": nn.GaussianReadout(core.output_shape, 4)}
    model = nn.EncodingModel(core, readouts, cropper=cropper).eval()
    inputs = torch.randn(2, 5)
    batch = nn.MouseBatch(torch.rand(2, 1, 36, 64), None, None, inputs)
    expected = nn.center_crop(batch.images, 0.5, shifters["A"](inputs))
    assert torch.equal(what_the_core_gets(model, {"A": batch}), nn.resize(expected, (9, 16)))
    with pytest.raises(ValueError, match="takes 5 standardised variables"):
        model({"A": nn.MouseBatch(batch.images, None, torch.zeros(2, 2))})


def test_penalties_are_those_of_the_parts():
    model = make_model()
    assert torch.equal(model.core_penalty(), model.core.penalty())
    assert torch.equal(model.readout_penalty("a.b"), model.readouts[1].penalty())


def test_a_mouse_trains_the_core_and_its_own_parts_only():
    model, batches = make_model().train(), make_batches()
    model({"a.b": batches["a.b"]})["a.b"].sum().backward()
    used = {n for n, p in model.named_parameters() if p.grad is not None and (p.grad != 0).any()}
    assert {n.split(".")[1] for n in used if n.startswith("readouts.")} == {"1"}
    assert {n.split(".")[1] for n in used if n.startswith("shifters.")} == {"0"}
    assert {n.split(".")[4] for n in used if "networks" in n} == {"1"}


def test_same_seed_same_rates_and_gradients():
    results = []
    for _ in range(2):
        model, batches = make_model().train(), make_batches()
        rates = model(batches)
        sum(r.square().sum() for r in rates.values()).backward()
        results.append([*rates.values(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.fixture
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", ["vit", "cct", "cnn"])
@pytest.mark.usefixtures("float64_by_default")
def test_models_are_float32_whatever_the_default_of_torch(kind):
    core = (
        nn.Stacked2dCore((1, 9, 16), n_layers=2, hidden_channels=4, hidden_kernel=3)
        if kind == "cnn"
        else nn.ViTCore(
            (1, 9, 16), patch_size=4, n_heads=2, embed_dim=8, behavior_mode="b_mlp", n_behaviors=3,
            tokenizer="cct" if kind == "cct" else "unfold", attention="lsa", drop_path=0.1,
        )
    )  # fmt: skip
    readouts = {
        "a": nn.GaussianReadout(core.output_shape, 2, positions=np.eye(2), bias_init=np.ones(2)),
        "b": nn.GaussianReadout(core.output_shape, 3),
    }
    shifters = {mouse: nn.StimulusShifter() for mouse in readouts}
    cropper = nn.ImageCropper((36, 64), image_size=(9, 16), crop_scale=0.9, shifters=shifters)
    shifters = {mouse: nn.Shifter() for mouse in readouts}
    model = nn.EncodingModel(core, readouts, cropper=cropper, shifters=shifters)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    batch = nn.MouseBatch(
        *(torch.rand(*shape, dtype=torch.float32) for shape in ((4, 1, 36, 64), (4, 3), (4, 2)))
    )
    rates = model(dict.fromkeys(readouts, batch))
    assert {r.dtype for r in rates.values()} == {torch.float32}
    loss = sum(nn.poisson_loss(r, torch.ones_like(r)) for r in rates.values())
    (loss + model.core_penalty()).backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)


def test_autocast_gives_float32_rates():
    model, batches = make_model(), make_batches()
    exact = model(batches)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for mouse, rates in model(batches).items():
            assert rates.dtype == torch.float32
            torch.testing.assert_close(rates, exact[mouse], rtol=0.05, atol=0.05)


def test_state_dict_round_trip():
    model, other = make_model(), make_model("b_mlp_per_mouse")
    with torch.no_grad():
        for p in other.parameters():
            p.normal_()
    other.load_state_dict(model.state_dict())
    for mouse, rates in model(make_batches()).items():
        assert torch.equal(rates, other(make_batches())[mouse])


def test_errors_name_the_mouse():
    model, batches = make_model("b_mlp"), make_batches()
    with pytest.raises(ValueError, match="mouse 'Z' is unknown; this model has"):
        model({"Z": batches["keys"]})
    with pytest.raises(ValueError, match="mouse 'keys': the readout shifter needs the pupil"):
        model({"keys": batches["keys"]._replace(pupil=None)})
    with pytest.raises(ValueError, match=r"behaviour came for some mice but not for \['keys'\]"):
        model(batches | {"keys": batches["keys"]._replace(behaviors=None)})
    with pytest.raises(ValueError, match="mouse 'keys': the model takes behaviour as image chann"):
        make_model("channels")({"keys": batches["keys"]._replace(behaviors=None)})
    with pytest.raises(ValueError, match="mouse 'keys': stimuli of 36 x 60 pixels"):
        model({"keys": batches["keys"]._replace(images=torch.zeros(4, 1, 36, 60))})
    with pytest.raises(ValueError, match="at least one mouse"):
        nn.EncodingModel(model.core, {}, cropper=model.cropper)
    with pytest.raises(ValueError, match=r"shifters came for mice without readout: \['Q'\]"):
        nn.EncodingModel(
            model.core,
            {"A": model.readouts[0]},
            cropper=model.cropper,
            shifters={"Q": nn.Shifter()},
        )


@pytest.mark.parametrize("behavior", ["none", "channels", "b_mlp", "b_mlp_per_mouse"])
@pytest.mark.parametrize("activate", [True, False])
def test_encoding_and_responding_are_the_two_halves_of_the_model(behavior, activate):
    model, batches = make_model(behavior), make_batches()
    for mouse, batch in batches.items():
        images = nn.resize(batch.images, (9, 16))
        features = model.encode(mouse, images, None if behavior == "none" else batch.behaviors)
        assert features.shape == (len(images), *model.core.output_shape)
        rates = model.respond(mouse, features, batch.pupil, activate=activate)
        torch.testing.assert_close(rates, model({mouse: batch}, activate=activate)[mouse])


def test_receptive_fields_stay_where_no_pupil_is_given():
    model, batches = make_model("none"), make_batches()
    still = make_model("none", shifters=False)
    features = model.encode("keys", torch.rand(4, 1, 9, 16))
    expected = still.respond("keys", features, batches["keys"].pupil)
    assert torch.equal(model.respond("keys", features), expected)


def test_planes_need_behavior_to_encode():
    with pytest.raises(ValueError, match=r"mouse 'keys': .* no behaviour came"):
        make_model("channels").encode("keys", torch.rand(4, 1, 9, 16))

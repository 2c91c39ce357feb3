"""Tokenizers, attention and the whole transformer core against plain restatements in float64."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.nn.fast.attending import kept_elements, kept_weights
from v1tlearn import nn

TOKENIZERS = ("unfold", "conv", "spt", "cct", "dual_norm")
MODES = ("none", "b_mlp", "b_mlp_first_block", "b_mlp_shared", "b_mlp_per_mouse")


def small_core(tokenizer="unfold", channels=2, **options):
    """A core in float64, by default without dropout, whose every parameter is random."""
    no_dropout = dict.fromkeys(("patch_dropout", "attention_dropout", "mlp_dropout"), 0.0)
    options = {"n_blocks": 2, "n_heads": 2, "embed_dim": 8, "mlp_dim": 5} | no_dropout | options
    core = nn.ViTCore(
        (channels, 9, 11), patch_size=4, patch_stride=2, tokenizer=tokenizer, **options
    ).double()
    with torch.no_grad():
        for p in core.parameters():
            p.normal_(0, 0.4)
    return core


def layer_norm(x, norm):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def restated_patches(images, patch, stride):
    """Patches as rows of (channel, y, x), one by one."""
    rows = range(0, images.shape[2] - patch + 1, stride)
    columns = range(0, images.shape[3] - patch + 1, stride)
    cut = [images[:, :, y : y + patch, x : x + patch].flatten(1) for y in rows for x in columns]
    return torch.stack(cut, 1)


def restated_shifts(images, step):
    """Image, then its copies whose pixel (y, x) shows (y +- step, x +- step), zeros outside."""
    _, _, height, width = images.shape
    parts = [images]
    for dy, dx in ((-step, -step), (-step, step), (step, -step), (step, step)):
        moved = torch.zeros_like(images)
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    moved[:, :, y, x] = images[:, :, y + dy, x + dx]
        parts.append(moved)
    return torch.cat(parts, 1)


def restated_tokens(tokenizer, name, images, patch=4, stride=2):
    projection = tokenizer.projection
    if name in ("conv", "cct"):
        if name == "cct":
            images = F.pad(images, (3,) * 4)
        tokens = restated_patches(images, patch, stride) @ projection.weight.flatten(1).T
        if name == "conv":
            return tokens + projection.bias
        side = [(s - patch) // stride + 1 for s in images.shape[2:]]
        maps = tokens.relu().transpose(1, 2).unflatten(2, side)
        maps = F.pad(maps, (1,) * 4, value=-torch.inf)
        patches = restated_patches(maps, 3, 2).unflatten(2, (maps.shape[1], 9))
        return patches.amax(-1)
    if name == "spt":
        images = restated_shifts(images, patch // 2)
    patches = restated_patches(images, patch, stride)
    if name != "unfold":
        patches = layer_norm(patches, tokenizer.patch_norm)
    tokens = patches @ projection.weight.T + projection.bias
    return layer_norm(tokens, tokenizer.token_norm) if name == "dual_norm" else tokens


def keep(x, *_):
    """No dropout."""
    return x


def restated_attention(attention, tokens, n_heads, head_dim, scale, local, drop=keep):
    normed = layer_norm(tokens, attention.norm)
    q, k, v = (normed @ attention.to_qkv.weight.T).chunk(3, -1)
    weights = []
    for h in range(n_heads):
        part = slice(h * head_dim, (h + 1) * head_dim)
        factor = attention.scale[h] if local else scale
        logits = factor * q[..., part] @ k[..., part].transpose(1, 2)
        if local:
            logits = logits.masked_fill(torch.eye(tokens.shape[1]).bool(), -torch.inf)
        weights.append(logits.exp() / logits.exp().sum(-1, keepdim=True))
    weights = drop(torch.stack(weights, 1), "attention")
    parts = v.split(head_dim, -1)
    out = torch.cat([weights[:, h] @ parts[h] for h in range(n_heads)], -1)
    return drop(affine(out, attention.projection), "attention")


def affine(x, layer):
    out = x @ layer.weight.T
    return out if layer.bias is None else out + layer.bias


def restated_core(core, name, local, images, behaviors, sizes, mode, mice, drop=keep):
    """The whole core, written out; `drop` is what becomes of values that dropout is for."""
    d, n_heads = core.output_shape[0], core.blocks[0].attention.n_heads
    tokens = restated_tokens(core.tokenizer, name, images)
    if name == "cct":
        n = torch.arange(tokens.shape[1]).double()
        waves = [f(n / 10000 ** (i / d)) for i in range(0, d, 2) for f in (torch.sin, torch.cos)]
        tokens = tokens + torch.stack(waves, 1).float()  # the table is kept in float32
        head_dim, scale = d // n_heads // n_heads, (d // n_heads) ** -0.5
    else:
        tokens = torch.cat((core.class_token.expand(len(images), 1, d), tokens), 1)
        tokens = tokens + core.positions
        head_dim, scale = d, d**-0.5
    tokens = drop(tokens, "patch")
    for i, block in enumerate(core.blocks):
        if mode != "none" and not (mode == "b_mlp_first_block" and i > 0):
            which = 0 if mode in ("b_mlp_shared", "b_mlp_first_block") else i
            networks, row = core.behavior_mlps[which].networks, 0
            for mouse, n in sizes:
                net = networks[mice.index(mouse) if mode == "b_mlp_per_mouse" else 0]
                hidden = affine(behaviors[row : row + n], net[0]).tanh()
                added = torch.zeros_like(tokens)
                added[row : row + n] = affine(hidden, net[2]).tanh()[:, None]
                tokens, row = tokens + added, row + n
        tokens = tokens + restated_attention(
            block.attention, tokens, n_heads, head_dim, scale, local, drop
        )
        hidden = affine(layer_norm(tokens, block.mlp[0]), block.mlp[1])
        hidden = drop(hidden * (1 + torch.erf(hidden / 2**0.5)) / 2, "mlp")
        tokens = tokens + drop(affine(hidden, block.mlp[4]), "mlp")
    if name != "cct":
        tokens = tokens[:, 1:]
    height, width = core.grid
    return torch.stack(
        [torch.stack([tokens[:, y * width + x] for x in range(width)], -1) for y in range(height)],
        -2,
    )


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_tokenizers_restated(name, channels):
    tokenizer = small_core(name, channels).tokenizer
    images = torch.randn(2, channels, 9, 11, dtype=torch.float64)
    torch.testing.assert_close(tokenizer(images), restated_tokens(tokenizer, name, images))


@given(st.integers(1, 7))
def test_shifted_copies_of_any_patch_size(patch):
    tokenizer = nn.make_tokenizer("spt", (2, 7, 8), patch, 1, 3).double()
    images = torch.randn(1, 2, 7, 8, dtype=torch.float64)
    expected = restated_tokens(tokenizer, "spt", images, patch, 1)
    torch.testing.assert_close(tokenizer(images), expected)


@pytest.mark.parametrize(
    ("name", "attention", "mode", "bias"),
    list(itertools.product(TOKENIZERS, ("standard", "lsa"), MODES, (True, False))),
)
def test_core_restated_forward_and_backward(name, attention, mode, bias):
    torch.manual_seed(0)
    mice = ("x.y", "keys", "3")
    core = small_core(
        name, attention=attention, behavior_mode=mode, n_behaviors=3, mice=mice, bias=bias
    )
    images = torch.randn(4, 2, 9, 11, dtype=torch.float64)
    behaviors = torch.randn(4, 3, dtype=torch.float64)
    sizes = [("keys", 1), ("x.y", 3)]
    weights = torch.randn(4, *core.output_shape, dtype=torch.float64)
    results = []
    for output in (
        core(images, behaviors, sizes),
        restated_core(core, name, attention == "lsa", images, behaviors, sizes, mode, mice),
    ):
        grads = torch.autograd.grad((output * weights).sum(), core.parameters(), allow_unused=True)
        results.append((output.detach(), *(g for g in grads if g is not None)))
    assert len(results[0]) == len(results[1])
    for ours, restated in zip(*results, strict=True):
        torch.testing.assert_close(ours, restated, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"behavior_mode": "b_mlp", "n_behaviors": 5}, 2_465_200),
        ({"behavior_mode": "b_mlp", "n_behaviors": 3}, 2_464_584),
        ({}, 2_414_992),
        ({"input_shape": (4, 36, 64)}, 2_444_752),
    ],
)
def test_published_parameter_counts(options, count):
    core = nn.ViTCore(**{"input_shape": (1, 36, 64)} | options)
    assert sum(p.numel() for p in core.parameters()) == count
    assert core.output_shape == (155, 29, 57)


def test_behavior_networks_per_mode():
    networks = {mode: small_core(behavior_mode=mode, n_behaviors=3, mice=("A", "B", "C"))
                for mode in MODES}  # fmt: skip
    counts = {
        mode: [len(mlp.networks) for mlp in core.behavior_mlps] for mode, core in networks.items()
    }
    assert counts == {
        "none": [],
        "b_mlp": [1, 1],
        "b_mlp_first_block": [1],
        "b_mlp_shared": [1],
        "b_mlp_per_mouse": [3, 3],
    }


def test_penalty_counts_every_parameter_once():
    core = small_core(behavior_mode="b_mlp_shared", n_behaviors=3, attention="lsa", l1=0.5)
    expected = 0.5 * sum(p.abs().sum().item() for p in core.parameters())
    assert core.penalty().item() == pytest.approx(expected)


def test_published_initial_values():
    torch.manual_seed(0)
    core = nn.ViTCore((1, 36, 64), behavior_mode="b_mlp", n_behaviors=5, attention="lsa")
    block = core.blocks[2]
    for linear in (block.mlp[1], block.mlp[4], block.attention.projection):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert (linear.bias == 0).all()
    assert core.behavior_mlps[3].networks[0][2].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert core.positions.std().item() == pytest.approx(1, rel=0.05)
    assert core.tokenizer.projection.weight.abs().max() <= 64**-0.5  # torch's own for Linear
    assert block.attention.scale.tolist() == [pytest.approx(155**-0.5)] * 4
    conv = nn.make_tokenizer("conv", (1, 36, 64), 8, 1, 155).projection
    assert conv.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)


@pytest.mark.parametrize("tokenizer", ["unfold", "cct"])
def test_stochastic_depth_rates(tokenizer):
    core = small_core(tokenizer, n_blocks=4, drop_path=0.3)
    rates = [block.drop_path.rate for block in core.blocks]
    expected = [0, 0.1, 0.2, 0.3] if tokenizer == "cct" else [0.3] * 4
    assert rates == pytest.approx(expected)


def test_stochastic_depth_drops_whole_branches_of_images():
    torch.manual_seed(0)
    core = small_core(drop_path=0.4)
    branch = torch.rand(4000, 3, 2) + 1
    factors = core.blocks[0].drop_path(branch) / branch
    per_image = factors[:, :1, :1]
    torch.testing.assert_close(factors, per_image.expand_as(factors))
    assert {round(v, 4) for v in per_image.flatten().tolist()} == {0.0, round(1 / 0.6, 4)}
    assert (per_image > 0).double().mean().item() == pytest.approx(0.6, abs=0.03)
    core.eval()
    assert core.blocks[0].drop_path(branch) is branch


@pytest.mark.parametrize("attention", ["standard", "lsa"])
@pytest.mark.parametrize(
    "rates",
    [
        {"patch": 0.3, "attention": 0.0, "mlp": 0.0},
        {"patch": 0.0, "attention": 0.4, "mlp": 0.0},
        {"patch": 0.0, "attention": 0.0, "mlp": 0.5},
        {"patch": 0.3, "attention": 0.4, "mlp": 0.5},
    ],
)
def test_dropout_with_its_own_draws(rates, attention):
    """Of single elements: of embedded tokens, attention weights and outputs, and perceptrons."""
    core = small_core(attention=attention, **{f"{k}_dropout": rate for k, rate in rates.items()})
    images = torch.randn(2, 2, 9, 11, dtype=torch.float64)
    dropped = []

    def drop(x, kind):
        if rates[kind] == 0:
            return x
        if x.ndim == 4:  # attention weights
            n_images, n_heads, n_tokens, _ = x.shape
            head_dim = core.blocks[0].attention.head_dim
            kept = kept_weights(n_images, n_tokens, n_heads, head_dim, x.dtype, dropout=rates[kind])
        else:
            kept = kept_elements(x.shape, x.dtype, rates[kind])
        dropped.append((kind, tuple(x.shape), (kept == 0).any().item()))
        return x * kept / (1 - rates[kind])

    def restate(drop=keep):
        return restated_core(core, "unfold", attention == "lsa", images, None, (), "none", (), drop)

    torch.manual_seed(1)
    ours = core(images)
    torch.manual_seed(1)
    restated = restate(drop)
    n_tokens = len(core.positions)
    tokens = (2, n_tokens, 8)
    expected = {
        "patch": [tokens],
        "attention": [(2, 2, n_tokens, n_tokens), tokens] * 2,
        "mlp": [(2, n_tokens, 5), tokens] * 2,
    }
    for kind, shapes in expected.items():
        assert [s for k, s, _ in dropped if k == kind] == (shapes if rates[kind] else [])
    assert all(some for *_, some in dropped)
    torch.testing.assert_close(ours, restated, rtol=1e-8, atol=1e-10)
    weights = torch.randn(ours.shape, dtype=torch.float64)
    gradients = [
        torch.autograd.grad((out * weights).sum(), core.parameters()) for out in (ours, restated)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(core.eval()(images), restate(), rtol=1e-8, atol=1e-10)


def test_maps_are_channels_last_in_memory():
    core = small_core().eval()
    maps = core(torch.randn(2, 2, 9, 11, dtype=torch.float64))
    assert maps.stride(1) == 1


def test_autocast_stays_close_to_full_precision():
    torch.manual_seed(0)
    for attention in ("standard", "lsa"):
        core = nn.ViTCore(
            (1, 12, 12), embed_dim=16, mlp_dim=16, behavior_mode="b_mlp", n_behaviors=3,
            attention=attention,
        ).eval()  # fmt: skip
        images, behaviors = torch.randn(2, 1, 12, 12), torch.randn(2, 3)
        exact = core(images, behaviors)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (core(images, behaviors) - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 37}, "patch of 37 x 37 pixels does not fit into images of 36 x 64"),
        ({"patch_stride": 9}, "patch_stride 9 is larger than patch_size 8"),
        ({"tokenizer": "fold"}, "'dual_norm', got 'fold'"),
        ({"tokenizer": "cct", "n_heads": 4, "embed_dim": 155}, "multiple of n_heads squared, 16"),
        ({"n_heads": 0}, "n_heads must be at least 1, got 0"),
        ({"n_blocks": 0}, "n_blocks must be at least 1"),
        ({"mlp_dim": 0}, "mlp_dim must be at least 1"),
        ({"embed_dim": 1}, "embed_dim must be at least 2"),
        ({"drop_path": 1.0}, "drop_path must be at least 0 and below 1"),
        ({"attention": "global"}, "'standard' or 'lsa', got 'global'"),
        ({"behavior_mode": "mlp"}, "behavior_mode must be one of"),
        ({"behavior_mode": "b_mlp"}, "needs at least one behavioural variable"),
        ({"behavior_mode": "b_mlp_per_mouse", "n_behaviors": 3}, "needs the ids of the mice"),
        (
            {"tokenizer": "cct", "patch_size": 42, "patch_stride": 42, "attention": "lsa",
             "n_heads": 2, "embed_dim": 8},
            "needs at least two tokens",
        ),
    ],
)  # fmt: skip
def test_errors_name_what_came(options, message):
    with pytest.raises(ValueError, match=message):
        nn.ViTCore((1, 36, 64), **options)


def test_errors_in_forward():
    core = small_core(behavior_mode="b_mlp_per_mouse", n_behaviors=3, mice=("A", "B")).eval()
    images = torch.zeros(2, 2, 9, 11, dtype=torch.float64)
    with pytest.raises(ValueError, match="needs the behaviour of every trial"):
        core(images)
    with pytest.raises(ValueError, match=r"mouse 'C' has no behaviour network.*\['A', 'B'\]"):
        core(images, torch.zeros(2, 3).double(), [("A", 1), ("C", 1)])
    with pytest.raises(ValueError, match=r"images of shape \(2, 9, 11\), got \(1, 9, 11\)"):
        core(images[:, :1], torch.zeros(2, 3).double(), [("A", 2)])


def test_sinusoidal_positions():
    table = nn.sinusoidal_positions(5, 3).numpy()
    angles = np.arange(5)[:, None] / np.array([1, 1, 10000 ** (2 / 3)])
    expected = np.stack([np.sin(angles[:, 0]), np.cos(angles[:, 1]), np.sin(angles[:, 2])], 1)
    np.testing.assert_allclose(table, expected, atol=1e-7)

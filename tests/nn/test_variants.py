"""Every variant of the models, forward and backward, against plain restatements in float64.

Told elsewhere, and not again here: all cores with learned positions, by their parameters'
gradients, with every behaviour mode, with and without biases (`test_vit.py`); readouts in
evaluation and the spread of their positions (`test_readout.py`); convolutional cores with and
without biases (`test_cnn.py`); cropping and resizing of images (`test_images.py`); agreement with
the published code (`test_reference.py`); which behaviour and pupil columns reach what
(`tests/estimators/test_options.py`); cropping inside and outside of fitted models, and readout
biases (`tests/estimators/test_equivalences.py`).
"""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn import nn

MICE = ("A", "b.2")
SIZES = (("b.2", 1), ("A", 2))
HEIGHT, WIDTH, PATCH, STRIDE = 8, 11, 4, 2
D, HEADS, SCALE = 8, 2, 0.7
DEFAULT = {
    "tokenizer": "unfold",
    "attention": "standard",
    "behavior_mode": "none",
    "position_embedding": "auto",
    "token_grid": "true",
}


# ------------------------------------------------------------------- the transformer, restated


def normalised(x, p, name):
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


def linear(x, p, name):
    out = torch.einsum("...i,oi->...o", x, p[f"{name}.weight"].flatten(1))
    return out + p[f"{name}.bias"] if f"{name}.bias" in p else out


def moved(images, dy, dx):
    """Images whose pixel (y, x) shows (y + dy, x + dx), and zero beyond the edge."""
    out = torch.zeros_like(images)
    for y, x in itertools.product(range(images.shape[2]), range(images.shape[3])):
        if 0 <= y + dy < images.shape[2] and 0 <= x + dx < images.shape[3]:
            out[:, :, y, x] = images[:, :, y + dy, x + dx]
    return out


def windows(maps, side, stride):
    """Grid, and the windows (B, grid, channels * side * side) row by row."""
    rows, columns = ((n - side) // stride + 1 for n in maps.shape[2:])
    places = itertools.product(range(0, rows * stride, stride), range(0, columns * stride, stride))
    cut = [maps[:, :, y : y + side, x : x + side].flatten(1) for y, x in places]
    return (rows, columns), torch.stack(cut, 1)


def restated_tokens(p, images, tokenizer):
    name = "tokenizer.projection"
    if tokenizer == "spt":
        s = PATCH // 2
        images = torch.cat(
            [images, *(moved(images, dy, dx) for dy in (-s, s) for dx in (-s, s))], 1
        )
    if tokenizer == "cct":
        grid, patches = windows(F.pad(images, (3,) * 4), PATCH, STRIDE)
        maps = linear(patches, p, name).relu().transpose(1, 2).unflatten(2, grid)
        grid, pooled = windows(F.pad(maps, (1,) * 4, value=-torch.inf), 3, 2)
        return grid, pooled.unflatten(2, (maps.shape[1], 9)).amax(-1)
    grid, patches = windows(images, PATCH, STRIDE)
    if tokenizer in ("spt", "dual_norm"):
        patches = normalised(patches, p, "tokenizer.patch_norm")
    tokens = linear(patches, p, name)
    return grid, normalised(
        tokens, p, "tokenizer.token_norm"
    ) if tokenizer == "dual_norm" else tokens


def restated_behavior(p, behaviors, sizes, block, mode):
    """What is added to all tokens ahead of a block, (B, 1, d)."""
    mlp = block if mode in ("b_mlp", "b_mlp_per_mouse") else 0
    added, row = [], 0
    for mouse, n in sizes:
        which = MICE.index(mouse) if mode == "b_mlp_per_mouse" else 0
        name = f"behavior_mlps.{mlp}.networks.{which}"
        hidden = linear(behaviors[row : row + n], p, f"{name}.0").tanh()
        added.append(linear(hidden, p, f"{name}.2").tanh())
        row += n
    return torch.cat(added)[:, None]


def restated_core(p, images, behaviors, variant, branch_factors=None, sizes=SIZES):
    """Feature maps of a core with the parameters `p`; factors of stochastic depth in order."""
    grid, tokens = restated_tokens(p, images, variant["tokenizer"])
    compact = variant["tokenizer"] == "cct"
    if not compact:
        tokens = torch.cat((p["class_token"].expand(len(images), 1, D), tokens), 1)
    if "positions" in p:
        tokens = tokens + p["positions"]
    else:
        table = [
            [(np.cos if j % 2 else np.sin)(n / 10000 ** ((j - j % 2) / D)) for j in range(D)]
            for n in range(tokens.shape[1])
        ]
        tokens = tokens + torch.tensor(table).float()  # kept in float32
    head_dim = D // HEADS // HEADS if compact else D
    factors = iter(branch_factors) if branch_factors else itertools.repeat(1.0)
    mode = variant["behavior_mode"]
    for i in range(2):
        block = f"blocks.{i}"
        if mode != "none" and (i == 0 or mode != "b_mlp_first_block"):
            tokens = tokens + restated_behavior(p, behaviors, sizes, i, mode)
        x = linear(normalised(tokens, p, f"{block}.attention.norm"), p, f"{block}.attention.to_qkv")
        q, k, v = x.unflatten(-1, (3, HEADS, head_dim)).unbind(2)
        logits = torch.einsum("bqhd,bkhd->bhqk", q, k)
        if variant["attention"] == "lsa":
            logits = logits * p[f"{block}.attention.scale"][:, None, None]
            logits = logits.masked_fill(torch.eye(logits.shape[-1]) == 1, -torch.inf)
        else:
            logits = logits / (D // HEADS if compact else D) ** 0.5
        mixed = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).flatten(2)
        tokens = tokens + next(factors) * linear(mixed, p, f"{block}.attention.projection")
        x = linear(normalised(tokens, p, f"{block}.mlp.0"), p, f"{block}.mlp.1")
        x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
        tokens = tokens + next(factors) * linear(x, p, f"{block}.mlp.4")
    if not compact:
        tokens = tokens[:, 1:]
    if variant["token_grid"] == "published":
        n = tokens.shape[1]
        rows = max(r for r in range(1, n + 1) if n % r == 0 and (r - 1) ** 2 < n)
        grid = (rows, n // rows)
    return tokens.transpose(1, 2).unflatten(2, grid)


def make_core(channels=2, **variant):
    """A float64 core with random parameters, its variant, and copies of its parameters."""
    variant = DEFAULT | variant
    torch.manual_seed(0)
    core = nn.ViTCore(
        (channels, HEIGHT, WIDTH),
        patch_size=PATCH,
        patch_stride=STRIDE,
        n_blocks=2,
        n_heads=HEADS,
        embed_dim=D,
        mlp_dim=5,
        n_behaviors=3,
        mice=MICE,
        **dict.fromkeys(("patch_dropout", "attention_dropout", "mlp_dropout"), 0.0),
        **variant,
    ).double()
    return core, variant, randomised(core)


def randomised(module):
    """Give every parameter a random value, and return copies of them as leaves."""
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(0, 0.4)
    return {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}


def assert_same_with_gradients(ours, our_leaves, restated, restated_leaves):
    """Compare outputs, and the gradients of one random combination of them."""
    assert ours.shape == restated.shape
    weights = torch.randn(ours.shape, dtype=torch.float64)
    torch.testing.assert_close(ours, restated, rtol=1e-8, atol=1e-10)
    gradients = [
        torch.autograd.grad((out * weights).sum(), list(leaves), allow_unused=True)
        for out, leaves in ((ours, our_leaves), (restated, restated_leaves))
    ]
    for leaf, one, other in zip(our_leaves, *gradients, strict=True):
        one, other = (torch.zeros_like(leaf) if g is None else g for g in (one, other))
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def inputs_of(*shapes):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]


def check_core(channels=2, branch_factors=None, **options):
    core, variant, p = make_core(channels, **options)
    core.train(branch_factors is not None)
    images, behaviors = inputs_of((3, channels, HEIGHT, WIDTH), (3, 3))
    if branch_factors is not None:
        torch.manual_seed(7)
    ours = core(images, behaviors, SIZES)
    if branch_factors is not None:
        torch.manual_seed(7)
        branch_factors = branch_factors()
    restated = restated_core(p, images, behaviors, variant, branch_factors)
    assert_same_with_gradients(
        ours,
        [*core.parameters(), images, behaviors],
        restated,
        [*p.values(), images, behaviors],
    )


TOKENIZERS = ("unfold", "conv", "spt", "cct", "dual_norm")
MODES = ("none", "b_mlp", "b_mlp_first_block", "b_mlp_shared", "b_mlp_per_mouse")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("attention", ["standard", "lsa"])
@pytest.mark.parametrize("position_embedding", ["auto", "learned", "sinusoidal"])
@pytest.mark.parametrize("token_grid", ["true", "published"])
def test_tokenizers_attention_positions_and_grids(
    tokenizer, attention, position_embedding, token_grid
):
    """Gradients reach images and behaviour, too."""
    check_core(
        tokenizer=tokenizer,
        attention=attention,
        position_embedding=position_embedding,
        token_grid=token_grid,
        behavior_mode="b_mlp_per_mouse",
    )


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tokenizers_of_any_number_of_channels(tokenizer, channels):
    check_core(channels, tokenizer=tokenizer)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_behavior(mode, bias):
    core, variant, p = make_core(behavior_mode=mode, bias=bias)
    named = {n for n in p if n.startswith("behavior_mlps") and n.endswith("bias")}
    assert bool(named) == (bias and mode != "none")
    images, behaviors = inputs_of((3, 2, HEIGHT, WIDTH), (3, 3))
    variant.pop("bias")
    restated = restated_core(p, images, behaviors, variant)
    assert_same_with_gradients(core(images, behaviors, SIZES), [behaviors], restated, [behaviors])


def test_the_published_grid_puts_tokens_elsewhere():
    """Twelve patches, 3 x 4, on a map of 4 x 3: row by row, one after the other."""
    true, scrambled = (make_core(token_grid=grid)[0].eval() for grid in ("true", "published"))
    (images,) = inputs_of((2, 2, HEIGHT, WIDTH))
    maps = [core(images) for core in (true, scrambled)]
    assert [tuple(m.shape) for m in maps] == [(2, D, 3, 4), (2, D, 4, 3)]
    assert torch.equal(*(m.flatten(2) for m in maps))
    assert true.grid == scrambled.grid == (3, 4)


@pytest.mark.parametrize("tokenizer", ["unfold", "cct"])
def test_stochastic_depth_with_its_own_draws(tokenizer):
    """Attention, then perceptron, of block after block; the first of the compact one never."""
    keep = [1.0, 0.6] if tokenizer == "cct" else [0.6, 0.6]

    def branch_factors():
        shape = (3, 1, 1)
        return [
            torch.empty(shape).bernoulli_(k) / k if k < 1 else 1.0 for k in keep for _ in range(2)
        ]

    torch.manual_seed(7)
    drawn = torch.cat([f for f in branch_factors() if torch.is_tensor(f)])
    assert (drawn == 0).any()
    assert (drawn > 0).any()
    check_core(tokenizer=tokenizer, drop_path=0.4, branch_factors=branch_factors)


def test_stochastic_depth_leaves_the_expectation():
    torch.manual_seed(0)
    drop = make_core(drop_path=0.3)[0].blocks[0].drop_path
    branch = torch.randn(1, 2, 3).expand(20000, -1, -1)
    mean = drop(branch).mean(0)
    spread = branch[0].abs() * (0.3 / 0.7) ** 0.5 / 20000**0.5  # of a mean of scaled coins
    assert ((mean - branch[0]).abs() < 4 * spread).all()


# ------------------------------------------------------------------------ the readout, restated


def read_at(maps, image, x, y):
    """Bilinear value (C,) of the map of one image; corner cells at -1 and 1, zeros outside."""
    height, width = maps.shape[2:]
    column, row = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
    value = torch.zeros(maps.shape[1], dtype=torch.float64)
    for r, c in itertools.product(
        (row.floor().int().item(), row.floor().int().item() + 1),
        (column.floor().int().item(), column.floor().int().item() + 1),
    ):
        if 0 <= r < height and 0 <= c < width:
            weight = (1 - (row - r).abs()) * (1 - (column - c).abs())
            value = value + weight * maps[image, :, r, c]
    return value


def restated_readout(p, name, positions, maps, shift, noise, gaussian="full"):
    """Responses (B, n) ahead of the output non-linearity, neuron by neuron."""
    if positions is None:
        mu = p[f"{name}free_mu"].clamp(-1, 1)
    else:
        centred = positions - positions.mean(0)
        centred = (centred / centred.abs().max()).float().double()  # kept in float32
        hidden = linear(centred, p, f"{name}position_network.0")
        hidden = torch.where(hidden > 0, hidden, hidden.clamp(max=0).expm1())
        mu = linear(hidden, p, f"{name}position_network.2").tanh()
    sigma, out = p[f"{name}sigma"], []
    for b in range(len(maps)):
        row = []
        for n in range(len(mu)):
            e = noise[b, n]
            if gaussian == "full":
                e = torch.stack([sigma[n, i, 0] * e[0] + sigma[n, i, 1] * e[1] for i in (0, 1)])
            else:  # one width per axis, or one for both
                e = sigma[n] * e
            point = (mu[n] + e).clamp(-1, 1)
            if shift is not None:
                point = point + shift[b]
            value = read_at(maps, b, *point)
            row.append((value * p[f"{name}features"][n]).sum() + p[f"{name}bias"][n])
        out.append(torch.stack(row))
    return torch.stack(out)


@pytest.mark.parametrize("gaussian", ["full", "uncorrelated", "isotropic"])
@pytest.mark.parametrize("n_axes", [None, 2, 3])
@pytest.mark.parametrize("shifted", [False, True])
def test_readouts_in_training_with_their_own_draws(gaussian, n_axes, shifted):
    torch.manual_seed(0)
    positions = None if n_axes is None else 300 * torch.rand(5, n_axes, dtype=torch.float64)
    readout = nn.GaussianReadout((3, 4, 5), 5, positions=positions, gaussian=gaussian).double()
    p = randomised(readout)
    if n_axes is None:  # within the map, where training would bring it
        with torch.no_grad():
            for mu in (readout.free_mu, p["free_mu"]):
                mu.clamp_(-0.9, 0.9)
    maps, shift = inputs_of((4, 3, 4, 5), (4, 2))
    torch.manual_seed(2)
    ours = readout.train()(maps, shift if shifted else None)
    torch.manual_seed(2)
    noise = torch.randn(4, 5, 2, dtype=torch.float64)
    restated = restated_readout(p, "", positions, maps, shift if shifted else None, noise, gaussian)
    assert_same_with_gradients(
        ours, [*readout.parameters(), maps, shift], restated, [*p.values(), maps, shift]
    )


# --------------------------------------------------------------------- whole models, and the eye


@pytest.fixture(scope="module")
def trials():
    """Two mice with behaviour, pupil and cortical positions, images of 12 x 15 pixels."""
    recordings = v1.make_v1_recordings(
        n_mice=2,
        n_neurons=[3, 4],
        n_trials=25,
        n_test_images=2,
        n_repeats=2,
        image_shape=(12, 15),
        random_state=0,
    )
    return v1.Trials(recordings).sel(tier="train")


def restated_crop(images, scale, shift):
    """Nearest pixels of a moved grid, zeros outside; one by one."""
    height, width = images.shape[2:]
    h, w = int(height * scale), int(width * scale)
    out = torch.zeros(len(images), images.shape[1], h, w, dtype=images.dtype)
    for b, i, j in itertools.product(range(len(images)), range(h), range(w)):
        x = -scale + 2 * scale * j / (w - 1) + shift[b, 0].item()
        y = -scale + 2 * scale * i / (h - 1) + shift[b, 1].item()
        row, column = round((y + 1) / 2 * (height - 1)), round((x + 1) / 2 * (width - 1))
        if 0 <= row < height and 0 <= column < width:
            out[b, :, i, j] = images[b, :, row, column]
    return out


def restated_resize(images, size):
    """Bilinear, between the centres of pixels."""
    for axis, n_new in zip((2, 3), size, strict=True):
        n = images.shape[axis]
        at = ((torch.arange(n_new).double() + 0.5) * n / n_new - 0.5).clamp(0, n - 1)
        first = at.floor().long()
        last = (first + 1).clamp(max=n - 1)
        share = (at - first).view(-1, *[1] * (3 - axis))
        images = (1 - share) * images.index_select(axis, first) + share * images.index_select(
            axis, last
        )
    return images


def perceptron(p, name, x):
    for layer in (0, 2, 4):
        x = linear(x, p, f"{name}.network.{layer}").tanh()
    return x


def standardised(trials, mouse):
    """Images, behaviour (dilation, derivative, speed) and pupil (x, y) as models get them."""
    images = torch.tensor(np.array(trials.get("stimuli", mouse))).double()
    behavior = torch.tensor(np.array(trials.get("behaviors", mouse))).double()
    images = (images - images.mean()) / images.std(correction=0)
    spread = behavior.std(0, correction=0)
    pupil = (behavior[:, 3:] - behavior[:, 3:].mean(0)) / spread[3:]
    return images, behavior[:, :3] / spread[:3], pupil


def restated_model(p, inputs, positions, shift, noise, channels):
    """Rates of both mice, in standardised units."""
    core = {n.removeprefix("core."): v for n, v in p.items() if n.startswith("core.")}
    rates = {}
    for i, (mouse, (images, behavior, pupil)) in enumerate(inputs.items()):
        every = torch.cat((behavior, pupil), 1)
        crop_shift, readout_shift = torch.zeros_like(pupil), None
        if shift in ("stimulus", "both", "both_behavior"):
            seen = every if shift == "both_behavior" else pupil
            crop_shift = (1 - SCALE) * perceptron(p, f"cropper.shifters.{i}", seen)
        if shift in ("readout", "both", "both_behavior"):
            readout_shift = perceptron(p, f"shifters.{i}", pupil)
        x = restated_resize(restated_crop(images, SCALE, crop_shift), (HEIGHT, WIDTH))
        if channels:
            planes = behavior[:, :, None, None].expand(-1, -1, HEIGHT, WIDTH)
            x = torch.cat((x, planes), 1)
        variant = DEFAULT | {"behavior_mode": "none" if channels else "b_mlp"}
        maps = restated_core(core, x, every, variant, sizes=[(mouse, len(images))])
        out = restated_readout(
            p, f"readouts.{i}.", positions[mouse], maps, readout_shift, noise[mouse]
        )
        rates[mouse] = torch.where(out > 0, out + 1, out.clamp(max=0).exp())
    return rates


@pytest.mark.parametrize("kind", quick([v1.V1TRegressor, v1.ViTRegressor], 0))
@pytest.mark.parametrize("shift", ["none", "readout", "stimulus", "both", "both_behavior"])
def test_whole_models_and_what_the_eye_moves(kind, shift, trials):
    """Cropper, core, readouts and shifters as an estimator puts them together."""
    channels = kind is v1.ViTRegressor
    est = kind(
        **{"patch_size": PATCH, "patch_stride": STRIDE, "n_blocks": 2, "n_heads": HEADS},
        **{"embed_dim": D, "mlp_dim": 5, "crop_scale": SCALE, "image_size": (HEIGHT, WIDTH)},
        **dict.fromkeys(("patch_dropout", "attention_dropout", "mlp_dropout"), 0.0),
        shift=shift,
        beyond_map="zeros",
        validation_fraction=0.0,
        max_epochs=0,
        random_state=0,
        device="cpu",
    ).fit(trials)
    torch.manual_seed(0)
    model = est.module_.double()
    p = randomised(model)
    whole = {mouse: standardised(trials, mouse) for mouse in trials.mice}
    positions = {m: torch.tensor(np.array(trials.positions(m))[:, :2]).double() for m in whole}

    some = {m: [x[:2].clone().requires_grad_() for x in whole[m]] for m in whole}
    batches = {
        m: nn.MouseBatch(
            images,
            behavior if channels else torch.cat((behavior, pupil), 1),
            pupil,
            torch.cat((behavior, pupil), 1) if shift == "both_behavior" else None,
        )
        for m, (images, behavior, pupil) in some.items()
    }
    torch.manual_seed(3)
    ours = model.train()(batches)
    torch.manual_seed(3)
    noise = {m: torch.randn(*ours[m].shape, 2, dtype=torch.float64) for m in some}
    restated = restated_model(p, some, positions, shift, noise, channels)
    leaves = [x for m in some for x in some[m]]
    assert_same_with_gradients(
        torch.cat([r.flatten() for r in ours.values()]),
        [*model.parameters(), *leaves],
        torch.cat([r.flatten() for r in restated.values()]),
        [*p.values(), *leaves],
    )

    model.float()
    predictions = est.predict(trials)
    still = {m: torch.zeros(len(whole[m][0]), n, 2) for m, n in trials.n_neurons.items()}
    with torch.no_grad():
        rates = restated_model(p, whole, positions, shift, still, channels)
    for mouse in whole:
        responses = np.array(trials.get("responses", mouse)).astype(float)
        expected = rates[mouse].numpy() * responses.std(0)
        np.testing.assert_allclose(np.asarray(predictions[mouse]), expected, rtol=1e-3, atol=1e-4)

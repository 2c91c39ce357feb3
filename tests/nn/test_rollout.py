"""Attention weights and rollout against brute force in float64.

Agreement with the published code is in `test_reference.py`.
"""

import numpy as np
import pytest
import torch

from v1tlearn import nn

TOKENIZERS = ("unfold", "conv", "spt", "cct", "dual_norm")
MODES = ("none", "b_mlp", "b_mlp_first_block", "b_mlp_shared", "b_mlp_per_mouse")
SIZES = [("B", 2), ("A", 1)]


def make_core(tokenizer="unfold", attention="standard", mode="none", **options):
    """A float64 core on images of 9 x 14 pixels whose every parameter is random."""
    torch.manual_seed(0)
    options = {"patch_size": 4, "patch_stride": 3, "n_blocks": 3, "n_heads": 2} | options
    core = nn.ViTCore(
        (2, 9, 14),
        tokenizer=tokenizer,
        attention=attention,
        behavior_mode=mode,
        n_behaviors=3,
        mice=("A", "B"),
        embed_dim=8,
        mlp_dim=5,
        **options,
    ).double()
    with torch.no_grad():
        for p in core.parameters():
            p.normal_(0, 0.5)
    return core.eval()


def make_inputs(n=3):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(n, 2, 9, 14, generator=generator, dtype=torch.float64)
    return images, torch.randn(n, 3, generator=generator, dtype=torch.float64)


def layer_norm(x, norm):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * array(norm.weight) + array(
        norm.bias
    )


def array(tensor):
    return tensor.detach().numpy()


def recorded_tokens(core, images, behaviors, sizes):
    """What enters the layer normalisation of each attention, seen by hooks."""
    seen = []
    hooks = [
        block.attention.norm.register_forward_hook(lambda _, args, out: seen.append(array(args[0])))
        for block in core.blocks
    ]
    core(images, behaviors, sizes)
    for hook in hooks:
        hook.remove()
    return seen


def restated_weights(core, images, behaviors, sizes=()):
    """Weights of each image, block and head by hand."""
    blocks = []
    for block, tokens in zip(
        core.blocks, recorded_tokens(core, images, behaviors, sizes), strict=True
    ):
        attention = block.attention
        q, k, _ = np.split(
            layer_norm(tokens, attention.norm) @ array(attention.to_qkv.weight).T, 3, -1
        )
        heads = []
        for h in range(attention.n_heads):
            part = slice(h * attention.head_dim, (h + 1) * attention.head_dim)
            factor = array(attention.scale)[h] if attention.local else attention.scale
            products = factor * q[..., part] @ k[..., part].swapaxes(1, 2)
            if attention.local:
                products[:, np.eye(products.shape[-1], dtype=bool)] = -np.inf
            e = np.exp(products)
            heads.append(e / e.sum(-1, keepdims=True))
        blocks.append(np.stack(heads, 1))
    return np.stack(blocks, 1)


def restated_rollout(weights, head_reduction, class_token, grid):
    """Matrix products of Abnar and Zuidema, image by image."""
    maps = []
    for blocks in weights:
        product = np.eye(blocks.shape[-1])
        for heads in blocks:
            matrix = getattr(heads, head_reduction)(0) + np.eye(len(product))
            product = matrix / matrix.sum(1, keepdims=True) @ product
        shares = product[0, 1:] if class_token else product.mean(0)
        maps.append((shares - shares.min()) / np.ptp(shares))
    return np.reshape(maps, (len(maps), *grid))


def restated_resize(maps, size):
    """Bilinear interpolation between pixel centres, pixel by pixel."""
    out = np.empty((len(maps), *size))
    for y in range(size[0]):
        for x in range(size[1]):
            row, column = (
                np.clip((i + 0.5) * n / m - 0.5, 0, n - 1)
                for i, n, m in zip((y, x), maps.shape[1:], size, strict=True)
            )
            top, left = int(row), int(column)
            bottom, right = min(top + 1, maps.shape[1] - 1), min(left + 1, maps.shape[2] - 1)
            down, aside = row - top, column - left
            out[:, y, x] = (1 - down) * (
                (1 - aside) * maps[:, top, left] + aside * maps[:, top, right]
            ) + down * ((1 - aside) * maps[:, bottom, left] + aside * maps[:, bottom, right])
    return out


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("attention", ["standard", "lsa"])
@pytest.mark.parametrize("mode", MODES)
def test_weights_and_rollout_restated(tokenizer, attention, mode):
    core = make_core(tokenizer, attention, mode)
    images, behaviors = make_inputs()
    weights = restated_weights(core, images, behaviors, SIZES)
    ours = nn.attention_weights(core, images, behaviors, SIZES).numpy()
    assert ours.shape == weights.shape
    np.testing.assert_allclose(ours, weights, atol=1e-12)
    for reduction in ("mean", "max"):
        maps = restated_rollout(weights, reduction, tokenizer != "cct", core.grid)
        for size in (None, (7, 30)):
            rolled = nn.attention_rollout(
                core,
                images,
                behaviors,
                head_reduction=reduction,
                image_size=size,
                sizes=SIZES,
            )
            expected = restated_resize(maps, size or (9, 14))
            np.testing.assert_allclose(rolled.numpy(), expected, atol=1e-9)


def test_the_mean_over_heads_is_the_default():
    core, (images, _) = make_core(), make_inputs()
    mean = nn.attention_rollout(core, images, head_reduction="mean")
    assert torch.equal(nn.attention_rollout(core, images), mean)
    assert not torch.allclose(nn.attention_rollout(core, images, head_reduction="max"), mean)


def test_maps_reach_from_zero_to_one_on_the_grid_of_patches():
    core, (images, _) = make_core(), make_inputs()
    maps = nn.attention_rollout(core, images, image_size=core.grid)
    assert maps.shape == (3, 2, 4)
    assert maps.amin((1, 2)).tolist() == [0, 0, 0]
    assert maps.amax((1, 2)).tolist() == [1, 1, 1]


def test_attention_to_one_patch_shows_at_that_patch():
    """Queries and keys that meet at one place only, in images with one bright patch."""
    core = make_core(n_blocks=1, patch_stride=4)
    images = torch.zeros(4, 2, 9, 14, dtype=torch.float64)
    corners = [(0, 0), (0, 8), (4, 4), (4, 8)]  # of patches, in pixels
    with torch.no_grad():
        for p in core.parameters():
            p.zero_()
        core.tokenizer.projection.weight[0] = 1.0
        attention = core.blocks[0].attention
        attention.norm.weight.fill_(1)
        q, k, _ = attention.to_qkv.weight.chunk(3)
        q[0, 1] = k[0, 0] = 1.0
        core.class_token[0, 0, 1] = 1.0
        for image, (y, x) in zip(images, corners, strict=True):
            image[:, y : y + 4, x : x + 4] = 1
    maps = nn.attention_rollout(core, images, image_size=core.grid)
    expected = torch.zeros(4, 2, 3, dtype=torch.float64)
    for grid, (y, x) in zip(expected, corners, strict=True):
        grid[y // 4, x // 4] = 1
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("tokenizer", ["unfold", "cct"])
def test_even_attention_gives_zeros(tokenizer):
    core, (images, _) = make_core(tokenizer), make_inputs()
    with torch.no_grad():
        for block in core.blocks:
            block.attention.to_qkv.weight.zero_()
    assert (nn.attention_rollout(core.float(), images.float()) == 0).all()


def test_few_images_at_a_time_give_the_same_maps():
    core, (images, behaviors) = make_core(mode="b_mlp_per_mouse"), make_inputs(5)
    sizes = [("A", 2), ("B", 3)]
    whole = nn.attention_rollout(core, images, behaviors, sizes=sizes)
    held = []
    core.blocks[0].register_forward_pre_hook(lambda _, given: held.append(len(given[0])))
    with nn.fast.using("auto", parts=2 * 3 * 9**2 / 2**24):  # 3 blocks, 9 tokens
        few = nn.attention_rollout(core, images, behaviors, sizes=sizes)
    torch.testing.assert_close(few, whole)
    assert held == [2, 2, 1]


def test_the_scrambled_grid_of_the_core_does_not_move_the_map():
    images, _ = make_inputs()
    cores = [make_core(patch_stride=4, token_grid=grid) for grid in ("true", "published")]
    assert [core.output_shape for core in cores] == [(8, 2, 3), (8, 3, 2)]
    true, scrambled = (nn.attention_rollout(core, images) for core in cores)
    assert torch.equal(true, scrambled)


def test_no_gradient_is_kept():
    core, (images, _) = make_core(), make_inputs()
    assert not nn.attention_weights(core, images).requires_grad
    assert not nn.attention_rollout(core, images).requires_grad


def test_errors_say_what_to_do():
    core, (images, behaviors) = make_core(mode="b_mlp_per_mouse"), make_inputs()
    with pytest.raises(ValueError, match=r"needs the behaviour of each of 3 images, got none"):
        nn.attention_rollout(core, images)
    with pytest.raises(ValueError, match=r"each of 3 images, got that of 2"):
        nn.attention_weights(core, images, behaviors[:2])
    with pytest.raises(ValueError, match=r"mouse of each of 3 images.*\[\('A', 2\)\]"):
        nn.attention_rollout(core, images, behaviors, sizes=[("A", 2)])
    with pytest.raises(ValueError, match="head_reduction must be 'mean' or 'max', got 'min'"):
        nn.attention_rollout(core, images, behaviors, sizes=SIZES, head_reduction="min")
    with pytest.raises(ValueError, match=r"training mode.*core\.eval\(\)"):
        nn.attention_rollout(core.train(), images, behaviors, sizes=SIZES)
    with pytest.raises(TypeError, match="of a ViTCore or PretrainedViTCore, got a Stacked2dCore"):
        nn.attention_weights(nn.Stacked2dCore((2, 9, 14)).eval(), images)

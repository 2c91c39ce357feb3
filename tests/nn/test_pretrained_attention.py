"""Attention of pretrained transformers: as their library gives it, rolled out by brute force."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from tests.backbones import CONFIGURATIONS, FAMILIES, random_backbone
from v1tlearn import nn


def make(family, seed=0, **options):
    """A core on images of 2 x 3 patches, and such images."""
    side = CONFIGURATIONS[family]["patch_size"]
    options = {"block": 1} | options
    core = nn.PretrainedViTCore((1, 2 * side, 3 * side), backbone(family), **options)
    generator = torch.Generator().manual_seed(seed)
    return core.eval(), torch.randn(2, 1, 2 * side, 3 * side, generator=generator)


def backbone(family):
    return random_backbone(CONFIGURATIONS[family])


def rolled_out(weights, read):
    """One image's shares of patches by products of matrices (blocks, tokens, tokens)."""
    product = np.eye(weights.shape[-1])
    for own in weights:
        step = own + np.eye(len(own))
        product = (step / step.sum(1, keepdims=True)) @ product
    return read @ product


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_the_library(family):
    core, images = make(family)
    before = core(images)
    weights = nn.attention_weights(core, images)
    plain = backbone(family)
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        expected = plain(core.pixels(images), output_attentions=True).attentions
    assert weights.shape[1] == 2  # up to the block that is read, of three
    for own, theirs in zip(weights.unbind(1), expected, strict=False):
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(core(images), before)


@pytest.mark.parametrize("tokens", ["patch", "cls", "both"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rollout_is_that_of_the_tokens_that_are_read(family, tokens):
    core, images = make(family, tokens=tokens)
    weights = nn.attention_weights(core, images).double().mean(2).numpy()
    n_prefix, n_tokens = core.backbone.n_prefix, weights.shape[-1]
    of_class, of_patches = np.eye(n_tokens)[0], np.zeros(n_tokens)
    of_patches[n_prefix:] = 1 / (n_tokens - n_prefix)
    read = {"cls": of_class, "patch": of_patches, "both": (of_class + of_patches) / 2}[tokens]
    shares = np.stack([rolled_out(own, read) for own in weights])[:, n_prefix:].reshape(-1, 2, 3)
    low, high = shares.min((1, 2), keepdims=True), shares.max((1, 2), keepdims=True)
    expected = (shares - low) / (high - low)
    found = nn.attention_rollout(core, images, image_size=(2, 3))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_that_overlap_lie_at_their_true_centers(family):
    side = CONFIGURATIONS[family]["patch_size"]
    core, images = make(family, patch_stride=side // 2)
    assert core.grid == (3, 5)
    rows, columns = core.patch_centers()
    np.testing.assert_allclose(rows, (side - 1) / 2 + side / 2 * np.arange(3))
    np.testing.assert_allclose(columns, (side - 1) / 2 + side / 2 * np.arange(5))
    weights = nn.attention_weights(core, images)
    assert weights.shape[-1] == core.backbone.n_prefix + 15
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    maps = nn.attention_rollout(core, images, placement="centers")
    at = [np.rint(side.numpy() - 0.01).astype(int) for side in (rows, columns)]
    whole = nn.attention_rollout(core, images, image_size=(3, 5))
    near = maps.numpy()[:, at[0][:, None], at[1]]
    assert np.corrcoef(near.ravel(), whole.numpy().ravel())[0, 1] > 0.95


def test_images_of_any_number_give_the_same_maps():
    core, images = make("dinov2")
    with torch.no_grad():
        whole = nn.attention_rollout(core, images)
        single = torch.cat([nn.attention_rollout(core, one) for one in images.split(1)])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-4)


def test_blocks_without_weights_are_named():
    class Silent(torch.nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, *arguments, **options):
            del options
            return arguments[0]

    model = deepcopy(backbone("dinov2"))
    layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    for number, layer in enumerate(layers):
        layers[number] = Silent(layer)
    core = nn.PretrainedViTCore((1, 28, 42), model, block=1).eval()
    with pytest.raises(nn.BackboneError, match="Silent, give no attention weights"):
        nn.attention_rollout(core, torch.randn(1, 1, 28, 42))

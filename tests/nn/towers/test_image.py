"""The image towers, against the numbers of the published code."""

import copy

import numpy as np
import pytest
import torch

from tests.nn.towers.published_towers import (
    assert_agrees,
    assert_gradients_agree,
    image_tower,
    images_of,
    load,
    load_weights,
    own_block,
    own_image,
    under,
)
from v1tlearn import nn

DTYPES = (torch.float64, torch.float32)
READOUTS = ("published", "stated")
BLOCKS = ("mixblock_1head", "mixblock_2heads", "mixblock_no_reduction")
TOWERS = ("image_tower_small", "image_tower_one_block", "image_tower_68x270")


def assert_statistics_agree(module, arrays, own_name, tolerance):
    state = module.state_dict()
    assert arrays
    for name, reference in arrays.items():
        assert_agrees(state[own_name(name)], reference, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", BLOCKS)
def test_mixed_blocks_agree_with_the_published_one(name, readout, dtype):
    arrays = load(name)
    sizes = (int(arrays[k]) for k in ("dim", "heads", "downsample"))
    block = nn.MixBlock(*sizes, cross_attention=readout)
    tolerance = 1e-6 if dtype == torch.float64 else 1e-4
    for mode in ("train", "eval"):
        load_weights(block, under(arrays, "w/"), own_block).to(dtype).train(mode == "train")
        for way in ("auto", "plain"):
            block.zero_grad()
            x = torch.from_numpy(arrays["x"]).to(dtype).requires_grad_()
            with nn.fast.using(way):
                y = copy.deepcopy(block)(x) if way == "plain" else block(x)
                if way == "auto":
                    (y * torch.from_numpy(arrays["cotangent"])).sum().backward()
            assert_agrees(y, arrays[f"{readout}/{mode}/y"], tolerance)
            if way == "auto":
                known = under(arrays, f"{readout}/{mode}/grad/")
                zero = arrays[f"{readout}/{mode}/zero_gradient"]
                assert_gradients_agree(block, known, own_block, dtype, zero)
                assert_agrees(x.grad, known["x"], 1e-6 if dtype == torch.float64 else 1e-5)
                if mode == "train":
                    after = under(arrays, f"{readout}/train/after/")
                    assert_statistics_agree(block, after, own_block, tolerance)


def test_the_two_cross_attentions_differ():
    arrays = load("mixblock_1head")
    difference = np.abs(arrays["published/eval/y"] - arrays["stated/eval/y"]).max()
    assert difference > 0.01 * np.abs(arrays["stated/eval/y"]).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", TOWERS)
def test_image_towers_agree_with_the_published_one(name, readout, dtype):
    arrays = load(name)
    tower = load_weights(image_tower(arrays, readout), under(arrays, "w/"), own_image).to(dtype)
    images = images_of(arrays, dtype).requires_grad_()
    tolerance = 1e-6 if dtype == torch.float64 else 1e-4
    of_maps = 1e-6 if dtype == torch.float64 else 1e-3
    maps = tower(images)
    assert_agrees(maps, arrays[f"{readout}/train/upsampled"], tolerance)
    scaled = nn.scale_maps(maps)
    assert_agrees(scaled, arrays[f"{readout}/train/map"], of_maps)
    (scaled * torch.from_numpy(arrays["cotangent"])).sum().backward()
    known = under(arrays, f"{readout}/train/grad/")
    zero = arrays[f"{readout}/train/zero_gradient"]
    assert_gradients_agree(tower, known, own_image, dtype, zero)
    assert_statistics_agree(tower, under(arrays, f"{readout}/train/after/"), own_image, tolerance)
    load_weights(tower, under(arrays, "w/"), own_image).eval()
    with torch.no_grad():
        assert_agrees(tower.tap(images), arrays[f"{readout}/eval/tap"], tolerance)
        assert_agrees(nn.scale_maps(tower(images)), arrays[f"{readout}/eval/map"], of_maps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TOWERS)
def test_a_backbone_cut_off_gets_no_gradient_as_released(name, dtype):
    arrays = load(name)
    tower = image_tower(arrays, "published", backbone_trained=False)
    load_weights(tower, under(arrays, "w/"), own_image).to(dtype)
    scaled = nn.scale_maps(tower(images_of(arrays, dtype)))
    (scaled * torch.from_numpy(arrays["cotangent"])).sum().backward()
    known, zero = under(arrays, "released/grad/"), arrays["released/zero_gradient"]
    assert_gradients_agree(tower, known, own_image, dtype, zero)
    after = under(arrays, "published/train/after/")
    assert_statistics_agree(tower, after, own_image, 1e-6 if dtype == torch.float64 else 1e-4)


def test_the_tower_of_the_paper_has_its_sizes():
    tower = nn.DSNetTower((1, 68, 270))
    assert sum(p.numel() for p in tower.parameters()) == 1_051_232 + 129
    assert tower.output_shape == (1, 16, 64)
    with torch.no_grad():
        assert tower.eval()(torch.zeros(2, 1, 68, 270)).shape == (2, 1, 16, 64)


def test_towers_refuse_images_without_tokens():
    nn.DSNetTower((1, 32, 32), depths=(1, 1))
    with pytest.raises(ValueError, match="larger images, or smaller reductions"):
        nn.DSNetTower((1, 20, 80))
    with pytest.raises(ValueError, match="cannot be halved 3 times"):
        nn.CNNTower((1, 7, 20), (2, 4, 4), n_layers=4)
    with pytest.raises(ValueError, match="even number of channels"):
        nn.MixBlock(7, 1, 1)
    with pytest.raises(ValueError, match="'stated' or 'published'"):
        nn.MixBlock(8, 1, 1, cross_attention="scrambled")
    with pytest.raises(ValueError, match="odd numbers"):
        nn.CNNTower((1, 20, 20), input_kernel=4)


def test_a_convolutional_tower_trains_every_parameter_and_freezes_all():
    tower = nn.CNNTower((1, 20, 33), (5, 6, 7), hidden_channels=4)
    images = torch.randn(3, 1, 20, 33, generator=torch.Generator().manual_seed(0))
    assert tower(images).shape == (3, 5, 6, 7)
    tower(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in tower.parameters())
    tower.freeze()
    assert not any(p.requires_grad for p in tower.parameters())


@pytest.mark.parametrize("name", TOWERS[:2])
def test_second_derivatives_are_there_where_computed_plainly(name):
    arrays = load(name)
    tower = load_weights(image_tower(arrays), under(arrays, "w/"), own_image).double().eval()
    images = images_of(arrays, torch.float64)[:1].requires_grad_()
    with nn.plain():
        (gradient,) = torch.autograd.grad(tower(images).square().sum(), images, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), images)
    assert second.abs().max() > 0

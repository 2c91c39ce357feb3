"""Grids and token order, over patch, stride and image sizes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn import nn
from v1tlearn.nn.layers.geometry import window_centers

TOKENIZERS = ("unfold", "conv", "spt", "cct", "dual_norm")


@st.composite
def patches(draw):
    """Image size, patch size and stride that go together."""
    size = draw(st.integers(5, 19)), draw(st.integers(5, 19))
    patch = draw(st.integers(1, min(size)))
    return size, patch, draw(st.integers(1, patch))


def window_starts(side, patch, stride):
    return [start for start in range(0, side, stride) if start + patch <= side]


@given(patches(), st.integers(0, 3))
def test_grid_counts_the_windows(geometry, padding):
    size, patch, stride = geometry
    expected = tuple(len(window_starts(s + 2 * padding, patch, stride)) for s in size)
    assert nn.patch_grid(size, patch, stride, padding) == expected


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@given(geometry=patches())
def test_feature_map_has_the_true_grid(tokenizer, geometry):
    size, patch, stride = geometry
    core = nn.ViTCore(
        (2, *size),
        patch_size=patch,
        patch_stride=stride,
        tokenizer=tokenizer,
        n_blocks=1,
        n_heads=2,
        embed_dim=4,
        mlp_dim=3,
    ).eval()
    if tokenizer == "cct":
        convolved = [len(window_starts(s + 6, patch, stride)) for s in size]
        grid = tuple(len(window_starts(s + 2, 3, 2)) for s in convolved)
    else:
        grid = tuple(len(window_starts(s, patch, stride)) for s in size)
    assert core.output_shape == (4, *grid)
    assert core(torch.zeros(2, 2, *size)).shape == (2, 4, *grid)


@pytest.mark.parametrize("tokenizer", ["unfold", "conv", "dual_norm"])
@given(geometry=patches(), data=st.data())
def test_a_pulse_changes_the_tokens_whose_patch_covers_it_and_no_others(tokenizer, geometry, data):
    size, patch, stride = geometry
    y, x = (data.draw(st.integers(0, side - 1)) for side in size)
    core = nn.ViTCore(
        (1, *size),
        patch_size=patch,
        patch_stride=stride,
        tokenizer=tokenizer,
        n_blocks=1,
        n_heads=1,
        embed_dim=6,
        mlp_dim=2,
    ).eval()
    noise = torch.rand(1, 1, *size)
    pulsed = noise.clone()
    pulsed[..., y, x] += 1
    with torch.no_grad():
        for block in core.blocks:  # blocks that pass tokens on leave only the tokenizer and grid
            block.attention.projection.weight.zero_()
            block.mlp[4].weight.zero_()
        changed = (core(pulsed) != core(noise))[0].any(0)
    rows, columns = (window_starts(side, patch, stride) for side in size)
    covered = [[r <= y < r + patch and c <= x < c + patch for c in columns] for r in rows]
    if tokenizer == "dual_norm" and patch == 1:
        covered = [[False] * len(columns) for _ in rows]  # one normalised pixel is always zero
    assert changed.tolist() == covered


def test_published_headline_grid():
    assert nn.patch_grid((36, 64), 8, 1) == (29, 57)
    assert nn.patch_grid((36, 64), 9, 1) == (28, 56)
    assert nn.patch_grid((36, 64), 8, 4) == (8, 15)


@pytest.mark.parametrize(
    ("size", "patch", "stride", "padding", "message"),
    [
        ((36, 64), 37, 1, 0, "37 x 37 pixels does not fit into images of 36 x 64"),
        ((36, 64), 40, 1, 1, "with 1 pixels of padding"),
        ((36, 64), 0, 1, 0, "at least 1"),
        ((36, 64), 8, 0, 0, "at least 1"),
        ((36, 64), 8, 1, -1, "padding -1"),
    ],
)
def test_impossible_windows_are_refused(size, patch, stride, padding, message):
    with pytest.raises(ValueError, match=message):
        nn.patch_grid(size, patch, stride, padding)


@given(
    st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(1, 4), st.integers(1, 3)
)
def test_windows_of_windows_are_centred_on_what_they_see(side, stride, padding, pool, step):
    """The mean place of all pixels of all windows, with the padding counted."""
    first = [[stride * i - padding + k for k in range(side)] for i in range(40)]
    seen = [[p for k in range(pool) for p in first[step * i + k]] for i in range(5)]
    expected = [sum(places) / len(places) for places in seen]
    found = window_centers(5, (side, stride, padding), (pool, step, 0))
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected)
    assert window_centers(3).tolist() == [0, 1, 2]  # pixels themselves

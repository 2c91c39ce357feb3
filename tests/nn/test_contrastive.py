"""Losses of the alignment, against published values, closed forms and brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nn.towers.published_towers import assert_agrees, load, under
from v1tlearn import nn

TERMS = {"contrastive": (1, 0, 0), "rmse": (0, 1, 0), "ssim": (0, 0, 1), "mixed": (1, 0.5, 0.5)}
CASES = ("pair", "one_zero_map", "one_flat_map", "all_flat", "all_zero", "equal")
DTYPES = (torch.float64, torch.float32)


def loss_and_gradients(case, term, dtype, **options):
    maps = [torch.from_numpy(case[k]).to(dtype).requires_grad_() for k in ("z_image", "z_neural")]
    loss = nn.alignment_loss(*maps, weights=TERMS[term], **options)
    loss.backward()
    return loss.detach(), [m.grad for m in maps]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("file", ["loss_terms", "loss_terms_two"])
def test_losses_are_the_published_ones_and_gradients_finite(file, name, dtype):
    case = under(load(file), f"{name}/")
    for term in TERMS:
        loss, gradients = loss_and_gradients(case, term, dtype)
        reference = float(case[f"{term}/value"])
        # flat maps: cosines of 1 up to rounding, over a temperature of 0.01
        assert loss.item() == pytest.approx(
            reference, rel=1e-6 if dtype == torch.float64 else 1e-4, abs=1e-6
        )
        for gradient in gradients:
            assert gradient.isfinite().all()
            assert gradient.abs().max() < 1e3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("file", ["loss_terms", "loss_terms_two"])
def test_gradients_of_an_ordinary_pair_are_the_published_ones(file, dtype):
    case = under(load(file), "pair/")
    for term in TERMS:
        _, gradients = loss_and_gradients(case, term, dtype)
        for gradient, of in zip(gradients, ("image", "neural"), strict=True):
            reference = case[f"{term}/published_grad_z_{of}"]
            assert_agrees(gradient, reference, 1e-6 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("file", ["loss_terms", "loss_terms_two"])
def test_a_loss_without_weight_does_not_spoil_gradients_of_equal_maps(file):
    case = under(load(file), "equal/")
    _, gradients = loss_and_gradients(case, "contrastive", torch.float64)
    for gradient, of in zip(gradients, ("image", "neural"), strict=True):
        assert_agrees(gradient, case[f"contrastive/stated_grad_z_{of}"], 1e-6)


def test_logits_and_another_temperature_are_the_published_ones():
    for name in CASES:
        case = under(load("loss_terms"), f"{name}/")
        maps = (torch.from_numpy(case[k]).double() for k in ("z_image", "z_neural"))
        logits = nn.cosine_similarity(*maps) / 0.01
        assert_agrees(logits, case["logits"], 1e-6) if case["logits"].any() else None
        assert logits.any() == case["logits"].any()
    pair = under(load("loss_terms"), "pair/")
    loss, _ = loss_and_gradients(pair, "contrastive", torch.float64, temperature=0.07)
    assert loss.item() == pytest.approx(float(pair["contrastive_temperature_0.07/value"]), rel=1e-6)


@pytest.mark.parametrize("file", ["ssim_evaluation", "ssim_evaluation_small"])
def test_structural_similarity_is_the_published_one(file):
    arrays = load(file)
    maps = [torch.from_numpy(arrays[k]).double()[:, None] for k in ("z_image", "z_neural")]
    similarity = nn.structural_similarity(*maps)[:, 0].clamp(0, 1)
    assert_agrees(similarity, arrays["ssim_map"], 1e-6)
    assert_agrees(similarity.mean((1, 2)), arrays["score"], 1e-6)
    rescaled = nn.structural_similarity(*map(nn.scale_maps, maps)).mean((1, 2, 3))
    assert_agrees(rescaled, arrays["loss_ssim"], 1e-6)


def test_equal_logits_tell_nothing():
    for n in (1, 2, 7):
        assert nn.info_nce(torch.full((n, n), 3.0)).item() == pytest.approx(math.log(n), abs=1e-6)


def brute_force(logits, labels):
    """Of every positive: the logarithm of its share among itself and the negatives."""
    total = 0.0
    for matrix in (logits, logits.T):
        for i, row in enumerate(matrix):
            negatives = sum(math.exp(row[n]) for n in range(len(row)) if labels[n] != labels[i])
            of = [p for p in range(len(row)) if labels[p] == labels[i]]
            one = [-math.log(math.exp(row[p]) / (math.exp(row[p]) + negatives)) for p in of]
            total += sum(one) / len(of) / len(row)
    return total / 2


@given(st.lists(st.integers(0, 3), min_size=1, max_size=7), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_repeats_are_positives_and_never_negatives(labels, seed):
    logits = np.random.default_rng(seed).normal(size=(len(labels),) * 2) * 3
    loss = nn.info_nce(torch.from_numpy(logits), torch.tensor(labels))
    assert loss.item() == pytest.approx(brute_force(logits, labels), rel=1e-9, abs=1e-12)


def test_without_repeats_labels_change_nothing():
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.tensor([5, 3, 9, 0, 1, 2])
    assert nn.info_nce(logits, labels).item() == pytest.approx(nn.info_nce(logits).item(), rel=1e-9)


def test_a_batch_of_one_image_has_no_loss_and_no_gradient():
    logits = torch.randn(4, 4, requires_grad=True)
    loss = nn.info_nce(logits, torch.zeros(4, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@given(st.integers(0, 2**31), st.sampled_from(["minmax", "center", "none"]))
@settings(max_examples=20, deadline=None)
def test_scaled_maps(seed, how):
    maps = torch.from_numpy(np.random.default_rng(seed).normal(3, 5, (3, 2, 4, 5)))
    maps[0, 0] = 7.0
    scaled = nn.scale_maps(maps, how)
    if how == "minmax":
        assert scaled.min() == 0
        assert scaled.max() <= 1
        assert scaled[1:].amax((2, 3)).min().item() == pytest.approx(1, abs=1e-6)
        assert not scaled[0, 0].any()
    elif how == "center":
        assert scaled.mean((2, 3)).abs().max() < 1e-12
        same = torch.corrcoef(torch.stack([maps[1, 0].flatten(), maps[2, 0].flatten()]))[0, 1]
        cosine = nn.cosine_similarity(scaled[1:2, :1], scaled[2:3, :1])
        assert cosine.item() == pytest.approx(same.item(), abs=1e-9)
    else:
        assert scaled is maps


@pytest.mark.parametrize("how", ["minmax", "center"])
@given(value=st.floats(-1e3, 1e3, width=32))
def test_flat_maps_become_zeros_without_rounding(how, value):
    maps = torch.full((2, 3, 7, 5), value, requires_grad=True)
    scaled = nn.scale_maps(maps, how)
    scaled.sum().backward()
    assert not scaled.any()
    assert not maps.grad.any()


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 40))
def test_steady_cosines_do_not_depend_on_what_else_is_computed(seed, n, m):
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(k, 2, 3, 4, generator=generator) for k in (n, m))
    second[-1] = 0
    cosines = nn.steady_cosines(first, second)
    assert cosines.dtype == torch.float32
    one_by_one = [[nn.steady_cosines(a[None], b[None]).item() for b in second] for a in first]
    assert torch.equal(cosines, torch.tensor(one_by_one))
    torch.testing.assert_close(cosines, nn.cosine_similarity(first, second), rtol=0, atol=1e-6)
    assert not cosines[:, -1].any()
    assert (nn.steady_cosines(first, first).diagonal() == 1).all()


def test_wrong_shapes_and_words_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        nn.alignment_loss(torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 3, 4))
    with pytest.raises(ValueError, match="'minmax', 'center' or 'none'"):
        nn.scale_maps(torch.zeros(1, 1, 2, 2), "zscore")
    with pytest.raises(ValueError, match=r"logits \(n, n\)"):
        nn.info_nce(torch.zeros(2, 3))


def test_ranks_count_all_that_is_as_similar_in_any_number_of_galleries():
    similarity = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.2, 0.0]])
    seen = torch.tensor([2, 0])
    assert nn.ranks_of_seen(similarity, seen).tolist() == [2, 2]
    several = torch.stack([similarity, -similarity, torch.zeros(2, 3)])
    assert nn.ranks_of_seen(several, seen).tolist() == [[2, 2], [2, 3], [3, 3]]

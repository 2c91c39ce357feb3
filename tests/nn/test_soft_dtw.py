"""Soft-DTW: against all alignments, finite differences, published values, and tslearn."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from tests.nn.movies.published_vist import load, relative_error
from v1tlearn import nn

FLOAT64 = torch.float64


def alignments(p, q):
    """Monotone paths from the first cell of a p x q table to its last one."""

    def onward(path):
        i, j = path[-1]
        if (i, j) == (p - 1, q - 1):
            yield path
        for step in ((1, 0), (0, 1), (1, 1)):
            if i + step[0] < p and j + step[1] < q:
                yield from onward([*path, (i + step[0], j + step[1])])

    return list(onward([(0, 0)]))


def by_listing(x, y, gamma):
    """Value for one pair of sequences, as the soft minimum over all alignments."""
    costs = ((x[:, None] - y[None]) ** 2).sum(-1)
    totals = [sum(costs[c] for c in path) for path in alignments(len(x), len(y))]
    return -gamma * logsumexp(-np.array(totals) / gamma)


def by_recursion(x, y, gamma):
    """The same by the recursion, cell by cell, in numpy."""
    costs = ((x[:, None] - y[None]) ** 2).sum(-1)
    reached = np.full((len(x) + 1, len(y) + 1), np.inf)
    reached[0, 0] = 0
    for i, j in itertools.product(range(len(x)), range(len(y))):
        steps = np.array([reached[i, j + 1], reached[i + 1, j], reached[i, j]])
        reached[i + 1, j + 1] = costs[i, j] - gamma * logsumexp(-steps / gamma)
    return reached[-1, -1]


def divergence(value, x, y, gamma):
    return value(x, y, gamma) - (value(x, x, gamma) + value(y, y, gamma)) / 2


def sequences(n, p, q, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p, d)), rng.normal(size=(n, q, d))


def gradients(function, *tensors):
    leaves = [torch.as_tensor(t).clone().requires_grad_() for t in tensors]
    value = function(*leaves)
    return value.detach(), torch.autograd.grad(value.sum(), leaves)


@pytest.mark.parametrize("gamma", [0.01, 0.1, 3.0])
@pytest.mark.parametrize(("p", "q"), [(1, 1), (1, 4), (4, 1), (2, 3), (5, 3), (5, 5)])
def test_values_are_soft_minima_over_all_alignments(p, q, gamma):
    x, y = sequences(3, p, q, 2)
    value = nn.soft_dtw(torch.from_numpy(x), torch.from_numpy(y), gamma=gamma)
    expected = [by_listing(*pair, gamma) for pair in zip(x, y, strict=True)]
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    value = nn.soft_dtw_divergence(torch.from_numpy(x), torch.from_numpy(y), gamma=gamma)
    expected = [divergence(by_listing, *pair, gamma) for pair in zip(x, y, strict=True)]
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)


shapes = st.tuples(*[st.integers(1, n) for n in (4, 14, 14, 5)])


@given(shapes, st.sampled_from([0.05, 0.1, 1.0]), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_gradients_are_those_of_finite_differences(shape, gamma, seed):
    x, y = sequences(*shape, seed)
    directions = sequences(*shape, seed + 1000)
    for function in (nn.soft_dtw, nn.soft_dtw_divergence):
        _, found = gradients(lambda a, b, f=function: f(a, b, gamma=gamma), x, y)
        by_gradient = sum((g.numpy() * d).sum() for g, d in zip(found, directions, strict=True))
        step = 1e-5
        moved = [
            function(*(torch.from_numpy(s + sign * step * d) for s, d in zip((x, y), directions,
                     strict=True)), gamma=gamma).sum().item()
            for sign in (1, -1)
        ]  # fmt: skip
        assert by_gradient == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-4, abs=1e-5)


@given(shapes, st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_values_follow_the_recursion_and_the_plain_way_agrees(shape, seed):
    x, y = sequences(*shape, seed)
    expected = [divergence(by_recursion, *pair, 0.1) for pair in zip(x, y, strict=True)]
    value, found = gradients(nn.soft_dtw_divergence, x, y)
    np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-10)
    with nn.plain():
        plain, expected = gradients(nn.soft_dtw_divergence, x, y)
    np.testing.assert_allclose(value, plain, rtol=1e-10, atol=1e-10)
    for g, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("way", ["compiled", "blocked"])
@pytest.mark.parametrize("parts", [1.0, 1e-3])
@pytest.mark.parametrize("file", ["soft_dtw", "soft_dtw_long"])
def test_published_pairs(file, parts, way):
    arrays = load(file)
    cases = sorted({tuple(k.split("/")[:2]) for k in arrays if "gamma" in k})
    assert len(cases) > 1
    for pair, softness in cases:
        gamma = float(softness.removeprefix("gamma"))
        case = {
            k.split("/")[2]: v for k, v in arrays.items() if k.startswith(f"{pair}/{softness}/")
        }
        x, y = (torch.from_numpy(arrays[f"{pair}/{s}"])[None] for s in "xy")
        with nn.fast.using(way, parts=parts):
            assert nn.soft_dtw(x, y, gamma=gamma).item() == pytest.approx(case["value"], rel=1e-12)
            value, (by_x, _) = gradients(
                lambda a, b, g=gamma: nn.soft_dtw_divergence(a, b, gamma=g), x, y
            )
        assert value.item() == pytest.approx(case["divergence"], rel=1e-12)
        assert relative_error(by_x[0], case["grad_x"]) < 1e-7
        assert value.item() == pytest.approx(case["published_divergence"], rel=1e-6)
        assert relative_error(by_x[0], case["published_grad_x"]) < 1e-3


@pytest.mark.slow  # to compile its loops
def test_tslearn_agrees():
    tslearn = pytest.importorskip("tslearn.metrics")
    x, y = (torch.from_numpy(s).float() for s in sequences(6, 9, 9, 4, seed=3))
    value, (by_x, by_y) = gradients(nn.soft_dtw_divergence, x, y)
    loss, threads = tslearn.SoftDTWLossPyTorch(gamma=0.1, normalize=True), torch.get_num_threads()
    theirs, (their_x, their_y) = gradients(loss, x, y)
    torch.set_num_threads(threads)  # which its compiled loops change
    torch.testing.assert_close(value, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_x, their_x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(by_y, their_y, rtol=1e-4, atol=1e-4)
    assert value.dtype == by_x.dtype == torch.float32


def test_divergences_are_zero_for_equal_sequences_positive_otherwise_and_symmetric():
    x, y = (torch.from_numpy(s) for s in sequences(20, 6, 8, 3))
    assert nn.soft_dtw_divergence(x, x).abs().max() < 1e-12
    assert (nn.soft_dtw_divergence(x, y) > 0).all()
    torch.testing.assert_close(nn.soft_dtw_divergence(x, y), nn.soft_dtw_divergence(y, x))


def test_sequences_far_from_the_origin_lose_no_digits():
    x, y = (torch.from_numpy(s) for s in sequences(3, 6, 7, 4))
    away = 2.0**20
    torch.testing.assert_close(
        nn.soft_dtw_divergence(x + away, y + away),
        nn.soft_dtw_divergence(x, y), rtol=1e-8, atol=1e-8,
    )  # fmt: skip
    softest = nn.soft_dtw(1e4 * x, 1e4 * y, gamma=1e-3)
    assert softest.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_computed_is_float64_inside_whatever_comes(dtype):
    x, y = (torch.from_numpy(s).to(dtype) for s in sequences(4, 12, 12, 90))
    value, (by_x, _) = gradients(nn.soft_dtw_divergence, x, y)
    expected, (expected_by_x, _) = gradients(nn.soft_dtw_divergence, x.double(), y.double())
    assert value.dtype == torch.float32
    assert by_x.dtype == dtype
    torch.testing.assert_close(value, expected.float())
    torch.testing.assert_close(by_x, expected_by_x.to(dtype))


def by_both_ways(function, *tensors):
    """Values and gradients by the compiled kernel, where there is one, and by torch."""
    found = []
    for way in ("compiled", "blocked"):
        with nn.fast.using(way):
            value, by = gradients(function, *tensors)
        found.append((value, *by))
    return zip(*found, strict=True)


@given(
    st.tuples(*[st.integers(1, n) for n in (19, 14, 14, 19)]),
    st.sampled_from([1e-6, 0.1, 1.0, 1e6]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 100),
)
@settings(max_examples=30, deadline=None)
def test_the_kernel_does_what_torch_does_at_any_softness_and_number_of_pairs(
    shape, gamma, dtype, seed
):
    tensors = [torch.from_numpy(s).to(dtype) for s in sequences(*shape, seed)]
    for function in (nn.soft_dtw, nn.soft_dtw_divergence):
        for one, other in by_both_ways(lambda a, b, f=function: f(a, b, gamma=gamma), *tensors):
            assert one.dtype == other.dtype == dtype
            exact = dtype == torch.float64
            scale = max(1.0, gamma, float(other.abs().max()))
            torch.testing.assert_close(
                one, other, rtol=1e-9 if exact else 1e-5, atol=scale * (1e-9 if exact else 1e-5)
            )


def test_threads_change_no_digit():
    x, y = (torch.from_numpy(s) for s in sequences(37, 9, 7, 11))
    alone = gradients(nn.soft_dtw_divergence, x, y)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with nn.fast.using("compiled", parts=0.5):
            shared = gradients(nn.soft_dtw_divergence, x, y)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone[0], shared[0])
    assert all(map(torch.equal, alone[1], shared[1]))


def test_only_one_of_both_needs_a_gradient():
    x, y = (torch.from_numpy(s) for s in sequences(9, 6, 5, 4))
    value, (by_x, by_y) = gradients(nn.soft_dtw_divergence, x, y)
    for i, expected in enumerate((by_x, by_y)):
        pair = [x.clone(), y.clone()]
        leaf = pair[i].requires_grad_()
        found = nn.soft_dtw_divergence(*pair)
        assert torch.equal(found, value)
        assert torch.equal(torch.autograd.grad(found.sum(), leaf)[0], expected)
    assert not nn.soft_dtw_divergence(x, y).requires_grad


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf"), 1e150])
def test_numbers_that_the_kernel_cannot_take_go_the_other_way(spoilt):
    x, y = (torch.from_numpy(s) for s in sequences(9, 4, 5, 3))
    x[2, 1, 1] = spoilt
    for one, other in by_both_ways(nn.soft_dtw_divergence, x, y):
        torch.testing.assert_close(one, other, equal_nan=True)
    value = nn.soft_dtw_divergence(x, y)
    assert value[[0, 1, 3]].isfinite().all()
    if spoilt != 1e150:
        assert not value[2].isfinite()


def test_long_sequences_of_any_scale_stay_exact():
    x, y = (torch.from_numpy(s) for s in sequences(2, 200, 230, 2))
    for scale in (1e-4, 1.0, 1e4):
        for one, other in by_both_ways(nn.soft_dtw, scale * x, scale * y):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10 * scale)


def test_second_derivatives_are_plain_ones():
    x, y = (torch.from_numpy(s) for s in sequences(1, 3, 4, 2))
    with nn.plain():
        assert torch.autograd.gradgradcheck(
            nn.soft_dtw_divergence, (x.requires_grad_(), y.requires_grad_())
        )


def test_no_sequences_have_no_values():
    none = torch.zeros(0, 3, 2, requires_grad=True)
    value = nn.soft_dtw_divergence(none, none)
    assert value.shape == (0,)
    assert torch.autograd.grad(value.sum(), none)[0].shape == none.shape


@pytest.mark.parametrize("other", [(2, 3), (2, 3, 5), (3, 3, 4), (2, 0, 4)])
def test_sequences_that_do_not_fit_are_refused(other):
    with pytest.raises(ValueError, match=r"expected \(n, length, d\) with equal n and d"):
        nn.soft_dtw(torch.zeros(2, 3, 4), torch.zeros(other))


@pytest.mark.parametrize("gamma", [0, -1.0, float("nan")])
def test_softness_is_positive(gamma):
    with pytest.raises(ValueError, match="expected a positive number"):
        nn.soft_dtw_divergence(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), gamma=gamma)


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_same():
    x, y = (torch.from_numpy(s) for s in sequences(7, 12, 9, 30))
    value, found = gradients(nn.soft_dtw_divergence, x, y)
    there, on_gpu = gradients(nn.soft_dtw_divergence, x.cuda(), y.cuda())
    torch.testing.assert_close(there.cpu(), value)
    for g, e in zip(on_gpu, found, strict=True):
        torch.testing.assert_close(g.cpu(), e)

"""Ranks and what follows from them, against galleries that are all looked through."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v1tlearn.metrics import (
    mean_reciprocal_rank,
    median_rank,
    seen_ranks,
    similarity_ranks,
    top_k_accuracy,
    two_way_identification,
)

# Few values, so that there are ties.
similarities = st.integers(2, 6).flatmap(
    lambda m: st.lists(
        st.lists(st.integers(-2, 2), min_size=m, max_size=m), min_size=1, max_size=4
    ).map(np.array)
)


def all_galleries(similarity, seen, size):
    """Ranks of the seen image in every gallery of this size that holds it, by counting."""
    others = [j for j in range(len(similarity)) if j != seen]
    return [
        1 + sum(similarity[j] >= similarity[seen] for j in chosen)
        for chosen in combinations(others, size - 1)
    ]


@given(similarities, st.data())
@settings(max_examples=60, deadline=None)
def test_measures_are_those_of_all_galleries_of_a_size(similarity, data):
    n, m = similarity.shape
    seen = np.array(data.draw(st.lists(st.integers(0, m - 1), min_size=n, max_size=n)))
    size = data.draw(st.integers(2, m))
    k = data.draw(st.integers(1, size))
    ranks = seen_ranks(similarity, seen)
    drawn = [all_galleries(row, j, size) for row, j in zip(similarity, seen, strict=True)]
    expected = np.mean([np.mean([r <= k for r in one]) for one in drawn])
    assert top_k_accuracy(ranks, m, k, size) == pytest.approx(expected, abs=1e-12)
    expected = np.mean([np.mean([1 / r for r in one]) for one in drawn])
    assert mean_reciprocal_rank(ranks, m, size) == pytest.approx(expected, abs=1e-12)
    together = sorted(r for one in drawn for r in one)  # all queries have equally many
    assert median_rank(ranks, m, size) == together[(len(together) + 1) // 2 - 1]
    pairs = [all_galleries(row, j, 2) for row, j in zip(similarity, seen, strict=True)]
    expected = np.mean([np.mean([r == 1 for r in one]) for one in pairs])
    assert two_way_identification(ranks, m) == pytest.approx(expected, abs=1e-12)


@given(similarities)
@settings(max_examples=40, deadline=None)
def test_ties_count_against_every_image(similarity):
    ranks = similarity_ranks(similarity)
    for i, row in enumerate(similarity):
        assert ranks[i].tolist() == [sum(other >= value for other in row) for value in row]


@pytest.mark.parametrize("kind", ["int8", "uint8", "uint64", "bool", "float16"])
def test_similarities_of_any_type_are_ranked_alike(kind):
    values = np.array([[0, 1, 2, 1], [2, 0, 0, 2]]).astype(kind)
    if kind == "int8":
        values = np.where(values == 0, np.iinfo(kind).min, values)  # whose negative is itself
    assert similarity_ranks(values).tolist() == similarity_ranks(values.astype(float)).tolist()


def test_masked_places_and_ranks_are_refused():
    similarity, places = np.eye(3), np.ma.array([0, 1, 2], mask=[False, True, False])
    with pytest.raises(ValueError, match="seen: 1 of 3 values are masked"):
        seen_ranks(similarity, places)
    with pytest.raises(ValueError, match="ranks: 1 of 3 values are masked"):
        top_k_accuracy(places + 1, 3)


def test_similarities_without_contrast_find_nothing():
    ranks = seen_ranks(np.zeros((5, 5)))
    assert top_k_accuracy(ranks, 5) == 0
    assert median_rank(ranks, 5) == 5
    assert two_way_identification(ranks, 5) == 0


def test_large_galleries_keep_their_precision():
    ranks = np.array([1, 40, 900, 2800])
    m, size = 2800, 100

    def missed(rank):
        """Probability that none of the best `rank` images is among `size` of all, exactly."""
        out = Fraction(1)
        for i in range(size):
            out *= Fraction(max(0, m - rank - i), m - i)
        return out

    expected = [float(Fraction(m, size * int(r)) * (1 - missed(int(r)))) for r in ranks]
    assert mean_reciprocal_rank(ranks, m, size) == pytest.approx(np.mean(expected), rel=1e-10)


def test_galleries_of_very_many_images_are_summed_up_exactly():
    m, size, ranks = 100_000, 1000, np.array([3, 80, 70_000], dtype=np.uint32)

    def none_better(rank):
        """Probability that no better image is among the others of a gallery, exactly."""
        out = Fraction(1)
        for i in range(size - 1):
            out *= Fraction(max(0, m - int(rank) - i), m - 1 - i)
        return float(out)

    expected = np.mean([none_better(rank) for rank in ranks])
    assert top_k_accuracy(ranks, m, 1, size) == pytest.approx(expected, rel=1e-10)
    assert median_rank(ranks, m, size) == 2  # of which the second has 79 * 999 / 99,999 ahead
    assert median_rank(ranks, m) == 80
    assert top_k_accuracy(ranks, m, 80) == pytest.approx(2 / 3)


def test_ranks_spread_evenly_are_at_chance():
    ranks = np.arange(1, 31)
    assert top_k_accuracy(ranks, 30, 5, 10) == pytest.approx(0.5)
    assert mean_reciprocal_rank(ranks, 30, 4) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert median_rank(ranks, 30, 10) == 5
    assert two_way_identification(ranks, 30) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: seen_ranks(np.ones((3, 1))), "two images at least"),
        (lambda: seen_ranks([[0.1, np.nan], [1, 2]]), "1 of 2 queries, the first number 0"),
        (lambda: seen_ranks(np.ones((3, 2))), "give seen="),
        (lambda: seen_ranks(np.ones((2, 3)), [0.0, 1.0]), "a whole number"),
        (lambda: top_k_accuracy([1, 2], 4, k=5), "from 1 to 4"),
        (lambda: top_k_accuracy([1, 2], 4, k=3, gallery_size=2), "from 1 to 2"),
        (lambda: top_k_accuracy([1, 2], 4, gallery_size=5), "from 2 to 4"),
        (lambda: median_rank([0, 2], 4), "expected 1 to 4"),
        (lambda: two_way_identification([], 4), "at least one query"),
        (lambda: mean_reciprocal_rank([1], 1), "from 2 on"),
    ],
)
def test_wrong_arguments_are_told(call, told):
    with pytest.raises(ValueError, match=told):
        call()

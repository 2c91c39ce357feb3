"""Metrics of values that lose digits easily, against exact fractions of what their dtype holds."""

from fractions import Fraction
from math import nan, sqrt

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from v1tlearn import metrics

RAW = {"multioutput": "raw_values"}

# What values begin at and differ by: steps that the dtype holds, beyond what counts as rounding.
GRIDS = {
    "float16": ("float16", 1024, 1),
    "float32 and small": ("float32", 0, 2.0**-100),
    "float32 on 1e8": ("float32", 10**8, 800),
    "float64 on 1e8": ("float64", 10**8, 2.0**-10),
    "float64 on -1e15": ("float64", -(10**15), 8192),
    "whole numbers": ("int64", 2**40, 10**3),
    "small whole numbers": ("uint8", 200, 1),
}


def mean(values):
    return sum(values, Fraction(0)) / len(values)


def dot(one, other):
    a, b = mean(one), mean(other)
    return sum(((x - a) * (y - b) for x, y in zip(one, other, strict=True)), Fraction(0))


def ratio(value, square):
    """value / sqrt(square), where the root is the only step in floats."""
    return float(np.sign(float(value))) * sqrt(value * value / square) if square else 0.0


def correlation(one, other):
    return ratio(dot(one, other), dot(one, one) * dot(other, other))


def of_images(values, ids):
    return [[v for v, i in zip(values, ids, strict=True) if i == one] for one in dict.fromkeys(ids)]


def variance(values, ddof=1):
    return dot(values, values) / (len(values) - ddof)


def repeated(true, pred, ids):
    """Trials of images that a neuron was recorded for more than once."""
    kept = [k for k, image in enumerate(ids) if ids.count(image) > 1]
    return [[values[k] for k in kept] for values in (true, pred, ids)]


def weighted(true, pred, ids):
    """The correlation of trials that are there as often as their weights say."""
    often = [k for k, image in enumerate(ids) for _ in range(WEIGHTS[image])]
    return single_trial([true[k] for k in often], [pred[k] for k in often], len(set(often)))


def single_trial(true, pred, n):
    return correlation(true, pred) if n > 1 else nan


def noise_of(true, ids):
    return mean([variance(repeats) for repeats in of_images(true, ids) if len(repeats) > 1])


def fev(true, pred, ids):
    if len(set(ids)) == len(ids) or not (total := variance(true)):
        return nan
    return float((total - noise_of(true, ids)) / total)


def feve(true, pred, ids):
    if len(set(ids)) == len(ids) or not (total := variance(true)):
        return nan
    noise = noise_of(true, ids)
    assume(total == noise or abs(total - noise) > 1e-6 * total)  # or there is nothing to explain
    error = mean([(x - y) ** 2 for x, y in zip(true, pred, strict=True)])
    return float(1 - (error - noise) / (total - noise)) if total != noise else nan


def explained(true, pred, ids):
    error = sum((x - y) ** 2 for x, y in zip(true, pred, strict=True))
    total = variance(true) if len(true) > 1 else 0
    return float(1 - error / len(true) / total) if total else nan


def to_average(true, pred, ids):
    averages = [[mean(r) for r in of_images(v, ids)] for v in (true, pred)]
    return correlation(*averages) if len(averages[0]) > 1 else nan


def conservative(true, pred, ids):
    if not ids:
        return nan
    images = of_images(true, ids)
    signal = variance([mean(repeats) for repeats in images], 0)
    noise = mean([variance(repeats, 0) for repeats in images])
    return sqrt(signal / (signal + noise)) if signal else 0.0


def jackknife(true, pred, ids):
    if not ids:
        return nan
    sums = {i: sum(v for v, j in zip(true, ids, strict=True) if i == j) for i in ids}
    others = [(sums[i] - v) / (ids.count(i) - 1) for v, i in zip(true, ids, strict=True)]
    return correlation(true, others)


def of_oracle(true, pred, ids):
    oracle = jackknife(true, pred, ids)
    assume(not ids or oracle == 0 or abs(oracle) > 1e-6)
    return correlation(true, pred) / oracle if oracle else nan


def power_and_variance(true, ids):
    """By Schoppe's form, of repeats in their order, or the one for unequal repeats."""
    images = of_images(true, ids)
    n, spread = len(images[0]), variance([mean(repeats) for repeats in images])
    if all(len(repeats) == n for repeats in images):
        of_repeats = sum(variance(each) for each in zip(*images, strict=True))
        power = (variance([sum(repeats) for repeats in images]) - of_repeats) / (n * (n - 1))
    else:
        power = spread - mean([variance(repeats) / len(repeats) for repeats in images])
    assume(power == spread == 0 or abs(power) > 1e-6 * spread)
    return power, spread


def normalized(true, pred, ids):
    if len(set(ids)) < 2:
        return nan
    power, _ = power_and_variance(true, ids)
    response, prediction = ([mean(r) for r in of_images(v, ids)] for v in (true, pred))
    spread = variance(prediction)
    return (
        ratio(dot(response, prediction) / (len(response) - 1), spread * power) if power > 0 else nan
    )


def average_ceiling(true, pred, ids):
    if len(set(ids)) < 2:
        return nan
    power, spread = power_and_variance(true, ids)
    return sqrt(power / spread) if power > 0 else 0.0


def single_trial_ceiling(true, pred, ids):
    if not ids:
        return nan
    share = fev(true, pred, ids)
    assume(not abs(share) < 1e-6)
    return sqrt(share) if share > 0 else 0.0


def of_categories(true, pred, ids):
    """Of images whose names are even, and of others; of those that a neuron saw two of at least."""
    averages = {image: mean(of_images(true, ids)[k]) for k, image in enumerate(dict.fromkeys(ids))}
    classes = [[v for image, v in averages.items() if image % 2 == odd] for odd in (0, 1)]
    if min(map(len, classes)) < 2:
        return nan
    total, within = (
        variance(classes[0] + classes[1]),
        mean([variance(values) for values in classes]),
    )
    return float((total - within) / total) if total else nan


WEIGHTS = (2, 1, 0, 3, 1)  # of the trials of each image


def of_repeated(metric):
    return lambda *trials: metric(*repeated(*trials))


def ceiling(name):
    return lambda t, p, i: metrics.noise_ceiling(t, image_ids=i, n_bootstrap=0)[name].sel(
        estimate="value"
    )


# By exact fractions, of the trials in which a neuron was recorded; and by the package.
METRICS = {
    "single_trial_correlation": (
        lambda true, pred, ids: single_trial(true, pred, len(ids)),
        lambda t, p, i: metrics.single_trial_correlation(t, p, **RAW),
    ),
    "weighted": (
        weighted,
        lambda t, p, i: metrics.single_trial_correlation(
            t, p, sample_weight=np.take(WEIGHTS, i), **RAW
        ),
    ),
    "over time": (
        lambda true, pred, ids: single_trial(true, pred, len(ids)),
        lambda t, p, i: metrics.correlation_over_time(t, p, **RAW),
    ),
    "average_correlation": (
        to_average,
        lambda t, p, i: metrics.average_correlation(t, p, image_ids=i, **RAW),
    ),
    "jackknife": (
        of_repeated(jackknife),
        lambda t, p, i: metrics.oracle_correlation(t, image_ids=i, **RAW),
    ),
    "conservative": (
        of_repeated(conservative),
        lambda t, p, i: metrics.oracle_correlation(t, image_ids=i, kind="conservative", **RAW),
    ),
    "fraction_oracle": (
        of_repeated(of_oracle),
        lambda t, p, i: metrics.fraction_oracle(t, p, image_ids=i, **RAW),
    ),
    "fev": (of_repeated(fev), lambda t, p, i: metrics.fev(t, image_ids=i, **RAW)),
    "fev, all counted": (
        fev,
        lambda t, p, i: metrics.fev(t, image_ids=i, shown_once="counted", **RAW),
    ),
    "fev of two repeats": (
        of_repeated(fev),
        lambda t, p, i: metrics.fev(t, image_ids=i, first_repeats=2, **RAW),
    ),
    "feve": (
        of_repeated(feve),
        lambda t, p, i: metrics.feve(t, p, image_ids=i, threshold=-np.inf, **RAW),
    ),
    "feve, all counted": (
        feve,
        lambda t, p, i: metrics.feve(
            t, p, image_ids=i, threshold=-np.inf, shown_once="counted", **RAW
        ),
    ),
    "variance explained": (
        explained,
        lambda t, p, i: metrics.feve(t, p, noise_term=False, **RAW),
    ),
    "normalized_correlation": (
        of_repeated(normalized),
        lambda t, p, i: metrics.normalized_correlation(t, p, image_ids=i, **RAW),
    ),
    "fecv": (
        of_categories,
        lambda t, p, i: metrics.fecv(t, categories=i % 2, image_ids=i, **RAW),
    ),
    "oracle": (of_repeated(jackknife), ceiling("oracle")),
    "explainable variance": (of_repeated(fev), ceiling("explainable_variance")),
    "ceiling of single trials": (
        of_repeated(single_trial_ceiling),
        ceiling("single_trial_ceiling"),
    ),
    "ceiling of averages": (of_repeated(average_ceiling), ceiling("average_ceiling")),
}

COUNTS = [(2, 2), (2, 2, 2), (3, 2, 4), (2, 5), (3, 3, 3, 3), (2, 1, 3, 2, 1), (5, 5, 5)]


@st.composite
def recorded(draw, enough=lambda counts: True):
    """Responses and predictions (trials, 2 neurons) on a grid, of images in any order.

    Neurons may be constant, have ties, or not be recorded in some trials.
    """
    counts = draw(st.sampled_from(list(filter(enough, COUNTS))))
    ids = np.array(draw(st.permutations(np.repeat(np.arange(len(counts)), counts).tolist())))
    dtype, offset, step = GRIDS[draw(st.sampled_from(sorted(GRIDS)))]
    highest = draw(st.sampled_from([1, 40]))
    levels = st.lists(st.integers(0, highest), min_size=2 * len(ids), max_size=2 * len(ids))
    true, pred = (
        (offset + step * np.array(draw(levels), dtype=object).reshape(-1, 2)).astype(dtype)
        for _ in range(2)
    )
    if true.dtype.kind == "f":
        lost = draw(st.lists(st.integers(0, len(ids) - 2), max_size=4))
        true[lost, 0] = pred[lost, 0] = np.nan
    return true, pred, ids


@pytest.mark.parametrize("name", METRICS)
@given(data=st.data())
@settings(max_examples=10)
def test_no_digit_is_lost(name, data):
    exact, metric = METRICS[name]
    enough = (lambda counts: len(counts) > 3) if name == "fecv" else (lambda counts: True)
    true, pred, ids = data.draw(recorded(enough))
    expected = []
    for column in range(2):
        kept = ~np.isnan(true[:, column].astype(float))
        if "two repeats" in name:  # whether or not they were recorded
            kept &= [(ids[:k] == image).sum() < 2 for k, image in enumerate(ids)]
        trials = [[Fraction(v.item()) for v in values[kept, column]] for values in (true, pred)]
        expected.append(exact(*trials, ids[kept].tolist()))
    np.testing.assert_allclose(metric(true, pred, ids), expected, rtol=1e-9, atol=1e-9)

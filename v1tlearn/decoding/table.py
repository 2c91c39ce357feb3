"""How well images are decoded from responses: all measures of several decoders as one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from v1tlearn._models import named
from v1tlearn._values import as_whole, plain
from v1tlearn.decoding._calls import check_images, warn_of_seen
from v1tlearn.decoding._comparison import SLOW, Comparison, Measure, check_decoder, compare
from v1tlearn.decoding._statistics import cosines, draw_counts, repeat_counts, statistics
from v1tlearn.metrics._chance import as_level, draw_images, interval, p_value, shuffle_images
from v1tlearn.training import draw_seed
from v1tlearn.trials import Trials

MEAN = "mean"
_MOST_SHUFFLES = 19  # of slow measures
_TO_IMAGE, _TO_RESPONSE = "response_to_image", "image_to_response"


class _Row(NamedTuple):
    """One measure of one mouse: its value, and its draws."""

    direction: str
    metric: str
    size: int | None
    found: float
    resampled: np.ndarray  # (n_bootstrap,)
    null: np.ndarray  # (n_permutations,), or fewer
    chance: float
    ceiling: float
    lower_is_better: bool = False

    @property
    def key(self) -> tuple[str, str, int | None]:
        return self.direction, self.metric, self.size


def decoding_table(
    decoders: Any,
    trials: Trials,
    *,
    gallery_sizes: Sequence[int] = (2, 10, 50, 100),
    k: Sequence[int] = (1, 5),
    level: float = 0.95,
    n_bootstrap: int = 1000,
    n_permutations: int = 1000,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Tell how well decoders find and reconstruct the images of trials, in a tidy table.

    Parameters
    ----------
    decoders : decoder, dict of str to decoder, or sequence of decoders
        Fitted: `DINAAligner`, `RidgeDecoder`, `LinearProbe` of pixels; or reconstructions of these
        trials, a DataArray (trial, channel, height, width), such as `reconstruct_images` and
        `reconstruct_by_retrieval` give.
    trials : Trials
        With images that no decoder was fitted to; there is a warning where one was.
    gallery_sizes : sequence of int, default=(2, 10, 50, 100)
        Images among which one is to be found. Those above the number of images are left out, and
        that number is added, of each mouse and of the mouse with fewest.
    k : sequence of int, default=(1, 5)
        Of the measures "top_1", "top_5"...; left out where the gallery is not larger.
    level : float, default=0.95
        Of the intervals.
    n_bootstrap : int, default=1000
        Draws of images, all trials of an image together, for the intervals; 0 for none.
    n_permutations : int, default=1000
        Shufflings of the images against their responses, for the null; 0 for none. The structural
        similarity, which takes long, has the first 19 alone.
    random_state : int, RandomState, Generator or None, default=0
        Of the draws.

    Returns
    -------
    DataFrame
        One row per decoder, mouse, direction, metric and size of the gallery, with the columns
        ``model``, ``mouse`` ("mean" is that over mice, where there are several), ``direction``,
        ``metric``, ``gallery_size`` (missing for measures without a gallery), ``value``, ``low``
        and ``high`` (the interval), ``chance``, ``null`` (mean of shuffled pairs), ``p_value``
        (share of shuffled pairs that do as well, the true ones counted among them) and
        ``ceiling``.

    Raises
    ------
    TypeError
        If a decoder is none, or `trials` are no `Trials`.
    ValueError
        If a mouse saw one image only, reconstructions are of other trials, an option is out of its
        range, or a mouse is called "mean".
    NotFittedError
        If a decoder is not fitted.

    Notes
    -----
    Metrics with a gallery are ``top_1``, ``top_5``, ``median_rank``, ``mean_reciprocal_rank`` and
    ``two_way_identification``; images that are just as similar as the right one count against it.
    What smaller galleries give is not drawn but expected over all of them, see
    `v1tlearn.metrics.top_k_accuracy`.

    Similarity is the cosine of maps for an aligner, and the correlation over pixels of image and
    reconstruction for others. In the direction "response_to_image" every trial looks for its image
    among all images of the mouse; in "image_to_response" every image looks for its responses, of
    which those to repeats are averaged, as vectors of length 1.

    Metrics without a gallery compare every trial with its image: ``pixel_correlation`` and
    ``ssim``, of grey levels from the lowest to the highest of the images; for an aligner
    ``map_correlation`` and ``map_ssim``, of their maps. Images without contrast are left out. They
    have no chance level but that of shuffled pairs, as all images are a little alike; a shuffling
    leaves one pair together on average.

    The ceiling is what responses tell of each other: the first trial of an image looks for the
    second among those of all repeated images, and the other way round. As both are noisy, and
    images are not, it can be surpassed. It is missing where fewer images were repeated than the
    gallery has, and for metrics without a gallery.

    Intervals are percentiles of the bootstrap, and say how much another choice of images would
    change; that of the mean over mice draws the same images for all mice that saw the same.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=20, n_trials=60, n_test_images=8, n_repeats=3,
    ...     image_shape=(12, 16), random_state=0))
    >>> train, test = trials.sel(tier="train"), trials.sel(tier="test")
    >>> table = v1.decoding_table({"ridge": v1.RidgeDecoder().fit(train)}, test, n_permutations=99)
    >>> table.metric.unique().tolist()
    ['pixel_correlation', 'ssim', 'top_1', 'median_rank', 'mean_reciprocal_rank', 'top_5',
    'two_way_identification']
    >>> found = table.query("mouse == 'mean' and metric == 'top_1' and gallery_size == 8")
    >>> found.chance.tolist()
    [0.125, 0.125]
    """
    for name, values in (("gallery_sizes", gallery_sizes), ("k", k)):
        if not isinstance(values, tuple | list) and np.ndim(values) != 1:
            raise ValueError(f"{name}={values!r}: expected whole numbers, in a tuple or list.")
    options = plain((tuple(gallery_sizes), tuple(k), n_bootstrap, n_permutations))
    sizes, ks, n_bootstrap, n_permutations = options
    _check_options(sizes, ks, n_bootstrap, n_permutations)
    level = as_level(level)
    models = named(decoders)
    if not isinstance(trials, Trials):
        raise TypeError(
            f"trials is a {type(trials).__name__}: expected Trials, such as v1.Trials(recordings) "
            'or trials.sel(tier="test").'
        )
    if not len(trials):
        raise ValueError("there are no trials: expected those of at least two images.")
    if MEAN in trials.mice and len(trials.mice) > 1:
        raise ValueError(f"a mouse is called {MEAN!r}, as the mean over mice is: rename it.")
    counts = {}
    for mouse in trials.mice:
        ids = trials.image_ids[trials.rows(mouse)[0]]
        check_images(ids, f"mouse {mouse!r}: ")
        counts[mouse] = len(np.unique(ids))
    for name, model in models.items():
        check_decoder(name, model, trials)
        warn_of_seen(model, trials)
    seed, fewest = draw_seed(plain(random_state)), min(counts.values())
    rows = []
    for name, model in models.items():
        by_mouse = {}
        for mouse, n_images in counts.items():
            own = sorted({s for s in sizes if s < n_images} | {fewest, n_images})
            compared = compare(model, trials, mouse)
            drawn = _Drawn.of(n_images, n_bootstrap, n_permutations, seed)
            by_mouse[mouse] = [
                *_rows_without_gallery(compared, drawn),
                *_rows_with_gallery(compared, drawn, own, ks),
            ]
        if len(by_mouse) > 1:
            by_mouse[MEAN] = _mean_over_mice(list(by_mouse.values()))
        rows += [
            {"model": name, "mouse": mouse, **_told(row, level)}
            for mouse, of_mouse in by_mouse.items()
            for row in of_mouse
        ]
    return pd.DataFrame(rows).astype({"gallery_size": "Int64"})


class _Drawn(NamedTuple):
    """Draws of the images of a mouse: the same for all mice and decoders with as many images."""

    weights: np.ndarray  # (n_bootstrap, n_images)
    orders: np.ndarray  # (n_permutations, n_images)

    @classmethod
    def of(cls, n_images: int, n_bootstrap: int, n_permutations: int, seed: int) -> _Drawn:
        rng = np.random.default_rng([seed, n_images])
        weights = draw_images(n_images, n_bootstrap, rng).astype(np.float64)
        return cls(weights, shuffle_images(n_images, n_permutations, rng))


def _rows_without_gallery(compared: Comparison, drawn: _Drawn) -> Iterator[_Row]:
    for metric, measure in compared.measures.items():
        values = measure(compared.shown)
        known = ~np.isnan(values)
        sums, counts = (
            np.bincount(compared.shown, of, minlength=len(compared.gallery))
            for of in (np.where(known, values, 0), known.astype(np.float64))
        )
        found = _ratio(sums.sum(keepdims=True), counts.sum(keepdims=True))[0]
        resampled = _ratio(drawn.weights @ sums, drawn.weights @ counts)
        orders = drawn.orders[:_MOST_SHUFFLES] if metric in SLOW else drawn.orders
        null = _shuffled(measure, compared.shown, orders)
        yield _Row(_TO_IMAGE, metric, None, float(found), resampled, null, np.nan, np.nan)


def _shuffled(measure: Measure, shown: np.ndarray, orders: np.ndarray) -> np.ndarray:
    means = []
    for order in orders:
        values = measure(order[shown])
        known = ~np.isnan(values)
        means.append(_ratio(values[known].sum(keepdims=True), known.sum(keepdims=True))[0])
    return np.array(means)


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.where(counts > 0, sums / np.where(counts > 0, counts, 1), np.nan)


def _rows_with_gallery(
    compared: Comparison, drawn: _Drawn, sizes: Sequence[int], ks: Sequence[int]
) -> Iterator[_Row]:
    n_images = len(compared.gallery)
    repeats = repeat_counts(compared.queries, compared.shown)
    ceilings = {}
    if repeats is not None:
        enough = [size for size in sizes if size <= repeats.shape[1]]
        for one in statistics(repeats.shape[1], enough, ks):
            ceilings[one.metric, one.size] = float(one.of(repeats)[0])
    average = np.zeros((n_images, compared.queries.shape[1]))
    np.add.at(average, compared.shown, compared.queries)
    directions = {
        _TO_IMAGE: (cosines(compared.queries, compared.gallery), compared.shown),
        _TO_RESPONSE: (cosines(compared.gallery, average), np.arange(n_images)),
    }
    measured = statistics(n_images, sizes, ks)
    for direction, (similarity, seen) in directions.items():
        draws = draw_counts(similarity, seen, drawn.weights, drawn.orders)
        for one in measured:
            found, resampled, null = (one.of(counts) for counts in draws)
            yield _Row(
                direction,
                one.metric,
                one.size,
                float(found[0]),
                resampled,
                null,
                one.chance,
                ceilings.get((one.metric, one.size), np.nan),
                one.lower_is_better,
            )


def _mean_over_mice(by_mouse: list[list[_Row]]) -> list[_Row]:
    """Means of what all mice have, value by value and draw by draw."""
    others = [{row.key: row for row in rows} for rows in by_mouse[1:]]
    out = []
    for row in by_mouse[0]:
        if not all(row.key in other for other in others):
            continue
        same = [row, *(other[row.key] for other in others)]
        out.append(
            row._replace(
                found=float(np.mean([one.found for one in same])),
                resampled=np.mean([one.resampled for one in same], axis=0),
                null=np.mean([one.null for one in same], axis=0),
                chance=float(np.mean([one.chance for one in same])),
                ceiling=float(np.mean([one.ceiling for one in same])),
            )
        )
    return out


def _told(row: _Row, level: float) -> dict[str, Any]:
    resampled = row.resampled[~np.isnan(row.resampled)]
    low, high = interval(resampled, level) if len(resampled) else (np.nan, np.nan)
    return {
        "direction": row.direction,
        "metric": row.metric,
        "gallery_size": pd.NA if row.size is None else row.size,
        "value": row.found,
        "low": low,
        "high": high,
        "chance": row.chance,
        "null": float(np.mean(row.null)) if len(row.null) else np.nan,
        "p_value": float(p_value(row.found, row.null, lower_is_better=row.lower_is_better)),
        "ceiling": row.ceiling,
    }


def _check_options(
    sizes: Sequence[Any], ks: Sequence[Any], n_bootstrap: Any, n_permutations: Any
) -> None:
    for size in sizes:
        as_whole(size, "each of gallery_sizes", 2)
    for one in ks:
        as_whole(one, "each of k")
    as_whole(n_bootstrap, "n_bootstrap", 0)
    as_whole(n_permutations, "n_permutations", 0)

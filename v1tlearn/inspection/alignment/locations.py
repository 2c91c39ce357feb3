"""Where in the image the maps of images and of responses agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from v1tlearn.inspection._controls import check_counts, generator
from v1tlearn.inspection.alignment._pairs import place_in_image, read_pairs
from v1tlearn.metrics._chance import ROUNDING, as_level, p_value
from v1tlearn.trials import Trials


def alignment_map(
    aligner: Any,
    trials: Trials,
    *,
    n_permutations: int = 200,
    level: float = 0.95,
    random_state: Any = 0,
) -> xr.Dataset:
    """Correlate the maps of images and of the responses to them at every location.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted.
    trials : Trials
        Of images that were not trained on. The maps of an image's responses are averaged.
    n_permutations : int, default=200
        Shuffles of the pairs, for the control.
    level : float, default=0.95
        Of the threshold.
    random_state : int, RandomState, Generator or None, default=0

    Returns
    -------
    Dataset
        ``correlation`` (mouse, channel, height, width), over images, of the maps at a place; NaN
        where one of them is the same for all images. ``alignment`` (mouse, height, width), its mean
        over channels, NaN ones left out. ``threshold`` (mouse,), which the largest alignment of all
        locations stays below in a share `level` of the shuffles, so that any location above it
        tells something; ``area`` (mouse,), the share of the locations above, of those with an
        alignment; ``control_area``, the mean share of the locations of a shuffle above; and
        ``p_value`` of the mean alignment over locations. ``height`` and ``width`` are the centres
        of the cells, in pixels of the stimuli before any crop, from the centre of the upper left
        one.

    Raises
    ------
    TypeError, ValueError
        If this is no alignment, a mouse saw fewer than 3 images, or all alike; or an option is out
        of its range.
    NotFittedError
        Before `fit`.

    Notes
    -----
    Places of cells hold for image towers that keep the layout of the image, as convolutions do. A
    cell sees more of the image than it covers.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import alignment_map
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=20, n_trials=60, n_test_images=5, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> found = alignment_map(est.fit(trials.sel(tier="train")), trials.sel(tier="test"))
    >>> found["alignment"].dims, found["height"].values.tolist()
    (('mouse', 'height', 'width'), [1.5, 5.5, 9.5, 13.5])
    """
    check_counts(n_permutations=n_permutations)
    level = as_level(level)
    pairs = read_pairs(aligner, trials)
    rng = generator(random_state)
    rows = []
    for own in pairs:
        n = len(own.image_ids)
        if n < 3:
            raise ValueError(
                f"mouse {own.mouse!r}: {n} images came: expected at least 3 to correlate over."
            )
        images, responses = map(_standardized, (own.image_maps.values, own.mean_response_maps))
        correlation = (images * responses).sum(0)
        alignment = _mean(correlation)
        orders = (rng.permutation(n) for _ in range(n_permutations))
        control = [_mean((images * responses[order]).sum(0)) for order in orders]
        rows.append((correlation, alignment, *_judged(alignment, np.array(control), level)))
    size = pairs[0].images.shape[2:]
    columns = [np.array(values) for values in zip(*rows, strict=True)]
    dims = (("mouse", "channel", "height", "width"), ("mouse", "height", "width"), *["mouse"] * 4)
    names = ("correlation", "alignment", "threshold", "area", "control_area", "p_value")
    return xr.Dataset(
        {name: (d, v) for name, d, v in zip(names, dims, columns, strict=True)},
        coords={"mouse": [own.mouse for own in pairs], **place_in_image(aligner.module_, size)},
        attrs={"level": level, "image_size": list(size)},
    )


def _standardized(maps: np.ndarray) -> np.ndarray:
    """Mean 0 and length 1 over images; NaN where all are equal."""
    values = maps.astype(np.float64)
    centred = values - values.mean(0)
    lengths = np.sqrt((centred**2).sum(0))
    flat = lengths <= 1e-6 * np.sqrt((values**2).sum(0))  # rounding errors of float32
    return centred / np.where(flat, np.nan, lengths)


def _mean(correlation: np.ndarray) -> np.ndarray:
    """Mean over channels of those that are known, NaN where none is."""
    known = ~np.isnan(correlation)
    count = known.sum(0)
    total = np.where(known, correlation, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _judged(
    alignment: np.ndarray, control: np.ndarray, level: float
) -> tuple[float, float, float, float]:
    """Threshold, area above it, that of shuffles, and p value of the mean."""
    known = ~np.isnan(alignment)
    if not known.any():
        return np.nan, np.nan, np.nan, np.nan
    found, shuffles = alignment[known], control[:, known]
    # a shuffle may be none, and differ by rounding
    threshold = np.quantile(shuffles.max(1), level)
    areas = (values > threshold + ROUNDING for values in (found, shuffles))
    rare = float(p_value(found.mean(), shuffles.mean(1)))
    return threshold, *(area.mean() for area in areas), rare

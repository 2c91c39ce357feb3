"""What carries a decoding: images of which something was taken are found again, or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn import preprocessing
from v1tlearn._options import as_word
from v1tlearn._values import as_array
from v1tlearn.inspection._controls import check_counts, generator
from v1tlearn.inspection.alignment._checks import check_mean_is_free
from v1tlearn.inspection.alignment._pairs import Pairs, read_pairs, similarity
from v1tlearn.inspection.alignment._ranks import (
    MEAN,
    MEASURES,
    draw_alike,
    mean_over_drawn,
    measures,
)
from v1tlearn.metrics import similarity_ranks
from v1tlearn.metrics._chance import as_level, interval, p_value, shuffle_images

Manipulation = Callable[[np.ndarray, Any], np.ndarray]

_CYCLES = "cycles per image height"
_UNITS = {
    "low_pass": _CYCLES,
    "high_pass": _CYCLES,
    "downsample": "pixel",
    "scramble_phases": "1",
    "shuffle_patches": "pixel",
    "edges": "pixel",
    "silhouettes": "pixel",
}
_LONG_NAMES = {
    "low_pass": "cut-off of the low-pass",
    "high_pass": "cut-off of the high-pass",
    "downsample": "side of coarse pixels",
    "scramble_phases": "share of the scrambling",
    "shuffle_patches": "side of the patches",
    "edges": "blur ahead of the edges",
    "silhouettes": "blur ahead of the silhouettes",
}
_RANDOM = ("scramble_phases", "shuffle_patches")


def manipulation_curve(
    aligner: Any,
    trials: Any,
    manipulation: str | Manipulation = "low_pass",
    values: Sequence[float] | None = None,
    *,
    n_bootstrap: int = 1000,
    n_permutations: int = 200,
    level: float = 0.95,
    random_state: Any = 0,
) -> xr.Dataset:
    """Tell how well images are found by responses once something was taken from them.

    The maps of the responses stay as they are; all images of the gallery go through the image
    tower manipulated. What is found as well as before does not need what was taken.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted.
    trials : Trials
        Of images that were not trained on. Each trial asks for its image among all those of its
        mouse here; repeats of an image are one image.
    manipulation : str or callable, default="low_pass"
        A function of `v1tlearn.preprocessing` by its name: "low_pass" or "high_pass" (cut-off, in
        cycles per image height), "downsample" (side of squares, in pixels), "scramble_phases"
        (share, from 0 to 1), "shuffle_patches" (side of patches, in pixels), "edges" or
        "silhouettes" (blur, in pixels). Or a function of your own, called with images (n, channels,
        height, width) and a value.
    values : sequence of float, optional
        Increasing. By default steps of a factor 1.4 from 1 cycle to the highest frequency, of 2 in
        pixels, and of 0.25 in shares; functions of your own have none.
    n_bootstrap : int, default=1000
        Draws of images with replacement, all trials of an image together, for the intervals. The
        gallery stays whole. Mice that saw the same images draw alike.
    n_permutations : int, default=200
        Shuffles of the pairs, for the control: which images go with which responses.
    level : float, default=0.95
        Of the intervals.
    random_state : int, RandomState, Generator or None, default=0
        Of all that is drawn. Random manipulations draw alike for all values.

    Returns
    -------
    Dataset
        Over ``measure``, ``mouse`` and ``value``. Measures are "top1", the share of trials whose
        image is found; "reciprocal_rank", the mean of one over its rank; "two_way", the share of
        the other images that are less similar, which is how often it is told from one other; and
        "similarity", the mean cosine of the pairs. Chance is one over the number of images for the
        first, and one half for the third. The last mouse is "mean", over mice.

        ``estimate`` with its interval from ``low`` to ``high``; ``control``, the mean over
        shuffles, ``control_high``, which a share `level` of them stay below, and ``p_value``, the
        share of shuffles that do as well; ``unchanged``, of the images as they are, with
        ``unchanged_control_high``; ``resampled`` and ``unchanged_resampled`` over ``draw``, what
        intervals are made of; and ``n_images`` per mouse.

    Raises
    ------
    TypeError, ValueError
        If this is no alignment, a mouse saw one image or images that are all the same, the
        manipulation is unknown or gives no such images, or an option is out of its range.
    NotFittedError
        Before `fit`.

    See Also
    --------
    cutoff_of : Where a curve comes near to what the whole images reach.
    ManipulationDisplay : Draws curves.

    Notes
    -----
    Images that are just as similar as the right one count against it, so that images without
    contrast are not found. An image tower may take manipulated images for something else than what
    they lack: compare with the control, and a fall under "high_pass" with the rise under
    "low_pass".

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import manipulation_curve
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=20, n_trials=60, n_test_images=5, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> est = est.fit(trials.sel(tier="train"))
    >>> curve = manipulation_curve(est, trials.sel(tier="test"), "low_pass", [1, 2, 4])
    >>> curve["estimate"].sel(measure="top1", mouse="A").sizes
    Frozen({'value': 3})
    """
    check_counts(n_bootstrap=n_bootstrap, n_permutations=n_permutations)
    level = as_level(level)
    pairs = read_pairs(aligner, trials)
    check_mean_is_free(pairs)
    seeds = generator(random_state).integers(2**63, size=3)
    change = _function(manipulation, int(seeds[0]))
    steps = _values(manipulation, values, pairs[0].images.shape[2:])
    rng, orders = (np.random.default_rng(seed) for seed in seeds[1:])
    counts = draw_alike([own.image_ids for own in pairs], n_bootstrap, rng)
    parts = []
    for own, drawn in zip(pairs, counts, strict=True):
        others = shuffle_images(len(own.image_ids), n_permutations, orders)[:, own.shown].T
        maps = [own.image_maps.values]
        maps += [_maps(aligner, own, change, value) for value in steps]
        parts.append([_found(own, images, drawn, others) for images in maps])
    # estimate, draws, control: (measure, mouse, value) after the draws
    found, draws, control = (
        _with_mean(np.stack([[one[i] for one in part] for part in parts])) for i in range(3)
    )
    return _labelled(pairs, manipulation, steps, found, draws, control, level)


def _function(manipulation: Any, seed: int) -> Manipulation:
    if callable(manipulation):
        return manipulation
    own = ", or a function of images and a value"
    manipulation = as_word(manipulation, tuple(_UNITS), "manipulation", own)
    function = getattr(preprocessing, manipulation)
    return partial(function, random_state=seed) if manipulation in _RANDOM else function


def _values(manipulation: Any, values: Any, size: tuple[int, int]) -> np.ndarray:
    if values is None:
        if callable(manipulation):
            raise ValueError("values are missing: a manipulation of your own has no default ones.")
        octaves = np.log2(min(size) / 2)
        values = {
            "low_pass": 2 ** np.arange(0, np.log2(size[0] / 2) + 0.01, 0.5),
            "high_pass": 2 ** np.arange(0, np.log2(size[0] / 2) + 0.01, 0.5),
            "downsample": 2 ** np.arange(1, octaves + 0.01).astype(int),
            "scramble_phases": np.arange(0.25, 1.01, 0.25),
            "shuffle_patches": 2 ** np.arange(0, octaves + 0.01).astype(int),
            "edges": np.array([1.0, 2.0, 4.0]),
            "silhouettes": np.array([1.0, 2.0, 4.0]),
        }[manipulation]
    values = as_array(values, "values", of="value")
    if values.ndim != 1 or not len(values) or values.dtype == bool:
        raise ValueError(f"values={values!r}: expected at least one number.")
    if not np.isfinite(values).all() or (np.diff(values) <= 0).any():
        raise ValueError(f"values={values.tolist()}: expected finite numbers that increase.")
    return values


def _maps(aligner: Any, own: Pairs, change: Manipulation, value: Any) -> np.ndarray:
    images = np.asarray(change(own.images.copy(), value.item()))  # it may work in place
    if images.shape != own.images.shape or images.dtype.kind not in "fiu":
        raise ValueError(
            f"the manipulation gave {images.dtype} of shape {images.shape} for images of shape "
            f"{own.images.shape}: expected numbers of this shape."
        )
    return aligner.transform_images(images).values


def _found(
    own: Pairs, images: np.ndarray, drawn: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measures (4,), their draws (n, 4), and those of shuffled pairs (m, 4)."""
    cosines = similarity(own.response_maps.values, images)
    places = similarity_ranks(cosines)
    trial = np.arange(len(own.shown))

    def of(shown: np.ndarray) -> np.ndarray:
        """Measures of each trial, if it showed these images."""
        at = (trial.reshape(-1, *[1] * (shown.ndim - 1)), shown)
        return measures(places[at], cosines[at], len(own.image_ids))

    each = of(own.shown)
    return each.mean(1), mean_over_drawn(each, own.shown, drawn), of(others).mean(1).T


def _with_mean(values: np.ndarray) -> np.ndarray:
    """From (mouse, value, [draw,] measure) to ([draw,] measure, mouse and mean, value)."""
    values = np.concatenate([values, values.mean(0, keepdims=True)])
    return np.moveaxis(values, (0, 1), (-2, -1))


def _labelled(
    pairs: list[Pairs],
    manipulation: Any,
    values: np.ndarray,
    found: np.ndarray,
    draws: np.ndarray,
    control: np.ndarray,
    level: float,
) -> xr.Dataset:
    """Label what was found, of which the first value are the images as they are."""
    dims, whole = ("measure", "mouse", "value"), ("measure", "mouse")
    low, high = interval(draws, level)
    highest = np.quantile(control, level, axis=0)
    called = manipulation if isinstance(manipulation, str) else _name_of(manipulation)
    attrs = {"long_name": _LONG_NAMES.get(called, "value"), "units": _UNITS.get(called, "1")}
    numbers = [len(own.image_ids) for own in pairs]
    return xr.Dataset(
        {
            "estimate": (dims, found[..., 1:]),
            "low": (dims, low[..., 1:]),
            "high": (dims, high[..., 1:]),
            "control": (dims, control.mean(0)[..., 1:]),
            "control_high": (dims, highest[..., 1:]),
            "p_value": (dims, p_value(found, control)[..., 1:]),
            "unchanged": (whole, found[..., 0]),
            "unchanged_control_high": (whole, highest[..., 0]),
            "resampled": (("draw", *dims), draws[..., 1:]),
            "unchanged_resampled": (("draw", *whole), draws[..., 0]),
            "n_images": ("mouse", [*numbers, np.nan]),
        },
        coords={
            "measure": list(MEASURES),
            "mouse": [*(own.mouse for own in pairs), MEAN],
            "value": ("value", values, attrs),
        },
        attrs={"manipulation": called, "level": level},
    )


def _name_of(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)

"""Splits of trials: by tier, by image so that no image is on both sides, by animal, and in time.

`GroupKFold` and the other group splitters of scikit-learn work on `trials.image_ids` as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import PredefinedSplit
from sklearn.utils.parallel import Parallel, delayed

from v1tlearn._instead import refuse_no_array, refuse_no_trials
from v1tlearn._options import as_jobs
from v1tlearn._values import as_flag, as_ids, as_names, as_number
from v1tlearn.training.seeds import RandomState, draw_seed
from v1tlearn.trials import Trials
from v1tlearn.trials.cutting import Span, cut_in_time
from v1tlearn.trials.overlap import overlapping_images

__all__ = [
    "image_train_test_split",
    "leave_one_mouse_out",
    "overlapping_images",
    "split_by_image",
    "split_in_time",
    "tier_split",
]

_ATTEMPTS = 20  # orders of the images tried before a split is given up


def tier_split(
    trials: Any, test: str | Iterable[str] = "validation", train: str | Iterable[str] = "train"
) -> PredefinedSplit:
    """Cross-validation of one fold: fit on one tier, score on another.

    Parameters
    ----------
    trials : Trials or array (n,)
        Trials, or the tier of each trial.
    test, train : str or several
        Tiers to score on and to fit on.

    Returns
    -------
    PredefinedSplit
        Goes into `cv=` together with the same trials.

    Raises
    ------
    ValueError
        If a tier is missing, is on both sides, or trials belong to neither side.

    Examples
    --------
    >>> from v1tlearn.model_selection import tier_split
    >>> cv = tier_split(["train", "train", "validation"])
    >>> [(fit.tolist(), score.tolist()) for fit, score in cv.split()]
    [([0, 1], [2])]
    """
    refuse_no_trials(trials, "tier_split({})")
    tiers = getattr(trials, "tiers", None)
    tiers = as_ids(trials, "tiers", blank=True).astype(str) if tiers is None else tiers
    test, train = _tiers(test, "test"), _tiers(train, "train")
    if set(test) & set(train):
        raise ValueError(f"tiers {sorted(set(test) & set(train))} are in both test and train.")
    present = sorted(set(tiers.tolist()))
    for side, wanted in (("test", test), ("train", train)):
        if not set(wanted) & set(present):
            raise ValueError(f"no trial is of the {side} tier {wanted}; tiers present: {present}.")
    others = sorted(set(present) - set(test) - set(train))
    if others:
        raise ValueError(
            f"trials of the tiers {others} are in neither train {train} nor test {test}, and "
            "PredefinedSplit would fit on them. Select first: "
            f"trials.sel(tier={[*train, *test]})."
        )
    return PredefinedSplit(np.where(np.isin(tiers, test), 0, -1))


def _tiers(side: Any, name: str) -> list[str]:
    try:
        return [side] if isinstance(side, str) else as_names(side, name, of="tier", blank=True)
    except TypeError as error:
        raise TypeError(f"{name} is {side!r}: expected the name of a tier, or several.") from error


def image_train_test_split(
    trials: Any, test_size: float = 0.1, random_state: RandomState = None
) -> tuple[Any, Any]:
    """Split trials in two such that all repeats of an image, in all mice, are on one side.

    Parameters
    ----------
    trials : Trials
        Trials of one or several mice.
    test_size : float
        Wanted fraction of the trials of each mouse, between 0 and 1.
    random_state : int, RandomState, Generator or None
        Drives the choice of images.

    Returns
    -------
    train, test : Trials
        Views in the order of `trials`.

    Raises
    ------
    ValueError
        If a mouse saw too few images to be on both sides.
    """
    _check_trials(trials, "image_train_test_split({})")
    train, test = split_by_image(trials.image_ids, test_size, random_state, trials.mouse_ids)
    return trials[train], trials[test]


def split_in_time(
    trials: Trials, test_size: float = 0.1, *, gap: int = 0, n_blocks: int = 1
) -> tuple[Trials, Trials]:
    """Split every movie in two: what comes first is trained on, what comes last is scored.

    For recordings of few long movies, which no split by movie leaves anything of. Successive frames
    are alike, and responses outlast what evoked them: frames of one side that stand between those
    of the other tell their responses. So both sides are whole, one after the other, and `gap`
    frames between them belong to neither. All repeats of a movie are cut alike.

    Parameters
    ----------
    trials : Trials
        Of movies, of one or several mice.
    test_size : float, default=0.1
        Share of the frames of each movie that is scored, between 0 and 1.
    gap : int, default=0
        Frames left out between the sides, as many as a model looks back, or a cell does.
    n_blocks : int, default=1
        Blocks into which each movie is cut first, of which each is split so. Many blocks sample
        the whole movie, and leak the more, the shorter they are; set a `gap`, which is left out
        between blocks, too.

    Returns
    -------
    train, test : Trials
        Trials of parts of movies, in the order of `trials`; nothing is copied. Their `image_id`
        names the part, as in "m[0:450]", their coordinate `first_frame` its beginning.

    Raises
    ------
    ValueError
        If there are no trials, they are images, or a movie is too short to leave frames on both
        sides.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_movie_recordings(1, 5, 2, 1, 1, n_frames=60, random_state=0))
    >>> train, test = v1.model_selection.split_in_time(trials, test_size=0.5, gap=6)
    >>> train.n_frames.tolist(), test.n_frames.tolist()
    ([24, 24, 24], [30, 30, 30])
    """
    _check_trials(trials, "split_in_time({})")
    lengths = trials.n_frames
    if lengths is None:
        raise ValueError(
            "the trials are images: split_in_time cuts movies; images are split by "
            "image_train_test_split(trials)."
        )
    if not 0 < as_number(test_size, "test_size") < 1:
        raise ValueError(f"test_size is {test_size}, expected between 0 and 1.")
    for name, value, least in (("gap", gap, 0), ("n_blocks", n_blocks, 1)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} is {value!r}, expected a whole number from {least} on.")
    if len(trials) == 0:
        raise ValueError("there are no trials to split.")
    movies, codes = np.unique(trials.image_ids, return_inverse=True)
    longest = np.zeros(len(movies), np.int64)
    np.maximum.at(longest, codes, lengths)
    spans = [
        _spans(str(movie), int(n), test_size, gap, n_blocks)
        for movie, n in zip(movies, longest, strict=True)
    ]
    train, test = zip(*(spans[code] for code in codes), strict=True)
    return cut_in_time(trials, train), cut_in_time(trials, test)


def _spans(
    movie: str, n_frames: int, test_size: float, gap: int, n_blocks: int
) -> tuple[list[Span], list[Span]]:
    """Parts of a movie for either side."""
    train, test = [], []
    borders = np.linspace(0, n_frames, n_blocks + 1).round().astype(int)
    for block, (start, stop) in enumerate(pairwise(borders)):
        if block:
            start += gap
        cut = stop - round(test_size * (stop - start))
        if not (start < cut - gap and cut < stop):
            raise ValueError(
                f"movie {movie!r} of {n_frames} frames is too short to be split into {n_blocks} "
                f"blocks with test_size={test_size} and a gap of {gap} frames: lower n_blocks or "
                "gap, or leave this movie out."
            )
        train.append((int(start), int(cut - gap)))
        test.append((int(cut), int(stop)))
    return train, test


def leave_one_mouse_out(
    est: Any,
    trials: Any,
    test: Any = None,
    validation: Any = None,
    *,
    freeze_core: bool = True,
    n_jobs: int | None = None,
    **params: Any,
) -> pd.DataFrame:
    """Compare training on one animal alone with a readout on the core of all others.

    For every mouse a clone of the estimator is fitted to its trials ("direct"); another is fitted
    to those of all other mice and transferred to it ("transfer"). Both are scored on the same test
    trials of that mouse (Li et al. 2023, Table A.8).

    Parameters
    ----------
    est : estimator
        With `fit`, `transfer` and `score`; it is cloned.
    trials : Trials
        Of at least two mice. Without `test`, the tier "train" is trained on, the tier
        "validation", where there is one, is the validation set, and the tier "test" is scored.
    test : Trials, optional
        Trials to score on; `trials` are then all trained on.
    validation : Trials, optional
        Together with `test`: validation trials of the same mice. Without any, each fit sets some
        aside.
    freeze_core : bool, default=True
        Train readouts only; otherwise the core is trained further, too.
    n_jobs : int, optional
        Fits at a time, as in joblib.
    **params
        Parameters that `transfer` changes, such as ``max_epochs``.

    Returns
    -------
    DataFrame
        Two rows per mouse: ``mouse``, ``training`` ("direct" or "transfer"), ``correlation`` (the
        score: mean single-trial correlation), ``n_trials`` (those trained on, of this mouse).

    Raises
    ------
    TypeError
        If the estimator has no `transfer`.
    ValueError
        If there is but one mouse, or a tier or a mouse is missing.
    """
    if not hasattr(est, "transfer"):
        raise TypeError(
            f"a {type(est).__name__} has no transfer: expected one of the models of this package. "
            "The transformers of a Pipeline can be applied to the trials before."
        )
    if isinstance(est, type):
        raise TypeError(f"est is the class {est.__name__}: make a model of it, {est.__name__}().")
    freeze_core, n_jobs = as_flag(freeze_core, "freeze_core"), as_jobs(n_jobs)
    _check_trials(trials, "leave_one_mouse_out(model, {})")
    for part in (test, validation):
        if part is not None:
            _check_trials(part, "leave_one_mouse_out(model, trials, {})")
    if test is None:
        if validation is not None:
            raise ValueError("validation is for use with test: without it, tiers decide.")
        missing = {"train", "test"} - set(trials.tiers.tolist())
        if missing:
            raise ValueError(
                f"the trials have no tier {sorted(missing)}: give trials to score on as test."
            )
        if "validation" in trials.tiers:
            validation = trials.sel(tier="validation")
        trials, test = trials.sel(tier="train"), trials.sel(tier="test")
    mice = trials.mice
    if len(mice) < 2:
        raise ValueError(f"the only mouse is {mice}: leaving one out needs at least two.")
    for name, part in (("test", test), ("validation", validation)):
        lacking = [] if part is None else [m for m in mice if m not in part.mice]
        if lacking:
            raise ValueError(f"the mice {lacking} have no {name} trials.")

    def of(part: Any, wanted: list[str]) -> Any:
        """Trials of some mice, where there are any."""
        return None if part is None else part.sel(mouse_id=wanted)

    jobs = []
    for mouse in mice:
        others = [m for m in mice if m != mouse]
        one = (of(trials, [mouse]), of(validation, [mouse]))
        rest = (of(trials, others), of(validation, others))
        for before in (None, rest):
            jobs.append(
                delayed(_fit_and_score)(est, before, one, of(test, [mouse]), freeze_core, params)
            )
    scores = Parallel(n_jobs=n_jobs)(jobs)
    return pd.DataFrame(
        {
            "mouse": np.repeat(mice, 2),
            "training": ["direct", "transfer"] * len(mice),
            "correlation": scores,
            "n_trials": np.repeat([len(trials.sel(mouse_id=m)) for m in mice], 2),
        }
    )


def _fit_and_score(
    est: Any,
    before: tuple[Any, Any] | None,
    last: tuple[Any, Any],
    test: Any,
    freeze_core: bool,
    params: dict[str, Any],
) -> float:
    """Score after training on the last trials, with the core of those before, if any."""
    model = clone(est)
    if before is None:
        return model.fit(last[0], validation=last[1]).score(test)
    model.fit(before[0], validation=before[1])
    return model.transfer(last[0], freeze_core, validation=last[1], **params).score(test)


def _one_per_trial(labels: Any, name: str) -> np.ndarray:
    refuse_no_array(name, labels, name)
    found = as_ids(labels, name)
    if found.ndim != 1:
        raise ValueError(f"{name} has the shape {found.shape}: expected one label per trial.")
    return found


def split_by_image(
    image_ids: Any,
    fraction: float,
    random_state: RandomState = None,
    mouse_ids: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split trials in two by image, with about the wanted fraction of every mouse's trials.

    Images are taken in random order; one goes to validation if that brings the mice that saw it
    closer to the wanted fraction. Each mouse keeps two trials on either side, or one where its
    images allow no more.

    Parameters
    ----------
    image_ids : array (n,)
        Image of each trial, the same id in all mice.
    fraction : float
        Wanted fraction of the validation trials, between 0 and 1.
    random_state : int, RandomState, Generator or None
        Drives the order of the images; global generators are not touched.
    mouse_ids : array (n,), optional
        Mouse of each trial; without it all trials are of one mouse.

    Returns
    -------
    train, validation : int arrays
        Positions of the trials, sorted.

    Raises
    ------
    ValueError
        If `fraction` is not between 0 and 1, lengths differ, or a mouse cannot be split.
    """
    images = _codes(_one_per_trial(image_ids, "image_ids"))
    whole = np.full(len(images), "all")
    mouse_ids = whole if mouse_ids is None else _one_per_trial(mouse_ids, "mouse_ids")
    if len(mouse_ids) != len(images):
        raise ValueError(f"image_ids has {len(images)} trials, mouse_ids has {len(mouse_ids)}.")
    if not 0 < as_number(fraction, "the validation fraction") < 1:
        raise ValueError(f"the validation fraction is {fraction}, expected between 0 and 1.")
    if len(images) == 0:
        raise ValueError("there are no trials to split.")
    mice = _codes(mouse_ids)
    shape = (images.max() + 1, mice.max() + 1)
    cells = np.ravel_multi_index((images, mice), shape)
    counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
    for mouse in np.flatnonzero((counts > 0).sum(axis=0) < 2):
        name = mouse_ids[np.argmax(mice == mouse)]
        raise ValueError(
            f"mouse {str(name)!r}: all {int(counts[:, mouse].sum())} trials show one image, so "
            "they cannot be split by image. Give a validation set instead (of one long movie "
            "split_in_time makes it), or train on everything with validation_fraction=0."
        )
    rng = np.random.default_rng(draw_seed(random_state))
    orders = [rng.permutation(len(counts)) for _ in range(_ATTEMPTS)]
    for at_least in (2, 1):
        for order in orders:
            chosen = _choose_images(counts, order, fraction, at_least)
            short = _short(counts, chosen, at_least)
            if not short.any():
                validation = chosen[images]
                return np.flatnonzero(~validation), np.flatnonzero(validation)
    name = mouse_ids[np.argmax(mice == np.argmax(short))]
    raise ValueError(
        f"mouse {str(name)!r}: found no split of the images that leaves it trials on both sides; "
        f"it saw {int((counts[:, np.argmax(short)] > 0).sum())} images. Give a validation set "
        "instead, or train on everything with validation_fraction=0."
    )


def _check_trials(trials: Any, call: str) -> None:
    if hasattr(type(trials), "tiers") and hasattr(type(trials), "sel"):
        return
    refuse_no_trials(trials, call)
    raise TypeError(
        f"{call.partition('(')[0]} was given a {type(trials).__name__}: expected Trials, of arrays "
        f"{call.format('Trials.from_arrays(stimuli, behaviors, responses)')}."
    )


def _choose_images(
    counts: np.ndarray, order: np.ndarray, fraction: float, at_least: int
) -> np.ndarray:
    """Greedy choice over (images, mice) counts -> bool (images,), True for validation."""
    totals = counts.sum(axis=0)
    target = np.clip(fraction * totals, at_least, np.maximum(totals - at_least, 1))
    weight = 1 / totals**2
    seen_by = [np.flatnonzero(row) for row in counts]
    chosen = np.zeros(len(counts), dtype=bool)
    taken = np.zeros_like(totals)
    for image in order:
        who = seen_by[image]
        n = counts[image, who]
        if (weight[who] * n * (2 * (target[who] - taken[who]) - n)).sum() > 0:
            chosen[image] = True
            taken[who] += n
    for mouse in range(len(totals)):  # images with many repeats can overshoot from zero
        for image in order:
            if taken[mouse] >= at_least:
                break
            fits = (taken + counts[image] <= totals - at_least) | (counts[image] == 0)
            if counts[image, mouse] and not chosen[image] and fits.all():
                chosen[image] = True
                taken += counts[image]
    return chosen


def _short(counts: np.ndarray, chosen: np.ndarray, at_least: int) -> np.ndarray:
    """Which mice have too few trials on either side, bool (mice,)."""
    validation = counts[chosen].sum(axis=0)
    return np.minimum(validation, counts.sum(axis=0) - validation) < at_least


def _codes(labels: np.ndarray) -> np.ndarray:
    """Labels as numbers 0, 1, ... in order of first appearance."""
    _, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]

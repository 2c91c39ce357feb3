"""Whether one model is better than another, or it was the choice of images and neurons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pandas as pd

from v1tlearn._models import named, named_models
from v1tlearn._options import as_word
from v1tlearn.metrics._arrays import MouseArrays, arrays_by_mouse, there
from v1tlearn.metrics._chance import draw_images
from v1tlearn.metrics._draws import Draws, drawn_values
from v1tlearn.metrics._time import has_time
from v1tlearn.metrics._two_ways import TwoWays
from v1tlearn.metrics._weighted import METRICS
from v1tlearn.trials import Trials

MEAN = "mean"
_COMPARED = ("single_trial_correlation", "average_correlation", "feve", "normalized_correlation")


class _Compared(NamedTuple):
    """Means over neurons of one mouse, or of several."""

    value: float
    reference: float
    difference: TwoWays
    improved: TwoWays


def compare_scores(
    models: Any,
    trials: Trials,
    *,
    metric: str = "single_trial_correlation",
    n_bootstrap: int = 1000,
    level: float = 0.95,
    block_frames: int | None = None,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Compare models on the same trials: difference, interval, share of neurons improved.

    Both models of a pair are scored on the same draws of images and of neurons, so that what makes
    images or neurons hard for both does not count. An interval without 0 says that the difference
    would stay with other images and other neurons like these.

    Parameters
    ----------
    models : dict or sequence of estimators, or of predictions
        At least two. Fitted estimators, Pipelines, searches and ensembles, too, or what they
        predicted for these trials, in a form that metrics take. Every one is compared with each
        before it.
    trials : Trials
        With responses, of images that no model was trained on.
    metric : str, default="single_trial_correlation"
        Or "average_correlation", "feve", "normalized_correlation", see `v1tlearn.metrics`.
    n_bootstrap : int, default=1000
        Draws of images, all their trials together, and of neurons; with 0 there are no intervals
        and no p-values, which are NaN.
    level : float, default=0.95
        Of the intervals.
    block_frames : int, optional
        Of movies, how many successive frames are drawn together, a few times as many as responses
        outlast; by default whole movies are drawn.
    random_state : int, RandomState, Generator or None, default=0
        Of the draws.

    Returns
    -------
    DataFrame
        A row per pair and mouse, and one of the "mean" over mice where there are several, with the
        columns ``model``, ``reference``, ``mouse``, ``metric``, ``value`` and ``reference_value``
        (means over neurons), ``difference``, ``low`` and ``high`` (its interval), ``p_value`` (two-
        sided), ``improved`` (share of neurons with a higher score), ``improved_low`` and
        ``improved_high`` (its interval) and ``n_neurons``.

    Raises
    ------
    TypeError
        If a model is none, or `trials` are no `Trials`.
    NotFittedError
        If a model is not fitted.
    ValueError
        If there are fewer than two models, the metric is unknown or needs repeats that are not
        there, an option is out of its range, predictions do not fit the trials, no neuron has a
        score by both models, or a mouse is called "mean".

    See Also
    --------
    score_table : Scores and their intervals, model by model.

    Notes
    -----
    Images and neurons are drawn independently of each other, with replacement, as in the pigeonhole
    bootstrap (Owen 2007): all trials of an image and all neurons of the mouse share its draws, so
    that noise and errors that neurons have in common are kept. That counts what is peculiar to a
    neuron and image more than once, so that intervals are rather too wide than too narrow. Draws of
    few images or neurons are too close to each other, and are spread: by the variance that they
    lack, and from the normal distribution to Student's t, whose degrees of freedom are those of
    Satterthwaite, of images and neurons by what either makes draws vary. Of 1,000 simulated
    comparisons of two equally good models on 60 images and 30 neurons, or 200 images and 5 neurons,
    fewer than 50 had a p-value below 0.05; 56 with 3 neurons, 80 with 2. A single neuron is not
    drawn: what is said holds for it.

    Neurons that either model has no score for, such as those below the threshold of `feve`, are
    left out of both. Of neurons with equal scores by both models each counts half as improved.

    Draws are moved so that their median is the recorded difference. The p-value is twice the share
    of draws on the other side of 0 (those at 0 count for both sides, and the recorded difference is
    counted in), so that it ends at ``2 / (n_bootstrap + 1)``, and that value of the normal
    distribution is looked up in Student's t. It is
    not corrected for the number of pairs. The mean over mice holds for these mice; with as few
    mice as there commonly are, nothing is said of others. Neither does it tell of another training:
    of models that differ by their seed alone one is better, and significantly so on many trials.
    Compare several fits of each.

    References
    ----------
    A. B. Owen, The pigeonhole bootstrap. Annals of Applied Statistics 1, 2007. T. C. Hesterberg,
    What teachers should know about the bootstrap. The American Statistician 69, 2015.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=20, n_trials=10, n_test_images=30, n_repeats=4,
    ...     image_shape=(16, 24), random_state=0)).sel(tier="test")
    >>> rates = trials.expected_responses
    >>> table = v1.compare_scores(
    ...     {"constant": rates * 0 + 1, "truth": rates}, trials, n_bootstrap=200)
    >>> table[["model", "reference", "improved", "n_neurons"]].values.tolist()
    [['truth', 'constant', 1.0, 20]]
    >>> bool(table["low"].item() > 0)
    True
    """
    metric = as_word(metric, _COMPARED, "metric")
    if not isinstance(trials, Trials):
        raise TypeError(
            f"trials is a {type(trials).__name__}: expected Trials, such as v1.Trials(recordings) "
            'or trials.sel(tier="test").'
        )
    if MEAN in trials.mice and len(trials.mice) > 1:
        raise ValueError(f"a mouse is called {MEAN!r}, as the mean over mice is: rename it.")
    draws = Draws.checked(n_bootstrap, level, random_state, block_frames)
    predictions = _predictions(models, trials)
    rows = []
    for reference, model in combinations(predictions, 2):
        pair = predictions[model], predictions[reference]
        of_mice = dict(_of_mice(metric, trials, pair, draws))
        if len(of_mice) > 1:
            every = list(of_mice.values())
            of_mice[MEAN] = _Compared(
                float(np.mean([found.value for found in every])),
                float(np.mean([found.reference for found in every])),
                TwoWays.mean([found.difference for found in every]),
                TwoWays.mean([found.improved for found in every]),
            )
        rows += [
            {"model": model, "reference": reference, "mouse": mouse, "metric": metric}
            | _told(found, draws)
            for mouse, found in of_mice.items()
        ]
    return pd.DataFrame(rows)


def _predictions(models: Any, trials: Trials) -> dict[str, Any]:
    """Predictions by name, of estimators or as they came."""
    given = named(models)
    if len(given) < 2:
        raise ValueError(f"models holds {list(given)}: expected at least two to compare.")
    if not isinstance(models, Mapping):
        given = named_models(models)  # predictions have no name of their own
    out = {}
    for name, model in given.items():
        if model is None:
            raise TypeError(
                f"models: {name!r} is None: expected a fitted estimator, or what one predicted."
            )
        if isinstance(model, type) or hasattr(model, "fit"):
            model = named_models({name: model})[name].predict(trials)
        out[name] = model
    return out


def _of_mice(
    metric: str, trials: Trials, pair: tuple[Any, Any], draws: Draws
) -> Iterator[tuple[str, _Compared]]:
    """Yield for every mouse the mean scores of two models."""
    target = trials.responses
    both = (arrays_by_mouse(target, y_pred, needs_images=True) for y_pred in pair)
    for one, other in zip(*both, strict=True):
        images = there(one.image_ids)
        if METRICS[metric].trials == "repeated" and len(np.unique(images)) == len(images):
            raise ValueError(
                f"mouse {one.mouse!r}: no image is repeated, which {metric} needs. Compare on "
                "trials with repeated images, such as the test tier, or by another metric."
            )
        drawn = draws.of(images, one.mouse, movies=has_time(target))
        yield one.mouse, _compared(metric, one, other, drawn, draws)


def _compared(
    metric: str,
    one: MouseArrays,
    other: MouseArrays,
    drawn: tuple[np.ndarray, np.ndarray],
    draws: Draws,
) -> _Compared:
    n_neurons = one.true.shape[1]
    # other draws than those of images, and of the neurons of other mice
    rng = np.random.default_rng([draws.seed, n_neurons, 1, crc32(one.mouse.encode())])
    often = draw_images(n_neurons, draws.n, rng)
    often = np.concatenate([np.ones((1, n_neurons), often.dtype), often])
    # rows: scores, references, higher, how many; images and neurons drawn, either alone
    sums, compared = np.zeros((3, 4, 1 + draws.n)), 0
    both = (drawn_values(METRICS[metric], arrays, drawn) for arrays in (one, other))
    for (neurons, scores, _), (_, references, _) in zip(*both, strict=True):
        # whoever has no score as recorded is left out of all draws
        known = ~np.isnan(scores + references) & ~np.isnan(scores[0] + references[0])
        higher = (scores > references) + 0.5 * (scores == references)
        drawn_often = often[:, neurons]
        for number, values in enumerate((scores, references, higher, np.ones_like(scores))):
            values = np.where(known, values, 0)
            sums[0, number] += (drawn_often * values).sum(axis=1)
            sums[1, number] += values.sum(axis=1)
            sums[2, number] += drawn_often @ values[0]
        compared += int(known[0].sum())
    if not compared:
        raise ValueError(
            f"mouse {one.mouse!r}: no neuron has a score by both models (not recorded, silent, or "
            f"below the threshold of {metric}): there is nothing to compare."
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        scores, references, higher = np.moveaxis(sums[:, :3] / sums[:, 3:], 1, 0)
    counts = drawn[0].shape[1], (compared,)
    return _Compared(
        float(scores[0, 0]),
        float(references[0, 0]),
        *(
            TwoWays(values[0], values[1], (values[2],), *counts)
            for values in (scores - references, higher)
        ),
    )


def _told(found: _Compared, draws: Draws) -> dict[str, Any]:
    difference, low, high = found.difference.bounds(draws.level)
    improved, fewest, most = found.improved.bounds(draws.level, (0, 1))
    return {
        "value": found.value,
        "reference_value": found.reference,
        "difference": difference,
        "low": low,
        "high": high,
        "p_value": found.difference.p_value(),
        "improved": improved,
        "improved_low": fewest,
        "improved_high": most,
        "n_neurons": sum(found.difference.n_neurons),
    }

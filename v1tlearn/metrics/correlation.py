"""Correlations of predictions with responses, and of responses with themselves.

Every function takes the argument forms described in `v1tlearn.metrics`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr

from v1tlearn.metrics._arrays import there
from v1tlearn.metrics._evaluate import Block, Multioutput, evaluate

OracleKind = Literal["jackknife", "conservative"]


def single_trial_correlation(
    y_true: Any,
    y_pred: Any,
    *,
    image_ids: Any = None,
    mouse_ids: Any = None,
    sample_weight: Any = None,
    multioutput: Multioutput = "uniform_average",
) -> float | xr.DataArray:
    """Correlation of single-trial responses with their predictions.

    Pearson's correlation over all trials, repeats included, of each neuron; then the mean over
    neurons, then over mice (Willeke et al. 2022, "single trial correlation"; Li et al. 2023,
    eq. 5, read per neuron).

    Parameters
    ----------
    y_true : array (n, neurons), object array (n,), Responses, or dict or list per mouse
        Recorded responses in any unit; NaN where not recorded.
    y_pred : same forms as `y_true`
        Predicted responses; finite wherever a response was recorded.
    image_ids : ignored
        Accepted so that all metrics are called alike.
    mouse_ids : array (n,), optional
        Mouse of each trial.
    sample_weight : array (n,), optional
        Weight of each trial in the correlation; a trial of weight 0 does not count.
    multioutput : {"uniform_average", "mice", "raw_values"}
        Mean over neurons, then mice; one value per mouse; or one per neuron.

    Returns
    -------
    float or DataArray (mouse,) or (unit,)
        A neuron whose responses or predictions are constant up to rounding counts 0; a neuron
        with fewer than two recorded trials is NaN and left out of means.

    Raises
    ------
    ValueError
        If arguments disagree, predictions are not finite, or a mouse has fewer than two trials.

    Examples
    --------
    >>> from v1tlearn.metrics import single_trial_correlation
    >>> responses, predictions = [[1.0], [2.0], [3.0]], [[10.0], [30.0], [20.0]]
    >>> round(single_trial_correlation(responses, predictions), 3)
    0.5
    """
    return evaluate(
        "single_trial_correlation",
        _single_trial,
        y_true,
        y_pred,
        image_ids=None,
        mouse_ids=mouse_ids,
        multioutput=multioutput,
        sample_weight=sample_weight,
    )


def average_correlation(
    y_true: Any,
    y_pred: Any,
    *,
    image_ids: Any = None,
    mouse_ids: Any = None,
    multioutput: Multioutput = "uniform_average",
) -> float | xr.DataArray:
    """Correlation to the average over repeats.

    Responses, and predictions (which differ between repeats if they use behaviour), are averaged
    over the repeats of each image; Pearson's correlation over images of each neuron; then the
    mean over neurons, then over mice (Willeke et al. 2022, "correlation to average"; Li et al.
    2023, eq. 6). Images may be repeated unequally often, or once.

    Parameters
    ----------
    y_true : array (n, neurons), object array (n,), Responses, or dict or list per mouse
        Recorded responses in any unit; NaN where not recorded.
    y_pred : same forms as `y_true`
        Predicted responses; finite wherever a response was recorded.
    image_ids : array (n,), optional
        Image of each trial; needed unless an argument brings them.
    mouse_ids : array (n,), optional
        Mouse of each trial.
    multioutput : {"uniform_average", "mice", "raw_values"}
        Mean over neurons, then mice; one value per mouse; or one per neuron.

    Returns
    -------
    float or DataArray (mouse,) or (unit,)
        A neuron whose averages are constant counts 0; a neuron recorded for fewer than two
        images is NaN and left out of means.

    Raises
    ------
    ValueError
        If arguments disagree, image ids are missing, or a mouse saw fewer than two images.
    """
    return evaluate(
        "average_correlation",
        _to_average,
        y_true,
        y_pred,
        image_ids=image_ids,
        mouse_ids=mouse_ids,
        multioutput=multioutput,
        trials="by_image",
    )


def oracle_correlation(
    y_true: Any,
    *,
    image_ids: Any = None,
    mouse_ids: Any = None,
    kind: OracleKind = "jackknife",
    multioutput: Multioutput = "uniform_average",
) -> float | xr.DataArray:
    r"""Single-trial correlation that the average response to an image would reach.

    "jackknife" correlates each response with the mean of the *other* repeats of its image, over
    trials (Lurz et al. 2021); that mean is noisy, so the true ceiling is underestimated.
    "conservative" is :math:`\sqrt{V_\mu / (V_\mu + V_\epsilon)}` with :math:`V_\mu` the variance
    over images of the mean response and :math:`V_\epsilon` the mean over images of the variance
    between repeats, both of the population (ddof 0); noise left in the mean response makes it an
    overestimate. A model that uses behaviour can exceed either.

    Parameters
    ----------
    y_true : array (n, neurons), object array (n,), Responses, or dict or list per mouse
        Recorded responses in any unit; NaN where not recorded.
    image_ids : array (n,), optional
        Image of each trial; needed unless `y_true` brings them. Images shown once (to this
        neuron) are left out: they say nothing about noise.
    mouse_ids : array (n,), optional
        Mouse of each trial.
    kind : {"jackknife", "conservative"}
        Estimator, see above.
    multioutput : {"uniform_average", "mice", "raw_values"}
        Mean over neurons, then mice; one value per mouse; or one per neuron.

    Returns
    -------
    float or DataArray (mouse,) or (unit,)
        A silent neuron counts 0; a neuron recorded for no repeated image is NaN and left out.

    Raises
    ------
    ValueError
        If image ids are missing, `kind` is unknown, or a mouse saw no image twice.
    """
    return evaluate(
        "oracle_correlation",
        _oracle_of(kind),
        y_true,
        image_ids=image_ids,
        mouse_ids=mouse_ids,
        multioutput=multioutput,
        trials="repeated",
    )


def fraction_oracle(
    y_true: Any,
    y_pred: Any,
    *,
    image_ids: Any = None,
    mouse_ids: Any = None,
    kind: OracleKind = "jackknife",
    multioutput: Multioutput = "uniform_average",
) -> float | xr.DataArray:
    r"""Slope of the model's correlations against the oracle correlations.

    The least-squares line through the origin over the neurons of a mouse,
    :math:`\sum_n m_n o_n / \sum_n o_n^2`, then the mean over mice (Lurz et al. 2021).
    :math:`m_n` is the single-trial correlation of neuron n with the predictions and :math:`o_n`
    its `oracle_correlation`, both over the trials of repeated images.

    Parameters
    ----------
    y_true : array (n, neurons), object array (n,), Responses, or dict or list per mouse
        Recorded responses in any unit; NaN where not recorded.
    y_pred : same forms as `y_true`
        Predicted responses; finite wherever a response was recorded.
    image_ids : array (n,), optional
        Image of each trial; needed unless an argument brings them. Images shown once (to this
        neuron) are left out: they say nothing about noise.
    mouse_ids : array (n,), optional
        Mouse of each trial.
    kind : {"jackknife", "conservative"}
        Estimator of the oracle correlation.
    multioutput : {"uniform_average", "mice", "raw_values"}
        The mean of the slopes; the slope of each mouse; or :math:`m_n / o_n` for each neuron, of
        which the slope is the mean weighted by :math:`o_n^2`. NaN where the oracle is 0.

    Returns
    -------
    float or DataArray (mouse,) or (unit,)
        NaN for a mouse whose neurons all have an oracle correlation of 0.

    Raises
    ------
    ValueError
        If arguments disagree, image ids are missing, or a mouse saw no image twice.
    """
    oracle = _oracle_of(kind)
    return evaluate(
        "fraction_oracle",
        lambda block: np.stack([_single_trial(block), oracle(block)]),
        y_true,
        y_pred,
        image_ids=image_ids,
        mouse_ids=mouse_ids,
        multioutput=multioutput,
        trials="repeated",
        average=_slope_through_origin,
        n_rows=2,
    )


def pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Correlation over rows of two float64 arrays (n, neurons); 0 where one is constant.

    Constant columns must be exactly 0, as those of a `Block`.
    """
    if weights is None:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    else:
        share = weights / weights.sum()  # (n, 1)
        x, y = x - (share * x).sum(axis=0), y - (share * y).sum(axis=0)
        x, y = x * np.sqrt(share), y * np.sqrt(share)
    scale = np.sqrt(np.einsum("ij,ij->j", x, x)) * np.sqrt(np.einsum("ij,ij->j", y, y))
    r = np.einsum("ij,ij->j", x, y) / scale
    return np.where(scale > 0, np.clip(r, -1.0, 1.0), 0.0)


def _single_trial(block: Block) -> np.ndarray:
    return pearson(block.true, there(block.pred), block.weights)


def _to_average(block: Block) -> np.ndarray:
    repeats = there(block.repeats)
    return pearson(repeats.averages(block.true), repeats.averages(there(block.pred)))


def _oracle_of(kind: OracleKind):
    if not isinstance(kind, str) or kind not in ("jackknife", "conservative"):
        raise ValueError(f"kind is {kind!r}, expected 'jackknife' or 'conservative'.")
    return _jackknife if kind == "jackknife" else _conservative


def _jackknife(block: Block) -> np.ndarray:
    repeats = there(block.repeats)
    others = repeats.spread(repeats.sum(block.true)) - block.true
    others /= np.repeat(repeats.counts - 1.0, repeats.counts)[:, None]
    return pearson(block.true, others)


def _conservative(block: Block) -> np.ndarray:
    repeats = there(block.repeats)
    means = repeats.mean(block.true)
    noise = repeats.mean((block.true - repeats.spread(means)) ** 2).mean(axis=0)
    signal = means.var(axis=0)
    return np.where(signal > 0, np.sqrt(signal / (signal + noise)), 0.0)


def _slope_through_origin(values: np.ndarray) -> float:
    model, oracle = values[:, ~np.isnan(values).any(axis=0)]
    power = float(oracle @ oracle)
    return float(model @ oracle) / power if power > 0 else np.nan

"""Explainable variance, and predictions measured against it.

Every function takes the argument forms described in `v1tlearn.metrics`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._values import plain
from v1tlearn.metrics._evaluate import Block, Multioutput, evaluate


def fev(
    y_true: Any,
    *,
    image_ids: Any = None,
    mouse_ids: Any = None,
    multioutput: Multioutput = "uniform_average",
) -> float | xr.DataArray:
    r"""Fraction of the response variance that the stimulus can explain.

    Per neuron :math:`(V - V_\epsilon) / V` with :math:`V` the variance over all trials and
    :math:`V_\epsilon` the mean over images of the variance between repeats, both unbiased
    (ddof 1) (Cadena et al. 2019; Franke et al. 2022). Noise can make it negative.

    Parameters
    ----------
    y_true : array (n, neurons), object array (n,), Responses, or dict or list per mouse
        Recorded responses in any unit; NaN where not recorded.
    image_ids : array (n,), optional
        Image of each trial; needed unless `y_true` brings them. Images shown once (to this
        neuron) are left out: they say nothing about noise.
    mouse_ids : array (n,), optional
        Mouse of each trial.
    multioutput : {"uniform_average", "mice", "raw_values"}
        Mean over neurons, then mice; one value per mouse; or one per neuron.

    Returns
    -------
    float or DataArray (mouse,) or (unit,)
        A silent neuron, or one recorded for no repeated image, is NaN and left out of means.

    Raises
    ------
    ValueError
        If image ids are missing or a mouse saw no image twice.
    """
    return evaluate(
        "fev",
        _fev,
        y_true,
        image_ids=image_ids,
        mouse_ids=mouse_ids,
        multioutput=multioutput,
        trials="repeated",
    )


def feve(
    y_true: Any,
    y_pred: Any,
    *,
    image_ids: Any = None,
    mouse_ids: Any = None,
    threshold: float = 0.15,
    multioutput: Multioutput = "uniform_average",
) -> float | xr.DataArray:
    r"""Fraction of the explainable variance that the predictions explain.

    Per neuron :math:`1 - (E - V_\epsilon) / (V - V_\epsilon)` with :math:`E` the mean squared
    error over single trials and :math:`V`, :math:`V_\epsilon` as in `fev` (Cadena et al. 2019;
    Franke et al. 2022).

    Parameters
    ----------
    y_true : array (n, neurons), object array (n,), Responses, or dict or list per mouse
        Recorded responses in any unit; NaN where not recorded.
    y_pred : same forms as `y_true`
        Predicted responses in the unit of the responses; finite wherever one was recorded.
    image_ids : array (n,), optional
        Image of each trial; needed unless an argument brings them. Images shown once (to this
        neuron) are left out: they say nothing about noise.
    mouse_ids : array (n,), optional
        Mouse of each trial.
    threshold : float
        Neurons with `fev` below it are NaN and left out of means; ``-numpy.inf`` keeps all.
    multioutput : {"uniform_average", "mice", "raw_values"}
        Mean over neurons, then mice; one value per mouse; or one per neuron.

    Returns
    -------
    float or DataArray (mouse,) or (unit,)
        A silent neuron, one below the threshold, or one recorded for no repeated image is NaN.

    Raises
    ------
    ValueError
        If arguments disagree, image ids are missing, or a mouse saw no image twice.
    """
    return evaluate(
        "feve",
        partial(_feve, threshold=plain(threshold, "threshold")),
        y_true,
        y_pred,
        image_ids=image_ids,
        mouse_ids=mouse_ids,
        multioutput=multioutput,
        trials="repeated",
    )


def normalized_correlation(
    y_true: Any,
    y_pred: Any,
    *,
    image_ids: Any = None,
    mouse_ids: Any = None,
    multioutput: Multioutput = "uniform_average",
) -> float | xr.DataArray:
    r"""Correlation over images, normalised by its ceiling: CC_norm (Schoppe et al. 2016).

    Per neuron :math:`Cov(\bar r, \hat y) / \sqrt{Var(\hat y)\, SP}` over images, where
    :math:`\bar r` and :math:`\hat y` are responses and predictions averaged over repeats and the
    signal power is, for N repeats of every image,

    .. math:: SP = \frac{Var(\sum_k r_k) - \sum_k Var(r_k)}{N (N - 1)}.

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
    multioutput : {"uniform_average", "mice", "raw_values"}
        Mean over neurons, then mice; one value per mouse; or one per neuron.

    Returns
    -------
    float or DataArray (mouse,) or (unit,)
        NaN, and left out of means, where the signal power is not positive (silent or unreliable
        neurons) or fewer than two images were repeated; 0 where predictions are constant. Being
        an estimate, it can exceed 1.

    Raises
    ------
    ValueError
        If arguments disagree, image ids are missing, or a mouse saw no image twice.

    Notes
    -----
    Repeat k of an image is its k-th trial in the order given. Another order gives another
    estimate of the same signal power; their mean over all orders is
    :math:`SP = Var(\bar r) - \langle s_i^2 / N_i \rangle_i` with :math:`s_i^2` the unbiased
    variance between the :math:`N_i` repeats of image i. That form exists for unequal
    :math:`N_i` too and is used for them: it needs no trials to be dropped.
    """
    return evaluate(
        "normalized_correlation",
        _normalized_correlation,
        y_true,
        y_pred,
        image_ids=image_ids,
        mouse_ids=mouse_ids,
        multioutput=multioutput,
        trials="repeated",
    )


def _variance_between_repeats(block: Block) -> np.ndarray:
    """Unbiased variance over the repeats of each image, (images, neurons)."""
    repeats = block.repeats
    residuals = block.true - repeats.spread(repeats.mean(block.true))
    return repeats.sum(residuals**2) / (repeats.counts[:, None] - 1.0)


def _total_and_noise(block: Block) -> tuple[np.ndarray, np.ndarray]:
    return block.true.var(axis=0, ddof=1), _variance_between_repeats(block).mean(axis=0)


def _fev(block: Block) -> np.ndarray:
    total, noise = _total_and_noise(block)
    return np.where(total > 0, (total - noise) / total, np.nan)


def _feve(block: Block, threshold: float) -> np.ndarray:
    total, noise = _total_and_noise(block)
    explained = 1.0 - (np.mean(block.error**2, axis=0) - noise) / (total - noise)
    kept = (total > 0) & (total != noise) & ((total - noise) / total >= threshold)
    return np.where(kept, explained, np.nan)


def _signal_power(block: Block) -> np.ndarray:
    counts = block.repeats.counts
    n = counts[0]
    if (counts == n).all():
        by_repeat = block.true.reshape(len(counts), n, -1)  # (images, repeats, neurons)
        power_of_sum = by_repeat.sum(axis=1).var(axis=0, ddof=1)
        return (power_of_sum - by_repeat.var(axis=0, ddof=1).sum(axis=0)) / (n * (n - 1.0))
    noise_of_mean = (_variance_between_repeats(block) / counts[:, None]).mean(axis=0)
    return block.repeats.mean(block.true).var(axis=0, ddof=1) - noise_of_mean


def _normalized_correlation(block: Block) -> np.ndarray:
    if len(block.repeats.counts) < 2:
        return np.full(block.true.shape[1], np.nan)
    response, prediction = block.repeats.mean(block.true), block.repeats.mean(block.pred)
    response, prediction = response - response.mean(axis=0), prediction - prediction.mean(axis=0)
    degrees = len(response) - 1.0
    covariance = np.einsum("ij,ij->j", response, prediction) / degrees
    variance = np.einsum("ij,ij->j", prediction, prediction) / degrees
    power = _signal_power(block)
    value = np.where(variance > 0, covariance / np.sqrt(variance * power), 0.0)
    return np.where(power > 0, value, np.nan)

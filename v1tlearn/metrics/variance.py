"""Explainable variance, and predictions measured against it.

Every function takes the argument forms described in `v1tlearn.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr

from v1tlearn._rounding import variance_left
from v1tlearn._values import as_flag, as_number
from v1tlearn.metrics._arrays import there
from v1tlearn.metrics._evaluate import Block, Multioutput, Selection, evaluate
from v1tlearn.metrics._first_repeats import keep_first_repeats

ShownOnce = Literal["left_out", "counted"]


def fev(
    y_true: Any,
    *,
    image_ids: Any = None,
    mouse_ids: Any = None,
    shown_once: ShownOnce = "left_out",
    first_repeats: Any = None,
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
        Image of each trial; needed unless `y_true` brings them.
    mouse_ids : array (n,), optional
        Mouse of each trial.
    shown_once : {"left_out", "counted"}, default="left_out"
        What becomes of images shown once (to this neuron), which say nothing about noise:
        "counted" are they in the variance over all trials (and in the error), as by Du et al.
        2025, though not in that between repeats.
    first_repeats : int, array (neurons,) of int, or dict per mouse, optional
        Take the first so many repeats of every image only, of each neuron its own number, as by
        Du et al. 2025 for neurons recorded in fewer repeats. Repeats count in the order given,
        recorded or not.
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
        **_limited_to(first_repeats),
        multioutput=multioutput,
        trials=_selection(shown_once),
    )


def feve(
    y_true: Any,
    y_pred: Any,
    *,
    image_ids: Any = None,
    mouse_ids: Any = None,
    threshold: float = 0.15,
    strict: bool = False,
    noise_term: bool = True,
    shown_once: ShownOnce = "left_out",
    first_repeats: Any = None,
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
        Image of each trial; needed unless an argument brings them.
    mouse_ids : array (n,), optional
        Mouse of each trial.
    threshold : float
        Neurons with `fev` below it are NaN and left out of means; ``-numpy.inf`` keeps all.
    strict : bool, default=False
        Whether neurons with `fev` at the threshold are left out, too: Franke et al. 2022 keep them,
        Du et al. 2025 do not.
    noise_term : bool, default=True
        False takes :math:`V_\epsilon` as 0, for responses without repeats: the variance explained,
        :math:`1 - E / V` over all trials. The `fev` of every neuron that varies is 1 then, and no
        image ids are needed.
    shown_once : {"left_out", "counted"}, default="left_out"
        What becomes of images shown once (to this neuron), which say nothing about noise:
        "counted" are they in the variance over all trials (and in the error), as by Du et al.
        2025, though not in that between repeats.
    first_repeats : int, array (neurons,) of int, or dict per mouse, optional
        Take the first so many repeats of every image only, of each neuron its own number, as by
        Du et al. 2025 for neurons recorded in fewer repeats. Repeats count in the order given,
        recorded or not.
    multioutput : {"uniform_average", "mice", "raw_values"}
        Mean over neurons, then mice; one value per mouse; or one per neuron.

    Returns
    -------
    float or DataArray (mouse,) or (unit,)
        A silent neuron, one below the threshold, or one recorded for no repeated image is NaN.

    Raises
    ------
    TypeError
        If `threshold` is no number, or `strict` or `noise_term` no truth value.
    ValueError
        If arguments disagree, image ids are missing, a mouse saw no image twice, or `threshold` is
        NaN.
    """
    trials = _selection(shown_once)
    threshold, strict = as_number(threshold, "threshold"), as_flag(strict, "strict")
    statistic: Callable[[Block], np.ndarray] = partial(_feve, threshold=threshold, strict=strict)
    if not as_flag(noise_term, "noise_term"):
        trials, statistic = "all", _variance_explained
    return evaluate(
        "feve",
        statistic,
        y_true,
        y_pred,
        image_ids=image_ids,
        mouse_ids=mouse_ids,
        **_limited_to(first_repeats),
        multioutput=multioutput,
        trials=trials,
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


def _selection(shown_once: str) -> Selection:
    selections: dict[str, Selection] = {"left_out": "repeated", "counted": "with_repeats"}
    if not isinstance(shown_once, str) or shown_once not in selections:
        raise ValueError(f"shown_once is {shown_once!r}, expected one of {list(selections)}.")
    return selections[shown_once]


def _limited_to(first_repeats: Any) -> dict[str, Any]:
    if first_repeats is None:
        return {}
    prepare = partial(keep_first_repeats, first_repeats=first_repeats)
    return {"needs": ("image_ids",), "prepare": prepare}


def _variance_between_repeats(block: Block) -> np.ndarray:
    """Unbiased variance over the repeats of each image, (images, neurons); NaN if shown once."""
    repeats = there(block.repeats)
    residuals = block.true - repeats.spread(repeats.mean(block.true))
    return repeats.sum(residuals**2) / (repeats.counts[:, None] - 1.0)


def _total_and_noise(block: Block) -> tuple[np.ndarray, np.ndarray]:
    noise = _variance_between_repeats(block)[there(block.repeats).counts > 1]
    return block.true.var(axis=0, ddof=1), noise.mean(axis=0)


def _fev(block: Block) -> np.ndarray:
    total, noise = _total_and_noise(block)
    return np.where(total > 0, variance_left(total, noise) / total, np.nan)


def _feve(block: Block, threshold: float, strict: bool) -> np.ndarray:
    total, noise = _total_and_noise(block)
    left = variance_left(total, noise)
    explained = 1.0 - (np.mean(there(block.error) ** 2, axis=0) - noise) / left
    explainable = left / total
    enough = explainable > threshold if strict else explainable >= threshold
    return np.where((total > 0) & (left != 0) & enough, explained, np.nan)


def _variance_explained(block: Block) -> np.ndarray:
    total = block.true.var(axis=0, ddof=1)
    return np.where(total > 0, 1.0 - np.mean(there(block.error) ** 2, axis=0) / total, np.nan)


def _signal_power(block: Block) -> np.ndarray:
    repeats = there(block.repeats)
    counts = repeats.counts
    n = counts[0]
    if (counts == n).all():
        by_repeat = block.true.reshape(len(counts), n, -1)  # (images, repeats, neurons)
        power_of_sum = by_repeat.sum(axis=1).var(axis=0, ddof=1)
        of_repeats = by_repeat.var(axis=0, ddof=1).sum(axis=0)
        return variance_left(power_of_sum, of_repeats) / (n * (n - 1.0))
    noise_of_mean = (_variance_between_repeats(block) / counts[:, None]).mean(axis=0)
    return variance_left(repeats.mean(block.true).var(axis=0, ddof=1), noise_of_mean)


def _normalized_correlation(block: Block) -> np.ndarray:
    repeats = there(block.repeats)
    if len(repeats.counts) < 2:
        return np.full(block.true.shape[1], np.nan)
    response, prediction = repeats.averages(block.true), repeats.averages(there(block.pred))
    response, prediction = response - response.mean(axis=0), prediction - prediction.mean(axis=0)
    degrees = len(response) - 1.0
    covariance = np.einsum("ij,ij->j", response, prediction) / degrees
    variance = np.einsum("ij,ij->j", prediction, prediction) / degrees
    power = _signal_power(block)
    value = np.where(variance > 0, covariance / np.sqrt(variance * power), 0.0)
    return np.where(power > 0, value, np.nan)

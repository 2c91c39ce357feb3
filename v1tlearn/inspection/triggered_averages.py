"""Receptive fields of recorded neurons: spike-triggered averages, and ridge regression."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import xarray as xr
from scipy import linalg

from v1tlearn._options import as_numbers
from v1tlearn._values import plain
from v1tlearn.datasets.time_axis import FRAMES, SECONDS
from v1tlearn.trials import Trials

_MOST_WEIGHTS = 12_000  # of one neuron by regression, whose covariances take a gigabyte


def spike_triggered_average(
    trials: Trials, n_lags: int | None = None, *, ridge: float | None = None
) -> dict[str, xr.DataArray]:
    """Average what was shown ahead of responses, in space and time.

    Parameters
    ----------
    trials : Trials
        With responses to images, movies or white noise. Their preprocessing is applied.
    n_lags : int, optional
        Of movies: frames that are looked at, the one of the response and those before it. Images
        have none.
    ridge : float, optional
        None takes the average. A number takes weights of a linear regression instead, which undoes
        the correlations of natural stimuli; it is the penalty on squared weights, relative to the
        mean variance of a pixel. 0 is least squares, right for white noise; natural stimuli need
        some hundredths, or more.

    Returns
    -------
    dict of str to DataArray (neuron, lag, channel, height, width)
        Per mouse, float32, without the dimension `lag` of images. Averages: the mean of what was
        shown, weighted by the response, less the mean of all that was shown, in the unit of the
        stimuli; NaN of neurons whose responses sum up to no more than 0. Regression: response units
        per unit of the stimuli. ``lag`` is in seconds back from the frame of the response, 0 first;
        in frames, where nobody knows the frame rate. ``neuron`` bears the unit ids of the trials,
        with ``area``, ``layer``... beside it.

    Raises
    ------
    TypeError
        If these are no Trials, or have no responses.
    ValueError
        If `n_lags` is missing for movies, comes for images or is longer than any movie; `ridge` is
        negative; a neuron was never recorded; a regression has more weights than memory holds, or
        its pixels are not independent.

    Notes
    -----
    With responses r_t and windows x_t of the stimulus, the average is
    sum(r_t x_t) / sum(r_t) - mean(x_t) (Chichilnisky 2001, eq. 4), the weights are
    (C + ridge tr(C) / p I)^-1 cov(x, r), of p weights with covariances C and an intercept
    (Theunissen et al. 2001). All sums are over the frames in which the neuron was recorded, and
    that have `n_lags` frames of their own trial: nothing is made up ahead of a movie. They are
    in float64.

    The average of white noise, weighted by the rate of a cell that is a filter with a
    non-linearity behind it, is the filter up to scale, if the noise is normal or the cell linear.

    References
    ----------
    Chichilnisky 2001, A simple white noise analysis of neuronal light responses, Network;
    Theunissen et al. 2001, Estimating spatio-temporal receptive fields of auditory and visual
    neurons from their responses to natural stimuli, Network.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import spike_triggered_average
    >>> trials = v1.Trials(v1.make_movie_recordings(1, 5, 10, 1, 3, random_state=0))
    >>> averages = spike_triggered_average(trials.sel(tier="train"), 8)
    >>> averages["A"].dims, averages["A"].shape
    (('neuron', 'lag', 'channel', 'height', 'width'), (5, 8, 1, 18, 32))
    """
    if not isinstance(trials, Trials):
        raise TypeError(
            f"trials is a {type(trials).__name__}: expected Trials; arrays go through "
            "Trials.from_arrays(stimuli, responses=responses, frame_rate=...)."
        )
    n_lags, ridge = plain((n_lags, ridge))
    n_lags = _checked_lags(trials, n_lags)
    if ridge is not None and (
        not isinstance(ridge, Real) or isinstance(ridge, bool) or not 0 <= float(ridge) < np.inf
    ):
        raise ValueError(f"ridge={ridge!r}: expected a number from 0 on, or None.")
    return {mouse: _of_mouse(trials, mouse, n_lags, ridge) for mouse in trials.mice}


def space_time_components(averages: xr.DataArray) -> xr.Dataset:
    """Take spatio-temporal receptive fields apart: the best product of a map and a time course.

    Parameters
    ----------
    averages : DataArray (neuron, lag, channel, height, width)
        Of one mouse, from `spike_triggered_average`, with one channel or none.

    Returns
    -------
    Dataset
        `receptive_field` (neuron, height, width) and `temporal_filter` (neuron, lag), of unit
        length, the largest value of the time course positive; `strength` (neuron), by which their
        product is multiplied; and `separability` (neuron), the share of the squared averages that
        the product explains. NaN of neurons whose averages are NaN.

    Raises
    ------
    TypeError, ValueError
        If this is no DataArray with these dimensions, or has several channels.

    Notes
    -----
    The first singular vectors (DeAngelis, Ohzawa & Freeman 1995). `with_receptive_fields` puts the
    maps into the recording.
    """
    if not isinstance(averages, xr.DataArray):
        raise TypeError(
            f"averages is a {type(averages).__name__}: expected a DataArray, such as "
            'spike_triggered_average(trials, 10)["A"].'
        )
    needed = {"neuron", "lag", "height", "width"}
    one_channel = averages.sizes.get("channel", 1) == 1
    if set(averages.dims) - {"channel"} != needed or not one_channel or not averages.size:
        raise ValueError(
            f"averages have the dimensions {dict(averages.sizes)}: expected {sorted(needed)}, and "
            "one channel: take one, .isel(channel=0), or the mean of them"
        )
    if "channel" in averages.dims:
        averages = averages.isel(channel=0, drop=True)
    averages = averages.transpose("neuron", "lag", "height", "width")
    n, n_lags, height, width = averages.shape
    values = as_numbers(averages.values, "averages", of="neuron").reshape(n, n_lags, -1)
    known = np.isfinite(values).all(axis=(1, 2))
    maps, courses = np.full((n, height * width), np.nan), np.full((n, n_lags), np.nan)
    strength, share = np.full((2, n), np.nan)
    left, singular, right = np.linalg.svd(values[known], full_matrices=False)
    course, one = left[:, :, 0], right[:, 0]
    rows = np.arange(len(course))
    sign = np.sign(course[rows, np.abs(course).argmax(axis=1)])[:, None]
    courses[known], maps[known], strength[known] = course * sign, one * sign, singular[:, 0]
    total = (singular**2).sum(axis=1)
    share[known] = np.divide(
        singular[:, 0] ** 2, total, out=np.full(len(total), np.nan), where=total > 0
    )
    coords = {k: v for k, v in averages.coords.items() if set(v.dims) <= needed}
    return xr.Dataset(
        {
            "receptive_field": (
                ("neuron", "height", "width"),
                maps.reshape(n, height, width).astype(np.float32),
            ),
            "temporal_filter": (("neuron", "lag"), courses.astype(np.float32)),
            "strength": ("neuron", strength),
            "separability": ("neuron", share),
        },
        coords,
    )


@dataclass(frozen=True)
class _Block:
    """Stimuli (frames, pixels) of a stretch, and what was recorded in it (frames, neurons)."""

    stimuli: np.ndarray
    responses: np.ndarray  # 0 where not recorded
    recorded: np.ndarray  # 1.0 or 0.0

    def at(self, lag: int, n_lags: int) -> np.ndarray:
        """What was shown so many frames ahead of each response."""
        return self.stimuli[n_lags - 1 - lag : len(self.stimuli) - lag]


def _of_mouse(trials: Trials, mouse: str, n_lags: int, ridge: float | None) -> xr.DataArray:
    example = trials[trials.rows(mouse)[0][:1]][mouse]["stimuli"]
    shape = example.shape[2 if trials.n_frames is not None else 1 :]
    n, size = trials.n_neurons[mouse], int(np.prod(shape))
    if ridge is not None and n_lags * size > _MOST_WEIGHTS:
        raise ValueError(
            f"mouse {mouse!r}: {n_lags} lags of {shape} pixels are {n_lags * size} weights, at most"
            f" {_MOST_WEIGHTS} are regressed on: make images smaller, ResizeStimuli, look at fewer "
            "lags, or take ridge=None"
        )
    group = _recorded_alike(trials, mouse, n_lags)  # (neurons,)
    _, first = np.unique(group, return_index=True)
    # Sums over frames, by group of neurons and by neuron.
    count, shown = np.zeros(len(first)), np.zeros((len(first), n_lags, size))
    total, product = np.zeros(n), np.zeros((n, n_lags, size))
    for block in _blocks(trials, mouse, n_lags):
        recorded = block.recorded[:, first]
        count += recorded.sum(axis=0)
        total += block.responses.sum(axis=0)
        for lag in range(n_lags):
            stimuli = block.at(lag, n_lags)
            shown[:, lag] += recorded.T @ stimuli
            product[:, lag] += block.responses.T @ stimuli
    if not count.all():
        ids = trials.neuron_ids(mouse)[count[group] == 0]
        raise ValueError(
            f"mouse {mouse!r}: neuron {ids[0]!r} and {len(ids) - 1} others were recorded in no "
            "frame that counts: drop them, trials.sel(neuron=...)"
        )
    mean, total = (shown / count[:, None, None])[group], total[:, None, None]
    if ridge is None:
        values = product / np.where(total > 0, total, np.nan) - mean
        unit = "unit of the stimuli"
    else:
        covariance = (product - total * mean).reshape(n, -1)
        values = _regressed(trials, mouse, n_lags, ridge, covariance, group)
        unit = "response unit per unit of the stimuli"
    return _labelled(trials, mouse, values.reshape(n, n_lags, *shape), example, unit, ridge)


def _regressed(
    trials: Trials,
    mouse: str,
    n_lags: int,
    ridge: float,
    covariance: np.ndarray,
    group: np.ndarray,
) -> np.ndarray:
    """Weights (neurons, weights), of all neurons that were recorded in the same frames at once."""
    weights = np.empty_like(covariance)
    p = covariance.shape[1]
    for number in range(group.max() + 1):
        neurons = np.flatnonzero(group == number)
        count, mean, products = 0.0, np.zeros(p), np.zeros((p, p))
        for block in _blocks(trials, mouse, n_lags):
            rows = block.recorded[:, neurons[0]] > 0
            count += rows.sum()
            seen = [block.at(lag, n_lags)[rows] for lag in range(n_lags)]
            size = seen[0].shape[1]
            for i in range(n_lags):
                one = slice(i * size, (i + 1) * size)
                mean[one] += seen[i].sum(axis=0)
                for j in range(i + 1):
                    products[one, j * size : (j + 1) * size] += seen[i].T @ seen[j]
        products -= np.tril(np.outer(mean, mean)) / count
        penalty = ridge * np.trace(products) / p
        products[np.diag_indices(p)] += penalty
        try:
            factor = linalg.cholesky(products, lower=True, overwrite_a=True)
            smallest = np.diagonal(factor).min() / np.diagonal(factor).max()
        except linalg.LinAlgError:
            smallest = 0.0
        if smallest < 1e-6:
            raise ValueError(
                f"mouse {mouse!r}: the {p} pixels of {n_lags} lags are not independent in the "
                f"{count:.0f} frames in which neuron {trials.neuron_ids(mouse)[neurons[0]]!r} was "
                f"recorded, so that weights are not defined at ridge={ridge:g}: raise it"
            )
        weights[neurons] = linalg.cho_solve((factor, True), covariance[neurons].T).T
    return weights


def _recorded_alike(trials: Trials, mouse: str, n_lags: int) -> np.ndarray:
    """Groups (neurons,), by number, that were recorded in the same frames."""
    masks = [
        np.packbits(block.recorded > 0, axis=0)
        for block in _blocks(trials, mouse, n_lags, stimuli=False)
    ]
    _, group = np.unique(np.concatenate(masks), axis=1, return_inverse=True)
    return group.ravel()  # NumPy 2.0.0 gives it the shape of the masks


def _blocks(trials: Trials, mouse: str, n_lags: int, *, stimuli: bool = True) -> Iterator[_Block]:
    """Stretches of frames, each of one movie; images are frames of one stretch."""
    movies = trials.n_frames is not None
    for block in trials.blocks(mouse, 1) if movies else trials.blocks(mouse):
        found = block.get("responses", mouse)
        assert found is not None  # `trials` were checked
        seen: Any = block.get("stimuli", mouse) if stimuli else np.empty(found.shape[: 1 + movies])
        if movies:
            assert block.n_frames is not None
            n_frames = int(block.n_frames[0])
            found, seen = found[0, :n_frames], seen[0, :n_frames]
        found = found[n_lags - 1 :].astype(np.float64)
        if not len(found):
            continue
        recorded = ~np.isnan(found)
        yield _Block(
            seen.reshape(len(seen), -1).astype(np.float64),
            np.where(recorded, found, 0.0),
            recorded.astype(np.float64),
        )


def _checked_lags(trials: Trials, n_lags: Any) -> int:
    lacking = [mouse for mouse in trials.mice if not trials.has("responses", mouse)]
    if lacking or not len(trials):
        what = f"mouse {lacking[0]!r} has no responses" if lacking else "there are no trials"
        raise TypeError(f"{what}: expected trials with responses.")
    if trials.n_frames is None:
        if n_lags not in (None, 1):
            raise ValueError(f"n_lags={n_lags!r} came for images, which have no time: leave it out")
        return 1
    if not isinstance(n_lags, Integral) or isinstance(n_lags, bool) or n_lags < 1:
        raise ValueError(
            f"n_lags={n_lags!r}: expected the number of frames to look back, a whole number from 1"
        )
    if n_lags > trials.n_frames.max():
        raise ValueError(
            f"n_lags={n_lags}, but the longest movie has {trials.n_frames.max()} frames: look at "
            "fewer"
        )
    return int(n_lags)


def _labelled(
    trials: Trials,
    mouse: str,
    values: np.ndarray,
    example: xr.DataArray,
    unit: str,
    ridge: float | None,
) -> xr.DataArray:
    frame = ("channel", "height", "width")
    coords: dict[str, Any] = {
        name: ("neuron", labels) for name, labels in trials.neuron_labels(mouse).items()
    }
    coords["neuron"] = trials.neuron_ids(mouse)
    coords |= {name: example[name] for name in frame if name in example.coords}
    dims: tuple[str, ...] = ("neuron", "lag", *frame)
    if trials.n_frames is None:
        dims, values = ("neuron", *frame), values[:, 0]
    else:
        rate = trials.frame_rate(mouse)
        lags = np.arange(values.shape[1]) / (rate or 1.0)
        attrs = {"long_name": "time ahead of the response"}
        coords["lag"] = ("lag", lags, attrs | {"units": SECONDS if rate else FRAMES})
    told = {"mouse_id": mouse, "units": unit, "ridge": "none" if ridge is None else ridge}
    return xr.DataArray(
        values.astype(np.float32), coords, dims, name="spike_triggered_average", attrs=told
    )

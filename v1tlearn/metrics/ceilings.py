"""How good a model could be: noise ceilings of recorded responses, with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from v1tlearn.metrics._arrays import MouseArrays, arrays_by_mouse, there
from v1tlearn.metrics._draws import Draws, Found, bounds_of, found_of, mean_over_mice
from v1tlearn.metrics._evaluate import Multioutput, check_multioutput
from v1tlearn.metrics._time import has_time
from v1tlearn.metrics._weighted import CEILINGS
from v1tlearn.trials._units import label_units

ESTIMATES = ["value", "low", "high"]


def noise_ceiling(
    y_true: Any,
    *,
    image_ids: Any = None,
    mouse_ids: Any = None,
    n_bootstrap: int = 1000,
    level: float = 0.95,
    block_frames: int | None = None,
    random_state: Any = 0,
    multioutput: Multioutput = "raw_values",
) -> xr.Dataset:
    r"""Estimate the best scores that a model of the stimulus could reach, with intervals.

    Responses to the same image differ, and what differs no model can predict from the image. What
    the repeats of images tell of it bounds every score.

    Parameters
    ----------
    y_true : Trials, Responses, array (n, neurons), object array (n,), or dict or list per mouse
        Recorded responses in any unit; NaN where not recorded. Of movies with a time axis, every
        frame is an image.
    image_ids : array (n,), optional
        Image of each trial; needed unless `y_true` brings them. Images shown once (to a neuron)
        are left out: they say nothing about noise.
    mouse_ids : array (n,), optional
        Mouse of each trial.
    n_bootstrap : int, default=1000
        Draws of images, all their trials together, for the intervals; 0 for none.
    level : float, default=0.95
        Of the intervals.
    block_frames : int, optional
        Of movies, how many successive frames are drawn together, a few times as many as responses
        outlast: frames that follow each other are no independent images. By default whole movies
        are drawn.
    random_state : int, RandomState, Generator or None, default=0
        Of the draws.
    multioutput : {"raw_values", "mice", "uniform_average"}
        One value per neuron; the mean over the neurons of each mouse; or the mean over mice.

    Returns
    -------
    Dataset
        With the dimensions ``estimate``, which is "value", "low" or "high" (the interval), and
        ``unit`` (``neuron`` of one mouse by ``.sel(mouse="A")``), ``mouse`` or none; and the
        variables

        * ``oracle``: correlation of each response with the mean of the other repeats, as
          `oracle_correlation` has it. No ceiling itself: that mean is noisy;
        * ``explainable_variance``: the share of the variance that the stimulus explains, `fev`;
        * ``single_trial_ceiling``: `single_trial_correlation` of the true mean responses;
        * ``average_ceiling``: their `average_correlation`, over images that were repeated.

        A silent neuron has ceilings of 0 and no explainable variance, which is NaN; a neuron that
        was recorded for no repeated image has nothing.

    Raises
    ------
    ValueError
        If image ids are missing, a mouse saw no image twice, or an option is out of its range; if
        an interval would have to draw from one image or one movie.

    See Also
    --------
    score_table : Scores of models, beside these ceilings.

    Notes
    -----
    With the signal variance S (of the true mean response over images) and the noise variance N
    (around it), a perfect model correlates with single trials by :math:`\sqrt{S / (S + N)}`, and
    with means of n repeats by :math:`\sqrt{S / (S + N / n)}` (Schoppe et al. 2016, there
    :math:`CC_{max}`). Both are estimated without bias in S and N, as in `fev` and in the signal
    power of `normalized_correlation`; repeats may be unequal in number. Where chance makes the
    estimate of S negative, the ceiling is 0. The oracle tends to
    :math:`S / \sqrt{(S + N)(S + N / (n - 1))}`.

    A model that reads behaviour predicts a part of what is noise here, and can exceed every
    ceiling.

    Intervals are percentiles of the bootstrap over images, moved so that the median draw is the
    value: a draw holds fewer different images, whose signal varies less. They say how much another
    choice of images would change, and nothing of other neurons or animals. An image that is in a
    draw twice is two images. The same images are drawn for all mice that saw as many.

    With few images intervals are rather narrow: those at a level of 0.95 held the truth for 90 % of
    simulated neurons of 20 images with 4 repeats, and for 93 % of 100 images with 10 repeats. Where
    few images make most of the signal it is less, since those that were not shown could change it:
    with rates of a log-normal distribution (of the standard deviation 0.8 of the logarithm) 80 % of
    20 images with 3 repeats and 64 % of 20 with 10, 83 % of 60 with 3 and 75 % of 60 with 10.

    References
    ----------
    O. Schoppe et al., Measuring the performance of neural models. Frontiers in Computational
    Neuroscience 10, 2016.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=5, n_trials=40, n_test_images=10, n_repeats=4,
    ...     image_shape=(16, 24), random_state=0))
    >>> ceilings = v1.metrics.noise_ceiling(trials.sel(tier="test"), n_bootstrap=200)
    >>> list(ceilings)
    ['oracle', 'explainable_variance', 'single_trial_ceiling', 'average_ceiling']
    >>> low, high = (ceilings.average_ceiling.sel(estimate=end) for end in ("low", "high"))
    >>> bool((low <= high).all())
    True
    """
    check_multioutput(multioutput)
    y_true = getattr(y_true, "responses", y_true)
    draws, movies = Draws.checked(n_bootstrap, level, random_state, block_frames), has_time(y_true)
    found = {
        arrays.mouse: _of_mouse(arrays, draws, movies=movies)
        for arrays in arrays_by_mouse(
            y_true, image_ids=image_ids, mouse_ids=mouse_ids, needs_images=True
        )
    }
    estimate = {"estimate": ESTIMATES}
    variables = {}
    for name, one in CEILINGS.items():
        parts = {mouse: of[name] for mouse, of in found.items()}
        if multioutput == "raw_values":
            neurons = {mouse: part.neurons for mouse, part in parts.items()}
            joined = np.concatenate([part.bounds for part in parts.values()], axis=1)
            units = label_units(joined[0], neurons).coords
            of_units = xr.DataArray(joined, dims=("estimate", "unit"), coords=units)
            variables[name] = of_units.assign_coords(estimate)
            continue
        of_mice = [part.of_mouse for part in parts.values()]
        if multioutput == "mice":
            means = np.stack([bounds_of(v, draws.level, one.limits) for v in of_mice], axis=1)
            coords = estimate | {"mouse": list(parts)}
            variables[name] = xr.DataArray(means, dims=("estimate", "mouse"), coords=coords)
        else:
            mean = bounds_of(mean_over_mice(of_mice), draws.level, one.limits)
            variables[name] = xr.DataArray(mean, dims="estimate", coords=estimate)
    return xr.Dataset(variables, attrs={"level": draws.level, "n_bootstrap": draws.n})


def _of_mouse(arrays: MouseArrays, draws: Draws, *, movies: bool) -> dict[str, Found]:
    """All ceilings of one mouse."""
    images = there(arrays.image_ids)
    if len(np.unique(images)) == len(images):
        raise ValueError(
            f"mouse {arrays.mouse!r}: no image is repeated, so the variability between repeats is "
            "unknown. Pass trials with repeated images, such as the test tier, and their image_ids."
        )
    drawn = draws.of(images, arrays.mouse, movies=movies)
    return {name: found_of(one, arrays, drawn, draws.level) for name, one in CEILINGS.items()}

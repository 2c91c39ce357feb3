"""Predictions of recordings that are larger than memory: written part by part, as they come."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from v1tlearn._instead import path_of
from v1tlearn._values import as_whole
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials.predicted import predict_responses

_PART_BYTES = 2**28


def save_predictions(
    estimator: Any,
    trials: Trials,
    path: str | os.PathLike,
    *,
    part_bytes: int = _PART_BYTES,
) -> None:
    """Predict trials and write what is predicted, some trials after the others.

    The file is that of ``estimator.predict(trials).to_netcdf(path)``; in memory are one part of the
    predictions at a time, or one movie, and the images of some hundred trials.

    Parameters
    ----------
    estimator : V1TRegressor, EnsembleRegressor or another estimator
        Fitted; a Pipeline or a search, too.
    trials : Trials
        Of mice that the model knows; opened lazily, they are read part by part.
    path : path
        A netCDF4 file with a group per mouse, which `Responses.open` reads; one that exists is
        replaced when the new one is complete.
    part_bytes : int, default=256 MiB
        Of predictions that are in memory at a time. Repeats of an image go through the core once
        in each part.

    Raises
    ------
    TypeError
        If these are no `Trials`, or the estimator gives no `Responses` for them.
    FileNotFoundError
        If there is no folder to write into.
    FileExistsError
        If recordings lie at `path`: their stimuli would be lost.
    ValueError
        If there are no trials; or as in `predict`.
    NotFittedError
        Before `fit`.

    See Also
    --------
    v1tlearn.Responses.to_netcdf : Writes predictions that are at hand.
    v1tlearn.MovieCNNRegressor.predict_parts : Gives out parts of movies that are longer than
        memory.

    Examples
    --------
    >>> import tempfile
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.LNRegressor(hidden_channels=4, batch_size=16, max_epochs=2, random_state=0)
    >>> path = tempfile.mkdtemp() + "/predictions.nc"
    >>> v1.save_predictions(model.fit(trials.sel(tier="train")), trials, path)
    >>> v1.Responses.open(path)["A"].shape
    (52, 5)
    """
    path = path_of("path", path, "save_predictions(model, trials, path)")
    part_bytes = as_whole(part_bytes, "part_bytes")
    if not isinstance(trials, Trials):
        raise TypeError(
            f"trials is a {type(trials).__name__}: expected Trials. The call is "
            "save_predictions(model, trials, path)."
        )
    sources, neurons, rows = {}, {}, np.empty(len(trials), np.int64)
    for mouse in trials.mice:
        places, _ = trials.rows(mouse)
        rows[places] = np.arange(len(places))
        first = predict_responses(estimator, trials[places[:1]])
        sources[mouse] = _Predicted(estimator, trials[places], first.get(mouse), mouse, part_bytes)
        neurons[mouse] = first.neuron_ids(mouse)
    predictions = Responses(trials, sources, rows, name="predictions")
    predictions._with_known_neurons(neurons).to_netcdf(path)


class _Predicted:
    """Predictions of one mouse, made as they are asked for; the part asked for last is kept."""

    def __init__(
        self, estimator: Any, trials: Trials, first: np.ndarray, mouse: str, part_bytes: int
    ) -> None:
        self._estimator, self._trials, self._mouse = estimator, trials, mouse
        self.shape, self.dtype, self.ndim = (len(trials), *first.shape[1:]), first.dtype, first.ndim
        self._at_once = max(1, part_bytes // max(1, first.nbytes))
        self._start, self._kept = 0, first

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        rows = np.arange(len(self._trials))[key]  # upwards, as files are written
        out, done = np.empty((len(rows), *self.shape[1:]), self.dtype), 0
        while done < len(rows):
            first = int(rows[done])
            if not self._start <= first < self._start + len(self._kept):
                part = self._trials[first : first + self._at_once]
                self._kept = self._kept[:0].copy()  # let go of, or there would be two parts
                self._start, self._kept = first, self._estimator.predict(part).get(self._mouse)
            stop = int(np.searchsorted(rows, self._start + len(self._kept)))
            out[done:stop] = self._kept[rows[done:stop] - self._start]
            done = stop
        return out

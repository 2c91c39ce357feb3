"""Encoding models: from images and behaviour to the responses of each animal's neurons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from v1tlearn._values import plain
from v1tlearn.estimators._build import begin
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._describe import describe
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators._lost_neurons import warn_of_diverged, warn_of_lost_neurons
from v1tlearn.estimators._movies import frames_of_movies
from v1tlearn.estimators._parameters import (
    InputParameters,
    TrainingParameters,
)
from v1tlearn.estimators._ranges import warn_of_other_ranges
from v1tlearn.estimators._reading import read_predict
from v1tlearn.estimators._runs import Part, Start, make_run
from v1tlearn.estimators.base_trained import TrainedEstimator
from v1tlearn.estimators.predicting import predict, predict_parts
from v1tlearn.estimators.prediction import PredictionMixin
from v1tlearn.estimators.transferring import TransferMixin
from v1tlearn.nn import EncodingModel
from v1tlearn.training import (
    Run,
)
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials.cutting import one_part


class ModelRegressor(
    PredictionMixin,
    MultiOutputMixin,
    RegressorMixin,
    TrainedEstimator,
):
    """Base of what predicts responses by an `EncodingModel`, however it is trained."""

    _rates: ClassVar[bool] = True

    def _knows(self) -> tuple[Fitted, EncodingModel]:
        self._to_device()
        return self.fitted_, self.module_

    def _look_back(self, run: Run) -> None:
        warn_of_lost_neurons(run.model, run.data)
        warn_of_diverged(run.model, run.data)

    def _predict(
        self, trials: Trials, *, activate: bool = True, at_once: int | None = None
    ) -> dict[str, np.ndarray]:
        """Predict every mouse of the trials, block by block, in data units.

        Without `activate` it is the output ahead of the non-linearity, in standardised units.
        """
        self._to_device()
        return predict(
            self.module_,
            self.fitted_,
            trials,
            self.device_,
            precision=self.precision,
            deterministic=plain(self.deterministic),
            activate=activate,
            at_once=at_once,
        )

    @explained
    def predict_parts(
        self,
        stimuli: Any,
        behaviors: Any = None,
        mouse_ids: Any = None,
        *,
        behavior_names: Sequence[str] | None = None,
        frames_at_once: int | None = None,
    ) -> Iterator[xr.DataArray]:
        """Predict movies part by part, in memory that does not grow with their length.

        What `predict` gives, but for rounding, of a model that sees time.

        Parameters
        ----------
        stimuli, behaviors, mouse_ids, behavior_names
            As in `predict`. Recordings that were opened lazily are read part by part.
        frames_at_once : int, optional
            Frames of a part; by default what is fast and fits. At least what a model that looks
            ahead sees at once.

        Returns
        -------
        iterator of DataArray (time, neuron)
            Movie after movie, part after part, in the units of the responses given to `fit`, with
            the labels of the trial, its mouse as `mouse_id` and its place among the trials as
            `place`; `time` goes on from part to part of a movie.

        Raises
        ------
        ValueError
            If the model sees no time, stimuli are images, or as in `predict`.
        NotFittedError
            Before `fit`.

        Examples
        --------
        >>> import v1tlearn as v1
        >>> trials = v1.Trials(v1.make_movie_recordings(1, 5, 8, 2, 3, random_state=0))
        >>> est = v1.MovieCNNRegressor(
        ...     n_layers=2, hidden_channels=4, max_epochs=2, random_state=0)
        >>> est = est.fit(trials.sel(tier="train"))
        >>> parts = est.predict_parts(trials.sel(tier="test")[:1], frames_at_once=60)
        >>> [part.shape for part in parts]
        [(60, 5), (30, 5)]
        """
        check_is_fitted(self)
        fitted, model = self._knows()
        movies, _ = read_predict(
            fitted, stimuli, behaviors, mouse_ids, behavior_names, "predict_parts"
        )
        if model.context_frames is None:
            raise ValueError(
                f"{type(self).__name__} predicts each frame on its own: predict_parts is for "
                "models that see time; give predict() some frames of the recordings after the "
                "others, recording.isel(time=slice(0, 1000)), which gives the same."
            )
        if frames_at_once is not None and frames_at_once < 1:
            raise ValueError(f"frames_at_once is {frames_at_once}: expected at least 1.")
        for mouse in movies.mice:  # all movies of a mouse have frames of one size
            first = int(movies.rows(mouse)[0][0])
            n_frames = movies.n_frames
            few = (
                movies[[first]]
                if n_frames is None
                else one_part(movies, first, 0, min(2, int(n_frames[first])))
            )
            check_like_fit(fitted, model, frames_of_movies(few, labelled=False))
        warn_of_other_ranges(fitted, frames_of_movies(movies, labelled=False))
        return predict_parts(
            model,
            fitted,
            movies,
            self.device_,
            precision=self.precision,
            deterministic=plain(self.deterministic),
            at_once=frames_at_once,
        )


@dataclass(eq=False, repr=False, kw_only=True)
class BaseEncodingRegressor(
    InputParameters,
    TrainingParameters,
    TransferMixin,
    ModelRegressor,
):
    """Base of the models: a core shared by all mice, a readout and a head per mouse.

    A subclass is a dataclass with its own parameters and defaults, and says in `_recipe` which
    modules it has.
    """

    _as_ever: ClassVar[dict[str, Any]] = {"penalty_scale": "absolute"}
    _published_behavior_mode: ClassVar[str] = "channels"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **InputParameters._parameter_constraints,
        **TrainingParameters._parameter_constraints,
    }

    def _from_scratch(
        self, trials: Trials, target: Responses, seed: int, held_out: Part | None = None
    ) -> Start:
        parameters = self._plain_params()
        mode = self._published_behavior_mode
        fitted = describe(parameters, trials, target, published_mode=mode, seed=seed)
        return Start(fitted, *begin(self._recipe(parameters), fitted))

    def _make_run(
        self, start: Start, training: Part, held_out: Part | None, max_epochs: int, name: str
    ) -> Run:
        """Bring model and data to the device, and make the run of their training."""
        return make_run(self._plain_params(), start, training, held_out, max_epochs, name)

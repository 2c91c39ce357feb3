"""Encoding models: from images and behaviour to the responses of each animal's neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin

from v1tlearn._values import plain
from v1tlearn.estimators._build import begin
from v1tlearn.estimators._describe import describe
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._lost_neurons import warn_of_lost_neurons
from v1tlearn.estimators._parameters import (
    InputParameters,
    TrainingParameters,
)
from v1tlearn.estimators._runs import Part, Start, make_run
from v1tlearn.estimators.base_trained import TrainedEstimator
from v1tlearn.estimators.predicting import predict
from v1tlearn.estimators.prediction import PredictionMixin
from v1tlearn.estimators.transferring import TransferMixin
from v1tlearn.nn import EncodingModel
from v1tlearn.training import (
    Run,
)
from v1tlearn.trials import Responses, Trials


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

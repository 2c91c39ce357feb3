"""Encoding models: from images and behaviour to the responses of each animal's neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted

from v1tlearn._values import plain
from v1tlearn.estimators._build import begin
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._describe import describe
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import (
    check_held_out,
    check_parameters,
    check_transfer,
)
from v1tlearn.estimators._lost_neurons import warn_of_lost_neurons
from v1tlearn.estimators._parameters import (
    InputParameters,
    TrainingParameters,
)
from v1tlearn.estimators._progress import shown_log
from v1tlearn.estimators._reading import read_fit, warn_about_tiers
from v1tlearn.estimators._runs import Part, Start, make_run
from v1tlearn.estimators._transfer import adopt_core
from v1tlearn.estimators.base import (
    OnEpoch,
    check_on_epoch,
)
from v1tlearn.estimators.base_trained import TrainedEstimator
from v1tlearn.estimators.predicting import predict
from v1tlearn.estimators.prediction import PredictionMixin
from v1tlearn.nn import EncodingModel
from v1tlearn.training import (
    Run,
    draw_seed,
)
from v1tlearn.trials import Responses, Trials


@dataclass(eq=False, repr=False, kw_only=True)
class BaseEncodingRegressor(
    PredictionMixin,
    MultiOutputMixin,
    RegressorMixin,
    InputParameters,
    TrainingParameters,
    TrainedEstimator,
):
    """Base of the models: a core shared by all mice, a readout and a head per mouse.

    A subclass is a dataclass with its own parameters and defaults, and says in `_recipe` which
    modules it has.
    """

    _as_ever: ClassVar[dict[str, Any]] = {"penalty_scale": "absolute"}
    _rates: ClassVar[bool] = True
    _published_behavior_mode: ClassVar[str] = "channels"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **InputParameters._parameter_constraints,
        **TrainingParameters._parameter_constraints,
    }

    @explained
    def transfer(
        self,
        trials: Trials,
        freeze_core: bool = True,
        *,
        validation: Trials | None = None,
        on_epoch: OnEpoch | None = None,
        **params: Any,
    ) -> Self:
        """Fit the trained core's readouts for new animals.

        Readouts and shifters start afresh and are trained, and so are behaviour networks that
        each mouse has for itself. Statistics for standardising are those of the new animals.

        Parameters
        ----------
        trials : Trials
            Of the new animals, with the behaviour columns of this model and images that have, after
            cropping and resizing, the shape its core takes; `Grayscale` and `ResizeStimuli` help
            where recordings of another laboratory differ.
        freeze_core : bool, default=True
            Keep the core as it is: no gradient, no penalty, no dropout, running statistics of batch
            normalisation. Otherwise it is trained further, with `core_lr` if given.
        validation : Trials, optional
            As in `fit`.
        on_epoch : callable, optional
            As in `fit`.
        **params
            Parameters of the new estimator where they differ, of training, readout or shifter:
            ``lr``, ``core_lr``, ``max_epochs``, ``random_state``...

        Returns
        -------
        estimator
            A new one, fitted; this one stays as it is.

        Raises
        ------
        TypeError
            If trials are no `Trials`, or `freeze_core` is no bool.
        ValueError
            If trials or parameters ask for another core than the trained one.

        References
        ----------
        Lurz et al., "Generalization in data-driven models of primary visual cortex", ICLR, 2021.
        """
        check_is_fitted(self)
        check_transfer(trials, freeze_core, params, known=self._plain_params())
        check_held_out(validation)
        check_on_epoch(on_epoch)
        check_parameters(self.fitted_.parameters, self._plain_params())
        new = clone(self).set_params(**params)
        new._validate_params()
        call = read_fit(trials, None, None, None)
        warn_about_tiers(trials)
        seed = draw_seed(plain(new.random_state))
        training, held_out = new._split(call, validation, seed)
        new._warn_of_no_epochs()
        start = new._from_scratch(*training, seed)
        known = adopt_core(
            start.model, start.fitted, self.module_, self.fitted_, freeze=bool(freeze_core)
        )
        start = start._replace(fitted=known)
        with shown_log(plain(new.verbose)):
            return new._train(training, held_out, seed, start=start, on_epoch=on_epoch)

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

    def _look_back(self, run: Run) -> None:
        warn_of_lost_neurons(run.model, run.data)

    def _knows(self) -> tuple[Fitted, EncodingModel]:
        self._to_device()
        return self.fitted_, self.module_

    def _predict(self, trials: Trials, *, activate: bool = True) -> dict[str, np.ndarray]:
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
        )

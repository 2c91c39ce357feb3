"""The estimator that all encoding models share: validation, fitted state, fit and predict.

Modules come from `nn`, the training loop from `training`; this file decides what goes into them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from v1tlearn._documentation import DocumentationLinkMixin
from v1tlearn._instead import channels_last
from v1tlearn.estimators import _encode, _inputs, _persistence, _tensors
from v1tlearn.estimators._assemble import assemble
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._modules import make_schedule
from v1tlearn.estimators._parameters import EncodingParameters
from v1tlearn.estimators._prediction import PredictionMixin
from v1tlearn.estimators._progress import log_start, progress, run_name, shown_log
from v1tlearn.estimators._transfer import adopt_core
from v1tlearn.metrics.tensors import correlation
from v1tlearn.model_selection import split_by_image
from v1tlearn.training import (
    ConstantSchedule,
    MouseData,
    PoissonObjective,
    Run,
    TrainingSettings,
    draw_seed,
    make_optimizer,
    resolve_device,
    resolve_precision,
    resolve_settings,
    train,
    update_groups,
)
from v1tlearn.training.memory import remedies_named
from v1tlearn.trials import Responses, Trials

logger = logging.getLogger("v1tlearn")

_Part = tuple[Trials, Responses]


@dataclass(eq=False, repr=False, kw_only=True)
class EncodingRegressor(
    PredictionMixin,
    DocumentationLinkMixin,
    MultiOutputMixin,
    RegressorMixin,
    EncodingParameters,
    BaseEstimator,
):
    """Base of the models: a core shared by all mice, a Gaussian readout per mouse.

    A subclass is a dataclass with its own parameters and defaults, and says in `_make_core` which
    core it has.
    """

    _published_behavior_mode: ClassVar[str] = "channels"

    @explained
    def fit(
        self,
        stimuli: Any,
        behaviors: Any = None,
        responses: Any = None,
        mouse_ids: Any = None,
        *,
        image_ids: Any = None,
        positions: Any = None,
        behavior_names: Sequence[str] | None = None,
        validation: Trials | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
    ) -> Self:
        """Fit the model to recordings of one or several mice.

        Parameters
        ----------
        stimuli : Trials, dict, list or ndarray
            `Trials`, which bring everything; or grey levels (trials, channels, height, width) as
            a dict per mouse, a list with one entry per recording, a flat array with one mouse id
            per trial, or an array of one mouse.
        behaviors : dict, list, ndarray or Responses, optional
            (trials, columns) in the form of `stimuli`. After `Trials` this is scikit-learn's `y`:
            the responses, or None to take those of the trials.
        responses : dict, list or ndarray, optional
            (trials, neurons) in the form of `stimuli`, not negative, in any unit; NaN where not
            recorded.
        mouse_ids : sequence, optional
            One id per recording (list) or per trial (flat array).
        image_ids : dict, list or ndarray, optional
            One label per trial; a hash of the image where not given. All repeats of an image, in
            all mice, fall on one side of the validation split.
        positions : dict, list or ndarray, optional
            Cortical positions (neurons, 2 or 3) per mouse, in micrometres.
        behavior_names : sequence of str, optional
            Names of the behaviour columns, see `Trials.from_arrays`.
        validation : Trials, optional
            Trials for the learning-rate schedule and the choice of the best epoch. Without it
            `validation_fraction` of the images are set aside.
        on_epoch : callable, optional
            Called after every epoch with its record, a dict as in `history_`. What it raises ends
            the training and reaches the caller; the best model so far is kept.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If arguments are of the wrong form, shape or content; mouse and variable are named.
        NonFiniteLossError
            If the loss becomes NaN. The best model so far is kept.
        InsufficientMemoryError
            If memory does not suffice; what helps is named. The best model so far is kept.
        """
        call = self._read_fit(
            stimuli,
            behaviors,
            responses,
            mouse_ids,
            image_ids=image_ids,
            positions=positions,
            behavior_names=behavior_names,
        )
        go_on = self.warm_start and hasattr(self, "module_")
        seed = self.seed_ if go_on else draw_seed(self.random_state)
        (trials, target), held_out = self._hold_out(call, validation, seed)
        begin = partial(self._begin, trials, target, seed, go_on=go_on)
        return self._train(trials, target, held_out, self.max_epochs, begin, on_epoch)

    @explained
    def partial_fit(
        self,
        stimuli: Any,
        behaviors: Any = None,
        responses: Any = None,
        mouse_ids: Any = None,
        *,
        image_ids: Any = None,
        positions: Any = None,
        behavior_names: Sequence[str] | None = None,
    ) -> Self:
        """Train for one more epoch on all the trials given, of the same mice.

        Parameters are those of `fit`. The first call starts the model, and the statistics it
        learns stay; there is no validation set and the learning rate is constant.

        Parameters
        ----------
        stimuli : Trials, dict, list or ndarray
        behaviors : dict, list, ndarray or Responses, optional
        responses : dict, list or ndarray, optional
        mouse_ids : sequence, optional
        image_ids : dict, list or ndarray, optional
        positions : dict, list or ndarray, optional
        behavior_names : sequence of str, optional

        Returns
        -------
        self
        """
        call = self._read_fit(
            stimuli,
            behaviors,
            responses,
            mouse_ids,
            image_ids=image_ids,
            positions=positions,
            behavior_names=behavior_names,
        )
        go_on = hasattr(self, "module_")
        seed = self.seed_ if go_on else draw_seed(self.random_state)
        target = _tensors.read_responses(self, call.trials, call.target)
        begin = partial(self._begin, call.trials, target, seed, go_on=go_on)
        return self._train(call.trials, target, None, 1, begin)

    @explained
    def transfer(
        self,
        trials: Trials,
        freeze_core: bool = True,
        *,
        validation: Trials | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
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
        _inputs.check_transfer(self, trials, freeze_core, params)
        _inputs.check_parameters(self)
        new = clone(self).set_params(**params)
        call = new._read_fit(trials, None, None, None)
        seed = draw_seed(new.random_state)
        (trials, target), held_out = new._hold_out(call, validation, seed)

        def begin() -> None:
            """Start the new model with the trained core."""
            new._begin(trials, target, seed, go_on=False)
            adopt_core(new, self, freeze=freeze_core)

        return new._train(trials, target, held_out, new.max_epochs, begin, on_epoch)

    def save(self, path: str | Path) -> None:
        """Save the fitted model: weights, statistics and training state, without pickle.

        Parameters
        ----------
        path : str or Path
            A directory; an earlier model there is replaced when the new one is fully written.
        """
        check_is_fitted(self)
        _persistence.save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Self:
        """Load a model that `save` wrote. Nothing in the files is executed.

        Parameters
        ----------
        path : str or Path
        device : str, default="auto"
            Where the model goes, whatever it was fitted on.

        Returns
        -------
        estimator
            Fitted.

        Raises
        ------
        ValueError
            If the directory holds no such model, or one of another class.
        """
        return _persistence.load(cls, Path(path), device)

    @property
    def history_(self) -> list[dict[str, float]]:
        """One record per epoch: losses, penalty, validation correlation, lr, seconds."""
        return self._noted("history")

    @property
    def best_epoch_(self) -> int:
        """The epoch whose weights were kept, from 1; 0 for the initial weights."""
        return self._noted("best_epoch")

    @property
    def stop_reason_(self) -> str:
        """Why the training ended."""
        return self._noted("stop_reason")

    def _noted(self, name: str) -> Any:
        if "state_" not in self.__dict__:
            raise NotFittedError(f"this {type(self).__name__} is not fitted: it has no {name}_.")
        if name not in self.state_:
            raise AttributeError(f"this model was saved by a version that did not note {name}_.")
        return self.state_[name]

    @property
    def n_iter_(self) -> int:
        """Number of epochs trained."""
        return len(self.history_)

    # ------------------------------------------------------------------ what subclasses provide

    def _make_core(
        self, input_shape: tuple[int, int, int], n_behaviors: int, behavior_mode: str
    ) -> torch.nn.Module:
        raise NotImplementedError(
            f"{type(self).__name__} has no core: a model says in _make_core(input_shape, "
            "n_behaviors, behavior_mode) which Module it has."
        )

    # ----------------------------------------------------------------------------- fitted state

    def _read_fit(self, *arrays: Any, **labels: Any) -> _inputs.Call:
        self._validate_params()
        call = _inputs.read_fit(*arrays, **labels)
        _inputs.warn_about_tiers(call.trials)
        return call

    def _hold_out(
        self, call: _inputs.Call, validation: Trials | None, seed: int
    ) -> tuple[_Part, _Part | None]:
        """Trials and targets to train on, and those of validation where there are any."""
        _inputs.check_held_out(validation)
        trials = call.trials
        target = _tensors.read_responses(self, trials, call.target)
        if validation is not None:
            held_target = _tensors.read_responses(self, validation, validation.responses)
            return (trials, target), (validation, held_target)
        if self.validation_fraction == 0:
            return (trials, target), None
        rows, held_rows = split_trials(trials, self.validation_fraction, seed)
        return (trials[rows], target[rows]), (trials[held_rows], target[held_rows])

    def _begin(self, trials: Trials, target: Responses, seed: int, *, go_on: bool) -> None:
        if go_on:
            _inputs.check_parameters(self)
            _inputs.check_like_fit(self, trials, same_mice=True)
            _tensors.check_targets(target)
        else:
            description = _tensors.describe(self, trials, target)
            try:
                assemble(self, description, seed=seed)
            except ValueError as error:  # a core that such images do not fit
                if hint := channels_last(description["image_shape_"]):
                    raise ValueError(f"{error}{hint}") from error
                raise

    def _train(
        self,
        trials: Trials,
        target: Responses,
        held_out: _Part | None,
        max_epochs: int,
        begin: Callable[[], None],
        on_epoch: Callable[[dict[str, float]], None] | None = None,
    ) -> Self:
        if on_epoch is not None and not callable(on_epoch):
            raise TypeError(
                f"on_epoch is a {type(on_epoch).__name__}: expected a function, which is called "
                "with the record of every epoch."
            )
        with shown_log(self.verbose), torch.inference_mode(False), torch.enable_grad():
            # whatever the caller's mode is
            return self._run(trials, target, held_out, max_epochs, begin, on_epoch)

    def _run(
        self,
        trials: Trials,
        target: Responses,
        held_out: _Part | None,
        max_epochs: int,
        begin: Callable[[], None],
        on_epoch: Callable[[dict[str, float]], None] | None,
    ) -> Self:
        found = self.__dict__.copy()
        try:
            begin()
            self._to_device()
            self.precision_ = resolve_precision(self.precision, self.device_, training=True)
            data = self._bring(trials, target)
            validation = None
            if held_out is not None:
                _inputs.check_like_fit(self, held_out[0], whose="validation")
                _tensors.check_validation(held_out[1])
                validation = self._bring(*held_out)
            schedule = make_schedule(self) if validation is not None else ConstantSchedule()
            objective = PoissonObjective(
                _mean_correlation, loss_scale=self.loss_scale, loss_epsilon=self.loss_epsilon
            )
            optimizer = make_optimizer(
                self.module_,
                self.optimizer,
                lr=self.lr,
                core_lr=self.core_lr,
                betas=self.betas,
                weight_decay=self.weight_decay,
            )
            settings = resolve_settings(self.module_, objective, data, self._settings(max_epochs))
        except Exception:
            self.__dict__ = found  # what cannot be fitted leaves an earlier fit as it was
            raise
        if self.state_["finished"] or held_out is None:
            # go on from the weights that predict, not from those of the last epoch
            self.state_ |= {"model": self.state_["best"], "schedule": None, "average": None}
            self.state_["finished"] = False
        if self.state_["optimizer"] is not None:
            self.state_["optimizer"] = update_groups(self.state_["optimizer"], optimizer)
        name = run_name(type(self).__name__, self.seed_)
        log_start(name, self, data, validation, settings)
        with progress(name, max_epochs, self.verbose, on_epoch, self.state_) as report:
            run = Run(
                self.module_,
                objective,
                optimizer,
                schedule,
                data,
                settings,
                self.state_,
                validation=validation,
                name=name,
            )
            train(run, report)
        return self

    def _bring(self, trials: Trials, target: Responses) -> dict[str, MouseData]:
        where = f"bringing the trials of the mice {trials.mice} to the device {self.device_}"
        with remedies_named(where, ["stream_data=True", "fewer trials or mice at a time"]):
            return _tensors.to_device(self, trials, target)

    def _settings(self, max_epochs: int) -> TrainingSettings:
        return TrainingSettings(
            batch_size=self.batch_size,
            max_epochs=max_epochs,
            joint=self.core_pass == "joint",
            precision=self.precision_,
            deterministic=self.deterministic,
            compile=self.compile,
            micro_batch_size=self.micro_batch_size,
            checkpoint_activations=self.checkpoint_activations,
        )

    def _to_device(self) -> None:
        device = resolve_device(self.device)
        if getattr(self, "device_", None) != device:
            self.module_.to(device)
            self.device_ = device

    def _predict(self, trials: Trials, *, activate: bool = True) -> dict[str, np.ndarray]:
        """Predict every mouse of the trials, block by block, in data units.

        Without `activate` it is the output ahead of the non-linearity, in standardised units.
        """
        self._to_device()
        return _encode.predict(self, trials, activate=activate)

    def _model(self) -> Self:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the weights on the CPU; never the device they were on, see `_persistence`."""
        return _persistence.to_state(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        _persistence.restore_module(self)


def _mean_correlation(
    predictions: torch.Tensor, responses: torch.Tensor, recorded: torch.Tensor | None
) -> torch.Tensor:
    """Validation score of one mouse: mean correlation of the neurons that were recorded."""
    return correlation(predictions, responses, recorded).nanmean()


def split_trials(trials: Trials, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split by image, the same way in whatever order the mice's trials came."""
    by_mouse = np.concatenate([trials.rows(mouse)[0] for mouse in trials.mice])
    rows, held_rows = split_by_image(
        trials.image_ids[by_mouse], fraction, seed, trials.mouse_ids[by_mouse]
    )
    return np.sort(by_mouse[rows]), np.sort(by_mouse[held_rows])

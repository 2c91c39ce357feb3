"""The estimator that all encoding models share: validation, fitted state, fit and predict.

Modules come from `nn`, the training loop from `training`; this file decides what goes into them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from v1tlearn.estimators import _inputs, _persistence, _tensors
from v1tlearn.estimators._modules import (
    make_model,
    make_optimizer,
    make_schedule,
    update_groups,
)
from v1tlearn.estimators._progress import progress
from v1tlearn.metrics import single_trial_correlation
from v1tlearn.metrics.tensors import correlation
from v1tlearn.model_selection import split_by_image
from v1tlearn.training import (
    ConstantSchedule,
    TrainingSettings,
    draw_seed,
    initial_rng,
    isolated_rng,
    new_state,
    numerics,
    predict_mouse,
    resolve_device,
    resolve_precision,
    train,
)
from v1tlearn.trials import Responses, Trials

logger = logging.getLogger("v1tlearn")

_POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_COUNT = Interval(Integral, 1, None, closed="left")
_NATURAL = Interval(Integral, 0, None, closed="left")


@dataclass(eq=False, repr=False, kw_only=True)
class EncodingRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Base of the models: a core shared by all mice, a Gaussian readout per mouse.

    A subclass is a dataclass with its own parameters and defaults, and says in `_make_core` which
    core it has.
    """

    behavior_mode: str = "auto"
    behavior_columns: str | Sequence[str] = "non_pupil"
    shift: str = "readout"
    crop_scale: float = 1.0
    image_size: str | tuple[int, int] = "auto"
    position_network: bool = True
    position_dims: int = 2
    position_hidden_layers: int = 1
    position_hidden_units: int = 30
    gaussian: str = "full"
    init_sigma: float = 0.1
    init_mu_range: float = 0.3
    readout_bias: str = "zero"
    readout_l1: float = 0.0076
    optimizer: str = "adamw"
    lr: float = 0.001647
    core_lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    batch_size: int = 16
    max_epochs: int = 400
    loss_scale: str | float = "sqrt"
    core_pass: str = "joint"
    schedule: str = "plateau"
    lr_patience: int = 10
    lr_factor: float = 0.3
    max_lr_drops: int = 2
    validation_fraction: float = 0.1
    standardize: bool = True
    device: str = "auto"
    precision: str = "auto"
    deterministic: bool = False
    random_state: Any = None
    warm_start: bool = False
    verbose: int = 0

    _published_behavior_mode: ClassVar[str] = "channels"
    _presets: ClassVar[dict[str, dict[str, Any]]] = {}
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "behavior_mode": [StrOptions({"auto", "none", "channels"})],
        "behavior_columns": [StrOptions({"all", "non_pupil"}), list, tuple, np.ndarray],
        "shift": [StrOptions({"none", "readout", "stimulus", "both", "both_behavior"})],
        "crop_scale": [Interval(Real, 0, 1, closed="right")],
        "image_size": [StrOptions({"auto"}), tuple, list],
        "position_network": ["boolean"],
        "position_dims": [Interval(Integral, 2, 3, closed="both")],
        "position_hidden_layers": [_COUNT],
        "position_hidden_units": [_COUNT],
        "gaussian": [StrOptions({"full", "uncorrelated", "isotropic"})],
        "init_sigma": [_POSITIVE],
        "init_mu_range": [Interval(Real, 0, 1, closed="right")],
        "readout_bias": [StrOptions({"zero", "mean", "published_mean", "published_mean_over_std"})],
        "readout_l1": [_NOT_NEGATIVE],
        "optimizer": [StrOptions({"adam", "adamw"})],
        "lr": [_POSITIVE],
        "core_lr": [_POSITIVE, None],
        "betas": [tuple, list],
        "weight_decay": [_NOT_NEGATIVE],
        "batch_size": [_COUNT],
        "max_epochs": [_NATURAL],
        "loss_scale": [StrOptions({"sqrt", "sqrt_recording"}), _POSITIVE],
        "core_pass": [StrOptions({"joint", "per_mouse"})],
        "schedule": [StrOptions({"plateau", "rounds", "constant"})],
        "lr_patience": [_NATURAL],
        "lr_factor": [Interval(Real, 0, 1, closed="right")],
        "max_lr_drops": [_NATURAL],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "standardize": ["boolean"],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "tf32", "bfloat16"})],
        "deterministic": ["boolean"],
        "random_state": ["random_state", np.random.Generator],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
    }

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """Make an estimator that trains as published.

        Parameters
        ----------
        name : str
            A published recipe, see the page "Defaults and presets" of the documentation.
        **overrides
            Parameters that replace those of the preset.

        Returns
        -------
        estimator
            Not fitted.

        Raises
        ------
        ValueError
            If this model has no preset of that name.
        """
        if name not in cls._presets:
            raise ValueError(
                f"{cls.__name__} has no preset {name!r}: expected one of {sorted(cls._presets)}."
            )
        return cls(**{**cls._presets[name], **overrides})

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

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If arguments are of the wrong form, shape or content; mouse and variable are named.
        NonFiniteLossError
            If the loss becomes NaN. The best model so far is kept.
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
        if validation is not None and not isinstance(validation, Trials):
            raise TypeError(
                f"validation is a {type(validation).__name__}: expected Trials, for instance "
                'trials.sel(tier="validation") or Trials.from_arrays(...).'
            )
        go_on = self.warm_start and hasattr(self, "module_")
        seed = self.seed_ if go_on else draw_seed(self.random_state)
        target = call.target.load()
        trials, held_out = call.trials, None
        if validation is not None:
            held_out = (validation, validation.responses)
        elif self.validation_fraction > 0:
            rows, held_rows = _split(trials, self.validation_fraction, seed)
            held_out = (trials[held_rows], target[held_rows])
            trials, target = trials[rows], target[rows]
        return self._train(trials, target, held_out, self.max_epochs, seed=seed, go_on=go_on)

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
        return self._train(call.trials, call.target.load(), None, 1, seed=seed, go_on=go_on)

    def predict(
        self,
        stimuli: Any,
        behaviors: Any = None,
        mouse_ids: Any = None,
        *,
        behavior_names: Sequence[str] | None = None,
    ) -> Any:
        """Predict responses, in the units of the responses given to `fit`.

        Parameters
        ----------
        stimuli : Trials, dict, list or ndarray
            As in `fit`.
        behaviors : dict, list or ndarray, optional
            Needed if the model was fitted with behaviour.
        mouse_ids : sequence, optional
            Which mouse's neurons to predict: one id per recording (list) or per trial (array).
        behavior_names : sequence of str, optional

        Returns
        -------
        Responses, dict, list or ndarray
            In the form asked: `Trials` give `Responses`; a dict a dict under the same keys; a list
            a list; an array of one mouse (trials, neurons); a flat array of several mice a 1-D
            object array of vectors.

        Raises
        ------
        ValueError
            For a mouse the model does not know, other stimuli or behaviour than at `fit`.
        NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        trials, form = _inputs.read_predict(self, stimuli, behaviors, mouse_ids, behavior_names)
        predictions = Responses.from_arrays(self._predict(trials), like=trials)
        return _inputs.answer(predictions, form, one_mouse=len(self.mice_) == 1)

    def score(
        self,
        stimuli: Any,
        behaviors: Any = None,
        responses: Any = None,
        mouse_ids: Any = None,
        sample_weight: Any = None,
    ) -> float:
        """Mean single-trial correlation of predicted and recorded responses.

        Parameters
        ----------
        stimuli, behaviors, responses, mouse_ids
            As in `fit`; behaviour columns as at `fit`.
        sample_weight : ndarray of shape (n_trials,), optional
            Weights of the trials in the correlation.

        Returns
        -------
        float
            Correlation per neuron over trials, mean over neurons, then over mice.

        See Also
        --------
        v1tlearn.metrics.single_trial_correlation
        """
        check_is_fitted(self)
        call = _inputs.read_score(self, stimuli, behaviors, responses, mouse_ids)
        _inputs.check_like_fit(self, call.trials)
        predictions = Responses.from_arrays(self._predict(call.trials), like=call.trials)
        return single_trial_correlation(call.target, predictions, sample_weight=sample_weight)

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
        if "state_" not in self.__dict__:
            raise NotFittedError(f"this {type(self).__name__} is not fitted: it has no history_.")
        return self.state_["history"]

    @property
    def n_iter_(self) -> int:
        """Number of epochs trained."""
        return len(self.history_)

    # ------------------------------------------------------------------ what subclasses provide

    def _make_core(
        self, input_shape: tuple[int, int, int], n_behaviors: int, behavior_mode: str
    ) -> torch.nn.Module:
        raise NotImplementedError

    # ----------------------------------------------------------------------------- fitted state

    def _read_fit(self, *arrays: Any, **labels: Any) -> _inputs.Call:
        self._validate_params()
        call = _inputs.read_fit(*arrays, **labels)
        _inputs.warn_about_tiers(call.trials)
        return call

    def _start_or_go_on(self, trials: Trials, target: Responses, seed: int, *, go_on: bool) -> None:
        if go_on:
            _inputs.check_parameters(self)
            _inputs.check_like_fit(self, trials, same_mice=True)
            _tensors.check_targets(target)
            return
        self.__dict__.pop("feature_names_in_", None)
        self.__dict__.pop("device_", None)
        self.__dict__.update(_tensors.describe(self, trials, target))
        self.seed_ = seed
        self.parameters_ = self.get_params(deep=False)
        rng = initial_rng(seed)
        with isolated_rng(rng, torch.device("cpu")):
            self.module_ = make_model(self)
        self.state_ = new_state(rng)

    @torch.inference_mode(False)  # whatever the caller's mode is
    @torch.enable_grad()
    def _train(
        self,
        trials: Trials,
        target: Responses,
        held_out: Any,
        max_epochs: int,
        *,
        seed: int,
        go_on: bool,
    ) -> Self:
        found = self.__dict__.copy()
        try:
            self._start_or_go_on(trials, target, seed, go_on=go_on)
            self._to_device()
            self.precision_ = resolve_precision(self.precision, self.device_, training=True)
            data = _tensors.to_device(self, trials, target)
            validation = None
            if held_out is not None:
                _inputs.check_like_fit(self, held_out[0])
                _tensors.check_validation(held_out[1])
                validation = _tensors.to_device(self, *held_out)
            schedule = make_schedule(self) if validation is not None else ConstantSchedule()
            optimizer = make_optimizer(self, self.module_)
        except Exception:
            self.__dict__ = found  # what cannot be fitted leaves an earlier fit as it was
            raise
        if self.state_["finished"] or held_out is None:
            # go on from the weights that predict, not from those of the last epoch
            self.state_ |= {"model": self.state_["best"], "schedule": None, "finished": False}
        if self.state_["optimizer"] is not None:
            self.state_["optimizer"] = update_groups(self.state_["optimizer"], optimizer)
        settings = TrainingSettings(
            batch_size=self.batch_size,
            max_epochs=max_epochs,
            loss_scale=self.loss_scale,
            joint=self.core_pass == "joint",
            precision=self.precision_,
            deterministic=self.deterministic,
        )
        with progress(type(self).__name__, max_epochs, self.verbose) as on_epoch:
            train(
                self.module_,
                data,
                settings,
                optimizer,
                schedule,
                self.state_,
                validation=validation,
                score=_mean_correlation,
                on_epoch=on_epoch,
            )
        return self

    def _to_device(self) -> None:
        device = resolve_device(self.device)
        if getattr(self, "device_", None) != device:
            self.module_.to(device)
            self.device_ = device

    def _predict(self, trials: Trials) -> dict[str, np.ndarray]:
        """Predict every mouse of the trials, block by block, in data units."""
        self._to_device()
        self.module_.eval()
        precision = resolve_precision(self.precision, self.device_, training=False)
        out = {}
        with (
            torch.inference_mode(),
            numerics(precision, self.device_, deterministic=self.deterministic),
        ):
            for mouse in trials.mice:
                scale = self.statistics_[mouse]["response_scale"]
                blocks = []
                for block in trials.blocks(mouse):
                    data = _tensors.mouse_data(self, block, mouse, None)
                    rates = predict_mouse(self.module_, mouse, data, self.batch_size, precision)
                    blocks.append(rates.cpu().numpy() * scale)
                out[mouse] = np.concatenate(blocks)
        return out

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.required = False  # Trials bring it
        tags.target_tags.single_output = False
        tags.target_tags.multi_output = True
        tags.non_deterministic = False
        return tags

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


def _split(trials: Trials, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split by image, the same way in whatever order the mice's trials came."""
    by_mouse = np.concatenate([trials.rows(mouse)[0] for mouse in trials.mice])
    rows, held_rows = split_by_image(
        trials.image_ids[by_mouse], fraction, seed, trials.mouse_ids[by_mouse]
    )
    return np.sort(by_mouse[rows]), np.sort(by_mouse[held_rows])

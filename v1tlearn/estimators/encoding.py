"""Encoding models: from images and behaviour to the responses of each animal's neurons.

What a model knows of its animals is in `_fitted`, its modules come from `_build`, data from
`_mouse_data`, the loop from `training`; this file puts them in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import MultiOutputMixin, RegressorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from v1tlearn.estimators import _files
from v1tlearn.estimators._build import Recipe, adopt_core, begin
from v1tlearn.estimators._calls import explained
from v1tlearn.estimators._checkpoints import Checkpoints, marked
from v1tlearn.estimators._describe import check_targets, check_validation, describe
from v1tlearn.estimators._docs import MODULES, OWN, document
from v1tlearn.estimators._fitted import Fitted, Mouse, from_tree, to_tree
from v1tlearn.estimators._like_fit import (
    check_held_out,
    check_like_fit,
    check_parameters,
    check_transfer,
    other_model,
)
from v1tlearn.estimators._mouse_data import bring, read_responses
from v1tlearn.estimators._parameters import (
    GaussianReadoutParameters,
    InputParameters,
    TrainingParameters,
    gaussian_readout,
)
from v1tlearn.estimators._predict import predict
from v1tlearn.estimators._progress import log_start, progress, run_name, shown_log
from v1tlearn.estimators._reading import Call, read_fit, warn_about_tiers
from v1tlearn.estimators.base import (
    OnEpoch,
    Record,
    SavingMixin,
    TrialsEstimator,
    check_on_epoch,
)
from v1tlearn.estimators.prediction import PredictionMixin
from v1tlearn.metrics.tensors import correlation
from v1tlearn.model_selection import split_by_image
from v1tlearn.nn import Core, EluHead, EncodingModel, Head, Readout, SoftplusHead
from v1tlearn.training import (
    ConstantSchedule,
    PlateauSchedule,
    PoissonObjective,
    RoundsSchedule,
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
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials._fingerprint import describe_recording

Part = tuple[Trials, Responses]

_HEADS: dict[Any, Callable[..., Head]] = {"elu": EluHead, "softplus": SoftplusHead}


class Start(NamedTuple):
    """What a training goes on from."""

    fitted: Fitted
    model: EncodingModel
    state: dict[str, Any]


@dataclass(eq=False, repr=False, kw_only=True)
class BaseEncodingRegressor(
    PredictionMixin,
    MultiOutputMixin,
    RegressorMixin,
    InputParameters,
    TrainingParameters,
    SavingMixin,
    TrialsEstimator,
):
    """Base of the models: a core shared by all mice, a readout and a head per mouse.

    A subclass is a dataclass with its own parameters and defaults, and says in `_recipe` which
    modules it has.
    """

    _published_behavior_mode: ClassVar[str] = "channels"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **InputParameters._parameter_constraints,
        **TrainingParameters._parameter_constraints,
    }

    @classmethod
    def _recipe(cls, parameters: Mapping[str, Any]) -> Recipe:
        """Say how the modules are made that these parameters ask for."""
        raise NotImplementedError(f"{cls.__name__} does not say which modules it has.")

    def _fit(
        self,
        call: Call,
        validation: Trials | None,
        on_epoch: OnEpoch | None,
        checkpoint_dir: Path | None,
    ) -> Self:
        go_on = self.warm_start and self.__sklearn_is_fitted__()
        checkpoints = None
        if checkpoint_dir is not None:
            checkpoints = Checkpoints(checkpoint_dir, type(self).__name__)
        seed = self.seed_ if go_on else draw_seed(self.random_state)
        if checkpoints is not None and checkpoints.found is not None:
            seed = checkpoints.found["fitted"]["seed"]
        training, held_out = self._split(call, validation, seed)
        return self._train(
            training, held_out, seed, go_on=go_on, on_epoch=on_epoch, checkpoints=checkpoints
        )

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
        self._validate_params()
        call = read_fit(
            stimuli,
            behaviors,
            responses,
            mouse_ids,
            image_ids=image_ids,
            positions=positions,
            behavior_names=behavior_names,
        )
        warn_about_tiers(call.trials)
        go_on = self.__sklearn_is_fitted__()
        seed = self.seed_ if go_on else draw_seed(self.random_state)
        training = call.trials, self._read(call.trials, call.target)
        with shown_log(self.verbose):
            return self._train(training, None, seed, go_on=go_on, max_epochs=1)

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
        check_transfer(trials, freeze_core, params, known=self.get_params(deep=False))
        check_held_out(validation)
        check_on_epoch(on_epoch)
        check_parameters(self.fitted_.parameters, self.get_params(deep=False))
        new = clone(self).set_params(**params)
        new._validate_params()
        call = read_fit(trials, None, None, None)
        warn_about_tiers(trials)
        seed = draw_seed(new.random_state)
        training, held_out = new._split(call, validation, seed)
        start = new._from_scratch(*training, seed)
        start = _with_core(start, self.fitted_, self.module_, freeze=bool(freeze_core))
        with shown_log(new.verbose):
            return new._train(training, held_out, seed, start=start, on_epoch=on_epoch)

    # ------------------------------------------------------------------------------- training

    def _read(self, trials: Trials, target: Responses) -> Responses:
        return read_responses(self.stream_data, resolve_device(self.device), trials, target)

    def _split(self, call: Call, validation: Trials | None, seed: int) -> tuple[Part, Part | None]:
        """Trials and targets to train on, and those of validation where there are any."""
        target = self._read(call.trials, call.target)
        if validation is not None:
            held_out = validation, self._read(validation, validation.responses)
            return (call.trials, target), held_out
        if self.validation_fraction == 0:
            return (call.trials, target), None
        rows, held_rows = split_trials(call.trials, self.validation_fraction, seed)
        return (
            (call.trials[rows], target[rows]),
            (call.trials[held_rows], target[held_rows]),
        )

    def _from_scratch(self, trials: Trials, target: Responses, seed: int) -> Start:
        parameters = self.get_params(deep=False)
        mode = self._published_behavior_mode
        fitted = describe(parameters, trials, target, published_mode=mode, seed=seed)
        return Start(fitted, *begin(self._recipe(parameters), fitted))

    def _from_fit(self, trials: Trials, target: Responses) -> Start:
        check_parameters(self.fitted_.parameters, self.get_params(deep=False))
        check_like_fit(self.fitted_, self.module_, trials, same_mice=True)
        check_targets(target)
        return Start(self.fitted_, self.module_, dict(self.state_))

    def _train(
        self,
        training: Part,
        held_out: Part | None,
        seed: int,
        *,
        go_on: bool = False,
        start: Start | None = None,
        max_epochs: int | None = None,
        on_epoch: OnEpoch | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> Self:
        """Train on trials that are split: anew, from an earlier fit, from `start`, or a state."""
        left = self.max_epochs if max_epochs is None else max_epochs
        marks = {} if checkpoints is None else self._marks(training, held_out)
        found = None if checkpoints is None else checkpoints.check(marks)
        with torch.inference_mode(False), torch.enable_grad():  # whatever the caller's mode is
            if found is not None:
                start, first = self._opened(found), found["first_epoch"]
                over = start.state["finished"]
                left = 0 if over else max(0, left + first - start.state["epoch"])
            else:
                if start is None:
                    start = (
                        self._from_fit(*training) if go_on else self._from_scratch(*training, seed)
                    )
                first = start.state["epoch"]
                if start.state["finished"] or held_out is None:
                    # go on from the weights that predict, not from those of the last epoch
                    again = {"model": start.state["best"], "schedule": None, "finished": False}
                    start.state.update(again)
            run = self._prepare(start, training, held_out, left)
            # Everything that can be refused was refused; from here on the model counts as fitted.
            self.fitted_, self.module_, self.state_ = start
            self.device_, self.precision_ = resolve_device(self.device), run.settings.precision
            if found is not None and not left:
                return self
            log_start(repr(self), self.fitted_, run)
            with progress(run.name, left, self.verbose, on_epoch, run.state) as report:

                def after_epoch(record: Record) -> None:
                    """Keep the state, then tell."""
                    if checkpoints is not None:
                        whole = {"marks": marks, "first_epoch": first}
                        checkpoints.write(run.state["epoch"], self._content() | whole)
                    report(record)

                train(run, after_epoch)
        return self

    def _prepare(self, start: Start, training: Part, held_out: Part | None, max_epochs: int) -> Run:
        """Bring model and data to the device, and make the run; the estimator stays as it is."""
        fitted, model, state = start
        device = resolve_device(self.device)
        model.to(device)
        to_device = partial(
            bring,
            fitted,
            device=device,
            stream=self.stream_data,
            count_recording=self.loss_scale == "sqrt_recording",
        )
        data, validation = to_device(*training), None
        if held_out is not None:
            check_like_fit(fitted, model, held_out[0], whose="validation")
            check_validation(held_out[1])
            validation = to_device(*held_out)
        settings = TrainingSettings(
            batch_size=self.batch_size,
            max_epochs=max_epochs,
            joint=self.core_pass == "joint",
            precision=resolve_precision(self.precision, device, training=True),
            deterministic=self.deterministic,
            compile=self.compile,
            micro_batch_size=self.micro_batch_size,
            checkpoint_activations=self.checkpoint_activations,
            ema_decay=self.ema_decay,
        )
        objective = PoissonObjective(
            _mean_correlation, loss_scale=self.loss_scale, loss_epsilon=self.loss_epsilon
        )
        optimizer = make_optimizer(
            model,
            self.optimizer,
            lr=self.lr,
            core_lr=self.core_lr,
            betas=self.betas,
            weight_decay=self.weight_decay,
        )
        if state["optimizer"] is not None:
            state["optimizer"] = update_groups(state["optimizer"], optimizer)
        return Run(
            model,
            objective,
            optimizer,
            self._schedule() if validation is not None else ConstantSchedule(),
            data,
            resolve_settings(model, objective, data, settings),
            state,
            validation=validation,
            name=run_name(type(self).__name__, fitted.seed),
        )

    def _schedule(self) -> ConstantSchedule | PlateauSchedule | RoundsSchedule:
        if self.schedule == "constant":
            return ConstantSchedule()
        if self.schedule == "rounds":
            return RoundsSchedule(self.lr_patience, self.lr_factor, self.max_lr_drops + 1)
        return PlateauSchedule(self.lr_patience, self.lr_factor, self.max_lr_drops)

    def _marks(self, training: Part, held_out: Part | None) -> dict[str, dict[str, str]]:
        """What tells this fit from others."""
        return {
            "parameter": marked(self.get_params(deep=False)),
            "recording of mouse": describe_recording(*training),
            "validation of mouse": describe_recording(*held_out) if held_out else {},
        }

    # ------------------------------------------------------------------------- what is known

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
            deterministic=self.deterministic,
            activate=activate,
        )

    def _to_device(self) -> None:
        device = resolve_device(self.device)
        if getattr(self, "device_", None) != device:
            self.module_.to(device)
            self.device_ = device

    def __sklearn_is_fitted__(self) -> bool:
        return "fitted_" in self.__dict__

    @property
    def history_(self) -> list[Record]:
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
        return self.state_[name]

    @property
    def n_iter_(self) -> int:
        """Number of epochs trained."""
        return len(self.history_)

    # ------------------------------------------------------------------------- how it is kept

    def _content(self) -> dict[str, Any]:
        parameters = self.get_params(deep=False)
        if isinstance(parameters["random_state"], np.random.RandomState | np.random.Generator):
            parameters["random_state"] = self.seed_
        known = {**to_tree(self.fitted_), "parameters": {**self.fitted_.parameters}}
        if not isinstance(known["parameters"].get("random_state"), int | None):
            known["parameters"]["random_state"] = self.seed_
        return {
            "parameters": {**parameters, "device": "auto"},
            "fitted": known,
            "weights": self._kept_weights(),
            "state": self.state_,
            "precision": self.precision_,
        }

    @classmethod
    def _restore(cls, content: dict[str, Any], device: str) -> Self:
        estimator = cls(**{**content["parameters"], "device": device})
        start = estimator._opened(content)
        estimator.fitted_, estimator.module_, estimator.state_ = start
        estimator.precision_ = content["precision"]
        estimator._to_device()
        return estimator

    @classmethod
    def _opened(cls, content: Mapping[str, Any]) -> Start:
        """Make what a training goes on from of what `_content` gave."""
        fitted = from_tree(content["fitted"])
        model, _ = begin(cls._recipe(fitted.parameters), fitted)
        model.load_state_dict(content["weights"])
        return Start(fitted, model.eval(), content["state"])

    def _kept_weights(self) -> dict[str, torch.Tensor]:
        """Weights that predict: of an epoch that is under way, the best so far."""
        under_way = self.state_["stop_reason"] is None and self.state_["best"] is not None
        return dict(self.state_["best"] if under_way else self.module_.state_dict())

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the weights on the CPU; never the device they were on."""
        state = super().__getstate__()
        if not self.__sklearn_is_fitted__():
            return state
        state = {name: v for name, v in state.items() if name != "device_"}
        kept = _files.on_cpu({"module_": self._kept_weights(), "state_": self.state_})
        return state | kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if not self.__sklearn_is_fitted__():
            return
        model, _ = begin(self._recipe(self.fitted_.parameters), self.fitted_)
        model.load_state_dict(self.module_)
        self.module_ = model.eval()


def _of_fitted(name: str, read: Callable[[Fitted], Any], text: str) -> property:
    """An attribute of fitted models, which is there once they are."""

    def get(estimator: BaseEncodingRegressor) -> Any:
        """Read it."""
        if not estimator.__sklearn_is_fitted__():
            raise NotFittedError(
                f"this {type(estimator).__name__} is not fitted: it has no {name}."
            )
        return read(estimator.fitted_)

    return property(get, doc=text)


def _of_mice(read: Callable[[Mouse], Any]) -> Callable[[Fitted], dict[str, Any]]:
    return lambda fitted: {name: read(mouse) for name, mouse in fitted.mice.items()}


def _named_features(fitted: Fitted) -> np.ndarray:
    if not fitted.core_columns:
        raise AttributeError("no behaviour enters the core: there are no feature_names_in_.")
    return np.asarray(fitted.core_columns, dtype=object)


for _name, _read, _text in (
    ("mice_", lambda f: list(f.mice), "The mice, in the order of the recordings."),
    ("n_neurons_", _of_mice(lambda m: m.n_neurons), "Neurons per mouse."),
    ("neurons_", _of_mice(lambda m: m.labels), "Per mouse the labels of its neurons."),
    ("positions_", _of_mice(lambda m: m.position), "Cortical positions per mouse."),
    ("statistics_", _of_mice(lambda m: m.statistics), "Per mouse what data are scaled with."),
    ("behavior_names_", _of_mice(lambda m: m.behavior_names), "Behaviour columns per mouse."),
    ("used_columns_", _of_mice(lambda m: m.used_columns), "Those that the model needs."),
    ("image_shape_", lambda f: f.image_shape, "Channels, height and width of the stimuli."),
    ("behavior_mode_", lambda f: f.behavior_mode, "How behaviour enters."),
    ("core_columns_", lambda f: list(f.core_columns), "Behaviour that enters the core."),
    ("columns_assumed_", lambda f: f.columns_assumed, "Whether nobody told the columns."),
    ("core_frozen_", lambda f: f.core_frozen, "Whether the core stays as it is."),
    ("parameters_", lambda f: dict(f.parameters), "Parameters that the model was built with."),
    ("seed_", lambda f: f.seed, "What was drawn from `random_state`."),
    ("feature_names_in_", _named_features, "Behaviour that enters the core."),
):
    setattr(BaseEncodingRegressor, _name, _of_fitted(_name, _read, _text))


@document(architecture=MODULES, behavior_mode=OWN)
@dataclass(eq=False, repr=False)
class EncodingRegressor(GaussianReadoutParameters, BaseEncodingRegressor):
    """A core of your own, with readouts, heads and all that a model needs beside it.

    {groups}

    Parameters
    ----------
    {parameters}

    {attributes}

    See Also
    --------
    CNNRegressor, V1TRegressor
    v1tlearn.nn.Core : What a core has to fulfil.

    Notes
    -----
    `save` notes classes by name, with the arguments of ``functools.partial``. `load` finds classes
    that are imported already, and imports nothing itself. Functions cannot be saved, only pickled.

    Examples
    --------
    >>> import torch, v1tlearn as v1
    >>> class Energy(v1.nn.Core):
    ...     def __init__(self, input_shape, n_pairs=4):
    ...         super().__init__(input_shape)
    ...         channels, height, width = input_shape
    ...         self.output_shape = (n_pairs, height - 8, width - 8)
    ...         self.filters = torch.nn.Conv2d(channels, 2 * n_pairs, 9)
    ...     def forward(self, images, behaviors=None, sizes=None):
    ...         even, odd = self.filters(images).chunk(2, dim=1)
    ...         return (even**2 + odd**2 + 1e-6).sqrt()
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.EncodingRegressor(core=Energy, max_epochs=2, random_state=0)
    >>> est.fit(trials.sel(tier="train")).predict(trials.sel(tier="test"))["B"].shape
    (12, 5)
    """

    core: Callable[..., Core]
    readout: str | Callable[..., Readout] = "gaussian"
    head: str | Callable[..., Head] = "elu"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseEncodingRegressor._parameter_constraints,
        **GaussianReadoutParameters._parameter_constraints,
        "behavior_mode": [StrOptions({"auto", "none", "channels", "core"})],
        "core": [callable],
        "readout": [StrOptions({"gaussian"}), callable],
        "head": [StrOptions(set(_HEADS)), callable],
    }

    @classmethod
    def _recipe(cls, parameters: Mapping[str, Any]) -> Recipe:
        readout, head = parameters["readout"], parameters["head"]
        if isinstance(readout, str):
            readout = gaussian_readout(parameters)
        return Recipe(parameters["core"], readout, _HEADS.get(head, head))


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


def _with_core(start: Start, fitted: Fitted, model: EncodingModel, *, freeze: bool) -> Start:
    """Give a model that begins the core of a trained one."""
    new = start.fitted
    ours, theirs = (
        (new.behavior_mode, new.core_columns),
        (fitted.behavior_mode, fitted.core_columns),
    )
    if ours != theirs:
        raise ValueError(
            f"the core takes behaviour by {theirs[0]!r} with the columns {theirs[1]}, but with the "
            f"trials of {list(new.mice)} it would be {ours[0]!r} with {ours[1]}. Give these "
            "animals the same behaviour columns, or choose behavior_columns and behavior_mode "
            "alike."
        )
    core, source = start.model.core, model.core
    if core.input_shape != source.input_shape:
        raise ValueError(
            f"the core was trained on images of {source.input_shape} (channels with planes of "
            f"behaviour, height, width, after cropping and resizing), those of the new trials are "
            f"{core.input_shape}. Bring them to one form: Grayscale makes one channel of several, "
            "ResizeStimuli or image_size=(height, width) change the size."
        )
    try:
        adopt_core(start.model, model)
    except ValueError as error:
        changed = other_model(fitted.parameters, new.parameters)
        raise ValueError(
            f"with the parameters that changed ({', '.join(sorted(changed))}) {error} Change only "
            "parameters of readout, shifter and training, or fit anew."
        ) from error
    if freeze:
        start.model.core.freeze()
    return start._replace(fitted=replace(new, core_frozen=freeze))

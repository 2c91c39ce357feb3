"""The minimodels of Du et al. (2025): a tiny network for each neuron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from hashlib import sha256
from numbers import Integral, Real
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import Interval, StrOptions

from v1tlearn._values import plain
from v1tlearn._warn import warn
from v1tlearn.estimators._architectures import MINIMODEL
from v1tlearn.estimators._build import Recipe, begin
from v1tlearn.estimators._describe import describe
from v1tlearn.estimators._docs import FACTORIZED, document
from v1tlearn.estimators._fitted import Mouse
from v1tlearn.estimators._neuron_runs import make_neuron_run, silence, warn_of_awoken, warn_of_lost
from v1tlearn.estimators._parameters import (
    WIDTH,
    FactorizedReadoutParameters,
    InputParameters,
    TrainingParameters,
)
from v1tlearn.estimators._ranges import warn_of_other_ranges
from v1tlearn.estimators._runs import Part, Start
from v1tlearn.estimators._telling import OnEpoch
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.estimators.full_model import MINIMODEL_2025 as FULL_MODEL_2025
from v1tlearn.estimators.full_model import FullModelRegressor
from v1tlearn.nn import FirstConvolution, MinimodelReadout
from v1tlearn.training import NeuronRun, shared_seed
from v1tlearn.trials import Responses, Trials

_USED = 0.01  # absolute weight of channels that count as used, as published
_SEEN = ("crop_scale", "image_size", "standardize")  # what decides on the pixels that filters see
_ALIKE = 0.5  # standard deviations by which images of different mice may differ without a word
_OWN = {"weight_decay", "warm_start", "random_state", "core_pass", "selection"}
_NOT_SHARED = ("readout", "core_weight_decay", "core_pass")

# The training of Du et al. (2025).
MINIMODEL_2025: dict[str, Any] = {
    **{name: value for name, value in FULL_MODEL_2025.items() if name not in _NOT_SHARED},
    "channel_init": 0.2,
    "channel_hoyer": 0.03,
    "channel_weight_decay": 0.2,
    "weight_decay": 0.1,
}


@document(architecture=MINIMODEL, readout=FACTORIZED)
@dataclass(eq=False, repr=False, kw_only=True)
class MinimodelRegressor(FactorizedReadoutParameters, BaseEncodingRegressor):
    """A tiny model for every neuron, on the first convolution of a full model.

    The minimodels of Du et al. (2025), which explain about as much of a neuron as the full model
    does: normalisation, ReLU and pooling of the 16 shared maps, a depth-separable convolution with
    64 channels, and a factorised readout whose penalty leaves few channels. The neurons are trained
    at once, each by its own schedule, as if one by one on the same batches.

    {groups}

    Parameters
    ----------
    {parameters}

    {attributes}
    n_channels_used_ : dict of str to ndarray of shape (n_neurons,)
        Per mouse how many channels of the second layer each neuron reads by more than 0.01.
    best_epochs_ : dict of str to ndarray of shape (n_neurons,)
        Per mouse the epoch whose weights were kept of each neuron; 0 for the initial ones.

    See Also
    --------
    FullModelRegressor

    Notes
    -----
    Scores of several neurons in `history_` are means; those of neurons that are over are those of
    their best weights. ``n_trained`` counts the others. Neurons that never respond in the training
    trials are not trained, and predicted to stay silent.

    References
    ----------
    Du et al., "Towards a simplified model of primary visual cortex", 2025.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> full = v1.FullModelRegressor(
    ...     channels=(4, 8), kernels=(9, 5), max_epochs=2, random_state=0)
    >>> est = v1.MinimodelRegressor(
    ...     full_model=full.fit(trials.sel(tier="train")), hidden_channels=6, hidden_kernel=5,
    ...     max_epochs=2, random_state=0)
    >>> est.fit(trials.sel(tier="train")).predict(trials.sel(tier="test"))["B"].shape
    (12, 5)
    """

    full_model: BaseEncodingRegressor | None = None
    hidden_channels: int = 64
    hidden_kernel: int = 9
    batch_norm_momentum: float = 0.1
    neurons_at_once: str | int = "auto"
    channel_init: float = 0.2
    channel_hoyer: float = 0.03
    space_weight_decay: float | None = 1.0
    channel_weight_decay: float | None = 0.2
    weight_decay: float = 0.1
    shift: str = "none"
    lr: float = 1e-3
    batch_size: int = 100
    max_epochs: int = 190
    loss_scale: str | float = "per_neuron"
    penalty_scale: str = "absolute"
    schedule: str = "periods"
    lr_patience: int = 5
    lr_factor: float = 1 / 3
    selection: str = "variance_explained"

    _presets: ClassVar[dict[str, dict[str, Any]]] = {"minimodel2025": MINIMODEL_2025}
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseEncodingRegressor._parameter_constraints,
        **FactorizedReadoutParameters._parameter_constraints,
        "full_model": [BaseEncodingRegressor, FrozenEstimator, None],
        "hidden_channels": [WIDTH],
        "hidden_kernel": [WIDTH],
        "batch_norm_momentum": [Interval(Real, 0, 1, closed="right")],
        "neurons_at_once": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        # what has no meaning for neurons that share no trained weights is refused
        "shift": [StrOptions({"none"})],
        "core_lr": [None],
        "loss_scale": [StrOptions({"per_neuron", "per_recorded"})],
        "penalty_scale": [StrOptions({"absolute"})],
        "core_pass": [StrOptions({"joint"})],
        "schedule": [StrOptions({"periods", "plateau", "reduce", "constant"})],
        "clip_norm": [None],
        "ema_decay": [None],
        "precision": [StrOptions({"auto", "float32", "tf32"})],
        "compile": [StrOptions({"auto"}), "boolean"],
        "micro_batch_size": [StrOptions({"auto"})],
    }

    @property
    def n_channels_used_(self) -> dict[str, np.ndarray]:
        """Per mouse how many channels of the second layer each neuron reads."""
        return {
            mouse: (readout.reading.channels.detach().abs() > _USED).any(1).sum(1).cpu().numpy()
            for mouse, readout in zip(self.mice_, self.module_.readouts, strict=True)
        }

    @property
    def best_epochs_(self) -> dict[str, np.ndarray]:
        """Per mouse the epoch whose weights were kept of each neuron."""
        known = (self.state_["schedule"] or {}).get("neurons", {})
        return {
            mouse: np.array(known[mouse]["best_epoch"] if mouse in known else [0] * n)
            for mouse, n in self.n_neurons_.items()
        }

    @classmethod
    def _recipe(cls, parameters: Mapping[str, Any]) -> Recipe:
        layer = dict(parameters["first_layer"])
        names = ("hidden_channels", "hidden_kernel", "batch_norm_momentum")
        own = {name: parameters[name] for name in names} | {"pool": layer.pop("pool")}
        reading = FactorizedReadoutParameters._parameter_constraints
        own["factorized"] = {name: parameters[name] for name in reading}
        readout = partial(MinimodelReadout, **own)
        return Recipe(partial(FirstConvolution, **layer), readout)

    def transfer(
        self,
        trials: Trials,
        freeze_core: bool = True,
        *,
        validation: Trials | None = None,
        on_epoch: OnEpoch | Sequence[OnEpoch] | None = None,
        **params: Any,
    ) -> Self:
        """Fit minimodels for new animals on the same first convolution.

        Parameters
        ----------
        trials : Trials
            As in the transfer of other models.
        freeze_core : bool, default=True
            There is no other way.
        validation : Trials, optional
            As in `fit`.
        on_epoch : callable or sequence of callables, optional
            As in `fit`.
        **params
            Parameters of the new estimator where they differ.

        Returns
        -------
        estimator
            A new one, fitted; this one stays as it is.

        Raises
        ------
        TypeError, ValueError
            As in the transfer of other models; and if the convolution is to be trained.
        """
        if freeze_core is False:
            raise ValueError(
                "freeze_core=False: minimodels do not train the convolution that they share. Fit "
                "or transfer the full model, and give it as full_model."
            )
        params = {"full_model": self, **params}
        return super().transfer(
            trials, freeze_core, validation=validation, on_epoch=on_epoch, **params
        )

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """Make an estimator that trains as published, on a full model that does so, too."""
        estimator = super().from_preset(name, **overrides)
        if "full_model" not in overrides:
            estimator.full_model = FullModelRegressor.from_preset(name, **_alike(estimator))
        return estimator

    # ------------------------------------------------------------------------------- training

    def _from_scratch(
        self, trials: Trials, target: Responses, seed: int, held_out: Part | None = None
    ) -> Start:
        shared = self._shared((trials, target), held_out, seed)
        known = [mouse for mouse in trials.mice if mouse in shared.fitted_.mice]
        if known:  # which are scaled as there
            warn_of_other_ranges(shared.fitted_, trials.sel(mouse_id=known))
        parameters = self._plain_params() | {"first_layer": first_layer(shared)}
        del parameters["full_model"]
        mode = self._published_behavior_mode
        fitted = describe(parameters, trials, target, published_mode=mode, seed=seed)
        fitted = replace(fitted, core_frozen=True, mice=_scaled_like(shared, fitted.mice))
        start = Start(fitted, *begin(self._recipe(parameters), fitted))
        filters = shared.module_.core.filters.detach()
        ours = cast(FirstConvolution, start.model.core).filters
        if ours.shape != filters.shape:
            raise ValueError(
                f"the first convolution of full_model takes {filters.shape[1]} channels, those of "
                f"the images and planes of behaviour {shared.fitted_.core_columns}; here they are "
                f"{ours.shape[1]}, with {fitted.core_columns}. Choose behavior_mode and "
                "behavior_columns as in full_model, and images of as many channels."
            )
        with torch.no_grad():
            ours.copy_(filters)
        silence(start.model, fitted)
        return start

    def _from_fit(self, trials: Trials, target: Responses) -> Start:
        given = _inner(self.full_model)
        if given is not None and given.__sklearn_is_fitted__():
            own, theirs = (m.module_.core.filters.detach().cpu() for m in (self, given))
            if not torch.equal(own, theirs):
                raise ValueError(
                    "these parameters changed since fit: full_model, whose first convolution is "
                    "not the one that these minimodels read. A fitted model can only go on with "
                    "the one it was built with: set it back, or fit anew with warm_start=False."
                )
        start = super()._from_fit(trials, target)
        warn_of_awoken(start.fitted, target)
        return start

    def _shared(self, training: Part, held_out: Part | None, seed: int) -> BaseEncodingRegressor:
        """Give the model whose first convolution is shared, fitted to these trials if need be."""
        given = _inner(self.full_model)
        if given is None:
            given = FullModelRegressor(**_alike(self))
        _check(given, self)
        if given.__sklearn_is_fitted__():
            return given
        full = clone(given)
        full._validate_params()
        own = plain(full.random_state)
        return full._train(training, held_out, seed if own is None else shared_seed(own))

    def _make_run(
        self, start: Start, training: Part, held_out: Part | None, max_epochs: int, name: str
    ) -> NeuronRun:
        if self.compile is True:
            raise ValueError(
                "compile=True: of minimodels nothing is compiled, since the convolution that they "
                "share is computed once. Use compile='auto'."
            )
        return make_neuron_run(self._plain_params(), start, training, held_out, max_epochs, name)

    def _train(self, *args: Any, **how: Any) -> Self:
        super()._train(*args, **how)
        warn_of_lost(self.state_)
        return self

    def _marks(
        self, training: Part, held_out: Part | None, noted: Mapping[str, Any]
    ) -> dict[str, dict[str, str]]:
        marks, given = super()._marks(training, held_out, noted), _inner(self.full_model)
        if given is not None and given.__sklearn_is_fitted__():
            filters = given.module_.core.filters.detach().cpu().numpy()
            told = f" with filters {sha256(filters.tobytes()).hexdigest()[:16]}"
            marks["parameter"]["full_model"] += told
        return marks

    # ------------------------------------------------------------------------- how it is kept

    def _content(self) -> dict[str, Any]:
        return super()._content() | {"full_model": _to_tree(self.full_model)}

    @classmethod
    def _restore(cls, content: dict[str, Any], device: str) -> Self:
        estimator = super()._restore(content, device)
        estimator.full_model = _from_tree(content["full_model"], device)
        return estimator


def first_layer(estimator: FullModelRegressor | MinimodelRegressor) -> dict[str, int]:
    """Geometry of the first convolution of a fitted full model, or of minimodels.

    Parameters
    ----------
    estimator : FullModelRegressor or MinimodelRegressor
        Fitted.

    Returns
    -------
    dict of str to int
        ``n_channels``, ``kernel``, ``stride`` and ``pool``.
    """
    if isinstance(estimator, MinimodelRegressor):
        return dict(estimator.parameters_["first_layer"])
    stride = 2 if estimator.parameters_["pooling"] == "stride" else 1
    n_channels, _, kernel, _ = estimator.module_.core.filters.shape
    return {"n_channels": n_channels, "kernel": kernel, "stride": stride, "pool": 2 // stride}


def _check(full: Any, own: MinimodelRegressor) -> None:
    """Check, ahead of any training, that a full model has a convolution to share."""
    fitted = full.__sklearn_is_fitted__()
    if isinstance(full, MinimodelRegressor) and not fitted:
        raise ValueError("full_model is a MinimodelRegressor that is not fitted: fit it first.")
    if not isinstance(full, FullModelRegressor | MinimodelRegressor):
        raise ValueError(
            f"full_model is a {type(full).__name__}: expected a FullModelRegressor, or a "
            "MinimodelRegressor that is fitted."
        )
    known = full.parameters_ if fitted else full.get_params(deep=False)
    if known.get("pooling") == "mean":
        raise ValueError(
            "full_model has pooling='mean': minimodels pool by the maximum. Fit it with "
            "pooling='max', or 'stride'."
        )
    names = _SEEN if fitted else (*_SEEN, "behavior_mode", "behavior_columns")
    other = [n for n in names if not np.array_equal(known[n], getattr(own, n))]
    if other:
        told = ", ".join(f"{n} (there {known[n]!r}, here {getattr(own, n)!r})" for n in other)
        raise ValueError(
            f"full_model sees other images: {told}. Its filters are made for those: give both the "
            "same parameters."
        )


def _scaled_like(full: BaseEncodingRegressor, mice: Mapping[str, Mouse]) -> dict[str, Mouse]:
    """Scale what filters see of each mouse as the full model did, where that knows the mouse."""
    out = dict(mice)
    for name, mouse in mice.items():
        own, known = mouse.statistics, full.fitted_.mice.get(name)
        if known is not None:
            kept = ["image_mean", "image_std"]
            if known.behavior_names == mouse.behavior_names:
                kept += ["behavior_shift", "behavior_scale"]
            theirs = {key: known.statistics[key] for key in kept if key in known.statistics}
            out[name] = replace(mouse, statistics=own | theirs)
            continue
        pairs = [
            (m.statistics["image_mean"], m.statistics["image_std"])
            for m in full.fitted_.mice.values()
        ]
        mean, std = own["image_mean"], own["image_std"]
        if not any(max(abs(mean - m), abs(std - s)) <= _ALIKE * min(s, std) for m, s in pairs):
            warn(
                f"mouse {name!r} is not among those of full_model, {list(full.fitted_.mice)}: its "
                f"images are scaled with their own mean and standard deviation, ({mean:.4g}, "
                f"{std:.4g}), those that the filters were made for with "
                f"({pairs[0][0]:.4g}, {pairs[0][1]:.4g}). Call the mouse as there if it is the "
                "same, or scale images yourself and set standardize=False in both."
            )
    return out


def _alike(estimator: MinimodelRegressor) -> dict[str, Any]:
    """Parameters of inputs and training that a full model is to share with minimodels."""
    names = {f.name for kind in (InputParameters, TrainingParameters) for f in fields(kind)}
    names = names - _OWN | {"batch_norm_momentum"}
    return {name: getattr(estimator, name) for name in names}


def _inner(full_model: Any) -> Any:
    return full_model.estimator if isinstance(full_model, FrozenEstimator) else full_model


def _to_tree(full_model: Any) -> dict[str, Any] | None:
    """Turn the parameter into plain values and arrays."""
    if full_model is None:
        return None
    inner = _inner(full_model)
    fitted = inner.__sklearn_is_fitted__()
    parameters = inner.get_params(deep=False) | {"device": str(inner.device)}
    return {
        "class": type(inner).__name__,
        "frozen": inner is not full_model,
        "content": inner._content() if fitted else None,
        "parameters": None if fitted else parameters,
    }


def _from_tree(tree: Mapping[str, Any] | None, device: str) -> Any:
    """Turn what `_to_tree` gave into the parameter."""
    if tree is None:
        return None
    kinds = {kind.__name__: kind for kind in (FullModelRegressor, MinimodelRegressor)}
    if tree["class"] not in kinds:
        raise ValueError(f"its full_model is of the unknown class {tree['class']}")
    kind = kinds[tree["class"]]
    if tree["content"] is None:
        inner = kind._with(tree["parameters"])
    else:
        inner = kind._restore(tree["content"], device)
    return FrozenEstimator(inner) if tree["frozen"] else inner

"""What callers hand to fit, predict and score, brought to `Trials`; and answers in their form."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from v1tlearn._guesses import guess, in_words
from v1tlearn._instead import (
    channels_last,
    check_form,
    refuse_no_trials,
    trials_instead,
)
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials._call_forms import CallForm
from v1tlearn.trials._selection import units_differ

if TYPE_CHECKING:
    from v1tlearn.estimators.base import EncodingRegressor


# Parameters of training alone: a fitted model may go on with others.
_MAY_CHANGE = frozenset(
    {"optimizer", "lr", "core_lr", "betas", "weight_decay", "batch_size", "max_epochs"}
    | {"loss_scale", "loss_epsilon", "core_pass"}
    | {"schedule", "lr_patience", "lr_factor", "max_lr_drops"}
    | {"validation_fraction", "device", "precision", "deterministic", "random_state"}
    | {"compile", "micro_batch_size", "checkpoint_activations", "stream_data"}
    | {"warm_start", "verbose"}
)


_WORDS = {
    "freeze": ("freeze_core",),
    "frozen": ("freeze_core",),
    "validation_data": ("validation",),
}


@dataclass(frozen=True)
class Call:
    """Trials and, in the same order, their responses."""

    trials: Trials
    target: Responses


def read_fit(
    stimuli: Any,
    behaviors: Any,
    responses: Any,
    mouse_ids: Any,
    **labels: Any,
) -> Call:
    """Read the arguments of `fit`: `Trials` mean ``(X, y)``, anything else four arrays."""
    if isinstance(stimuli, Trials):
        given = [name for name, value in labels.items() if value is not None]
        return _read_trials(stimuli, behaviors, responses, mouse_ids, given)
    _refuse_other_forms(stimuli, behaviors, responses, "fit")
    trials = Trials.from_arrays(stimuli, behaviors, responses, mouse_ids, **labels)
    return Call(trials, trials.responses)


def read_score(
    estimator: EncodingRegressor, stimuli: Any, behaviors: Any, responses: Any, mouse_ids: Any
) -> Call:
    """Read the arguments of `score`."""
    if isinstance(stimuli, Trials):
        return _read_trials(stimuli, behaviors, responses, mouse_ids, [], "score")
    _refuse_other_forms(stimuli, behaviors, responses, "score")
    mouse_ids = _only_mouse(estimator, stimuli, mouse_ids)
    trials, _ = Trials._from_call(
        stimuli,
        behaviors,
        responses,
        mouse_ids,
        unnamed=_names_at_fit(estimator),
        n_neurons=estimator.n_neurons_,
    )
    return Call(trials, trials.responses)


def read_predict(
    estimator: EncodingRegressor,
    stimuli: Any,
    behaviors: Any,
    mouse_ids: Any,
    behavior_names: Sequence[str] | None,
) -> tuple[Trials, CallForm | None]:
    """Read the arguments of `predict`; without `CallForm` they were `Trials`."""
    if isinstance(stimuli, Trials):
        if any(a is not None for a in (behaviors, mouse_ids, behavior_names)):
            raise TypeError("Trials bring behaviour, names and mouse ids: call predict(trials).")
        trials, form = stimuli, None
    else:
        refuse_no_trials(stimuli, "predict({})", tables=False)
        mouse_ids = _only_mouse(estimator, stimuli, mouse_ids)
        trials, form = Trials._from_call(
            stimuli,
            behaviors,
            None,
            mouse_ids,
            behavior_names=behavior_names,
            unnamed=_names_at_fit(estimator),
        )
    check_like_fit(estimator, trials)
    return trials, form


def answer(predictions: Responses, form: CallForm | None, *, one_mouse: bool) -> Any:
    """Give predictions in the form in which the trials came."""
    if form is None:
        return predictions
    if form.kind == "dict":
        return {key: predictions.get(mouse) for mouse, key in form.keys.items()}
    if form.kind == "list":
        return [predictions.get(mouse) for mouse in form.keys]
    if form.kind == "single" or one_mouse:
        return predictions.get(next(iter(form.keys)))
    return np.asarray(predictions)


def warn_about_tiers(trials: Trials) -> None:
    """Warn where trials that are meant for judging a model are used to fit it."""
    found = sorted(set(trials.tiers.tolist()) & {"validation", "test", "final_test"})
    if found:
        warnings.warn(
            f"fit was given trials of the tiers {found} and trains on them too: select with "
            'trials.sel(tier="train") if they are meant for judging the model.',
            UserWarning,
            stacklevel=5,  # the caller of fit, behind `explained`
        )


def other_model(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Names of changed parameters that make another model, not only another training."""
    return [n for n in was if n not in _MAY_CHANGE and not np.array_equal(now[n], was[n])]


def check_parameters(estimator: EncodingRegressor) -> None:
    """Check that a model that is to go on still has the parameters it was built with.

    Raises
    ------
    ValueError
        If a parameter changed that cannot change between fits.
    """
    was, now = estimator.parameters_, estimator.get_params(deep=False)
    told = [f"{name} (was {was[name]!r}, is {now[name]!r})" for name in other_model(was, now)]
    if told:
        raise ValueError(
            f"these parameters changed since fit: {', '.join(told)}. A fitted model can only go "
            "on with the ones it was built with: set them back, or fit anew with "
            "warm_start=False."
        )


def check_held_out(validation: Any) -> None:
    """Check that a validation set is one.

    Raises
    ------
    TypeError
        Saying what was expected.
    """
    if validation is None or isinstance(validation, Trials):
        return
    _, expression = trials_instead(validation) or ("", "")
    if expression in ("", "trials"):
        expression = 'trials.sel(tier="validation")'
    raise TypeError(
        f"validation is a {type(validation).__name__}: expected Trials, for instance "
        f"validation={expression} or Trials.from_arrays(...). A share of the images is set aside "
        "by the parameter validation_fraction."
    )


def check_transfer(
    estimator: EncodingRegressor | None, trials: Any, freeze_core: Any, params: dict[str, Any]
) -> None:
    """Check the arguments of `transfer`, with the parameters of the model where it is given.

    Raises
    ------
    TypeError, ValueError
        Saying what was expected.
    """
    if not isinstance(trials, Trials):
        _, expression = trials_instead(trials) or ("", "")
        raise TypeError(
            f"trials is a {type(trials).__name__}: expected Trials; "
            + (
                f"write transfer({expression})."
                if expression
                else "Trials.from_arrays(stimuli, behaviors, responses) makes them of arrays."
            )
        )
    if not isinstance(freeze_core, bool | np.bool_):
        raise TypeError(
            f"freeze_core is a {type(freeze_core).__name__}: expected True or False. The trials "
            "bring their responses: call transfer(trials)."
        )
    known = params if estimator is None else estimator.get_params(deep=False)
    for name in params:
        if name not in known and (found := guess(name, ["freeze_core", "validation"], _WORDS)):
            raise ValueError(
                f"transfer has no argument {name!r}: did you mean {found[0]}? Other names are "
                "parameters of the model, such as max_epochs."
            )
    if freeze_core and params.get("core_lr") is not None:
        raise ValueError(
            f"core_lr={params['core_lr']!r} has no effect on a frozen core: set freeze_core=False "
            "to train it further."
        )


def check_like_fit(
    estimator: EncodingRegressor,
    trials: Trials,
    *,
    same_mice: bool = False,
    whose: str = "",
) -> None:
    """Check that trials are of the mice, sizes and columns of those at `fit`.

    Parameters
    ----------
    estimator : EncodingRegressor
    trials : Trials
    same_mice : bool, default=False
        They are to go on with, so no mouse may lack.
    whose : str, optional
        "validation" where they are those of the validation set.

    Raises
    ------
    ValueError
        Naming the mouse and the variable.
    """
    if not len(trials):
        raise ValueError("there are no trials: expected at least one.")
    known = estimator.mice_
    if unknown := [mouse for mouse in trials.mice if mouse not in known]:
        raise ValueError(_unknown_mice(unknown, known, same_mice=same_mice, whose=whose))
    for mouse in trials.mice:
        _check_sizes(estimator, trials, mouse)
        _check_columns(estimator, trials, mouse)
    if same_mice and set(trials.mice) != set(known):
        raise ValueError(
            f"the model was fitted on the mice {known}, the trials to go on with are of "
            f"{trials.mice}: give the same mice, or fit anew with warm_start=False."
        )


def _unknown_mice(unknown: list[str], known: list[str], *, same_mice: bool, whose: str) -> str:
    names = in_words([repr(mouse) for mouse in unknown])
    said = f"unknown {'mouse' if len(unknown) == 1 else 'mice'} {names}"
    if whose:
        return (
            f"{said} in the {whose} set: the training trials are of {known}, and a model is judged "
            f"on mice that it is fitted to. Leave others out, {whose}.sel(mouse_id={known}), or "
            "add their trials to those of the fit."
        )
    said += f": this model was fitted on {known}."
    if found := [name for mouse in unknown for name in guess(mouse, known)]:
        said += f" Did you mean {' or '.join(map(repr, dict.fromkeys(found)))}?"
    if same_mice:
        return f"{said} New animals cannot join later: fit anew with the trials of all mice."
    return (
        f"{said} A new animal needs a readout of its own, trained on the core of this model: new = "
        f"model.transfer(trials.sel(mouse_id={unknown})), with responses, then new.predict(...). "
        "In cross-validation every fold needs trials of all mice: use GroupKFold on "
        "trials.image_ids, or a shuffled KFold."
    )


def _check_sizes(estimator: EncodingRegressor, trials: Trials, mouse: str) -> None:
    n_neurons = trials.n_neurons[mouse]
    if n_neurons and n_neurons != estimator.n_neurons_[mouse]:
        raise ValueError(
            f"mouse {mouse!r}: the trials have {n_neurons} neurons, the model was fitted on "
            f"{estimator.n_neurons_[mouse]}: give the same neurons in the same order."
        )
    given, fitted = (
        trials.neuron_labels(mouse).get("neuron"),
        estimator.neurons_[mouse].get("neuron"),
    )
    if difference := told_apart(fitted, given):
        raise ValueError(
            f"mouse {mouse!r}: the trials are not of the neurons that the model was fitted on: "
            f"{difference}. Bring them to the order of model.neurons_[{mouse!r}]['neuron']; where "
            "the neurons are the same and only their ids are not, give recordings without ids: "
            "recording.drop_vars('neuron')."
        )
    shape = trials[trials.rows(mouse)[0][:1]].get("stimuli", mouse).shape[1:]
    same_channels = shape[0] == estimator.image_shape_[0]
    if not same_channels or not estimator.module_.cropper.takes(shape[1:]):
        raise ValueError(
            f"mouse {mouse!r}: stimuli have the shape {tuple(shape)} (channels, height, width), "
            f"the model was fitted on {tuple(estimator.image_shape_)}."
            f"{channels_last(shape, estimator.image_shape_)}"
        )


def told_apart(expected: np.ndarray | None, found: np.ndarray | None) -> str:
    """Compare the unit ids of as many neurons; of how many there are others tell.

    Parameters
    ----------
    expected, found : ndarray of shape (n_neurons,) or None
        None where they are not known: then neurons go by their place.

    Returns
    -------
    str
        How they differ; empty where they do not, or nothing tells.
    """
    place = units_differ(expected, found)
    if place is None:
        return ""
    ours, theirs = ([str(unit) for unit in units] for units in (expected, found))
    order = "the same unit ids in another order" if set(ours) == set(theirs) else "other unit ids"
    return f"{order}, the first at place {place}, where {theirs[place]} came for {ours[place]}"


def _check_columns(estimator: EncodingRegressor, trials: Trials, mouse: str) -> None:
    used = list(estimator.used_columns_[mouse])
    fitted, names = estimator.behavior_names_[mouse], trials.behavior_names(mouse)
    if used and names is None:
        raise ValueError(
            f"mouse {mouse!r}: behaviors are missing, but the model was fitted with {used}: give "
            "behaviors for every trial."
        )
    if used and estimator.columns_assumed_:  # nobody told the order, so names decide
        if missing := [name for name in used if name not in names]:
            raise ValueError(
                f"mouse {mouse!r}: the columns of behaviors are {names}, but the model uses "
                f"{used}: {missing} are missing."
            )
    elif used and names != fitted:
        raise ValueError(
            f"mouse {mouse!r}: the columns of behaviors are {names}, at fit they were {fitted}: "
            "give the same columns in the same order."
        )


def _read_trials(
    trials: Trials,
    y: Any,
    responses: Any,
    mouse_ids: Any,
    labels: list[str],
    call: str = "fit",
) -> Call:
    if any(isinstance(other, Trials) for other in (y, responses, mouse_ids)):
        raise TypeError(
            f"{call} was given Trials twice: the second argument is y, trials.responses. "
            + (
                "Trials to choose the best epoch by go by name: fit(trials, validation=others)."
                if call == "fit"
                else f"The trials bring their responses: {call}(trials)."
            )
        )
    if responses is not None or mouse_ids is not None or labels:
        raise TypeError(
            "Trials bring behaviour, responses, mouse ids and labels"
            + (f" (so {', '.join(labels)} cannot be given beside them)" if labels else "")
            + f": call {call}(trials) or {call}(trials, y)."
        )
    if not len(trials):
        raise ValueError("there are no trials: expected at least one.")
    if y is None:
        return Call(trials, trials.responses)
    target = _as_responses(trials, y, call)
    for mouse, n_neurons in trials.n_neurons.items():
        n = target[target.rows(mouse)[0][:1]].get(mouse).shape[1]
        if n_neurons and n != n_neurons:
            raise ValueError(
                f"mouse {mouse!r}: y has vectors of {n} responses, but the mouse has {n_neurons} "
                "neurons: y must be trials.responses, trial by trial of the same mice."
            )
    return Call(trials, target)


def _as_responses(trials: Trials, y: Any, call: str) -> Responses:
    if isinstance(y, Responses):
        if not np.array_equal(y.mouse_ids, trials.mouse_ids):
            raise ValueError(
                "y must be trials.responses, trial by trial of the same mice: "
                f"{len(trials)} trials of {trials.mice} came with {len(y)} responses of {y.mice}. "
                "Was y permuted or split differently from the trials?"
            )
        return y._labelled_like(trials)  # permuted within mice: labels of trials
    one = isinstance(y, str | Mapping) or getattr(y, "ndim", 1) == 0 or not hasattr(y, "__len__")
    if one:
        raise TypeError(
            f"y is a {type(y).__name__}: expected trials.responses, or nothing: {call}(trials) "
            "takes those of the trials."
        )
    if len(y) != len(trials):
        raise ValueError(f"y has {len(y)} entries for {len(trials)} trials.")
    if np.ndim(y[0]) == 0:
        weights = " Weights of trials go by name: score(trials, sample_weight=weights)."
        raise ValueError(
            "y has one number per trial: expected one vector per trial, trials.responses."
            + weights * (call == "score")
        )
    values = {}
    for mouse in trials.mice:
        rows = [np.asarray(y[i]) for i in trials.rows(mouse)[0]]
        if len({r.shape for r in rows}) != 1 or rows[0].ndim != 1:
            raise ValueError(
                f"mouse {mouse!r}: y has vectors of the shapes {sorted({r.shape for r in rows})}: "
                "expected one vector per trial, as long as the mouse has neurons."
            )
        values[mouse] = np.stack(rows)
    return Responses.from_arrays(values, like=trials)


def _refuse_other_forms(stimuli: Any, behaviors: Any, responses: Any, call: str) -> None:
    refuse_no_trials(stimuli, f"{call}({{}})", tables=False)
    if responses is None:
        check_form(stimuli, None)
        order = f"{call}(stimuli, behaviors, responses, mouse_ids)"
        if behaviors is not None:
            order += f", and without behaviour {call}(stimuli, None, responses)"
        raise ValueError(
            f"responses are missing. Without Trials the call is {order}. "
            "Inside GridSearchCV, cross_val_score and the like wrap the recordings "
            "first, in Trials(...) or Trials.from_arrays(stimuli, behaviors, responses, ...)"
            + (
                "."
                if hasattr(stimuli, "shape")
                else f": a {type(stimuli).__name__} of recordings would be split over mice, not "
                "over trials."
            )
        )


def _only_mouse(estimator: EncodingRegressor, stimuli: Any, mouse_ids: Any) -> Any:
    """One array without id means the mouse of a model that has but one."""
    if mouse_ids is not None or not hasattr(stimuli, "shape"):
        return mouse_ids
    if len(estimator.mice_) > 1:
        raise ValueError(
            f"mouse_ids are missing: this model has the mice {estimator.mice_}. Give one id per "
            "trial, or one id for all of them."
        )
    return estimator.mice_[0]


def _names_at_fit(estimator: EncodingRegressor) -> Any:
    """Columns without names are taken to be those of `fit`, if there are as many."""
    if estimator.columns_assumed_:
        return None  # named by their number, as in Trials.from_arrays

    def unnamed(mouse: str, n_columns: int) -> list[str]:
        names = estimator.behavior_names_.get(mouse)
        if names is None:
            names = [f"column_{i}" for i in range(n_columns)]
        if len(names) != n_columns:
            raise ValueError(
                f"mouse {mouse!r}: behaviors has {n_columns} columns, at fit there were "
                f"{len(names)}: {names}."
            )
        return names

    return unnamed

"""Whether trials, parameters and arguments go with a model that is fitted already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from v1tlearn._equality import same_arrays
from v1tlearn._guesses import guess, in_words
from v1tlearn._instead import channels_last, trials_instead
from v1tlearn._warn import warn
from v1tlearn.estimators._fitted import Fitted, Mouse
from v1tlearn.estimators._movies import movie_lengths, rate_of_movies, rates_differ, refuse_movies
from v1tlearn.nn import AlignmentModel, EncodingModel
from v1tlearn.trials import Trials
from v1tlearn.trials._selection import units_differ

# Parameters of training alone: a fitted model may go on with others.
_MAY_CHANGE = frozenset(
    {"optimizer", "lr", "core_lr", "betas", "weight_decay", "batch_size", "max_epochs"}
    | {"shuffle_block"}
    | {"loss", "loss_scale", "penalty_scale", "loss_epsilon", "core_pass"}
    | {"schedule", "lr_patience", "lr_factor", "max_lr_drops", "min_lr"}
    | {"period_epochs", "carry_patience", "selection", "clip_norm", "ema_decay"}
    | {"validation_fraction", "device", "precision", "deterministic", "random_state"}
    | {"compile", "micro_batch_size", "low_memory"}
    | {"window_frames"}
    | {"steps_per_epoch", "warmup_epochs", "start_lr", "average_from", "average_lr"}
    | {"warm_start", "verbose", "feature_cache", "cache_gigabytes"}
    | {"image_lr", "image_weight_decay", "neural_lr", "neural_smoothing"}
    | {"loss_weights", "patience", "keep"}
)

# Parameters of modules that leave their weights as they are: a fitted model may go on with others,
# with an optimiser that begins anew.
_SAME_WEIGHTS = frozenset(
    {"fine_tune", "augment_positions", "core_weight_decay", "readout_l1", "train_image_tower"}
    | {"space_l1", "space_l2", "space_hoyer", "space_weight_decay"}
    | {"channel_l1", "channel_l2", "channel_hoyer", "channel_weight_decay"}
)

_MOST_STANDARDISED = 20.0  # standard deviations, which no grey level of an image is away

_JUDGE = frozenset({"selection"})  # of _MAY_CHANGE, by what epochs are judged

_WORDS = {
    "freeze": ("freeze_core",),
    "frozen": ("freeze_core",),
    "validation_data": ("validation",),
}


def other_model(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of changed parameters that make another model, not only another training."""
    names = was.keys() & now.keys() - _MAY_CHANGE - _SAME_WEIGHTS
    return [n for n in was if n in names and not same_arrays(now[n], was[n])]


def other_training(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Changed parameters with which modules are built anew, around the same weights."""
    names = was.keys() & now.keys() & _SAME_WEIGHTS
    return {n: now[n] for n in was if n in names and not same_arrays(now[n], was[n])}


def other_judge(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """By what epochs are judged, where it changed, so that the best so far tells nothing."""
    return {n: now[n] for n in was.keys() & now.keys() & _JUDGE if now[n] != was[n]}


def check_parameters(was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a model that is to go on still has the parameters it was built with."""
    told = [f"{name} (was {was[name]!r}, is {now[name]!r})" for name in other_model(was, now)]
    if told:
        raise ValueError(
            f"these parameters changed since fit: {', '.join(told)}. A fitted model can only go "
            "on with the ones it was built with: set them back, or fit anew with "
            "warm_start=False."
        )


def check_like_fit(
    fitted: Fitted,
    model: EncodingModel | AlignmentModel,
    trials: Trials,
    *,
    same_mice: bool = False,
    whose: str = "",
) -> None:
    """Check that trials are of the mice, sizes and columns of those at `fit`."""
    if not len(trials):
        raise ValueError("there are no trials: expected at least one.")
    refuse_movies(trials)
    known = list(fitted.mice)
    if unknown := [mouse for mouse in trials.mice if mouse not in known]:
        raise ValueError(_unknown_mice(unknown, known, same_mice=same_mice, whose=whose))
    for mouse in trials.mice:
        _check_neurons(fitted.mice[mouse], trials, mouse)
        _check_images(fitted, model, trials, mouse)
        _check_columns(fitted, trials, mouse)
        if isinstance(model, EncodingModel) and model.context_frames is not None:
            _check_movies(fitted, trials, mouse)
        if same_mice:
            _check_positions(fitted.mice[mouse], trials, mouse)
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


def _check_neurons(one: Mouse, trials: Trials, mouse: str) -> None:
    n_neurons = trials.n_neurons[mouse]
    unknown = 0 in (n_neurons, one.n_neurons)  # trials without responses, a model without towers
    if not unknown and n_neurons != one.n_neurons:
        raise ValueError(
            f"mouse {mouse!r}: the trials have {n_neurons} neurons, the model was fitted on "
            f"{one.n_neurons}: give the same neurons in the same order."
        )
    given = trials.neuron_labels(mouse).get("neuron")
    if difference := told_apart(one.unit_ids, given):
        raise ValueError(
            f"mouse {mouse!r}: the trials are not of the neurons that the model was fitted on: "
            f"{difference}. Bring them to the order of model.neurons_[{mouse!r}]['neuron']; where "
            "the neurons are the same and only their ids are not, give recordings without ids: "
            "recording.drop_vars('neuron')."
        )


def _check_images(
    fitted: Fitted, model: EncodingModel | AlignmentModel, trials: Trials, mouse: str
) -> None:
    first = trials[trials.rows(mouse)[0][:1]].get("stimuli", mouse)
    shape = first.shape[1:]
    same_channels = shape[0] == fitted.image_shape[0]
    if not same_channels or not model.cropper.takes(shape[1:]):
        raise ValueError(
            f"mouse {mouse!r}: stimuli have the shape {tuple(shape)} (channels, height, width), "
            f"the model was fitted on {tuple(fitted.image_shape)}."
            f"{channels_last(shape, fitted.image_shape)}"
        )
    if not fitted.images_told:
        _warn_of_grey_levels(np.asarray(first), mouse)
    channels = trials.channel_names(mouse)
    if None not in (channels, fitted.channels) and channels != fitted.channels:
        raise ValueError(
            f"mouse {mouse!r}: the channels of the stimuli are {channels}, the model was fitted on "
            f"{fitted.channels}: bring them to that order, recording.isel(channel=[...])."
        )


def warn_of_grey_levels(fitted: Fitted, trials: Trials) -> None:
    """Warn of images in grey levels that a core meets which was trained on standardised ones."""
    if not fitted.images_told:
        for mouse in trials.mice:
            first = trials[trials.rows(mouse)[0][:1]].get("stimuli", mouse)
            _warn_of_grey_levels(np.asarray(first), mouse)


def _warn_of_grey_levels(image: np.ndarray, mouse: str) -> None:
    if image.dtype.kind not in "iu" and not np.abs(image).max(initial=0) > _MOST_STANDARDISED:
        return
    warn(
        f"mouse {mouse!r}: the images are grey levels, up to {image.max():g} in the first one, but "
        "the model was opened without the statistics of the images that it was trained on, and "
        "takes standardised ones, of mean 0 and standard deviation 1. Open it with statistics=, "
        "or standardise the images as those were."
    )


def _check_movies(fitted: Fitted, frames: Trials, mouse: str) -> None:
    movie_lengths(frames, mouse)
    rate, known = rate_of_movies(frames, mouse), fitted.frame_rate
    if rates_differ((rate, known)):
        raise ValueError(
            f"mouse {mouse!r}: movies have {rate:g} frames per second, the model was fitted to "
            f"movies of {known:g}, and sees time in frames: bring stimuli and responses to that "
            "rate, or fit anew."
        )


def _check_positions(one: Mouse, trials: Trials, mouse: str) -> None:
    """Check that neurons are where they were at `fit`: readouts are never placed anew."""
    given = trials.positions(mouse)
    if given is None:
        return
    known = one.position
    same = known is not None and given.shape == known.shape
    if known is None or not (same and np.allclose(given, known, equal_nan=True)):
        was = "without any" if known is None else "with others"
        raise ValueError(
            f"mouse {mouse!r}: positions of neurons are given, the model was fitted {was}, and "
            "keeps what it has where it goes on: leave positions out, give those of the fit, or "
            "fit anew with warm_start=False."
        )


def told_apart(expected: np.ndarray | None, found: np.ndarray | None) -> str:
    """Compare the unit ids of as many neurons; of how many there are others tell."""
    place = units_differ(expected, found)
    if place is None or expected is None or found is None:
        return ""
    ours, theirs = ([str(unit) for unit in units] for units in (expected, found))
    order = "the same unit ids in another order" if set(ours) == set(theirs) else "other unit ids"
    return f"{order}, the first at place {place}, where {theirs[place]} came for {ours[place]}"


def _check_columns(fitted: Fitted, trials: Trials, mouse: str) -> None:
    used = list(fitted.mice[mouse].used_columns)
    known, names = fitted.mice[mouse].behavior_names, trials.behavior_names(mouse)
    if used and names is None:
        raise ValueError(
            f"mouse {mouse!r}: behaviors are missing, but the model was fitted with {used}: give "
            "behaviors for every trial."
        )
    # Where nobody told the order, names decide.
    if names is not None and used and fitted.columns_assumed:
        if missing := [name for name in used if name not in names]:
            raise ValueError(
                f"mouse {mouse!r}: the columns of behaviors are {names}, but the model uses "
                f"{used}: {missing} are missing."
            )
    elif used and names != known:
        raise ValueError(
            f"mouse {mouse!r}: the columns of behaviors are {names}, at fit they were {known}: "
            "give the same columns in the same order."
        )


def check_held_out(validation: Any) -> None:
    """Check that a validation set is one."""
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
    trials: Any,
    freeze_core: Any,
    params: Mapping[str, Any],
    known: Mapping[str, Any] | None = None,
) -> None:
    """Check the arguments of `transfer`, with the parameters of the model where they are given."""
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
    for name in params:
        if (
            known is not None
            and name not in known
            and (found := guess(name, ["freeze_core", "validation"], _WORDS))
        ):
            raise ValueError(
                f"transfer has no argument {name!r}: did you mean {found[0]}? Other names are "
                "parameters of the model, such as max_epochs."
            )
    if freeze_core and params.get("core_lr") is not None:
        raise ValueError(
            f"core_lr={params['core_lr']!r} has no effect on a frozen core: set freeze_core=False "
            "to train it further."
        )

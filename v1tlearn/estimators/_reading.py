"""What callers hand to fit, predict and score, brought to `Trials`; and answers in their form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from v1tlearn._instead import check_form, refuse_no_trials
from v1tlearn._warn import warn
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._movies import refuse_movies
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials._arithmetic import labels_of
from v1tlearn.trials._call_forms import CallForm
from v1tlearn.trials._order import in_order_of_names
from v1tlearn.trials._targets import target_of
from v1tlearn.trials.folding import fold_time


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
    *,
    frame_wise: bool = True,
    **labels: Any,
) -> Call:
    """Read the arguments of `fit`: `Trials` mean ``(X, y)``, anything else four arrays.

    Movies come as their frames, each with the responses to it; all bear the id of their movie, so
    that no split puts frames of one movie on both sides. Mice come in the order of their names,
    since models are built, and batches drawn, mouse after mouse.
    """
    if isinstance(stimuli, Trials):
        given = [name for name, value in labels.items() if value is not None]
        call = _read_trials(stimuli, behaviors, responses, mouse_ids, given)
    else:
        _refuse_other_forms(stimuli, behaviors, responses, "fit")
        trials = Trials.from_arrays(stimuli, behaviors, responses, mouse_ids, **labels)
        call = Call(trials, trials.responses)
    if not frame_wise:
        refuse_movies(call.trials)
    trials, target = in_order_of_names(call.trials), in_order_of_names(call.target)
    return Call(fold_time(trials, "movies"), fold_time(target, None))


def read_score(
    mice: Mapping[str, Any],
    stimuli: Any,
    behaviors: Any,
    responses: Any,
    mouse_ids: Any,
    unnamed: Any = None,
    *,
    frame_rate: float | None = None,
) -> Call:
    """Read the arguments of `score`, of a model that knows `n_neurons` of mice.

    Columns of behaviour without names are called as `names_at_fit` says, if it is given.
    """
    if isinstance(stimuli, Trials):
        given = [] if frame_rate is None else ["frame_rate"]
        return _read_trials(stimuli, behaviors, responses, mouse_ids, given, "score")
    _refuse_other_forms(stimuli, behaviors, responses, "score")
    mouse_ids = _only_mouse(mice, stimuli, mouse_ids)
    trials, _ = Trials._from_call(
        stimuli,
        behaviors,
        responses,
        mouse_ids,
        unnamed=unnamed,
        frame_rate=frame_rate,
        n_neurons={mouse: one.n_neurons for mouse, one in mice.items()},
    )
    return Call(trials, trials.responses)


def read_predict(
    fitted: Fitted,
    stimuli: Any,
    behaviors: Any,
    mouse_ids: Any,
    behavior_names: Sequence[str] | None,
    call: str = "predict",
    *,
    frame_rate: float | None = None,
) -> tuple[Trials, CallForm | None]:
    """Read the arguments of `predict`, or such a call; without `CallForm` they were `Trials`."""
    if isinstance(stimuli, Trials):
        if any(a is not None for a in (behaviors, mouse_ids, behavior_names, frame_rate)):
            raise TypeError(
                f"Trials bring behaviour, names, mouse ids and times: call {call}(trials)."
            )
        trials, form = stimuli, None
    else:
        refuse_no_trials(stimuli, f"{call}({{}})", tables=False)
        mouse_ids = _only_mouse(fitted.mice, stimuli, mouse_ids)
        trials, form = Trials._from_call(
            stimuli,
            behaviors,
            None,
            mouse_ids,
            behavior_names=behavior_names,
            unnamed=names_at_fit(fitted),
            frame_rate=frame_rate,
        )
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
        warn(
            f"fit was given trials of the tiers {found} and trains on them too: select with "
            'trials.sel(tier="train") if they are meant for judging the model.',
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
    return Call(trials, target_of(trials, y, call))


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


def _only_mouse(known: Mapping[str, Any], stimuli: Any, mouse_ids: Any) -> Any:
    """One array without id means the mouse of a model that has but one."""
    if mouse_ids is not None or not hasattr(stimuli, "shape"):
        return mouse_ids
    mice = list(known)
    if len(mice) > 1:
        raise ValueError(
            f"mouse_ids are missing: this model has the mice {mice}. Give one id per "
            "trial, or one id for all of them."
        )
    return mice[0]


def names_at_fit(fitted: Fitted) -> Any:
    """Columns without names are taken to be those of `fit`, if there are as many."""
    if fitted.columns_assumed:
        return None  # named by their number, as in Trials.from_arrays

    def unnamed(mouse: str, n_columns: int) -> list[str]:
        names = fitted.mice[mouse].behavior_names if mouse in fitted.mice else None
        if names is None:
            names = [f"column_{i}" for i in range(n_columns)]
        if len(names) != n_columns:
            raise ValueError(
                f"mouse {mouse!r}: behaviors has {n_columns} columns, at fit there were "
                f"{len(names)}: {names}."
            )
        return names

    return unnamed


def warn_about_mirrored(trials: Trials) -> None:
    """Warn if trials meant for training show test images from right to left."""
    flips = {mouse: labels_of(trials[trials.rows(mouse)[0]], "flip_of") for mouse in trials.mice}
    n_mirrored = sum(int((of >= 0).sum()) for of in flips.values() if of is not None)
    if n_mirrored:
        warn(
            f"{n_mirrored} of {len(trials)} training trials show mirrored copies of test images "
            "(coordinate flip_of): a model trained on them has all but seen these. Leave them out "
            'by trials.sel(flip_of=-1) or read_nat60k(..., flips="drop").'
        )

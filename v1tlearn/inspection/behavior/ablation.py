"""What each behavioural variable explains: predictions without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._models import last_step, named_models
from v1tlearn._options import as_word, as_words
from v1tlearn._values import as_whole
from v1tlearn.inspection._controls import generator
from v1tlearn.inspection._opened import check_trials
from v1tlearn.inspection.behavior._columns import check_columns, column_names
from v1tlearn.inspection.behavior._scores import metric_of, neuron_coords, neuron_scores
from v1tlearn.inspection.behavior.constant import with_behavior
from v1tlearn.trials import Trials
from v1tlearn.trials.predicted import predict_responses
from v1tlearn.trials.replaced import recorded_behaviors, with_behaviors

ALL = "all"
_METHODS = ("permute", "mean", "median")


def behavior_ablation(
    estimator: Any,
    trials: Trials,
    variables: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    *,
    method: str | Mapping[str, float] = "permute",
    metric: str | Callable[..., Any] = "single_trial_correlation",
    n_repeats: int = 10,
    random_state: Any = 0,
) -> dict[str, xr.Dataset]:
    """Measure by how much predictions get worse without one behavioural variable.

    The fitted model predicts the trials again, with the variable taken from other trials or held
    constant, and everything else as recorded. What the score loses is what the model knows from
    that variable, and from nothing else.

    Parameters
    ----------
    estimator : estimator
        Fitted with behaviour; any that predicts trials, a Pipeline, search or ensemble, too.
    trials : Trials
        With responses and behaviour, not those of the training.
    variables : sequence of str, or dict of str to sequence of str, optional
        Columns of behaviour, each left out alone; or sets of columns by name, left out together,
        such as ``{"eye": ["pupil_x", "pupil_y"]}``. By default each column, and "all" of them.
    method : {"permute", "mean", "median"} or dict of str to float, default="permute"
        "permute" mixes the values of a mouse's trials, the columns of a set together, which keeps
        their distribution; "mean" and "median" fix them there; a dict fixes columns at values, in
        the units of the recordings.
    metric : str or callable, default="single_trial_correlation"
        As in `performance_by_behavior`.
    n_repeats : int, default=10
        Of the permutation.
    random_state : int, RandomState, Generator or None, default=0
        Of the permutation.

    Returns
    -------
    dict of str to Dataset
        Per mouse: ``score`` (neuron), with all behaviour; ``score_without`` (variable, repeat,
        neuron), one repeat of what is fixed; ``explained`` (variable, neuron), the score minus the
        mean over repeats of that without. ``neuron`` bears the unit ids.

    Raises
    ------
    TypeError
        If the estimator cannot predict, or these are no trials.
    ValueError
        If the model uses no behaviour, a mouse lacks a column, mice have other columns and no
        `variables` are named, or an option is out of its range.
    NotFittedError
        Before `fit`.

    Notes
    -----
    Behavioural variables go together, and what two of them tell alike neither loses alone: compare
    with "all". Permuted values also come together with other ones than they ever did. A variable
    that the model does not use explains 0.

    References
    ----------
    Breiman, "Random forests", Machine Learning, 2001, for the permutation.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import behavior_ablation
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.CNNRegressor(n_layers=2, hidden_channels=4, max_epochs=2, random_state=0)
    >>> found = behavior_ablation(
    ...     model.fit(trials.sel(tier="train")), trials.sel(tier="test"),
    ...     {"arousal": ["pupil_dilation", "running_speed"]}, n_repeats=2)
    >>> dict(found["A"]["score_without"].sizes)
    {'variable': 1, 'repeat': 2, 'neuron': 5}
    """
    check_trials(trials)
    (model,) = named_models({"estimator": estimator}).values()
    name, score = metric_of(metric)
    n_repeats = as_whole(n_repeats, "n_repeats")
    _check_uses_behavior(model, trials)
    fixed = _fixed(method)
    sets = _sets(trials, variables, fixed)
    rng = generator(random_state)
    repeats = n_repeats if fixed is None else 1
    target = trials.responses
    whole = neuron_scores(score, target, predict_responses(model, trials))
    without: dict[str, list[list[np.ndarray]]] = {mouse: [] for mouse in trials.mice}
    for columns in sets.values():
        parts = []
        for _ in range(repeats):
            if fixed is None:
                changed = _permuted(trials, columns, rng)
            else:
                changed = with_behavior(trials, {column: fixed(column) for column in columns})
            parts.append(neuron_scores(score, target, predict_responses(model, changed)))
        for mouse, own in without.items():
            own.append([part[mouse] for part in parts])
    out = {}
    for mouse, own in without.items():
        scores = np.array(own)  # (variables, repeats, neurons)
        out[mouse] = xr.Dataset(
            {
                "score": ("neuron", whole[mouse]),
                "score_without": (("variable", "repeat", "neuron"), scores),
                "explained": (("variable", "neuron"), whole[mouse] - scores.mean(1)),
            },
            coords={"variable": list(sets), **neuron_coords(target, mouse)},
            attrs={
                "mouse_id": mouse,
                "metric": name,
                "method": method if isinstance(method, str) else "fixed",
            },
        )
    return out


def _check_uses_behavior(model: Any, trials: Trials) -> None:
    """Refuse a model that is known to use none."""
    last = last_step(model)
    if not hasattr(last, "_knows"):
        return
    fitted, _ = last._knows()
    mice = [mouse for mouse in trials.mice if mouse in fitted.mice]
    if mice and not any(fitted.mice[mouse].used_columns for mouse in mice):
        raise ValueError(
            f"this model uses no behaviour (behavior_mode={fitted.behavior_mode!r}, "
            f"shift={fitted.parameters.get('shift', 'none')!r}): nothing can be left out."
        )


def _fixed(method: Any) -> Callable[[str], Any] | None:
    """What columns are fixed at; None where they are permuted."""
    if isinstance(method, Mapping):
        values = {str(column): value for column, value in method.items()}
        return values.__getitem__
    method = as_word(method, _METHODS, "method", ", or a dict of values by column")
    return None if method == "permute" else lambda column: method


def _sets(trials: Trials, variables: Any, fixed: Any) -> dict[str, list[str]]:
    """Columns by the name of the variable."""
    if variables is None:
        own = {mouse: column_names(trials, mouse) for mouse in trials.mice}
        common = own[trials.mice[0]]
        if others := [mouse for mouse in own if set(own[mouse]) != set(common)]:
            raise ValueError(
                f"mice {trials.mice[0]!r} and {others[0]!r} have other columns of behaviour, "
                f"{common} and {own[others[0]]}, so that leaving out all of them is not the same: "
                "name variables= that all mice have, or select mice, trials.sel(mouse_id=...)."
            )
        sets = {column: [column] for column in common}
        if ALL not in sets:
            sets[ALL] = common
    elif isinstance(variables, Mapping):
        sets = {
            str(key): as_words(columns, f"variables, {key!r}", of="running_speed")
            for key, columns in variables.items()
        }
    else:
        names = as_words(variables, "variables", of="running_speed")
        sets = {column: [column] for column in names}
    if not sets or not all(sets.values()):
        raise ValueError(f"variables={variables!r}: expected at least one column in each.")
    every = {column for columns in sets.values() for column in columns}
    check_columns(trials, every, "variables")
    if fixed is not None:
        for column in every:
            try:
                fixed(column)
            except KeyError as error:
                raise ValueError(
                    f"method has no value of {column!r}, which is to be fixed: give one, or name "
                    "variables=."
                ) from error
    return sets


def _permuted(trials: Trials, columns: Sequence[str], rng: np.random.Generator) -> Trials:
    """Columns together from other trials of the mouse; movies of one length among each other."""
    changed = {}
    for mouse in trials.mice:
        values = recorded_behaviors(trials, mouse)
        values = values.astype(np.result_type(values.dtype, np.float32))
        names = column_names(trials, mouse)
        places = [names.index(column) for column in columns]
        lengths = _lengths(values)
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            if len(rows) < 2:
                raise ValueError(
                    f"mouse {mouse!r}: only one trial has behaviour of {length} frames, and none "
                    "to be exchanged with: leave it out, or fix variables, method='mean'."
                )
            mixed = values[rng.permutation(rows)][..., places]
            values[rows[:, None], ..., np.array(places)] = np.moveaxis(mixed, -1, 1)
        changed[mouse] = values
    return with_behaviors(trials, changed)


def _lengths(values: np.ndarray) -> np.ndarray:
    """How many frames of each trial have behaviour; of images 1."""
    if values.ndim == 2:
        return np.ones(len(values), dtype=int)
    known = np.isfinite(values).any(-1)
    return np.where(known.any(1), known.shape[1] - known[:, ::-1].argmax(1), 0)

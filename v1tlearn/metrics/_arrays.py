"""Turns what the metrics accept into plain arrays, one mouse at a time.

No statistics here: forms of the arguments, and labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from v1tlearn._equality import same_arrays
from v1tlearn._models import by_text
from v1tlearn._values import (
    as_array,
    as_dims,
    as_ids,
    as_names,
    is_count,
    order_like,
)
from v1tlearn.metrics._sources import (
    DIMS,
    Source,
    is_list_of_matrices,
    rows_of,
    source_of,
    trials_of,
)
from v1tlearn.metrics._time import Arguments, frame_by_frame
from v1tlearn.trials._arithmetic import same_rows
from v1tlearn.trials._call_forms import ONE_MOUSE

_NO_IMAGES = (
    "image_ids is missing: this metric averages over the repeats of an image. Pass image_ids=, one "
    "id per trial, or `trials.responses`, which brings its own."
)


T = TypeVar("T")


def there(value: T | None) -> T:
    """What a metric needs, and so was made sure of before."""
    assert value is not None
    return value


@dataclass(frozen=True)
class MouseArrays:
    """Trials of one mouse: responses, predictions and labels in one order."""

    mouse: str
    true: np.ndarray  # (n, neurons), NaN where not recorded
    pred: np.ndarray | None  # (n, neurons)
    image_ids: np.ndarray | None  # (n,)
    categories: np.ndarray | None  # (n,)
    weights: np.ndarray | None  # (n,)
    neurons: dict[str, xr.Variable]  # "neuron", the unit ids, and what else is known of each


@dataclass(frozen=True)
class _Trials:
    """Where the trials of each mouse stand, and the labels of `y_true` for them."""

    places: dict[str, np.ndarray]  # in the order of the mice
    labels: dict[str, pd.Index | None]
    flat: pd.Index | None  # of all trials, where `y_true` is one array

    def __len__(self) -> int:
        return sum(map(len, self.places.values()))


def arrays_by_mouse(
    y_true: Any,
    y_pred: Any = None,
    *,
    image_ids: Any = None,
    mouse_ids: Any = None,
    categories: Any = None,
    sample_weight: Any = None,
    needs_images: bool = False,
    needs_categories: bool = False,
) -> Iterator[MouseArrays]:
    """Yield the arrays of each mouse; the forms are those of `v1tlearn.metrics`.

    Images come along where they are needed, and with categories, as far as they are known.
    """
    y_true = getattr(y_true, "responses", y_true)
    y_true, y_pred, image_ids, mouse_ids, categories, sample_weight = frame_by_frame(
        Arguments(y_true, y_pred, image_ids, mouse_ids, categories, sample_weight),
        needs_images=needs_images,
        needs_categories=needs_categories,
    )
    keys = None
    if is_list_of_matrices(y_true):
        keys, mouse_ids = _list_keys(y_true, mouse_ids), None
    y_true = as_dims(y_true, DIMS, "y_true")
    sources = [source_of("y_true", y_true, keys)]
    if y_pred is not None:
        y_pred = _with_trials_of(y_true, as_dims(y_pred, DIMS, "y_pred"))
        sources.append(source_of("y_pred", y_pred, keys))
    index = trials_of(y_true)
    order = order_like(index, trials_of(mouse_ids), "y_true and mouse_ids differ", "trial")
    mouse_ids = mouse_ids if order is None else rows_of(mouse_ids, order)
    labels, mice = _mouse_labels(sources, mouse_ids)
    _check_same_trials(sources, labels, mice)
    places = {mouse: np.flatnonzero(labels == mouse) for mouse in mice}
    trials = _Trials(places, {m: sources[0].trials(m, at) for m, at in places.items()}, index)
    images = classes = None
    if needs_images or needs_categories:
        images = _image_labels(sources, image_ids, trials)
    if needs_images and images is None:
        raise ValueError(_NO_IMAGES)
    if needs_categories:
        classes = _categories(sources, categories, trials)
    weights = None
    if sample_weight is not None:
        weights = _flat("sample_weight", sample_weight, trials, as_array)
        weights = weights.astype(np.float64)
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError("sample_weight must be finite and not negative.")
    for mouse, at in places.items():
        matrices = [s.matrix(mouse, at) for s in sources]
        padded, dense = len(mice) > 1, all(source.dense for source in sources)
        if padded and not dense:
            matrices = _without_padding(sources, matrices)
        widths = [matrix.shape[1] for matrix in matrices]
        neurons, order = _neurons(sources, mouse, at, widths, alone=not padded)
        if order is not None:
            matrices[1] = matrices[1][:, order]
        if padded and dense:  # whose columns are now in one order
            matrices = _without_padding(sources, matrices)
        neurons = {"neuron": xr.Variable("neuron", np.arange(matrices[0].shape[1])), **neurons}
        for source, matrix in zip(sources, matrices, strict=True):
            if matrix.shape != (len(at), matrices[0].shape[1]):
                raise ValueError(
                    f"mouse {mouse!r}: {source.name} has shape {matrix.shape}, expected "
                    f"{(len(at), matrices[0].shape[1])} (trials, neurons) as in y_true."
                )
        yield MouseArrays(
            mouse,
            matrices[0],
            matrices[1] if y_pred is not None else None,
            None if images is None else images[at],
            None if classes is None else classes[at],
            None if weights is None else weights[at],
            neurons,
        )


def _with_trials_of(true: Any, pred: Any) -> Any:
    """Predictions with their trials in the order of the responses, where both label these."""
    if isinstance(true, Mapping) and isinstance(pred, Mapping):
        known = by_text("y_true", true)
        return {m: _with_trials_of(known.get(m), p) for m, p in by_text("y_pred", pred).items()}
    if is_list_of_matrices(true) and is_list_of_matrices(pred) and len(true) == len(pred):
        return [_with_trials_of(*pair) for pair in zip(true, pred, strict=True)]
    told = "y_true and y_pred are of different trials"
    order = order_like(trials_of(true), trials_of(pred), told, "trial")
    return pred if order is None else rows_of(pred, order)


def _neurons(
    sources: list[Source], mouse: str, at: np.ndarray, widths: list[int], *, alone: bool
) -> tuple[dict[str, xr.Variable], np.ndarray | None]:
    """What is known of the neurons of a mouse, and where those of `y_true` stand in `y_pred`.

    Labels of columns that several mice share tell of what one argument holds beside the other, and
    name no neurons.
    """
    told = [s.neurons(mouse, at) for s in sources]
    ids = [
        neurons["neuron"].to_index()[:width] if "neuron" in neurons else None
        for neurons, width in zip(told, widths, strict=True)
    ]
    shared = [s.dense and not alone for s in sources]
    told = [{} if common else known for known, common in zip(told, shared, strict=True)]
    order = None
    if len(ids) == 2:
        hold = f"mouse {mouse!r}: y_true and y_pred hold different neurons"
        order = order_like(ids[0], ids[1], hold, "unit", ("y_true", "y_pred"))
    if order is not None:  # what is known of them, in the order of y_true
        told[1] = {name: values[order] for name, values in told[1].items()}
    for neurons, index in zip(told, ids, strict=True):
        if index is not None and is_count(index):
            neurons.pop("neuron", None)
    known = {name: values for neurons in reversed(told) for name, values in neurons.items()}
    return known, order


def _list_keys(y_true: list | tuple, mouse_ids: Any) -> list[str]:
    if mouse_ids is None:
        return [str(number) for number in range(len(y_true))]
    keys = as_names(mouse_ids, "mouse_ids")
    if len(keys) != len(y_true) or len(set(keys)) != len(keys):
        raise ValueError(
            f"y_true is a list of {len(y_true)} recordings but mouse_ids is {keys}: give one "
            "different id per recording."
        )
    return keys


def _mouse_labels(sources: list[Source], mouse_ids: Any) -> tuple[np.ndarray, list[str]]:
    """Mouse of each trial, and the mice in order, after checking that the arguments agree."""
    true = sources[0]
    if true.n_trials == 0:
        raise ValueError("y_true has no trials.")
    for source in sources[1:]:
        if source.n_trials != true.n_trials:
            raise ValueError(
                f"y_true has {true.n_trials} trials, y_pred has {source.n_trials}: expected both "
                "(trials, neurons) of the same trials, as trials.responses and "
                "model.predict(trials) are."
            )
    labelled = [s for s in sources if s.mouse_ids is not None and not s.per_mouse]
    labelled += [s for s in sources if s.per_mouse]
    if mouse_ids is not None:
        given = as_ids(mouse_ids, "mouse_ids")
        if given.shape != (true.n_trials,):
            raise ValueError(
                f"mouse_ids has shape {given.shape}, expected one id for each of the "
                f"{true.n_trials} trials."
            )
        labels = given.astype(str)
        mice = there(labelled[0].mice) if labelled else _in_order(labels)
    elif labelled:
        labels, mice = there(labelled[0].mouse_ids), there(labelled[0].mice)
    else:
        ragged = [s.lengths for s in sources if s.lengths is not None]
        if not ragged:
            return np.full(true.n_trials, ONE_MOUSE), [ONE_MOUSE]
        labels = np.array([f"{n} neurons" for n in ragged[0]])
        mice = _in_order(labels)
    for source in labelled:
        own = there(source.mouse_ids)
        if source.per_mouse:
            agree = same_arrays(np.sort(own), np.sort(labels))
        else:
            agree = same_arrays(own, labels)
        if not agree:
            raise ValueError(
                f"{source.name} holds trials of other mice, or in another order: trials per mouse "
                f"are {_counts(own)}, and {_counts(labels)} in {labelled[0].name}"
                f"{' with mouse_ids' if mouse_ids is not None else ''}. Predict the same trials."
            )
    return labels, mice


def _counts(labels: np.ndarray) -> dict[str, int]:
    mice, counts = np.unique(labels, return_counts=True)
    return dict(zip(mice.tolist(), counts.tolist(), strict=True))


def _check_same_trials(sources: list[Source], labels: np.ndarray, mice: list[str]) -> None:
    """Refuse labelled arguments that hold other trials, or the same in another order."""
    if len(sources) < 2:
        return
    true, pred = (source.responses for source in sources)
    for mouse in mice:
        at = np.flatnonzero(labels == mouse)
        if true is not None and pred is not None:
            if same_rows(true, pred, mouse):
                continue
            images = [true[at].image_ids, pred[at].image_ids]  # of different recordings
        else:
            images = [s.label(mouse, at, "image_id") for s in sources]
        trials = [[s.label(mouse, at, name) for s in sources] for name in ("trial_id", "trial")]
        for name, (one, two) in zip(("image", "trial", "trial"), [images, *trials], strict=True):
            if not _agree(one, two):
                raise ValueError(
                    f"mouse {mouse!r}: y_true and y_pred carry different {name} ids: they are not "
                    "the same trials in the same order."
                )


def _agree(one: np.ndarray | None, two: np.ndarray | None) -> bool:
    """Whether labels are the same, numbers as their text, as far as both are known."""
    if one is None or two is None or same_arrays(one, two):
        return True
    return np.array_equal(one.astype(str), two.astype(str))


def _image_labels(sources: list[Source], image_ids: Any, trials: _Trials) -> np.ndarray | None:
    """Image of each trial; None where nothing tells."""
    if image_ids is None:
        responses = [s.responses for s in sources if s.responses is not None]
        if responses:
            return np.asarray(responses[0].image_ids)
        image_ids = _told(sources, "image_id", trials)
    return None if image_ids is None else _flat("image_ids", image_ids, trials, as_ids)


def _categories(sources: list[Source], categories: Any, trials: _Trials) -> np.ndarray:
    if categories is None:
        categories = _told(sources, "category", trials)
    if categories is None:
        raise ValueError(
            "categories is missing: this metric compares categories of stimuli. Pass categories=, "
            "one per trial, or responses of recordings with the coordinate `category`."
        )
    return _flat("categories", categories, trials, as_ids)


def _told(sources: list[Source], name: str, trials: _Trials) -> dict[str, np.ndarray] | None:
    """Labels per mouse, of the first argument that bears them for all mice."""
    told = [{m: s.label(m, at, name) for m, at in trials.places.items()} for s in sources]
    for of in told:
        known = {m: labels for m, labels in of.items() if labels is not None}
        if len(known) == len(of):
            return known
    return None


def _flat(
    name: str, values: Any, trials: _Trials, read: Callable[[Any, str], np.ndarray]
) -> np.ndarray:
    """One value per trial, from a flat array or from a dict or list per mouse."""
    mice = trials.places
    if isinstance(values, (list, tuple)) and len(values) == len(mice) and np.ndim(values[0]) == 1:
        values = dict(zip(mice, values, strict=True))
    told = f"y_true and {name} are of different trials"
    if isinstance(values, Mapping):
        whose = f"mouse {{!r}}: {name}".format
        given = by_text(name, values)
        if not given:
            raise ValueError(f"{name} is an empty dict: expected {', '.join(map(repr, mice))}.")
        parts = {mouse: read(part, whose(mouse)) for mouse, part in given.items()}
        dtype = np.result_type(*parts.values())
        if (
            dtype.kind == "f"
            and read is as_ids
            and any(p.dtype.kind in "iu" for p in parts.values())
        ):
            parts = {mouse: part.astype(str) for mouse, part in parts.items()}
            dtype = np.result_type(*parts.values())
        flat = np.empty(len(trials), dtype=dtype)
        for mouse, at in mice.items():
            if mouse not in parts or parts[mouse].shape != at.shape:
                raise ValueError(
                    f"mouse {mouse!r}: {name} has "
                    + ("no entry" if mouse not in parts else f"shape {parts[mouse].shape}")
                    + f", expected one value for each of {len(at)} trials."
                )
            found = trials_of(given[mouse])
            order = order_like(trials.labels[mouse], found, f"mouse {mouse!r}: {told}", "trial")
            flat[at] = parts[mouse] if order is None else parts[mouse][order]
        return flat
    array = read(values, name)
    if array.shape != (len(trials),):
        raise ValueError(
            f"{name} has shape {array.shape}, expected one value for each of {len(trials)} trials."
        )
    order = order_like(trials.flat, trials_of(values), told, "trial")
    return array if order is None else array[order]


def _without_padding(sources: list[Source], matrices: list[np.ndarray]) -> list[np.ndarray]:
    """Cut the all-NaN columns at the right end that make the mice of one array equally wide."""
    exact = [m.shape[1] for s, m in zip(sources, matrices, strict=True) if not s.dense]
    if not exact:
        filled = [np.flatnonzero(~np.isnan(m).all(axis=0)) for m in matrices]
        exact = [max(columns[-1] + 1 if len(columns) else 0 for columns in filled)]
    return [
        m[:, : exact[0]] if s.dense and np.isnan(m[:, exact[0] :]).all() else m
        for s, m in zip(sources, matrices, strict=True)
    ]


def _in_order(labels: np.ndarray) -> list[str]:
    """Distinct labels in order of first appearance."""
    distinct, first = np.unique(labels, return_index=True)
    return [str(label) for label in distinct[np.argsort(first)]]

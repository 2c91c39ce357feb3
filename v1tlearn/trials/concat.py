"""`concat`: mice side by side, and sessions of one mouse one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import joblib
import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn._equality import same_arrays
from v1tlearn.trials._joining import along_trials, common_attrs, join, longer
from v1tlearn.trials._reading import check_one_kind, checked_recordings, compact, with_neurons
from v1tlearn.trials._view import View
from v1tlearn.trials.responses import Responses, RowsOfMouse
from v1tlearn.trials.trials import Trials


def concat(parts: Iterable[Any]) -> Trials | Responses | xr.DataTree:
    """Join trials, responses or recordings: mice side by side, one mouse along its trials.

    Mice that only one part has are not copied. A mouse that several parts have is taken to be the
    same animal with the same neurons: its unit ids and all that is known of the neurons, channels,
    image size, behaviour columns, units and dtypes must agree. Parts that are views of the same
    recordings are joined by their index alone. What is read lazily from files stays lazy.

    Movies may be longer in one part than in another: shorter ones end at their `n_frames`, and in
    NaN, or 0 in stimuli and behaviour of whole numbers. Their frames must be of one rate.

    Parameters
    ----------
    parts : iterable of Trials, of Responses, or of recordings
        All of one kind. Recordings are DataTrees with one child per mouse, children of such trees,
        dicts of datasets, or datasets whose attribute `mouse_id` names the mouse.

    Returns
    -------
    Trials, Responses or DataTree
        Of the kind of the parts. The trials stand one part after the other; mice come in the order
        of their first appearance.

    Raises
    ------
    TypeError
        If the parts are of several kinds, or of none of these.
    ValueError
        If a mouse differs between parts, a part lacks a variable that another has, trials were
        preprocessed in different ways, or responses bear different names. The mouse, the variable
        and what differs are named; nothing is cast or reordered, and filled behind the ends of
        movies alone. Responses to movies in whole numbers cannot end in NaN.

    Warns
    -----
    UserWarning
        Where statistics that came with the files, such as `responses_mean`, differ between parts of
        one mouse: they are left out, because they describe none but their own trials.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> recordings = v1.make_v1_recordings(n_mice=2, n_neurons=5, n_trials=20, random_state=0,
    ...                                    n_test_images=2, n_repeats=3, image_shape=(12, 16))
    >>> trials = v1.Trials(recordings)
    >>> len(v1.concat([trials.sel(tier="test"), trials.sel(tier="train")]))
    48
    >>> list(v1.concat([recordings["B"], recordings["A"]]).children)
    ['B', 'A']
    """
    parts = _listed(parts)
    kinds = [_kind(part) for part in parts]
    if len(set(kinds)) > 1:
        came = ", ".join(f"part {n} {type(part).__name__}" for n, part in enumerate(parts))
        raise TypeError(
            f"parts of several kinds came ({came}): expected all Trials, all Responses or all "
            "recordings. Trials(recordings) makes trials of recordings, trials.recordings makes "
            "recordings of trials."
        )
    if kinds[0] is Trials:
        return _join_trials(parts)
    if kinds[0] is Responses:
        return _join_responses(parts)
    return _join_recordings(parts)


def _listed(parts: Any) -> list[Any]:
    single = (View, xr.DataTree, xr.Dataset, Mapping, str, os.PathLike)
    if isinstance(parts, single) or not isinstance(parts, Iterable):
        raise TypeError(
            f"parts is a {type(parts).__name__}: expected a list of the parts, "
            "concat([first, second])."
        )
    parts = list(parts)
    if not parts:
        raise ValueError("there are no parts: expected at least one.")
    return parts


def _kind(part: Any) -> type:
    for kind in (Trials, Responses):
        if isinstance(part, kind):
            return kind
    if isinstance(part, xr.DataTree | xr.Dataset | Mapping):
        return xr.DataTree
    hint = ""
    if isinstance(part, str | os.PathLike):
        hint = ": open the files, open_recordings(path) or Trials.open(path)"
    elif isinstance(part, np.ndarray):
        hint = ": label arrays with Trials.from_arrays"
    raise TypeError(
        f"a {type(part).__name__} came: expected Trials, Responses or recordings{hint}."
    )


def _join_recordings(parts: Sequence[Any]) -> xr.DataTree:
    found: dict[str, dict[int, xr.Dataset]] = {}
    for number, part in enumerate(parts):
        try:
            own = checked_recordings(part)
        except (TypeError, ValueError) as error:
            raise type(error)(f"part {number}: {error}") from error
        for mouse, recording in own.items():
            found.setdefault(mouse, {})[number] = recording
    joined = {mouse: join(mouse, list(own.values()), list(own)) for mouse, own in found.items()}
    check_one_kind(joined)
    tree = xr.DataTree.from_dict(joined)
    trees = [p for p in parts if isinstance(p, xr.DataTree) and p.children]
    if len(trees) == len(parts):
        tree.attrs = common_attrs([part.attrs for part in trees])
    return tree


def _join_trials(parts: Sequence[Trials]) -> Trials:
    first = parts[0]
    for number, part in enumerate(parts[1:], 1):
        if not _same_steps(first._steps, part._steps):
            names = [[type(step).__name__ for step in p._steps] for p in (first, part)]
            raise ValueError(
                f"part 0 and part {number} were preprocessed in different ways ({names[0]} and "
                f"{names[1]}, or the same with other values): join first, and give the joined "
                "trials to the transformer."
            )
    mice = _mice(parts)
    joined, index = _join_views(parts, mice)
    return first._copy(_index=index, **joined)


def _join_responses(parts: Sequence[Responses]) -> Responses:
    names = list(dict.fromkeys(part.name for part in parts))
    if len(names) > 1:
        raise ValueError(
            f"the parts are called {names}: expected responses of one kind. To set one: "
            f"part.name = {names[0]!r}."
        )
    mice = _mice(parts)
    attrs: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    columns: dict[str, np.ndarray] = {}
    rows = [part._rows for part in parts]
    for mouse in mice:
        own = [n for n, part in enumerate(parts) if mouse in part.mice]
        of_mouse = [parts[n] for n in own]
        attrs[mouse] = _joined_attrs(mouse, of_mouse, own)
        if all(_same_source(of_mouse[0], part, mouse) for part in of_mouse[1:]):
            sources[mouse] = of_mouse[0]._sources[mouse]
            if mouse in of_mouse[0]._columns:
                columns[mouse] = of_mouse[0]._columns[mouse]
            continue
        _check_widths(mouse, of_mouse, own)
        values = _of_one_length(mouse, [_read_when_needed(part, mouse) for part in of_mouse])
        sources[mouse] = along_trials(values)
        starts = np.cumsum([0, *(len(v) for v in values)])
        for number, start in zip(own, starts, strict=False):
            places = parts[number].rows(mouse)[0]
            rows[number] = rows[number].copy()
            rows[number][places] = start + np.arange(len(places))
    joined, index = _join_views(parts, mice, with_data=False)
    return parts[0]._copy(
        _index=index,
        _rows=np.concatenate(rows),
        _sources=sources,
        _columns=columns,
        _attrs=attrs,
        **joined,
    )


def _join_views(
    parts: Sequence[View], mice: list[str], *, with_data: bool = True
) -> tuple[dict[str, Any], np.ndarray]:
    """Recordings, selected neurons and hashes of the joined view, and its index."""
    recordings: dict[str, xr.Dataset] = {}
    neurons: dict[str, np.ndarray] = {}
    hashes: dict[str, np.ndarray] = {}
    indices = [np.empty_like(part._index) for part in parts]
    for number, mouse in enumerate(mice):
        own = [(n, part) for n, part in enumerate(parts) if mouse in part.mice]
        of_mouse = [part for _, part in own]
        first = of_mouse[0]
        shared = all(part._recordings[mouse] is first._recordings[mouse] for part in of_mouse)
        if shared and all(_same_neurons(first, part, mouse) for part in of_mouse):
            recordings[mouse] = first._recordings[mouse]
            if mouse in first._neurons:
                neurons[mouse] = first._neurons[mouse]
            known = [part._hashes[mouse] for part in of_mouse if mouse in part._hashes]
            if known:
                hashes[mouse] = known[0]
            for n, part in own:
                places, rows = part.rows(mouse)
                indices[n][places] = np.column_stack([np.full(len(rows), number), rows])
            continue
        taken, start = [], 0
        for n, part in own:
            places, rows = part.rows(mouse)
            unique, inverse = np.unique(rows, return_inverse=True)
            taken.append(_part_of(part, mouse, unique, with_data))
            indices[n][places] = np.column_stack([np.full(len(rows), number), start + inverse])
            start += len(unique)
        recordings[mouse] = join(mouse, taken, [n for n, _ in own])
    check_one_kind(recordings)
    joined = {"_recordings": recordings, "_neurons": neurons, "_hashes": hashes}
    return joined, np.concatenate(indices)


def _part_of(part: View, mouse: str, rows: np.ndarray, with_data: bool) -> xr.Dataset:
    if with_data:
        recording = with_neurons(part._recordings[mouse], part._neurons.get(mouse))
        return recording.isel(trial=compact(rows))
    images = part._mouse_image_ids(mouse)
    labels = part._described(mouse).assign_coords(image_id=("trial", images))
    return labels.isel(trial=compact(rows))


def _mice(parts: Sequence[View]) -> list[str]:
    """The mice that have trials, in the order of their first appearance."""
    return list(dict.fromkeys(mouse for part in parts for mouse in part.mice)) or parts[0].mice


def _same_neurons(first: View, other: View, mouse: str) -> bool:
    one, two = first._neurons.get(mouse), other._neurons.get(mouse)
    return one is two or (one is not None and two is not None and same_arrays(one, two))


def _same_source(first: Responses, other: Responses, mouse: str) -> bool:
    one, two = first._columns.get(mouse), other._columns.get(mouse)
    same = one is two or (one is not None and two is not None and same_arrays(one, two))
    return same and first._sources[mouse] is other._sources[mouse]


def _same_steps(first: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    if len(first) != len(other):
        return False
    return all(
        one is two or joblib.hash(one) == joblib.hash(two)
        for one, two in zip(first, other, strict=True)
    )


def _joined_attrs(mouse: str, parts: Sequence[Responses], numbers: list[int]) -> dict[str, Any]:
    attrs = [part._attrs.get(mouse, {}) for part in parts]
    for number, other in zip(numbers[1:], attrs[1:], strict=True):
        if other.get("units") != attrs[0].get("units"):
            raise ValueError(
                f"mouse {mouse!r}: part {numbers[0]} and part {number} have the units "
                f"{attrs[0].get('units')!r} and {other.get('units')!r}: bring both to one unit."
            )
    return common_attrs(attrs)


def _read_when_needed(part: Responses, mouse: str) -> xr.Variable:
    """The responses of one mouse in their order; what lies in files stays there."""
    values: Any
    if getattr(part._sources[mouse], "_in_memory", True):
        values = part.get(mouse)
    else:
        values = indexing.LazilyIndexedArray(RowsOfMouse(part[part.rows(mouse)[0]], mouse))
    return xr.Variable(part._dims(mouse), values)


def _of_one_length(mouse: str, values: list[xr.Variable]) -> list[xr.Variable]:
    """Responses, those to movies up to the end of the longest one of all parts."""
    if any(one.ndim != 3 for one in values):
        return values
    n_frames = max(one.shape[1] for one in values)
    return [longer(mouse, "responses", one, n_frames) for one in values]


def _check_widths(mouse: str, parts: Sequence[Responses], numbers: list[int]) -> None:
    """Checked by the labels, too, where there are any."""
    first = parts[0]
    for number, part in zip(numbers[1:], parts[1:], strict=True):
        counts = first.n_neurons[mouse], part.n_neurons[mouse]
        if counts[0] != counts[1]:
            raise ValueError(
                f"mouse {mouse!r}: part {numbers[0]} has {counts[0]} neurons and part {number} "
                f"{counts[1]}: the same mouse is joined with the same neurons in the same order."
            )
        dtypes = first._source(mouse).dtype, part._source(mouse).dtype
        if dtypes[0] != dtypes[1]:
            raise ValueError(
                f"mouse {mouse!r}: part {numbers[0]} and part {number} have the dtypes {dtypes[0]} "
                f"and {dtypes[1]}: bring both to one."
            )

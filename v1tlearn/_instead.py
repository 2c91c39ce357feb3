"""What to write in place of an argument that is no `Trials` and no arrays, and of turned arrays.

Nothing is converted here: a wrong argument is named, with the call that was meant.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._paths import what_lies_at
from v1tlearn._values import as_ids, shape_of

_ARGUMENTS = ("stimuli", "behaviors", "responses", "mouse_ids", "image_ids", "tiers")
_AXES = "(trials, channels, height, width)"
_MOST_CHANNELS = 4
_FEW_PIXELS = 8  # images of fewer rows or columns may well have more channels


# ------------------------------------------------------------------------------------- recordings


def trials_instead(value: Any) -> tuple[str, str] | None:
    """Name what came in place of `Trials`, and the expression that makes trials of it."""
    if isinstance(value, xr.DataTree) and not value.children:
        return "a DataTree of one recording", "Trials(recording)"
    if isinstance(value, xr.DataTree):
        return "a DataTree of recordings", "Trials(recordings)"
    if isinstance(value, xr.Dataset):
        return "a Dataset", "Trials(recording)"
    if isinstance(value, Mapping | list | tuple) and len(value):
        kind = "dict" if isinstance(value, Mapping) else type(value).__name__
        entries = list(value.values() if isinstance(value, Mapping) else value)
        if all(isinstance(entry, xr.Dataset | xr.DataTree) for entry in entries):
            named = "recordings" if kind == "dict" else '{"A": recordings[0], ...}'
            return f"a {kind} of Datasets", f"Trials({named})"
        if all(_is_trials(entry) for entry in entries):
            joined = "list(parts.values())" if kind == "dict" else "parts"
            return f"a {kind} of Trials", f"v1tlearn.concat({joined})"
    if _is_trials(value):
        return "Trials", "trials"
    if isinstance(value, str | os.PathLike):
        found = what_lies_at(value)
        expression = found.as_trials()
        if expression is None:
            return f"the path {str(value)!r} ({found.said()})", "trials"
        return f"the path {str(value)!r}", expression
    if _is_responses(value):
        return "Responses", "trials"
    if _is_view(value):
        return f"only the {value.name} of trials", "trials"
    if hasattr(value, "get_params") and hasattr(value, "fit"):
        return f"a {_class_name(value)}", "trials"
    return None


def recordings_instead(value: Any) -> str:
    """Say what came in place of labelled recordings, and how these are had of it."""
    what = f"a {type(value).__name__} came"
    if isinstance(value, str | os.PathLike):
        found = what_lies_at(value)
        opened = found.as_recordings()
        return f"the path {str(value)!r} came: " + (
            f"open it, {opened}" if opened else found.said()
        )
    if hasattr(type(value), "mouse_ids"):
        return (
            f"{type(value).__name__} came, which are views of recordings already: those are "
            "trials.recordings, and several are joined by v1tlearn.concat([...])"
        )
    parts = value if isinstance(value, list | tuple) else []
    if any(isinstance(part, xr.Dataset | xr.DataTree) for part in parts):
        return (
            f'{what} that holds them: name the mice, {{"A": dataset, "B": dataset}}, or join '
            "recordings with v1tlearn.concat([...])"
        )
    return f"{what}. Plain arrays go through Trials.from_arrays"


def path_of(name: str, value: Any, call: str) -> Path:
    """Return an argument that is to be a path as one, or show the call that was meant."""
    if isinstance(value, str | os.PathLike):
        if "\x00" in os.fspath(value):
            raise ValueError(f"{name} is {value!r}: no path holds a null character.")
        return Path(value)
    raise TypeError(
        f"{name} is a {type(value).__name__}: expected a path, as text or a Path. The call is "
        f"{call}."
    )


def refuse_no_trials(value: Any, call: str, *, tables: bool = True) -> None:
    """Raise for what is neither `Trials` nor arrays, with the call that was meant."""
    found = None if _is_trials(value) else trials_instead(value)
    if found is not None:
        what, expression = found
        name = call.partition("(")[0]
        raise TypeError(
            f"{name} was given {what}: expected Trials, or arrays. Write {call.format(expression)}."
        )
    if not tables and hasattr(value, "columns") and hasattr(value, "iloc"):
        raise TypeError(
            f"stimuli is a {type(value).__name__}: expected Trials, or an array {_AXES}. A table "
            f"of behaviour is the second argument: {call.format('stimuli, behaviors, ...')}."
        )
    _refuse_tensors("stimuli", value)


def refuse_no_array(name: str, value: Any, attribute: str) -> None:
    """Raise for what cannot be an array of responses, with the expression that was meant."""
    if hasattr(value, "get_params") and hasattr(value, "predict"):
        raise TypeError(
            f"{name} is a {_class_name(value)}: pass what it predicts, model.predict(trials)."
        )
    if value is None or isinstance(value, type):
        what = "None" if value is None else f"the class {value.__name__}"
        raise TypeError(f"{name} is {what}: expected {attribute}.")
    if _is_responses(value) or (_is_trials(value) and attribute == "responses"):
        return  # the caller knows what to say of these
    found = trials_instead(value)
    if found is not None:
        what, expression = found
        raise TypeError(f"{name} is {what}: pass {expression}.{attribute}.")
    _refuse_tensors(name, value)


def _refuse_tensors(name: str, value: Any) -> None:
    """Refuse tensors that numpy cannot read where they are, or as they are."""
    if getattr(value, "is_sparse", False) or getattr(value, "is_sparse_csr", False):
        raise TypeError(f"{name} is a sparse tensor: give {name}.to_dense().numpy().")
    if getattr(value, "requires_grad", False) or getattr(value, "is_cpu", True) is False:
        raise TypeError(
            f"{name} is a tensor that numpy cannot read ({value.device}, requires_grad="
            f"{value.requires_grad}): give {name}.detach().cpu().numpy()."
        )


# Attributes are looked for on the class: reading one can mean to read a whole file.


def _is_trials(value: Any) -> bool:
    return all(
        hasattr(type(value), name) for name in ("responses", "recordings", "image_ids", "with_step")
    )


def _is_responses(value: Any) -> bool:
    return _is_view(value) and hasattr(type(value), "to_dataframe")


def _is_view(value: Any) -> bool:
    kind = type(value)
    return hasattr(kind, "mouse_ids") and hasattr(kind, "image_ids") and not _is_trials(value)


def _class_name(value: Any) -> str:
    return value.__name__ + " class" if isinstance(value, type) else type(value).__name__


# ----------------------------------------------------------------------------------------- arrays


def check_form(stimuli: Any, mouse_ids: Any) -> None:
    """Refuse arguments whose dicts and lists are of another kind than one entry per recording."""
    if isinstance(stimuli, Mapping) and not hasattr(stimuli, "shape"):
        if "stimuli" in stimuli and set(map(str, stimuli)) <= {*_ARGUMENTS, "positions"}:
            raise TypeError(
                f"stimuli is a dict with the keys {list(stimuli)}, the names of arguments: "
                "expected mice as keys. Spread it over the arguments: fit(**data)."
            )
        _check_entries("dict", list(stimuli.values()))
    elif isinstance(stimuli, list | tuple):
        _check_entries("list", list(stimuli))
        _check_images_in_list(stimuli)
        n = 0 if mouse_ids is None else math.prod(shape_of(mouse_ids) or (0,))
        arrays = all(hasattr(entry, "shape") for entry in stimuli)
        if arrays and n > len(stimuli) and n == sum(map(len, stimuli)):
            raise ValueError(
                f"stimuli is a list of {len(stimuli)} recordings but mouse_ids has {n} entries, "
                "one per trial: with lists give one id per recording, as in mouse_ids="
                f"{list(dict.fromkeys(np.asarray(mouse_ids).ravel().tolist()))}."
            )
    elif isinstance(mouse_ids, list | tuple | np.ndarray) and hasattr(stimuli, "shape"):
        n = len(stimuli) if len(stimuli.shape) else 0
        ids = as_ids(mouse_ids, "mouse_ids")
        if ids.ndim == 1 and 0 < len(ids) < n and len(set(ids.tolist())) == len(ids):
            raise ValueError(
                f"stimuli has {n} trials but mouse_ids has shape {ids.shape}: give one mouse id "
                "per trial, as in mouse_ids=numpy.repeat(mouse_ids, [trials of each mouse]), or "
                "lists or dicts with one entry per mouse."
            )


def _check_entries(kind: str, entries: list[Any]) -> None:
    for entry in entries:
        if isinstance(entry, Mapping) or (isinstance(entry, tuple) and _is_arrays(entry)):
            example = '{"A": array, ...}' if kind == "dict" else "[array, ...]"
            raise TypeError(
                f"stimuli is a {kind} of {type(entry).__name__}s that hold several variables: "
                f"expected one {kind} for each variable, fit(stimuli={example}, "
                f"behaviors={example}, responses={example})."
            )


def _check_images_in_list(stimuli: list | tuple) -> None:
    """Refuse lists with one entry per image."""
    if not len(stimuli):
        return
    shape: tuple[int, ...] = ()
    with suppress(TypeError, ValueError):
        shape = np.shape(stimuli[0])
    single = len(shape) == 2 or (len(shape) == 3 and shape[0] <= _MOST_CHANNELS)
    if single and len(stimuli) > 1:
        stack = "numpy.stack(stimuli)" + "[:, None]" * (len(shape) == 2)
        raise ValueError(
            f"stimuli is a list of {len(stimuli)} entries of shape {shape}, one image each: a list "
            f"means one entry {_AXES} per recording. Give the trials of one mouse as an array: "
            f"{stack}, and so behaviors and responses."
        )


def _is_arrays(entries: tuple) -> bool:
    return len(entries) > 1 and all(hasattr(e, "shape") and len(e.shape) > 1 for e in entries)


def check_axes(mouse: str, part: Mapping[str, Any], *, named: bool = False) -> None:
    """Refuse arrays of one mouse that are turned, swapped or lack an axis, with what mends it.

    Axes of stimuli that are `named` are what they are called.
    """
    shapes = {name: np.shape(value) for name, value in _arrays(part)}
    if "stimuli" not in shapes:
        return
    stimuli = shapes["stimuli"]
    for name in ("behaviors", "responses"):
        if len(shapes.get(name, ())) == 4 and len(stimuli) == 2:
            raise ValueError(
                f"mouse {mouse!r}: stimuli has shape {stimuli} and {name} {shapes[name]}: swapped? "
                "The order is fit(stimuli, behaviors, responses, mouse_ids)."
            )
    if not named and len(stimuli) in (4, 5):
        _refuse_channels_last(mouse, stimuli)
    if len(stimuli) == 5:
        return  # movies, whose other axes are checked where all are stacked
    if len(stimuli) != 4:
        raise ValueError(
            f"mouse {mouse!r}: stimuli has shape {stimuli}: expected {_AXES}."
            f"{_missing_axes(stimuli, shapes)}"
        )
    n = stimuli[0]
    for name, axis in (("behaviors", "columns"), ("responses", "neurons")):
        shape = shapes.get(name, ())
        if len(shape) != 2 or shape[0] == n:
            continue
        if shape[1] == n:
            raise ValueError(
                f"mouse {mouse!r}: {name} has shape {shape} for {n} stimuli: transposed? Expected "
                f"(trials, {axis}): give {name}.T."
            )
        if stimuli[-1] == shape[0]:
            raise ValueError(
                f"mouse {mouse!r}: stimuli has shape {stimuli} for {shape[0]} trials of {name}: "
                f"are trials the last axis? Expected {_AXES}: give numpy.moveaxis(stimuli, -1, 0), "
                "with channels next."
            )


def _refuse_channels_last(mouse: str, stimuli: tuple[int, ...]) -> None:
    channels = stimuli[-3]
    if channels > _FEW_PIXELS and (hint := channels_last(stimuli[-3:])):
        raise ValueError(
            f"mouse {mouse!r}: stimuli has shape {stimuli}.{hint} If there are {channels} channels "
            "indeed, name the axes: xarray.DataArray(stimuli, dims=[..., 'channel', 'height', "
            "'width'])."
        )


def _missing_axes(stimuli: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> str:
    others = [shapes[name] for name in ("behaviors", "responses") if name in shapes]
    if len(stimuli) > 4:
        return " Movies have a time axis: (trials, time, channels, height, width)."
    if others and all(len(shape) == 1 for shape in others) and len(stimuli) >= 2:
        given = [name for name in ("behaviors", "responses") if name in shapes]
        axes = "[None]" if len(stimuli) == 3 else "[None, None]"
        return (
            " One trial alone needs a trial axis: "
            + ", ".join([f"stimuli{axes}", *(f"{name}[None]" for name in given)])
            + "."
        )
    if len(stimuli) == 3:
        hint = " A gray image needs a channel axis: stimuli[:, None]."
        if not others and stimuli[0] <= _MOST_CHANNELS:
            hint += " One image alone needs a trial axis: stimuli[None]."
        return hint
    if len(stimuli) == 2 and any(shape[0] == stimuli[0] for shape in others):
        return " Flattened images get their axes back by stimuli.reshape(-1, 1, height, width)."
    if len(stimuli) == 2:
        return " One image alone needs axes for trials and channels: stimuli[None, None]."
    return ""


def _arrays(part: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Variables whose shape is known, without those that are lists of vectors."""
    for name, value in part.items():
        ragged = not hasattr(value, "shape") or str(getattr(value, "dtype", "")) == "object"
        if name == "stimuli" or not ragged:
            yield name, value


def channels_last(shape: tuple[int, ...], wanted: tuple[int, ...] | None = None) -> str:
    """Ask whether the channels are the last axis, where the shape of an image looks so."""
    turned = (shape[2], *shape[:2])
    like = turned == tuple(wanted) if wanted else shape[2] <= _MOST_CHANNELS < min(shape[:2])
    if not like:
        return ""
    return (
        f" Are the channels the last axis? Expected {_AXES}: give numpy.moveaxis(stimuli, -1, -3)."
    )

"""From `Responses` to means over trials, neurons and repeats, and to a table."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from v1tlearn._equality import same_arrays
from v1tlearn.datasets.time_axis import frames_of
from v1tlearn.trials._units import join_values, label_units
from v1tlearn.trials._view import View

V = TypeVar("V", bound=View)

_COLUMNS = 512  # neurons that are summed at once


def over_trials(responses: View) -> xr.DataArray:
    """Mean of each neuron over its trials, and their frames; all neurons on one axis."""
    values = [
        _nanmean(matrix.reshape(-1, matrix.shape[-1]), axis=0)
        for matrix in map(responses.get, responses.mice)
    ]
    neurons = {
        mouse: {"neuron": xr.Variable("neuron", responses.neuron_ids(mouse))}
        | {name: xr.as_variable(c) for name, c in responses._neuron_coords(mouse).items()}
        for mouse in responses.mice
    }
    return label_units(
        np.concatenate(values) if values else np.empty(0),
        neurons,
        name=responses.name,
        attrs=_shared_attrs(responses),
    )


def over_neurons(responses: View) -> xr.DataArray:
    """Mean of each trial over its neurons, in the order of the view."""
    if responses.n_frames is not None:
        raise ValueError(
            "the mean over neurons of movies has a time axis, which may differ between mice: take "
            "that of one mouse, responses[mouse].mean('neuron'), or first responses.mean('time')."
        )
    means = np.empty(len(responses))
    for mouse in responses.mice:
        means[responses.rows(mouse)[0]] = _nanmean(responses.get(mouse), axis=1)
    labels = {
        "mouse": responses.mouse_ids,
        "image_id": responses.image_ids,
        "tier": responses.tiers,
    }
    return xr.DataArray(
        means,
        dims="trial",
        coords={name: ("trial", values) for name, values in labels.items()},
        name=responses.name,
        attrs=_shared_attrs(responses),
    )


def over_repeats(responses: V) -> V:
    """Mean of each neuron over the repeats of each image, images as they first come."""
    recordings, sources, firsts = {}, {}, []
    for number, mouse in enumerate(responses.mice):
        positions, rows = responses.rows(mouse)
        images = responses._mouse_image_ids(mouse)[rows]
        _, first, codes = np.unique(images, return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        codes, first = np.argsort(order)[codes], first[order]
        values = responses.get(mouse)
        means = _mean_of_groups(values.reshape(len(values), -1), codes)  # frame by frame
        sources[mouse] = means.reshape(-1, *values.shape[1:])
        labels = responses._described(mouse).assign_coords(
            image_id=("trial", responses._mouse_image_ids(mouse))
        )
        recordings[mouse] = _of_all_repeats(labels.isel(trial=rows), first, codes)
        if values.ndim == 3:  # as far as any repeat goes
            longest = np.zeros(len(first), np.int64)
            np.maximum.at(longest, codes, frames_of(responses._recordings[mouse])[rows])
            recordings[mouse] = recordings[mouse].assign_coords(n_frames=("trial", longest))
        firsts += [(positions[place], number, row) for row, place in enumerate(first)]
    index = np.asarray([entry[1:] for entry in sorted(firsts)], dtype=np.int64).reshape(-1, 2)
    return responses._copy(
        _recordings=recordings,
        _sources=sources,
        _index=index,
        _rows=index[:, 1],
        _neurons={},
        _columns={},
        _hashes={},
    )


def over_time(responses: V) -> V:
    """Mean of each trial and neuron over the frames, as responses to images are."""
    if responses.n_frames is None:
        raise ValueError(
            "dim is 'time': expected 'trial', 'neuron' or 'image_id', as responses to images have "
            "no frames."
        )
    means = {mouse: _nanmean(responses.get(mouse), axis=1) for mouse in responses.mice}
    recordings = {}
    for mouse, recording in responses._recordings.items():
        timed = [name for name, found in recording.variables.items() if "time" in found.dims]
        ids = ("trial", responses._mouse_image_ids(mouse))
        recordings[mouse] = recording.assign_coords(image_id=ids).drop_vars([*timed, "n_frames"])
    averaged = responses._computed(means, responses.name, responses._attrs)
    return averaged._copy(_recordings=recordings, _hashes={})


def to_dataframe(responses: View) -> pd.DataFrame:
    """One row per trial and neuron; see `Responses.to_dataframe`."""
    name = responses.name or "value"
    per_trial = {"image_id": responses.image_ids}
    if set(responses.tiers.tolist()) - {""}:
        per_trial["tier"] = responses.tiers
    tables = []
    for mouse in responses.mice:
        positions, _ = responses.rows(mouse)
        matrix = responses[mouse]
        n_trials, n_neurons = matrix.shape[0], matrix.shape[-1]
        per_vector = matrix.size // n_trials  # values of a trial: neurons, of every frame
        columns: dict[str, Any] = {
            "mouse": np.full(matrix.size, mouse, dtype=object),
            "trial": np.repeat(positions, per_vector),
        }
        if matrix.ndim == 3:
            columns["time"] = np.tile(np.repeat(matrix["time"].values, n_neurons), n_trials)
        for label, values in per_trial.items():
            columns[label] = np.repeat(values[positions], per_vector)
        columns["neuron"] = np.tile(responses.neuron_ids(mouse), matrix.size // n_neurons)
        for label, coord in matrix.coords.items():
            if str(label) in columns:
                continue
            if coord.dims == ("neuron",):
                columns[str(label)] = np.tile(coord.values, matrix.size // n_neurons)
            elif coord.dims == ("trial",) and label != "n_frames":
                columns[str(label)] = np.repeat(coord.values, per_vector)
        if name in columns:
            raise ValueError(
                f"the responses are called {name!r}, as a column of labels is: give them another "
                'name before, responses.name = "response".'
            )
        columns[name] = matrix.values.ravel()
        table = pd.DataFrame(columns)
        if matrix.ndim == 3:
            there = np.arange(matrix.sizes["time"]) < matrix["n_frames"].values[:, None]
            table = table[np.repeat(there.ravel(), n_neurons)]
        tables.append(table)
    if not tables:
        return pd.DataFrame({c: [] for c in ("mouse", "trial", *per_trial, "neuron", name)})
    return join_tables(tables)


def join_tables(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables of several mice below each other; integers that one of them lacks stay integers."""
    columns = dict.fromkeys(column for table in tables for column in table)
    lacked = [column for column in columns if any(column not in table for table in tables)]
    kept = []
    for table in tables:
        whole = [c for c in lacked if c in table and table[c].dtype.kind in "iu"]
        kinds = {c: "UInt64" if table[c].dtype.kind == "u" else "Int64" for c in whole}
        kept.append(table.astype(kinds))
    joined = pd.concat(kept, ignore_index=True)
    for column in columns.keys() - lacked:
        parts = [table[column] for table in kept]
        if len({part.dtype for part in parts}) > 1:
            joined[column] = join_values(parts)
    return joined


def _shared_attrs(responses: View) -> dict[str, Any]:
    """Attributes that hold for all mice."""
    first, *others = [responses._attrs.get(mouse, {}) for mouse in responses.mice] or [{}]
    same = (k for k, v in first.items() if all(same_arrays(a.get(k), v) for a in others))
    return {name: first[name] for name in same}


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean in float64 of what is not NaN; NaN where nothing is left."""
    recorded = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sum(values, axis=axis, where=recorded, dtype=np.float64) / recorded.sum(axis)


def _mean_of_groups(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Means over the rows of each group, NaN left out: (rows, neurons) -> (groups, neurons)."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    starts = np.cumsum(counts) - counts
    means = np.empty((len(counts), values.shape[1]), np.result_type(values.dtype, np.float32))
    for start in range(0, values.shape[1], _COLUMNS):
        block = values[:, start : start + _COLUMNS]
        sums = np.zeros((len(counts), block.shape[1]))
        recorded = np.zeros(sums.shape, dtype=np.int64)
        for repeat in range(counts.max()):  # all groups at once
            of_group = np.flatnonzero(counts > repeat)
            rows = block[order[starts[of_group] + repeat]].astype(np.float64)
            is_recorded = ~np.isnan(rows)
            rows[~is_recorded] = 0
            sums[of_group] += rows
            recorded[of_group] += is_recorded
        with np.errstate(invalid="ignore"):
            means[:, start : start + _COLUMNS] = sums / recorded
    return means


def _of_all_repeats(labels: xr.Dataset, first: np.ndarray, codes: np.ndarray) -> xr.Dataset:
    """Labels of images: those of their first trials, if all their repeats share them."""
    differ = [
        name
        for name, label in labels.variables.items()
        if "trial" in label.dims
        and not np.array_equal(label.values, label.isel(trial=first[codes]).values)
    ]
    return labels.drop_vars(differ).isel(trial=first)

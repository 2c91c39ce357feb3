"""Trials, labelled arrays, recordings and models as users mix them up.

Every change says what must follow, as those of `odd_arrays` do.
"""

import numpy as np
import pandas as pd
import torch
import xarray as xr

import v1tlearn as v1
from tests.fuzz.odd_arrays import EITHER, REFUSED, SAME


def _trials_of(trials, **changes):
    """Trials of the same arrays but some; a function of an array, or None to leave one out."""
    names = ("stimuli", "behaviors", "responses")
    given = {n: {m: trials.get(n, m) for m in trials.mice} for n in names}
    given["image_ids"] = {m: trials.image_ids[trials.mouse_ids == m] for m in trials.mice}
    for name, change in changes.items():
        given[name] = change and {m: change(a) for m, a in given[name].items()}
    return v1.Trials.from_arrays(**given)


def _renamed(trials, names):
    return v1.Trials({names[m]: trials.recordings[m].to_dataset() for m in trials.mice})


def _one_wrong(value):
    def change(array):
        out = array.astype("f4")
        out.flat[out.size // 2] = value
        return out

    return change


TRIALS = {
    "as they are": (lambda t, r: t, SAME),
    "copied": (lambda t, r: v1.Trials(t.recordings), SAME),
    "in another order": (lambda t, r: t[::-1], EITHER),
    "of one mouse": (lambda t, r: t.sel(mouse_id=r.choice(t.mice)), EITHER),
    "one alone": (lambda t, r: t[:1], EITHER),
    "two": (lambda t, r: t[:2], EITHER),
    "half": (lambda t, r: t[::2], EITHER),
    "twice": (lambda t, r: v1.concat([t, t]), EITHER),
    "none": (lambda t, r: t[:0], EITHER),
    "of other mice": (lambda t, r: _renamed(t, {m: f"x{m}" for m in t.mice}), EITHER),
    "mice swapped": (
        lambda t, r: _renamed(t, dict(zip(t.mice, t.mice[::-1], strict=True))), EITHER,
    ),
    "a mouse called mean": (
        lambda t, r: _renamed(t, {m: "mean" if m == t.mice[0] else m for m in t.mice}), EITHER,
    ),
    "without responses": (lambda t, r: _trials_of(t, responses=None), EITHER),
    "without behaviour": (lambda t, r: _trials_of(t, behaviors=None), EITHER),
    "without ids": (lambda t, r: _trials_of(t, image_ids=None), EITHER),
    "one image": (lambda t, r: _trials_of(t, image_ids=lambda a: np.full(len(a), "x")), EITHER),
    "ids of their own": (
        lambda t, r: _trials_of(t, image_ids=lambda a: [f"{i}" for i in range(len(a))]), EITHER,
    ),
    "smaller images": (lambda t, r: _trials_of(t, stimuli=lambda a: a[..., :-2]), EITHER),
    "in colour": (lambda t, r: _trials_of(t, stimuli=lambda a: a.repeat(3, -3)), EITHER),
    "grey images": (lambda t, r: _trials_of(t, stimuli=lambda a: np.full_like(a, 127)), EITHER),
    "an image of NaN": (lambda t, r: _trials_of(t, stimuli=_one_wrong(np.nan)), EITHER),
    "an infinite pixel": (lambda t, r: _trials_of(t, stimuli=_one_wrong(np.inf)), EITHER),
    "fewer neurons": (lambda t, r: _trials_of(t, responses=lambda a: a[..., :-1]), EITHER),
    "a missing response": (lambda t, r: _trials_of(t, responses=_one_wrong(np.nan)), EITHER),
    "an infinite response": (lambda t, r: _trials_of(t, responses=_one_wrong(np.inf)), EITHER),
    "no responses at all": (
        lambda t, r: _trials_of(t, responses=lambda a: np.full_like(a, np.nan)), EITHER,
    ),
    "silent": (lambda t, r: _trials_of(t, responses=np.zeros_like), EITHER),
    "other behaviour": (lambda t, r: _trials_of(t, behaviors=lambda a: a[..., :3]), EITHER),
    "behaviour of NaN": (lambda t, r: _trials_of(t, behaviors=_one_wrong(np.nan)), EITHER),
    "still behaviour": (lambda t, r: _trials_of(t, behaviors=np.ones_like), EITHER),
    "their recordings": (lambda t, r: t.recordings, EITHER),
    "their responses": (lambda t, r: t.responses, EITHER),
    "their stimuli": (lambda t, r: t.stimuli, EITHER),
    "a dict of arrays": (lambda t, r: {m: t.get("stimuli", m) for m in t.mice}, EITHER),
    "an array": (lambda t, r: t.get("stimuli", t.mice[0]), EITHER),
    "a list of trials": (lambda t, r: [t], EITHER),
}  # fmt: skip


def _numbers(own, change):
    """A labelled array, or one variable of a dataset, with other numbers."""
    if isinstance(own, xr.DataArray):
        return own.copy(data=change(own.values))
    name = next(n for n in own.data_vars)
    return own.assign({name: own[name].copy(data=change(own[name].values))})


def _dropped(own, drawn):
    names = [*own.coords] + ([*own.data_vars] if isinstance(own, xr.Dataset) else [])
    return own.drop_vars(drawn.choice(names)) if names else own


def _relabelled(own, drawn, change):
    names = [n for n in own.dims if n in own.coords]
    if not names:
        return own
    name = drawn.choice(names)
    return own.assign_coords({name: change(own[name].values)})


def _with(value):
    def change(array):
        out = array.astype(np.result_type(array.dtype, np.float32))
        out.flat[out.size // 2] = value
        return out

    return change


LABELLED = {
    "as it is": (lambda a, r: a, SAME),
    "copied": (lambda a, r: a.copy(deep=True), SAME),
    "transposed": (lambda a, r: a.transpose(*[*a.dims][::-1]), SAME),
    "read-only": (lambda a, r: _read_only(a), SAME),
    "a name": (lambda a, r: a.rename("x") if isinstance(a, xr.DataArray) else a, SAME),
    "a dimension renamed": (lambda a, r: a.rename({r.choice([*a.dims]): "other"}), EITHER),
    "something dropped": (_dropped, EITHER),
    "without coordinates": (lambda a, r: a.drop_vars([*a.coords]), EITHER),
    "without attributes": (lambda a, r: a.drop_attrs(), EITHER),
    "one less": (lambda a, r: a.isel({r.choice([*a.dims]): slice(1, None)}), EITHER),
    "one": (lambda a, r: a.isel({r.choice([*a.dims]): slice(0, 1)}), EITHER),
    "none": (lambda a, r: a.isel({r.choice([*a.dims]): slice(0, 0)}), EITHER),
    "a dimension gone": (lambda a, r: a.isel({r.choice([*a.dims]): 0}), EITHER),
    "a dimension more": (lambda a, r: a.expand_dims("more"), EITHER),
    "backwards": (lambda a, r: a.isel({r.choice([*a.dims]): slice(None, None, -1)}), EITHER),
    "labels of text": (lambda a, r: _relabelled(a, r, lambda v: [f"x{i}" for i in v]), EITHER),
    "labels of NaN": (lambda a, r: _relabelled(a, r, lambda v: [np.nan] * len(v)), EITHER),
    "labels alike": (lambda a, r: _relabelled(a, r, lambda v: [v[0]] * len(v)), EITHER),
    "labels mixed": (lambda a, r: _relabelled(a, r, lambda v: [*v[1:], *v[:1]]), EITHER),
    "NaN": (lambda a, r: _numbers(a, _with(np.nan)), EITHER),
    "all NaN": (lambda a, r: a * np.nan if _is_numeric(a) else a, EITHER),
    "inf": (lambda a, r: _numbers(a, _with(np.inf)), EITHER),
    "negative": (lambda a, r: _numbers(a, lambda v: -np.abs(v.astype(float)) - 1), EITHER),
    "zero": (lambda a, r: _numbers(a, np.zeros_like), EITHER),
    "huge": (lambda a, r: _numbers(a, lambda v: v.astype(float) * 1e30), EITHER),
    "text": (lambda a, r: _numbers(a, lambda v: v.astype("U5")), EITHER),
    "complex": (lambda a, r: _numbers(a, lambda v: v.astype("c8")), EITHER),
    "objects": (lambda a, r: _numbers(a, lambda v: v.astype(object)), EITHER),
    "dates": (lambda a, r: _numbers(a, lambda v: v.astype("i8").astype("M8[s]")), EITHER),
    "truths": (lambda a, r: _numbers(a, lambda v: v.astype(bool)), EITHER),
    "numbers alone": (
        lambda a, r: a.values if isinstance(a, xr.DataArray) else a.to_dataframe(), EITHER,
    ),
    "tensor": (
        lambda a, r: torch.tensor(a.values) if isinstance(a, xr.DataArray) else a.to_dict(),
        EITHER,
    ),
    "the other class": (
        lambda a, r: a.to_dataset(name="x") if isinstance(a, xr.DataArray) else a.to_dataarray(),
        EITHER,
    ),
    "a list of it": (lambda a, r: [a], EITHER),
}  # fmt: skip


def _is_numeric(own):
    arrays = [own] if isinstance(own, xr.DataArray) else own.data_vars.values()
    return all(a.dtype.kind in "fiub" for a in arrays)


def _read_only(own):
    out = own.copy(deep=True)
    for array in [out] if isinstance(out, xr.DataArray) else out.data_vars.values():
        array.values.flags.writeable = False
    return out


def _swapped(given):
    return dict(zip(given, [*given.values()][::-1], strict=True))


MAPPINGS = {
    "as it is": (lambda d, r: dict(d), SAME),
    "backwards": (lambda d, r: dict(reversed(d.items())), EITHER),
    "values swapped": (lambda d, r: _swapped(d), EITHER),
    "empty": (lambda d, r: {}, EITHER),
    "unknown key": (lambda d, r: {**d, "unknown": next(iter(d.values()))}, EITHER),
    "number as key": (lambda d, r: {**d, 3: next(iter(d.values()))}, EITHER),
    "None as key": (lambda d, r: {None: next(iter(d.values()))}, EITHER),
    "other keys": (lambda d, r: {f"x{k}": v for k, v in d.items()}, EITHER),
    "its values": (lambda d, r: [*d.values()], EITHER),
    "its keys": (lambda d, r: [*d], EITHER),
    "its first value": (lambda d, r: next(iter(d.values())), EITHER),
    "series": (lambda d, r: pd.Series(d), EITHER),
    "values of None": (lambda d, r: dict.fromkeys(d), EITHER),
}


def _variable(change):
    def changed(recordings, drawn):
        mouse = drawn.choice([*recordings])
        return {**{m: recordings[m].to_dataset() for m in recordings},
                mouse: change(recordings[mouse].to_dataset(), drawn)}  # fmt: skip

    return changed


ODD_NAMES = ("", "a/b", "..", "A B", "é", 3, None, "\x00")
RECORDINGS = {
    "as they are": (lambda t, r: t, SAME),
    "a dict": (lambda t, r: {m: t[m].to_dataset() for m in t}, SAME),
    "a dict of trees": (lambda t, r: {m: t[m] for m in t}, EITHER),
    "one mouse": (lambda t, r: t[r.choice([*t])], EITHER),
    "one dataset": (lambda t, r: t[r.choice([*t])].to_dataset(), EITHER),
    "trials": (lambda t, r: v1.Trials(t), EITHER),
    "an empty tree": (lambda t, r: xr.DataTree(), EITHER),
    "a list": (lambda t, r: [t[m].to_dataset() for m in t], EITHER),
    "a variable gone": (
        _variable(lambda d, r: d.drop_vars(r.choice([*d.data_vars]))), EITHER,
    ),
    "a coordinate gone": (_variable(lambda d, r: d.drop_vars(r.choice([*d.coords]))), EITHER),
    "a variable as text": (
        _variable(lambda d, r: _other(d, r, lambda v: v.astype("U4"))), EITHER,
    ),
    "a variable as complex": (
        _variable(lambda d, r: _other(d, r, lambda v: v.astype("c8"))), EITHER,
    ),
    "a variable as objects": (
        _variable(lambda d, r: _other(d, r, lambda v: v.astype(object))), EITHER,
    ),
    "a variable with NaN": (
        _variable(lambda d, r: _other(d, r, _with(np.nan))), EITHER,
    ),
    "a variable with inf": (
        _variable(lambda d, r: _other(d, r, _with(np.inf))), EITHER,
    ),
    "a dimension renamed": (
        _variable(lambda d, r: d.rename({r.choice([*d.dims]): "other"})), EITHER,
    ),
    "a dimension empty": (
        _variable(lambda d, r: d.isel({r.choice([*d.dims]): slice(0, 0)})), EITHER,
    ),
    "a dimension gone": (_variable(lambda d, r: d.isel({r.choice([*d.dims]): 0})), EITHER),
    "odd tiers": (
        _variable(lambda d, r: d.assign_coords(tier=("trial", [None, *d["tier"].values[1:]]))),
        EITHER,
    ),
    "numbers as tiers": (
        _variable(lambda d, r: d.assign_coords(tier=("trial", np.arange(d.sizes["trial"])))),
        EITHER,
    ),
    "one neuron twice": (
        _variable(lambda d, r: d.assign_coords(neuron=[1] * d.sizes["neuron"])), EITHER,
    ),
    "an odd name": (
        lambda t, r: {r.choice(ODD_NAMES): t["A"].to_dataset()}, EITHER,
    ),
    "an attribute of objects": (
        _variable(lambda d, r: d.assign_attrs(x=r.choice((object, None, {1}, 1j, b"x")))), EITHER,
    ),
}  # fmt: skip


def _other(own, drawn, change):
    name = drawn.choice([*own.data_vars])
    with np.errstate(all="ignore"):
        return own.assign({name: (own[name].dims, change(own[name].values))})


TABLES = {
    "as it is": (lambda t, r: t, SAME),
    "no rows": (lambda t, r: t[:0], REFUSED),
    "no columns": (lambda t, r: t[[]], EITHER),
    "a column twice": (lambda t, r: pd.concat([t, t], axis=1), EITHER),
    "numbers as columns": (lambda t, r: t.set_axis(range(t.shape[1]), axis=1), EITHER),
    "columns in levels": (lambda t, r: pd.concat({"x": t, "y": t}, axis=1), EITHER),
    "rows in levels": (lambda t, r: t.set_index([*t.columns[:2]]), EITHER),
    "odd cells": (
        lambda t, r: t.assign(x=[r.choice((len, {1}, [1], 1j))] * len(t)),
        EITHER,
    ),
    "a dict": (lambda t, r: t.to_dict(), REFUSED),
    "an array": (lambda t, r: t.to_numpy(), REFUSED),
    "a column": (lambda t, r: t.iloc[:, 0], REFUSED),
}

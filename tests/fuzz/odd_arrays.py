"""Arrays as users hand them over: the same numbers in other clothes, and what is no such array.

Every change says what must follow: "same" where the numbers are those that were there, "refused"
where nothing sensible can be read of it, "either" where it is other data that may be taken.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

Change = Callable[[np.ndarray, Any], Any]

SAME, REFUSED, EITHER = "same", "refused", "either"


def _strided(array):
    out = np.zeros((len(array) * 2, *array.shape[1:]), array.dtype)[::2]
    out[...] = array
    return out


def _read_only(array):
    out = array.copy()
    out.flags.writeable = False
    return out


def _objects(array):
    out = np.empty(array.shape, object)
    out[...] = array
    return out


def _with(array, value, drawn, dtype=None):
    """One value replaced."""
    out = array.astype(dtype or np.result_type(array.dtype, np.float32))
    out.flat[drawn.randrange(max(1, out.size))] = value
    return out


def _replaced_object(array, value, drawn):
    out = _objects(array)
    out.flat[drawn.randrange(out.size)] = value
    return out


def _masked(array, drawn):
    mask = np.zeros(array.shape, bool)
    mask.flat[drawn.randrange(mask.size)] = True
    return np.ma.array(array, mask=mask)


def _ragged(array):
    rows = [row.tolist() for row in array]
    rows[-1] = rows[-1][:-1]
    return rows


CLOTHES: dict[str, Change] = {
    "as it is": lambda a, r: a,
    "strided": lambda a, r: _strided(a),
    "flipped twice": lambda a, r: a[::-1].copy()[::-1],
    "fortran": lambda a, r: np.asfortranarray(a),
    "read-only": lambda a, r: _read_only(a),
    "float64": lambda a, r: a.astype("f8"),
    "long double": lambda a, r: a.astype("g"),
    "big-endian": lambda a, r: a.astype(a.dtype.newbyteorder(">")),
    "list": lambda a, r: a.tolist(),
    "tuple of arrays": lambda a, r: tuple(a),
    "objects": lambda a, r: _objects(a),
    "tensor": lambda a, r: torch.from_numpy(a.copy()),
    "DataArray": lambda a, r: xr.DataArray(a),
    "masked nowhere": lambda a, r: np.ma.array(a),
    "subclass": lambda a, r: a.view(np.recarray) if r.random() < 0.5 else np.asarray(a),
    "transposed twice": lambda a, r: np.ascontiguousarray(a.T).T,
    "broadcast": lambda a, r: np.broadcast_to(a, a.shape),
}

NO_NUMBERS: dict[str, Change] = {
    "text": lambda a, r: a.astype("U8"),
    "bytes": lambda a, r: a.astype("S8"),
    "complex": lambda a, r: a.astype("c8"),
    "dates": lambda a, r: a.astype("i8").astype("M8[s]"),
    "durations": lambda a, r: a.astype("i8").astype("m8[s]"),
    "void": lambda a, r: np.zeros(a.shape, "V4"),
    "structured": lambda a, r: np.zeros(a.shape, [("a", "f4"), ("b", "i4")]),
    "ragged": lambda a, r: _ragged(a),
    "object of text": lambda a, r: _replaced_object(a, "x", r),
    "object of lists": lambda a, r: _replaced_object(a, [1], r),
    "object of complex": lambda a, r: _replaced_object(a, 1j, r),
    "function": lambda a, r: len,
    "class": lambda a, r: np.ndarray,
    "number": lambda a, r: 3,
    "word": lambda a, r: "stimuli.npy",
    "set": lambda a, r: {1, 2},
    "iterator": lambda a, r: iter(a),
    "dict of nothing": lambda a, r: {},
    "empty list": lambda a, r: [],
    "none in a list": lambda a, r: [None] * len(a),
    "no trials": lambda a, r: a[:0],
    "one less": lambda a, r: a[:-1],
    "one more": lambda a, r: np.concatenate([a, a[:1]]),
    "one trial": lambda a, r: a[:1],
    "one trial's array": lambda a, r: a[0],
    "one axis more": lambda a, r: a[..., None, None, None],
    "an axis in front": lambda a, r: a[None],
    "flat": lambda a, r: a.ravel(),
    "scalar array": lambda a, r: np.array(2.0),
    "no columns": lambda a, r: a[..., :0],
    "sparse tensor": lambda a, r: torch.from_numpy(a.astype("f4")).to_sparse(),
    "tensor that wants gradients": lambda a, r: torch.from_numpy(a.astype("f4")).requires_grad_(),
}

NOT_FINITE: dict[str, Change] = {
    "inf": lambda a, r: _with(a, np.inf, r),
    "-inf": lambda a, r: _with(a, -np.inf, r),
    "inf as object": lambda a, r: _replaced_object(a, float("inf"), r),
    "beyond float32": lambda a, r: _with(a, 1e300, r, "f8"),
}

MISSING: dict[str, Change] = {
    "NaN": lambda a, r: _with(a, np.nan, r),
    "None as object": lambda a, r: _replaced_object(a, None, r),
    "NA as object": lambda a, r: _replaced_object(a, pd.NA, r),
    "masked": lambda a, r: _masked(a, r),
}

OTHER: dict[str, Change] = {
    "zeros": lambda a, r: np.zeros_like(a),
    "constant": lambda a, r: np.full_like(a, 7),
    "half precision": lambda a, r: a.astype("f2"),
    "bool": lambda a, r: a.astype(bool),
    "int8": lambda a, r: a.astype("i1"),
    "uint64": lambda a, r: a.astype("u8"),
    "huge": lambda a, r: a.astype("f4") * np.float32(1e30),
    "tiny": lambda a, r: a.astype("f4") * np.float32(1e-30),
    "subnormal": lambda a, r: a.astype("f4") * np.float32(1e-42),
    "one is huge": lambda a, r: _with(a, 1e36, r),
    "whole numbers of int64": lambda a, r: a.astype("i8") * 2**54,
    "last axis shorter": lambda a, r: a[..., :-1],
    "last axis longer": lambda a, r: np.concatenate([a, a[..., :1]], -1),
    "trials in another order": lambda a, r: a[::-1],
    "a DataFrame": lambda a, r: pd.DataFrame(a.reshape(len(a), -1)),
}

NEGATIVE: dict[str, Change] = {
    "one is negative": lambda a, r: _with(a, -1.0, r),
    "all are negative": lambda a, r: -a.astype("f4") - 1,
}


def _verdicts(**groups):
    tables = {
        "clothes": CLOTHES,
        "no_numbers": NO_NUMBERS,
        "not_finite": NOT_FINITE,
        "missing": MISSING,
        "other": OTHER,
        "negative": NEGATIVE,
    }
    return [
        (name, change, verdict)
        for group, verdict in groups.items()
        for name, change in tables[group].items()
    ]


CHANGES = {
    "stimuli": _verdicts(
        clothes=SAME,
        no_numbers=REFUSED,
        not_finite=REFUSED,
        missing=REFUSED,
        other=EITHER,
        negative=EITHER,
    ),
    "behaviors": _verdicts(
        clothes=SAME,
        no_numbers=REFUSED,
        not_finite=REFUSED,
        missing=REFUSED,
        other=EITHER,
        negative=EITHER,
    ),
    "responses": _verdicts(
        clothes=SAME,
        no_numbers=REFUSED,
        not_finite=REFUSED,
        missing=EITHER,
        other=EITHER,
        negative=EITHER,
    ),
    "positions": _verdicts(
        clothes=SAME,
        no_numbers=REFUSED,
        not_finite=REFUSED,
        missing=REFUSED,
        other=EITHER,
        negative=EITHER,
    ),
}

LABELS = {
    "one less": (lambda v, r: v[:-1], REFUSED),
    "one more": (lambda v, r: [*v, v[-1]], REFUSED),
    "none": (lambda v, r: [None, *v[1:]], REFUSED),
    "NaN": (lambda v, r: [float("nan"), *v[1:]], REFUSED),
    "blank": (lambda v, r: ["  ", *v[1:]], REFUSED),
    "NaT": (lambda v, r: [pd.NaT, *v[1:]], REFUSED),
    "masked": (lambda v, r: np.ma.array(v, mask=[1] + [0] * (len(v) - 1)), REFUSED),
    "nested": (lambda v, r: [[label] for label in v], REFUSED),
    "two columns": (lambda v, r: np.array([v, v]).T, REFUSED),
    "number": (lambda v, r: 3, REFUSED),
    "function": (lambda v, r: len, REFUSED),
    "empty": (lambda v, r: [], REFUSED),
    "broken bytes": (lambda v, r: [b"\xff\xfe", *v[1:]], REFUSED),
    "array": (lambda v, r: np.array(v), SAME),
    "tuple": (lambda v, r: tuple(v), SAME),
    "objects": (lambda v, r: np.array(v, object), SAME),
    "series": (lambda v, r: pd.Series(v), SAME),
    "index": (lambda v, r: pd.Index(v), SAME),
    "categories": (lambda v, r: pd.Categorical(v), SAME),
    "bytes": (lambda v, r: [str(label).encode() for label in v], SAME),
    "read-only": (lambda v, r: _read_only(np.array(v)), SAME),
    "others": (lambda v, r: [f"x{i}" for i in range(len(v))], EITHER),
    "all one": (lambda v, r: [v[0]] * len(v), EITHER),
    "whole numbers": (lambda v, r: list(range(len(v))), EITHER),
    "fractions": (lambda v, r: [i + 0.5 for i in range(len(v))], EITHER),
    "truths": (lambda v, r: [i % 2 == 0 for i in range(len(v))], EITHER),
    "mixed": (lambda v, r: [1, "1", *v[2:]], EITHER),
    "paths": (lambda v, r: [f"../{label}" for label in v], EITHER),
    "long": (lambda v, r: ["x" * 10_000, *v[1:]], EITHER),
}

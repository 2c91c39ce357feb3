"""Arithmetic of `Responses`: with numbers, and with others of the same trials and neurons."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from typing import Any, Self

import numpy as np

from v1tlearn._equality import same_arrays
from v1tlearn.trials._selection import units_differ
from v1tlearn.trials._view import View

# Results whose unit is that of the operands, where these agree in it.
_SAME_UNIT = {np.add, np.subtract, np.negative, np.positive, np.absolute, np.fabs}
_SAME_UNIT |= {np.maximum, np.minimum, np.fmax, np.fmin}

# A response that was not recorded is neither larger nor smaller: as False it would be counted.
_NO_COMPARISON = (
    'Responses are not compared: compare the matrix of one mouse, responses["A"] > 0, or whole '
    "responses in tests by numpy.testing.assert_array_equal(one.get(mouse), other.get(mouse))."
)
_COMPARISONS = {np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal}


class Arithmetic(View):
    """Operators, and numpy's elementwise functions, trial by trial and neuron by neuron."""

    def __add__(self, other: Any) -> Self:
        return self._combine(np.add, self, other)

    def __radd__(self, other: Any) -> Self:
        return self._combine(np.add, other, self)

    def __sub__(self, other: Any) -> Self:
        return self._combine(np.subtract, self, other)

    def __rsub__(self, other: Any) -> Self:
        return self._combine(np.subtract, other, self)

    def __mul__(self, other: Any) -> Self:
        return self._combine(np.multiply, self, other)

    def __rmul__(self, other: Any) -> Self:
        return self._combine(np.multiply, other, self)

    def __truediv__(self, other: Any) -> Self:
        return self._combine(np.divide, self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return self._combine(np.divide, other, self)

    def __pow__(self, other: Any) -> Self:
        return self._combine(np.power, self, other)

    def __neg__(self) -> Self:
        return self._combine(np.negative, self)

    def __abs__(self) -> Self:
        return self._combine(np.absolute, self)

    def __eq__(self, other: Any) -> bool:
        if other is self or not _may_compare(other):
            return other is self
        raise TypeError(_NO_COMPARISON)

    __hash__ = object.__hash__

    def __lt__(self, other: Any) -> bool:
        raise TypeError(_NO_COMPARISON)

    __le__ = __gt__ = __ge__ = __lt__

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Apply numpy's elementwise functions: ``np.sqrt(responses)``."""
        if method != "__call__" or kwargs or ufunc.nout > 1 or ufunc.signature:
            raise TypeError(
                f"Responses take numpy's elementwise functions, np.sqrt(responses), not "
                f"{ufunc.__name__} by {method} with {sorted(kwargs)}: use responses.mean(...), or "
                'responses["A"] for the matrix of one mouse.'
            )
        if ufunc in _COMPARISONS:
            raise TypeError(_NO_COMPARISON)
        return self._combine(ufunc, *inputs)

    def _combine(self, function: np.ufunc, *operands: Any) -> Self:
        responses = [operand for operand in operands if isinstance(operand, Arithmetic)]
        for operand in operands:
            if not isinstance(operand, Arithmetic) and not _is_number(operand):
                raise TypeError(
                    f"{type(self).__name__} combine with numbers and with Responses of the same "
                    f"trials and neurons, not with a {type(operand).__name__}: label arrays with "
                    "Responses.from_arrays(values, like=trials), or take one mouse, "
                    'responses["A"].'
                )
        first = responses[0]
        for other in responses[1:]:
            check_alike(first, other)
        values = {}
        for mouse in first.mice:
            arrays = (_floats(o.get(mouse)) if isinstance(o, Arithmetic) else o for o in operands)
            with np.errstate(all="ignore"):  # as xarray does: what is undefined is NaN
                values[mouse] = function(*arrays)
            if values[mouse].dtype.kind == "c":
                raise TypeError(
                    f"mouse {mouse!r}: {function.__name__} gives complex numbers: responses are "
                    "real; for others take the matrix of one mouse, responses[mouse]."
                )
        names = {other.name for other in responses}
        return first._computed(
            values,
            name=names.pop() if len(names) == 1 else None,
            attrs={m: _attrs(function, operands, m) for m in first.mice},
        )


def check_alike(first: Any, other: Any) -> None:
    """Check that two `Responses` are of the same trials and neurons in the same order."""
    if len(first) != len(other) or not np.array_equal(first.mouse_ids, other.mouse_ids):
        counts = [{m: len(r.rows(m)[0]) for m in r.mice} for r in (first, other)]
        raise ValueError(
            "responses combine trial by trial of the same mice in the same order, but their trials "
            f"per mouse are {counts[0]} and {counts[1]}"
            + (" in another order" if counts[0] == counts[1] else "")
            + ": select the same trials of both."
        )
    for mouse in first.mice:
        n_first, n_other = first.n_neurons[mouse], other.n_neurons[mouse]
        if n_first != n_other:
            raise ValueError(
                f"mouse {mouse!r}: responses of {n_first} and of {n_other} neurons do not combine: "
                "select the same neurons of both, sel(neuron=...)."
            )
        check_unit_ids(mouse, first, other)
    _check_frames(first, other)
    if any(not same_rows(first, other, mouse) for mouse in first.mice):
        _check_labels(first, other)


def _check_frames(first: Any, other: Any) -> None:
    """Movies go together frame by frame."""
    one, two = first.n_frames, other.n_frames
    if one is None and two is None:
        return
    if one is None or two is None:
        raise ValueError(
            "responses to images and to movies do not combine: average the latter over their "
            'frames, responses.mean("time").'
        )
    if not same_arrays(one, two):
        trial = int(np.argmax(one != two))
        raise ValueError(
            f"mouse {str(first.mouse_ids[trial])!r}: trial {trial} has {one[trial]} frames in one "
            f"and {two[trial]} in the other: responses combine frame by frame of the same movies."
        )
    for mouse in first.mice:
        lengths = [view._recordings[mouse].sizes["time"] for view in (first, other)]
        if lengths[0] != lengths[1]:
            raise ValueError(
                f"mouse {mouse!r}: time axes of {lengths[0]} and of {lengths[1]} frames do not "
                "combine: take both of one recording."
            )


def check_unit_ids(mouse: str, first: Any, other: Any) -> None:
    """Check that two views of as many neurons of a mouse are of the same neurons in one order."""
    one, two = first._known_neuron_ids(mouse), other._known_neuron_ids(mouse)
    place = units_differ(one, two)
    if place is None:
        return
    a, b = one.tolist()[place], two.tolist()[place]
    raise ValueError(
        f"mouse {mouse!r}: the unit ids differ, first at place {place}: {a!r} and {b!r}. Responses "
        "go together neuron by neuron: bring both to the same neurons in the same order, "
        "sel(neuron=...)."
    )


def same_rows(first: Any, other: Any, mouse: str) -> bool:
    """Whether two views show the same rows of one recording of a mouse, without reading labels."""
    same = first._recordings[mouse] is other._recordings[mouse]
    return same and np.array_equal(first.rows(mouse)[1], other.rows(mouse)[1])


def labels_of(view: Any, name: str) -> np.ndarray | None:
    """Labels of the trials of a view of one mouse; None where its recording does not bear them."""
    (mouse,) = view.mice
    if name not in view._recordings[mouse].coords:
        return None
    return view._trial_labels(name)


def _check_labels(first: Any, other: Any) -> None:
    """Trials of other recordings, or read from a file, are the same where their labels are."""
    shared = first._names_of_labels()[0] & other._names_of_labels()[0]
    for name in ("image_id", "tier", *sorted(shared)):
        one, two = first._trial_labels(name), other._trial_labels(name)
        if name == "tier" and (set(one) == {""} or set(two) == {""}):
            continue  # one of them does not tell
        if one.dtype.kind != two.dtype.kind:
            one, two = one.astype(str), two.astype(str)
        if not same_arrays(one, two):
            place = int(np.argmax(one != two))
            raise ValueError(
                f"mouse {str(first.mouse_ids[place])!r}: {name} of trial {place} is "
                f"{one[place].item()!r} in one and {two[place].item()!r} in the other: responses "
                "combine trial by trial: bring both to the same order."
            )


def _floats(values: np.ndarray) -> np.ndarray:
    """Integers as floating point: their own arithmetic wraps around, unsigned at zero."""
    return values.astype(np.float64) if values.dtype.kind in "iub" else values


def _may_compare(other: Any) -> bool:
    return isinstance(other, Arithmetic | np.ndarray) or _is_number(other)


def _is_number(operand: Any) -> bool:
    return isinstance(operand, Number | np.generic) or (
        isinstance(operand, np.ndarray) and operand.ndim == 0 and operand.dtype.kind in "buif"
    )


def _attrs(function: np.ufunc, operands: tuple[Any, ...], mouse: str) -> Mapping[str, Any]:
    """Attributes that are true of the result."""
    kept = [o._attrs.get(mouse, {}) for o in operands if isinstance(o, Arithmetic)]
    same_unit = all(attrs.get("units") == kept[0].get("units") for attrs in kept)
    scaled = len(kept) == 1 and (
        function is np.multiply or (function is np.divide and isinstance(operands[0], Arithmetic))
    )
    if scaled or (function in _SAME_UNIT and same_unit):
        return {k: v for k, v in kept[0].items() if all(attrs.get(k) == v for attrs in kept)}
    return {}

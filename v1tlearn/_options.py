"""Options of functions, as users give them: words, names, numbers, counts; refused by name.

What `_values` reads of single values is put together here to what several functions ask for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from v1tlearn._values import as_array, as_names, as_number, as_whole, plain, shape_of


def as_word(value: Any, known: Sequence[str], name: str, more: str = "") -> str:
    """One of several words; `more` tells what else would do."""
    word = plain(value, name)
    if not isinstance(word, str) or word not in known:
        raise ValueError(f"{name}={value!r}: expected one of {known}{more}.")
    return word


def as_words(values: Any, name: str, *, of: str) -> list[str]:
    """Names of several mice or columns, or one of these alone."""
    if isinstance(values, str):
        return [values]
    if not isinstance(values, Iterable) or isinstance(values, bytes) or shape_of(values) == ():
        raise TypeError(f"{name}={values!r}: expected names, [{of!r}, ...].")
    return as_names(values, name, of=of)


def as_finite(value: Any, name: str, minimum: float = -math.inf) -> float:
    """One finite number that is not below `minimum`."""
    number = plain(value, name)
    real = isinstance(number, Real) and not isinstance(number, bool)
    if real and not math.isfinite(float(number)):
        raise ValueError(f"{name} is {number!r}: expected a finite number.")
    return as_number(value, name, minimum)


def as_numbers(values: Any, name: str, *, of: str = "entry") -> np.ndarray:
    """Numbers in float64, of any shape; truth values are none. NaN is for the caller to refuse."""
    array = as_array(values, name, of=of)
    if array.dtype == bool:
        raise TypeError(f"{name} holds truth values: expected numbers.")
    return array.astype(np.float64)


def as_verbosity(value: Any) -> int:
    """How much a call tells of its progress: a whole number from 0 on, or a truth value."""
    number = plain(value, "verbose")
    return int(number) if isinstance(number, bool) else as_whole(number, "verbose", 0)


def as_jobs(value: Any) -> int | None:
    """How many processes, as joblib counts them: None, or a whole number that is not 0."""
    number = plain(value, "n_jobs")
    if number is None:
        return None
    if not isinstance(number, Integral) or isinstance(number, bool) or number == 0:
        raise ValueError(
            f"n_jobs={value!r}: expected a whole number from 1 on, -1 for all processors, or None."
        )
    return int(number)

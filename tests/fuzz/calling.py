"""How functions are called with an argument changed: what it may become, and what is compared."""

import contextlib
import io
import warnings

import numpy as np
import xarray as xr

from tests.fuzz.odd_arrays import CLOTHES, LABELS, MISSING, NEGATIVE, NO_NUMBERS, NOT_FINITE, OTHER
from tests.fuzz.parameters import VALUES
from tests.fuzz.watched import within_time

MOST = 100  # of a number that is drawn for a count, a size or a share
OPTIONS = [v for v in VALUES if not (isinstance(v, int | float | np.integer) and abs(v) > MOST)]
ODD = CLOTHES | NO_NUMBERS | NOT_FINITE | MISSING | NEGATIVE | OTHER


@contextlib.contextmanager
def quiet():
    """Let nothing be said, and nothing take long."""
    with (
        within_time(30),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def changed_argument(value, drawn):
    """Say what was done to an argument, give it, and tell whether it means what it meant."""
    if isinstance(value, np.ndarray) and drawn.random() < 0.85:
        table = ODD if value.dtype.kind in "fiu" else LABELS
        label = drawn.choice([*table])
        change = table[label] if table is ODD else table[label][0]
        with np.errstate(all="ignore"):
            try:
                changed = change(value, drawn)
            except (ValueError, TypeError, IndexError):  # of arrays that have no such form
                return "as it is", value, True
        return label, changed, label in CLOTHES and label != "tuple of arrays"
    if isinstance(value, list) and drawn.random() < 0.85:
        place, label = drawn.randrange(len(value)), drawn.choice([*ODD])
        try:
            changed = [*value[:place], ODD[label](value[place], drawn), *value[place + 1 :]]
        except (ValueError, TypeError, IndexError):
            return "as it is", value, True
        return f"{place} is {label}", changed, False
    other = drawn.choice(OPTIONS)
    return repr(other), other, False


def alike(found, expected):
    """Whether two answers hold the same numbers."""
    if isinstance(found, xr.Dataset):
        return all(alike(found[name].values, expected[name].values) for name in expected)
    if isinstance(found, np.ndarray | xr.DataArray | float | int):
        ours, theirs = np.asarray(found), np.asarray(expected)
        return ours.shape == theirs.shape and np.allclose(
            ours.astype(float), theirs.astype(float), 1e-3, 1e-4, equal_nan=True
        )
    return True

"""What is read of a source, where rows of it are asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn.trials._reading import read


class Noted:
    """An array that notes how many rows are read, and in how many pieces."""

    def __init__(self, n):
        self.values = np.arange(3 * n).reshape(n, 3)
        self.shape, self.dtype = self.values.shape, self.values.dtype
        self.pieces, self.n_rows = 0, 0

    def __getitem__(self, key):
        found = self.values[key]
        self.n_rows += len(found)
        self.pieces += 1 if isinstance(key, slice) else len(found)
        return found


@given(st.lists(st.integers(0, 59), max_size=60), st.integers(0, 3))
def test_rows_come_in_the_order_asked_for(rows, gap):
    rows = np.array(rows + [5 + i for i in range(40) if i % 9 != gap], dtype=int)
    source = Noted(60)
    np.testing.assert_array_equal(read(source, rows), source.values[rows])


@pytest.mark.parametrize(
    ("rows", "pieces", "n_rows"),
    [
        (np.arange(40), 1, 40),
        (np.arange(40)[::-1], 1, 40),
        (np.delete(np.arange(40), [7, 8, 30]), 1, 40),  # a few are read in vain
        (np.r_[0:20, 30:50], 2, 40),
        (np.arange(0, 60, 2), 30, 30),  # half of it would be in vain
        (np.arange(0, 60, 3), 20, 20),
        (np.r_[0:20, 25, 40], 3, 22),
        (np.array([3, 50]), 2, 2),
        (np.array([], dtype=int), 0, 0),
    ],
)
def test_what_lies_in_a_row_is_read_at_once(rows, pieces, n_rows):
    source = Noted(60)
    np.testing.assert_array_equal(read(source, rows), source.values[rows])
    assert (source.pieces, source.n_rows) == (pieces, n_rows)

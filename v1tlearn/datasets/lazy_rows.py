"""Arrays that are read where they are indexed, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

Key = tuple[Any, ...]  # for each axis a number, numbers or a slice


class LazyRows(BackendArray):
    """An array whose rows a subclass reads, each axis indexed on its own."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def _read_rows(self, rows: np.ndarray, others: Key) -> np.ndarray:
        """Read rows, in any order, and of these what the keys of the other axes select."""
        raise NotImplementedError

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._indexed
        )

    def _indexed(self, key: Key) -> np.ndarray:
        values = self._read_rows(np.atleast_1d(np.arange(self.shape[0])[key[0]]), key[1:])
        return values[0] if is_number(key[0]) else values


def is_number(key: Any) -> bool:
    """Whether an axis is indexed by one number, and so goes."""
    return np.ndim(key) == 0 and not isinstance(key, slice)


def take(values: np.ndarray, key: Key) -> np.ndarray:
    """Index every axis but the first on its own, the last first because numbers drop an axis."""
    for axis in range(len(key), 0, -1):
        values = values[(slice(None),) * axis + (key[axis - 1],)]
    return values

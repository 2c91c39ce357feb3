"""Arrays that are read where they are indexed, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing


class LazyRows(BackendArray):
    """An array whose rows a subclass reads, each axis indexed on its own."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def _read_rows(self, rows: np.ndarray, others: list[Any]) -> np.ndarray:
        """Read rows, in any order, and of these what the keys of the other axes select."""
        raise NotImplementedError

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        rows, *others = key
        if isinstance(rows, int | np.integer):
            return self._read_rows(np.asarray([rows]), others)[0]
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.shape[0]))
        return self._read_rows(np.asarray(rows), others)

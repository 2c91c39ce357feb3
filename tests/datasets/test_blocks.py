import numpy as np
import xarray as xr

from v1tlearn.datasets.blocks import blocks


def test_blocks_cover_an_array_once_in_order():
    array = xr.DataArray(np.arange(70.0).reshape(10, 7))
    parts = list(blocks(array, block_bytes=3 * 7 * 8))
    assert [start for start, _ in parts] == [0, 3, 6, 9]
    np.testing.assert_array_equal(np.concatenate([block for _, block in parts]), array.values)
    assert all(len(block) == 1 for _, block in blocks(array, block_bytes=1))

"""Stores of recordings in which some trials are damaged: reading them is an error."""

import numpy as np


def spoil(path, values, kept):
    """Change a bit in all trials of a variable that a store holds uncompressed, but for some."""
    content, whole = bytearray(path.read_bytes()), np.ascontiguousarray(values).tobytes()
    start, n_bytes = content.find(whole), len(whole) // len(values)
    assert start >= 0
    for trial in set(range(len(values))) - set(kept):
        content[start + trial * n_bytes] ^= 1
    path.write_bytes(content)

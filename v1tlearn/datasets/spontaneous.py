"""Activity without stimuli beside the trials of a recording: what it has to look like."""

from __future__ import annotations

import numpy as np
import xarray as xr

from v1tlearn.datasets.blocks import blocks

SPONTANEOUS = (
    "spontaneous"  # the variable: consecutive frames by neurons, in the units of responses
)
SPONTANEOUS_DIMS = ("frame", "neuron")


def check_spontaneous(mouse: str, dataset: xr.Dataset) -> None:
    """Check dimensions and dtype of spontaneous activity, which may be missing; reads nothing."""
    if SPONTANEOUS not in dataset:
        return
    array = dataset.variables[SPONTANEOUS]
    if array.dims != SPONTANEOUS_DIMS or 0 in array.shape:
        raise ValueError(
            f"mouse {mouse!r}, {SPONTANEOUS}: dims are {array.dims} with shape {array.shape}, "
            f"expected {SPONTANEOUS_DIMS}, at least one frame of the same neurons as responses: "
            "transpose or drop it"
        )
    if array.dtype.kind not in "uif":
        raise ValueError(
            f"mouse {mouse!r}, {SPONTANEOUS}: dtype is {array.dtype}, expected numbers; convert it "
            'with .astype("float32")'
        )


def check_spontaneous_finite(mouse: str, dataset: xr.Dataset) -> None:
    """Look, block by block, for values that are not finite."""
    if SPONTANEOUS not in dataset or dataset[SPONTANEOUS].dtype.kind != "f":
        return
    for start, block in blocks(dataset[SPONTANEOUS]):
        bad = ~np.isfinite(block)
        if bad.any():
            frame = int(np.argmax(bad.any(axis=1)))
            raise ValueError(
                f"mouse {mouse!r}, {SPONTANEOUS}: {block[frame][bad[frame]][0]} in frame "
                f"{start + frame}; expected finite values: drop the frame, or the variable"
            )

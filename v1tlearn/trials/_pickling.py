"""What of the recordings a view takes along when it is pickled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn.trials._reading import with_neurons


def state_of_shown(
    recordings: Mapping[str, xr.Dataset], neurons: Mapping[str, np.ndarray], index: np.ndarray
) -> dict[str, Any]:
    """The attributes of a view of the mice that have trials in it.

    What is in memory comes with the neurons of the view only; of files, which are read on, the
    numbers of the neurons come.
    """
    numbers, places = np.unique(index[:, 0], return_inverse=True)
    names = list(recordings)
    kept: dict[str, xr.Dataset] = {}
    numbered: dict[str, np.ndarray] = {}
    for mouse in (names[k] for k in numbers):
        recording, own = recordings[mouse], neurons.get(mouse)
        if own is not None and not recording.variables["stimuli"]._in_memory:
            numbered[mouse] = own
        else:
            recording = with_neurons(recording, own)
        kept[mouse] = recording
    index = np.column_stack([places, index[:, 1]])
    return {"_recordings": kept, "_neurons": numbered, "_index": index}

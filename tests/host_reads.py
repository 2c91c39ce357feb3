"""Counts how often the host waits for the device, as it does where numbers are read."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class HostReads(TorchDispatchMode):
    """Counts what waits for the device: numbers read from tensors, shapes that depend on data."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        boolean_index = name in ("index", "index_put_", "_unsafe_index") and any(
            t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]
        )
        self.count += boolean_index or name.startswith(self.WAITS)
        return func(*args, **(kwargs or {}))

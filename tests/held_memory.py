"""How much memory tensors hold, counted and not measured: the same on every machine."""

import gc

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class HeldMemory(TorchDispatchMode):
    """Notes the most bytes that tensors made within it hold at a time, in this thread.

    What only cycles of dead objects hold does not count: when they are cleared away depends on
    what ran before.
    """

    def __init__(self):
        super().__init__()
        self.most, self._storages = 0, {}

    def __enter__(self):
        gc.collect()
        gc.freeze()  # so that collecting looks at new objects alone
        return super().__enter__()

    def __exit__(self, *raised):
        gc.unfreeze()
        return super().__exit__(*raised)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        if self._held() > self.most:
            gc.collect()
            self.most = max(self.most, self._held())
        return out

    def _held(self):
        self._storages = {k: v for k, v in self._storages.items() if not v[0].expired()}
        return sum(size for _, size in self._storages.values())

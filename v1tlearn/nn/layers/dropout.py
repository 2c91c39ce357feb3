"""Dropout of single elements."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn import fast
from v1tlearn.nn.fast.dropout import drop, drop_plainly


class Dropout(nn.Dropout):
    """Dropout of single elements (Srivastava et al. 2014), as torch's, but quick on the CPU."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs, of any shape, with some elements zero and the others scaled up in training."""
        if not self.training or self.p == 0:
            return inputs
        if not fast.is_plain():
            return drop(inputs, self.p)
        return drop_plainly(inputs, lambda x: F.dropout(x, self.p), axes=inputs.dim())

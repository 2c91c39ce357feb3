"""Dropout of single elements."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn import fast
from v1tlearn.nn.fast.dropout import drop


class Dropout(nn.Dropout):
    """Dropout of single elements (Srivastava et al. 2014), as torch's, but quick on the CPU."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs, of any shape, with some elements zero and the others scaled up in training."""
        if not self.training or self.p == 0:
            return inputs
        return F.dropout(inputs, self.p) if fast.is_plain() else drop(inputs, self.p)

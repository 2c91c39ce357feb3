"""The other ways to compute what the layers define, and the switch between them.

Compiled kernels, blocks and parts that stay in caches, and operations fused by torch.
"""

from v1tlearn.nn.fast.choice import is_plain, plain, using
from v1tlearn.nn.fast.kernels import kernel_types
from v1tlearn.nn.fast.variants import describe_kernels, kernel_variants

__all__ = ["using", "plain", "is_plain", "kernel_types", "kernel_variants", "describe_kernels"]

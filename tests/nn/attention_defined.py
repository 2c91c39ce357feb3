"""Attention as it is defined, in float64, and what tests of its quick forms share."""

import contextlib
import math

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def make_qkv(n_images, n_tokens, n_heads, head_dim, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(n_images, n_tokens, 3, n_heads, head_dim, generator=generator)
    return qkv.to(dtype).requires_grad_()


def plain_attention(qkv, *, scale, local=False, kept=1, dropout=0.0):
    """The definition, in float64, with the weights that are kept given."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = scale * q @ k.transpose(-1, -2)
    if local:
        scores = scores.masked_fill(torch.eye(scores.shape[-1], dtype=torch.bool), -torch.inf)
    weights = scores.softmax(-1) * kept / (1 - dropout)
    return (weights @ v).transpose(1, 2)


def relative_error(ours, theirs):
    """Norm of a difference in that of what is expected, or of a thousandth per element."""
    floor = 1e-3 * math.sqrt(theirs.numel())
    return float((ours.double() - theirs).norm() / max(theirs.norm(), floor))


@contextlib.contextmanager
def torch_threads(n_threads):
    """Have torch use so many threads, and as many as before afterwards."""
    n_before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(n_before)


class LargestTensor(TorchDispatchMode):
    """Notes the largest number of elements that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out

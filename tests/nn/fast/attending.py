"""What tests of attention share: the ways to attend, the definition, and which weights are kept."""

import contextlib
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from v1tlearn.nn import fast
from v1tlearn.nn.fast.blocked_attention import blocked_attention
from v1tlearn.nn.fast.compiled_attention import compiled_attention
from v1tlearn.nn.layers.attention import weigh
from v1tlearn.nn.layers.dropout import Dropout

TOLERANCES = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 2e-2}

# Only where none can be: `test_kernels_built.py` fails where one could have been built.
NO_KERNEL = "no kernel was built: they are for Linux and macOS, where there is a C compiler"
needs_a_kernel = pytest.mark.skipif(not fast.kernel_types(), reason=NO_KERNEL)
# Every variant that this processor runs, the best one first; "generic" runs everywhere.
VARIANTS = fast.kernel_variants()
WAYS = ("blocked", *(VARIANTS or ["compiled"]))
TYPES = {way: tuple(TOLERANCES) if way == "blocked" else fast.kernel_types() for way in WAYS}

each_variant = pytest.mark.parametrize(
    "way", [pytest.param(way, marks=needs_a_kernel) for way in WAYS[1:]]
)
with_and_without_local = pytest.mark.parametrize("local", [False, True])


def kind(way):
    """Blocks, or kernels of whatever variant."""
    return "blocked" if way == "blocked" else "compiled"


def using(way, *, parts=0.999):
    """Attend in blocks, or by a variant of the kernels; small inputs are shared out, too."""
    return fast.using(kind(way), parts=parts, variant=None if way == "blocked" else way)


def _compiled(variant):
    def attend(qkv, **options):
        with using(variant):
            return compiled_attention(qkv, **options)

    return attend


ATTEND = {"blocked": blocked_attention} | {variant: _compiled(variant) for variant in WAYS[1:]}


def _parameter(way, *dtype):
    """A way, and a type of numbers; skipped where there is no kernel for it."""
    marks = () if way == "blocked" else needs_a_kernel
    return pytest.param(way, *dtype, marks=marks, id="-".join([way, *(str(d)[6:] for d in dtype)]))


each_way = pytest.mark.parametrize("way", [_parameter(way) for way in WAYS])
each_way_and_type = pytest.mark.parametrize(
    ("way", "dtype"),
    [
        _parameter(way, dtype)
        for way in WAYS
        for dtype in TOLERANCES
        if way == "blocked" or dtype != torch.float64
    ],
)
each_variant_and_type = pytest.mark.parametrize(
    ("way", "dtype"),
    [_parameter(way, dtype) for way in WAYS[1:] for dtype in (torch.float32, torch.bfloat16)],
)


def make_qkv(n_images, n_tokens, n_heads, head_dim, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(n_images, n_tokens, 3, n_heads, head_dim, generator=generator)
    return qkv.to(dtype).requires_grad_()


def make_grad(n_images, n_tokens, n_heads, head_dim, dtype, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_images, n_tokens, n_heads, head_dim, generator=generator).to(dtype)


def definition(qkv, *, scale=1.0, local=False, kept=1, dropout=0.0):
    """Attention as the layer states it, with the weights that are kept given."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    weights = weigh(scale * q, k, local=local) * kept / (1 - dropout)
    return (weights @ v).transpose(1, 2)


def defined(qkv, grad, **options):
    """Output and gradient of the definition, in float64."""
    exact = qkv.detach().double().requires_grad_()
    out = definition(exact, **options)
    out.backward(grad.double())
    return out.detach(), exact.grad


def attend_and_go_back(way, qkv, grad, *, seed=3, **options):
    """Output and gradient of a way to attend after a seed."""
    qkv = qkv.detach().requires_grad_()
    torch.manual_seed(seed)
    out = ATTEND[way](qkv, **options)
    out.backward(grad)
    return out.detach(), qkv.grad


def kept_elements(shape, dtype, rate):
    """What `Dropout` keeps of elements of this shape."""
    return Dropout(rate)(torch.ones(shape, dtype=dtype)) != 0


def kept_weights(n_images, n_tokens, n_heads, head_dim, dtype, *, dropout, way="blocked"):
    """Which weights (B, H, N, N) are kept next, one column after another.

    All scores are zero; the values are the unit vectors, as many tokens at a time as fit.
    """
    columns, state = [], torch.get_rng_state()
    for start in range(0, n_tokens, head_dim):
        qkv = torch.zeros(n_images, n_tokens, 3, n_heads, head_dim, dtype=dtype)
        for token in range(start, min(start + head_dim, n_tokens)):
            qkv[:, token, 2, :, token - start] = 1
        torch.set_rng_state(state)
        columns.append(ATTEND[way](qkv, dropout=dropout)[..., : n_tokens - start] != 0)
    return torch.cat(columns, -1).transpose(1, 2)


def relative_error(ours, theirs):
    """Norm of a difference in that of what is expected, or of a thousandth per element."""
    floor = 1e-3 * math.sqrt(theirs.numel())
    return float((ours.double() - theirs).norm() / max(theirs.norm(), floor))


def nodes_behind(out):
    """What the gradient of an output goes through, by name."""
    found, nodes = {}, [out.grad_fn]
    while nodes:
        node = nodes.pop()
        found[node.name()] = node
        nodes += [following for following, _ in node.next_functions if following is not None]
    return found


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

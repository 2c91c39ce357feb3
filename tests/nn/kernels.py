"""What the compiled kernels can compute with here, for their tests."""

import pytest
import torch

from v1tlearn.nn import _compiled

TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
KNOWN_TYPES = sorted(_compiled.TYPES, key=str)


def skip_module_without_kernels():
    """Skip all tests of a module where there is no kernel for any type, and say why.

    Only where none can be: `test_kernels_built.py` fails where one could have been built.
    """
    if _compiled.kernel is None:
        reason = "no kernel was built: they are for Linux on x86-64, where there is a C compiler"
        pytest.skip(reason, allow_module_level=True)
    if not KNOWN_TYPES:
        reason = "this processor lacks the instructions of the kernels: AVX-512 F, BW, VL and DQ"
        pytest.skip(reason, allow_module_level=True)


def _if_known(dtype):
    """Type that a test is skipped for where there is no kernel for it."""
    name = str(dtype).removeprefix("torch.")
    unknown = pytest.mark.skipif(
        dtype not in KNOWN_TYPES, reason=f"this processor has no kernel for {name}"
    )
    return pytest.param(dtype, marks=unknown, id=name)


each_known_type = pytest.mark.parametrize("dtype", [_if_known(dtype) for dtype in TOLERANCES])

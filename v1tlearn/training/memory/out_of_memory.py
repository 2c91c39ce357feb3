"""Memory that ends: how it is recognised, whoever notices it first, and what is said."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

# What an error says where memory was asked for in vain, in the words of torch on CPUs and GPUs, of
# the libraries that it calls (cuDNN, cuBLAS), of C++ with GCC and with Microsoft's compiler, of the
# C library, of netCDF, and of Python where the stack of a thread finds no place.
_IN_VAIN = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "alloc_failed",
    "bad_alloc",
    "bad allocation",
    "memory allocation (malloc) failure",
    "can't start new thread",
)


class InsufficientMemoryError(MemoryError):
    """Memory did not suffice; the message says for what, and what helps."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory was asked for in vain, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _IN_VAIN)


@contextmanager
def remedies_named(what: str, remedies: Sequence[str], outcome: str = "") -> Iterator[None]:
    """Turn what is said when memory ends, whoever notices it first, into what helps.

    Parameters
    ----------
    what : str
        What is being done.
    remedies : sequence of str
        What the user can do, most promising first.
    outcome : str, default=""
        What has become of the model.

    Raises
    ------
    InsufficientMemoryError
        If memory does not suffice.
    """
    try:
        yield
    except InsufficientMemoryError:
        raise
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that fill the memory
        # torch and NumPy tell; the C++ library, where it is the first to find nothing, does not
        asked = re.search(r"(?:tried|unable) to allocate ([\d.]+ ?\w+)", str(error), re.IGNORECASE)
        raise InsufficientMemoryError(
            f"memory does not suffice for {what}"
            + (f" ({asked[1]} more were asked for)" if asked else "")
            + f". Any of these helps: {'; '.join(remedies)}."
            + (f" {outcome}" if outcome else "")
        ) from error

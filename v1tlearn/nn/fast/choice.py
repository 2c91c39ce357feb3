"""Which of several ways to compute the same is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch

from v1tlearn.nn.fast.variants import kernel_variants

_WAYS = ("auto", "compiled", "blocked", "plain")


class _Choice(NamedTuple):
    how: str = "auto"
    parts: float = 1.0
    variant: str | None = None


_DEFAULT = _Choice()
_choice: ContextVar[_Choice] = ContextVar("v1tlearn.nn.fast", default=_DEFAULT)


@contextmanager
def using(how: str, *, parts: float = 1.0, variant: str | None = None) -> Iterator[None]:
    """Choose, in this thread, how layers compute what they are defined to be.

    Parameters
    ----------
    how : {"auto", "compiled", "blocked", "plain"}
        "auto" takes what is quickest here. "compiled" takes compiled kernels wherever they can
        compute, also where torch may be quicker; "blocked" does without them; "plain" computes by
        the definitions, which have derivatives of any order.
    parts : float, default=1.0
        Size of the parts that are worked on at a time, as a share of the one that suits caches and
        memory. Below 1, threads share little work, too.
    variant : str, optional
        Of the compiled kernels, one of `kernel_variants`; by default the first, which is the best.

    Raises
    ------
    ValueError
        If `how` is none of these, `parts` not positive, or `variant` none that runs here.
    """
    if how not in _WAYS:
        raise ValueError(f"how must be one of {', '.join(map(repr, _WAYS))}, got {how!r}.")
    if not parts > 0:
        raise ValueError(f"parts must be positive, got {parts}.")
    if variant is not None and variant not in kernel_variants():
        here = ", ".join(map(repr, kernel_variants())) or "none"
        raise ValueError(f"variant must be one of those that run here ({here}), got {variant!r}.")
    token = _choice.set(_Choice(how, parts, variant))
    try:
        yield
    finally:
        _choice.reset(token)


def plain() -> AbstractContextManager[None]:
    """Compute by the plain definitions: slower, and with derivatives of any order.

    Results are those of the quick ways but for rounding, and for what dropout draws. Under the
    transforms of `torch.func` layers are plain anyway.

    Returns
    -------
    context manager
        For the thread that enters it; the same as ``fast.using("plain")``.

    Examples
    --------
    >>> import torch
    >>> from v1tlearn import nn
    >>> core = nn.Stacked2dCore((1, 9, 9), n_layers=2, hidden_channels=3).eval()
    >>> with nn.plain():
    ...     hessian = torch.autograd.functional.hessian(
    ...         lambda images: core(images).square().sum(), torch.ones(1, 1, 9, 9)
    ...     )
    >>> bool(hessian.any())
    True
    """
    return using("plain")


def is_plain() -> bool:
    """Tell whether layers are to compute by their definitions now.

    Inside `plain`, and under the transforms of `torch.func`, which follow those only. Never where
    torch compiles, which makes quick forms of its own.
    """
    if torch.compiler.is_compiling():
        return False
    return _choice.get().how == "plain" or transformed()


def _current() -> _Choice:
    return _DEFAULT if torch.compiler.is_compiling() else _choice.get()


def transformed() -> bool:
    """Tell whether a transform of `torch.func` is active."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def chosen() -> str:
    """Name of the way that was chosen, see `using`."""
    return _current().how


def chosen_variant() -> str:
    """Name of the variant of the compiled kernels that is used, where there are any."""
    return _current().variant or kernel_variants()[0]


def sized(size: int) -> int:
    """Size of a part, at least 1, where this one suits: see `using`."""
    return max(1, int(size * _current().parts))


def worth_threads(work: int, least: int) -> bool:
    """Tell whether threads share work; below `least`, starting them costs more than they save."""
    return work >= (least if _current().parts >= 1 else 1)

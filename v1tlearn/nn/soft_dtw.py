"""Soft dynamic time warping: how far apart two sequences are that need not keep step."""

from __future__ import annotations

import torch
from torch import Tensor

from v1tlearn.nn import fast
from v1tlearn.nn.fast.compiled_warping import CompiledWarping, takes_warping
from v1tlearn.nn.fast.warping import SoftDTW, SquaredDistances


def soft_dtw(x: Tensor, y: Tensor, *, gamma: float = 0.1) -> Tensor:
    """Soft minimum, over all monotone alignments of two sequences, of their summed costs.

    With the squared Euclidean distance D as the cost of aligned frames, the value is R of the last
    cell of ``R_ij = D_ij - gamma log(sum exp(-R' / gamma))``, where R' goes over the cells above,
    to the left and both (Cuturi and Blondel 2017). Computed in float64 where the device has it; the
    gradient is exact, the share of all alignments that pass each cell.

    Parameters
    ----------
    x : Tensor of shape (n, length, d)
        Sequences of frames, such as responses of d neurons.
    y : Tensor of shape (n, other length, d)
        Row i is aligned with row i of `x`.
    gamma : float, default=0.1
        Softness, in units of the squared distance. With 0 excluded, the smaller, the closer to the
        alignment of least cost.

    Returns
    -------
    Tensor of shape (n,)
        In the type of the sequences, float32 at least. Negative for sequences that are alike: an
        alignment among many costs ``-gamma log`` of their number.

    Raises
    ------
    ValueError
        If shapes do not fit, a sequence is empty, or the softness is not positive.

    See Also
    --------
    soft_dtw_divergence : The same, but 0 for equal sequences and never negative.
    """
    _check(x, y, gamma)
    if (found := _compiled(x, y, gamma, divergence=False)) is not None:
        return found
    return _values(_distances(x, y)[:, : x.shape[1], x.shape[1] :], gamma).to(_type_of(x, y))


def soft_dtw_divergence(x: Tensor, y: Tensor, *, gamma: float = 0.1) -> Tensor:
    """Soft-DTW of two sequences, less the mean of that of each with itself.

    ``s(x, y) - (s(x, x) + s(y, y)) / 2`` (Blondel et al. 2021): not negative, and 0 where both
    are equal.

    Parameters
    ----------
    x : Tensor of shape (n, length, d)
        Sequences of frames, such as responses of d neurons.
    y : Tensor of shape (n, other length, d)
        Row i is aligned with row i of `x`.
    gamma : float, default=0.1
        Softness, see `soft_dtw`.

    Returns
    -------
    Tensor of shape (n,)
        In the type of the sequences, float32 at least.

    Raises
    ------
    ValueError
        If shapes do not fit, a sequence is empty, or the softness is not positive.

    Examples
    --------
    >>> import torch
    >>> from v1tlearn import nn
    >>> x = torch.tensor([[[0.0], [1.0], [0.0]]])
    >>> round(nn.soft_dtw_divergence(x, x).item(), 6)
    0.0
    >>> late = torch.tensor([[[0.0], [0.0], [1.0], [0.0]]])
    >>> bool(nn.soft_dtw_divergence(x, late) < nn.soft_dtw_divergence(x, 0 * x))
    True
    """
    _check(x, y, gamma)
    if (found := _compiled(x, y, gamma, divergence=True)) is not None:
        return found
    distances, n = _distances(x, y), x.shape[1]
    tables = distances[:, :n, n:], distances[:, :n, :n], distances[:, n:, n:]
    if x.shape == y.shape:  # all three at once
        between, of_x, of_y = _values(torch.cat(tables), gamma).chunk(3)
    else:
        between, of_x, of_y = (_values(table, gamma) for table in tables)
    return (between - (of_x + of_y) / 2).to(_type_of(x, y))


def _check(x: Tensor, y: Tensor, gamma: float) -> None:
    fit = x.ndim == y.ndim == 3 and x.shape[::2] == y.shape[::2] and x.shape[1] and y.shape[1]
    if not fit:
        raise ValueError(
            f"sequences of the shapes {tuple(x.shape)} and {tuple(y.shape)}: expected (n, length, "
            "d) with equal n and d, and at least one frame each."
        )
    if not gamma > 0:
        raise ValueError(f"gamma={gamma}: expected a positive number.")


def _type_of(x: Tensor, y: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)


def _compiled(x: Tensor, y: Tensor, gamma: float, *, divergence: bool) -> Tensor | None:
    """Values (n,) by the compiled kernel, or None where it is not to be taken, or cannot."""
    if fast.is_plain() or not takes_warping(x, y):
        return None
    kind = _type_of(x, y)
    return CompiledWarping.apply(x.to(kind), y.to(kind), gamma, divergence)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (n, p + q, p + q) of the frames of both sequences, each with each."""
    precise = torch.float32 if x.device.type == "mps" else torch.float64
    if not fast.is_plain():
        return SquaredDistances.apply(x, y, precise)
    frames = torch.cat((x.to(precise), y.to(precise)), 1)
    return (frames[:, :, None] - frames[:, None]).square().sum(3)


def _values(costs: Tensor, gamma: float) -> Tensor:
    """Soft-DTW (n,) of tables of costs (n, p, q)."""
    if not fast.is_plain():
        return SoftDTW.apply(costs.permute(1, 2, 0).contiguous(), gamma)
    _, p, q = costs.shape
    reached: dict[tuple[int, int], Tensor] = {}
    for i in range(p):
        for j in range(q):
            steps = [reached[c] for c in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if c in reached]
            soft = -gamma * (torch.stack(steps) / -gamma).logsumexp(0) if steps else 0
            reached[i, j] = costs[:, i, j] + soft
    return reached[p - 1, q - 1]

"""Scores of torch tensors, on their device and without waiting for it, for validation.

The correlation gives the same numbers as `single_trial_correlation` of arrays. Both scores are
sums over trials, so that trials may come in parts: `CorrelationSums`, `VarianceSums`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from v1tlearn._rounding import ROUNDING_FLOAT32, ROUNDING_FLOAT64


class _Moments(NamedTuple):
    """Sums over some trials, about their own mean, of k variables; (k, neurons) or (neurons,)."""

    count: Tensor  # type: ignore[assignment]  # of trials recorded, not the method of tuples
    origin: Tensor  # what the mean counts from
    mean: Tensor
    squares: Tensor  # of what differs from the mean
    products: Tensor  # of two variables, likewise; (neurons,)


def _moments(values: Tensor, recorded: Tensor, origin: Tensor) -> _Moments:
    """Sums of values (k, n, neurons); the origin is (k, neurons)."""
    count = recorded.sum(dim=0).to(values.dtype)
    values = torch.where(recorded, values - origin[:, None], 0)
    mean = values.sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(recorded, values - mean, 0)
    products = (centred[0] * centred[-1]).sum(dim=0)
    return _Moments(count, origin, mean[:, 0], centred.square().sum(dim=1), products)


def _joined(one: _Moments, other: _Moments) -> _Moments:
    """Sums over the trials of both (Chan, Golub and LeVeque 1983)."""
    count = one.count + other.count
    origin = torch.where(one.count > 0, one.origin, other.origin)
    both = (one.count > 0) & (other.count > 0)
    means = [m.mean + torch.where(m.count > 0, m.origin - origin, 0) for m in (one, other)]
    apart = torch.where(both, means[1] - means[0], 0)
    share = other.count / count.clamp(min=1)
    weight = one.count * share
    return _Moments(
        count,
        origin,
        torch.where(one.count > 0, means[0] + apart * share, means[1]),
        one.squares + other.squares + apart.square() * weight,
        one.products + other.products + apart[0] * apart[-1] * weight,
    )


class _Sums:
    """Moments of trials that come in parts, and what else is known of them."""

    _joining: ClassVar[tuple[Callable[[Tensor, Tensor], Tensor], ...]]  # of all else, in order

    def __init__(self) -> None:
        self._moments: _Moments | None = None
        self._others: tuple[Tensor, ...] = ()

    def _join(self, found: _Moments, *others: Tensor) -> Self:
        if self._moments is None:
            self._moments, self._others = found, others
        else:
            self._moments = _joined(self._moments, found)
            pairs = zip(self._joining, self._others, others, strict=True)
            self._others = tuple(join(one, other) for join, one, other in pairs)
        return self

    @property
    def _known(self) -> _Moments:
        assert self._moments is not None  # of some trials, or none
        return self._moments

    def _origin(self, own: Tensor) -> Tensor:
        """Where moments count from: as before, so that parts differ by what they differ by."""
        if self._moments is None:
            return own
        return torch.where(self._moments.count > 0, self._moments.origin, own)

    def parts(self) -> list[Tensor]:
        """All sums, for those who put those of several together, see `join`.

        Returns
        -------
        list of Tensor
        """
        return [*self._known, *self._others]

    def join(self, every: Sequence[list[Tensor]]) -> None:
        """Hold the sums of several, in place of its own.

        Parameters
        ----------
        every : sequence of list of Tensor
            As `parts` gives them.
        """
        self._moments, n = None, len(_Moments._fields)
        for parts in every:
            self._join(_Moments(*parts[:n]), *parts[n:])


class CorrelationSums(_Sums):
    """What Pearson's correlation over trials needs, of trials that come in parts.

    Notes
    -----
    Values are taken relative to each neuron's first recorded trial, so that large means do not
    cancel and a constant neuron has a variance of exactly 0.
    """

    _joining = (torch.maximum,)  # of the largest absolute values, (2, neurons)
    _dtypes: tuple[torch.dtype, torch.dtype]

    def add(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Self:
        """Add trials; see `correlation`.

        Parameters
        ----------
        prediction, target : Tensor (n, neurons)
        mask : bool Tensor (n, neurons), optional

        Returns
        -------
        CorrelationSums
            Itself.
        """
        recorded, dtype = _recorded(prediction, target, mask), _wide(target)
        values = torch.stack([prediction.to(dtype), target.to(dtype)])  # (2, n, neurons)
        if not len(target):
            nothing = values.sum(dim=1)
            found, largest = _Moments(nothing[0], *(nothing,) * 3, nothing[0]), nothing
        else:
            largest = torch.where(recorded, values.abs(), 0).amax(dim=1)  # (2, neurons)
            first = recorded.int().argmax(dim=0)  # (neurons,) 0 where nothing is recorded
            origin = values.gather(1, first.expand(2, 1, -1))[:, 0]
            found = _moments(values, recorded, self._origin(origin))
        self._dtypes = prediction.dtype, target.dtype
        return self._join(found, largest)

    def value(self) -> Tensor:
        """Correlation of each neuron over all trials that were added; see `correlation`.

        Returns
        -------
        Tensor (neurons,)
        """
        count, squares = self._known.count, self._known.squares
        varies = [
            (square / count).sqrt() > _rounding(kind) * size
            for square, kind, size in zip(squares, self._dtypes, self._others[0], strict=True)
        ]
        scale = squares[0].sqrt() * squares[1].sqrt()
        r = (self._known.products / scale).clamp(-1, 1)
        return torch.where(count < 2, torch.nan, torch.where(varies[0] & varies[1], r, 0))


@torch.no_grad()
def correlation(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pearson's correlation over trials of each neuron.

    Parameters
    ----------
    prediction : Tensor (n, neurons)
        Predicted responses, any floating dtype.
    target : Tensor (n, neurons)
        Recorded responses; NaN where not recorded.
    mask : bool Tensor (n, neurons), optional
        False where `target` is to be left out, in addition to NaN.

    Returns
    -------
    Tensor (neurons,)
        0 where prediction or target is constant up to rounding (as in `v1tlearn.metrics`) or
        predictions are not finite, NaN with fewer than two recorded trials.
        float64, or float32 on devices that have no float64.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    return CorrelationSums().add(prediction, target, mask).value()


class VarianceSums(_Sums):
    """What the share of explained variance needs, of trials that come in parts.

    Parameters
    ----------
    least : float, default=0.0
        What the variance counts as where it is less; summed over trials.
    """

    _joining = (torch.add, torch.minimum)  # of squared errors; of lowest and negative highest

    def __init__(self, least: float = 0.0) -> None:
        super().__init__()
        self._least = least

    def add(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Self:
        """Add trials; see `variance_explained`.

        Parameters
        ----------
        prediction, target : Tensor (n, neurons)
        mask : bool Tensor (n, neurons), optional

        Returns
        -------
        VarianceSums
            Itself.
        """
        recorded, dtype = _recorded(prediction, target, mask), _wide(target)
        values = target.to(dtype)
        ends = torch.stack([torch.where(recorded, v, torch.inf) for v in (values, -values)])
        found = ends.amin(1) if len(target) else torch.full_like(ends.sum(1), torch.inf)
        origin = self._origin(torch.where(found[:1].isinf(), 0, found[:1]))
        errors = torch.where(recorded, prediction.to(dtype) - origin - (values - origin), 0)
        return self._join(_moments(values[None], recorded, origin), errors.square().sum(0), found)

    def value(self) -> Tensor:
        """Share of each neuron over all trials that were added; see `variance_explained`.

        Returns
        -------
        Tensor (neurons,)
        """
        errors, (low, negative) = self._others
        high = -negative
        share = 1 - errors / self._known.squares[0].clamp(min=self._least)
        return torch.where(high > low, share, torch.nan)


@torch.no_grad()
def variance_explained(
    prediction: Tensor, target: Tensor, mask: Tensor | None = None, least: float = 0.0
) -> Tensor:
    """Share of the variance over trials that is explained, ``1 - SSE / SST``, of each neuron.

    Parameters
    ----------
    prediction : Tensor (n, neurons)
        Predicted responses, any floating dtype.
    target : Tensor (n, neurons)
        Recorded responses; NaN where not recorded.
    mask : bool Tensor (n, neurons), optional
        False where `target` is to be left out, in addition to NaN.
    least : float, default=0.0
        What SST counts as where it is less.

    Returns
    -------
    Tensor (neurons,)
        At most 1, and below 0 where the mean response predicts better. Both sums run over the
        recorded trials. NaN where the recorded responses are constant. float64, or float32 on
        devices that have no float64.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    return VarianceSums(least).add(prediction, target, mask).value()


def _recorded(prediction: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Which trials of which neurons were recorded; refuses what is not of one shape."""
    if prediction.shape != target.shape or prediction.ndim != 2:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}; "
            "expected the same (trials, neurons)."
        )
    recorded = ~torch.isnan(target)
    return recorded if mask is None else recorded & mask


def _wide(target: Tensor) -> torch.dtype:
    return torch.float32 if target.device.type == "mps" else torch.float64


def _rounding(dtype: torch.dtype) -> float:
    short = dtype.is_floating_point and dtype.itemsize <= 4
    return ROUNDING_FLOAT32 if short else ROUNDING_FLOAT64

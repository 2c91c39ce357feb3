"""Scores of predictions that come in parts: from sums over trials, or from all trials at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from v1tlearn.nn import sharing

OfAllTrials = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Part = tuple[Tensor, Tensor, Tensor | None]  # predictions, responses, and which were recorded


class Sums(Protocol):
    """Sums over trials, from which there is a value for each neuron."""

    def add(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Any:
        """Add trials (n, n_neurons)."""

    def parts(self) -> list[Tensor]:
        """All sums."""

    def join(self, every: Sequence[list[Tensor]]) -> None:
        """Hold the sums of several, as `parts` gives them, in place of its own."""

    def value(self) -> Tensor:
        """Give the value of each neuron, of shape (n_neurons,)."""


class SummedScore:
    """A score of one mouse that keeps sums over its trials, and no prediction.

    Parameters
    ----------
    sums : callable
        Gives `Sums` of no trials yet.
    over_neurons : callable
        The score, a scalar tensor, of the values of the neurons.
    """

    def __init__(
        self, sums: Callable[[], Sums], over_neurons: Callable[[Tensor], Tensor] = Tensor.nanmean
    ) -> None:
        self.sums, self.over_neurons = sums, over_neurons


Score = OfAllTrials | SummedScore


class _Whole:
    """A score that is not made of sums: trials are kept."""

    def __init__(self, score: OfAllTrials) -> None:
        self._score, self._kept = score, list[Part]()

    def add(self, *part: Any) -> None:
        """Keep trials."""
        self._kept.append(part)

    def value(self) -> Tensor:
        """Give the score of all trials."""
        return self._score(*joined(self._kept))


class Judged(NamedTuple):
    """What is found of one mouse.

    Attributes
    ----------
    loss : Tensor
        Scalar, summed over the responses that were recorded.
    count : Tensor
        How many these are.
    scores : dict of str to Tensor
        Scalars; NaN where predictions are not finite.
    dtype : dtype
        In which the predictions were judged. Sums over parts have more digits.
    """

    loss: Tensor
    count: Tensor  # type: ignore[assignment]  # not the method of tuples
    scores: dict[str, Tensor]
    dtype: torch.dtype


def is_summed(score: Score) -> bool:
    """Tell whether a score is made of sums over trials.

    Parameters
    ----------
    score : callable

    Returns
    -------
    bool
    """
    return isinstance(score, SummedScore)


def judge(
    parts: Iterable[Part],
    loss: OfAllTrials,
    scores: Mapping[str, Score],
    by: sharing.Shared | None,
) -> Judged:
    """Judge predictions of one mouse, part by part.

    Parameters
    ----------
    parts : iterable of tuple
        At least one; of no trials, if need be.
    loss : callable
        Sum over the responses of a part that were recorded.
    scores : dict of str to callable
        `SummedScore`, or any ``score(predictions, responses, recorded)`` of all trials.
    by : Shared, optional
        The processes of which each has parts of its own; all scores are sums then.

    Returns
    -------
    Judged
    """
    tallies = {
        name: score.sums() if isinstance(score, SummedScore) else _Whole(score)
        for name, score in scores.items()
    }
    told: list[Tensor] = []  # loss, responses, and predictions that are not finite
    for part in parts:
        predictions, target, recorded = part
        count = target.numel() if recorded is None else recorded.sum()
        lost = ~predictions.isfinite().all()
        own = loss(*part) if len(target) else predictions.sum()
        dtype = torch.float32 if own.device.type == "mps" else torch.float64
        found = [torch.as_tensor(v, device=own.device).to(dtype) for v in (own, count, lost)]
        told = [a + b for a, b in zip(told, found, strict=True)] if told else found
        for tally in tallies.values():
            tally.add(*part)
    if by is not None:
        told = _of_all_processes(by, told, list(tallies.values()))  # type: ignore[arg-type]  # all are sums
    values = {
        name: score.over_neurons(tallies[name].value())
        if isinstance(score, SummedScore)
        else tallies[name].value()
        for name, score in scores.items()
    }
    finite = {k: torch.where(told[2] > 0, torch.nan, v) for k, v in values.items()}
    return Judged(told[0], told[1], finite, own.dtype)


def joined(parts: Sequence[Part]) -> Part:
    """Put trials of several parts one after the other.

    Parameters
    ----------
    parts : sequence of tuple
        At least one.

    Returns
    -------
    tuple
        Of the same form.
    """
    if len(parts) == 1:
        return parts[0]
    predictions, target, recorded = zip(*parts, strict=True)
    whole = None if recorded[0] is None else torch.cat(recorded)
    return torch.cat(predictions), torch.cat(target), whole


def _of_all_processes(
    by: sharing.Shared, told: list[Tensor], tallies: Sequence[Sums]
) -> list[Tensor]:
    """Add what the other processes found, in the same order in all of them."""
    values = [*told, *(value for tally in tallies for value in tally.parts())]
    flat = torch.cat([value.reshape(-1) for value in values])
    slots = flat.new_zeros(by.size, len(flat))
    slots[by.rank] = flat
    sizes = [value.numel() for value in values]
    every = [
        [part.view_as(value) for part, value in zip(found.split(sizes), values, strict=True)]
        for found in by.total(slots)
    ]
    start = len(told)
    for tally in tallies:
        stop = start + len(tally.parts())
        tally.join([found[start:stop] for found in every])
        start = stop
    return [torch.stack([found[i] for found in every]).sum() for i in range(len(told))]

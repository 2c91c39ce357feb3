"""Rows that stay in host memory or in files, brought to the device some steps ahead.

Knows arrays and devices; what the rows mean is the business of `v1tlearn.training.data`.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

K = TypeVar("K", bound=Hashable)

READ_AHEAD = 2  # steps whose rows are gathered or on their way while a step is computed


class Source(Protocol):
    """Rows that are not on the device: an array in host memory, a file.

    Attributes
    ----------
    shape : tuple of int
        Rows first.
    dtype : numpy.dtype
        Of the rows.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int:
        """Count the rows."""

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` with these rows, in this order."""

    def announce(self, rows: np.ndarray) -> None:
        """Hear which rows are read soon, and do nothing where that is of no use."""


class HostArray:
    """Rows of an array in host memory.

    Parameters
    ----------
    values : ndarray
        Rows first.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape, self.dtype = values.shape, values.dtype

    def __len__(self) -> int:
        return len(self.values)

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` with rows.

        Parameters
        ----------
        rows : ndarray of int
            From 0 on.
        out : ndarray
        """
        np.take(self.values, rows, axis=0, out=out, mode="clip")  # "raise" would go by a copy

    def announce(self, rows: np.ndarray) -> None:
        """Do nothing: what is in memory needs no announcement.

        Parameters
        ----------
        rows : ndarray of int
        """


def read_rows(source: Source, rows: np.ndarray, device: torch.device) -> Tensor:
    """Bring rows to a device and wait for them.

    Parameters
    ----------
    source : Source
    rows : ndarray of int
    device : torch.device

    Returns
    -------
    Tensor
        In the dtype of the source.
    """
    return torch.from_numpy(_read(source, rows)).to(device)


def _read(source: Source, rows: np.ndarray) -> np.ndarray:
    out = np.empty((len(rows), *source.shape[1:]), source.dtype)
    source.read(rows, out)
    return out


def read_ahead(
    sources: Mapping[K, Source],
    steps: Sequence[Mapping[K, np.ndarray]],
    device: torch.device,
    depth: int | None = None,
    together: int = 1,
) -> Generator[dict[K, Tensor], None, None]:
    """Bring the rows of one step after the other to a device, the next ones in the background.

    A thread reads, and says before what it reads then, so that a disk need not wait while rows are
    checked. On CUDA devices it reads into page-locked buffers, which are copied on a
    stream of their own and used again when their copy is done. The thread ends with the iterator:
    when that is used up or closed, or when an error leaves the loop over it.

    Parameters
    ----------
    sources : dict to Source
    steps : sequence of dict to ndarray of int
        For each step the rows wanted of some sources.
    device : torch.device
    depth : int, optional
        Readings to be ahead; two by default, one of several steps each.
    together : int, default=1
        Steps whose rows are read at once.

    Yields
    ------
    dict to Tensor
        The rows of a step, ready for the current stream of the device.

    Raises
    ------
    Exception
        What reading raised, at the step it was for.
    """
    carrier: _Carrier | _PinnedCarrier
    carrier = _PinnedCarrier(device) if device.type == "cuda" else _Carrier(device)
    if depth is None:
        depth = READ_AHEAD if together == 1 else 1
    groups = [steps[start : start + together] for start in range(0, len(steps), together)]
    ahead, arrived, ended = threading.Semaphore(depth), SimpleQueue[Any](), threading.Event()

    def read_all() -> None:
        """Read group after group of steps, at most `depth` ahead of the loop."""
        try:
            coming = map(_joined, groups)
            now = next(coming, None)
            while now is not None:
                ahead.acquire()
                if ended.is_set():
                    return
                following = next(coming, None)
                for key, rows in (following or {}).items():
                    sources[key].announce(rows)
                arrived.put((carrier.send(sources, now), None))
                now = following
        except BaseException as error:  # whatever it is, it belongs to the loop
            arrived.put((None, error))

    thread = threading.Thread(target=read_all, name="v1tlearn-read-ahead", daemon=True)
    thread.start()
    try:
        for group in groups:
            sent, error = arrived.get()
            if error is not None:
                raise error
            ahead.release()
            yield from _parted(carrier.receive(sent), group)
    finally:
        ended.set()
        ahead.release()
        thread.join()


def _joined(group: Sequence[Mapping[K, np.ndarray]]) -> Mapping[K, np.ndarray]:
    """Rows of several steps, one after the other."""
    if len(group) == 1:
        return group[0]
    keys = dict.fromkeys(key for step in group for key in step)
    return {key: np.concatenate([step[key] for step in group if key in step]) for key in keys}


def _parted(
    values: dict[K, Tensor], group: Sequence[Mapping[K, np.ndarray]]
) -> Iterator[dict[K, Tensor]]:
    """What was read for several steps, step by step."""
    done = dict.fromkeys(values, 0)
    for step in group:
        part = {}
        for key, rows in step.items():
            part[key] = values[key][done[key] : done[key] + len(rows)]
            done[key] += len(rows)
        yield part


class _Carrier:
    """Where host memory is the device's, or where the device takes no copies in the background."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def send(self, sources: Mapping[K, Source], step: Mapping[K, np.ndarray]) -> Any:
        """Read the rows of a step; in the thread, which leaves the device to the loop."""
        return {key: _read(sources[key], rows) for key, rows in step.items()}

    def receive(self, sent: Any) -> dict[Any, Tensor]:
        """Bring the rows of a step to the device; in the loop."""
        return {key: torch.from_numpy(values).to(self._device) for key, values in sent.items()}


class _PinnedCarrier:
    """Two sets of page-locked buffers, in turn read into and copied from."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._sets: list[dict[Hashable, Tensor]] = [{}, {}]
        self._copied: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def send(self, sources: Mapping[K, Source], step: Mapping[K, np.ndarray]) -> Any:
        """Read the rows of a step and start their copy; in the thread."""
        self._turn = 1 - self._turn
        before = self._copied[self._turn]
        if before is not None:
            before.synchronize()  # the thread alone waits
        with torch.cuda.stream(self._stream):
            tensors = {}
            for key, rows in step.items():
                buffer = self._buffer(key, sources[key], len(rows))
                sources[key].read(rows, buffer.numpy())
                tensors[key] = buffer.to(self._device, non_blocking=True)
            copied = torch.cuda.Event(blocking=True)
            copied.record(self._stream)
        self._copied[self._turn] = copied
        return tensors, copied

    def receive(self, sent: Any) -> dict[Any, Tensor]:
        """Let the current stream wait for the rows of a step; in the loop, which does not wait."""
        tensors, copied = sent
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(copied)
        for tensor in tensors.values():
            tensor.record_stream(stream)  # not to be used anew while this stream reads it
        return tensors

    def _buffer(self, key: Hashable, source: Source, n_rows: int) -> Tensor:
        buffers = self._sets[self._turn]
        if key not in buffers or len(buffers[key]) < n_rows:
            dtype = torch.from_numpy(np.empty(0, source.dtype)).dtype
            shape = (n_rows, *source.shape[1:])
            buffers[key] = torch.empty(shape, dtype=dtype, pin_memory=True)
        return buffers[key][:n_rows]

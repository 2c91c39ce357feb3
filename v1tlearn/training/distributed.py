"""Processes that train one model together: which there are, and what they tell each other.

Everything of ``torch.distributed`` is here. How a batch is dealt out is in `dealing`.
"""

from __future__ import annotations

import atexit
import json
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from v1tlearn._warn import warn
from v1tlearn.training.lost import LastWords, LostProcessError
from v1tlearn.training.ranks import ALONE, Ranks
from v1tlearn.training.seeds import RandomState, draw_seed

logger = logging.getLogger("v1tlearn")

SWITCH = "V1TLEARN_DISTRIBUTED"
TIMEOUT = timedelta(minutes=30)  # for processes that do not answer; those that die are noticed
_BUCKET = 2**25  # bytes that are summed at once
_ALIKE = 1e-4  # relative difference of sums over the same numbers on two kinds of machines
_SMALL = 0.01  # numbers that are no more than this are nothing but rounding, at times
_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class ProcessRanks(Ranks):
    """The processes of the default group of ``torch.distributed``."""

    def __init__(self) -> None:
        self.rank, self.size, self.seconds = dist.get_rank(), dist.get_world_size(), 0.0
        backends = str(dist.get_backend_config()).split(",")  # such as "cpu:gloo", "cuda:nccl"
        self._carried = {backend.partition(":")[0] for backend in backends}
        self._lost, self._words = False, LastWords(self.rank, self.size)

    def _there(self, values: Tensor) -> Tensor:
        """A copy where the group can carry it."""
        if values.device.type in self._carried:
            return values.detach().clone(memory_format=torch.contiguous_format)
        kind = "cpu" if "cpu" in self._carried else "cuda"
        return values.detach().to(kind).contiguous()

    def _do(self, operation: Callable[..., Any], values: Tensor, *args: Any, **kwargs: Any) -> None:
        """Run a collective operation in place, and name what it means that it fails."""
        if self._lost:
            raise LostProcessError("an earlier error has ended it.")
        begun = time.perf_counter()
        try:
            operation(values, *args, **kwargs)
        except (RuntimeError, ValueError) as error:  # the latter where the script ended the group
            who = self._words.heard()
            self.leave()
            raise LostProcessError(who or f"{str(error).splitlines()[0]}.") from error
        finally:
            self.seconds += time.perf_counter() - begun

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes, in a new tensor."""
        out = self._there(values)
        self._do(dist.all_reduce, out)
        return out.to(values.device)

    def reduce(
        self, parameters: Sequence[nn.Parameter], known: list[bool] | None = None
    ) -> list[bool] | None:
        """Give the parameters of all processes the sum of their gradients, bucket by bucket."""
        own = [p.grad is not None for p in parameters]
        if known is None:
            known = self.total(torch.tensor(own, dtype=torch.int32)).bool().tolist()
        if any(mine and not there for mine, there in zip(own, known, strict=True)):
            raise RuntimeError(
                "the model gives gradients to other parameters than in earlier steps of the same "
                "mice: such a model is not trained by several processes. Start one."
            )
        with torch.no_grad():
            chosen = [p for p, there in zip(parameters, known, strict=True) if there]
            for p in chosen:
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
            for bucket in _buckets([p.grad for p in chosen if p.grad is not None]):
                self._sum_into(bucket)
        return known

    def _sum_into(self, bucket: list[Tensor]) -> None:
        flat = self.total(torch.cat([t.reshape(-1) for t in bucket]))
        parts = flat.split([t.numel() for t in bucket])
        shaped = [part.view_as(t) for part, t in zip(parts, bucket, strict=True)]
        torch._foreach_copy_(bucket, shaped)

    def align(self, module: nn.Module) -> None:
        """Give a module of all processes the weights and buffers that it has in the first one."""
        with torch.no_grad():
            for bucket in _buckets([t.detach() for t in module.state_dict().values()]):
                there = self._there(torch.cat([t.reshape(-1) for t in bucket]))
                self._do(dist.broadcast, there, 0)
                if self.rank == 0:
                    continue
                parts = there.to(bucket[0].device).split([t.numel() for t in bucket])
                for part, t in zip(parts, bucket, strict=True):
                    t.copy_(part.view_as(t))

    def agree(self, values: Sequence[float]) -> list[float]:
        """Give what the first process has."""
        there = self._there(torch.tensor(list(values), dtype=torch.float64))
        self._do(dist.broadcast, there, 0)
        return there.tolist()

    def least(self, values: Sequence[float]) -> list[float]:
        """Give the least that one of them has, of each of some numbers."""
        there = self._there(torch.tensor(list(values), dtype=torch.float64))
        self._do(dist.all_reduce, there, dist.ReduceOp.MIN)
        return there.tolist()

    def first(self, action: Callable[[], bool | None]) -> bool:
        """Do something in the first process alone; what it raises is raised in all of them."""
        answer, failed = False, None
        if self.rank == 0:
            try:
                answer = action() is True
            except BaseException as error:
                failed = error
        told = self._spread(b"" if failed is None else _told(failed))
        if told:
            raise failed or _heard(told)
        return bool(self.agree([answer])[0])

    def _spread(self, told: bytes, by: int = 0) -> bytes:
        """Give what one of them says, from whom what the others say does not count."""
        length = self._there(torch.tensor([len(told)]))
        self._do(dist.broadcast, length, by)
        n = int(length)
        if not n:
            return b""
        there = self._there(
            torch.frombuffer(bytearray(told if self.rank == by else n), dtype=torch.uint8)
        )
        self._do(dist.broadcast, there, by)
        return there.cpu().numpy().tobytes()

    def check_same(self, facts: Mapping[str, str]) -> None:
        """Refuse, in all processes, that one was given something else than the first."""
        first = json.loads(self._spread(json.dumps(dict(facts)).encode()))
        others = [name for name in {**first, **facts} if first.get(name) != facts.get(name)]
        (who,) = self.least([self.rank if others else self.size])
        if who == self.size:
            return
        name = next(iter(others), "")
        told = (
            f"{name} is {first.get(name)} in process 0 and {facts.get(name)} in process {self.rank}"
        )
        raise ValueError(
            f"the processes differ: {self._spread(told.encode(), int(who)).decode()}. Start the "
            "same script with the same arguments in the same environment in all of them, and seed "
            "whatever it draws at random."
        )

    def check_alike(self, numbers: Mapping[str, float], what: str) -> None:
        """Refuse, in all processes, that these numbers are not the same in all of them."""
        (n,) = self.least([float(len(numbers))])
        (more,) = self.least([-float(len(numbers))])
        if n != -more:
            raise ValueError(f"the processes were given different {what}.")
        own = [float(v) for v in numbers.values()]
        lowest = self.least([*own, *(-v for v in own)])
        low, high = lowest[: len(own)], [-v for v in lowest[len(own) :]]
        for name, a, b in zip(numbers, low, high, strict=True):
            if b - a > _ALIKE * max(abs(a), abs(b), _SMALL):
                raise ValueError(
                    f"the processes were given different {what}: {name} is {a:.6g} in one and "
                    f"{b:.6g} in another. Give all of them the same, in the same order; seed "
                    "whatever is drawn at random."
                )

    def leave(self, error: BaseException | None = None) -> None:
        """Let the others know that this process goes on no more, so that they do not wait."""
        if not self._lost:
            self._words.say(error)
            self._lost = True
            with suppress(Exception):
                dist.destroy_process_group()


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Put tensors of one kind together, up to a size."""
    by_kind: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        by_kind.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in by_kind.values():
        bucket: list[Tensor] = []
        for tensor in alike:
            if bucket and sum(t.nbytes for t in bucket) + tensor.nbytes > _BUCKET:
                yield bucket
                bucket = []
            bucket.append(tensor)
        yield bucket


def _told(error: BaseException) -> bytes:
    """An error as other processes can read it."""
    kind = type(error)
    return json.dumps([kind.__module__, kind.__qualname__, str(error)]).encode()


def _heard(told: bytes) -> BaseException:
    """The error of process 0: of its class where this process has that, and takes a message."""
    module, name, message = json.loads(told)
    kind = getattr(sys.modules.get(module), name, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        with suppress(TypeError):
            return kind(message)
    return RuntimeError(f"process 0 raised {name}: {message}")


# ------------------------------------------------------------------------------- which there are


class _Place(NamedTuple):
    rank: int
    size: int


_IMPORTED_BY = os.getpid()  # a process that was forked from this one has no part in its group
_joined: list[ProcessRanks] = []


def is_first() -> bool:
    """Whether this process writes: it is alone, or the first of those that train together."""
    place = _place()
    return place is None or place.rank == 0


def join() -> Ranks:
    """Find the processes that this one trains with.

    They are those of the default process group of ``torch.distributed`` or, where there is none,
    those that ``torchrun`` started, which is known by its environment variables: then the group is
    initialised here, with NCCL for GPUs and Gloo for CPUs, and every process takes the GPU that has
    its ``LOCAL_RANK``.

    A process is alone where the environment variable ``V1TLEARN_DISTRIBUTED`` is
    "0"; in a thread beside the main one; and in processes that joblib, ``multiprocessing`` and
    others started within one of those, unless they initialised a group themselves.

    Returns
    -------
    Ranks
        `ALONE` where there are no others.

    Raises
    ------
    LostProcessError
        If the others are not found, or were lost before.
    """
    place = _place()
    if place is None:
        _tell_of_slurm()
        return ALONE
    if not _joined:
        if not dist.is_initialized():
            _initialize()
        _joined.append(ProcessRanks())
        if place.rank:  # one log suffices
            logger.addFilter(_is_warning)
    return _joined[0]


def shared_seed(random_state: RandomState = None) -> int:
    """Draw one seed for the generators of a run, the same in all processes.

    Parameters
    ----------
    random_state : int, RandomState, Generator or None
        As of `draw_seed`; what the first process draws counts.

    Returns
    -------
    int
    """
    seed, ranks = draw_seed(random_state), join()
    upper, lower = ranks.agree([seed >> 32, seed & (2**32 - 1)])  # which float64 hold exactly
    return int(upper) << 32 | int(lower)


def _place() -> _Place | None:
    """Number of this process and how many there are; None where it is alone."""
    if os.environ.get(SWITCH) == "0" or os.getpid() != _IMPORTED_BY:
        return None
    if threading.current_thread() is not threading.main_thread() or not dist.is_available():
        return None
    if dist.is_initialized():
        place = _Place(dist.get_rank(), dist.get_world_size())
    elif _joined:
        place = _Place(_joined[0].rank, _joined[0].size)  # of a group that is lost
    elif all(os.environ.get(name) for name in _LAUNCHED) and _is_launched():
        place = _Place(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    else:
        return None
    return place if place.size > 1 else None


@cache
def _tell_of_slurm() -> None:
    """Warn where srun started this script several times, and nothing says what that is for."""
    n, known = os.environ.get("SLURM_STEP_NUM_TASKS", "1"), os.environ.keys()
    started = n != "1" and "SLURM_PROCID" in known and not known & {"RANK", SWITCH}
    if started and _is_launched():
        warn(
            f"srun started this script {n} times, and each of them fits by itself. For one model "
            "by all of them let srun start torchrun, with one task per node; if each is to fit its "
            f"own, set the environment variable {SWITCH}=0."
        )


def _is_launched() -> bool:
    """Whether this process was not started by one that has the same environment variables."""
    own = multiprocessing.current_process().name
    return multiprocessing.parent_process() is None and own == "MainProcess"


def _initialize() -> None:
    """Find the processes that torchrun started."""
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        backend = "cpu:gloo,cuda:nccl"
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local < torch.cuda.device_count():
            torch.cuda.set_device(local)
    logger.info("waiting for the other processes that torchrun started ...")
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except RuntimeError as error:
        raise LostProcessError(f"{str(error).splitlines()[0]}.") from error
    atexit.register(_end)


def _end() -> None:
    if dist.is_initialized():
        with suppress(Exception):
            dist.destroy_process_group()


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING

"""Processes that joblib or dask started: which one this is, and whether anybody waits for it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import sys

logger = logging.getLogger("v1tlearn")

_LOKY = re.compile(r"LokyProcess-(\d+)")
_NUMBERED = re.compile(r"(?:^|-)(\d+)$")  # the name that dask gives, or a user; no address
_BEGUN_BY = os.getppid()


def end_if_left() -> None:
    """End a process of joblib whose parent was killed; those of dask see to it themselves."""
    if _LOKY.fullmatch(multiprocessing.current_process().name) and os.getppid() != _BEGUN_BY:
        logger.warning("the process that began this one is gone: nobody waits for what it trains")
        os._exit(1)


def worker_number() -> int | None:
    """Number of this process among the workers of joblib, or of dask.

    Processes of joblib are counted as they start, from 0. For dask it is the number at the end of
    the worker's name: ``2`` and ``node1-2`` are both number 2.

    Returns
    -------
    int or None
        None where this is no such process, its worker has no number, or dask-cuda has given it a
        GPU already.
    """
    if found := _LOKY.fullmatch(multiprocessing.current_process().name):
        return int(found[1]) - 1
    distributed = sys.modules.get("distributed")
    if distributed is None or "dask_cuda" in sys.modules:
        return None
    try:
        name = distributed.get_worker().name
    except ValueError:  # not in a task
        return None
    numbered = _NUMBERED.search(str(name))
    return None if numbered is None else int(numbered[1])

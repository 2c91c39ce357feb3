"""Tasks of joblib on workers of dask, of which any may be lost.

Imported only where dask is used, so that the package works without it.
"""

from __future__ import annotations

from typing import Any

from joblib._dask import Batch, DaskDistributedBackend


class WholeTasks(DaskDistributedBackend):
    """The backend of joblib, but for where the arguments of tasks are.

    That of joblib copies arguments of more than 1 kB, such as the places of the trials of a fold,
    to some worker ahead of the task. If that worker is lost, so are they, and the whole search with
    them. Here they are part of the task, which the scheduler has and gives to another worker.
    """

    async def _to_func_args(self, func: Any) -> tuple[Batch, list]:
        tasks = list(func.items)
        return Batch(tasks), tasks

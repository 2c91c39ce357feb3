"""Tasks of joblib on workers of dask, of which any may be lost.

Imported only where dask is used, so that the package works without it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from joblib._dask import Batch, DaskDistributedBackend


class WholeTasks(DaskDistributedBackend):
    """The backend of joblib, but for where arguments of tasks are, and what is told of lost ones.

    That of joblib copies arguments of more than 1 kB, such as the places of the trials of a fold,
    to some worker ahead of the task. If that worker is lost, so are they, and the whole search with
    them. Here they are part of the task, which the scheduler has and gives to another worker.
    Where the scheduler gives a task up, joblib would wait for it forever; where one worker is left,
    it would run the tasks in the process that asks for them; and of a search that ends by an error,
    it would leave all other tasks to the workers.
    """

    def effective_n_jobs(self, n_jobs: int) -> int:
        return max(2, super().effective_n_jobs(n_jobs))

    async def _to_func_args(self, func: Any) -> tuple[Batch, list]:
        tasks = list(func.items)
        return Batch(tasks), tasks

    def abort_everything(self, ensure_ready: bool = True) -> None:
        left = list(self._results)
        super().abort_everything(ensure_ready)
        self.client.cancel(left)
        for future in left:
            self._results.pop(future, None)
            self._callbacks.pop(future, None)

    async def _collect(self) -> None:
        while self._continue:
            async for future, result in self.waiting_futures:
                if future.status == "error":
                    _, result, _ = result
                self._results.pop(future).set_result(result)
                self._callbacks.pop(future)(result)  # raises it, where it is an error
            await asyncio.sleep(0.01)

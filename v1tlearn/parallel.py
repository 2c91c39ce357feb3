"""Many fits at once by the workers of a cluster, through joblib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import joblib

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["on_dask"]


@contextmanager
def on_dask(client: Client | None = None) -> Iterator[None]:
    """Let what uses joblib run on the workers of a dask cluster, of which any may be lost.

    Within, searches and cross-validation of scikit-learn, `EnsembleRegressor` and all else that has
    ``n_jobs`` send their fits to the workers. Those of a worker that ends go to the others, and the
    result is the same. With ``joblib.parallel_config("dask")``, which this stands in for, a search
    over more than some hundred trials ends where a worker does: it keeps the numbers of the trials
    of each fold on workers, where they are lost.

    Needs the extra "dask".

    Parameters
    ----------
    client : distributed.Client, optional
        Of the cluster; by default the one that was made last.

    Yields
    ------
    None

    Raises
    ------
    ImportError
        If dask is not installed.
    TypeError
        If `client` is none, such as an address.
    ValueError
        If there is no client.
    distributed.KilledWorker
        If one fit takes four workers with it, one after the other; ``allowed-failures`` in the
        configuration of dask is another number.

    Notes
    -----
    Trials of `Trials.open` are sent as the path of the file, labels, and the numbers of trials and
    neurons: every worker opens the file itself, and has to find it under the same path. Those in
    memory are sent with every fit.

    Examples
    --------
    >>> from distributed import Client  # doctest: +SKIP
    >>> with Client("scheduler:8786") as client, v1.parallel.on_dask(client):  # doctest: +SKIP
    ...     search.fit(trials, groups=trials.image_ids)
    """
    try:
        import distributed
    except ImportError as error:
        raise ImportError(
            'on_dask needs distributed: pip install "dask[distributed]>=2026.1.1", or the extra '
            '"dask", from the folder of v1tlearn with pip install -e ".[dask]".'
        ) from error
    if client is not None and not isinstance(client, distributed.Client):
        raise TypeError(
            f"client is {client!r}: expected a distributed.Client, such as "
            'Client("scheduler:8786"), or None for the one that was made last.'
        )
    from v1tlearn._dask_backend import WholeTasks

    with joblib.parallel_config(backend=WholeTasks(client=client)):
        yield

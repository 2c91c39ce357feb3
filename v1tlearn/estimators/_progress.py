"""What users see of a running fit: a bar if they asked for it, log records otherwise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

logger = logging.getLogger("v1tlearn")

_SHOWN = {
    "loss": ("loss", ".4f"),
    "validation_loss": ("val. loss", ".4f"),
    "validation_correlation": ("val. corr.", ".4f"),
    "lr": ("lr", ".2g"),
}


@contextmanager
def progress(
    name: str,
    max_epochs: int,
    verbose: int,
    also: Callable[[dict[str, float]], None] | None = None,
) -> Iterator[Callable[[dict[str, float]], None]]:
    """Report epochs: losses, correlation, learning rate and time left.

    Parameters
    ----------
    name : str
        What is being fitted.
    max_epochs : int
    verbose : int
        0: log records at level DEBUG; 1: a progress bar, too.
    also : callable, optional
        Is told the same records afterwards.

    Yields
    ------
    callable
        To be told the record of every epoch.
    """
    with tqdm(total=max_epochs, desc=name, unit="epoch", disable=not verbose) as bar:

        def on_epoch(record: dict[str, float]) -> None:
            shown = {
                label: format(record[key], form)
                for key, (label, form) in _SHOWN.items()
                if key in record
            }
            bar.set_postfix(shown, refresh=False)
            bar.update()
            logger.debug("%s epoch %d: %s", name, record["epoch"], shown)
            if also is not None:
                also(dict(record))

        yield on_epoch

"""What users see of a running fit: a bar and the log if they asked for them, log records always."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from tqdm.auto import tqdm

from v1tlearn.estimators._fitted import Fitted
from v1tlearn.nn import fast
from v1tlearn.training import MouseData, Run, is_first
from v1tlearn.training.sources import HostArray, Source

logger = logging.getLogger("v1tlearn")

_SHOWN = {
    "loss": ("loss", ".4f"),
    "validation_loss": ("val. loss", ".4f"),
    "validation_correlation": ("val. corr.", ".4f"),
    "validation_variance_explained": ("val. var. expl.", ".4f"),
    "validation_top1": ("val. top-1", ".4f"),
    "lr": ("lr", ".2g"),
}
_ENDED = {  # early
    "schedule": "stopped early",
    "on_epoch": "ended by on_epoch",
    "non-finite loss": "ended, loss not finite",
    "out of memory": "ended, out of memory",
    "interrupted": "interrupted",
    "closed": "ended early",
    "error": "ended by an error",
}


_PLACE: ContextVar[str] = ContextVar("v1tlearn_place", default="")


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Tell fits apart that are part of something larger."""
    token = _PLACE.set(place)
    try:
        yield
    finally:
        _PLACE.reset(token)


def run_name(kind: str, seed: int) -> str:
    """What bars and log call a fit."""
    place = _PLACE.get()
    return f"{place} ({kind}, seed {seed})" if place else kind


def log_start(model: str, fitted: Fitted, run: Run) -> None:
    """Tell in the log what is trained on what."""
    validation, settings = run.validation or {}, run.settings
    mice = ", ".join(
        f"{mouse} ({fitted.mice[mouse].n_neurons} neurons, {len(trials)} trials"
        + (f" and {len(validation[mouse])} of validation)" if mouse in validation else ")")
        for mouse, trials in run.data.items()
    )
    done = run.state["epoch"]
    logger.info(
        "%s: training %s: %s; mice %s; %d parameters, seed %d, on %s in %s; batches of %d trials "
        "per mouse, at most %d epochs",
        run.name,
        f"goes on after epoch {done}" if done else "begins",
        " ".join(model.split()),
        mice,
        sum(p.numel() for p in run.model.parameters()),
        fitted.seed,
        next(iter(run.data.values())).device,
        settings.precision,
        settings.batch_size,
        settings.max_epochs,
    )


def log_choices(run: Run) -> None:
    """Tell in the log how a fit is computed: what "auto" came to on this machine."""
    settings, again = run.settings, run.settings.checkpoint_activations
    if isinstance(again, str):  # decided later, by what there is to keep
        activations = "kept if they fit"
    else:
        activations = "computed again" if again else "kept"
    logger.info(
        "%s: computes on %s in %s; %s; %s trials of each mouse at once, activations %s, core %s",
        run.name,
        _device_in_words(next(iter(run.data.values())).device),
        settings.precision,
        ", ".join(_places_in_words(run.data.values())),
        settings.micro_batch_size,
        activations,
        "compiled" if settings.compile else "not compiled",
    )


def _device_in_words(device: torch.device) -> str:
    """Name of a GPU; threads and compiled kernels of a CPU."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type != "cpu":
        return str(device)
    variants = fast.kernel_variants()
    kernels = f"compiled kernels for {variants[0]}" if variants else "no compiled kernels"
    return f"cpu (threads: {torch.get_num_threads()}, {kernels})"


def _places_in_words(data: Iterable[MouseData]) -> Iterator[str]:
    """Where images and responses of all mice are kept."""
    for name in ("images", "responses"):
        places = {_place_in_words(trials.sources.get(name)) for trials in data}
        yield f"{name} {' or '.join(sorted(places))}"


def _place_in_words(source: Source | None) -> str:
    if source is None:
        return "on the device"
    return "in host memory" if isinstance(source, HostArray) else "read step by step"


def warn_of_equal_work(name: str, n: int) -> None:
    """Tell, in the log, that nothing is gained by several processes."""
    logger.warning(
        "%s: the trials of a batch, or its neurons, are not dealt out to the %d processes, each of "
        "which computes all of them: one process would be as fast.",
        name,
        n,
    )


@contextmanager
def progress(
    name: str,
    max_epochs: int,
    verbose: int,
    also: Callable[[dict[str, float]], Any] | None = None,
    state: dict[str, Any] | None = None,
) -> Iterator[Callable[[dict[str, float]], Any]]:
    """Report epochs: losses, correlation, learning rate and time left."""
    shown = verbose and is_first()
    with tqdm(total=max_epochs, desc=_PLACE.get() or name, unit="epoch", disable=not shown) as bar:

        def on_epoch(record: dict[str, float]) -> Any:
            shown = {
                label: format(record[key], form)
                for key, (label, form) in _SHOWN.items()
                if key in record
            }
            bar.set_postfix(shown, refresh=False)
            bar.update()
            logger.debug("%s epoch %d: %s", name, record["epoch"], shown)
            return None if also is None else also(dict(record))

        try:
            yield on_epoch
        finally:
            if state is not None and state["history"] and not bar.disable:
                _close(bar, state)


def _close(bar: tqdm, state: dict[str, Any]) -> None:
    """Say how it ended; a bar that ends early is complete all the same."""
    words = [_ENDED[state["stop_reason"]]] if state["stop_reason"] in _ENDED else []
    kept = state.get("best_epoch")  # models saved by earlier versions do not tell
    if kept is not None:
        words.append(f"epoch {kept} kept")
        score = state["history"][kept - 1].get("validation_correlation") if kept else None
        words += [] if score is None else [f"val. corr.={score:.4f}"]
    epochs, start = bar.n, bar.start_t
    if 0 < epochs < bar.total:
        bar.reset(total=epochs)  # in notebooks this alone redraws the total
        bar.start_t = start
        bar.update(epochs)
    bar.set_postfix_str(", ".join(words))


# -------------------------------------------------------------------------------------------- log


class _BesideBars(logging.Handler):
    """Writes to standard error without tearing the bars that are there."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


class _BesideBarsStream:
    """Stands for a stream of the user's handlers while there are bars, and writes beside them."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        tqdm.write(text, file=self.stream, end="")

    def flush(self) -> None:
        self.stream.flush()


class _Shown:
    """How many fits show the log at the moment, and what to put back after the last of them."""

    lock = threading.Lock()
    fits = 0
    handler: logging.Handler | None = None
    level = logging.NOTSET


@contextmanager
def shown_log(verbose: int) -> Iterator[None]:
    """Print the log while a fit runs, if `verbose` is 2 or more; with bars it is not torn by them.

    Of processes that train together the first one prints.

    Where the log goes to a screen already, because the user configured logging, records of level
    INFO are let through to there, and nothing is printed twice. Fits within fits count as one.
    """
    verbose = verbose if is_first() else 0
    own = [
        handler
        for handler in _handlers()
        if isinstance(handler, logging.StreamHandler) and verbose and _on_screen(handler.stream)
    ]
    for handler in own:
        handler.setStream(_BesideBarsStream(handler.stream))
    with _Shown.lock:
        _Shown.fits += verbose >= 2
        if verbose >= 2 and _Shown.fits == 1:
            _show()
    try:
        yield
    finally:
        with _Shown.lock:
            _Shown.fits -= verbose >= 2
            if verbose >= 2 and _Shown.fits == 0:
                _hide()
        for handler in own:
            handler.setStream(handler.stream.stream)


def _show() -> None:
    _Shown.level = logger.level
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    if any(_is_on_screen(handler) for handler in _handlers()):
        return
    process = multiprocessing.current_process().name
    where = "" if process == "MainProcess" else f"[{process}] "
    _Shown.handler = _BesideBars()
    _Shown.handler.setFormatter(logging.Formatter(f"%(asctime)s {where}%(message)s", "%H:%M:%S"))
    logger.addHandler(_Shown.handler)


def _hide() -> None:
    logger.setLevel(_Shown.level)
    if _Shown.handler is not None:
        logger.removeHandler(_Shown.handler)
        _Shown.handler = None


def _handlers() -> Iterator[logging.Handler]:
    """Handlers that records of the log reach."""
    place: logging.Logger | None = logger
    while place is not None:
        yield from place.handlers
        place = place.parent if place.propagate else None


def _is_on_screen(handler: logging.Handler) -> bool:
    """Whether a handler shows records of level INFO to the user; foreign kinds are taken to do."""
    if handler.level > logging.INFO or isinstance(handler, logging.NullHandler):
        return False
    if isinstance(handler, logging.StreamHandler):
        return isinstance(handler.stream, _BesideBarsStream) or _on_screen(handler.stream)
    return True


def _on_screen(stream: Any) -> bool:
    screens = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    return any(stream is screen for screen in screens)

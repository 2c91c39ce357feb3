"""What the log tells of a training run: drops of the learning rate, the end, and what was kept."""

from __future__ import annotations

import logging
from typing import Any

from v1tlearn._opening import first_line
from v1tlearn.training.memory import InsufficientMemoryError
from v1tlearn.training.schedule import Verdict

logger = logging.getLogger("v1tlearn")


class EnoughError(Exception):
    """Who is told of the epochs wants no more of them; it never reaches who trains."""


def log_verdict(
    name: str, state: dict[str, Any], verdict: Verdict, lr: tuple[float, float], score_name: str
) -> None:
    """Tell what a schedule changed after an epoch, if it did.

    Parameters
    ----------
    name : str
        Of the model.
    state : dict
        After the epoch.
    verdict : Verdict
    lr : (float, float)
        Learning rate before and after.
    score_name : str
        The entry of the history by which epochs are judged.
    """
    changes = []
    if lr[1] != lr[0]:
        changes.append(f"learning rate {lr[0]:.3g} -> {lr[1]:.3g}")
    if verdict.restore:
        changes.append(f"back to {best_in_words(state, score_name)}")
    if changes:
        logger.info("%s: after epoch %d: %s", name, state["epoch"], "; ".join(changes))


def best_in_words(state: dict[str, Any], score_name: str) -> str:
    """Say whose weights are the best so far.

    Parameters
    ----------
    state : dict
    score_name : str

    Returns
    -------
    str
        Such as "epoch 7, validation correlation 0.1234".
    """
    epoch = state.get("best_epoch")
    if not epoch:  # None: of a model that was saved by an earlier version
        return "the weights it began with" if epoch is None else "the initial weights"
    score = state["history"][epoch - 1].get(score_name)
    called = score_name.replace("_", " ")
    return f"epoch {epoch}" + ("" if score is None else f", {called} {score:.4f}")


def reason_of(error: BaseException, otherwise: str) -> tuple[str, str]:
    """Why a training ended with an error.

    Parameters
    ----------
    error : BaseException
    otherwise : {"on_epoch", "checkpoint_dir", "error"}
        Who raised it, where the error itself does not tell the reason; the last is the training.

    Returns
    -------
    reason : str
        In the words of ``stop_reason_``.
    why : str
        For the log.
    """
    if isinstance(error, FloatingPointError):
        return "non-finite loss", "the loss is not finite"
    if isinstance(error, InsufficientMemoryError):
        return "out of memory", "memory did not suffice"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "interrupted"
    if isinstance(error, GeneratorExit):
        return "closed", "no more epochs were asked for"
    if isinstance(error, EnoughError):
        return "on_epoch", "on_epoch asked for it"
    raised = f"{type(error).__name__} was raised"
    if otherwise == "checkpoint_dir":
        return "error", f"the state was not written to checkpoint_dir, {first_line(error)}"
    return otherwise, f"{raised} by on_epoch" if otherwise == "on_epoch" else raised


def log_end(name: str, state: dict[str, Any], why: str, seconds: float, score_name: str) -> None:
    """Tell that a training ended, why, and which weights were kept.

    Parameters
    ----------
    name : str
        Of the model.
    state : dict
        At the end.
    why : str
    seconds : float
        Since the beginning.
    score_name : str
    """
    logger.info(
        "%s: training ended after epoch %d, in %.1f s: %s; kept: %s",
        name,
        state["epoch"],
        seconds,
        why,
        best_in_words(state, score_name),
    )

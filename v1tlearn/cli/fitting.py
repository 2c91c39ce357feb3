"""``v1tlearn fit``: a training in a folder of its own, which goes on where it was stopped."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from v1tlearn.cli.errors import InterruptedCommandError, UsageError
from v1tlearn.cli.models import check_device, make_estimator
from v1tlearn.cli.recordings import ALL, open_trials, select
from v1tlearn.cli.stopping import code_of, name_of
from v1tlearn.cli.values import parse_assignments, read_parameters
from v1tlearn.tracking import CSVLog, RunFolder, TensorBoardLog
from v1tlearn.training import join

logger = logging.getLogger("v1tlearn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell what the command takes, beside what all take.

    Parameters
    ----------
    parser : ArgumentParser
    """
    parser.add_argument("--model", required=True, metavar="NAME", help="such as V1TRegressor")
    parser.add_argument("--preset", metavar="NAME", help="published parameters, such as v1t2023")
    parser.add_argument(
        "--params", type=Path, metavar="FILE",
        help="parameters, in .json or .yaml, or the run.json of another run",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="assignments",
        help="a parameter, as JSON: lr=0.001, image_size=[36,64]; several times; ahead of --params",
    )  # fmt: skip
    parser.add_argument(
        "--tier", action="append", metavar="TIER", dest="tiers",
        help=f"what is trained on (default train; {ALL} for all); several times",
    )  # fmt: skip
    parser.add_argument(
        "--validation-tier", action="append", metavar="TIER", dest="validation_tiers",
        help="what chooses the epoch; without it the model sets some images of --tier aside",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of this run")
    parser.add_argument(
        "--resume", action="store_true",
        help="go on with the run in --out, to the same model; begin where there is none",
    )  # fmt: skip
    parser.add_argument(
        "--tensorboard", action="store_true", help="also write events for TensorBoard"
    )


def run(options: argparse.Namespace) -> None:
    """Fit, and save the model.

    Parameters
    ----------
    options : Namespace

    Raises
    ------
    UsageError
        If the command line asks for what there is not, or the folder is taken.
    InterruptedCommandError
        If a signal came.
    """
    given = {} if options.params is None else read_parameters(options.params)
    given |= parse_assignments(options.assignments)
    if options.device is not None:
        given["device"] = options.device
    given.setdefault("verbose", int(sys.stderr.isatty() and not options.quiet))
    estimator = make_estimator(options.model, options.preset, given)
    check_device(estimator.device)
    folder = options.out
    join().first(lambda: _check_folder(folder, options.resume))
    trials = open_trials(options.recordings, options.cache)
    training = select(trials, options.tiers or ["train"], options.mice)
    validation = None
    if options.validation_tiers:
        validation = select(trials, options.validation_tiers, options.mice)
    try:
        with RunFolder(folder, estimator, training, validation) as record:
            told: list[Any] = [record, CSVLog(folder / "history.csv")]
            if options.tensorboard:
                told.append(TensorBoardLog(folder / "tensorboard"))
            if not estimator.verbose:
                told.append(_Lines(estimator.max_epochs))
            estimator.fit(
                training, validation=validation, on_epoch=told, checkpoint_dir=record.checkpoints
            )
            estimator.save(folder / "model")
    except KeyboardInterrupt as error:
        raise InterruptedCommandError(_how_to_go_on(error, options), code_of(error)) from error
    logger.info("the model is in %s", folder / "model")


class _Lines:
    """Tells every epoch in the log, where there is no bar."""

    def __init__(self, most: int) -> None:
        self._most = most

    def __call__(self, record: Mapping[str, Any]) -> None:
        kept = ("loss", "validation_loss", "validation_correlation", "lr", "seconds")
        said = ", ".join(f"{n.replace('_', ' ')} {record[n]:.4g}" for n in kept if n in record)
        logger.info("epoch %d of at most %d: %s", record["epoch"], self._most, said)


def _check_folder(folder: Path, resume: bool) -> None:
    """Refuse a folder that holds a run, unless it is to go on, or other things."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file: expected a folder, which is made.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / "run.json").exists():
        others = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
        if others:
            raise UsageError(f"--out {folder} holds other things: give a folder of its own.")
    elif not resume:
        raise UsageError(
            f"--out {folder} holds a run: --resume goes on with it; give another folder, or remove "
            "this one, to begin anew."
        )


def _how_to_go_on(error: KeyboardInterrupt, options: argparse.Namespace) -> str:
    states = sorted((options.out / "checkpoints").glob("epoch-*"))
    arguments = [*options.arguments] + ["--resume"] * (not options.resume)
    command = shlex.join(["v1tlearn", *arguments])
    if not states:
        return f"{name_of(error)} ahead of the end of the first epoch. Begin again with: {command}"
    epoch = int(states[-1].name.partition("-")[2])
    return (
        f"{name_of(error)}. The state after epoch {epoch} is in {states[-1].parent}; go on with: "
        f"{command}"
    )

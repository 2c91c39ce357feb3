"""``v1tlearn predict``, ``score`` and ``report``: what a saved model makes of recordings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from v1tlearn._opening import printable
from v1tlearn._replacing import replacing
from v1tlearn.cli.errors import UsageError
from v1tlearn.cli.models import load_model
from v1tlearn.cli.recordings import ALL, open_trials, select
from v1tlearn.inspection import report
from v1tlearn.metrics import score_table
from v1tlearn.metrics.table import NAMES
from v1tlearn.prediction_files import save_predictions
from v1tlearn.trials import Trials, save_table


def add_common_arguments(parser: argparse.ArgumentParser, tier: str) -> None:
    """Tell what commands over a saved model take.

    Parameters
    ----------
    parser : ArgumentParser
    tier : str
        By default.
    """
    parser.add_argument(
        "--tier", action="append", metavar="TIER", dest="tiers",
        help=f"of these trials (default {tier}; {ALL} for all); several times",
    )  # fmt: skip
    parser.set_defaults(tier=tier)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file that is there already"
    )


def _opened(options: argparse.Namespace, suffixes: tuple[str, ...]) -> tuple[Any, Trials]:
    """Model and trials, once it is known that what comes of them can be written."""
    if options.out is not None:
        if options.out.suffix.lower() not in suffixes:
            raise UsageError(f"--out {options.out}: expected a file {' or '.join(suffixes)}.")
        if options.out.exists() and not options.overwrite:
            raise UsageError(f"{options.out} is there already: --overwrite replaces it.")
        if not options.out.absolute().parent.is_dir():
            raise UsageError(f"there is no folder {options.out.absolute().parent}; make it first.")
    model = load_model(options.model, options.device or "auto")
    trials = open_trials(options.recordings, options.cache)
    return model, select(trials, options.tiers or [options.tier], options.mice)


def predict(options: argparse.Namespace) -> None:
    """Write predictions as netCDF, part by part.

    Parameters
    ----------
    options : Namespace
    """
    model, trials = _opened(options, (".nc",))
    if not hasattr(model, "predict"):
        raise UsageError(f"{type(model).__name__} predicts no responses.")
    save_predictions(model, trials, options.out)


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell what ``score`` takes.

    Parameters
    ----------
    parser : ArgumentParser
    """
    parser.add_argument(
        "--metric", action="append", metavar="NAME", dest="metrics",
        help="such as feve; several times (default: those of score_table)",
    )  # fmt: skip
    parser.add_argument(
        "--by", choices=("mice", "uniform_average", "raw_values"), default="mice",
        help="a row per mouse, for all of them, or per neuron",
    )  # fmt: skip
    parser.add_argument("--ceilings", action="store_true", help="also what repeats leave possible")
    parser.add_argument(
        "--bootstrap", type=int, default=0, metavar="N", help="draws of images, for intervals"
    )


def score(options: argparse.Namespace) -> None:
    """Print scores, and write them where it is asked for.

    Parameters
    ----------
    options : Namespace
    """
    if unknown := [name for name in options.metrics or () if name not in NAMES]:
        raise UsageError(f"--metric {unknown[0]}: expected one of {', '.join(NAMES)}.")
    if options.bootstrap < 0:
        raise UsageError(f"--bootstrap {options.bootstrap}: expected 0 or more draws.")
    model, trials = _opened(options, (".csv", ".parquet", ".json"))
    table = score_table(
        model,
        trials,
        metrics=options.metrics,
        multioutput=options.by,
        ceilings=options.ceilings,
        n_bootstrap=options.bootstrap,
    )
    if options.out is not None:
        _write(table, options.out)
    with pd.option_context("display.width", 120, "display.max_rows", 60):
        text = table.to_string(index=False, float_format="{:.4f}".format)
    sys.stdout.write(f"{printable(text)}\n")


def _write(table: pd.DataFrame, path: Path) -> None:
    if path.suffix.lower() != ".json":
        save_table(table, path)
        return
    with replacing(path) as beside:
        table.to_json(beside, orient="records", indent=1)


def make_report(options: argparse.Namespace) -> None:
    """Write a page about the model.

    Parameters
    ----------
    options : Namespace
    """
    model, trials = _opened(options, (".html", ".htm"))
    report(model, trials, options.out, title=options.title)

"""The command ``v1tlearn``: what it takes, and what it says where something is wrong."""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from v1tlearn._opening import printable
from v1tlearn.cli import evaluating, fitting
from v1tlearn.cli.errors import FAILED, USAGE, InterruptedCommandError, UsageError
from v1tlearn.cli.stopping import code_of, name_of, stopping

# Errors whose messages are written for users.
_EXPLAINED = (ArithmeticError, ImportError, MemoryError, OSError, TypeError, ValueError)

_EPILOG = """\
exit codes: 0 done, 1 failed, 2 the command line is wrong, 130, 143, 138 and 129 interrupted by
Ctrl-C, the signal to terminate, SIGUSR1 or a terminal that closed
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        The exit code.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    try:
        options = parser.parse_args(given)
    except SystemExit as end:  # after help, or an error that it has told
        return int(end.code or 0)
    options.arguments = given
    with _log_shown(options), stopping():
        try:
            options.run(options)
        except InterruptedCommandError as error:
            return _say(options, str(error), error.code)
        except KeyboardInterrupt as error:
            return _say(options, name_of(error), code_of(error))
        except UsageError as error:
            return _say(options, f"error: {error}", USAGE)
        except Exception as error:
            kind = "" if str(error) and isinstance(error, _EXPLAINED) else type(error).__name__
            said = ": ".join(part for part in (kind, str(error)) if part)
            return _say(options, f"error: {said}", FAILED)
    return 0


def _say(options: argparse.Namespace, text: str, code: int) -> int:
    if options.debug:
        traceback.print_exc()
    with suppress(OSError):  # the terminal may be gone, and the code remains
        sys.stderr.write(f"v1tlearn {options.command}: {printable(text)}\n")
    return code


class _Lines(logging.Formatter):
    """Lines of the log, in which names from files are shown and not obeyed."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@contextmanager
def _log_shown(options: argparse.Namespace) -> Iterator[None]:
    """Show the log, and warnings without the lines of code that they are of."""
    logger = logging.getLogger("v1tlearn")
    handler, before = logging.StreamHandler(sys.stderr), logger.level
    handler.setFormatter(_Lines("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    usual = logging.INFO if options.command == "fit" else logging.WARNING
    level = logging.DEBUG if options.verbose else logging.WARNING if options.quiet else usual
    logger.setLevel(level)
    logger.addHandler(handler)

    def show(message: Warning | str, *others: Any, **also: Any) -> None:
        sys.stderr.write(f"v1tlearn {options.command}: warning: {printable(str(message))}\n")

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Version(argparse.Action):
    """Tells the version, which takes time to find, only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *others: Any) -> None:
        sys.stdout.write(f"v1tlearn {version('v1tlearn')}\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="v1tlearn",
        description="Models of visual neurons' responses, over files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version it is")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    fit = _command(commands, "fit", "train a model and save it", fitting.run)
    _add_recordings(fit)
    fitting.add_arguments(fit)

    predict = _command(commands, "predict", "write what a model predicts", evaluating.predict)
    _add_model(predict)
    _add_recordings(predict)
    evaluating.add_common_arguments(predict, "all")
    _add_out(predict, "FILE.nc", "netCDF, which Responses.open reads")

    score = _command(commands, "score", "score a model", evaluating.score)
    _add_model(score)
    _add_recordings(score)
    evaluating.add_common_arguments(score, "test")
    evaluating.add_score_arguments(score)
    _add_out(score, "FILE", "also write the table, as .csv, .parquet or .json", required=False)

    page = _command(commands, "report", "write a page about a model", evaluating.make_report)
    _add_model(page)
    _add_recordings(page)
    evaluating.add_common_arguments(page, "all")
    _add_out(page, "FILE.html", "the page, one file")
    page.add_argument("--title", help="of the page")
    return parser


def _command(commands: Any, name: str, said: str, run: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=said, description=f"{said[0].upper()}{said[1:]}.",
                                 epilog=_EPILOG, allow_abbrev=False)  # fmt: skip
    parser.set_defaults(run=run)
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("-q", "--quiet", action="store_true", help="say nothing but warnings")
    shown.add_argument("-v", "--verbose", action="store_true", help="say more")
    parser.add_argument("--debug", action="store_true", help="show where an error arose")
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a saved model, or the folder of a run"
    )


def _add_recordings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recordings", type=Path, nargs="+", metavar="RECORDINGS",
        help="netCDF files, zips or folders in the layouts of Sensorium, each with mice of its own",
    )  # fmt: skip
    parser.add_argument("--mouse", action="append", metavar="ID", dest="mice",
                        help="of these mice alone; several times")  # fmt: skip
    parser.add_argument("--cache", type=Path, metavar="FOLDER",
                        help="keeps the trials of zips and folders as netCDF")  # fmt: skip


def _add_out(
    parser: argparse.ArgumentParser, metavar: str, said: str, required: bool = True
) -> None:
    parser.add_argument("--out", type=Path, required=required, metavar=metavar, help=said)

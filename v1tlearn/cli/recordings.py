"""From paths on a command line to the trials that are meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from v1tlearn._paths import what_lies_at
from v1tlearn.cli.errors import UsageError
from v1tlearn.datasets import read_sensorium, read_sensorium2023
from v1tlearn.trials import Trials, concat

ALL = "all"


def open_trials(paths: Sequence[Path], cache: Path | None = None) -> Trials:
    """Open recordings lazily: netCDF files, zips and folders in the layouts of Sensorium.

    Parameters
    ----------
    paths : sequence of Path
        Their mice lie side by side.
    cache : Path, optional
        Where trials of zips and folders are kept.

    Returns
    -------
    Trials

    Raises
    ------
    UsageError
        If one of them is not there, two hold a mouse of one name, or the cache is a file.
    ValueError
        If they hold no recordings, or are damaged.
    """
    if cache is not None and cache.exists() and not cache.is_dir():
        raise UsageError(f"--cache {cache} is a file: expected a folder, which is made.")
    parts = [_open(path, cache) for path in paths]
    holders: dict[str, Path] = {}
    for path, part in zip(paths, parts, strict=True):
        for mouse in part.mice:
            if mouse in holders:
                raise UsageError(
                    f"{holders[mouse]} and {path} both hold a mouse {mouse!r}: expected each mouse "
                    "in one of them. If they are sessions of one animal, join them in Python, "
                    "v1tlearn.concat; if not, save them under other names."
                )
            holders[mouse] = path
    return parts[0] if len(parts) == 1 else cast(Trials, concat(parts))


def _open(path: Path, cache: Path | None) -> Trials:
    found = what_lies_at(path)
    if not found.exists:
        raise UsageError(f"{path}: {found.said()}. Expected recordings.")
    if path.suffix.lower() != ".zip" and not path.is_dir():
        return Trials.open(path)
    if path.is_dir() and not found.is_recordings and found.expression:
        raise ValueError(f"{path}: {found.said()}. Expected recordings.")
    try:
        return Trials(read_sensorium(path, cache=cache))
    except ValueError as error:
        try:
            return Trials(read_sensorium2023(path, cache=cache))
        except ValueError:
            raise error from None


def select(trials: Trials, tiers: Sequence[str] | None, mice: Sequence[str] | None) -> Trials:
    """Select tiers and mice.

    Parameters
    ----------
    trials : Trials
    tiers : sequence of str or None
        None, or "all", which stands alone, for all.
    mice : sequence of str or None

    Returns
    -------
    Trials

    Raises
    ------
    UsageError
        If there are none, or "all" stands beside another tier.
    """
    if tiers and ALL in tiers and set(tiers) != {ALL}:
        raise UsageError(
            f"of the tiers {', '.join(tiers)}, {ALL!r} takes all trials and stands alone: leave it "
            "out, or the others."
        )
    try:
        if mice:
            trials = trials.sel(mouse_id=list(mice))
    except ValueError as error:
        raise UsageError(f"--mouse: {error}") from error
    if not tiers or ALL in tiers:
        return trials
    try:
        return trials.sel(tier=list(tiers))
    except ValueError as error:
        raise UsageError(f"{error} --tier {ALL} takes all trials.") from error

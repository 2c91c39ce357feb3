"""
Recordings in the layout of Sensorium 2023, or saved ones, and the splits that are scored.

Also the small simulated ones of ``--quick``.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import v1tlearn as v1

# What splits are called in tables, in their order; by their names in the files, or else by tier.
_TRACKS = {"main": "main", "bonus": "OOD"}
SPLITS = {
    "oracle": "oracle",
    "validation": "validation",
    "test": "test",
    "final_test": "final test",
    **{
        f"{part}{kind}_{track}": f"{part} {name}"
        for part in ("live", "final")
        for track, name in _TRACKS.items()
        for kind in ("", "_test")
    },
}
_SIMULATED = {"n_mice": 2, "n_neurons": [8, 6], "n_movies": 28, "n_test_movies": 3, "n_repeats": 4}
_SIMULATED |= {"n_frames": (50, 60), "cells": ["simple", "motion"], "noise": 0.3}


def open_recordings(
    path: Path, mice: Sequence[str] | None, neurons: int | None, cache: Path | None
) -> v1.Trials:
    """Open mice, movies left in their files.

    Parameters
    ----------
    path : Path
        A folder with folders or zips of mice, one of them, or a file of `save_recordings`.
    mice : sequence of str or None
        Which ones; all.
    neurons : int or None
        At most so many of each, drawn at random, always the same.
    cache : Path or None
        Where a copy is written, of which parts of movies are read fast.

    Raises
    ------
    ValueError
        If a mouse is unknown, has images, or no movies for training.
    """
    if path.suffix == ".nc":
        trials = v1.Trials(v1.open_recordings(path))
    else:
        trials = v1.Trials(v1.read_sensorium2023(path, cache=cache))
    if unknown := [mouse for mouse in mice or () if mouse not in trials.mice]:
        raise ValueError(f"{path} has no {', '.join(unknown)}, only {', '.join(trials.mice)}")
    trials = trials.sel(mouse_id=list(mice or trials.mice))
    if trials.n_frames is None:
        raise ValueError(f"{path} has images: their tables are those of papers.v1t2023")
    for mouse in trials.mice:
        if "train" not in trials.sel(mouse_id=mouse).tiers:
            raise ValueError(f"{path}: mouse {mouse} has no movies of the tier train")
    if neurons is None:
        return trials
    masks = {}
    for mouse, n in trials.n_neurons.items():
        masks[mouse] = np.zeros(n, bool)
        masks[mouse][np.random.default_rng(0).permutation(n)[:neurons]] = True
    return trials.sel(neuron=masks)


def splits(trials: v1.Trials) -> dict[str, v1.Trials]:
    """Trials of every split whose responses are there, for the mice for which they are."""
    parts: dict[str, list[v1.Trials]] = {}
    for mouse in trials.mice:
        own = trials.sel(mouse_id=mouse)
        dataset, tiers = own.recordings[mouse], own.tiers
        names = dataset["trial_tier"].values if "trial_tier" in dataset.coords else tiers
        for name, tier in sorted(set(zip(names.tolist(), tiers.tolist(), strict=True))):
            label = SPLITS.get(name.strip().lower(), SPLITS.get(tier))
            part = own[(names == name) & (tiers == tier)]
            if label is not None and not _withheld(part, mouse):
                parts.setdefault(label, []).append(part)
    order = dict.fromkeys(SPLITS.values())
    return {label: v1.concat(parts[label]) for label in order if label in parts}


def _withheld(trials: v1.Trials, mouse: str) -> bool:
    """Whether nothing was recorded, by the first trial: the reader makes NaN of whole tiers."""
    return bool(np.isnan(trials[:1].responses.get(mouse)).all())


def describe(trials: v1.Trials) -> dict[str, dict[str, int]]:
    """Count neurons and trials of every mouse: what results were made of."""
    found = {}
    for mouse in trials.mice:
        own = trials.sel(mouse_id=mouse)
        tiers = own.tiers
        first = np.ascontiguousarray(own[:1].responses.get(mouse))
        found[mouse] = {
            "neurons": trials.n_neurons[mouse],
            "checksum": zlib.crc32(first.tobytes()),
            **{str(tier): int((tiers == tier).sum()) for tier in dict.fromkeys(tiers.tolist())},
        }
    return found


def simulate(path: Path, seed: int) -> Path:
    """Write two small mice that see drifting scenes, half of their cells for their direction."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        v1.save_recordings(v1.make_movie_recordings(**_SIMULATED, random_state=seed), beside)
        beside.rename(path)
    return path

"""
The recording of one mouse: files of natimg2800, of the released code, or any saved recording.

Also the simulated one of ``--quick``.
"""

from pathlib import Path

import numpy as np
import xarray as xr

import v1tlearn as v1
from v1tlearn.datasets.fetch import NATIMG2800_CLASSES, NATIMG2800_IMAGES

TIERS = ("train", "validation", "test")
_SIMULATED = {"n_neurons": 60, "n_trials": 500, "n_test_images": 48, "image_shape": (16, 24)}
_SIMULATED |= {"cutoff": 3.0, "informative": 0.5, "explainable_variance": 0.8}


def open_recording(path: Path, mouse: str | None) -> v1.Trials:
    """Open the recording of a mouse; without a name the only one.

    Parameters
    ----------
    path : Path
        A file that `save_recordings` wrote; a folder as `fetch_natimg2800` leaves it; or one with
        ``images.mat`` and ``responses.mat``, as the released code reads.
    mouse : str or None

    Returns
    -------
    Trials
        With the tiers "train", "validation" and "test".

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no recording, no such mouse, several without a name, or a tier is missing.
    """
    trials = v1.Trials(_read_folder(path, mouse) if path.is_dir() else v1.open_recordings(path))
    if mouse is None and len(trials.mice) > 1:
        raise ValueError(f"{path} has the mice {', '.join(trials.mice)}: name one by --mouse")
    if mouse is not None and mouse not in trials.mice:
        raise ValueError(f"{path} has no mouse {mouse}, only {', '.join(trials.mice)}")
    trials = trials.sel(mouse_id=mouse or trials.mice[0])
    if missing := [tier for tier in TIERS if tier not in trials.tiers]:
        raise ValueError(f"{path} has no trials of the tier {', '.join(missing)}: set them first")
    return trials


def _read_folder(folder: Path, mouse: str | None) -> xr.DataTree:
    if (folder / "responses.mat").is_file():
        return v1.read_natimg2800(folder / "responses.mat", folder / "images.mat")
    found = {p.stem.removeprefix("natimg2800_"): p for p in sorted(folder.glob("natimg2800_*.mat"))}
    if not found or not (folder / NATIMG2800_IMAGES).is_file():
        raise FileNotFoundError(
            f"{folder} has no recordings, natimg2800_*.mat, beside {NATIMG2800_IMAGES}, and no "
            "responses.mat beside images.mat: v1tlearn.fetch_natimg2800 downloads the former"
        )
    if mouse is not None and mouse not in found:
        raise ValueError(f"{folder} has no file of mouse {mouse}, only of {', '.join(found)}")
    names = [mouse] if mouse else list(found)  # others are not read: each fills a gigabyte
    if len(names) > 1:
        raise ValueError(f"{folder} has the mice {', '.join(found)}: name one by --mouse")
    classes = folder / NATIMG2800_CLASSES["all"]
    return v1.read_natimg2800(
        [found[name] for name in names],
        folder / NATIMG2800_IMAGES,
        names=names,
        classes=classes if classes.is_file() else None,
    )


def mean_of_repeats(trials: v1.Trials) -> v1.Trials:
    """One trial per image of a mouse, with the mean of its responses.

    A neuron that was not recorded in a trial counts in the others.
    """
    (mouse,) = trials.mice
    dataset = trials.recordings[mouse].to_dataset()
    ids, first, which = np.unique(
        dataset["image_id"].values, return_index=True, return_inverse=True
    )
    responses = dataset["responses"].values.astype(np.float64)
    recorded = np.isfinite(responses)
    sums, counts = (np.zeros((len(ids), responses.shape[1])) for _ in range(2))
    np.add.at(sums, which, np.where(recorded, responses, 0))
    np.add.at(counts, which, recorded)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)
    out = dataset.isel(trial=first).drop_vars("trial_id", errors="ignore")
    return v1.Trials({mouse: out.assign(responses=(("trial", "neuron"), means))})


def simulate(path: Path, seed: int) -> Path:
    """Write a small recording of neurons that see coarse structure alone, half of them nothing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        v1.save_recordings(v1.make_coarse_recordings(**_SIMULATED, random_state=seed), beside)
        beside.rename(path)
    return path

"""
Recordings for ``mice.py``: found by name, opened one at a time, limited to explainable neurons.

Also the small simulated files of ``--quick``, in the layout of the published ones.
"""

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import scipy.io

import v1tlearn as v1
from v1tlearn.datasets.fetch import NAT60K, NAT60K_IMAGES

PUBLISHED_DROP = "L1_A1"  # the one mouse whose mirrored test images were left out
THRESHOLD = 0.15  # of FEV; only neurons above it are modelled and scored

_QUICK_MICE = ("FX10", "FX20")
_QUICK_WINDOW = (0, 32)


def find_mice(folder: Path) -> dict[str, Path]:
    """Find the files of the mice in a folder: {mouse: path}, in the paper's order."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; expected the one with the mice's files")
    names = {mouse: f"{mouse}_nat60k_{date}.npz" for mouse, (date, _) in NAT60K.items()}
    found = {mouse: folder / name for mouse, name in names.items() if (folder / name).is_file()}
    if not found or not (folder / NAT60K_IMAGES).is_file():
        raise ValueError(
            f"{folder} lacks {'recordings' if not found else NAT60K_IMAGES}; expected the images, "
            f"{NAT60K_IMAGES}, beside any of {', '.join(names.values())}: "
            "v1tlearn.fetch_nat60k downloads them"
        )
    return found


def open_mouse(path: Path, mouse: str, flips: str, quick: bool) -> v1.Trials:
    """Open the recording of a mouse, images left in their file.

    `flips` is that of `read_nat60k`, or "published".
    """
    if flips == "published":
        flips = "drop_published" if mouse == PUBLISHED_DROP else "keep"
    recordings = v1.read_nat60k(
        path,
        path.with_name(NAT60K_IMAGES),
        names=[mouse],
        window=_QUICK_WINDOW if quick else "auto",
        flips=flips,
    )
    return v1.Trials(recordings)


def explainable(trials: v1.Trials, most: int | None) -> np.ndarray:
    """Say which neurons of one mouse are modelled: those above the threshold, at most `most`.

    Of more than `most` some are drawn, always the same.
    """
    (mouse,) = trials.mice
    values = v1.metrics.fev(
        trials.sel(tier="test").responses, shown_once="counted", multioutput="raw_values"
    ).values
    chosen = np.flatnonzero(np.nan_to_num(values, nan=-1.0) > THRESHOLD)
    if len(chosen) == 0:
        raise ValueError(f"mouse {mouse!r}: no neuron has a FEV above {THRESHOLD}")
    if most is not None and len(chosen) > most:
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:most])
    return chosen


def describe(trials: v1.Trials) -> dict[str, int]:
    """Count neurons and trials of one mouse: what results were made of."""
    (mouse,) = trials.mice
    tiers = trials.tiers
    responses = np.ascontiguousarray(trials.responses.get(mouse))
    return {
        "neurons": trials.n_neurons[mouse],
        "checksum": zlib.crc32(responses.tobytes()),
        **{tier: int((tiers == tier).sum()) for tier in ("train", "validation", "test")},
    }


# -- what --quick runs on ----------------------------------------------------------------------


def simulate(
    folder: Path,
    n_neurons: int = 8,
    n_trials: int = 150,
    *,
    mice: Iterable[str] = _QUICK_MICE,
    image_shape: tuple[int, int] = (18, 32),
    margins: tuple[int, int] = (0, 0),
    seed: int = 0,
) -> Path:
    """Write small simulated mice and their images, in the layout of the published files.

    Images that are no test images stand behind these, and beside each lies its mirrored copy.
    Neurons see `image_shape`, in pixels; the screen has `margins` to the left and right of it.
    """
    mice = list(mice)
    if folder.exists():
        return folder
    recordings = v1.make_v1_recordings(
        n_mice=len(mice),
        n_neurons=n_neurons,
        n_trials=n_trials,
        n_test_images=30,
        n_repeats=4,
        image_shape=image_shape,
        behavior=False,
        validation_fraction=0.0,
        explainable_variance=0.8,
        random_state=seed,
    )
    beside = folder.with_name(f".{folder.name}.part{os.getpid()}")
    beside.mkdir(parents=True)
    stack: list[np.ndarray] = []
    place: dict[int, int] = {}
    for mouse, recording in zip(mice, recordings.children.values(), strict=True):
        dataset = recording.to_dataset()
        test = dataset["tier"].values == "test"
        ids, responses = dataset["image_id"].values, dataset["responses"].values
        for trial in np.argsort(~test, kind="stable"):
            if place.setdefault(int(ids[trial]), len(stack)) == len(stack):
                image = dataset["stimuli"].values[trial, 0]
                stack.append(np.pad(image, ((0, 0), margins), mode="symmetric"))
        tested = np.unique(ids[test])
        np.savez(
            beside / f"{mouse}_nat60k_{NAT60K[mouse][0]}.npz",
            sp=responses[~test].T,
            istim_sp=np.array([place[int(i)] for i in ids[~test]]),
            ss_all=np.stack([responses[test & (ids == i)] for i in tested]),
            istim_ss=np.array([place[int(i)] for i in tested]),
            xpos=dataset["position"].values[:, 0] * 0.75,
            ypos=dataset["position"].values[:, 1] * 0.5,
        )
    images = np.stack(stack)
    images = np.concatenate([images, images[:, :, ::-1]])
    scipy.io.savemat(beside / NAT60K_IMAGES, {"img": images.transpose(1, 2, 0)})
    beside.rename(folder)
    return folder

"""Trials that judge a model and should not: of images that it was trained on, of too few mice."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from v1tlearn._warn import warn
from v1tlearn.trials import Trials

_CHANCE = 0.01  # of validation trials: noise and stripes look alike now and then, and tell nothing


@dataclass(frozen=True)
class Seen:
    """Images of a training, and the trials that showed them.

    Attributes
    ----------
    images : frozenset of str
        Labels, of all mice.
    rows : dict of str to (weak reference, ndarray)
        The recordings, for as long as somebody holds them, and places of the trials in them.
    """

    images: frozenset[str]
    rows: Mapping[str, tuple[weakref.ref, np.ndarray]]

    @classmethod
    def of(cls, trials: Trials, *, hashing: bool = False) -> Seen:
        """Note what a model is trained on, as far as labels are known, or wanted from images."""
        images = _labels(trials, hashing=hashing).values()
        found = {mouse: trials._recorded_rows(mouse) for mouse in trials.mice}
        rows = {mouse: (weakref.ref(recorded), own) for mouse, (recorded, own) in found.items()}
        return cls(frozenset().union(*(ids.tolist() for ids in images)), rows)

    def among(self, labels: Mapping[str, np.ndarray]) -> np.ndarray:
        """Those of the labels of trials, per mouse, whose images were trained on."""
        return np.array([x for ids in labels.values() for x in ids.tolist() if x in self.images])

    def others(self, trials: Trials, mouse: str) -> np.ndarray:
        """Which trials of a mouse are none of the training: a row is one of its recording alone."""
        recorded, rows = trials._recorded_rows(mouse)
        recording, own = self.rows.get(mouse, (lambda: None, rows))
        same = recording() is recorded
        return ~np.isin(rows, own) if same else np.ones(len(rows), dtype=bool)


def warn_of_validation(training: Trials, held_out: Trials) -> None:
    """Warn of validation trials that tell too little, or too much."""
    if without := [mouse for mouse in training.mice if mouse not in held_out.mice]:
        warn(
            f"the mice {without} have no trial in the validation set, which then chooses the best "
            "epoch without them: give it trials of all mice."
        )
    again = Seen.of(training, hashing=True).among(_labels(held_out, hashing=True))
    if len(again) > _CHANCE * len(held_out):
        warn(
            f"{len(again)} of {len(held_out)} validation trials show images that are trained on, "
            f"the first {again[:3].tolist()}, so that the validation score is too good: keep all "
            "repeats of an image on one side, as model_selection.image_train_test_split does."
        )


def warn_of_seen_images(seen: Seen | None, trials: Trials) -> None:
    """Warn where trials that are scored, others than those of the training, repeat its images."""
    if seen is None:
        return
    labels = {mouse: ids[seen.others(trials, mouse)] for mouse, ids in _labels(trials).items()}
    again = seen.among(labels)
    if len(again):
        warn(
            f"{len(again)} of {len(trials)} trials that are scored show images that the model was "
            f"trained on, the first {again[:3].tolist()}, so that the score is too good: keep all "
            "repeats of an image on one side, in a search or cross-validation by GroupKFold with "
            "groups=trials.image_ids."
        )


def _labels(trials: Trials, *, hashing: bool = False) -> dict[str, np.ndarray]:
    """Image labels per mouse, where they cost no reading of files."""
    return {
        mouse: trials[trials.rows(mouse)[0]].image_ids
        for mouse in trials.mice
        if trials._has_image_ids(mouse, hashing=hashing)
    }

"""Trials that judge a model and should not: of images that it was trained on, of too few mice."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from v1tlearn._warn import warn
from v1tlearn.trials import Trials
from v1tlearn.trials._looks import ALIKE, Looks, closest, looks_of, same_from

_CHANCE = 0.01  # of trials: noise and stripes look alike now and then, and tell nothing


@dataclass(frozen=True)
class Seen:
    """Images of a training, and the trials that showed them.

    Attributes
    ----------
    images : frozenset of str
        Labels, of all mice.
    rows : dict of str to (weak reference, ndarray)
        The recordings, for as long as somebody holds them, and places of the trials in them.
    looks : Looks
        What images in memory look like: 512 bytes each.
    """

    images: frozenset[str]
    rows: Mapping[str, tuple[weakref.ref, np.ndarray]]
    looks: Looks

    @classmethod
    def of(cls, trials: Trials) -> Seen:
        """Note what a model is trained on, as far as no file has to be read for it."""
        return cls._of(trials, looks_of(trials, reading=False), hashing=False)

    def hashed(self, trials: Trials) -> Seen:
        """Note the same trials with labels of all images in memory."""
        return self._of(trials, self.looks, hashing=True)

    @classmethod
    def _of(cls, trials: Trials, looks: Looks, *, hashing: bool) -> Seen:
        images = _labels(trials, hashing=hashing).values()
        found = {mouse: trials._recorded_rows(mouse) for mouse in trials.mice}
        rows = {mouse: (weakref.ref(recorded), own) for mouse, (recorded, own) in found.items()}
        return cls(frozenset().union(*(ids.tolist() for ids in images)), rows, looks)

    def among(self, labels: Mapping[str, np.ndarray]) -> np.ndarray:
        """Those of the labels of trials, per mouse, whose images were trained on."""
        return np.array([x for ids in labels.values() for x in ids.tolist() if x in self.images])

    def others(self, trials: Trials, mouse: str) -> np.ndarray:
        """Which trials of a mouse are none of the training: a row is one of its recording alone."""
        recorded, rows = trials._recorded_rows(mouse)
        recording, own = self.rows.get(mouse, (lambda: None, rows))
        same = recording() is recorded
        return ~np.isin(rows, own) if same else np.ones(len(rows), dtype=bool)


def warn_of_validation(seen: Seen, training: Trials, held_out: Trials) -> None:
    """Warn of validation trials that tell too little, or too much."""
    if without := [mouse for mouse in training.mice if mouse not in held_out.mice]:
        warn(
            f"the mice {without} have no trial in the validation set, which then chooses the best "
            "epoch without them: give it trials of all mice."
        )
    seen = seen.hashed(training)
    labels = _labels(held_out, hashing=True)
    again = seen.among(labels)
    if len(again) > _CHANCE * len(held_out):
        warn(
            f"{len(again)} of {len(held_out)} validation trials show images that are trained on, "
            f"the first {again[:3].tolist()}, so that the validation score is too good: keep all "
            "repeats of an image on one side, as model_selection.image_train_test_split does."
        )
    if told := _look_alikes(seen, held_out, labels):
        warn(
            f"{told}, so that the validation score is too good: leave out those that "
            "model_selection.overlapping_images(train, validation) finds."
        )


def warn_of_held_out_mice(training: Trials) -> None:
    """Warn where a fold of scikit-learn scores mice that it trains on no trial of.

    scikit-learn makes NaN of the error that scoring them raises, once the model is trained.
    """
    held_out = _test_side()
    if held_out is None:
        return
    if without := [mouse for mouse in held_out.mice if mouse not in training.mice]:
        warn(
            f"this fold of the cross-validation holds out all trials of the mice {without}, whose "
            "neurons no model predicts that was not trained on some: its score will be an error, "
            "or NaN. Trials stand mouse after mouse, and KFold, which cv=5 and no cv mean, cuts "
            "them in that order: give cv=GroupKFold(5) with groups=trials.image_ids, or "
            "cv=KFold(5, shuffle=True), and shuffle=True to learning_curve. "
            "model_selection.leave_one_mouse_out compares models on mice that are left out."
        )


def _test_side() -> Trials | None:
    """What the tool of scikit-learn that is under way will score, where it is one.

    It tells nobody; where it calls its variable otherwise, nothing is found.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__") == "sklearn.model_selection._validation":
            found = frame.f_locals.get("X_test")
            return found if isinstance(found, Trials) else None
    return None


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
    places = [trials.rows(mouse)[0][seen.others(trials, mouse)] for mouse in trials.mice]
    others = trials[np.sort(np.concatenate(places))]
    named = np.isin(others.mouse_ids, [m for m in others.mice if others._names_images(m)])
    for part, flipped in ((others[named], False), (others[~named], True)):
        # images without a name that look like those of the training may be the training itself
        if told := _look_alikes(seen, part, _labels(part), flipped=flipped):
            warn(
                f"{told}, so that the score is too good: leave out those that "
                "model_selection.overlapping_images(train, test) finds."
            )


def _look_alikes(
    seen: Seen, trials: Trials, labels: Mapping[str, np.ndarray], *, flipped: bool = False
) -> str:
    """Say which images that bear another label look like one of the training; "" where too few.

    With `flipped` only those are meant that look so from right to left, or upside down.
    """
    fresh = np.ones(len(trials), dtype=bool)
    for mouse, ids in labels.items():
        fresh[trials.rows(mouse)[0]] = [x not in seen.images for x in ids.tolist()]
    if not fresh.any() or not len(seen.looks.prints):
        return ""
    looks = looks_of(trials[np.flatnonzero(fresh)], reading=False)
    if not len(looks.prints):
        return ""
    place, similarity, flip = closest(looks.prints, seen.looks.prints)
    meant = ~np.array(flipped) | (flip != "none")
    least = _CHANCE * len(looks.prints)
    found = np.flatnonzero((similarity >= ALIKE) & meant)
    if len(found) > least:  # gratings, and images of a few numbers, are alike by chance
        found = np.flatnonzero((similarity >= same_from(looks.prints, seen.looks.prints)) & meant)
    if len(found) <= least:
        return ""
    first = found[0]
    turned = "" if flip[first] == "none" else f", flipped {flip[first]}"
    return (
        f"{len(found)} of {len(looks.prints)} images look like images that were trained on, the "
        f"first {str(looks.image_ids[first])!r} like "
        f"{str(seen.looks.image_ids[place[first]])!r}{turned}"
    )


def _labels(trials: Trials, *, hashing: bool = False) -> dict[str, np.ndarray]:
    """Image labels per mouse, where they cost no reading of files."""
    return {
        mouse: trials[trials.rows(mouse)[0]].image_ids
        for mouse in trials.mice
        if trials._has_image_ids(mouse, hashing=hashing)
    }

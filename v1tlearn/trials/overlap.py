"""Stimuli of one set of trials that another shows, too: under any name, flipped, or resized."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from v1tlearn._instead import refuse_no_trials
from v1tlearn.trials._looks import ALIKE, closest, looks_of
from v1tlearn.trials.trials import Trials

_COLUMNS = ["image_id", "like", "same_id", "flip", "similarity", "share", "n_trials"]


def overlapping_images(train: Trials, test: Trials) -> pd.DataFrame:
    """Find the images of a test set that were trained on, or their mirror images.

    A model may know the answers to images that it was trained on, and its score on them says
    nothing of others. Image ids tell, where one image has one id; fingerprints tell also of images
    that bear another id, are flipped, resized, stored with other grey levels, contrast or
    compression.

    Parameters
    ----------
    train, test : Trials
        Of images or movies, of the same or other mice. Files are read once through.

    Returns
    -------
    DataFrame
        A row per image (or movie) of `test` that is in `train`, in the order of the test set; empty
        if there is none. Columns: ``image_id``; ``like``, the image of `train` that it is most
        like, or the one of its own id; ``same_id``, whether the ids are equal; ``flip``, by which
        it is turned: "none", "left-right", "up-down" or "both"; ``similarity``, the correlation
        of the two fingerprints; ``share``, how much of the frames of a movie is in `train`, 1 of an
        image; ``n_trials``, how many test trials show it.

    Raises
    ------
    TypeError
        If these are no `Trials`.

    See Also
    --------
    image_train_test_split : Splits with all repeats of an image on one side.

    Notes
    -----
    A fingerprint is the image on 16 x 16 pixels (an antialiased bilinear resampling of the mean
    over channels) without its mean and contrast. Images are taken for the same from a correlation
    of 0.993 on. Measured on 3,600 pictures shown to macaques, each of 56 x 56 pixels: an image and
    itself at half the size, or as a JPEG of quality 75, correlate by .995 and more; the two most
    similar ones by .988. Images that differ in details alone, such as gratings of nearly the same
    phase, or neighbouring frames of a movie, do count as the same: look at what is found (`fit` and
    `score` warn where more are alike than images that vary smoothly are by chance). Not found
    are crops and shifts, images of fewer than 64 pixels, and such without contrast, but under
    their ids.

    Of movies every frame is compared with every frame. A movie is listed from one frame on that is
    the same; ``like`` and ``flip`` are those of most of these frames.

    Examples
    --------
    >>> import numpy as np
    >>> import v1tlearn as v1
    >>> images = np.random.default_rng(0).uniform(0, 255, (6, 1, 18, 32)).astype("uint8")
    >>> train = v1.Trials.from_arrays(images[:4], None, np.zeros((4, 2)), image_ids=[1, 2, 3, 4])
    >>> mirrored = np.concatenate([images[2:3, :, :, ::-1], images[4:]])
    >>> test = v1.Trials.from_arrays(mirrored, None, np.zeros((3, 2)), image_ids=[5, 6, 7])
    >>> found = v1.model_selection.overlapping_images(train, test)
    >>> found[["image_id", "like", "flip"]].values.tolist()
    [['5', '3', 'left-right']]
    >>> clean = test[~np.isin(test.image_ids.astype(str), found["image_id"])]
    >>> len(clean)
    2
    """
    for name, trials in (("train", train), ("test", test)):
        if not isinstance(trials, Trials):
            refuse_no_trials(trials, "overlapping_images({}, ...)")
            raise TypeError(f"{name} is a {type(trials).__name__}: expected Trials.")
    ids, counts = np.unique(test.image_ids.astype(str), return_counts=True)
    shown = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    known, looks = looks_of(train, reading=True), looks_of(test, reading=True)
    if not len(known.prints) or not len(looks.prints):
        return _table([])
    place, similarity, flip = closest(looks.prints, known.prints)
    alike = similarity >= ALIKE
    trained = set(known.image_ids.tolist())
    rows = []
    for name in dict.fromkeys(looks.image_ids.tolist()):
        own = looks.image_ids == name
        found = own & alike
        same = name in trained
        if not same and not found.any():
            continue
        row = {"image_id": name, "same_id": same, "n_trials": shown[name]}
        row["share"] = 1.0 if same else float(found.sum() / own.sum())
        if same:
            row |= {"like": name, "flip": "none"}
            theirs = known.prints[known.image_ids == name]
            row["similarity"] = _similarity(looks.prints[own], theirs)
        else:
            like = pd.Series(known.image_ids[place[found]]).mode()[0]
            row |= {"like": like, "flip": pd.Series(flip[found]).mode()[0]}
            row["similarity"] = float(similarity[found].max())
        rows.append(row)
    return _table(rows)


def _similarity(prints: np.ndarray, others: np.ndarray) -> float:
    """Mean correlation of the frames of two stimuli with one id; NaN without contrast."""
    pair = [part.astype(np.float32) for part in (prints, others)]
    n = min(map(len, pair))
    products = (pair[0][:n] * pair[1][:n]).sum(axis=1)
    contrast = pair[0][:n].any(axis=1) & pair[1][:n].any(axis=1)
    return float(products[contrast].mean()) if contrast.any() else np.nan


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=_COLUMNS)

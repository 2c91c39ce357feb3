"""What stimuli look like, in a few numbers: enough to find one again, flipped or stored otherwise.

A fingerprint is an image of 16 x 16 grey levels without its mean and contrast. Those of one image
in two files, resized or compressed, correlate above `ALIKE`; those of two images do not. Measured
on 3,600 pictures shown to macaques: an image and itself at half the size, or as a JPEG of quality
75, at least .995; the two most similar of 6.5 million pairs .988.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from v1tlearn.trials._reading import BLOCK
from v1tlearn.trials.trials import Trials

ALIKE = 0.993  # correlation of fingerprints from which on images are the same
SIDE = 16
_FEWEST_PIXELS = 64  # images of fewer look alike by chance
_FINER = 4  # times, of the distance 1 - similarity, from one level of alike to the next
_LEVELS = 4  # down to 1e-4, which the rounding of fingerprints leaves apart
_READ = 32  # images resampled at once, which stay in the cache
_BLOCK = 512  # images compared at once
_ROUNDING = 1e-4  # of float16, by which a symmetric image is more like itself flipped
_FLAT = 1e-3  # standard deviation of a flat image, as a share of its largest grey level

FLIPS = {"none": (), "left-right": (2,), "up-down": (1,), "both": (1, 2)}


def fingerprints(images: np.ndarray) -> np.ndarray:
    """Fingerprints of images.

    Parameters
    ----------
    images : ndarray of shape (n_images, channels, height, width)

    Returns
    -------
    ndarray of shape (n_images, 256)
        float16, of length 1; 0 where an image has no contrast, too few pixels, or is not finite.
    """
    out = np.zeros((len(images), SIDE * SIDE), np.float16)
    if images.shape[-2] * images.shape[-1] < _FEWEST_PIXELS:
        return out
    rows, columns = (_weights(n) for n in images.shape[-2:])
    for start in range(0, len(images), _READ):
        with np.errstate(over="ignore"):
            block = np.asarray(images[start : start + _READ]).astype(np.float32)
        gray = torch.from_numpy(block).mean(dim=1)
        with torch.autocast("cpu", enabled=False):
            small = (rows @ (gray @ columns.T)).flatten(1)
        largest = small.abs().amax(dim=1, keepdim=True)
        small = small / largest.clamp(min=torch.finfo(torch.float32).tiny)
        small = small - small.mean(dim=1, keepdim=True)
        length = small.norm(dim=1, keepdim=True)
        varies = length > _FLAT * SIDE  # not so NaN
        out[start : start + _READ] = torch.where(varies, small / length, 0.0).half().numpy()
    return out


def _weights(n_pixels: int) -> torch.Tensor:
    """Antialiased bilinear resampling of one side, (16, n_pixels): products are much faster."""
    # an image of one bright row for each, whatever torch's defaults are
    each = torch.eye(n_pixels, dtype=torch.float32, device="cpu")[None, None]
    return F.interpolate(each, (SIDE, n_pixels), mode="bilinear", antialias=True)[0, 0]


@dataclass(frozen=True)
class Looks:
    """Fingerprints of stimuli by name.

    Attributes
    ----------
    image_ids : ndarray of str of shape (n,)
    prints : ndarray of shape (n, 256)
        float16; frames of a movie bear one name.
    """

    image_ids: np.ndarray
    prints: np.ndarray


def looks_of(trials: Trials, *, reading: bool) -> Looks:
    """Take the fingerprints of the stimuli of trials, each stimulus once where its name is known.

    Parameters
    ----------
    trials : Trials
    reading : bool
        Whether files may be read, and movies looked at: if not, of images in memory alone.

    Returns
    -------
    Looks
        Of what bears no name, the place of its trial.
    """
    names: list[np.ndarray] = []
    prints = [np.zeros((0, SIDE * SIDE), np.float16)]
    known: set[str] = set()
    for mouse in trials.mice:
        stimuli = trials._recordings[mouse].variables["stimuli"]
        if not reading and (not stimuli._in_memory or stimuli.ndim != 4):
            continue
        places = trials.rows(mouse)[0]
        ids = np.char.add("trial ", places.astype(str))
        if reading or trials._has_image_ids(mouse, hashing=False):
            ids = trials[places].image_ids.astype(str)
            first = np.sort(np.unique(ids, return_index=True)[1])
            new = first[[name not in known for name in ids[first].tolist()]]
            places, ids = places[new], ids[new]
            known.update(ids.tolist())
        step = BLOCK if stimuli.ndim == 4 else 1
        for start in range(0, len(places), step):
            part = trials[places[start : start + step]]
            found, counts = part.get("stimuli", mouse), part.n_frames
            own = ids[start : start + step]
            if counts is not None:  # one movie
                found = found[0, : counts[0]]
                own = np.repeat(own, counts[0])
            names.append(own)
            prints.append(fingerprints(found))
    return Looks(np.concatenate([np.zeros(0, "U1"), *names]), np.concatenate(prints))


def closest(prints: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find for every image the one among others that it is most like, flipped or not.

    Parameters
    ----------
    prints : ndarray of shape (n, 256)
    others : ndarray of shape (m, 256)
        At least one.

    Returns
    -------
    place : ndarray of int of shape (n,)
        Of the other image.
    similarity : ndarray of shape (n,)
        Correlation of the two.
    flip : ndarray of str of shape (n,)
        One of `FLIPS`, by which the image is turned; "none" where it is as like without.
    """
    theirs = torch.from_numpy(others).float().T.contiguous()
    own = torch.from_numpy(prints).float()
    place, similarity = np.zeros(len(own), np.int64), np.full(len(own), -np.inf, np.float32)
    flip = np.full(len(own), "none", "U10")
    for name, axes in FLIPS.items():
        turned = own.reshape(-1, SIDE, SIDE).flip(axes).reshape(own.shape)
        with torch.autocast("cpu", enabled=False):
            best = [(block @ theirs).max(dim=1) for block in turned.split(_BLOCK)]
        found = torch.cat([values for values, _ in best]).numpy()
        better = found > similarity + _ROUNDING
        similarity[better], flip[better] = found[better], name
        place[better] = torch.cat([indices for _, indices in best]).numpy()[better]
    return place, similarity, flip


def same_from(prints: np.ndarray, others: np.ndarray) -> float:
    """Similarity from which images are taken for the same, not for alike by chance.

    Where images vary smoothly with d numbers, pairs within a distance 1 - similarity of e are as
    many as e^(d/2): for d = 1 those within e and those beyond it, within 4 e, are equally many, and
    the more numbers, the fewer are within e. Copies are there beside these, at no distance.

    Parameters
    ----------
    prints : ndarray of shape (n, 256)
    others : ndarray of shape (m, 256)

    Returns
    -------
    float
        From `ALIKE` up; infinite where all that is alike is so by chance.
    """
    edges = (1 - ALIKE) * float(_FINER) ** np.arange(1, -_LEVELS, -1)  # of distances, falling
    theirs = torch.from_numpy(others).float().T.contiguous()
    own = torch.from_numpy(prints).float()
    within = np.zeros(len(edges), np.int64)
    for axes in FLIPS.values():
        turned = own.reshape(-1, SIDE, SIDE).flip(axes).reshape(own.shape)
        for block in turned.split(_BLOCK):
            with torch.autocast("cpu", enabled=False):
                distances = 1 - block @ theirs
            near = distances[distances <= edges[0]].numpy()
            within += (near[:, None] <= edges).sum(axis=0)
    for level in range(1, len(edges)):
        if within[level] > 2 * (within[level - 1] - within[level]):
            return 1 - float(edges[level])
    return np.inf

"""Where the recordings of a fit are kept: on the device, in host memory, or where they came from.

One function decides; the sources that read trials while a model is trained stand below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from v1tlearn._values import without_flips
from v1tlearn.estimators._casting import float32
from v1tlearn.training.memory import free_memory
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials._view import View

SHARE = 0.6  # of the free memory that recordings may take; the rest is for the model's work

DEVICE, MEMORY, RECORDINGS = "device", "memory", "recordings"


def place(
    stream: str | bool,
    device: torch.device,
    trials: Trials,
    target: Responses,
    free_on: Callable[[torch.device], int | None] = free_memory,
) -> tuple[str, str]:
    """Decide where trials and responses are kept while a model is trained on them.

    =============  ========================================  =====================================
    `low_memory`   where the device is a GPU                 where the device is the CPU
    =============  ========================================  =====================================
    "auto"         on the device if they take at most        in memory if they take at most
                   `SHARE` of its free memory; otherwise     `SHARE` of what is free; otherwise
                   as for True                               as for True
    True           in host memory if they take at most       in the recordings, be these files or
                   `SHARE` of what is free there; otherwise  arrays, and read step by step
                   in the recordings, read step by step
    False          on the device                             in memory
    =============  ========================================  =====================================

    Where the system does not tell what is free, everything fits.

    Parameters
    ----------
    stream : "auto" or bool
    device : torch.device
    trials : Trials
    target : Responses
        Of these trials.
    free_on : callable
        Tells the free memory of a device, in bytes.

    Returns
    -------
    where : {"device", "memory", "recordings"}
    why : str
        A sentence on the sizes that decided.
    """
    if stream != "auto" and not stream:
        return DEVICE, "low_memory=False"
    needed, free = n_bytes(trials, target), free_on(device)
    why = f"they take {needed / 1e9:.3g} GB; {_told(free)} free on {device.type}"
    if stream == "auto" and _fits(needed, free):
        return DEVICE, why
    if device.type == "cpu":
        return RECORDINGS, why
    free = free_on(torch.device("cpu"))
    where = MEMORY if _fits(needed, free) else RECORDINGS
    return where, f"{why}, {_told(free)} free in host memory"


def _fits(needed: int, free: int | None) -> bool:
    return free is None or needed <= SHARE * free


def _told(free: int | None) -> str:
    return "an unknown amount is" if free is None else f"{free / 1e9:.3g} GB are"


def n_bytes(trials: Trials, target: Responses) -> int:
    """Bytes that images and responses take on a device; only one trial per mouse is read.

    Parameters
    ----------
    trials : Trials
    target : Responses
        Of these trials.

    Returns
    -------
    int
        Images with the preprocessing recorded on the trials, responses in float32.
    """
    total = 0
    for mouse in trials.mice:
        positions = trials.rows(mouse)[0]
        image = read_images(trials[positions[:1]], mouse)
        n_neurons = target[positions[:1]].get(mouse).shape[1]
        total += len(positions) * (image.nbytes + n_neurons * np.dtype(np.float32).itemsize)
    return total


def read_images(trials: Trials, mouse: str, out: np.ndarray | None = None) -> np.ndarray:
    """Read the images of all trials of a mouse as they are kept.

    Parameters
    ----------
    trials : Trials
    mouse : str
    out : ndarray, optional
        Where they may be read to.

    Returns
    -------
    ndarray of shape (n_trials, channels, height, width)
        uint8 where they are uint8, otherwise float32; `out` where that is a place for them.

    Raises
    ------
    ValueError
        If images hold NaN or infinite values.
    """
    images = trials._get("stimuli", mouse, out)
    assert images is not None  # every recording has stimuli
    if images.ndim != 4:  # which would be read as something else
        raise ValueError(
            f"mouse {mouse!r}: stimuli have the shape {images.shape}, expected images (trials, "
            "channels, height, width): movies are folded to their frames first."
        )
    if images.dtype != np.uint8:
        images = float32(images, mouse, "stimuli", trials.rows(mouse)[1], of=trials)
    return without_flips(images)


def scale_responses(
    values: np.ndarray,
    mouse: str,
    scale: np.ndarray,
    rows: np.ndarray,
    of: View | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Divide responses by the scale of their neurons.

    Parameters
    ----------
    values : ndarray of shape (n_trials, n_neurons)
        NaN where not recorded.
    mouse : str
    scale : ndarray of shape (n_neurons,)
        In the units of the responses.
    rows : ndarray of shape (n_trials,)
        Places of the trials in the recording.
    of : Trials or Responses, optional
        Where trials may be frames of movies, of which errors tell.
    out : ndarray of shape (n_trials, n_neurons), optional
        float32, where they are to be; may be `values`.

    Returns
    -------
    ndarray of shape (n_trials, n_neurons)
        float32.

    Raises
    ------
    ValueError
        If responses are infinite.
    """
    with np.errstate(over="ignore"):
        scaled = np.divide(values, scale, out=out, casting="same_kind")
    return float32(scaled, mouse, "responses", rows, missing=True, of=of)


class StoredImages:
    """Images of one mouse that are read from its recording when they are needed.

    Parameters
    ----------
    trials : Trials
    mouse : str
    """

    def __init__(self, trials: Trials, mouse: str) -> None:
        self._mouse = mouse
        self._trials = trials[trials.rows(mouse)[0]]
        first = read_images(self._trials[:1], mouse)
        self.shape, self.dtype = (len(self._trials), *first.shape[1:]), first.dtype

    def __len__(self) -> int:
        return len(self._trials)

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` with the images of some of these trials."""
        with _reading(self._mouse, "stimuli"):
            images = read_images(self._trials[rows], self._mouse, out)
            if images is not out:
                out[:] = images

    def announce(self, rows: np.ndarray) -> None:
        """Tell the disk of images that are read soon."""
        with _reading(self._mouse, "stimuli"):
            self._trials[rows]._announce("stimuli", self._mouse)


class StoredResponses:
    """Scaled responses of one mouse that are read from its recording when they are needed.

    Parameters
    ----------
    target : Responses
    mouse : str
    scale : ndarray of shape (n_neurons,)
        Divides, in the units of the responses.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, target: Responses, mouse: str, scale: np.ndarray) -> None:
        self._mouse, self._scale = mouse, scale
        self._target = target[target.rows(mouse)[0]]
        self.shape: tuple[int, ...] = (len(self._target), len(scale))

    def __len__(self) -> int:
        return len(self._target)

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` with the responses of some of these trials; NaN where not recorded."""
        with _reading(self._mouse, "responses"):
            some = self._target[rows]
            places = some.rows(self._mouse)[1]
            values = some._get(self._mouse, out)
            scale_responses(values, self._mouse, self._scale, places, some, out)

    def announce(self, rows: np.ndarray) -> None:
        """Tell the disk of responses that are read soon."""
        with _reading(self._mouse, "responses"):
            self._target[rows]._announce(self._mouse)


@contextmanager
def _reading(mouse: str, what: str) -> Iterator[None]:
    """Say whose recording it was that could not be read, which files do not know."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"mouse {mouse!r}: {what} could not be read while the model was trained ({error}). "
            "Trials that are streamed are read in every epoch: leave their files in place, copy "
            "them again if they are damaged, or set low_memory=False to read them once."
        ) from error

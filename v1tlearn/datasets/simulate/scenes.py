"""What simulated animals see over time: dead leaves that drift, or jump with saccades, and noise.

Only the movies live here; who sees which of them, and when, is decided in `movies`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from v1tlearn.datasets.simulate.dead_leaves import dead_leaves

Scene = Callable[[np.random.Generator, int, tuple[int, int], float], np.ndarray]

_SPEED = 12.0  # pixels per second, of the standard deviation of each component of the velocity
_TURNING = 0.3  # seconds after which the velocity has forgotten its direction
_FIXATION = (0.2, 0.5)  # seconds between two saccades, the least and the most
_DRIFT_SPEED = 2.0  # pixels per second, likewise, during fixations


def drifting_leaves(
    rng: np.random.Generator, n_frames: int, image_shape: tuple[int, int], frame_rate: float
) -> np.ndarray:
    """Draw one movie: dead leaves that drift with a velocity that changes smoothly.

    The velocity is an Ornstein-Uhlenbeck process; at the edges of the picture the window turns
    back. Positions are rounded to whole pixels.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness; advanced.
    n_frames : int
    image_shape : tuple of int
        Height and width in pixels.
    frame_rate : float
        Frames per second.

    Returns
    -------
    ndarray of shape (n_frames, 1, height, width), uint8
        Grey levels, 0 to 255.
    """
    height, width = image_shape
    picture = dead_leaves(rng, 1, (2 * height, 2 * width))[0, 0]
    kept = np.exp(-1 / (_TURNING * frame_rate))
    noise = rng.standard_normal((n_frames, 2))
    velocity = np.empty((n_frames, 2))
    velocity[0] = noise[0]
    for frame in range(1, n_frames):
        velocity[frame] = kept * velocity[frame - 1] + np.sqrt(1 - kept**2) * noise[frame]
    room = np.array([height, width])
    path = rng.random(2) * room + np.cumsum(velocity * _SPEED / frame_rate, axis=0)
    return _through_a_window(picture, path, image_shape)


def leaves_with_saccades(
    rng: np.random.Generator, n_frames: int, image_shape: tuple[int, int], frame_rate: float
) -> np.ndarray:
    """Draw one movie: dead leaves as eyes see them that jump, and drift slowly in between.

    Fixations last 0.2 to 0.5 s; a saccade takes one frame, to anywhere in the picture. In between
    the window drifts at a velocity of its own.

    Parameters
    ----------
    rng, n_frames, image_shape, frame_rate
        As for `drifting_leaves`.

    Returns
    -------
    ndarray of shape (n_frames, 1, height, width), uint8
        Grey levels, 0 to 255.
    """
    height, width = image_shape
    picture = dead_leaves(rng, 1, (3 * height, 3 * width))[0, 0]
    room = 2 * np.array([height, width])
    path = np.empty((n_frames, 2))
    start = 0
    while start < n_frames:
        stop = start + max(1, round(rng.uniform(*_FIXATION) * frame_rate))
        seconds = np.arange(stop - start)[:, None] / frame_rate
        fixated = rng.random(2) * room + seconds * rng.standard_normal(2) * _DRIFT_SPEED
        path[start:stop] = fixated[: n_frames - start]
        start = stop
    return _through_a_window(picture, path, image_shape)


def white_noise(
    rng: np.random.Generator, n_frames: int, image_shape: tuple[int, int], frame_rate: float
) -> np.ndarray:
    """Draw one movie: pixels that are black or white, each for itself, and anew in every frame.

    Parameters
    ----------
    rng, n_frames, image_shape, frame_rate
        As for `drifting_leaves`.

    Returns
    -------
    ndarray of shape (n_frames, 1, height, width), uint8
        Grey levels, 0 or 255.
    """
    return (255 * rng.integers(0, 2, (n_frames, 1, *image_shape), np.uint8)).astype(np.uint8)


SCENES: dict[str, Scene] = {
    "drifting": drifting_leaves,
    "saccades": leaves_with_saccades,
    "noise": white_noise,
}


def _through_a_window(
    picture: np.ndarray, path: np.ndarray, image_shape: tuple[int, int]
) -> np.ndarray:
    """Frames (n_frames, 1, height, width) of a window on a path, turned back at the edges."""
    height, width = image_shape
    room = np.array(picture.shape) - np.array(image_shape)  # pixels that the window may move by
    path = room - np.abs(path % (2 * room) - room)
    movie = np.empty((len(path), 1, height, width), np.uint8)
    for frame, (top, left) in enumerate(np.rint(path).astype(int)):
        movie[frame, 0] = picture[top : top + height, left : left + width]
    return movie

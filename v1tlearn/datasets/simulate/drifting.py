"""Movies of drifting dead leaves: a window that wanders over a larger picture.

Only the movies live here; who sees which of them, and when, is decided in `movies`.
"""

from __future__ import annotations

import numpy as np

from v1tlearn.datasets.simulate.dead_leaves import dead_leaves

_SPEED = 12.0  # pixels per second, of the standard deviation of each component of the velocity
_TURNING = 0.3  # seconds after which the velocity has forgotten its direction


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
    room = np.array([height, width])  # pixels that the window may move by
    picture = dead_leaves(rng, 1, (2 * height, 2 * width))[0, 0]
    kept = np.exp(-1 / (_TURNING * frame_rate))
    noise = rng.standard_normal((n_frames, 2))
    velocity = np.empty((n_frames, 2))
    velocity[0] = noise[0]
    for frame in range(1, n_frames):
        velocity[frame] = kept * velocity[frame - 1] + np.sqrt(1 - kept**2) * noise[frame]
    path = rng.random(2) * room + np.cumsum(velocity * _SPEED / frame_rate, axis=0)
    path = room - np.abs(path % (2 * room) - room)  # turned back at the edges
    movie = np.empty((n_frames, 1, height, width), np.uint8)
    for frame, (top, left) in enumerate(np.rint(path).astype(int)):
        movie[frame, 0] = picture[top : top + height, left : left + width]
    return movie

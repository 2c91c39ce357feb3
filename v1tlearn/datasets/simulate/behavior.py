"""Simulated behaviour of a head-fixed mouse: arousal, running, pupil; and what they do to V1.

Slow random processes in time order, and the two ways in which they reach the cells: a gain per
neuron and a shift of all receptive fields of a mouse. The cells themselves live in `cells`.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.signal import lfilter

TRIAL_INTERVAL = 2.5  # seconds from one image to the next

MAX_SHIFT = 3.0  # of receptive fields by the eye, in 1/36 of the image height

# Typical value and spread of each column; gain and shift measure behaviour on these scales, so
# that a trial means the same in a short and in a long recording.
_DILATION = (32.0, 7.0)
_SPEED_SCALE = 8.0
_PUPIL_X = (60.0, 4.0)
_PUPIL_Y = (45.0, 2.5)


def behavior_in_time(rng: np.random.Generator, n_trials: int) -> np.ndarray:
    """Draw the behaviour of consecutive trials.

    A hidden arousal drives running bouts and, more slowly, the pupil; the gaze drifts, jumps by
    saccades, and moves with running.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness; advanced.
    n_trials : int
        Number of trials, `TRIAL_INTERVAL` seconds apart; at least 2.

    Returns
    -------
    ndarray of shape (n_trials, 5), float32
        Columns as in `schema.BEHAVIOR_NAMES`, with their units.
    """
    arousal = 0.8 * _slow(rng, n_trials, 40) + 0.6 * _slow(rng, n_trials, 6)
    urge = 0.7 * arousal + 0.7 * _slow(rng, n_trials, 4)
    speed = 12.0 * np.maximum(urge - 0.2, 0.0) ** 1.2
    speed += 0.3 * np.abs(rng.standard_normal(n_trials))  # the treadmill's jitter at rest
    wide = 0.75 * arousal + 0.5 * _slow(rng, n_trials, 10) + 0.5 * np.tanh(speed / _SPEED_SCALE)
    dilation = _DILATION[0] + _DILATION[1] * 2.5 * np.tanh((wide - 0.2) / 2.5)
    gaze_x = _gaze(rng, n_trials) + 0.3 * np.tanh(speed / _SPEED_SCALE)
    gaze_y = _gaze(rng, n_trials)
    columns = [
        dilation,
        np.gradient(dilation, TRIAL_INTERVAL),
        speed,
        _PUPIL_X[0] + _PUPIL_X[1] * gaze_x,
        _PUPIL_Y[0] + _PUPIL_Y[1] * gaze_y,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def arousal_gain(rng: np.random.Generator, n_neurons: int):
    """Draw how strongly each neuron follows arousal.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness; advanced.
    n_neurons : int
        Number of neurons.

    Returns
    -------
    weights : ndarray of shape (2, n_neurons), float32
        Log gain per unit of pupil dilation (in standard deviations) and of running (0 at rest, 1
        at full speed). Most are positive.
    """
    dilation = rng.normal(0.12, 0.10, n_neurons)
    running = rng.normal(0.35, 0.25, n_neurons)
    return np.stack([dilation, running]).astype(np.float32)


def apply_gain(behaviors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Multiplicative gain of each neuron in each trial, bounded to [0.33, 3].

    Parameters
    ----------
    behaviors : ndarray of shape (trials, 5)
        From `behavior_in_time`.
    weights : ndarray of shape (2, neurons)
        From `arousal_gain`.

    Returns
    -------
    ndarray of shape (trials, neurons), float32
    """
    state = np.stack(
        [
            (behaviors[:, 0] - _DILATION[0]) / _DILATION[1],
            np.tanh(behaviors[:, 2] / _SPEED_SCALE) - 0.4,
        ],
        axis=1,
    )
    bound = math.log(3.0)
    return np.exp(bound * np.tanh(state.astype(np.float32) @ weights / bound))


def draw_eye(rng: np.random.Generator) -> np.ndarray:
    """Draw how the pupil on a mouse's eye camera maps to visual space.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness; advanced.

    Returns
    -------
    ndarray of shape (2, 2)
        Shift (x, y) per standard deviation of pupil x, y, in units of 1/36 of the image height.
    """
    turn = rng.uniform(-0.3, 0.3)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return rotation * rng.uniform([0.8, 0.5], [1.3, 0.9]) * rng.choice([-1.0, 1.0])


def eye_shift(behaviors: np.ndarray, eye: np.ndarray, pixel: float) -> np.ndarray:
    """Shift of the receptive fields in each trial, never more than 3.0 `pixel` along an axis.

    Parameters
    ----------
    behaviors : ndarray of shape (trials, 5)
        From `behavior_in_time`.
    eye : ndarray of shape (2, 2)
        From `draw_eye`.
    pixel : float
        Pixels per 1/36 of the image height.

    Returns
    -------
    ndarray of shape (trials, 2), float32
        Shift along x (right) and y (down), in pixels.
    """
    centre, spread = np.array([_PUPIL_X, _PUPIL_Y]).T
    turned = (behaviors[:, 3:5] - centre) / spread @ eye.T
    return (pixel * MAX_SHIFT * np.tanh(turned / MAX_SHIFT)).astype(np.float32)


def _slow(rng, n_trials, tau):
    """Stationary first-order autoregressive process, variance 1, time constant `tau` trials."""
    keep = math.exp(-1.0 / tau)
    noise = rng.standard_normal(n_trials)
    noise[1:] *= math.sqrt(1.0 - keep**2)
    return lfilter([1.0], [1.0, -keep], noise)


def _gaze(rng, n_trials):
    """One coordinate of the eye: slow drift and positions held between saccades, variance 1."""
    jump = rng.random(n_trials) < 0.25
    jump[0] = True
    held = rng.standard_normal(int(jump.sum()))[np.cumsum(jump) - 1]
    return 0.8 * _slow(rng, n_trials, 25) + 0.6 * held

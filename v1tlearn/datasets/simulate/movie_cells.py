"""Cells with known filters in space and time, and the rates at which they respond to movies.

Simple cells, retinal cells with centre and surround, and motion-energy cells; who sees which movie
is decided in `movies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.signal import lfilter

from v1tlearn.datasets.simulate.scenes import Scene

KINDS = ("simple", "retina", "motion")

_KERNEL_SECONDS = 0.4  # how far back a cell looks
_LATENCY = (0.05, 0.13)  # seconds at which temporal filters peak, from cell to cell
_SLOW = 1.6  # how much later than the first the second, opposite phase of a filter comes
_TRANSIENT = 0.7  # its weight: near 1 cells respond to changes alone
_PILOT_SECONDS = 20.0  # of movie that sets the scale of each cell; never shown in the recording
_CENTRE = (0.05, 0.09)  # standard deviations of the centre, relative to the shorter side
_SURROUND, _SURROUND_WEIGHT = 2.5, 0.8  # its size and its integral, relative to the centre's
_MOTION_CYCLES = 0.4  # of the frequency that motion cells prefer, within their latency
_ADAPTATION_SECONDS = (0.2, 0.6)  # over which a cell adapts, from cell to cell


@dataclass(frozen=True)
class MovieCells:
    """Cells of one mouse, scaled so that rates have a standard deviation of about 1.

    Attributes
    ----------
    kinds : ndarray of str (n,)
    fields, odd_fields : ndarray (n, height, width)
        Of unit length; the odd ones are those of motion cells, a quarter of a cycle further, and
        zero of others.
    lag : ndarray (n_lags,)
        Seconds.
    kernels, odd_kernels : ndarray (n, n_lags)
        Likewise.
    latency : ndarray (n,)
        Seconds.
    direction : ndarray (n,)
        Preferred one of motion cells, radians from the rows, turning down; NaN of others.
    frequency : ndarray (n,)
        Likewise, in cycles per second.
    gain : ndarray (n,)
        With which rates rise with running.
    adaptation, adaptation_time : ndarray (n,)
        Strength, and seconds.
    scale, baseline : ndarray (n,)
    """

    kinds: np.ndarray
    fields: np.ndarray
    odd_fields: np.ndarray
    lag: np.ndarray
    kernels: np.ndarray
    odd_kernels: np.ndarray
    latency: np.ndarray
    direction: np.ndarray
    frequency: np.ndarray
    gain: np.ndarray
    adaptation: np.ndarray
    adaptation_time: np.ndarray
    scale: np.ndarray
    baseline: np.ndarray

    def rates(self, movie: np.ndarray, states: np.ndarray | None, frame_rate: float) -> np.ndarray:
        """True rates (frames, neurons) to a movie (frames, 1, height, width)."""
        drive = self.scale * np.maximum(drive_of(self, movie), 0)
        if self.adaptation.any():
            kept = np.exp(-1 / (self.adaptation_time * frame_rate))
            past = np.zeros_like(drive)
            for frame in range(1, len(drive)):
                past[frame] = kept * past[frame - 1] + (1 - kept) * drive[frame - 1]
            drive = drive / (1 + self.adaptation * past)
        rates = self.baseline + drive
        if states is not None:
            rates = rates * np.exp(self.gain * (states[:, 2:3] - 2.0) / 2.0)
        return rates

    def truth(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Variables and coordinates that tell of the cells, as xarray takes them."""
        space, time = ("neuron", "row", "column"), ("neuron", "lag")
        variables: dict[str, Any] = {
            "receptive_field": (space, self.fields.astype(np.float32)),
            "temporal_filter": (time, self.kernels.astype(np.float32)),
        }
        coords: dict[str, Any] = {
            "lag": ("lag", self.lag, {"units": "s"}),
            "neuron": ("neuron", np.arange(1, len(self.kinds) + 1)),
            "latency": ("neuron", self.latency, {"units": "s"}),
        }
        if (self.kinds != "simple").any():
            coords["cell_kind"] = ("neuron", self.kinds)
        if (self.kinds == "motion").any():
            variables["receptive_field_odd"] = (space, self.odd_fields.astype(np.float32))
            variables["temporal_filter_odd"] = (time, self.odd_kernels.astype(np.float32))
            coords["preferred_direction"] = ("neuron", self.direction, {"units": "rad"})
            coords["preferred_frequency"] = ("neuron", self.frequency, {"units": "Hz"})
        if self.adaptation.any():
            coords["adaptation"] = ("neuron", self.adaptation)
            coords["adaptation_time"] = ("neuron", self.adaptation_time, {"units": "s"})
        return variables, coords


def draw_cells(
    rng: np.random.Generator,
    kinds: Sequence[str],
    image_shape: tuple[int, int],
    frame_rate: float,
    adaptation: float,
    scene: Scene,
) -> MovieCells:
    """Draw cells, and scale them by what they do to a movie that nobody else sees.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness; advanced.
    kinds : sequence of {"simple", "retina", "motion"}
        Of each cell.
    image_shape : tuple of int
        Height and width in pixels.
    frame_rate : float
        Frames per second.
    adaptation : float
        Strength of all cells.
    scene : callable
        Draws the movie.

    Returns
    -------
    MovieCells
    """
    n, (height, width) = len(kinds), image_shape
    (more,) = rng.spawn(1)  # so that simple cells are the same beside others
    y, x = np.mgrid[:height, :width]
    side = min(image_shape)
    center_y, center_x = rng.uniform(0.25, 0.75, (2, n, 1, 1)) * np.array([height, width]).reshape(
        2, 1, 1, 1
    )
    angle, phase = rng.uniform(0, 2 * np.pi, (2, n, 1, 1))
    sigma = side * rng.uniform(0.1, 0.16, (n, 1, 1))
    dy, dx = y - center_y, x - center_x
    along = dx * np.cos(angle) + dy * np.sin(angle)
    envelope = np.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    fields, odd_fields = (
        _unit(_balanced(envelope * np.cos(np.pi * along / (1.5 * sigma) + turn), envelope))
        for turn in (phase, phase - np.pi / 2)
    )
    latency = rng.uniform(*_LATENCY, n)
    lag = np.arange(max(2, round(_KERNEL_SECONDS * frame_rate))) / frame_rate
    first = _hump(lag, latency[:, None])
    second = _hump(lag, _SLOW * latency[:, None])
    kernels = _unit(first - _TRANSIENT * second)

    found = np.array(kinds)
    is_motion, is_retina = (found == kind for kind in ("motion", "retina"))
    frequency = _MOTION_CYCLES / latency
    turns = 2 * np.pi * frequency[:, None] * lag
    # Not of unit length: the two have to be a quarter of a cycle apart, and of one size.
    even, odd = first * np.cos(turns), first * np.sin(turns)
    size = np.sqrt(0.5 * (even**2 + odd**2).sum(axis=1, keepdims=True))
    kernels = np.where(is_motion[:, None], even / size, kernels)
    odd_kernels = np.where(is_motion[:, None], odd / size, 0.0)
    odd_fields = np.where(is_motion[:, None, None], odd_fields, 0.0)
    centre = side * more.uniform(*_CENTRE, (n, 1, 1))
    polarity = more.choice([-1.0, 1.0], (n, 1, 1))
    distance = dx**2 + dy**2
    round_fields = _bell(distance, centre) - _SURROUND_WEIGHT * _bell(distance, _SURROUND * centre)
    fields = np.where(is_retina[:, None, None], _unit(polarity * round_fields), fields)
    cells = MovieCells(
        kinds=found,
        fields=fields,
        odd_fields=odd_fields,
        lag=lag,
        kernels=kernels,
        odd_kernels=odd_kernels,
        latency=latency,
        direction=np.where(is_motion, angle.ravel(), np.nan),
        frequency=np.where(is_motion, frequency, np.nan),
        gain=rng.uniform(-0.1, 0.4, n),
        adaptation=np.full(n, float(adaptation)),
        adaptation_time=more.uniform(*_ADAPTATION_SECONDS, n),
        scale=np.ones(n),
        baseline=np.zeros(n),
    )
    n_pilot = max(2, round(_PILOT_SECONDS * frame_rate))
    drive = drive_of(cells, scene(rng, n_pilot, image_shape, frame_rate))
    scale = 1 / np.maximum(drive, 0).std(axis=0)
    return replace(cells, scale=scale, baseline=rng.uniform(0.1, 0.4, n))


def drive_of(cells: MovieCells, movie: np.ndarray) -> np.ndarray:
    """Output of the filters (frames, neurons); ahead of the movie the screen is grey.

    Of motion cells it is the square root of the motion energy (Adelson & Bergen 1985).
    """
    contrast = (movie[:, 0].astype(np.float64) - 127.5) / 127.5
    even = _in_space(contrast, cells.fields)
    drive = _over_time(cells.kernels, even)
    motion = cells.kinds == "motion"
    if motion.any():
        even, odd = even[:, motion], _in_space(contrast, cells.odd_fields[motion])
        slow = cells.odd_kernels[motion]
        real = drive[:, motion] - _over_time(slow, odd)
        imaginary = _over_time(slow, even) + _over_time(cells.kernels[motion], odd)
        drive[:, motion] = np.hypot(real, imaginary)
    return drive


def _in_space(contrast: np.ndarray, fields: np.ndarray) -> np.ndarray:
    return np.einsum("thw,nhw->tn", contrast, fields, optimize=True)


def _over_time(kernels: np.ndarray, in_space: np.ndarray) -> np.ndarray:
    columns = zip(kernels, in_space.T, strict=True)
    return np.stack([lfilter(kernel, 1.0, values) for kernel, values in columns], axis=1)


def _hump(lag: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """A gamma function of time that is 1 at its peak."""
    return (lag / peak) ** 5 * np.exp(5 * (1 - lag / peak))


def _bell(distance: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """A Gaussian of the squared distance whose integral over the plane is 1."""
    return np.exp(-distance / (2 * sigma**2)) / (2 * np.pi * sigma**2)


def _balanced(fields: np.ndarray, envelope: np.ndarray) -> np.ndarray:
    """Fields without response to uniform light."""
    return fields - envelope * (fields.sum((1, 2)) / envelope.sum((1, 2)))[:, None, None]


def _unit(filters: np.ndarray) -> np.ndarray:
    """Filters of unit length."""
    axes = tuple(range(1, filters.ndim))
    return filters / np.sqrt((filters**2).sum(axes, keepdims=True))

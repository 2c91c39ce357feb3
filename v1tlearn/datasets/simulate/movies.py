"""Simulated recordings of movies with known truth: `make_movie_recordings`."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from scipy.signal import lfilter

from v1tlearn._values import plain
from v1tlearn.datasets.schema import (
    BEHAVIOR_NAMES,
    DIMS,
    RESPONSES_ATTRS,
    STIMULI_ATTRS,
    behavior_attrs,
)
from v1tlearn.datasets.simulate.arguments import (
    check_count,
    check_image_shape,
    check_share,
    neurons_per_mouse,
    seed_sequence,
    validation_trials,
)
from v1tlearn.datasets.simulate.drifting import drifting_leaves
from v1tlearn.datasets.time_axis import pad, time_coordinate, with_time
from v1tlearn.training.devices import default_errors

_KERNEL_SECONDS = 0.4  # how far back a cell looks
_LATENCY = (0.05, 0.13)  # seconds at which temporal filters peak, from cell to cell
_SLOW = 1.6  # how much later than the first the second, opposite phase of a filter comes
_TRANSIENT = 0.7  # its weight: near 1 cells respond to changes alone
_STATE_SECONDS = 1.0  # after which the animal's state is another one
_PILOT_SECONDS = 20.0  # of movie that sets the scale of each cell; never shown in the recording


@default_errors()
def make_movie_recordings(
    n_mice: int = 1,
    n_neurons: Any = 40,
    n_movies: int = 30,
    n_test_movies: int = 4,
    n_repeats: int = 6,
    n_frames: int | tuple[int, int] = 90,
    image_shape: tuple[int, int] = (18, 32),
    frame_rate: float = 30.0,
    behavior: bool = True,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
    *,
    validation_fraction: float = 0.1,
    noise: float = 1.0,
) -> xr.DataTree:
    """Simulate recordings of movies by cells whose filters in space and time are known.

    Animals see drifting dead leaves. A cell's filter is separable, a Gabor patch in space times a
    biphasic kernel in time that peaks at the cell's latency; it is applied causally to the movie,
    ahead of which the screen is grey, and rectified. Running multiplies the rate by a gain of the
    cell's own. Responses are gamma distributed around the rate.

    Parameters
    ----------
    n_mice : int, default=1
        Number of mice, named "A", "B", ...; at most 26.
    n_neurons : int or sequence of int, default=40
        Neurons per mouse, one number for all or one for each.
    n_movies : int, default=30
        Train and validation trials per mouse, each with a movie of its own; at least 2.
    n_test_movies, n_repeats : int, default=4, 6
        Movies of the test tier, common to all mice, and how often each is shown.
    n_frames : int or (int, int), default=90
        Frames of every movie; or the fewest and the most, between which lengths are drawn.
    image_shape : tuple of int, default=(18, 32)
        Height and width in pixels, 8 at least.
    frame_rate : float, default=30
        Frames per second.
    behavior : bool, default=True
        Whether mice have behaviour, with its gain.
    random_state : int, RandomState, Generator or None, default=None
        Drives everything; global generators are not touched.
    validation_fraction : float, default=0.1
        Share of `n_movies`, rounded, that forms the validation tier; in [0, 1).
    noise : float, default=1
        Variance of responses over their mean, in their unit; above 0.

    Returns
    -------
    xarray.DataTree
        One child per mouse, with

        * `stimuli` (trial, time, channel, height, width), uint8, grey levels 0 to 255;
        * `behaviors` (trial, time, behavior), float32, if `behavior`: pupil dilation, its
          derivative, and running speed;
        * `responses` and `expected_responses`, the true rate, (trial, time, neuron), float32;
        * `time` in seconds; `image_id`, `tier`, `trial_id` and `n_frames` on trials;
        * the truth about each neuron: `receptive_field` (neuron, row, column) of unit length,
          `temporal_filter` (neuron, lag) of unit length, with `lag` in seconds, 0 being the frame
          that is shown, and `latency` in seconds.

    Raises
    ------
    TypeError
        If a number is not of the kind expected.
    ValueError
        If a parameter is out of range, or `n_neurons` does not hold one number per mouse.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> recordings = v1.make_movie_recordings(1, 5, 4, 1, 3, n_frames=30, random_state=0)
    >>> recordings["A"]["responses"].dims, recordings["A"].sizes["time"]
    (('trial', 'time', 'neuron'), 30)
    """
    counts = plain((n_mice, n_movies, n_test_movies, n_repeats))
    names = ("n_mice", "n_movies", "n_test_movies", "n_repeats")
    for name, count, least in zip(names, counts, (1, 2, 1, 1), strict=True):
        check_count(name, count, least, 26 if name == "n_mice" else None)
    n_mice, n_movies, n_test_movies, n_repeats = counts
    n_neurons = neurons_per_mouse(plain(n_neurons), n_mice)
    image_shape, lengths = check_image_shape(image_shape), _check_lengths(plain(n_frames))
    frame_rate, validation_fraction, noise = plain((frame_rate, validation_fraction, noise))
    for name, value in (("frame_rate", frame_rate), ("noise", noise)):
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(f"{name} must be a number, got {value!r}")
        if not 0 < value < np.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {value}")
    if not isinstance(plain(behavior), bool):
        raise TypeError(f"behavior must be True or False, got {behavior!r}")
    check_share("validation_fraction", validation_fraction, "[0, 1)")
    n_validation = validation_trials(n_movies, validation_fraction)
    seeds = seed_sequence(plain(random_state)).spawn(n_mice + 1)

    def movies(rng: np.random.Generator, n: int) -> list[np.ndarray]:
        """Draw movies, each of a length of its own."""
        drawn = rng.integers(lengths[0], lengths[1] + 1, n)
        return [drifting_leaves(rng, frames, image_shape, frame_rate) for frames in drawn]

    test = movies(np.random.default_rng(seeds[0]), n_test_movies)
    tiers = ["train"] * (n_movies - n_validation) + ["validation"] * n_validation
    tiers += ["test"] * (n_test_movies * n_repeats)
    datasets = {}
    for number, (seed, n) in enumerate(zip(seeds[1:], n_neurons, strict=True)):
        rng = np.random.default_rng(seed)
        cells = _Cells(rng, n, image_shape, frame_rate)
        shown = movies(rng, n_movies) + test * n_repeats
        own = n_test_movies + number * n_movies + np.arange(n_movies)  # test movies count first
        ids = np.concatenate([own, np.tile(np.arange(n_test_movies), n_repeats)])
        order = rng.permutation(len(shown))
        states = [_states(rng, len(movie), frame_rate) if behavior else None for movie in shown]
        rates = [cells.rates(m, s) for m, s in zip(shown, states, strict=True)]
        responses = [noise * rng.standard_gamma(r / noise) for r in rates]
        labels = {"image_id": ids, "tier": np.array(tiers), "trial_id": rng.permutation(len(ids))}
        series: dict[str, list[Any]] = {
            "stimuli": shown,
            "responses": responses,
            "expected_responses": rates,
        }
        if behavior:
            series["behaviors"] = states
        datasets[chr(ord("A") + number)] = _dataset(
            {name: [values[place] for place in order] for name, values in series.items()},
            {name: values[order] for name, values in labels.items()},
            cells,
            frame_rate,
        )
    return xr.DataTree.from_dict(datasets)


class _Cells:
    """Cells with separable filters, scaled so that rates have a standard deviation of about 1."""

    def __init__(
        self, rng: np.random.Generator, n: int, image_shape: tuple[int, int], frame_rate: float
    ) -> None:
        height, width = image_shape
        y, x = np.mgrid[:height, :width]
        side = min(image_shape)
        center_y, center_x = rng.uniform(0.25, 0.75, (2, n, 1, 1)) * np.array(
            [height, width]
        ).reshape(2, 1, 1, 1)
        angle, phase = rng.uniform(0, 2 * np.pi, (2, n, 1, 1))
        sigma = side * rng.uniform(0.1, 0.16, (n, 1, 1))
        dy, dx = y - center_y, x - center_x
        along = dx * np.cos(angle) + dy * np.sin(angle)
        envelope = np.exp(-(dx**2 + dy**2) / (2 * sigma**2))
        fields = envelope * np.cos(np.pi * along / (1.5 * sigma) + phase)
        fields -= envelope * (fields.sum((1, 2)) / envelope.sum((1, 2)))[:, None, None]
        self.fields = fields / np.sqrt((fields**2).sum((1, 2), keepdims=True))
        self.latency = rng.uniform(*_LATENCY, n)
        self.lag = np.arange(max(2, round(_KERNEL_SECONDS * frame_rate))) / frame_rate
        first = _hump(self.lag, self.latency[:, None])
        second = _hump(self.lag, _SLOW * self.latency[:, None])
        kernels = first - _TRANSIENT * second
        self.kernels = kernels / np.sqrt((kernels**2).sum(1, keepdims=True))
        self.gain = rng.uniform(-0.1, 0.4, n)
        self.scale, self.baseline = np.ones(n), np.zeros(n)
        n_pilot = max(2, round(_PILOT_SECONDS * frame_rate))
        drive = self._drive(drifting_leaves(rng, n_pilot, image_shape, frame_rate))
        self.scale = 1 / np.maximum(drive, 0).std(axis=0)
        self.baseline = rng.uniform(0.1, 0.4, n)

    def _drive(self, movie: np.ndarray) -> np.ndarray:
        """Output of the filters (frames, neurons); ahead of the movie the screen is grey."""
        contrast = (movie[:, 0].astype(np.float64) - 127.5) / 127.5
        in_space = np.einsum("thw,nhw->tn", contrast, self.fields, optimize=True)
        columns = zip(self.kernels, in_space.T, strict=True)
        return np.stack([lfilter(kernel, 1.0, values) for kernel, values in columns], axis=1)

    def rates(self, movie: np.ndarray, states: np.ndarray | None) -> np.ndarray:
        """True rates (frames, neurons)."""
        rates = self.baseline + self.scale * np.maximum(self._drive(movie), 0)
        if states is not None:
            rates = rates * np.exp(self.gain * (states[:, 2:3] - 2.0) / 2.0)
        return rates


def _hump(lag: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """A gamma function of time that is 1 at its peak."""
    return (lag / peak) ** 5 * np.exp(5 * (1 - lag / peak))


def _states(rng: np.random.Generator, n_frames: int, frame_rate: float) -> np.ndarray:
    """Pupil dilation, its derivative, and running speed, (frames, 3)."""
    kept = np.exp(-1 / (_STATE_SECONDS * frame_rate))
    noise = rng.standard_normal((n_frames, 2)) * np.sqrt(1 - kept**2)
    noise[0] /= np.sqrt(1 - kept**2)
    slow = lfilter([1.0], [1.0, -kept], noise, axis=0)
    dilation = 30.0 + 5.0 * slow[:, 0]
    derivative = np.diff(dilation, prepend=dilation[:1]) * frame_rate
    return np.column_stack([dilation, derivative, 2.0 * np.exp(0.5 * slow[:, 1])])


def _dataset(
    series: dict[str, list[Any]], labels: dict[str, np.ndarray], cells: _Cells, frame_rate: float
) -> xr.Dataset:
    """One mouse in the schema of a recording."""
    counts = np.array([len(movie) for movie in series["stimuli"]])
    longest, names = int(counts.max()), list(BEHAVIOR_NAMES[:3])
    attrs = {
        "stimuli": STIMULI_ATTRS,
        "behaviors": behavior_attrs(names),
        "responses": RESPONSES_ATTRS,
        "expected_responses": {"long_name": "true rate", "units": RESPONSES_ATTRS["units"]},
    }
    variables: dict[str, Any] = {}
    for name, values in series.items():
        dtype, fill = (np.uint8, 0) if name == "stimuli" else (np.float32, np.nan)
        padded = pad([value.astype(dtype) for value in values], longest, fill)
        variables[name] = (with_time(DIMS[name]), padded, attrs[name])
    fields, kernels = cells.fields.astype(np.float32), cells.kernels.astype(np.float32)
    variables["receptive_field"] = (("neuron", "row", "column"), fields)
    variables["temporal_filter"] = (("neuron", "lag"), kernels)
    coords: dict[str, Any] = {name: ("trial", values) for name, values in labels.items()}
    coords["n_frames"] = ("trial", counts)
    coords["time"] = time_coordinate(longest, frame_rate)
    coords["lag"] = ("lag", cells.lag, {"units": "s"})
    coords["neuron"] = ("neuron", np.arange(1, len(cells.latency) + 1))
    coords["latency"] = ("neuron", cells.latency, {"units": "s"})
    if "behaviors" in series:
        coords["behavior"] = names
    return xr.Dataset(variables, coords, {"description": "simulated recording of movies"})


def _check_lengths(n_frames: Any) -> tuple[int, int]:
    """The fewest and the most frames."""
    lengths = tuple(n_frames) if isinstance(n_frames, tuple | list) else (n_frames, n_frames)
    if len(lengths) != 2:
        raise ValueError(f"n_frames must be one number or (fewest, most), got {n_frames!r}")
    for count in lengths:
        check_count("n_frames", count, 2)
    if lengths[0] > lengths[1]:
        raise ValueError(f"n_frames must be (fewest, most), got {n_frames!r}")
    return int(lengths[0]), int(lengths[1])

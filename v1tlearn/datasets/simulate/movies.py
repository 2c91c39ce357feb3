"""Simulated recordings of movies with known truth: `make_movie_recordings`."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from scipy.signal import lfilter

from v1tlearn._options import as_word, as_words
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
from v1tlearn.datasets.simulate.movie_cells import KINDS, MovieCells, draw_cells
from v1tlearn.datasets.simulate.scenes import SCENES, Scene
from v1tlearn.datasets.time_axis import pad, time_coordinate, with_time
from v1tlearn.training.devices import default_errors

_STATE_SECONDS = 1.0  # after which the animal's state is another one


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
    scene: str = "drifting",
    cells: str | Sequence[str] = "simple",
    adaptation: float = 0.0,
) -> xr.DataTree:
    """Simulate recordings of movies by cells whose filters in space and time are known.

    Animals see drifting dead leaves. A simple cell's filter is separable, a Gabor patch in space
    times a biphasic kernel in time that peaks at the cell's latency; it is applied causally to the
    movie, ahead of which the screen is grey, and rectified. Running multiplies the rate by a gain
    of the cell's own. Responses are gamma distributed around the rate.

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
    scene : {"drifting", "saccades", "noise"}, default="drifting"
        What animals see: dead leaves that drift smoothly; that jump with saccades every 0.2 to
        0.5 s, and drift slowly in between; or pixels that are black or white at random.
    cells : {"simple", "retina", "motion"} or sequence of these, default="simple"
        Kinds of cells; several take turns. "retina": a centre and a surround of opposite sign, on
        and off. "motion": motion energy, which responds to one direction and hardly to the other.
    adaptation : float, default=0
        Strength with which a cell's own output divides it: by 1 plus the strength times the mean
        output of the past, which fades within 0.2 to 0.6 s. 0 is none.

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
          that is shown, and `latency` in seconds; where there are other than simple cells,
          `cell_kind`;
        * of motion cells `receptive_field_odd` and `temporal_filter_odd`, a quarter of a cycle
          further than the others (zero of other cells), `preferred_direction` in radians from the
          rows, turning down, and `preferred_frequency` in cycles per second;
        * with adaptation, `adaptation` and `adaptation_time` in seconds.

    Raises
    ------
    TypeError
        If a number is not of the kind expected.
    ValueError
        If a parameter is out of range, or `n_neurons` does not hold one number per mouse.

    Notes
    -----
    With e and o the outputs of even and odd fields, convolved with the even (f) or odd (s) filter,
    the drive of a motion cell is the square root of (e*f - o*s)^2 + (e*s + o*f)^2 (Adelson & Bergen
    1985); its temporal filters have their lengths in common. Drives are scaled to a standard
    deviation of 1 over a movie of the same kind that is not part of the recording. Adaptation is
    drive_t / (1 + strength a_t), a_t = k a_(t-1) + (1 - k) drive_(t-1), a_0 = 0.

    References
    ----------
    Adelson & Bergen 1985, Spatiotemporal energy models for the perception of motion, Journal of the
    Optical Society of America A.

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
    kinds, draw, adaptation = _checked_cells(scene, cells, plain(adaptation))
    n_validation = validation_trials(n_movies, validation_fraction)
    seeds = seed_sequence(plain(random_state)).spawn(n_mice + 1)

    def movies(rng: np.random.Generator, n: int) -> list[np.ndarray]:
        """Draw movies, each of a length of its own."""
        drawn = rng.integers(lengths[0], lengths[1] + 1, n)
        return [draw(rng, frames, image_shape, frame_rate) for frames in drawn]

    test = movies(np.random.default_rng(seeds[0]), n_test_movies)
    tiers = ["train"] * (n_movies - n_validation) + ["validation"] * n_validation
    tiers += ["test"] * (n_test_movies * n_repeats)
    datasets = {}
    for number, (seed, n) in enumerate(zip(seeds[1:], n_neurons, strict=True)):
        rng = np.random.default_rng(seed)
        own_kinds = [kinds[neuron % len(kinds)] for neuron in range(n)]
        drawn = draw_cells(rng, own_kinds, image_shape, frame_rate, adaptation, draw)
        shown = movies(rng, n_movies) + test * n_repeats
        own = n_test_movies + number * n_movies + np.arange(n_movies)  # test movies count first
        ids = np.concatenate([own, np.tile(np.arange(n_test_movies), n_repeats)])
        order = rng.permutation(len(shown))
        states = [_states(rng, len(movie), frame_rate) if behavior else None for movie in shown]
        rates = [drawn.rates(m, s, frame_rate) for m, s in zip(shown, states, strict=True)]
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
            drawn,
            frame_rate,
        )
    return xr.DataTree.from_dict(datasets)


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
    series: dict[str, list[Any]],
    labels: dict[str, np.ndarray],
    cells: MovieCells,
    frame_rate: float,
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
    of_cells, coords = cells.truth()
    variables |= of_cells
    coords |= {name: ("trial", values) for name, values in labels.items()}
    coords["n_frames"] = ("trial", counts)
    coords["time"] = time_coordinate(longest, frame_rate)
    if "behaviors" in series:
        coords["behavior"] = names
    return xr.Dataset(variables, coords, {"description": "simulated recording of movies"})


def _checked_cells(scene: Any, cells: Any, adaptation: Any) -> tuple[list[str], Scene, float]:
    """Kinds of cells in turn, how movies are drawn, and the strength of adaptation."""
    scene = as_word(scene, list(SCENES), "scene")
    kinds = as_words(cells, "cells", of="simple")
    if not kinds or any(kind not in KINDS for kind in kinds):
        raise ValueError(f"cells must be one or several of {list(KINDS)}, got {cells!r}")
    if not isinstance(adaptation, Real) or isinstance(adaptation, bool):
        raise TypeError(f"adaptation must be a number, got {adaptation!r}")
    if not 0 <= float(adaptation) < np.inf:
        raise ValueError(f"adaptation must be 0 or more and finite, got {adaptation}")
    return kinds, SCENES[scene], float(adaptation)


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

"""Simulated recordings that see images up to a cut-off alone: `make_coarse_recordings`.

Rectified filters of low-passed images, neurons that see nothing, and images of several categories.
What carries the decoding of such recordings is known, so that analyses can be held against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import xarray as xr
from scipy import fft

from v1tlearn._values import plain
from v1tlearn.datasets.schema import AXES, DIMS, POSITION_ATTRS, RESPONSES_ATTRS, STIMULI_ATTRS
from v1tlearn.datasets.simulate.arguments import (
    check_count,
    check_share,
    check_sizes,
    seed_sequence,
    validation_trials,
)
from v1tlearn.datasets.simulate.cells import BLOCK_BYTES, Cells, draw_cells, gabors
from v1tlearn.datasets.simulate.dead_leaves import dead_leaves
from v1tlearn.datasets.simulate.noise import draw_responses, noise_terms
from v1tlearn.datasets.simulate.session import show
from v1tlearn.training.devices import default_errors

_N_PILOT = 600  # images that set the scale of each neuron; never shown in the recording
_LOWEST = 0.5  # frequency of the filters, relative to the cut-off
_MOST_CATEGORIES = 12  # beyond, the directions of their leaves overlap


@default_errors()
def make_coarse_recordings(
    n_mice: int = 1,
    n_neurons: int | Sequence[int] = 200,
    n_trials: int = 1000,
    n_test_images: int = 100,
    n_repeats: int = 2,
    image_shape: tuple[int, int] = (36, 64),
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
    *,
    cutoff: float = 4.0,
    informative: float = 0.5,
    n_categories: int = 0,
    explainable_variance: float = 0.5,
    validation_fraction: float = 0.1,
) -> xr.DataTree:
    """Simulate neurons that see the coarse structure of images alone, and some that see nothing.

    Mice see dead-leaves images. Each is low-passed: its Fourier components (discrete transform of
    the whole image) above `cutoff` are set to zero. An informative neuron is a Gabor filter of what
    is left, of a frequency between 0.5 and 1 times the cut-off: with the drive d, divided by its
    standard deviation over images, and a threshold t its rate is proportional to s + (1 - s) r,
    where r = max(d - t, 0), divided by its mean, and s is the share of spontaneous activity. Any
    other neuron is of the same kind and fires as if it saw, in each trial, another image, drawn at
    random: its responses are distributed alike and tell nothing. Noise is gamma distributed, and
    independent between neurons.

    Parameters
    ----------
    n_mice : int, default=1
        Number of mice, named "A", "B", ...; at most 26. All see the same images, in an order of
        their own.
    n_neurons : int or sequence of int, default=200
        Neurons per mouse, one number for all or one for each.
    n_trials : int, default=1000
        Train and validation trials per mouse, each with an image of its own; at least 2.
    n_test_images, n_repeats : int, default=100, 2
        Images of the test tier and how often each is shown. Repeats are spread over the session.
    image_shape : tuple of int, default=(36, 64)
        Height and width in pixels, 8 at least.
    random_state : int, RandomState, Generator or None, default=None
        Drives everything; global generators are not touched. Equal seeds give equal recordings,
        and the first mice do not depend on how many follow. None draws a fresh seed.
    cutoff : float, default=4.0
        Highest spatial frequency that reaches the neurons, in cycles per image height, in any
        direction; between 1 and half the height in pixels. The images of the recordings are not
        low-passed.
    informative : float, default=0.5
        Share of the neurons of each mouse, rounded, that see the image; in (0, 1].
    n_categories : int, default=0
        Number of categories of images, alike in number; 0 for none, else 2 to 12. They differ in
        texture: leaves are elongated, and their directions, within 11 degrees, are those of the
        category, 180 degrees divided by `n_categories` apart.
    explainable_variance : float, default=0.5
        Median over informative neurons of the share of response variance that the image explains;
        in (0, 1).
    validation_fraction : float, default=0.1
        Share of `n_trials`, rounded, that forms the validation tier; in [0, 1).

    Returns
    -------
    xarray.DataTree
        One child per mouse, with

        * `stimuli` (trial, channel, height, width), uint8, grey levels 0 to 255;
        * `responses` and `expected_responses`, what the image of a trial evokes on average, (trial,
          neuron), float32; the latter is constant where a neuron sees nothing;
        * `image_id`, `tier` and `trial_id` on trials, which are not in time order; with categories
          also `category`, the direction of the leaves, as in "45 deg";
        * `neuron`, and `position` in micrometres, which receptive fields follow with scatter;
        * the truth about each neuron: `informative` (bool); `reliability`, the share of its
          variance that the image explains, which is the expected correlation of two repeats;
          `receptive_field_x`, `receptive_field_y` (pixels from the centre of the upper left one),
          `orientation` (radians, of the grating's wave vector) and `spatial_frequency` (cycles per
          pixel). Where a neuron sees nothing `reliability` is 0;
        * the attributes `cutoff` (cycles per image height) and `n_categories`.

    Raises
    ------
    TypeError
        If a number is not of the kind expected.
    ValueError
        If a parameter is out of range, or `n_neurons` does not hold one number per mouse.

    Examples
    --------
    >>> from v1tlearn.datasets import make_coarse_recordings
    >>> recordings = make_coarse_recordings(n_neurons=8, n_trials=20, n_test_images=4,
    ...                                     image_shape=(16, 24), informative=0.25,
    ...                                     n_categories=2, random_state=0)
    >>> recordings["A"].attrs["cutoff"], int(recordings["A"]["informative"].sum())
    (4.0, 2)
    >>> sorted(set(recordings["A"]["category"].values.tolist()))
    ['0 deg', '90 deg']
    """
    counts = (n_mice, n_trials, n_test_images, n_repeats, n_categories)
    n_mice, n_trials, n_test_images, n_repeats, n_categories = plain(counts)
    shares = (cutoff, informative, explainable_variance, validation_fraction)
    cutoff, informative, explainable_variance, validation_fraction = plain(shares)
    n_neurons, random_state = plain((n_neurons, random_state))
    n_neurons, image_shape = check_sizes(
        n_mice, n_neurons, n_trials, n_test_images, n_repeats, image_shape
    )
    _check_cutoff(cutoff, image_shape)
    check_share("informative", informative, "[0, 1]")
    check_share("explainable_variance", explainable_variance, "(0, 1)")
    check_share("validation_fraction", validation_fraction, "[0, 1)")
    _check_categories(n_categories)
    n_informative = [round(informative * n) for n in n_neurons]
    if 0 in n_informative:
        raise ValueError(
            f"informative={informative} of {n_neurons[n_informative.index(0)]} neurons are none "
            "that sees the image; raise it, or n_neurons"
        )
    n_validation = validation_trials(n_trials, validation_fraction)

    image_seed, *mouse_seeds = seed_sequence(random_state).spawn(n_mice + 1)
    rng = np.random.default_rng(image_seed)
    n_images = n_trials + n_test_images
    tiers = np.repeat(
        ["train", "validation", "test"], [n_trials - n_validation, n_validation, n_test_images]
    )
    images, category = _draw_images(rng, n_images, image_shape, n_categories)
    pilot, _ = _draw_images(rng, _N_PILOT, image_shape, n_categories)
    datasets = {}
    for number, seed in enumerate(mouse_seeds):
        cell_seed, time_seed, noise_seed = seed.spawn(3)
        rng = np.random.default_rng(cell_seed)
        filters = _draw_filters(rng, n_neurons[number], image_shape, cutoff)
        evoked = Filtered(filters, cutoff, pilot)
        sees = np.zeros(n_neurons[number], bool)
        sees[rng.permutation(len(sees))[: n_informative[number]]] = True
        shown, trial_id = show(np.random.default_rng(time_seed), tiers, n_repeats)
        labels = {"image_id": shown, "tier": tiers[shown], "trial_id": trial_id}
        if n_categories:
            names = np.array([f"{180 * k / n_categories:g} deg" for k in range(n_categories)])
            labels["category"] = names[category[shown]]

        typical = explainable_variance / (1.0 - explainable_variance)
        odds = typical * np.exp(0.8 * rng.standard_normal(len(sees)))
        noise = noise_terms(evoked.pilot, evoked.pilot.var(axis=0, dtype=np.float64) / odds)
        rates = evoked(images)[shown]
        other = rng.integers(0, len(pilot), rates.shape)
        rates[:, ~sees] = np.take_along_axis(evoked.pilot, other, axis=0)[:, ~sees]
        responses = draw_responses(noise_seed, rates, noise)
        rates[:, ~sees] = evoked.pilot.mean(axis=0)[~sees]
        reliability = np.where(sees, odds / (1.0 + odds), 0.0)
        dataset = _dataset(images[shown], labels, responses, rates, filters)
        dataset = dataset.assign_coords(
            informative=("neuron", sees), reliability=("neuron", reliability)
        )
        datasets[chr(ord("A") + number)] = dataset.assign_attrs(
            description="simulated recording of neurons that see coarse structure",
            cutoff=float(cutoff),
            n_categories=n_categories,
        )
    return xr.DataTree.from_dict(datasets)


class Filtered:
    """What low-passed images evoke in rectified filters; scales are taken once from `pilot`.

    Parameters
    ----------
    filters : Filters
        The neurons of one mouse.
    cutoff : float
        In cycles per image height.
    pilot : ndarray of shape (images, channels, height, width)
        Grey levels.
    """

    def __init__(self, filters: Filters, cutoff: float, pilot: np.ndarray):
        self._filters, self._cutoff = filters, cutoff
        drive = self._drive(pilot)
        self._drive_scale = drive.std(axis=0)
        self._scale = self._rectified(drive).mean(axis=0)
        self.pilot = self._rates(drive)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Rate (images, neurons), float32, of every neuron to every image."""
        return self._rates(self._drive(images))

    def _rates(self, drive):
        share, mean = self._filters.spontaneous, self._filters.mean
        return mean * (share + (1.0 - share) * self._rectified(drive) / self._scale)

    def _rectified(self, drive):
        return np.maximum(drive / self._drive_scale - self._filters.threshold, 0.0)

    def _drive(self, images):
        cells = self._filters.cells
        drive = np.empty((len(images), len(cells)), np.float32)
        pixels = math.prod(cells.image_shape)
        step, cell_step = max(1, BLOCK_BYTES // (32 * pixels)), max(1, BLOCK_BYTES // (8 * pixels))
        for first in range(0, len(cells), cell_step):
            cell = slice(first, first + cell_step)
            even, _ = gabors(cells, cell)
            for start in range(0, len(images), step):
                row = slice(start, start + step)
                seen = low_passed(images[row], self._cutoff)
                drive[row, cell] = seen.reshape(len(seen), -1) @ even.T
        return drive


def low_passed(images: np.ndarray, cutoff: float) -> np.ndarray:
    """Set the Fourier components of images above a cut-off to zero.

    Parameters
    ----------
    images : ndarray of shape (..., height, width)
        Grey levels.
    cutoff : float
        In cycles per image height, in any direction.

    Returns
    -------
    ndarray of the same shape, float32
    """
    height, width = images.shape[-2:]
    down, right = fft.fftfreq(height)[:, None], fft.rfftfreq(width)
    spectrum = fft.rfft2(images.astype(np.float32))
    spectrum[..., height * np.hypot(down, right) > cutoff] = 0.0
    return fft.irfft2(spectrum, s=(height, width))


@dataclass(frozen=True)
class Filters:
    """The neurons of one mouse; every array has one entry per neuron."""

    cells: Cells  # of which the even Gabor field is used
    threshold: np.ndarray  # in s.d. of the drive
    spontaneous: np.ndarray  # share of the mean rate
    mean: np.ndarray  # rate, over images


def _draw_filters(rng, n_neurons, image_shape, cutoff) -> Filters:
    cells = draw_cells(rng, n_neurons, image_shape, 1, 0.0)
    frequency = rng.uniform(_LOWEST, 1.0, n_neurons) * cutoff / image_shape[0]
    width = np.maximum(rng.uniform(0.25, 0.45, n_neurons) / frequency, 0.6)
    length = width * rng.uniform(0.7, 1.6, n_neurons)
    return Filters(
        cells=replace(
            cells,
            frequency=frequency,
            width=width,
            length=length,
            channel_weights=np.ones((n_neurons, 1)),
        ),
        threshold=rng.uniform(0.0, 0.6, n_neurons).astype(np.float32),
        spontaneous=rng.uniform(0.05, 0.35, n_neurons).astype(np.float32),
        mean=5.0 * np.exp(0.5 * rng.standard_normal(n_neurons)).astype(np.float32),
    )


def _draw_images(rng, n_images, image_shape, n_categories):
    """Images, and the number of the category of each; all of number 0 without categories."""
    if not n_categories:
        return dead_leaves(rng, n_images, image_shape), np.zeros(n_images, int)
    category = rng.permutation(np.arange(n_images) % n_categories)
    direction = math.pi * category / n_categories
    return dead_leaves(rng, n_images, image_shape, orientation=direction), category


def _dataset(stimuli, labels, responses, rates, filters) -> xr.Dataset:
    """One mouse in the schema of a recording."""
    cells = filters.cells
    rate_attrs = {"long_name": "true rate", "units": RESPONSES_ATTRS["units"]}
    variables = {
        "stimuli": (DIMS["stimuli"], stimuli, STIMULI_ATTRS),
        "responses": (DIMS["responses"], responses, RESPONSES_ATTRS),
        "expected_responses": (DIMS["expected_responses"], rates, rate_attrs),
    }
    coords: dict[str, tuple] = {name: ("trial", values) for name, values in labels.items()}
    coords["neuron"] = ("neuron", np.arange(1, len(cells) + 1))
    coords["axis"] = ("axis", list(AXES))
    coords["position"] = (("neuron", "axis"), cells.position, POSITION_ATTRS)
    coords["receptive_field_x"] = ("neuron", cells.x, {"units": "px"})
    coords["receptive_field_y"] = ("neuron", cells.y, {"units": "px"})
    coords["orientation"] = ("neuron", cells.orientation, {"units": "rad"})
    coords["spatial_frequency"] = ("neuron", cells.frequency, {"units": "px-1"})
    return xr.Dataset(variables, coords)


def _check_cutoff(cutoff, image_shape):
    if not isinstance(cutoff, Real) or isinstance(cutoff, bool):
        raise TypeError(f"cutoff must be a number, got {cutoff!r} of type {type(cutoff).__name__}")
    most = image_shape[0] / 2
    if not 1.0 <= cutoff <= most:
        raise ValueError(
            f"cutoff must be at least 1 and at most {most:g} cycles per image height, what "
            f"{image_shape[0]} rows of pixels hold, got {cutoff}"
        )


def _check_categories(n_categories):
    check_count("n_categories", n_categories, 0, _MOST_CATEGORIES)
    if n_categories == 1:
        raise ValueError("n_categories must be 0, for none, or at least 2, got 1")

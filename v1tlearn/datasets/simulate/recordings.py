"""Simulated recordings of mouse V1 with known truth: `make_v1_recordings`.

Who sees which image, and the rates. Images, cells, behaviour, noise and the order of the trials are
drawn in `dead_leaves`, `cells`, `behavior`, `noise` and `session`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from v1tlearn._values import plain
from v1tlearn.datasets.schema import (
    AXES,
    BEHAVIOR_NAMES,
    DIMS,
    POSITION_ATTRS,
    RESPONSES_ATTRS,
    STIMULI_ATTRS,
    behavior_attrs,
)
from v1tlearn.datasets.simulate.arguments import (
    check_share,
    check_sizes,
    seed_sequence,
    validation_trials,
)
from v1tlearn.datasets.simulate.behavior import (
    TRIAL_INTERVAL,
    apply_gain,
    arousal_gain,
    behavior_in_time,
    draw_eye,
    eye_shift,
)
from v1tlearn.datasets.simulate.cells import Cells, Evoked, draw_cells
from v1tlearn.datasets.simulate.dead_leaves import dead_leaves
from v1tlearn.datasets.simulate.noise import draw_responses, noise_terms
from v1tlearn.datasets.simulate.session import show
from v1tlearn.training.devices import default_errors

_N_PILOT = 300  # images that set the scale of each cell; never shown in the recording
_PILOT_STATES = 4  # states of the animal in which each of them is evaluated


@default_errors()
def make_v1_recordings(
    n_mice: int = 3,
    n_neurons: int | Sequence[int] = 200,
    n_trials: int = 2000,
    n_test_images: int = 50,
    n_repeats: int = 10,
    image_shape: tuple[int, int] = (36, 64),
    n_channels: int = 1,
    behavior: bool = True,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
    *,
    validation_fraction: float = 0.1,
    shared_fraction: float = 0.2,
    complex_fraction: float = 0.5,
    explainable_variance: float = 0.2,
) -> xr.DataTree:
    """Simulate two-photon recordings of mouse V1 whose true rates are known.

    Mice see dead-leaves images. Simple and complex Gabor cells with divisive normalisation respond
    to them; their receptive fields follow cortical position with scatter and move with the eye,
    and arousal multiplies each cell's rate by a gain of its own. Responses are gamma distributed
    around the rate, with a variance above the mean, on the scale of deconvolved calcium signals.
    By default they are about as reliable as recorded ones: a mean correlation of the rate with
    single trials between 0.40 and 0.55, a mean split-half correlation of ten repeats between 0.5
    and 0.65, a median fraction of explainable variance between 0.15 and 0.3.

    Parameters
    ----------
    n_mice : int, default=3
        Number of mice, named "A", "B", ...; at most 26.
    n_neurons : int or sequence of int, default=200
        Neurons per mouse, one number for all or one for each.
    n_trials : int, default=2000
        Train and validation trials per mouse, each with an image of its own; at least 2.
    n_test_images, n_repeats : int, default=50, 10
        Images of the test tier and how often each is shown. Repeats are spread over the session.
    image_shape : tuple of int, default=(36, 64)
        Height and width in pixels, 8 at least. Receptive fields and eye movements scale with it.
    n_channels : int, default=1
        Colour channels of the images; every cell weighs them in its own way.
    behavior : bool, default=True
        Whether mice have behaviour, with its gain and eye movements. False gives recordings
        without `behaviors`, in which only image and noise make responses vary.
    random_state : int, RandomState, Generator or None, default=None
        Drives everything; global generators are not touched. Equal seeds give equal recordings,
        and the first mice do not depend on how many follow. None draws a fresh seed.
    validation_fraction : float, default=0.1
        Share of `n_trials`, rounded, that forms the validation tier; in [0, 1).
    shared_fraction : float, default=0.2
        Share of the train and of the validation images that all mice see, in the same tier and
        under the same `image_id`; in [0, 1]. The test images are always common to all mice.
    complex_fraction : float, default=0.5
        Expected share of complex cells; in [0, 1].
    explainable_variance : float, default=0.2
        Median over neurons of the share of response variance that the image explains; in (0, 1).
        Lower it for noisier recordings.

    Returns
    -------
    xarray.DataTree
        One child per mouse, with

        * `stimuli` (trial, channel, height, width), uint8, grey levels 0 to 255;
        * `behaviors` (trial, behavior), float32, if `behavior`: the five columns of
          `BEHAVIOR_NAMES`, the derivative being that of dilation in the order of `trial_id`;
        * `responses` and `expected_responses`, the true rate, (trial, neuron), float32;
        * `image_id`, `tier` and `trial_id` on trials. Trials are not in time order:
          `sortby("trial_id")` gives it, one trial each 2.5 seconds;
        * `neuron`, `area`, `layer`, `animal_id`, `session`, `scan`, and `position` in micrometres;
        * the truth about each neuron: `receptive_field_x`, `receptive_field_y` (pixels from the
          centre of the upper left one), `cell_type` ("simple", "complex"), `orientation` (radians,
          of the grating's wave vector) and `spatial_frequency` (cycles per pixel);
        * the truth about behaviour, if `behavior`: `dilation_gain` and `running_gain` of each
          neuron, the logarithm of its gain per standard deviation of the dilation and from rest
          to full speed, before it is bounded to a factor of 3; and `eye_shift_x` and `eye_shift_y`
          of each trial, by how many pixels all receptive fields lie right and down.

    Raises
    ------
    TypeError
        If a number is not of the kind expected.
    ValueError
        If a parameter is out of range, or `n_neurons` does not hold one number per mouse.

    Examples
    --------
    >>> from v1tlearn.datasets import make_v1_recordings
    >>> recordings = make_v1_recordings(2, [5, 8], 20, n_test_images=3, random_state=0)
    >>> recordings["B"].sizes["trial"], recordings["B"].sizes["neuron"]
    (50, 8)
    >>> recordings["A"]["tier"].to_series().value_counts().to_dict()
    {'test': 30, 'train': 18, 'validation': 2}
    """
    counts = (n_mice, n_trials, n_test_images, n_repeats, n_channels)
    n_mice, n_trials, n_test_images, n_repeats, n_channels = plain(counts)
    shares = (validation_fraction, shared_fraction, complex_fraction, explainable_variance)
    validation_fraction, shared_fraction, complex_fraction, explainable_variance = plain(shares)
    n_neurons, random_state, behavior = plain((n_neurons, random_state, behavior))
    n_neurons, image_shape = check_sizes(
        n_mice, n_neurons, n_trials, n_test_images, n_repeats, image_shape, n_channels
    )
    if not isinstance(behavior, bool | np.bool_):
        raise TypeError(f"behavior must be True or False, got {behavior!r}")
    check_share("validation_fraction", validation_fraction, "[0, 1)")
    check_share("shared_fraction", shared_fraction, "[0, 1]")
    check_share("complex_fraction", complex_fraction, "[0, 1]")
    check_share("explainable_variance", explainable_variance, "(0, 1)")
    n_validation = validation_trials(n_trials, validation_fraction)

    seeds = seed_sequence(random_state).spawn(n_mice + 1)
    n_images = {
        "train": n_trials - n_validation,
        "validation": n_validation,
        "test": n_test_images,
    }
    n_shared = {tier: round(shared_fraction * n) for tier, n in n_images.items()}
    n_shared["test"] = n_test_images

    rng = np.random.default_rng(seeds[0])
    shared = {tier: dead_leaves(rng, n, image_shape, n_channels) for tier, n in n_shared.items()}
    datasets = {}
    for number, (seed, n) in enumerate(zip(seeds[1:], n_neurons, strict=True)):
        image_seed, cell_seed, time_seed, noise_seed = seed.spawn(4)
        stimuli, labels = _show_images(
            np.random.default_rng(image_seed), number, shared, n_images, n_repeats
        )
        rng = np.random.default_rng(cell_seed)
        cells = draw_cells(rng, n, image_shape, n_channels, complex_fraction)
        behaviors = None
        if behavior:
            # Behaviour is drawn in time, then brought into the order of the trials.
            in_time = behavior_in_time(np.random.default_rng(time_seed), len(stimuli))
            behaviors = in_time[labels["trial_id"]]
        rates, noise, truth = _rates(rng, cells, stimuli, behaviors, explainable_variance)
        responses = draw_responses(noise_seed, rates, noise)
        datasets[chr(ord("A") + number)] = _dataset(
            number, stimuli, labels, behaviors, responses, rates, cells, truth
        )
    return xr.DataTree.from_dict(datasets)


def _show_images(rng, number, shared, n_images, n_repeats):
    """Images of one mouse, one per trial, and the labels of its trials.

    Image ids count the shared images first, tier by tier, then the images of each mouse.
    """
    channels_and_shape = shared["test"].shape[1:]
    n_own = {tier: n - len(shared[tier]) for tier, n in n_images.items()}
    next_shared = 0
    next_own = sum(map(len, shared.values())) + number * sum(n_own.values())
    images, ids, tiers = [], [], []
    for tier, n in n_images.items():
        own = dead_leaves(rng, n_own[tier], channels_and_shape[1:], channels_and_shape[0])
        images += [shared[tier], own]
        ids += [
            np.arange(next_shared, next_shared + len(shared[tier])),
            np.arange(next_own, next_own + len(own)),
        ]
        next_shared += len(shared[tier])
        next_own += len(own)
        tiers += [tier] * n
    images, ids, tiers = np.concatenate(images), np.concatenate(ids), np.array(tiers)

    shown, trial_id = show(rng, tiers, n_repeats)
    return images[shown], {"image_id": ids[shown], "tier": tiers[shown], "trial_id": trial_id}


def _rates(rng, cells: Cells, stimuli, behaviors, explainable_variance):
    """True rates (trials, neurons), the two terms of the noise of each neuron, what behaviour does.

    The noise of a neuron with rate m has the variance `linear` m + `quadratic` m^2. It is set on
    pilot images, which the mouse never sees, so that the image explains a share of the neuron's
    variance which is drawn around `explainable_variance`.
    """
    n_neurons = len(cells)
    scale = 5.0 * np.exp(0.5 * rng.standard_normal(n_neurons)).astype(np.float32)
    spontaneous = rng.uniform(0.05, 0.35, n_neurons).astype(np.float32)
    odds = explainable_variance / (1.0 - explainable_variance)
    odds = odds * np.exp(0.6 * rng.standard_normal(n_neurons))
    eye, weights = draw_eye(rng), arousal_gain(rng, n_neurons)
    pilot_images = dead_leaves(rng, _N_PILOT, cells.image_shape, stimuli.shape[1])
    pilot_images = np.tile(pilot_images, (_PILOT_STATES, 1, 1, 1))
    # Every tenth trial: states that are nearly independent of one another.
    pilot_behaviors = behavior_in_time(rng, 10 * len(pilot_images))[::10]
    shift = pilot_shift = None
    pilot_gain = np.ones(1, np.float32)
    if behaviors is not None:
        shift = eye_shift(behaviors, eye, cells.pixel)
        pilot_shift = eye_shift(pilot_behaviors, eye, cells.pixel)
        pilot_gain = apply_gain(pilot_behaviors, weights)
    evoked = Evoked(cells, pilot_images, pilot_shift)

    pilot = scale * (spontaneous + (1.0 - spontaneous) * evoked.pilot)
    pilot *= pilot_gain
    states = pilot.reshape(_PILOT_STATES, _N_PILOT, n_neurons)
    by_behavior = states.var(axis=0, ddof=1).mean(axis=0)
    by_image = np.maximum(pilot.var(axis=0, ddof=1) - by_behavior, 0.0)
    # A noise floor, because a neuron may be so modulated that behaviour alone exceeds the target.
    variance = np.maximum(by_image / odds - by_behavior, 0.3 * by_image)
    linear, quadratic = noise_terms(pilot, variance)
    linear = np.maximum(linear, 1.0)

    rates = evoked(stimuli, shift)
    rates *= scale * (1.0 - spontaneous)
    rates += scale * spontaneous
    truth: dict[str, tuple] = {}
    if behaviors is not None:
        rates *= apply_gain(behaviors, weights)
        assert shift is not None
        for name, values in zip(("dilation_gain", "running_gain"), weights, strict=True):
            truth[name] = ("neuron", values, {"long_name": "log gain", "units": "1"})
        for name, values in zip(("eye_shift_x", "eye_shift_y"), shift.T, strict=True):
            truth[name] = ("trial", values, {"units": "px"})
    return rates, (linear, quadratic), truth


def _dataset(
    number, stimuli, labels, behaviors, responses, rates, cells: Cells, truth
) -> xr.Dataset:
    """One mouse in the schema of a recording."""
    n_neurons = len(cells)
    variables = {
        "stimuli": (DIMS["stimuli"], stimuli, STIMULI_ATTRS),
        "responses": (DIMS["responses"], responses, RESPONSES_ATTRS),
        "expected_responses": (
            DIMS["expected_responses"],
            rates,
            {"long_name": "true rate", "units": RESPONSES_ATTRS["units"]},
        ),
    }
    coords: dict[str, tuple] = {name: ("trial", values) for name, values in labels.items()}
    if behaviors is not None:
        variables["behaviors"] = (DIMS["behaviors"], behaviors, behavior_attrs(BEHAVIOR_NAMES))
        coords["behavior"] = ("behavior", list(BEHAVIOR_NAMES))
    coords["neuron"] = ("neuron", np.arange(1, n_neurons + 1))
    coords["area"] = ("neuron", np.full(n_neurons, "V1"))
    coords["layer"] = ("neuron", np.full(n_neurons, "L2/3"))
    for name, value in {"animal_id": number + 1, "session": 1, "scan": 1}.items():
        coords[name] = ("neuron", np.full(n_neurons, value))
    coords["axis"] = ("axis", list(AXES))
    coords["position"] = (("neuron", "axis"), cells.position, POSITION_ATTRS)
    cell_type = np.where(cells.is_complex, "complex", "simple")
    coords["receptive_field_x"] = ("neuron", cells.x, {"units": "px"})
    coords["receptive_field_y"] = ("neuron", cells.y, {"units": "px"})
    coords["cell_type"] = ("neuron", cell_type)
    coords["orientation"] = ("neuron", cells.orientation, {"units": "rad"})
    coords["spatial_frequency"] = ("neuron", cells.frequency, {"units": "px-1"})
    coords |= truth
    attrs = {"description": "simulated recording of mouse V1", "trial_interval": TRIAL_INTERVAL}
    return xr.Dataset(variables, coords, attrs)

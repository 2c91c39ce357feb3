"""What the simulators take: seeds and numbers, checked."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

_MIN_SIDE = 8  # pixels
_MOST_BYTES = 2**44  # of one mouse, 16 TiB


def seed_sequence(random_state: Any) -> np.random.SeedSequence:
    """Root of all randomness; a generator is advanced, so two calls in a row differ."""
    if random_state is None:
        return np.random.SeedSequence()
    if isinstance(random_state, np.random.Generator):
        return np.random.SeedSequence(random_state.integers(0, 2**32, 4).tolist())
    if isinstance(random_state, np.random.RandomState):
        words = random_state.randint(0, 2**32, 4, dtype=np.uint64)
        return np.random.SeedSequence(words.tolist())
    if isinstance(random_state, Integral) and not isinstance(random_state, bool):
        if random_state < 0:
            raise ValueError(f"random_state must not be negative, got {random_state}")
        return np.random.SeedSequence(int(random_state))
    raise TypeError(
        "random_state must be an integer, numpy.random.RandomState, numpy.random.Generator or "
        f"None, got {random_state!r} of type {type(random_state).__name__}"
    )


def check_count(name: str, value: Any, minimum: int, maximum: int | None = None) -> None:
    """Raise unless a value is an integer within its bounds."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    number = int(value)
    if number < minimum or (maximum is not None and number > maximum):
        most = "" if maximum is None else f" and at most {maximum}"
        raise ValueError(f"{name} must be at least {minimum}{most}, got {value}")


def check_share(name: str, value: Any, interval: str) -> None:
    """Raise unless a value lies in an interval, written as in mathematics, "[0, 1)"."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    number = float(value)
    above = number >= 0 if interval[0] == "[" else number > 0
    below = number <= 1 if interval[-1] == "]" else number < 1
    if not (above and below):
        raise ValueError(f"{name} must lie in {interval}, got {value}")


def check_image_shape(image_shape: Any) -> tuple[int, int]:
    """Height and width in pixels."""
    try:
        height, width = image_shape
    except (TypeError, ValueError):
        raise ValueError(
            f"image_shape must be (height, width), got {image_shape!r}; colour is n_channels"
        ) from None
    check_count("image_shape: height", height, _MIN_SIDE)
    check_count("image_shape: width", width, _MIN_SIDE)
    return int(height), int(width)


def neurons_per_mouse(n_neurons: Any, n_mice: int) -> list[int]:
    """One number for each mouse, from one for all or one for each."""
    if isinstance(n_neurons, Integral):
        n_neurons = [n_neurons] * n_mice
    elif isinstance(n_neurons, str) or not isinstance(n_neurons, Sequence | np.ndarray):
        raise TypeError(
            f"n_neurons must be an integer or one integer per mouse, got {n_neurons!r} of type "
            f"{type(n_neurons).__name__}"
        )
    if len(n_neurons) != n_mice:
        raise ValueError(
            f"n_neurons holds {len(n_neurons)} numbers for {n_mice} mice; give one number for all "
            "mice or one for each"
        )
    for mouse, n in enumerate(n_neurons):
        check_count(f"n_neurons of mouse {chr(ord('A') + mouse)!r}", n, 1)
    return [int(n) for n in n_neurons]


def check_sizes(
    n_mice: int,
    n_neurons: Any,
    n_trials: int,
    n_test_images: int,
    n_repeats: int,
    image_shape: Any,
    n_channels: int = 1,
) -> tuple[list[int], tuple[int, int]]:
    """Check sizes of recordings; return the neurons of each mouse, and the shape of the images."""
    check_count("n_mice", n_mice, 1, 26)
    neurons = neurons_per_mouse(n_neurons, n_mice)
    check_count("n_trials", n_trials, 2)
    check_count("n_test_images", n_test_images, 1)
    check_count("n_repeats", n_repeats, 1)
    height, width = check_image_shape(image_shape)
    check_count("n_channels", n_channels, 1)
    per_trial = max(n_channels * height * width, 4 * max(neurons))
    if (n_trials + n_test_images * n_repeats) * per_trial > _MOST_BYTES:
        sizes = {"n_trials": n_trials, "n_test_images": n_test_images, "n_repeats": n_repeats}
        sizes |= {"n_channels": n_channels, "n_neurons": max(neurons)}
        largest = max(sizes, key=sizes.__getitem__)
        raise ValueError(
            f"{largest}={sizes[largest]} makes recordings that no memory holds; lower it"
        )
    return neurons, (height, width)


def validation_trials(n_trials: int, validation_fraction: float) -> int:
    """Number of trials of the validation tier, which must leave some for the train tier."""
    n_validation = round(n_trials * validation_fraction)
    if n_validation == n_trials:
        raise ValueError(
            f"validation_fraction={validation_fraction} leaves none of {n_trials} trials for the "
            "train tier; lower it or raise n_trials"
        )
    return n_validation

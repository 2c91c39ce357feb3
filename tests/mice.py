"""Small simulated mice, which most tests are content with."""

import v1tlearn as v1


def two_mice(**changes):
    """Mice A (5 neurons) and B (7), 45 trials of 12 x 16 pixels and 4 test images x 4."""
    sizes = {"n_neurons": [5, 7], "n_trials": 45, "n_test_images": 4, "n_repeats": 4}
    sizes |= {"image_shape": (12, 16), "n_mice": 2, "random_state": 0}
    return v1.make_v1_recordings(**sizes | changes)

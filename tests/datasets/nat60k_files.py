"""Small files in the layouts of Du et al. (2025) and of Cadena et al. (2019), written by hand."""

from pathlib import Path

import numpy as np
import scipy.io

# HDF5 behind 512 bytes of MATLAB's own, deflated: 600 images of 2 x 3 pixels, those of `few_images`
STACK_V73 = Path(__file__).parents[1] / "reference" / "stack_v73.mat"

N_STACK, N_NATURAL, N_TEST = 68_000, 30_000, 500


def make_stack(height=2, width=6, seed=0):
    """Images as they lie in the stack: natural ones, these mirrored, textures."""
    rng = np.random.default_rng(seed)
    natural = rng.integers(0, 256, (N_NATURAL, height, width), dtype=np.uint8)
    textures = rng.integers(0, 256, (N_STACK - 2 * N_NATURAL, height, width), dtype=np.uint8)
    return np.concatenate([natural, natural[:, :, ::-1], textures])


def few_images():
    """Images 2 high and 3 wide, as many as the test images and some more."""
    return np.random.default_rng(0).integers(0, 256, (600, 2, 3), dtype=np.uint8)


def write_stack(path, images, *, compressed=False):
    """Write images (n, height, width) as MATLAB would, (height, width, n)."""
    scipy.io.savemat(path, {"img": images.transpose(1, 2, 0)}, do_compression=compressed)
    return path


def as_objects(arrays):
    """Arrays of unequal shapes in an array of objects."""
    out = np.empty(len(arrays), object)
    out[:] = arrays
    return out


def make_responses(n_neurons=4, n_trials=40, seed=1):
    """What a file of a mouse holds; some trials show mirrored test images."""
    rng = np.random.default_rng(seed)
    shown = rng.choice(np.arange(N_TEST, N_NATURAL), n_trials, replace=False)
    shown[[3, 11]] = 30_007, 30_499  # copies of the test images 7 and 499
    shown[20:24] = 30_500, 30_501, 45_000, 59_999  # copies of images that are no test images
    repeats = [rng.gamma(1.0, 1.0, (n, n_neurons)).astype("f4") for n in (2, 3) * (N_TEST // 2)]
    return {
        "sp": rng.gamma(1.0, 1.0, (n_neurons, n_trials)).astype("f4"),
        "istim_sp": shown,
        "ss_all": as_objects(repeats),
        "istim_ss": np.arange(N_TEST),
        "xpos": rng.uniform(0, 700, n_neurons),
        "ypos": rng.uniform(0, 500, n_neurons),
        "iplane": np.arange(n_neurons) % 2,
    }


def make_texture_responses(n_neurons=3, n_trials=20, n_test=8, n_repeats=2, seed=2):
    """What a file of texture responses holds."""
    rng = np.random.default_rng(seed)
    images = 60_000 + rng.choice(8_000, n_trials + n_test, replace=False)
    labels = np.arange(n_trials + n_test) % 4
    return {
        "sp": rng.gamma(1.0, 1.0, (n_neurons, n_trials)),
        "istim": images[:n_trials],
        "labels": labels[:n_trials],
        "ss_all": rng.gamma(1.0, 1.0, (n_test, n_repeats, n_neurons)),
        "ss_istim": images[n_trials:],
        "ss_labels": labels[n_trials:],
    }


def make_macaque(n_trials=12, n_test=3, n_repeats=4, n_neurons=3, seed=3):
    """What a file of macaque responses holds."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n_trials, 1, 10, 10)).astype("f4")
    images[1] = images[0]  # shown twice
    return {
        "images": images,
        "responses": rng.poisson(2.0, (n_trials, n_neurons)).astype("f4"),
        "real_responses": rng.random((n_trials, n_neurons)) < 0.8,
        "train_idx": np.array([0, 1, 2, 4, 5, 6, 8, 9, 10]),
        "val_idx": np.array([3, 7, 11]),
        "test_images": rng.integers(0, 256, (n_test, 1, 10, 10)).astype("f4"),
        "test_responses": rng.poisson(2.0, (n_repeats, n_test, n_neurons)).astype("f4"),
        "repetitions": np.array([4, 3, 2])[:n_neurons],
        "subject_id": np.array([1, 1, 2])[:n_neurons],
    }

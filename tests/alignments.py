"""Alignments whose towers are known: maps that are the images, and responses that are pixels."""

import numpy as np
import pytest
import torch

import v1tlearn as v1
from v1tlearn.preprocessing import spatial_frequencies


class Identity(v1.nn.Core):
    """Maps that are the images."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        self.output_shape = tuple(input_shape)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images, behaviors=None, sizes=None):
        return images * self.weight


class Coarse(Identity):
    """Maps that are the images below 6 cycles per height."""

    cutoff = 6

    def forward(self, images, behaviors=None, sizes=None):
        kept = torch.from_numpy(spatial_frequencies(images.shape[2:]) <= self.cutoff)
        return torch.fft.irfft2(torch.fft.rfft2(images) * kept, s=images.shape[2:]) * self.weight


class Squares(Identity):
    """Maps that are the squares of smoothed images: smooth, and not linear in them."""

    def forward(self, images, behaviors=None, sizes=None):
        kernel = torch.ones(1, 1, 3, 3, dtype=images.dtype) / 9
        return torch.nn.functional.conv2d(images, kernel, padding=1).square() * self.weight


class Reshape(v1.nn.NeuralTower):
    """Maps that are the responses."""

    def __init__(self, n_neurons, map_shape):
        super().__init__(n_neurons, map_shape)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, responses):
        return responses.unflatten(1, self.map_shape) * self.weight


def known_aligner(trials, core=Identity, **parameters):
    """An alignment whose maps are those of `core`, and the z-scored responses."""
    parameters = {"response_scale": "std", "device": "cpu", "validation_fraction": 0} | parameters
    est = v1.DINAAligner(core, neural_tower=Reshape, max_epochs=0, **parameters)
    with pytest.warns(UserWarning, match="max_epochs is 0"):
        est.fit(trials)
    est.__dict__.pop("_seen", None)
    return est


def as_trials(images, responses, image_ids=None, **coords):
    """Trials of the mouse "A", with labels of trials; responses may be images."""
    ids = np.arange(len(images)) if image_ids is None else np.asarray(image_ids)
    flat = np.asarray(responses, np.float32).reshape(len(images), -1)
    trials = v1.Trials.from_arrays(
        {"A": np.asarray(images, np.float32)}, None, {"A": flat}, image_ids={"A": ids}
    )
    labels = {name: ("trial", np.asarray(values)) for name, values in coords.items()}
    return v1.Trials({"A": trials.recordings["A"].to_dataset().assign_coords(labels)})


def noise_images(n, size=(16, 16), seed=0):
    """White noise around the grey level 128."""
    return 128 + 20 * np.random.default_rng(seed).normal(size=(n, 1, *size))


def unit(maps):
    """Vectors of length 1."""
    flat = np.asarray(maps, float).reshape(len(maps), -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)

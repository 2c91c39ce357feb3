"""
How do I plug in a core of my own?
==================================

A core is a torch module that turns images into feature maps. Here it is a bank of filters that
begin as Gabor functions, beside the same bank from random filters. `EncodingRegressor` gives
them readouts, several mice, behaviour, training and scores.
"""

# sphinx_gallery_thumbnail_number = 2

# %%
# Two simulated mice.

from functools import partial

import numpy as np
import torch

import v1tlearn as v1
from v1tlearn.inspection import ImageDisplay, ScoreDisplay

recordings = v1.make_v1_recordings(
    n_mice=2,
    n_neurons=60,
    n_trials=500,
    n_test_images=40,
    n_repeats=10,
    image_shape=(18, 32),
    explainable_variance=0.4,
    random_state=0,
)
trials = v1.Trials(recordings)
train, test = trials.sel(tier="train"), trials.sel(tier="test")

# %%
# The core: filters, and the energy of pairs of them. It derives from `v1tlearn.nn.Core` and sets
# the shape of its feature maps; a penalty keeps filters small.


def gabors(n, size):
    """Pairs of Gabor functions a quarter of a period apart: (2 n, 1, size, size)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    pairs = []
    for angle in np.arange(n) * np.pi / n:
        along = np.cos(angle) * x + np.sin(angle) * y
        envelope = np.exp(-(x**2 + y**2) / (2 * (size / 5) ** 2))
        wave = 2 * np.pi * along / rng.uniform(4, 8)
        pairs += [(np.cos(wave) * envelope, np.sin(wave) * envelope)]
    filters = np.array([pair[i] for i in range(2) for pair in pairs])
    return 0.2 * torch.tensor(filters[:, None], dtype=torch.float32)


class EnergyCore(v1.nn.Core):
    """Filters, for simple cells, and the energy of pairs of them, for complex ones."""

    def __init__(self, input_shape, n_pairs=8, size=9, begin="gabor"):
        super().__init__(input_shape)
        channels, height, width = input_shape
        self.output_shape = (3 * n_pairs, height - size + 1, width - size + 1)
        self.filters = torch.nn.Conv2d(channels, 2 * n_pairs, size, bias=False)
        if begin == "gabor":
            with torch.no_grad():
                self.filters.weight[:, :1] = gabors(n_pairs, size)
        self.norm = torch.nn.BatchNorm2d(3 * n_pairs)

    def forward(self, images, behaviors=None, sizes=None):
        """Feature maps of images."""
        even, odd = self.filters(images).chunk(2, dim=1)
        energy = (even**2 + odd**2 + 1e-6).sqrt()
        return self.norm(torch.cat([even.relu(), odd.relu(), energy], dim=1))

    def penalty(self):
        """Cost of large filters."""
        return self.filters.weight.abs().sum()


# %%
# ``core`` is the class, or a ``functools.partial`` of it: what a grid search would go over.

cores = {"Gabor filters": EnergyCore, "random filters": partial(EnergyCore, begin="random")}
models = {
    name: v1.EncodingRegressor(
        core, lr=0.005, readout_bias="mean", max_epochs=12, random_state=0
    ).fit(train)
    for name, core in cores.items()
}
scores = {name: model.score(test) for name, model in models.items()}
print({name: round(score, 3) for name, score in scores.items()})

# %%
# With 450 training trials per mouse the bank that begins as Gabor functions is ahead.

ScoreDisplay.from_estimator(models, test)

# %%
# What became of the first filters of either bank.

filters = [model.module_.core.filters.weight[:4, 0].detach() for model in models.values()]
titles = [f"{name.split()[0]} {i}" for name in models for i in range(1, 5)]
images = torch.cat(filters).numpy()[:, None]
ImageDisplay(images, signed=True, titles=titles).plot(n_columns=4)

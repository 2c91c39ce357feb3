"""
What does a ring around the field do?
=====================================

A grating in the middle of the field of a neuron, and around it a ring of other orientations: does
it suppress, and does that depend on its orientation? Half of the cells here have such a surround,
and half have none. Can a model that saw only natural images tell which?
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Cells with and without a surround
# ---------------------------------
# Each cell squares what its Gabor filter sees, and divides by that. Half of them divide by the
# energy of their own orientation in a ring around the field, too. Images are those of the
# simulator, 12 pixels of which are about 20 degrees.

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from scipy.signal import fftconvolve

import v1tlearn as v1
from v1tlearn.inspection import (
    gratings,
    most_exciting_images,
    surround,
    tuning_curves,
    tuning_properties,
)

shape, n_cells, frequency = (24, 32), 24, 0.18  # frequency in cycles per pixel
rng = np.random.default_rng(0)
recording = v1.make_v1_recordings(
    n_mice=1, n_neurons=1, n_trials=2400, image_shape=shape, behavior=False, random_state=0
)["A"]
images = recording["stimuli"].values[recording["tier"].values != "test"]

has_surround = np.arange(n_cells) % 2 == 1
angle, phase = rng.choice([0.0, 90.0], n_cells), rng.uniform(0, 2 * np.pi, n_cells)
x, y = rng.integers(10, shape[1] - 10, n_cells), rng.integers(9, shape[0] - 9, n_cells)
down, right = np.mgrid[-6:7, -6:7]
rows, columns = np.mgrid[: shape[0], : shape[1]]
filters = {}
for one in np.unique(angle):
    along = right * np.cos(np.deg2rad(one)) + down * np.sin(np.deg2rad(one))
    filters[one] = np.exp(-(down**2 + right**2) / (2 * 1.8**2) + 2j * np.pi * frequency * along)


def seen_by(gabor, shown):
    """What a filter sees at every pixel of images of grey levels."""
    return fftconvolve(shown[:, 0] / 127.5 - 1, gabor[None, ::-1, ::-1], mode="same")


scale = {one: (np.abs(seen_by(gabor, images)) ** 2).mean() for one, gabor in filters.items()}


def rates_of(shown):
    """Rates (images, cells) of images (images, 1, height, width)."""
    rates = np.empty((len(shown), n_cells))
    for one, gabor in filters.items():
        seen = seen_by(gabor, shown) / scale[one] ** 0.5
        for cell in np.flatnonzero(angle == one):
            drive = (seen[:, y[cell], x[cell]] * np.exp(1j * phase[cell])).real.clip(0) ** 2
            distance = np.hypot(rows - y[cell], columns - x[cell])
            ring = (np.abs(seen[:, (distance > 4) & (distance <= 9)]) ** 2).mean(1)
            rates[:, cell] = drive / (0.5 + 0.5 * drive + 4 * ring * has_surround[cell])
    return rates


rates = rates_of(images)
responses = rng.poisson(5 * rates / rates.mean(0)).astype(np.float32)

# %%
# Fit models
# ----------
# A network with several layers can learn to divide, a linear-nonlinear one can only add up.

trials = v1.Trials.from_arrays(images, None, responses)
settings = {"laplace": 0.1, "readout_l1": 0.0005, "init_sigma": 0.2, "random_state": 0}
settings |= {"input_kernel": 7, "hidden_kernel": 7}
models = {
    "CNN": v1.CNNRegressor(
        n_layers=3, hidden_channels=20, batch_size=32, max_epochs=14, **settings
    ),
    "LN": v1.LNRegressor(n_layers=2, hidden_channels=16, batch_size=64, max_epochs=6, **settings),
}
for name, model in models.items():
    model.fit(trials[:2000])
    score = model.score(trials[2000:])
    print(f"{name}: correlation with single trials {score:.2f}")

# %%
# Find the field and its grating, and show rings
# ----------------------------------------------
# The place of a field is that of the most exciting image; orientation and frequency are those that
# the neuron prefers. The centre is 8 pixels wide, as wide as the filters, and rings begin a pixel
# beyond it, where they drive no filter.

degrees = np.array([0, 22.5, 45, 67.5, 90])
found = {}
for name, model in models.items():
    fields = most_exciting_images(model, limits=(0, 255), n_steps=20, n_starts=2)
    curves = tuning_curves(model, gratings(shape, spatial_frequency=np.geomspace(0.08, 0.35, 6)))
    found[name] = surround(
        model,
        fields,
        tuning_properties(curves),
        diameter=8,
        inner_diameters=[1.25],
        ring_width=5,
        relative_orientations=degrees,
    )[model.mice_[0]]["index"].sel(inner_diameter=1.25)

# %%
# The cells themselves are asked the same, with their true places and orientations.

own, relative = xr.DataArray(angle, dims="neuron"), xr.DataArray(degrees, dims="relative")
place = {"x": xr.DataArray(x, dims="neuron"), "y": xr.DataArray(y, dims="neuron")}
place |= {"spatial_frequency": frequency}
centre = gratings(shape, orientation=own, diameter=8, **place)
ring = gratings(shape, orientation=own + relative, inner_diameter=10, diameter=20, **place)


def strength(shown):
    """F0 + F1 over phases, of every cell with its own images."""
    shown = shown.transpose("neuron", ..., "phase", "channel", "height", "width").values
    cells = [
        rates_of(each.reshape(-1, 1, *shape))[:, cell].reshape(each.shape[:-3])
        for cell, each in enumerate(shown)
    ]
    waves = np.abs(np.fft.rfft(cells, axis=-1)) / shown.shape[-4]
    return waves[..., 0] + 2 * waves[..., 1]


alone, both = strength(centre)[:, None], strength(centre + ring - 127.5)
truth = xr.DataArray((both - alone) / (both + alone), dims=("neuron", "relative_orientation"))
found = {"the cells": truth.assign_coords(relative_orientation=degrees), **found}

# %%
# Who is suppressed?
# ------------------
# Below 0 a ring suppresses. Lines are medians over cells, bands hold half of them; axes differ. The
# network, which saw natural images alone, tells the two kinds apart, and sees more suppression by a
# ring along the centre; the linear-nonlinear model tells neither. How strong the suppression is the
# network underestimates a lot: gratings of full contrast, one around the other, are far from any
# image that it was fitted to. Ask a model who has a surround, and an experiment how large it is.

figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.3), sharey=True, layout="constrained")
kinds = {"cells with a surround": has_surround, "cells without": ~has_surround}
for ax, (name, index) in zip(axes, found.items(), strict=True):
    for (kind, of_kind), color in zip(kinds.items(), ("tab:blue", "tab:orange"), strict=True):
        own = index.values[of_kind]
        low, middle, high = np.quantile(own, [0.25, 0.5, 0.75], axis=0)
        ax.plot(degrees, middle, color=color, marker="o", label=kind)
        ax.fill_between(degrees, low, high, color=color, alpha=0.2, lw=0)
        print(f"{name}, {kind}: median {middle[0]:.2f} along the centre, {middle[-1]:.2f} across")
    ax.axhline(0, color="0.6", lw=1)
    ax.set(title=name, xlabel="ring against centre (degree)", xticks=degrees[::2])
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("(both − centre) / (both + centre)")
handles = axes[0].get_legend_handles_labels()
figure.legend(*handles, loc="outside upper center", ncols=2, frameon=False)
plt.show()

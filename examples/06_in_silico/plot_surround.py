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
from scipy.signal import fftconvolve

import v1tlearn as v1
from v1tlearn.inspection import (
    gratings,
    most_exciting_images,
    surround,
    tuning_curves,
    tuning_properties,
)

shape, n_cells = (24, 32), 24
rng = np.random.default_rng(0)
recording = v1.make_v1_recordings(
    n_mice=1, n_neurons=1, n_trials=2000, image_shape=shape, behavior=False, random_state=0
)["A"]
images = recording["stimuli"].values[recording["tier"].values != "test"]
contrast = images[:, 0] / 127.5 - 1

has_surround = np.arange(n_cells) % 2 == 1
angle, phase = rng.choice(np.arange(0, 180, 22.5), n_cells), rng.uniform(0, 2 * np.pi, n_cells)
x, y = rng.integers(10, shape[1] - 10, n_cells), rng.integers(9, shape[0] - 9, n_cells)
down, right = np.mgrid[-6:7, -6:7]
rows, columns = np.mgrid[: shape[0], : shape[1]]
rates = np.empty((len(images), n_cells))
for one in np.unique(angle):
    along = right * np.cos(np.deg2rad(one)) + down * np.sin(np.deg2rad(one))
    gabor = np.exp(-(down**2 + right**2) / (2 * 1.8**2) + 2j * np.pi * 0.18 * along)
    seen = fftconvolve(contrast, gabor[None, ::-1, ::-1], mode="same")
    energy = np.abs(seen) ** 2
    seen, energy = seen / energy.mean() ** 0.5, energy / energy.mean()
    for cell in np.flatnonzero(angle == one):
        drive = (seen[:, y[cell], x[cell]] * np.exp(1j * phase[cell])).real.clip(0) ** 2
        distance = np.hypot(rows - y[cell], columns - x[cell])
        ring = energy[:, (distance > 4) & (distance <= 9)].mean(1)
        rates[:, cell] = drive / (0.5 + 0.5 * drive + 4 * ring * has_surround[cell])
responses = rng.poisson(5 * rates / rates.mean(0)).astype(np.float32)

# %%
# Fit models
# ----------
# A network with several layers can learn to divide, a linear-nonlinear one can only add up.

trials = v1.Trials.from_arrays(images, None, responses)
settings = {"laplace": 0.1, "readout_l1": 0.0005, "init_sigma": 0.2, "batch_size": 64}
settings |= {"input_kernel": 7, "hidden_kernel": 7, "hidden_channels": 16, "random_state": 0}
models = {
    "CNN": v1.CNNRegressor(n_layers=3, max_epochs=10, **settings),
    "LN": v1.LNRegressor(n_layers=2, max_epochs=6, **settings),
}
for name, model in models.items():
    model.fit(trials[:1700])
    score = model.score(trials[1700:])
    print(f"{name}: correlation with single trials {score:.2f}")

# %%
# Find the field and its grating, and show rings
# ----------------------------------------------
# The place of a field is that of the most exciting image; orientation and frequency are those that
# the neuron prefers. The centre is 8 pixels wide, as wide as the filters, and rings begin a pixel
# beyond it, where they drive no filter.

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
        relative_orientations=[0, 22.5, 45, 67.5, 90],
    )[model.mice_[0]]["index"].sel(inner_diameter=1.25)

# %%
# Who is suppressed?
# ------------------
# Below 0 a ring suppresses. Lines are medians over cells, bands hold half of them. The network has
# the two kinds on either side of 0, the linear-nonlinear model has no ring at all. How much these
# cells are suppressed, and that it is by their own orientation, it does not tell: natural images
# seldom hold a grating of full contrast with another one around it, and few images were shown.

figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.3), layout="constrained", sharey=True)
kinds = {"cells with a surround": has_surround, "cells without": ~has_surround}
for ax, (name, index) in zip(axes, found.items(), strict=True):
    degrees = index["relative_orientation"].values
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
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
plt.show()

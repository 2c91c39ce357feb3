"""
Where do the neurons of a model look?
=====================================

Receptive fields of fitted models, the Gaussians that fit them, and whether neighbours in cortex
look at neighbouring places: on a simulated mouse, where the truth is known.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# One mouse, and two models of it.

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn import inspection

recordings = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=80,
    n_trials=1000,
    n_test_images=10,
    n_repeats=5,
    image_shape=(18, 32),
    explainable_variance=0.5,
    random_state=0,
)
trials = v1.Trials(recordings)
train, test = trials.sel(tier="train"), trials.sel(tier="test")
small = {"hidden_channels": 16, "input_kernel": 9, "hidden_kernel": 5, "batch_size": 16}
small |= {"n_layers": 2, "max_epochs": 12, "random_state": 0}
models = {"CNN": v1.CNNRegressor(**small), "LN": v1.LNRegressor(**small)}
for name, model in models.items():
    print(f"{name}: single-trial correlation {model.fit(train).score(test):.3f}")

# %%
# Gradients of the predicted responses by the pixels, averaged over images: red pixels raise the
# response of a neuron when they become lighter, blue ones when they become darker.

images = train[:: len(train) // 30]
fields = {
    name: inspection.receptive_fields(model, method="gradient", images=images)["A"]
    for name, model in models.items()
}
fits = {name: inspection.fit_gaussians(own) for name, own in fields.items()}
best = np.argsort(-fits["CNN"]["explained"].values)[:6]
inspection.ReceptiveFieldDisplay.from_fields(
    fields["CNN"][best], fits["CNN"].isel(neuron=best), n_fields=6
)
plt.show()

# %%
# Where they lie, and how wide they are, of two models side by side. Complex cells, which answer to
# either contrast, hardly have a mean gradient; those of the CNN whose field is no Gaussian beyond
# noise are left out, and counted in the title.

inspection.FieldDistributionDisplay.from_gaussians(fits)
plt.show()

# %%
# The truth is known here: centres of the good fits against those of the simulated cells.

truth = recordings["A"]
good = fits["CNN"]["good"].values
figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.2), layout="constrained")
for axis, side in zip(axes, "xy", strict=True):
    known, found = truth[f"receptive_field_{side}"].values[good], fits["CNN"][side].values[good]
    axis.axline((0, 0), slope=1, color="0.7", lw=1)
    axis.scatter(known, found, s=14, color=inspection.model_color("CNN"))
    correlation = np.corrcoef(known, found)[0, 1]
    axis.set(xlabel=f"true centre, {side} (pixel)", ylabel=f"receptive field, {side} (pixel)")
    axis.set_title(f"correlation {correlation:.2f}", fontsize="medium")
    axis.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# Retinotopy. The readouts of these models are computed from cortical positions by a smooth
# function, so that their maps are smooth whatever they learned. That neighbours look at
# neighbouring places is better asked of the recording: averages of the images that cells answered
# to, less what pixels share (`ridge`), have a place for cells that prefer a contrast. The scatter
# of a neuron about its ten neighbours is compared with that of shuffled neurons.

averages = inspection.spike_triggered_average(train, ridge=1.0)["A"]
measured = inspection.fit_gaussians(averages)
smoothness = inspection.retinotopy_smoothness(measured, truth["position"])
inspection.RetinotopyDisplay(measured, truth["position"], smoothness=smoothness).plot()
plt.show()

# %%
# A model can learn positions freely, too, from a spread at the beginning that is wide enough to see
# where to go. After so few epochs they scatter more than the averages do. The last line is of the
# simulated cells, which scatter about a smooth map.

small |= {"max_epochs": 20, "lr": 0.006, "readout_bias": "mean", "init_sigma": 0.4}
free = v1.CNNRegressor(position_network=False, **small).fit(train)
learned = inspection.readout_positions(free)["A"]
true = (
    truth.to_dataset().rename(receptive_field_x="x", receptive_field_y="y").reset_coords(["x", "y"])
)
for name, places in {"averages": measured, "free readouts": learned, "cells": true}.items():
    found = inspection.retinotopy_smoothness(places, truth["position"])
    print(f"{name}: {found['relative']:.2f} of the scatter of {found.sizes['neuron']} shuffled")

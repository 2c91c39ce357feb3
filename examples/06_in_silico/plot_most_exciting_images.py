"""
Which image drives a neuron most?
=================================

A fitted model answers a question that no recording does: of all images of one contrast, which one
would make this neuron respond most? Gradient ascent finds it, for many neurons at a time (Walker et
al., 2019; Bashivan et al., 2019).
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Fit a model
# -----------
# Simulated cells are simple or complex, and we know which.

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import MostExcitingImagesDisplay, most_exciting_images

recordings = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=40,
    n_trials=1500,
    image_shape=(18, 32),
    explainable_variance=0.8,
    random_state=0,
)
trials = v1.Trials(recordings)
model = v1.CNNRegressor(
    n_layers=3,
    hidden_channels=16,
    hidden_kernel=5,
    laplace=0.5,
    readout_l1=0.001,
    init_sigma=0.2,
    batch_size=64,
    max_epochs=15,
    random_state=0,
).fit(trials.sel(tier="train"))
print(f"correlation with the average over repeats: {model.score(trials.sel(tier='test')):.2f}")

# %%
# Look for images
# ---------------
# All have one norm, and pixels between black and white. Behaviour stands still. Simple cells come
# first: they have one image, in its one phase; what drives a complex cell most could as well have
# another phase. Bright and dark are drawn on one scale.

images = most_exciting_images(model, limits=(0, 255))["A"]
cell_type = recordings["A"]["cell_type"].values
chosen = [*np.flatnonzero(cell_type == "simple")[:3], *np.flatnonzero(cell_type == "complex")[:3]]
MostExcitingImagesDisplay(images.isel(neuron=chosen)).plot()
plt.show()

# %%
# Where are they?
# ---------------
# The energy of an image lies where the field of the cell is, which the simulator knows.

centre = recordings["A"]["receptive_field_x"].values
agree = np.corrcoef(images["center_x"], centre)[0, 1]
print(f"correlation of the places along the width: {agree:.2f}")
figure, ax = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
ax.scatter(centre, images["center_x"], s=18, color="tab:blue")
ax.axline((16, 16), slope=1, color="0.6", lw=1)
ax.set(xlabel="true place [pixel]", ylabel="place of the image [pixel]", xlim=(0, 31), ylim=(0, 31))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# The opposite, and a group
# -------------------------
# What silences a cell, and what drives five cells together, weighted alike.

low = most_exciting_images(
    model, {"A": images["neuron"].values[:3]}, direction="suppressing", limits=(0, 255)
)["A"]
print("most exciting:  ", images["response"].values[:3].round(2))
print("most suppressing:", low["response"].values[:3].round(2))
group = most_exciting_images(
    model, {"A": images["neuron"].values[:5]}, weights=np.ones(5), limits=(0, 255)
)["A"]
MostExcitingImagesDisplay(group).plot()
plt.show()

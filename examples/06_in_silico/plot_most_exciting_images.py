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

import os

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import MostExcitingImagesDisplay, most_exciting_images

recordings = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=40,
    n_trials=2500,
    n_test_images=30,
    n_repeats=5,
    image_shape=(18, 32),
    behavior=False,
    explainable_variance=0.8,
    random_state=0,
)
trials = v1.Trials(recordings)
train, validation, test = (trials.sel(tier=tier) for tier in ("train", "validation", "test"))
model = v1.CNNRegressor(
    n_layers=3,
    hidden_channels=16,
    hidden_kernel=5,
    laplace=0.5,
    readout_l1=0.001,
    init_sigma=0.2,
    batch_size=32,
    max_epochs=15,
    random_state=0,
)
# Where the site is built, examples share this model; elsewhere this is None, and it is fitted.
shared = os.environ.get("V1TLEARN_EXAMPLE_MODELS")
model.fit(train, validation=validation, checkpoint_dir=shared and f"{shared}/cnn_of_40_neurons")
print(f"single-trial correlation {model.score(test):.2f}")

# %%
# Look for images
# ---------------
# All have one norm, and pixels between black and white. Behaviour stands still. Simple cells come
# first: they have one image, in its one phase; what drives a complex cell most could as well have
# another phase. Bright and dark are drawn on one scale. With a ``smoothness`` of 2 instead of 1 low
# frequencies go further ahead, which leaves out fine detail that raises responses by a few percent.

options = {"limits": (0, 255), "smoothness": 2}
images = most_exciting_images(model, **options)["A"]
cell_type = recordings["A"]["cell_type"].values
chosen = [*np.flatnonzero(cell_type == "simple")[:3], *np.flatnonzero(cell_type == "complex")[:3]]
display = MostExcitingImagesDisplay(images.isel(neuron=chosen)).plot()
for row, kind in zip(display.axes_[::3], ("simple cells", "complex cells"), strict=True):
    row.set_ylabel(kind)
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
ax.set(xlabel="true place (pixel)", ylabel="place of the image (pixel)", xlim=(0, 31), ylim=(0, 31))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# The opposite, and a group
# -------------------------
# What silences a cell, and what drives five cells together, weighted alike.

first = images["neuron"].values[:5]
low = most_exciting_images(model, {"A": first[:3]}, direction="suppressing", **options)["A"]
for name, found in {"exciting": images, "suppressing": low}.items():
    print(f"most {name:11s} images, responses: {found['response'].values[:3].round(2)}")
group = most_exciting_images(model, {"A": first}, weights=np.ones(5), **options)["A"]

figure, axes = plt.subplots(1, 3, figsize=(7.2, 1.9), layout="constrained")
shown = {
    f"neuron {first[0]}, exciting": images.isel(neuron=[0]),
    f"neuron {first[0]}, suppressing": low.isel(neuron=[0]),
    "five neurons together": group,
}
for ax, (title, found) in zip(axes, shown.items(), strict=True):
    MostExcitingImagesDisplay(found).plot(ax)
    ax.set_title(f"{title}\nresponse {found['response'].values[0]:.3g}", fontsize="small")
plt.show()

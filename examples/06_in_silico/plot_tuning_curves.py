"""
What are the neurons of a model tuned to?
=========================================

Show a fitted model gratings of all orientations, frequencies and phases, as one would an animal,
and compare what it prefers with the cells that made the responses.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Fit a model
# -----------

import os

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import TuningCurveDisplay, gratings, tuning_curves, tuning_properties

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
# Show it gratings
# ----------------
# To a model of images, a drifting grating is the sequence of its phases. Each sequence is a
# labelled dimension of the stimuli, and of the responses.

stimuli = gratings(
    (18, 32),
    orientation=np.arange(0, 180, 15),
    spatial_frequency=np.geomspace(0.06, 0.35, 7),
    phase=np.arange(0, 360, 45),
)
curves = tuning_curves(model, stimuli)
print(curves["A"].sizes)
TuningCurveDisplay(curves["A"]).plot()
plt.show()

# %%
# Compare with the truth
# ----------------------
# Preferred orientation and spatial frequency, and F1/F0, which is above 1 of simple cells. The
# responses to a grey screen are subtracted.

grey = np.full((1, 1, 18, 32), 127.5)
found = tuning_properties(curves, blank=tuning_curves(model, grey))["A"]
truth = recordings["A"]
degrees = np.rad2deg(truth["orientation"].values)
turned = (found["preferred_orientation"].values - degrees + 90) % 180 - 90  # 179 is next to 0
frequency, preferred = truth["spatial_frequency"].values, found["preferred_spatial_frequency"]
octaves = np.abs(np.log2(preferred / frequency))
print(f"median error: {np.median(np.abs(turned)):.1f} degrees, {np.median(octaves):.2f} octaves")

figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.2), layout="constrained")
axes[0].scatter(degrees, degrees + turned, s=18, color="tab:blue")
axes[0].axline((90, 90), slope=1, color="0.6", lw=1)
axes[0].set(xlabel="true orientation (degree)", ylabel="preferred orientation (degree)")
axes[0].set(xlim=(-15, 195), ylim=(-15, 195), xticks=range(0, 181, 45), yticks=range(0, 181, 45))
axes[1].scatter(frequency, preferred, s=18, color="tab:blue")
axes[1].axline((0.1, 0.1), (0.2, 0.2), color="0.6", lw=1)
axes[1].set(xscale="log", yscale="log")
axes[1].set(xlabel="true frequency (cycles/pixel)", ylabel="preferred frequency (cycles/pixel)")
ticks = [0.06, 0.12, 0.24]
axes[1].set_xticks(ticks, ticks)
axes[1].set_yticks(ticks, ticks)
axes[1].minorticks_off()
simple = truth["cell_type"].values == "simple"
bins = np.linspace(0, 2, 17)
ratio = np.clip(found["modulation_ratio"].values, 0, 2)
for kind, color in (("simple", "tab:orange"), ("complex", "tab:blue")):
    own = ratio[simple == (kind == "simple")]
    axes[2].hist(own, bins, color=color, alpha=0.7, label=f"{kind} cells")
axes[2].axvline(1, color="0.6", lw=1, ls=":")
axes[2].set(xlabel="F1/F0, up to 2", ylabel="cells")
axes[2].legend(frameon=False)
for ax in axes:
    ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# Contrast, for each cell at its best
# -----------------------------------
# A parameter may differ from neuron to neuron: each is shown its own stimuli. The cells divide by
# the contrast around them, and the model, which saw nothing but images, has found that: responses
# saturate. C50 is the contrast of half of the largest response; where the function of Naka and
# Rushton does not fit, it is left out.

own = gratings(
    (18, 32),
    orientation=found["preferred_orientation"],
    spatial_frequency=found["preferred_spatial_frequency"],
    contrast=[0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1],
)
by_contrast = tuning_curves(model, {"A": own})
fits = tuning_properties(by_contrast)["A"]
print(f"Naka and Rushton fit {int(fits['contrast_fits'].sum())} of {fits.sizes['neuron']} cells;")
print(f"median C50: a contrast of {float(fits['c50'].median()):.2f}")
TuningCurveDisplay(by_contrast["A"], along="contrast").plot()
plt.show()

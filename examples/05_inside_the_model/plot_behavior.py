"""
What does behaviour explain?
============================

Much of what neurons in visual cortex do has nothing to do with the image: the animal runs, its
pupil widens, its eye moves. A model that is told of it predicts better. Which variable is it, for
which neurons, and is it true? The mouse is simulated, so that the answer is known.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# A mouse and its model
# ---------------------
# Running and pupil dilation are planes beside the image, the place of the pupil moves the readouts.

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import (
    BehaviorPerformanceDisplay,
    behavior_ablation,
    behavior_gain,
    readout_shifts,
)

recordings = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=80,
    n_trials=900,
    n_test_images=40,
    n_repeats=6,
    image_shape=(18, 32),
    explainable_variance=0.4,
    random_state=0,
)
trials = v1.Trials(recordings)
train, validation, test = (trials.sel(tier=tier) for tier in ("train", "validation", "test"))
size = {"n_layers": 2, "hidden_channels": 12, "input_kernel": 7, "hidden_kernel": 5}
model = v1.CNNRegressor(**size, batch_size=32, max_epochs=15, random_state=0)
model.fit(train, validation=validation)
print(f"single-trial correlation {model.score(test):.3f}")

# %%
# One variable less
# -----------------
# The fitted model predicts again with one variable from other trials at random. What it loses is
# what it knows from that variable and from nothing else. Bars are means over neurons, dots single
# neurons.

sets = {
    "running speed": ["running_speed"],
    "pupil dilation": ["pupil_dilation"],
    "its derivative": ["pupil_dilation_derivative"],
    "place of the pupil": ["pupil_x", "pupil_y"],
    "everything": list(test.behavior_names("A")),
}
explained = behavior_ablation(model, test, sets, n_repeats=5, random_state=0)["A"]["explained"]
fig, ax = plt.subplots(figsize=(6.0, 3.2), layout="constrained")
rng = np.random.default_rng(0)
for place, values in enumerate(explained.values):
    ax.barh(place, values.mean(), color="#56b4e9")
    beside = place + rng.uniform(-0.3, 0.3, len(values))
    ax.plot(values, beside, "o", ms=3, mew=0, alpha=0.5, color="#0072b2")
ax.set_yticks(range(len(sets)), list(sets))
ax.invert_yaxis()
ax.axvline(0, color="0.5", lw=0.8)
ax.set_xlabel("single-trial correlation that is lost without it")
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# Is it true?
# -----------
# `behavior_gain` predicts all trials twice, with one variable low and high, and all else as it was.
# The true gain of each neuron is known. Trained on behaviour of other trials, the same model finds
# next to none.


def shuffled(view, seed):
    """Trials with the behaviour of other trials."""
    own = view["A"]
    order = np.random.default_rng(seed).permutation(len(view))
    return v1.Trials(
        {"A": own.assign(behaviors=(own["behaviors"].dims, own["behaviors"].values[order]))}
    )


control = v1.CNNRegressor(**size, batch_size=32, max_epochs=6, random_state=0)
control.fit(shuffled(train, 0), validation=shuffled(validation, 1))
truth = recordings["A"]
variables = {
    "running_speed": ((0.0, 16.0, "cm/s"), np.tanh(2) * truth["running_gain"].values),
    "pupil_dilation": ((25.0, 39.0, "a.u."), 2 * truth["dilation_gain"].values),  # two s.d.
}
models = {"behaviour of other trials": (control, "#999999"), "own behaviour": (model, "#d55e00")}
fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.8), layout="constrained", sharey=True)
for ax, (variable, ((low, high, unit), true)) in zip(axes, variables.items(), strict=True):
    ax.axline((0, 0), slope=1, color="0.6", lw=1)
    for name, (one, color) in models.items():
        gain = behavior_gain(one, test, variable, low=low, high=high)["A"]["log_gain"].values
        ax.plot(true, gain, "o", ms=5, mew=0, alpha=0.7, color=color, label=name)
        r = np.corrcoef(true, gain)[0, 1]
        print(f"{variable}, {name}: mean {gain.mean():+.2f}, true {true.mean():+.2f}; r = {r:.2f}")
    title = f"{variable.replace('_', ' ')}, {low:g} to {high:g} {unit}"
    ax.set_title(title, fontsize="medium")
    ax.set_xlabel("true log gain")
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("log gain of the model")
handles = axes[0].get_legend_handles_labels()
fig.legend(*handles, loc="outside upper center", ncols=2, frameon=False)
plt.show()

# %%
# Both are right on average. Neuron by neuron the gain by running is told better, because it is
# larger beside the same noise: the gain by dilation of a single neuron wants more trials.

# %%
# Fields that move with the eye
# -----------------------------
# All receptive fields of a mouse move alike. Only differences between trials count: readouts make
# up for a constant. Shifts are learned in half sides of the feature map, whose cells are a pixel
# apart.

height, width = model.module_.core.output_shape[1:]
pixels = {"x": (width - 1) / 2, "y": (height - 1) / 2}  # of half a side
shift = readout_shifts(model, test)["A"]
fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
for ax, axis in zip(axes, "xy", strict=True):
    moved = test["A"][f"eye_shift_{axis}"].values
    learned = pixels[axis] * shift.sel(axis=axis).values
    ax.axline((0, 0), slope=1, color="0.6", lw=1)
    ax.plot(
        moved - moved.mean(), learned - learned.mean(), "o", ms=4, mew=0, alpha=0.5, color="#009e73"
    )
    ax.set(xlabel=f"true shift, {axis} (pixel)", ylabel=f"learned shift, {axis} (pixel)")
    ax.set_title(f"r = {np.corrcoef(moved, learned)[0, 1]:.2f}", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# Are some states predicted better?
# ---------------------------------
# Test trials in thirds by the width of the pupil: each dot is a neuron, its score in one third
# against the other. Random thirds tell what differences there are without any reason.

display = BehaviorPerformanceDisplay.from_estimator(model, test, "pupil_dilation")
found = display.performance["A"]
plt.show()
band = np.quantile(found["difference_shuffled"], [0.025, 0.975])
print(
    f"difference {found['difference'].mean().item():+.3f}, random thirds "
    f"{band[0]:+.3f} to {band[1]:+.3f}"
)

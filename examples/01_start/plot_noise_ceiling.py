"""
How good can a model be?
========================

The same image does not give the same response twice. What differs from repeat to repeat no model
can predict from the image, so that no score reaches 1. Repeats tell how far one can get; here,
where the true rates are known, whether they tell the truth.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Neurons, reliable and not
# -------------------------
# One simulated mouse saw 60 images ten times each. What the image explains of its neurons differs
# from hardly anything to nearly all.

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import MODEL_COLORS
from v1tlearn.metrics import average_correlation, single_trial_correlation

trials = v1.Trials(
    v1.make_v1_recordings(
        n_mice=1,
        n_neurons=120,
        n_trials=10,
        n_test_images=60,
        n_repeats=10,
        image_shape=(15, 24),
        explainable_variance=0.4,
        random_state=0,
    )
).sel(tier="test")

# %%
# Ceilings, with intervals
# ------------------------
# `noise_ceiling` takes the responses alone. "low" and "high" say how much another choice of images
# would change.

ceilings = v1.noise_ceiling(trials).sel(mouse=trials.mice[0])
means = v1.noise_ceiling(trials, multioutput="uniform_average")
for name, values in means.items():
    value, low, high = values.values
    print(f"{name:22s} {value:.2f}  ({low:.2f} to {high:.2f})")

# %%
# Neuron by neuron, with the ends of the interval in gray. The dots are what the true rates reach:
# single trials are harder to predict than averages over ten of them. The rates of a simulated
# mouse follow its behaviour, too, which is noise to whoever knows the image alone: dots lie above
# the ceiling by what behaviour explains.

rates, responses = trials.expected_responses, trials.responses
reached = {
    "single_trial_ceiling": (single_trial_correlation, "single-trial correlation"),
    "average_ceiling": (average_correlation, "correlation to average"),
}
fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.4), sharey=True, layout="constrained")
for ax, (name, (metric, title)) in zip(axes, reached.items(), strict=True):
    value, low, high = ceilings[name].values
    order = np.argsort(value)
    truth = metric(responses, rates, multioutput="raw_values").values
    place = np.arange(len(order))
    ax.fill_between(place, low[order], high[order], color="0.85", lw=0, label="95 % interval")
    ax.plot(value[order], color=MODEL_COLORS["oracle"], lw=2, label="noise ceiling")
    ax.plot(place, truth[order], ".", color=MODEL_COLORS["CNN"], ms=4, label="true rates")
    ax.set(xlabel="neuron, by its ceiling", title=title)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set(ylabel="correlation", ylim=(0, 1))
axes[1].legend(frameon=False, loc="lower right")
plt.show()

# %%
# How many repeats?
# -----------------
# The oracle, which predicts each trial by the mean of the others, needs many of them, as that mean
# is noisy. The ceiling of single trials is the same however many there are, only less certain.

numbers = [2, 3, 5, 10]
found = []
for n in numbers:
    shown = dict.fromkeys(trials.image_ids, 0)
    first = np.zeros(len(trials), bool)
    for place, image in enumerate(trials.image_ids):
        first[place] = shown[image] < n
        shown[image] += 1
    found.append(v1.noise_ceiling(trials[first], multioutput="uniform_average"))

fig, ax = plt.subplots(figsize=(4.6, 3.4), layout="constrained")
styles = {
    "single_trial_ceiling": ("black", "single-trial ceiling"),
    "oracle": ("#0072b2", "oracle"),
}
for name, (color, label) in styles.items():
    value, low, high = np.array([ceiling[name].values for ceiling in found]).T
    ax.errorbar(numbers, value, (value - low, high - value), color=color, marker="o", label=label)
ax.set(xlabel="repeats of each image", ylabel="correlation with single trials", ylim=(0, 0.8))
ax.set_xticks(numbers)
ax.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

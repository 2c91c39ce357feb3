"""
Which neurons tell what was seen?
=================================

A population says which image was shown. Which of its neurons do, how many does it take, and what
in the image do they tell of? Every answer here comes with its control, and as the mouse is
simulated the truth is known.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# A mouse of which half of the neurons see nothing
# ------------------------------------------------
# The others are filters of what is below 3 cycles per image height.

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import (
    ManipulationDisplay,
    MaskingDisplay,
    attention_masking,
    cutoff_of,
    manipulation_curve,
    neuron_importance,
    neurons_for_performance,
)

recordings = v1.make_coarse_recordings(
    n_neurons=80,
    n_trials=700,
    n_test_images=60,
    image_shape=(16, 24),
    cutoff=3.0,
    informative=0.5,
    explainable_variance=0.7,
    random_state=0,
)
trials = v1.Trials(recordings)
train, validation, test = (trials.sel(tier=tier) for tier in ("train", "validation", "test"))
truth = recordings["A"]

sizes = {"map_size": (8, 12), "map_channels": 8, "hidden_channels": 16, "hidden_units": (128,)}
common = {**sizes, "image_lr": 3e-3, "batch_size": 64, "random_state": 0}
aligner = v1.DINAAligner(neural_lr=1e-3, max_epochs=15, **common)
aligner.fit(train, validation=validation)
print(f"{aligner.score(test):.0%} of {len(np.unique(test.image_ids))} images found, chance is 2 %")

# %%
# Importance
# ----------
# What a neuron adds to the similarity of the responses and the image that was seen, by slope times
# response. Paired with other images the same responses add nothing on average: the grey band has
# 95 % of that control.

importance = neuron_importance(aligner, test)["A"]
sees = truth["informative"].values
fig, ax = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
for chosen, color, label in ((sees, "#d55e00", "see the image"), (~sees, "#999999", "see nothing")):
    own = importance["signed"].values[chosen]
    ax.plot(truth["reliability"].values[chosen], own, "o", ms=4, color=color, label=label)
control = importance["signed_shuffled"].values
ax.axhspan(*np.quantile(control, [0.025, 0.975]), color="0.85", lw=0, label="other images")
ax.set(xlabel="reliability (true)", ylabel="importance (cosine)")
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)
plt.show()
best = np.argsort(-importance["signed"].values)[: sees.sum()]
print(f"{sees[best].mean():.0%} of the {sees.sum()} most important neurons see the image")

# %%
# How many does it take?
# ----------------------
# Neurons are ranked on half of the test images, and images of the other half are looked for with
# the best neurons alone. A ranking on the same images would look better than it is. Random neurons
# are the control.

found = neurons_for_performance(aligner, test, 0.9, n_seeds=6)["A"]
fig, ax = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
colors = {"importance": "#d55e00", "amplitude": "#0072b2", "random": "#999999"}
for name, color in colors.items():
    curves = found["top1"].sel(ranking=name)
    ax.plot(found["count"], curves.mean("seed"), color=color, label=name)
    ax.fill_between(
        found["count"], curves.min("seed"), curves.max("seed"), color=color, alpha=0.15, lw=0
    )
    needed = found["needed"].sel(ranking=name).median().item()
    print(f"{name:10s}: {needed:3.0f} of {len(sees)} neurons find 90 % of what all find")
ax.axhline(found["chance"].mean(), color="0.5", lw=1)
ax.set(xscale="log", xlabel="neurons", ylabel="images found (top-1)", ylim=(0, 1.02))
ax.xaxis.set_major_formatter("{x:g}")
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# Masking attention
# -----------------
# The attention tower lets neurons attend to each other. The analysis of Wang et al. (2026) masks
# all but the neurons that are attended to most, and compares what is left of the map with the whole
# one. The band is that of random neurons; the ranking by the strength of responses tells whether
# attention says more than that. Images found are the stricter measure: maps may be alike, and tell
# nothing.

attentive = v1.DINAAligner(
    neural_tower="attention", embed_dim=32, neural_lr=3e-3, max_epochs=35, **common
).fit(train, validation=validation)
fractions = np.geomspace(0.02, 1, 12)
curves = attention_masking(attentive, test, fractions=fractions, n_random=10)["A"]
fig, axes = plt.subplots(1, 2, figsize=(9.2, 3.2), layout="constrained")
for ax, measure in zip(axes, ("correlation_full", "top1"), strict=True):
    MaskingDisplay(curves).plot(ax, measure=measure)
plt.show()

# %%
# What they tell of
# -----------------
# Images of the gallery are blurred, or their coarse structure is taken out; responses stay as they
# are. Images are found as well as before once all is there that neurons see, here 3 cycles, and not
# at all by what is finer. The grey area is what shuffled pairs reach.

values = [0.75, 1, 1.5, 2, 2.5, 3, 4, 6, 8]
curves = {
    name: manipulation_curve(aligner, test, name, values, n_bootstrap=300, n_permutations=100)
    for name in ("low_pass", "high_pass")
}
ManipulationDisplay(curves).plot()
plt.show()
cutoff = cutoff_of(curves["low_pass"]).sel(mouse="A")
print(
    f"90 % of it by what is below {cutoff['cutoff']:.1f} cycles per image height "
    f"({cutoff['low']:.1f} to {cutoff['high']:.1f}); neurons see up to {truth.attrs['cutoff']:g}"
)

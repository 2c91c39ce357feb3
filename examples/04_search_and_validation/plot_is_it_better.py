"""
Is it really better?
====================

A model scores .02 more than another. Would it with other images, other neurons, another seed? Three
questions, in the order in which to ask them.
"""

# sphinx_gallery_thumbnail_number = 2

# %%
# Two models, and one of them twice
# ---------------------------------
# A CNN, the same with another seed, and an LN model.

import matplotlib.pyplot as plt

import v1tlearn as v1
from v1tlearn.inspection import ScoreDisplay
from v1tlearn.model_selection import overlapping_images

trials = v1.Trials(
    v1.make_v1_recordings(
        n_mice=2,
        n_neurons=40,
        n_trials=300,
        n_test_images=40,
        n_repeats=6,
        image_shape=(15, 24),
        explainable_variance=0.6,
        random_state=0,
    )
)
train, test = trials.sel(tier="train"), trials.sel(tier="test")
common = {"gaussian": "isotropic", "readout_bias": "mean", "hidden_channels": 16}
common |= {"lr": 0.008, "batch_size": 16, "max_epochs": 6, "validation_fraction": 0}
cnn = {"n_layers": 2, "input_kernel": 7, "hidden_kernel": 5, **common}
models = {
    "LN": v1.LNRegressor(n_layers=1, input_kernel=9, random_state=0, **common),
    "CNN": v1.CNNRegressor(random_state=0, **cnn),
    "CNN, other seed": v1.CNNRegressor(random_state=1, **cnn),
}
for model in models.values():
    model.fit(train)

# %%
# Are the test images new?
# ------------------------
# Or did the models see one of them before, under another name, or from right to left?

print(overlapping_images(train, test))

# %%
# How sure are the scores?
# ------------------------
# Intervals say how much other images would change; the ceiling, how much is left.

ScoreDisplay.from_estimator(models, test, n_bootstrap=1000, ceiling="estimated")
plt.show()

# %%
# Who is better?
# --------------
# Both models of a pair are scored on the same images, and what makes these hard makes them hard for
# both. So intervals of the scores may overlap, and the difference be certain. `compare_scores`
# draws images and neurons for both at once.

table = v1.compare_scores(models, test)
columns = ["model", "reference", "mouse", "difference", "low", "high", "p_value", "improved"]
print(table[columns].round(3).to_string(index=False))

# %%
# All pairs with the mean over mice. A line that does not touch 0 is a difference that other images
# and neurons like these would not undo. What it does not tell: whether another training would.
# That is what the second seed is for. If it moves the score as much as another model does, fit
# several seeds of both.

means = table[table["mouse"] == "mean"].iloc[::-1]
fig, ax = plt.subplots(figsize=(6.0, 2.2), layout="constrained")
names = means["model"] + "  −  " + means["reference"]
errors = (means["difference"] - means["low"], means["high"] - means["difference"])
ax.errorbar(means["difference"], names, xerr=errors, fmt="o", color="black", lw=2)
for name, (_, row) in zip(names, means.iterrows(), strict=True):
    text = f"better for {row['improved']:.0%} of neurons"
    ax.annotate(text, (row["high"], name), (6, -3), textcoords="offset points", fontsize="small")
ax.axvline(0, color="0.6", lw=1, zorder=0)
ax.set(xlabel="difference of single-trial correlations", ylim=(-0.6, len(means) - 0.4))
ax.margins(x=0.35)
ax.spines[["top", "right", "left"]].set_visible(False)
ax.tick_params("y", length=0)
plt.show()

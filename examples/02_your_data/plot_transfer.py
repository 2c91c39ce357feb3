"""
How few trials does a new animal need?
======================================

A core that was trained on some animals can be kept for others: only a readout is trained for them.
The fewer trials a new animal has, the more that should matter.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# A core from three mice
# ----------------------
# The fourth mouse, "D", is left out.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone

import v1tlearn as v1
from v1tlearn.inspection import MODEL_COLORS

recordings = v1.make_v1_recordings(
    n_mice=4,
    n_neurons=100,
    n_trials=360,
    n_test_images=20,
    n_repeats=10,
    image_shape=(15, 24),
    explainable_variance=0.6,
    random_state=0,
)
trials = v1.Trials(recordings)
train, test = trials.sel(tier="train"), trials.sel(tier="test")
others, new = trials.mice[:3], trials.mice[3]

model = v1.CNNRegressor(
    n_layers=2,
    hidden_channels=16,
    input_kernel=7,
    hidden_kernel=5,
    gaussian="isotropic",
    readout_bias="mean",
    lr=0.006,
    batch_size=16,
    max_epochs=13,
    validation_fraction=0,
    random_state=0,
)
core = clone(model).fit(train.sel(mouse_id=others))
print(f"three mice, their own test trials: {core.score(test.sel(mouse_id=others)):.3f}")

# %%
# Readouts for the fourth
# -----------------------
# ``transfer`` makes a new estimator: the core stays as it is, readout and shifter of the new mouse
# are trained. Beside it, the same model is trained on the new mouse alone, from scratch.

mine, held_out = train.sel(mouse_id=new), test.sel(mouse_id=new)
order = np.random.default_rng(0).permutation(len(mine))
n_trials = [40, 120, len(mine)]
scores = {"core of the others": [], "from scratch": []}
for n in n_trials:
    some = mine[order[:n]]
    scores["core of the others"].append(core.transfer(some).score(held_out))
    scores["from scratch"].append(clone(model).fit(some).score(held_out))
    print(f"{n:4d} trials: " + ", ".join(f"{k} {v[-1]:.3f}" for k, v in scores.items()))

# %%
# Scores
# ------

fig, ax = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
for label, values in scores.items():
    own = label == "from scratch"
    color = MODEL_COLORS["CNN"]
    ax.plot(
        n_trials,
        values,
        "o--" if own else "o-",
        color=color,
        mfc="w" if own else color,
        label=label,
    )
ax.set(xscale="log", xlabel="training trials of the new mouse", ylabel="single-trial correlation")
ax.set_xticks(n_trials, n_trials)
ax.minorticks_off()
ax.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# The core of the others helps most where the new mouse has about a hundred trials; with as many as
# each of the others had, a core of its own comes close.
#
# :func:`v1tlearn.model_selection.leave_one_mouse_out` leaves out every mouse in turn.
# ``freeze_core=False`` with a small ``core_lr`` trains the core further on the new animal.

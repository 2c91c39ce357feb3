"""
Where does the model look, and does it follow the eye?
======================================================

A vision transformer tells by its attention which patches of an image it reads from. Li et al.
(2023) found that the middle of that map moves with the pupil of the mouse. Here the same question
is put to a model of a simulated mouse, whose receptive fields do move with its eye, with the two
controls that the answer needs.
"""

# %%
# A mouse whose fields move, a model that is told where it looks
# ---------------------------------------------------------------
# Behaviour, the place of the pupil included, enters ahead of every block; the readout has no
# shifter, so that only the core can make up for the eye.

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import (
    AttentionRolloutDisplay,
    attention_center_of_mass,
    attention_pupil_correlation,
    attention_rollout,
)

recordings = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=60,
    n_trials=900,
    n_test_images=30,
    n_repeats=5,
    image_shape=(18, 32),
    explainable_variance=0.4,
    random_state=0,
)
trials = v1.Trials(recordings)
train, validation, test = (trials.sel(tier=tier) for tier in ("train", "validation", "test"))
size = {"patch_size": 4, "patch_stride": 2, "n_blocks": 2, "n_heads": 2, "embed_dim": 24}
model = v1.V1TRegressor(**size, mlp_dim=48, shift="none", max_epochs=25, random_state=0)
model.fit(train, validation=validation)
print(f"single-trial correlation {model.score(test):.3f}")

# %%
# Maps
# ----
# Attention rollout: red is where the last block has most of its content from, the cross is the
# middle of the map. ``placement="centers"`` puts overlapping patches where they are.

AttentionRolloutDisplay.from_estimator(model, test.sel(mouse_id="A"), placement="centers")
plt.show()

# %%
# Does it follow the eye?
# -----------------------
# The table of the paper: absolute correlations over trials, and p values. Below it, what the middle
# of the same maps does with the pupils of other trials, and a model with its initial weights.

found = attention_pupil_correlation(model, test)
print(attention_pupil_correlation(model, test, as_table=True).round(3))
untrained = v1.V1TRegressor(**size, mlp_dim=48, shift="none", max_epochs=0, random_state=0)
untrained.fit(train, validation=validation)
initial = attention_pupil_correlation(untrained, test)
for axis in "xy":
    one = {name: abs(x["correlation"].sel(axis=axis)).mean().item() for name, x in
           {"trained": found, "not trained": initial}.items()}  # fmt: skip
    chance = found["control"].sel(axis=axis).mean().item()
    print(
        f"{axis}: " + ", ".join(f"{k} {v:.2f}" for k, v in one.items()) + f", chance {chance:.2f}"
    )

# %%
# The same as a figure. Each dot is a trial; a model that is told where the pupil is can let its
# attention depend on it without any training, and by chance in any direction. What training adds is
# the difference between both rows, not the upper row alone.

fig, axes = plt.subplots(2, 2, figsize=(7.2, 5.6), layout="constrained", sharex="col")
pupil = test["A"]["behaviors"]
for row, (name, one) in zip(
    axes, {"trained": model, "not trained": untrained}.items(), strict=True
):
    centers = attention_center_of_mass(attention_rollout(one, test.sel(mouse_id="A")))["A"]
    for ax, axis in zip(row, "xy", strict=True):
        own = pupil.sel(behavior=f"pupil_{axis}").values
        center = centers.sel(axis=axis).values
        color = "#d55e00" if name == "trained" else "#999999"
        ax.plot(own, center, "o", ms=4, alpha=0.6, mew=0, color=color)
        ax.set_title(f"{name}: r = {np.corrcoef(own, center)[0, 1]:+.2f}", fontsize="medium")
        ax.set_ylabel(f"centre of attention, {axis} (pixel)")
        ax.spines[["top", "right"]].set_visible(False)
for ax, axis in zip(axes[1], "xy", strict=True):
    ax.set_xlabel(f"pupil {axis} (pixel of the eye camera)")
plt.show()

"""
How many trials does a model need?
==================================

scikit-learn's `learning_curve` fits a model to growing parts of the same trials. With few of them
neither predicts much; with more the CNN leaves LN behind, and has not reached its limit.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Two models
# ----------

import matplotlib.pyplot as plt
from sklearn.model_selection import GroupKFold, learning_curve

import v1tlearn as v1
from v1tlearn.inspection import model_color

recordings = v1.make_v1_recordings(
    n_mice=2,
    n_neurons=100,
    n_trials=300,
    n_test_images=1,
    n_repeats=1,
    image_shape=(15, 24),
    explainable_variance=0.8,
    random_state=0,
)
trials = v1.Trials(recordings).sel(tier="train")
common = {"hidden_channels": 16, "gaussian": "isotropic", "readout_bias": "mean"}
common |= {"lr": 0.008, "batch_size": 16, "max_epochs": 8}
common |= {"validation_fraction": 0, "random_state": 0}
models = {
    "CNN": v1.CNNRegressor(n_layers=2, input_kernel=7, hidden_kernel=5, **common),
    "LN": v1.LNRegressor(n_layers=1, input_kernel=9, **common),
}

# %%
# Learning curves
# ---------------
# Folds are made of images. ``shuffle=True`` takes the trials of all mice; without it the first
# trials would all be of the first mouse. Every fit has the same number of epochs, so that more
# trials also mean more steps.

shares = [0.15, 0.4, 1.0]
curves = {
    name: learning_curve(
        model,
        trials,
        trials.responses,
        groups=trials.image_ids,
        cv=GroupKFold(3),
        train_sizes=shares,
        shuffle=True,
        random_state=0,
    )
    for name, model in models.items()
}

# %%
# One line per fold; the mean stands out.

fig, ax = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
for name, (sizes, _, scores) in curves.items():
    color = model_color(name)
    ax.plot(sizes, scores, color=color, lw=0.7, alpha=0.5)
    ax.plot(sizes, scores.mean(axis=1), "o-", color=color, label=name)
    print(name, dict(zip(sizes.tolist(), scores.mean(axis=1).round(3).tolist(), strict=True)))
ax.set(xscale="log", xlabel="training trials, both mice", ylabel="single-trial correlation")
ax.set_xticks(sizes, sizes)
ax.minorticks_off()
ax.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

"""
Which learning rate suits V1T?
==============================

`GridSearchCV` searches over :class:`~v1tlearn.Trials` as over any array. The folds are made of
images, not of trials: an image that was shown twice, or to two mice, is never on both sides.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Trials and groups
# -----------------

import matplotlib.pyplot as plt
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1
from v1tlearn.inspection import MODEL_COLORS
from v1tlearn.metrics import scorers

recordings = v1.make_v1_recordings(
    n_mice=2,
    n_neurons=100,
    n_trials=350,
    n_test_images=20,
    n_repeats=5,
    image_shape=(15, 24),
    explainable_variance=0.6,
    random_state=0,
)
trials = v1.Trials(recordings)
train, test = trials.sel(tier="train"), trials.sel(tier="test")
shared = set(train.sel(mouse_id=train.mice[0]).image_ids) & set(
    train.sel(mouse_id=train.mice[1]).image_ids
)
n_images = len(set(train.image_ids))
print(f"{len(train)} trials of {n_images} images, {len(shared)} seen by both mice")

# %%
# The search
# ----------
# Parameters of the estimator are searched by their names. ``validation_fraction=0`` trains for
# exactly ``max_epochs``, so that a fold costs no second validation set. With ``refit=True``, the
# default, the best setting is fitted to all trials in the end. The rates are far apart: a search
# whose best value is the first or the last one has not found the best.

search = GridSearchCV(
    v1.V1TRegressor(
        patch_size=6,
        patch_stride=3,
        n_blocks=1,
        n_heads=2,
        embed_dim=32,
        mlp_dim=64,
        patch_dropout=0.0,
        attention_dropout=0.0,
        mlp_dropout=0.0,
        gaussian="isotropic",
        readout_bias="mean",
        batch_size=16,
        max_epochs=6,
        validation_fraction=0,
        random_state=0,
    ),
    {"lr": [0.0003, 0.001, 0.004, 0.016, 0.06]},
    cv=GroupKFold(2),
    scoring=scorers["single_trial_correlation"],
)
search.fit(train, groups=train.image_ids)
print(f"best: {search.best_params_}, test score {search.score(test):.3f}")

# %%
# Fold by fold
# ------------
# One line per fold; the mean decides.

results = search.cv_results_
rates = results["param_lr"].astype(float)
color = MODEL_COLORS["V1T"]
fig, ax = plt.subplots(figsize=(4.5, 3.4), layout="constrained")
for fold in range(2):
    ax.plot(rates, results[f"split{fold}_test_score"], color=color, lw=0.7, alpha=0.5)
ax.plot(rates, results["mean_test_score"], "o-", color=color, label="mean of the folds")
ax.axvline(search.best_params_["lr"], color="0.5", lw=1, ls=":", label="best")
ax.set(xscale="log", xlabel="lr", ylabel="single-trial correlation")
ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
ax.minorticks_off()
ax.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

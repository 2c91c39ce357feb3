"""
How many channels does the CNN need?
====================================

`GridSearchCV` searches over :class:`~v1tlearn.Trials` as over any array. The folds are made of
images, not of trials: an image that was shown twice, or to two mice, is never on both sides.
"""

# %%
# Trials and groups
# -----------------

import matplotlib.pyplot as plt
from sklearn.model_selection import GridSearchCV, GroupKFold

import v1tlearn as v1
from v1tlearn.metrics import scorers

recordings = v1.make_v1_recordings(
    n_mice=2,
    n_neurons=40,
    n_trials=600,
    n_test_images=20,
    n_repeats=5,
    image_shape=(18, 32),
    explainable_variance=0.5,
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
# default, the best setting is fitted to all trials in the end.

search = GridSearchCV(
    v1.CNNRegressor(
        n_layers=2,
        input_kernel=7,
        hidden_kernel=5,
        laplace=0.1,
        batch_size=16,
        max_epochs=12,
        validation_fraction=0,
        random_state=0,
    ),
    {"hidden_channels": [2, 8, 24]},
    cv=GroupKFold(3),
    scoring=scorers["single_trial_correlation"],
)
search.fit(train, groups=train.image_ids)
print(f"best: {search.best_params_}, test score {search.score(test):.3f}")

# %%
# Fold by fold
# ------------
# One line per fold; the mean decides.

results = search.cv_results_
channels = results["param_hidden_channels"].astype(int)
fig, ax = plt.subplots(figsize=(4.5, 3.5), layout="constrained")
for fold in range(3):
    ax.plot(channels, results[f"split{fold}_test_score"], "o-", color="0.7", lw=1)
ax.plot(channels, results["mean_test_score"], "o-", color="C0", label="mean of the folds")
ax.set(xscale="log", xlabel="hidden channels", ylabel="single-trial correlation")
ax.set_xticks(channels, channels)
ax.minorticks_off()
ax.legend(frameon=False)
plt.show()

"""
Which hyper-parameters suit a model?
====================================

:class:`~v1tlearn.search.HyperbandSearch` draws parameters where earlier trials found good ones, and
ends trials that are behind the others after a few epochs. It needs Optuna,
``pip install "optuna>=5"``; the end of this page does without.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# What to search over
# -------------------
# A space is a dict of lists and distributions, as for scikit-learn's random searches. Ready ones
# are ``V1T_SPACE`` for the transformers and ``CNN_SPACE`` for the convolutional models. Here
# two parameters are searched.

import matplotlib.pyplot as plt
from scipy.stats import loguniform
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GroupKFold, HalvingRandomSearchCV

import v1tlearn as v1
from v1tlearn.inspection import MODEL_COLORS
from v1tlearn.search import HyperbandSearch, scikit_learn_space

recordings = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=120,
    n_trials=360,
    n_test_images=12,
    n_repeats=5,
    image_shape=(15, 24),
    explainable_variance=0.8,
    random_state=0,
)
trials = v1.Trials(recordings)
train, test = trials.sel(tier="train"), trials.sel(tier="test")
space = {"lr": loguniform(1e-4, 1e-1), "readout_l1": loguniform(1e-4, 1e-1)}

# %%
# Hyperband
# ---------
# All trials train on the same images and are scored on the same others. They are compared after 1
# and 3 epochs, some brackets of them only later or not at all, and a third goes on each time. With
# ``storage="study.db"`` the search would go on after a crash, and several processes could share it.

estimator = v1.V1TRegressor(
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
    max_epochs=9,
)
search = HyperbandSearch(
    estimator, space, n_trials=11, min_epochs=1, validation_fraction=0.2, random_state=1
)
search.fit(train)
results = search.results_
spent = results["epochs"].sum() / (len(results) * estimator.max_epochs)
lr, l1 = search.best_params_["lr"], search.best_params_["readout_l1"]
print(f"best: lr {lr:.4f}, readout_l1 {l1:.4f}")
print(f"validation {search.best_score_:.3f}, test {search.score(test):.3f}")
print(f"{(results['state'] == 'pruned').sum()} of {len(results)} trials ended early: ", end="")
print(f"{spent:.0%} of the epochs of full trials")

# %%
# What the search saw
# -------------------
# Above, the best validation correlation so far of every trial: many end at the first comparison. In
# the middle, what the trials reached by their learning rate: the best lies well within the range
# that was searched. Below, the share of the variance of the scores that each parameter explains,
# among the trials that were trained to their end; so few of them give a rough idea of it.

color = MODEL_COLORS["V1T"]
fig, (curves, history, shares) = plt.subplots(3, 1, figsize=(5, 8), layout="constrained")
best = search.study_.best_trial.number
for trial in search.study_.trials:
    reported = trial.intermediate_values
    style = {"color": color, "lw": 2, "zorder": 3} if trial.number == best else {"color": "0.75"}
    curves.plot(list(reported), list(reported.values()), marker=".", ms=4, **style)
curves.set(
    xlabel="epoch", ylabel="best validation\ncorrelation", title="Trials, the best in colour"
)

for state, shade in [("pruned", "0.7"), ("complete", color)]:
    some = results[results["state"] == state]
    dots = {"s": 22, "alpha": 0.7, "lw": 0, "color": shade}
    history.scatter(some["param_lr"], some["score"], label=f"{state} trials", **dots)
history.axvline(lr, color=color, lw=1, ls=":", label="best")
low, high = space["lr"].support()
history.set(xscale="log", xlim=(low, high), xlabel="lr", ylabel="best validation\ncorrelation")
history.legend(frameon=False, ncols=3, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1))

importances = search.importances()
shares.barh(importances.index[::-1], importances[::-1], color=color, height=0.6)
shares.set(xlabel="share of the variance of scores", title="Importance")
for ax in (curves, history, shares):
    ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# Without Optuna
# --------------
# scikit-learn's halving search trains many candidates for few epochs, the better third for three
# times as many, and so on. It starts every round afresh and cross-validates, so it costs more per
# candidate. ``scikit_learn_space`` writes out parameters that limit each other, such as the stride
# and size of patches in ``V1T_SPACE``.

halving = HalvingRandomSearchCV(
    estimator.set_params(validation_fraction=0, random_state=0),
    scikit_learn_space(space),
    resource="max_epochs",
    min_resources=2,
    max_resources=6,
    n_candidates=6,
    cv=GroupKFold(2),
    random_state=0,
)
halving.fit(train, groups=train.image_ids)
for epochs, n_candidates in zip(halving.n_resources_, halving.n_candidates_, strict=True):
    print(f"{n_candidates} candidates for {epochs} epochs")
lr, l1 = halving.best_params_["lr"], halving.best_params_["readout_l1"]
print(f"best: lr {lr:.4f}, readout_l1 {l1:.4f}; test {halving.score(test):.3f}")

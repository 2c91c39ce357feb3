"""
Do many fits at once pay?
=========================

Ensembles, searches and cross-validation fit many models that know nothing of each other. Processes
of joblib fit several at once. Are they the same models, what is gained, and are several models
better than one?
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# One process, and two
# --------------------
# Four candidates that differ in their seed, of which the best two by validation score are kept. In
# either way every candidate is computed by one thread: on a CPU the number of threads is part of
# the arithmetic, so that it has to be equal where models are to be equal to the last bit.

import time

import matplotlib.pyplot as plt
import numpy as np
import torch

import v1tlearn as v1
from v1tlearn.inspection import model_color

torch.set_num_threads(1)
trials = v1.Trials(
    v1.make_v1_recordings(
        n_mice=2,
        n_neurons=60,
        n_trials=300,
        n_test_images=20,
        n_repeats=10,
        image_shape=(15, 24),
        explainable_variance=0.6,
        random_state=0,
    )
)
train, validation, test = (trials.sel(tier=tier) for tier in ("train", "validation", "test"))
cnn = v1.CNNRegressor(
    n_layers=2,
    hidden_channels=16,
    input_kernel=7,
    hidden_kernel=5,
    gaussian="isotropic",
    readout_bias="mean",
    lr=0.006,
    batch_size=16,
    max_epochs=6,
)
ensembles, seconds = {}, {}
for n_jobs in (1, 2):
    started = time.perf_counter()
    ensembles[n_jobs] = v1.EnsembleRegressor(
        cnn, n_candidates=4, n_members=2, n_jobs=n_jobs, random_state=0
    ).fit(train, validation=validation)
    seconds[n_jobs] = time.perf_counter() - started
    print(f"{n_jobs} at once: {seconds[n_jobs]:.0f} s")

# %%
# Are they the same?
# ------------------

one, two = (ensembles[n_jobs].predict(test) for n_jobs in (1, 2))
same = all(np.array_equal(one[mouse], two[mouse]) for mouse in test.mice)
print(f"predictions are equal to the last bit: {same}")

# %%
# What is gained
# --------------
# A process has to start, which takes some seconds here: for models of seconds that is as much as a
# second process gains, for models of minutes it is nothing. There should not be more processes than
# cores, and on a GPU they share its memory. In a search it is the same ``n_jobs``:
# ``GridSearchCV(model, grid, n_jobs=2)``.
#
# And the ensemble: it is better than each of its members on the test images, too.

ensemble = ensembles[1]
members = [member.score(test) for member in ensemble.estimators_]
whole = ensemble.score(test)
print(f"members {', '.join(f'{score:.3f}' for score in members)}; ensemble {whole:.3f}")

figure, ax = plt.subplots(figsize=(5.6, 2.6), layout="constrained")
order = np.argsort(ensemble.validation_scores_)
kept = np.isin(order, ensemble.members_)
for at, (candidate, chosen) in enumerate(zip(order, kept, strict=True)):
    score = ensemble.validation_scores_[candidate]
    color = model_color("CNN")
    ax.plot(score, at, "o", color=color, mfc=color if chosen else "white", ms=7)
validated = ensemble.score(validation)
ax.axvline(validated, color=model_color("ensemble"), lw=2)
ax.annotate(
    "ensemble of\nthe two best",
    (validated, 0.2),
    (-6, 0),
    ha="right",
    va="center",
    textcoords="offset points",
    color=model_color("ensemble"),
)
ax.set(xlabel="single-trial correlation, validation images", ylabel="candidate")
ax.set_yticks(range(len(order)), [str(candidate + 1) for candidate in order])
ax.spines[["top", "right"]].set_visible(False)
plt.show()

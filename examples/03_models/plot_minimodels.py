"""
How small can a model be?
=========================

A full model has hundreds of channels that all neurons share. A minimodel has a few for one neuron,
on the first convolution of the full model, and a penalty on the weights of its channels leaves it
still fewer (Du et al. 2025). How many does a neuron need?
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# A full model
# ------------
# One mouse, and the neurons whose responses an image can explain. The mouse's behaviour is left
# out, as it was by the authors.

import matplotlib.pyplot as plt
from sklearn.frozen import FrozenEstimator

import v1tlearn as v1
from v1tlearn.inspection.colors import figure_colors

recordings = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=16,
    n_trials=800,
    n_test_images=40,
    n_repeats=8,
    image_shape=(18, 28),
    behavior=False,
    explainable_variance=0.7,
    random_state=0,
)
trials = v1.Trials(recordings)
train, validation, test = (trials.sel(tier=tier) for tier in ("train", "validation", "test"))
common = {"lr": 0.004, "batch_size": 40, "space_init": 0.1, "random_state": 0}
common |= {"period_epochs": (12, 4), "max_epochs": 16}

full = v1.FullModelRegressor(channels=(8, 32), kernels=(11, 5), channel_init=0.1, **common)
full.fit(train, validation=validation)

# %%
# Minimodels
# ----------
# All neurons are trained at once, each with a second layer of its own, as if one by one. The
# stronger the penalty, the fewer of the twelve channels are used. As a `FrozenEstimator` the full
# model stays fitted in copies, too, such as those of a search.

strengths = [0.0, 0.1, 0.3, 1.0]
minimodels = {}
for strength in strengths:
    minimodels[strength] = v1.MinimodelRegressor(
        full_model=FrozenEstimator(full),
        hidden_channels=12,
        hidden_kernel=5,
        channel_hoyer=strength,
        **common,
    ).fit(train, validation=validation)

# %%
# Scores are fractions of the explainable variance, of neurons of which more than 15 % of the
# variance can be explained.


def score(model):
    """FEVE, the threshold left out, as by Du et al. (2025)."""
    return v1.metrics.feve(test.responses, model.predict(test), strict=True)


scores = [score(minimodels[strength]) for strength in strengths]
channels = [minimodels[strength].n_channels_used_[trials.mice[0]].mean() for strength in strengths]
of_full = score(full)
for strength, value, n in zip(strengths, scores, channels, strict=True):
    print(f"penalty {strength:4.2f}: FEVE {value:.2f} with {n:4.1f} channels per neuron")
print(f"full model:   FEVE {of_full:.2f} with 32 channels")

# %%
# Fewer channels per neuron
# -------------------------
# Each point bears the strength of its penalty. Half of the channels can go at little cost, and with
# few trials a minimodel loses nothing against the full model: it has less to learn.

colors = figure_colors(["full model", "minimodels"])
fig, ax = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
ax.axhline(of_full, color=colors["full model"], lw=1, label="full model, 32 channels")
ax.plot(channels, scores, "o-", color=colors["minimodels"], label="minimodels, by channel_hoyer")
for strength, value, n in zip(strengths, scores, channels, strict=True):
    ax.annotate(
        f"{strength:g}", (n, value), (0, 7), textcoords="offset points", ha="center", fontsize=8
    )
ax.set(xlabel="channels used per neuron", ylabel="FEVE", xlim=(0, 12.8))
ax.set_ylim(0, 1.15 * max(*scores, of_full))
ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

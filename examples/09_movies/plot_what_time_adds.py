"""
What does time add?
===================

A model of images can be fitted to movies, frame by frame. What it misses is what cells do with the
frames before: they respond late, to changes, and to the direction in which things move. How much
is that, and is it really the order of the frames that is used?
"""

# sphinx_gallery_thumbnail_number = 2

# %%
# Two kinds of cells
# ------------------
# Half of the simulated cells are retinal ones, a centre and a surround behind a filter in time; the
# others respond to motion in one direction (Adelson & Bergen, 1985). Both see drifting images.

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import MODEL_COLORS
from v1tlearn.metrics import average_correlation

recordings = v1.make_movie_recordings(
    n_mice=1,
    n_neurons=16,
    n_movies=50,
    n_test_movies=3,
    n_repeats=8,
    image_shape=(10, 14),
    behavior=False,
    cells=["retina", "motion"],
    noise=0.5,
    random_state=0,
)
cells = recordings["A"]
kinds = cells["cell_kind"].values
in_order = v1.Trials(recordings)

# %%
# A control
# ---------
# Of each movie the same frames, with the same responses to them, in an order that tells nothing.
# Repeats of a movie get one order. What a model still finds is in single frames.


def in_another_order(recording, random_state=0):
    """Frames and responses of each movie, shuffled together."""
    rng = np.random.default_rng(random_state)
    n = recording.sizes["time"]
    orders = {movie: rng.permutation(n) for movie in np.unique(recording["image_id"])}
    changed = {}
    for name in ("stimuli", "responses", "expected_responses"):
        rows = zip(recording[name].values, recording["image_id"].values, strict=True)
        changed[name] = recording[name].dims, np.stack([row[orders[movie]] for row, movie in rows])
    return recording.assign(changed)


shuffled = v1.Trials({"A": in_another_order(cells.to_dataset())})

# %%
# Models without and with time
# ----------------------------
# The convolutional models have filters of the same size in space. The linear one has a kernel of
# 12 frames for each cell. All learn from the training movies. Scores are correlations of what they
# predict with the mean over eight repeats of held-out movies; true rates reach the ceiling.

filters = {"n_layers": 2, "hidden_channels": 12, "input_kernel": 7, "hidden_kernel": 1}
in_time = {"input_time_kernel": 9, "lr": 0.01, "batch_size": 4, "max_epochs": 20}
models = {
    "CNN, single frames": v1.CNNRegressor(**filters, max_epochs=8, random_state=0),
    "LN, time": v1.MovieLNRegressor(n_lags=12, max_epochs=25, random_state=0),
    "CNN, time": v1.MovieCNNRegressor(**filters, **in_time, random_state=0),
    "CNN, time, shuffled": v1.MovieCNNRegressor(**filters, **in_time, random_state=0),
}
scores = {}
for name, model in models.items():
    trials = shuffled if "shuffled" in name else in_order
    train, validation, test = (trials.sel(tier=t) for t in ("train", "validation", "test"))
    model.fit(train, validation=validation)
    predicted = model.predict(test)
    scores[name] = average_correlation(test.responses, predicted, multioutput="raw_values").values

test = in_order.sel(tier="test")
truth = test.expected_responses
scores["true rates"] = average_correlation(test.responses, truth, multioutput="raw_values").values

print(" " * 20 + "retina  margin  motion  margin")
base = {kind: scores["CNN, single frames"][kinds == kind].mean() for kind in ("retina", "motion")}
for name, values in scores.items():
    mean = {kind: values[kinds == kind].mean() for kind in base}
    print(f"{name:20s}", *(f"{m:5.2f}   {m - base[k]:+5.2f} " for k, m in mean.items()))

# %%
# What was found
# --------------
# A retinal cell is lost on a model of frames, which does not know that it answers late; any model
# with a kernel in time finds it. Of a motion cell single frames tell how much contrast there is at
# its place, but not where it goes; a linear kernel tells little, since its responses to light and
# dark that move the same way are opposite. Without the order of the frames the margin is gone.

colors = {
    "CNN, single frames": "#56b4e9",
    "LN, time": MODEL_COLORS["LN"],
    "CNN, time": MODEL_COLORS["CNN"],
    "CNN, time, shuffled": "#cc79a7",
}
fig, axes = plt.subplots(1, 2, figsize=(7.4, 3.6), sharey=True, layout="constrained")
rng = np.random.default_rng(0)
for ax, kind in zip(axes, base, strict=True):
    ceiling = scores["true rates"][kinds == kind].mean()
    ax.axhline(ceiling, color=MODEL_COLORS["oracle"], lw=1, ls="--")
    ax.text(len(models) - 0.5, ceiling + 0.01, "true rates", ha="right", va="bottom", fontsize=9)
    for place, (name, color) in enumerate(colors.items()):
        values = scores[name][kinds == kind]
        ax.bar(place, values.mean(), 0.7, color=color, alpha=0.45)
        ax.scatter(place + rng.uniform(-0.2, 0.2, len(values)), values, s=16, color=color)
    ax.set_xticks(range(len(colors)), [name.replace(", ", "\n") for name in colors], fontsize=8)
    ax.set_title({"retina": "retinal cells", "motion": "motion cells"}[kind], fontsize=11)
    ax.axhline(0, color="0.5", lw=0.8)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("correlation with the mean response")
axes[0].set_ylim(top=1.08)
plt.show()

# %%
# Which way does it move?
# -----------------------
# Gratings that nobody was trained on drift in eight directions. With time, a model of motion cells
# has learned which one each cell prefers (dashed); in single frames a grating looks like the one
# that drifts the other way.

angles = np.arange(8) * np.pi / 4
y, x = np.mgrid[:10, :14]
turns = float(cells["preferred_frequency"].median()) * np.arange(60)[:, None, None] / 30
rates = dict.fromkeys(["CNN, time", "CNN, single frames"], 0.0)
for period in (4, 5, 6):  # pixels
    phase = [2 * np.pi * ((np.cos(a) * x + np.sin(a) * y) / period - turns) for a in angles]
    movies = np.stack(127.5 + 100 * np.cos(phase)).astype(np.uint8)[:, :, None]
    for name in rates:
        rates[name] = rates[name] + models[name].predict({"A": movies})["A"][:, 20:].mean(axis=1)

shown = np.flatnonzero(kinds == "motion")[:4]
fig, axes = plt.subplots(1, 4, figsize=(8.4, 2.7), layout="constrained", subplot_kw={"polar": True})
for ax, cell in zip(axes, shown, strict=True):
    for name, tuning in rates.items():
        ring = np.append(tuning[:, cell], tuning[0, cell]) / tuning[:, cell].max()
        ax.plot(np.append(angles, 2 * np.pi), ring, color=colors[name], lw=1.6, label=name)
    preferred = float(cells["preferred_direction"][cell])
    ax.plot([preferred, preferred], [0, 1], color="0.2", lw=1, ls="--", label="preferred direction")
    ax.set_theta_direction(-1)  # angles turn down, as in images
    ax.set(yticks=[], ylim=(0, 1.05))
    ax.set_xticks(np.arange(4) * np.pi / 2, ["→", "↓", "←", "↑"])
    ax.set_title(f"cell {int(cells['neuron'][cell])}", fontsize=10)
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
plt.show()

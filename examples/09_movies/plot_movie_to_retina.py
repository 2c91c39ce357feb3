"""
Which model predicts a retina?
==============================

Ganglion cells of a retina saw movies. Which of two models predicts what they answer to new ones: a
kernel in space and time with a non-linearity, which has served the retina for decades, or Vi-ST, a
network of convolutions in time behind the patches of each frame (Wu et al., 2024)?
"""

# sphinx_gallery_thumbnail_number = 3

# %%
# A simulated retina
# ------------------
# Eight cells, each with a centre and a surround of opposite sign and a filter in time, see images
# with saccades: three seconds per movie. Test movies are shown eight times.

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import MODEL_COLORS, KernelDisplay, MoviePredictionDisplay
from v1tlearn.metrics import average_correlation

recordings = v1.make_movie_recordings(
    n_mice=1,
    n_neurons=8,
    n_movies=50,
    n_test_movies=3,
    n_repeats=8,
    n_frames=90,
    image_shape=(12, 12),
    behavior=False,
    scene="saccades",
    cells="retina",
    random_state=0,
)
trials = v1.Trials(recordings)
train, validation, test = (trials.sel(tier=tier) for tier in ("train", "validation", "test"))

# %%
# Two models
# ----------
# The linear-nonlinear one has a kernel of 12 frames, 0.4 s, per cell. Vi-ST is a small one, on
# pixels of patches in place of a pretrained transformer, and is told each cell's receptive field.

models = {
    "LN": v1.MovieLNRegressor(n_lags=12, max_epochs=30, random_state=0),
    "Vi-ST": v1.ViSTRegressor(
        grid=6,
        n_layers=2,
        channels=8,
        kernels=((1, 9),),
        condition="per_cell",
        loss="poisson",
        dropout=0.0,
        window_frames=48,
        batch_size=3,
        steps_per_epoch=30,
        lr=0.02,
        start_lr=5e-3,
        min_lr=1e-3,
        warmup_epochs=2,
        weight_decay=0.03,
        max_epochs=15,
        average_from=None,
        random_state=0,
    ),
}
for model in models.values():
    model.fit(train, validation=validation)

# %%
# What they predict
# -----------------
# A movie that nobody was trained on: what three cells did, as a mean over repeats with its standard
# error, and what the models say.

colors = {"LN": "#d55e00", "Vi-ST": MODEL_COLORS["CNN"]}
predictions = {name: model.predict(test) for name, model in models.items()}
MoviePredictionDisplay.from_predictions(test, predictions, colors=colors)
plt.show()

# %%
# Beside the ceiling
# ------------------
# Correlation over time with the mean over repeats, cell by cell. That of the true rates is the
# ceiling: the mean of eight repeats is still noisy.


def correlation(predicted):
    """Per cell, with the mean over repeats of the test movies."""
    return average_correlation(test.responses, predicted, multioutput="raw_values").values


ceiling = correlation(test.expected_responses)
scores = {name: correlation(predicted) for name, predicted in predictions.items()}
for name, values in scores.items():
    print(f"{name:6s} {values.mean():.2f} of {ceiling.mean():.2f}")

fig, ax = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
order = np.argsort(-ceiling, kind="stable")
cells = np.arange(len(order))
ax.hlines(ceiling[order], cells - 0.35, cells + 0.35, color="k", lw=1.5, label="true rates")
for name, values in scores.items():
    ax.plot(cells, values[order], "o", ms=7, color=colors[name], label=name)
ax.set_xticks(cells, recordings["A"]["neuron"].values[order])
ax.set(xlabel="cell", ylabel="correlation with the mean response", ylim=(0, 1.02))
ax.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# These cells are linear-nonlinear, so that a model of this kind can hardly be beaten here: it has
# little to learn beside what is true. Vi-ST comes near from forty-five movies, without knowing what
# a kernel is. Its field are real cells, which adapt and see motion, many at a time, and features of
# pretrained transformers.
#
# What the cells look for
# -----------------------
# The kernels of the linear-nonlinear model below those that made the responses, of two cells. Both
# answer where light turns dark, the second one faster.

cells = recordings["A"]
true = cells["temporal_filter"] * cells["receptive_field"]
true = true.transpose("neuron", "lag", "row", "column").values
found = models["LN"].kernels("A")[:, :, 0]
rows = {}
for cell in (0, 6):
    rows[f"cell {cells['neuron'].values[cell]}\ntrue"] = true[cell]
    rows[f"cell {cells['neuron'].values[cell]}\nLN"] = found[cell]
KernelDisplay(
    np.stack(list(rows.values())), cells["lag"].values, units="s", titles=list(rows)
).plot()
plt.show()

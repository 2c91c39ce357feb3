"""
Is a model's representation that of the neurons?
================================================

Two images may be alike to a population and different to another. Representational similarity
compares populations by that alone, whatever their units are: neurons, predictions, or the features
of a core (Kriegeskorte et al., 2008). `rsatoolbox <https://rsatoolbox.readthedocs.io>`_ does it,
with its noise ceiling; this example hands over to it, and needs ``pip install
"rsatoolbox>=0.3.2"``.
"""

# sphinx_gallery_thumbnail_number = 2

# %%
# Four mice that saw the same images
# ----------------------------------

import contextlib
import io

import matplotlib.pyplot as plt
import numpy as np
import rsatoolbox
import torch

import v1tlearn as v1
from v1tlearn.inspection import model_color

trials = v1.Trials(
    v1.make_v1_recordings(
        n_mice=4,
        n_neurons=80,
        n_trials=350,
        n_test_images=40,
        n_repeats=10,
        image_shape=(15, 24),
        explainable_variance=0.6,
        behavior=False,
        random_state=0,
    )
)
train, test = trials.sel(tier="train"), trials.sel(tier="test")
common = {"hidden_channels": 16, "input_kernel": 7, "hidden_kernel": 5, "readout_bias": "mean"}
common |= {"lr": 0.006, "batch_size": 16, "random_state": 0}
models = {
    "LN": v1.LNRegressor(n_layers=1, **common, max_epochs=10).fit(train),
    "CNN": v1.CNNRegressor(n_layers=2, **common, max_epochs=10).fit(train),
}

# %%
# From trials to data sets
# ------------------------
# A data set of ``rsatoolbox`` is a matrix, with what its rows are: responses to one image each,
# recorded ones averaged over repeats, less the mean of every neuron over images. How much two
# images differ is one minus the correlation of their rows.


def dataset(values, image_ids):
    """Rows of one image each, in the order of the ids."""
    order = np.argsort(image_ids)
    values = np.asarray(values, float)
    return rsatoolbox.data.Dataset(
        (values - values.mean(0))[order],
        obs_descriptors={"image": [str(name) for name in np.asarray(image_ids)[order]]},
    )


def rdm(values, image_ids):
    """Representational dissimilarities: one minus the correlation, of all pairs of images."""
    return rsatoolbox.rdm.calc_rdm(
        dataset(values, image_ids), method="correlation", descriptor="image"
    )


means = test.responses.mean("image_id")
recorded = [rdm(means[mouse].values, means[mouse]["image_id"].values) for mouse in test.mice]
recorded = rsatoolbox.rdm.concat(recorded)

# %%
# Pixels, features, predictions
# -----------------------------
# ``module_`` is the torch module of a fitted model: ``encode`` gives the feature maps of
# standardised images, which all mice share. Predictions are those for the neurons of all mice
# together.

_, first = np.unique(test["A"]["image_id"].values, return_index=True)
shown = test["A"].isel(trial=first)
ids, images = shown["image_id"].values, shown["stimuli"].values


def features(model):
    """Feature maps of the images, one row each."""
    known = model.statistics_["A"]
    inputs = torch.as_tensor((images.astype("float32") - known["image_mean"]) / known["image_std"])
    with torch.inference_mode():
        return model.module_.eval().encode("A", inputs).flatten(1).numpy()


def predictions(model):
    """Rates of all neurons, one row per image."""
    predicted = model.predict(dict.fromkeys(test.mice, images))
    return np.concatenate([predicted[mouse] for mouse in test.mice], axis=1)


compared = {"pixels": images.reshape(len(images), -1)}
for name, model in models.items():
    compared[f"{name}, features"] = features(model)
    compared[f"{name}, predictions"] = predictions(model)
rdms = {name: rdm(values, ids) for name, values in compared.items()}

# %%
# Images stand in the order of what differs most between them to the neurons: those at one end evoke
# much the same, and other responses than those at the other end. Which of the other matrices has
# that order?

between = recorded.get_matrices().mean(0)
order = np.argsort(np.linalg.eigh(between)[1][:, 0])
figure, axes = plt.subplots(1, 4, figsize=(9, 2.7), layout="constrained")
panels = {"neurons, mean of mice": between}
for name in ("pixels", "CNN, features", "CNN, predictions"):
    panels[name] = rdms[name].get_matrices()[0]
for ax, (name, matrix) in zip(axes, panels.items(), strict=True):
    matrix = np.where(np.eye(len(matrix)), np.nan, matrix)[order][:, order]  # 0 with itself
    shades = ax.imshow(matrix, cmap="viridis", vmin=0.6, vmax=1.4)
    ax.set_title(name, fontsize="medium")
    ax.set(xlabel="image", xticks=[], yticks=[])
axes[0].set_ylabel("image")
figure.colorbar(shades, ax=axes, label="1 − correlation", shrink=0.8, extend="both")
plt.show()

# %%
# Which is closest?
# -----------------
# Each is compared with every mouse; bars are means with the standard error over draws of images. No
# model can be expected above the noise ceiling, which is how well a mouse is described by the
# others. The control are the predictions of the CNN with their images shuffled.

shuffled = np.random.default_rng(0).permutation(len(images))
rdms["CNN, shuffled"] = rdm(compared["CNN, predictions"][shuffled], ids)
fixed = [rsatoolbox.model.ModelFixed(name, found) for name, found in rdms.items()]
np.random.seed(0)  # noqa: NPY002  # rsatoolbox draws from the global generator
with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
    result = rsatoolbox.inference.eval_bootstrap_pattern(
        fixed, recorded, method="corr", N=200, pattern_descriptor="image"
    )
scores, errors = result.get_means(), result.get_sem()
low, high = np.nanmean(result.noise_ceiling, axis=1)  # over draws
for name, score, error in zip(rdms, scores, errors, strict=True):
    print(f"{name:>17}: {score:.2f} ± {error:.2f}")
print(f"noise ceiling: {low:.2f} to {high:.2f}")

figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.axvspan(low, high, color="0.85", lw=0)
for at, name in enumerate(rdms):
    color = "0.4" if name == "pixels" else model_color(name)
    face = "white" if "shuffled" in name else color
    ax.barh(at, scores[at], 0.62, xerr=errors[at], capsize=2, ecolor="0.2", color=face, ec=color)
ax.annotate("noise ceiling", ((low + high) / 2, len(rdms) - 1), ha="center", va="center")
ax.set_yticks(range(len(rdms)), rdms)
ax.invert_yaxis()
ax.axvline(0, color="0.3", lw=0.8)
ax.set_xlabel("correlation of dissimilarities with those of neurons")
ax.spines[["top", "right"]].set_visible(False)
plt.show()

"""
Which changes of an image do neurons not see?
=============================================

Some changes of an image change the responses of a population a lot, others of the same size hardly
at all. A fitted model tells which: the eigenvectors of its Fisher information, "eigendistortions"
(Berardino et al., 2017). `plenoptic <https://docs.plenoptic.org>`_ finds them for any
differentiable torch module, ``module_`` of a fitted model among them; it also synthesises
metamers. This example needs ``pip install "plenoptic>=2.1.1"``.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Two models of one mouse
# -----------------------

import matplotlib.pyplot as plt
import numpy as np
import plenoptic
import torch

import v1tlearn as v1
from v1tlearn.inspection import model_color

trials = v1.Trials(
    v1.make_v1_recordings(
        n_mice=1,
        n_neurons=60,
        n_trials=700,
        n_test_images=10,
        n_repeats=5,
        image_shape=(15, 24),
        explainable_variance=0.7,
        behavior=False,
        random_state=0,
    )
)
train, test = trials.sel(tier="train"), trials.sel(tier="test")
common = {"hidden_channels": 16, "input_kernel": 7, "hidden_kernel": 5, "readout_bias": "mean"}
common |= {"lr": 0.006, "batch_size": 16, "max_epochs": 10, "random_state": 0}
models = {
    "LN": v1.LNRegressor(n_layers=1, **common).fit(train),
    "CNN": v1.CNNRegressor(n_layers=2, **common).fit(train),
}

# %%
# From an image to responses
# --------------------------
# plenoptic wants a module whose input is an image (1, 1, height, width) of values from 0 to 1, and
# whose parameters need no gradient. Derivatives of derivatives are those of `v1tlearn.nn.plain`, in
# which layers compute by their definitions.


class Responses(torch.nn.Module):
    """Rates of the neurons of a mouse, in the units of its recording, of an image from 0 to 1."""

    def __init__(self, model, mouse):
        super().__init__()
        self.module, self.mouse = model.module_, mouse
        self.known = model.statistics_[mouse]
        self.scale = torch.as_tensor(np.asarray(self.known["response_scale"], "float32"))

    def forward(self, image):
        """Tensor (1, 1, height, width) to (1, 1, neurons)."""
        standard = (255 * image - self.known["image_mean"]) / self.known["image_std"]
        rates = self.module.respond(self.mouse, self.module.encode(self.mouse, standard))
        return (rates * self.scale)[:, None]


image = torch.as_tensor(test["A"]["stimuli"].values[:1].astype("float32") / 255)
responses, eigen = {}, {}
for name, model in models.items():
    responses[name] = Responses(model, "A").eval()
    plenoptic.remove_grad(responses[name])
    with v1.nn.plain():
        eigen[name] = plenoptic.Eigendistortion(image, responses[name])
        eigen[name].synthesize(method="exact")

with torch.no_grad():
    mine = responses["CNN"](image)[0, 0].numpy()
known = models["CNN"].predict({"A": test["A"]["stimuli"].values[:1]})["A"][0]
print(f"as `predict` has it: {np.allclose(mine, known, rtol=1e-4, atol=1e-5)}")

# %%
# Seen most, and least
# --------------------
# Each distortion has length one. What the models see most has the size and the place of receptive
# fields; what they see least differs from pixel to pixel, and lies mostly at the rim, where few
# neurons look.

figure, axes = plt.subplots(2, 3, figsize=(8, 3.9), layout="constrained")
for row, (name, found) in zip(axes, eigen.items(), strict=True):
    most, least = found.eigendistortions[0, 0], found.eigendistortions[-1, 0]
    row[0].imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    for ax, change in zip(row[1:], (most, least), strict=True):
        limit = float(change.abs().max())
        ax.imshow(change, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for ax in row:
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
for ax, title in zip(axes[0], ("image", "seen most", "seen least"), strict=True):
    ax.set_title(title, fontsize="medium")
plt.show()

# %%
# Does the model agree?
# ---------------------
# The eigenvectors are those of small changes. Here changes of growing length are added to the
# image: how far do the responses move? Directions at random, the control, lie between.


def moved(model, change, lengths):
    """Distance of the responses from those to the image itself, per length of the change."""
    with torch.no_grad():
        before = model(image)
        return [float((model(image + length * change) - before).norm()) for length in lengths]


# of the root mean square over pixels, in grey levels
levels = np.array([0.25, 0.5, 1, 2, 4, 8, 16])
lengths = levels / 255 * np.sqrt(image.numel())
draws = torch.randn(10, *image.shape[1:], generator=torch.Generator().manual_seed(0))
draws /= draws.flatten(1).norm(dim=1)[:, None, None, None]

figure, axes = plt.subplots(1, 2, figsize=(8, 3.3), layout="constrained", sharey=True)
for ax, (name, found) in zip(axes, eigen.items(), strict=True):
    model = responses[name]
    lines = {
        "seen most": (moved(model, found.eigendistortions[0], lengths), "-"),
        "at random": (np.mean([moved(model, one, lengths) for one in draws], axis=0), ":"),
        "seen least": (moved(model, found.eigendistortions[-1], lengths), "--"),
    }
    for label, (distance, style) in lines.items():
        ax.loglog(levels, np.maximum(distance, 1e-7), style, color=model_color(name), lw=2)
        ax.annotate(
            label,
            (levels[-1], max(distance[-1], 1e-7)),
            (5, 0),
            va="center",
            textcoords="offset points",
            color=model_color(name),
        )
    print(f"{name}: at 1 grey level {', '.join(f'{k} {d[2]:.2g}' for k, (d, _) in lines.items())}")
    ax.set_title(name, loc="left")
    ax.set_xlabel("change of the image (RMS grey levels)")
    ax.set_xlim(0.2, 150)
    ax.set_xticks([0.25, 1, 4, 16], ["0.25", "1", "4", "16"])
    ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("change of responses (a.u.)")
plt.show()

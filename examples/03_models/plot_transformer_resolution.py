"""
Is the grid of patches the bottleneck?
======================================

A vision transformer reads an image in patches, and gives one token for each: a grid that is coarse
against the places of receptive fields. Patches that overlap give a finer one, at no other cost than
time. So do images that are enlarged, but then a patch sees less of them.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# A simulated mouse without behaviour, and images of the same kind for the transformer.

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers

import v1tlearn as v1
from v1tlearn.inspection import MODEL_COLORS

recordings = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=40,
    n_trials=1500,
    n_test_images=30,
    n_repeats=8,
    image_shape=(32, 64),
    behavior=False,
    explainable_variance=0.8,
    random_state=0,
)
trials = v1.Trials(recordings)
train, validation, test = (trials.sel(tier=tier) for tier in ("train", "validation", "test"))
others = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=1,
    n_trials=600,
    n_test_images=1,
    n_repeats=1,
    image_shape=(32, 32),
    random_state=1,
)

# %%
# A small transformer, trained without labels
# -------------------------------------------
# Noise is added to images, at two sizes, and their pixels without it are predicted from the tokens
# of patches. ``backbone="facebook/dinov2-small"`` would fetch a transformer that saw millions of
# photographs.

PATCH = 8
torch.manual_seed(0)
images = torch.as_tensor(np.asarray(others["A"].stimuli[:600]), dtype=torch.float32)
pixels = v1.nn.Pixels(1)(images)
larger = torch.nn.functional.interpolate(pixels, scale_factor=2, mode="bilinear")
pixels = torch.cat([pixels, larger[:, :, 16:48, 16:48]])
targets = torch.nn.functional.unfold(pixels[:, :1], PATCH, stride=PATCH).mT
model = transformers.Dinov2Model(
    transformers.Dinov2Config(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        mlp_ratio=2,
        patch_size=PATCH,
        image_size=32,
    )
)
decode = torch.nn.Linear(64, PATCH**2)
optimizer = torch.optim.AdamW([*model.parameters(), *decode.parameters()], lr=3e-3)
for _ in range(10):
    for rows in torch.randperm(len(pixels)).split(32):
        noisy = pixels[rows] + torch.randn_like(pixels[rows, :1])
        tokens = model(noisy).last_hidden_state[:, 1:]
        loss = (decode(tokens) - targets[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(f"{loss.item() / targets.var().item():.2f} of the variance is left")

# %%
# Four resolutions
# ----------------
# The transformer stays frozen: each fit computes its features once, and trains readouts on them.
# All else is the same, seed included. The block is the one that
# :doc:`/auto_examples/03_models/plot_transformer_blocks` chooses.

RESOLUTIONS = {
    "patches side by side": {},
    "overlapping by half": {"patch_stride": PATCH // 2},
    "by three quarters": {"patch_stride": PATCH // 4},
    "twice the pixels": {"upsample": 2},
}
scores = {}
for name, options in RESOLUTIONS.items():
    est = v1.PretrainedViTRegressor(
        model,
        block=1,
        normalize="layer",
        readout_bias="mean",
        space_init=0.3,
        lr=0.02,
        batch_size=32,
        max_epochs=16,
        random_state=0,
        **options,
    )
    est.fit(train, validation=validation)
    _, height, width = est.module_.core.output_shape
    scores[name] = est.score(test)
    print(f"{name}, {height} x {width} places: {scores[name]:.3f}")

# %%
# A finer grid
# ------------
# Patches side by side are too coarse: half a patch from one to the next predicts much better, and a
# quarter no better than that. Enlarged images do not help here: a patch then sees a quarter of the
# area, and most receptive fields are wider.

fig, ax = plt.subplots(figsize=(5, 2.2), layout="constrained")
ax.barh(list(scores), list(scores.values()), color=MODEL_COLORS["ViT"], height=0.6)
ax.invert_yaxis()
ax.set(xlabel="single-trial correlation, test images")
ax.spines[["top", "right"]].set_visible(False)
plt.show()

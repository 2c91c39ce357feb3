"""
Is the grid of patches the bottleneck?
======================================

A vision transformer reads an image in patches, and gives one token for each. Where patches are
wider than receptive fields, a neuron has to find what it looks for in few tokens. Patches that
overlap give a finer grid, and so do images that are enlarged, at no other cost than time. A score
below 0 is worse than that of the mean response.
"""

# %%
# A simulated mouse, and images of the same kind for the transformer.

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers

import v1tlearn as v1
from v1tlearn.metrics import feve

recordings = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=30,
    n_trials=700,
    n_test_images=30,
    n_repeats=8,
    image_shape=(32, 64),
    explainable_variance=0.6,
    random_state=0,
)
trials = v1.Trials(recordings)
train, test = trials.sel(tier="train"), trials.sel(tier="test")
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
# Noise is added to images, and their pixels without it are predicted from the tokens of patches.
# ``backbone="facebook/dinov2-small"`` would fetch a transformer that saw millions of images.

PATCH = 8
torch.manual_seed(0)
images = torch.as_tensor(np.asarray(others["A"].stimuli[:600]), dtype=torch.float32)
pixels = v1.nn.Pixels(1)(images)
targets = torch.nn.functional.unfold(pixels[:, :1], PATCH, stride=PATCH).mT
model = transformers.Dinov2Model(
    transformers.Dinov2Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        mlp_ratio=2,
        patch_size=PATCH,
        image_size=32,
    )
)
decode = torch.nn.Linear(64, PATCH**2)
optimizer = torch.optim.AdamW([*model.parameters(), *decode.parameters()], lr=3e-3)
for _ in range(8):
    for rows in torch.randperm(len(pixels)).split(32):
        noisy = pixels[rows] + torch.randn_like(pixels[rows, :1])
        tokens = model(noisy).last_hidden_state[:, 1:]
        loss = (decode(tokens) - targets[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(f"{loss.item() / targets.var().item():.2f} of the variance is left")

# %%
# Three resolutions
# -----------------
# The transformer stays frozen: each fit computes its features once, and trains readouts on them.
# All else is the same, seed included.

RESOLUTIONS = {
    "patches side by side": {},
    "overlapping patches": {"patch_stride": PATCH // 2},
    "twice the pixels": {"upsample": 2},
}
scores = {}
for name, options in RESOLUTIONS.items():
    est = v1.PretrainedViTRegressor(
        model,
        block=0,
        normalize="layer",
        lr=0.01,
        space_init=0.3,
        batch_size=32,
        max_epochs=20,
        random_state=0,
        **options,
    )
    est.fit(train)
    _, height, width = est.module_.core.output_shape
    scores[name] = feve(test.responses, est.predict(test))
    print(f"{name}, {height} x {width} places: FEVE {scores[name]:.2f}")

# %%
figure, axes = plt.subplots(figsize=(5, 2.2), layout="constrained")
axes.barh(list(scores), list(scores.values()), color=["tab:gray", "tab:red", "tab:orange"])
axes.invert_yaxis()
_ = axes.set(xlabel="FEVE, test images")

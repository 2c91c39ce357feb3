"""
Which block of a transformer?
=============================

A transformer that was trained without labels has as many answers to an image as it has blocks. The
first is close to the pixels, the last to what the transformer was trained for. Which of them
explains neurons best? A search over ``block`` tells, on validation images.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# A simulated mouse
# -----------------
# Its behaviour is left out: the frozen transformer sees images only.

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers
from sklearn.model_selection import GridSearchCV, GroupShuffleSplit

import v1tlearn as v1
from v1tlearn.inspection import MODEL_COLORS
from v1tlearn.metrics import scorers

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
train, test = trials.sel(tier="train"), trials.sel(tier="test")

# %%
# A small transformer, trained without labels
# -------------------------------------------
# Noise is added to images of the same kind, at two sizes, and their pixels without it are predicted
# from the tokens of patches. ``backbone="facebook/dinov2-small"`` would fetch a transformer that
# saw millions of photographs.

PATCH = 8
others = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=1,
    n_trials=600,
    n_test_images=1,
    n_repeats=1,
    image_shape=(32, 32),
    random_state=1,
)
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
# The search
# ----------
# The transformer stays frozen. Its features are computed once per fit, and all epochs read them, so
# that a block costs no more than its readouts. A folder, ``feature_cache="features"``, would keep
# them for later searches, such as one over penalties. Patches overlap, see
# :doc:`/auto_examples/03_models/plot_transformer_resolution`.
#
# A fifth of the training images is kept for validation, and chooses. The test tier is scored beside
# it, to show what the choice is worth: ``refit="validation"`` does not look at it.


def score_test(estimator, *_):
    """Single-trial correlation on the test tier, whatever trials are given."""
    return estimator.score(test)


search = GridSearchCV(
    v1.PretrainedViTRegressor(
        model,
        patch_stride=PATCH // 2,
        normalize="layer",
        readout_bias="mean",
        space_init=0.3,
        lr=0.02,
        batch_size=32,
        max_epochs=16,
        validation_fraction=0,
        random_state=0,
    ),
    {"block": [0, 1, 2, 3]},
    cv=GroupShuffleSplit(1, test_size=0.2, random_state=0),
    scoring={"validation": scorers["single_trial_correlation"], "test": score_test},
    refit="validation",
)
search.fit(train, groups=train.image_ids)
results = search.cv_results_
for block, validation, unseen in zip(
    results["param_block"], results["mean_test_validation"], results["mean_test_test"], strict=True
):
    print(f"block {block}: validation {validation:.3f}, test {unseen:.3f}")
print(f"best: {search.best_params_}; fitted to the whole training tier: {search.score(test):.3f}")

# %%
# Block by block
# --------------
# A block in the middle is best, and the test images, which did not choose, agree. It is the best of
# this transformer: another size, or another training, may bring another block to the front.

blocks = results["param_block"].astype(int)
color = MODEL_COLORS["ViT"]
fig, ax = plt.subplots(figsize=(4.5, 3.4), layout="constrained")
ax.plot(blocks, results["mean_test_validation"], "o-", color=color, label="validation")
ax.plot(blocks, results["mean_test_test"], "o--", color=color, mfc="w", label="test")
ax.axvline(search.best_params_["block"], color="0.5", lw=1, ls=":", label="chosen")
ax.set(xlabel="block, from 0", ylabel="single-trial correlation", xticks=blocks)
ax.set_ylim(0)
ax.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

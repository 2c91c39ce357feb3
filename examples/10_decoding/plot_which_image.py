"""
Which image did the mouse see?
==============================

An encoding model goes from images to neurons. `DINAAligner` brings both to feature maps of one
shape, so that the image is found whose map is most like that of the responses: in a gallery of
images that nobody trained on (Wang et al., 2026).
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Align images and responses
# --------------------------
# Neurons of a simulated mouse see what is coarse in images: here up to 4 cycles per image height.
# Half of them see nothing at all. Test images are shown twice, and stay out of the training with
# all their repeats.

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.decoding import reconstruct_by_retrieval
from v1tlearn.inspection import RetrievalDisplay

recordings = v1.make_coarse_recordings(
    n_neurons=150,
    n_trials=700,
    n_test_images=60,
    image_shape=(24, 36),
    cutoff=4.0,
    explainable_variance=0.7,
    random_state=0,
)
trials = v1.Trials(recordings)
train, validation, test = (trials.sel(tier=tier) for tier in ("train", "validation", "test"))

aligner = v1.DINAAligner(
    map_size=(12, 18),
    map_channels=8,
    hidden_channels=16,
    image_lr=3e-3,
    neural_lr=1e-3,
    max_epochs=15,
    random_state=0,
).fit(train, validation=validation)
print(f"{aligner.score(test):.0%} of {len(np.unique(test.image_ids))} images found, chance is 2 %")

# %%
# Look for images
# ---------------
# The image that was seen, and the five whose maps are most like that of the responses. A frame
# marks the right one.

RetrievalDisplay.from_estimator(aligner, test, n_trials=4)
plt.show()

# %%
# Reconstruct images
# ------------------
# Three ways back to pixels: a ridge regression from responses; a linear probe, which reads pixels
# from the maps of the responses; and the mean of the five training images that are closest in the
# space of the alignment. None shows what the neurons do not see: fine detail.

ridge = v1.RidgeDecoder().fit(train)
probe = v1.LinearProbe("pixels", aligner=aligner).fit(train)
closest = reconstruct_by_retrieval(aligner, test, train, k=5)

few = [0, 20, 40, 60]
rows = {
    "seen": test.get("stimuli", "A")[few],
    "ridge": ridge.predict(test).values[few],
    "probe": probe.predict(test).values[few],
    "closest": closest.values[few],
}
fig, axes = plt.subplots(len(rows), len(few), figsize=(7, 4.8), layout="constrained")
for row, (name, images) in zip(axes, rows.items(), strict=True):
    for ax, image in zip(row, images, strict=True):
        ax.imshow(image[0], cmap="gray")
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
plt.show()

# %%
# How good is it?
# ---------------
# `decoding_table` has all measures with intervals over images, what shuffled pairs give, and as a
# ceiling how well the two responses to an image find each other. An alignment finds images that
# decoded pixels do not tell apart, since it is trained to tell images apart, not to paint them.

decoders = {"alignment": aligner, "probe": probe, "ridge": ridge, "closest": closest}
table = v1.decoding_table(decoders, test, gallery_sizes=(10,), n_bootstrap=300, n_permutations=200)
of_images = table[table.direction == "response_to_image"]
wanted = ["top_1", "median_rank", "two_way_identification", "pixel_correlation"]
shown = of_images[of_images.metric.isin(wanted) & (of_images.gallery_size != 10).fillna(True)]
columns = ["model", "metric", "value", "low", "high", "null", "ceiling"]
print(shown[columns].to_string(index=False, float_format="{:.2f}".format, na_rep="-"))

# %%
# The smaller the gallery, the easier the task: compare scores at one size. What smaller galleries
# would give follows from the ranks in the whole one.

sizes = [2, 5, 10, 20, 40, 60]
table = v1.decoding_table(
    {name: decoders[name] for name in ("alignment", "ridge")},
    test,
    gallery_sizes=sizes,
    n_bootstrap=300,
    n_permutations=0,
)
fig, ax = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
top = table[(table.metric == "top_1") & (table.direction == "response_to_image")]
for (name, of), color in zip(top.groupby("model", sort=False), ["#d55e00", "#0072b2"], strict=True):
    size = of.gallery_size.astype(int)
    ax.plot(size, of.value, "o-", color=color, label=name)
    ax.fill_between(size, of.low, of.high, color=color, alpha=0.2, lw=0)
ax.plot(size, of.chance, color="0.5", lw=1, label="chance")
ax.set(xlabel="images in the gallery", ylabel="images found (top-1)", ylim=(0, 1.02))
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)
plt.show()

"""
Can a model be fitted to recordings that are larger than memory?
================================================================

Recordings lie in one netCDF file, whose trials are read when they are needed. Does a fit from the
file take memory that grows with the recording, and is it the same model?
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Files
# -----
# Four recordings of one mouse, as large as the published images: 144 x 256 pixels, which the model
# makes smaller batch by batch. Here they are enlarged from small ones, since only their size
# matters.

import json
import tempfile
import tracemalloc
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import v1tlearn as v1
from v1tlearn.inspection import MODEL_COLORS

SIZES = (125, 250, 500, 1000)
folder = Path(tempfile.mkdtemp())
recording = v1.make_v1_recordings(
    n_mice=1,
    n_neurons=50,
    n_trials=max(SIZES),
    n_test_images=5,
    n_repeats=4,
    image_shape=(18, 32),
    random_state=0,
)["A"].to_dataset()
large = np.kron(recording["stimuli"].values, np.ones((8, 8), np.uint8))
recording["stimuli"] = recording["stimuli"].dims, large
tier = recording["tier"].values
train, test = np.flatnonzero(tier == "train"), np.flatnonzero(tier == "test")
v1.save_recordings({"A": recording.isel(trial=test)}, folder / "test.nc")
for n in SIZES:
    v1.save_recordings({"A": recording.isel(trial=train[:n])}, folder / f"{n}.nc")
of_images = {n: recording["stimuli"][train[:n]].nbytes / 2**20 for n in SIZES}
del recording, large

# %%
# Read before, or step by step
# ----------------------------
# ``Trials.open`` reads labels only. By itself ``fit`` keeps the trials in memory, or on the GPU,
# where they fit with room to spare, and otherwise reads them step by step, some steps ahead of the
# model. ``low_memory`` forces either. Memory is counted as the most that tensors hold at a time, as
# torch's profiler tells, and arrays, as ``tracemalloc`` tells: so it is the same on every machine.

WAYS = {"in memory": False, "from the file": True}


def fit(n, low_memory):
    """A small CNN, and the megabytes that its fit held at a time."""
    model = v1.CNNRegressor(
        n_layers=2,
        hidden_channels=4,
        input_kernel=7,
        hidden_kernel=3,
        image_size=(18, 32),
        max_epochs=1,
        batch_size=32,
        validation_fraction=0,
        low_memory=low_memory,
        device="cpu",
        random_state=0,
    )
    tracemalloc.start()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        model.fit(v1.Trials.open(folder / f"{n}.nc"))
    of_arrays = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    profile.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    of_tensors = max(e["args"]["Total Allocated"] for e in events if e.get("name") == "[memory]")
    return model, (of_tensors + of_arrays) / 2**20


fit(SIZES[0], True)  # what is imported at first use is not counted
fits = {(way, n): fit(n, low_memory) for way, low_memory in WAYS.items() for n in SIZES}
for n in SIZES:
    held = ", ".join(f"{fits[way, n][1]:.0f} MB {way}" for way in WAYS)
    print(f"{n} images, {of_images[n]:.0f} MB: {held}")

# %%
# The same model
# --------------

test = v1.Trials.open(folder / "test.nc")
one, other = (fits[way, SIZES[-1]][0].predict(test)["A"].values for way in WAYS)
print(f"largest difference of predictions: {np.abs(one - other).max():.1e}")

# %%
# Memory
# ------
# In memory it grows with the recording, by the bytes of the images. From the file it levels off, at
# the blocks in which statistics are read before the first epoch, and the batches of the next steps.
# What remains are responses and labels, which are small beside images.

figure, ax = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
styles = {"in memory": ("0.45", "s"), "from the file": (MODEL_COLORS["CNN"], "o")}
for way, (color, marker) in styles.items():
    held = [fits[way, n][1] for n in SIZES]
    ax.plot(SIZES, held, color=color, marker=marker, lw=1.8)
    ax.annotate(
        way, (SIZES[-1], held[-1]), (0, 7), textcoords="offset points", ha="right", color=color
    )
ax.set(xlabel="trials in the file", ylabel="arrays held by the fit (MB)")
ax.set_xlim(0, 1.05 * SIZES[-1])
ax.set_ylim(0, 1.2 * max(held for _, held in fits.values()))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

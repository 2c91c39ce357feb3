"""
How long may a movie be?
========================

Recordings of movies go on for hours. Does predicting them take memory that grows with their length?
Not if they lie in a file and models look back a known number of frames: then movies are read and
predicted in parts, each with what the layers of the model remember of those before.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# A model of short movies
# -----------------------
# Sixty movies of three seconds are enough for a small network. It looks 14 frames back.

import json
import tempfile
import tracemalloc
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import v1tlearn as v1
from v1tlearn.inspection import MODEL_COLORS, MoviePredictionDisplay

world = {"n_neurons": 12, "image_shape": (18, 32), "behavior": False, "cells": "retina"}
world |= {"random_state": 0}
trials = v1.Trials(v1.make_movie_recordings(1, n_movies=60, n_frames=90, noise=0.5, **world))
model = v1.MovieCNNRegressor(
    n_layers=2,
    hidden_channels=8,
    input_kernel=7,
    hidden_kernel=3,
    hidden_time_kernel=5,
    lr=0.01,
    batch_size=4,
    max_epochs=8,
    random_state=0,
).fit(trials.sel(tier="train"), validation=trials.sel(tier="validation"))
print(f"the model looks {model.module_.context_frames[0]} frames back")

# %%
# A long movie in a file
# ----------------------
# The same cells see fifteen minutes of movie. ``save_recordings`` stores it in chunks of two
# seconds, and ``open_recordings`` reads nothing before it is used. ``isel`` of xarray, which cuts
# off a beginning here, does not read either.

folder = Path(tempfile.mkdtemp())
minutes = v1.make_movie_recordings(
    1, n_movies=2, n_test_movies=1, n_repeats=1, n_frames=15 * 60 * 30, noise=0.5, **world
)
v1.save_recordings(minutes, folder / "long.nc")
del minutes
stored = v1.open_recordings(folder / "long.nc")["A"].to_dataset().isel(trial=[0])


def beginning(n_frames):
    """Trials of the first frames of the long movie, still in the file."""
    part = stored.isel(time=slice(n_frames))
    return v1.Trials({"A": part.assign_coords(n_frames=("trial", [n_frames]))})


print(f"{(folder / 'long.nc').stat().st_size / 2**20:.0f} MB in the file")

# %%
# In parts, and at once
# ---------------------
# ``predict`` cuts into parts by itself. Beside it stands what it is equal to: the whole movie, in
# memory, through the network in one go.


def in_parts(n_frames):
    """As `predict` does it."""
    return model.predict(beginning(n_frames))["A"].values[0]


def at_once(n_frames):
    """Read the movie, standardise it, and send it through the network."""
    known = model.statistics_["A"]
    movie = torch.as_tensor(beginning(n_frames).recordings["A"]["stimuli"].values)
    movie = (movie.float() - known["image_mean"]) / known["image_std"]
    with torch.inference_mode():
        rates = model.module_.eval()({"A": v1.nn.MouseBatch(movie)})["A"]
    return rates[0].numpy() * known["response_scale"]


# %%
# Memory is counted, not measured: what tensors hold at a time, as torch's profiler tells, and what
# arrays of numpy do, as ``tracemalloc`` tells. So it is the same on every machine.


def most_memory(predict, n_frames):
    """Megabytes that are held at a time, at most, and the predictions."""
    tracemalloc.start()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        predictions = predict(n_frames)
    of_arrays = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    profile.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    of_tensors = max(e["args"]["Total Allocated"] for e in events if e.get("name") == "[memory]")
    return (of_tensors + of_arrays) / 2**20, predictions


lengths = {in_parts: (900, 2700, 9000, 27000), at_once: (900, 2700, 9000)}
memory, predicted = {}, {}
for predict, some in lengths.items():
    for n_frames in some:
        memory[predict, n_frames], predicted[predict, n_frames] = most_memory(predict, n_frames)
for n_frames in lengths[at_once]:
    one, other = predicted[in_parts, n_frames], predicted[at_once, n_frames]
    difference = np.abs(one - other).max() / other.std()
    print(
        f"{n_frames / 1800:4.1f} min: in parts {memory[in_parts, n_frames]:4.0f} MB, "
        f"at once {memory[at_once, n_frames]:4.0f} MB, largest difference {difference:.0e} of the "
        "standard deviation"
    )
print(f"{27000 / 1800:4.1f} min: in parts {memory[in_parts, 27000]:4.0f} MB")

# %%
# Flat
# ----
# At once, memory is that of all feature maps of the movie, 40 kB per frame. In parts it is that of
# the maps of one part, and what grows is some hundred bytes per frame: predictions and labels.

fig, ax = plt.subplots(figsize=(5.4, 3.6), layout="constrained")
styles = {at_once: ("0.45", "s", "at once"), in_parts: (MODEL_COLORS["CNN"], "o", "in parts")}
for predict, (color, marker, label) in styles.items():
    x = np.array(lengths[predict]) / 1800
    y = [memory[predict, n_frames] for n_frames in lengths[predict]]
    ax.plot(x, y, marker=marker, color=color, lw=1.8)
    ax.annotate(label, (x[-1], y[-1]), (0, 8), textcoords="offset points", ha="right", color=color)
ax.set(xlabel="length of the movie (min)", ylabel="memory for predictions (MB)")
ax.set_xlim(0, 15.5)
ax.set_ylim(0, 1.12 * max(memory.values()))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# What is predicted
# -----------------
# The first ten seconds. The responses are those of a single trial; the true rates are known, since
# cells are simulated. Eight epochs are few: most cells are found, neuron 5 is not.

start = beginning(300)
shown = {"CNN": model.predict(start), "true rates": start.expected_responses}
MoviePredictionDisplay.from_predictions(start, shown)
plt.show()

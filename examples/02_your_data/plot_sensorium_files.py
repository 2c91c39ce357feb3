"""
How do I fit files of Sensorium?
================================

The Sensorium 2022 and Franke 2022 recordings come as one folder, or zip, per mouse with four small
files per trial. They are read once, checked, and kept as one netCDF file, from which models are
fitted without loading everything into memory.

Here the folders are written from simulated recordings. For the real ones, replace them by::

    paths = v1.fetch_sensorium2022(mice=["A", "B"])
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# The files as they are published
# -------------------------------

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import ImageDisplay, PredictionDisplay
from v1tlearn.metrics import average_correlation

folder = Path(tempfile.mkdtemp())
simulated = v1.make_v1_recordings(
    n_mice=2,
    n_neurons=150,
    n_trials=500,
    n_test_images=20,
    n_repeats=5,
    image_shape=(15, 24),
    explainable_variance=0.6,
    random_state=0,
)
v1.write_sensorium(simulated, folder / "sensorium")
for path in sorted((folder / "sensorium").glob("*/*"))[:6]:
    print(path.relative_to(folder))

# %%
# Read, check, store
# ------------------
# ``read_sensorium`` takes one mouse, a list of them, or the folder that holds them, as folders or
# zips. The trials stay in the order of the files; ``trial_id`` has their order in time.

recordings = v1.read_sensorium(folder / "sensorium")
v1.validate_recordings(recordings)
v1.save_recordings(recordings, folder / "recordings.nc")
print(recordings[next(iter(recordings.children))])

# %%
# Fit from the file
# -----------------
# The trials are views into the file: nothing is read until it is used.

trials = v1.Trials.open(folder / "recordings.nc")
model = v1.CNNRegressor(
    n_layers=2,
    hidden_channels=16,
    input_kernel=7,
    hidden_kernel=5,
    gaussian="isotropic",
    readout_bias="mean",
    lr=0.006,
    batch_size=16,
    max_epochs=10,
    random_state=0,
)
model.fit(trials.sel(tier="train"), validation=trials.sel(tier="validation"))
test = trials.sel(tier="test")
print(f"single-trial correlation on the test tier: {model.score(test):.3f}")

# %%
# Images and what is predicted
# ----------------------------
# Images of the first test trials, with what is known of them.

ImageDisplay.from_trials(test, labels=("image_id", "tier"), behaviors=["running_speed"])
plt.show()

# %%
# Neuron by neuron
# ----------------
# The labels are still there: unit ids and cortical positions come back with the recording. On the
# left the neurons in the cortex, on the right one that is predicted better than four fifths of the
# others: a dot is an image, the mean over its repeats.

mouse = trials.mice[0]
of_mouse = test.sel(mouse_id=mouse)
recorded, predicted = of_mouse.responses, model.predict(of_mouse)
per_neuron = np.asarray(average_correlation(recorded, predicted, multioutput="raw_values"))
good = recordings[mouse]["neuron"].values[per_neuron.argsort()[len(per_neuron) * 4 // 5]]
position = recordings[mouse]["position"].values

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
points = left.scatter(*position[:, :2].T, c=per_neuron, s=30, alpha=0.8, lw=0)
left.set(xlabel="cortex x (µm)", ylabel="cortex y (µm)", title=f"Mouse {mouse}", aspect="equal")
fig.colorbar(points, ax=left, label="correlation to average")
PredictionDisplay.from_predictions(recorded, {"CNN": predicted}, neuron=good, ax=right)
plt.show()

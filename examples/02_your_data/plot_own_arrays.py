"""
How do I fit my own arrays?
===========================

A lab has arrays, not labelled recordings. Four forms are understood, and predictions come back in
the form in which the question was put: a dict per mouse, a list per recording, flat arrays with one
mouse id per trial, or the plain arrays of one mouse.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Arrays
# ------
# Two mice, different numbers of neurons: images ``(trials, channels, height, width)``, responses
# ``(trials, neurons)``, and three columns of behaviour, which without names are taken as pupil
# dilation, its derivative and running speed. Here the numbers come from the simulator.

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import MODEL_COLORS
from v1tlearn.metrics import single_trial_correlation

recordings = v1.make_v1_recordings(
    n_mice=2,
    n_neurons=[60, 100],
    n_trials=300,
    n_test_images=20,
    n_repeats=5,
    image_shape=(15, 24),
    explainable_variance=0.6,
    random_state=0,
)
stimuli, behaviors, responses = {}, {}, {}
for mouse, recording in recordings.children.items():
    stimuli[mouse] = recording["stimuli"].values
    behaviors[mouse] = recording["behaviors"].values[:, :3]
    responses[mouse] = recording["responses"].values
    print(mouse, stimuli[mouse].shape, behaviors[mouse].shape, responses[mouse].shape)

settings = {
    "n_layers": 2,
    "hidden_channels": 16,
    "input_kernel": 7,
    "hidden_kernel": 5,
    "gaussian": "isotropic",
    "readout_bias": "mean",
    "lr": 0.006,
    "batch_size": 16,
    "max_epochs": 2,
    "random_state": 0,
}

# %%
# Dicts
# -----

model = v1.CNNRegressor(**settings).fit(stimuli, behaviors, responses)
answer = model.predict(
    {"A": stimuli["A"][:5], "B": stimuli["B"][:3]},
    {"A": behaviors["A"][:5], "B": behaviors["B"][:3]},
)
print({mouse: values.shape for mouse, values in answer.items()})

# %%
# Lists
# -----
# One entry per recording, and one id for each.

model = v1.CNNRegressor(**settings).fit(
    list(stimuli.values()), list(behaviors.values()), list(responses.values()), ["A", "B"]
)
answer = model.predict([stimuli["B"][:3]], [behaviors["B"][:3]], ["B"])
print([values.shape for values in answer])

# %%
# Flat arrays
# -----------
# The trials of all mice in any order, one mouse id per trial. Responses are vectors of different
# lengths, or a matrix whose missing columns are NaN.

images = np.concatenate(list(stimuli.values()))
behavior = np.concatenate(list(behaviors.values()))
mouse_ids = np.repeat(list(stimuli), [len(values) for values in stimuli.values()])
vectors = [row for values in responses.values() for row in values]

order = np.random.default_rng(0).permutation(len(images))
model = v1.CNNRegressor(**settings).fit(
    images[order], behavior[order], [vectors[i] for i in order], mouse_ids[order]
)
answer = model.predict(images[order][:4], behavior[order][:4], mouse_ids[order][:4])
print([(str(mouse), row.shape) for mouse, row in zip(mouse_ids[order][:4], answer, strict=True)])

# %%
# One mouse
# ---------
# Trained for longer than those above, which only show the forms.

model = v1.CNNRegressor(**{**settings, "max_epochs": 20}).fit(
    stimuli["A"], behaviors["A"], responses["A"]
)
predicted = model.predict(stimuli["A"], behaviors["A"])
score = model.score(stimuli["A"], behaviors["A"], responses["A"])
print(predicted.shape, f"correlation {score:.3f}")

# %%
# From arrays to labels
# ---------------------
# :meth:`~v1tlearn.Trials.from_arrays` takes the same forms. With labels, trials can be selected,
# searched and stored. Without image ids, equal images are recognised by their content.

trials = v1.Trials.from_arrays(stimuli, behaviors, responses)
images, counts = np.unique(trials.image_ids, return_counts=True)
print(f"{len(trials)} trials of {len(images)} images, one of them shown {counts.max()} times")

# %%
# Recorded and predicted
# ----------------------
# The neuron that is predicted best; without a unit id it goes by its place. These are trials of the
# fit, which a model predicts better than others.

per_neuron = single_trial_correlation(responses["A"], predicted, multioutput="raw_values")
neuron = int(np.argmax(per_neuron.values))
fig, ax = plt.subplots(figsize=(5, 2.8), layout="constrained")
ax.plot(responses["A"][:60, neuron], color=MODEL_COLORS["recorded"], lw=1, label="recorded")
ax.plot(predicted[:60, neuron], color=MODEL_COLORS["CNN"], label="CNN")
ax.set(xlabel="trial", ylabel="response (a.u.)")
ax.set_title(f"Mouse A, neuron at place {neuron}", loc="left", fontsize="medium")
ax.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

"""
Which of the four models predicts best?
=======================================

LN, CNN, ViT and V1T are fitted to the same simulated mice and scored on held-out, repeated images.
Because the recordings are simulated, the true rate behind every response is known, and with it the
best score that any model could reach.

If ``make demo`` has run, its models, which train longer on more trials, are loaded instead.
"""

# %%
# Recordings
# ----------
# Two mice saw natural-like images; some of them repeatedly, and those are the test tier.

from pathlib import Path

import matplotlib.pyplot as plt

import v1tlearn as v1
from v1tlearn.metrics import average_correlation, single_trial_correlation

# From the root of the repository, or from the folder of this script.
demo = Path("demo_output") if Path("demo_output").exists() else Path("../demo_output")
fitted_by_demo = (demo / "recordings.nc").exists()

if fitted_by_demo:
    recordings = v1.open_recordings(demo / "recordings.nc")
else:
    recordings = v1.make_v1_recordings(
        n_mice=2,
        n_neurons=60,
        n_trials=800,
        n_test_images=20,
        n_repeats=10,
        image_shape=(18, 32),
        explainable_variance=0.5,
        random_state=0,
    )
trials = v1.Trials(recordings)
train, validation = trials.sel(tier="train"), trials.sel(tier="validation")
test = trials.sel(tier="test")
print(f"{len(train)} trials to fit, {len(test)} to score; neurons per mouse: {trials.n_neurons}")

# %%
# Models
# ------
# The published sizes are made for thousands of images. These are smaller, less penalised, and
# trained briefly.

common = {"batch_size": 16, "random_state": 0}
convolutional = {
    "n_layers": 2,
    "hidden_channels": 16,
    "input_kernel": 7,
    "hidden_kernel": 5,
    "laplace": 0.1,
    "max_epochs": 20,
    **common,
}
transformer = {
    "patch_size": 6,
    "patch_stride": 3,
    "n_blocks": 2,
    "n_heads": 2,
    "embed_dim": 48,
    "mlp_dim": 96,
    "core_l1": 0.0,
    "patch_dropout": 0.0,
    "attention_dropout": 0.0,
    "mlp_dropout": 0.0,
    "lr": 0.003,
    "max_epochs": 13,
    **common,
}
models = {
    "LN": v1.LNRegressor(**convolutional),
    "CNN": v1.CNNRegressor(**convolutional),
    "ViT": v1.ViTRegressor(**transformer),
    "V1T": v1.V1TRegressor(**transformer),
}
for name, model in models.items():
    if fitted_by_demo:
        models[name] = type(model).load(demo / "models" / name, device="cpu")
    else:
        model.fit(train, validation=validation)

# %%
# Scores
# ------
# The share of the oracle is the single-trial correlation divided by that of the true rates.

ceiling = single_trial_correlation(test.responses, test.expected_responses)
predictions = {name: model.predict(test) for name, model in models.items()}
print("       single trial   to average   share of oracle")
for name, predicted in predictions.items():
    reached = single_trial_correlation(test.responses, predicted)
    average = average_correlation(test.responses, predicted)
    print(f"{name:>4}   {reached:12.3f} {average:12.3f} {reached / ceiling:16.0%}")

# %%
# Training curves
# ---------------
# ``history_`` holds one record per epoch.

fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
for name, model in models.items():
    epochs = [record["epoch"] for record in model.history_]
    ax.plot(epochs, [record["validation_correlation"] for record in model.history_], label=name)
ax.set(xlabel="epoch", ylabel="validation correlation")
ax.legend(frameon=False)
plt.show()

# %%
# Neuron by neuron
# ----------------
# Every point is a neuron. Below the diagonal: predicted worse than the truth would be.

mouse = trials.mice[0]
of_mouse = test.sel(mouse_id=mouse)
oracle = single_trial_correlation(
    of_mouse.responses, of_mouse.expected_responses, multioutput="raw_values"
)
fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
for name in ("LN", "V1T"):
    per_neuron = single_trial_correlation(
        of_mouse.responses, models[name].predict(of_mouse), multioutput="raw_values"
    )
    ax.plot(oracle, per_neuron, ".", label=name)
ax.axline((0, 0), slope=1, color="0.7", lw=1, zorder=0)
ax.set(xlabel="oracle", ylabel="model", title=f"Single-trial correlation, mouse {mouse}")
ax.legend(frameon=False)
plt.show()

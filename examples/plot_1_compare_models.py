"""
Which model predicts best?
==========================

LN, CNN and V1T are fitted to the same simulated mice and scored on held-out, repeated images.
Because the recordings are simulated, the true rate behind every response is known, and with it the
best score that any model could reach.

If ``make demo`` has run, its models, fitted to more neurons and trials, are loaded instead.
"""

# %%
# Recordings
# ----------
# Two mice saw natural-like images; some of them repeatedly, and those are the test tier.

from pathlib import Path

import matplotlib.pyplot as plt

import v1tlearn as v1
from v1tlearn.inspection import PredictionDisplay, ScoreDisplay, TrainingDisplay
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
        n_trials=900,
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
# trained briefly: enough for the CNN and V1T, while LN would gain more with more epochs.

common = {
    "batch_size": 16,
    "readout_bias": "mean",
    "readout_l1": 0.003,
    "lr_patience": 1,
    "max_lr_drops": 1,
    "random_state": 0,
}
convolutional = {"hidden_channels": 16, "laplace": 0.1}
models = {
    "LN": v1.LNRegressor(
        n_layers=1,
        input_kernel=13,
        lr=0.003,
        max_epochs=12,
        **{**common, **convolutional, "readout_l1": 0.0},
    ),
    "CNN": v1.CNNRegressor(
        n_layers=2,
        input_kernel=7,
        hidden_kernel=5,
        lr=0.012,
        max_epochs=14,
        **common,
        **convolutional,
    ),
    "V1T": v1.V1TRegressor(
        patch_size=6,
        patch_stride=3,
        n_blocks=2,
        n_heads=2,
        embed_dim=48,
        mlp_dim=96,
        core_l1=0.0,
        patch_dropout=0.0,
        attention_dropout=0.0,
        mlp_dropout=0.0,
        lr=0.004,
        max_epochs=12,
        **common,
    ),
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
# The same scores of every mouse, and of every neuron against the oracle: below the diagonal it is
# predicted worse than the truth would be. Dots of one neuron stand above each other.

score = ScoreDisplay.from_estimator(models, test)
score.plot(kind="scatter")
plt.show()

# %%
# Training curves
# ---------------
# ``history_`` holds one record per epoch. A dot marks the epoch whose weights were kept.

TrainingDisplay.from_estimator(models)
plt.show()

# %%
# Recorded and predicted
# ----------------------
# The neuron of the first mouse that the best model predicts best. A dot is an image, the mean over
# its repeats; responses vary from one repeat to the next, so that no model has all on the line.

mouse, best = trials.mice[0], score.best_
units = recordings[mouse]["neuron"].values
neuron = units[score.scores[best][mouse].argmax()]
PredictionDisplay.from_predictions(
    test.responses, {best: predictions[best]}, mouse_id=mouse, neuron=neuron
)
plt.show()

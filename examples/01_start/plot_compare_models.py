"""
Which model predicts best?
==========================

LN, CNN and V1T are fitted to the same simulated mice and scored on held-out, repeated images.
Because the recordings are simulated, the true rate behind every response is known, and with it the
best score that any model could reach.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Recordings
# ----------
# Two mice saw natural-like images; some of them repeatedly, and those are the test tier.

import matplotlib.pyplot as plt

import v1tlearn as v1
from v1tlearn.inspection import PredictionDisplay, ScoreDisplay, TrainingDisplay
from v1tlearn.metrics import average_correlation, single_trial_correlation

recordings = v1.make_v1_recordings(
    n_mice=2,
    n_neurons=100,
    n_trials=500,
    n_test_images=20,
    n_repeats=10,
    image_shape=(15, 24),
    explainable_variance=0.6,
    random_state=0,
)
trials = v1.Trials(recordings)
train, validation = trials.sel(tier="train"), trials.sel(tier="validation")
test = trials.sel(tier="test")
print(f"{len(train)} trials to fit, {len(test)} to score; neurons per mouse: {trials.n_neurons}")

# %%
# Models
# ------
# The published sizes are made for thousands of images. These are smaller, and trained briefly:
# with more epochs all would gain, LN the most.

common = {"gaussian": "isotropic", "readout_bias": "mean"}
common |= {"lr": 0.006, "batch_size": 16, "max_epochs": 10, "random_state": 0}
models = {
    "LN": v1.LNRegressor(
        n_layers=1,
        hidden_channels=16,
        input_kernel=9,
        **common,
    ),
    "CNN": v1.CNNRegressor(
        n_layers=2,
        hidden_channels=16,
        input_kernel=7,
        hidden_kernel=5,
        **common,
    ),
    "V1T": v1.V1TRegressor(
        patch_size=6,
        patch_stride=3,
        n_blocks=1,
        n_heads=2,
        embed_dim=32,
        mlp_dim=64,
        patch_dropout=0.0,
        attention_dropout=0.0,
        mlp_dropout=0.0,
        **common,
    ),
}
for model in models.values():
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
# A neuron of the first mouse that the best model predicts better than four fifths of the others. A
# dot is an image, the mean over its repeats; responses vary from one repeat to the next, so that no
# model has all on the line.

mouse, best = trials.mice[0], score.best_
units = recordings[mouse]["neuron"].values
neuron = units[score.scores[best][mouse].argsort()[len(units) * 4 // 5]]
PredictionDisplay.from_predictions(
    test.responses, {best: predictions[best]}, mouse_id=mouse, neuron=neuron
)
plt.show()

"""Draw the figure of the landing page and print the scores in it.

``python docs/landing_figure.py`` takes some minutes on two cores and writes
``docs/_static/landing.png``. Everything in it comes from simulated recordings.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

import v1tlearn as v1
from v1tlearn.inspection import model_color
from v1tlearn.metrics import average_correlation, single_trial_correlation

OUTPUT = Path(__file__).parent / "_static" / "landing.png"
COMMON = {"batch_size": 16, "readout_bias": "mean", "random_state": 0}
COMMON |= {"penalty_scale": "absolute"}
CONVOLUTIONAL = {"n_layers": 2, "hidden_channels": 16, "input_kernel": 7, "hidden_kernel": 5}
CONVOLUTIONAL |= {"laplace": 0.1, "max_epochs": 25, **COMMON}
TRANSFORMER = {"patch_size": 6, "patch_stride": 3, "n_blocks": 2, "n_heads": 2, "embed_dim": 48}
TRANSFORMER |= {"mlp_dim": 96, "core_l1": 0.0, "patch_dropout": 0.0, "attention_dropout": 0.0}
TRANSFORMER |= {"mlp_dropout": 0.0, "lr": 0.003, "max_epochs": 20, **COMMON}
MODELS = {
    "LN": v1.LNRegressor(**CONVOLUTIONAL),
    "CNN": v1.CNNRegressor(**CONVOLUTIONAL),
    "V1T": v1.V1TRegressor(**TRANSFORMER),
}


def main() -> None:
    """Simulate, fit, score and draw."""
    recordings = v1.make_v1_recordings(
        n_mice=2, n_neurons=100, n_trials=2000, image_shape=(18, 32), random_state=0
    )
    trials = v1.Trials(recordings)
    train, validation, test = (trials.sel(tier=t) for t in ("train", "validation", "test"))
    predictions = {"oracle": test.expected_responses}
    for name, model in MODELS.items():
        predictions[name] = model.fit(train, validation=validation).predict(test)
    scores = {k: single_trial_correlation(test.responses, p) for k, p in predictions.items()}
    print({name: round(float(score), 3) for name, score in scores.items()})

    mouse = trials.mice[0]
    of_mouse = test.sel(mouse_id=mouse)
    recorded = of_mouse.responses[mouse].groupby("image_id")
    predicted = MODELS["CNN"].predict(of_mouse)
    # one neuron that is typical of the better half
    per_neuron = np.asarray(
        average_correlation(of_mouse.responses, predicted, multioutput="raw_values")
    )
    neuron = int(np.argsort(per_neuron)[int(0.8 * len(per_neuron))])
    mean, spread = recorded.mean()[:, neuron], recorded.std(ddof=1)[:, neuron]
    repeats = recorded.count()[:, neuron]
    model = predicted[mouse].groupby("image_id").mean()[:, neuron]

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    fig = plt.figure(figsize=(9.6, 3.0), layout="constrained")
    left, middle, right = fig.subfigures(1, 3, width_ratios=[0.9, 1.5, 1.1])
    left.suptitle("images", size=11)
    for ax, i in zip(left.subplots(3, 1), (0, 1, 2), strict=True):
        ax.imshow(train.recordings[mouse]["stimuli"].values[i, 0], cmap="gray", vmin=0, vmax=255)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)

    middle.suptitle(f"responses of a neuron (r = {per_neuron[neuron]:.2f})", size=11)
    ax = middle.subplots()
    order = np.argsort(model.values)[::-1]
    x = np.arange(1, len(order) + 1)
    error = (spread / np.sqrt(repeats)).values[order]
    ax.errorbar(x, mean.values[order], error, fmt="o", ms=3, lw=0.8, color="0.45", label="recorded")
    ax.plot(x, model.values[order], color=model_color("CNN"), lw=2, label="CNN")
    ax.set(xlabel="held-out image, by prediction", ylabel="response (a.u.)")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, loc="upper right")

    right.suptitle("correlation with single trials", size=11)
    ax = right.subplots()
    for at, name in enumerate(MODELS):
        ax.bar(at, scores[name], width=0.6, color=model_color(name))
        ax.annotate(f"{scores[name]:.2f}", (at, scores[name]), ha="center", va="bottom")
    ax.axhline(scores["oracle"], color=model_color("oracle"), lw=1, ls="--")
    ax.annotate(
        f"true rates: {scores['oracle']:.2f}",
        (2.4, scores["oracle"]),
        (0, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
    )
    ax.set(xticks=range(len(MODELS)), xticklabels=MODELS, xlim=(-0.6, 2.6))
    ax.set_ylim(0, 1.2 * scores["oracle"])
    fig.savefig(OUTPUT, dpi=150)


if __name__ == "__main__":
    main()

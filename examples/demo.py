"""
Fit LN, CNN, ViT and V1T to simulated mice, print a table of scores and draw a figure.

``make demo`` runs this in under five minutes on two cores. Recordings, models, table and figure
are left in ``demo_output/``; the gallery picks the models up from there.
"""

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import v1tlearn as v1
from v1tlearn.metrics import average_correlation, single_trial_correlation

# Smaller than the published sizes, which are made for five mice with 8,000 neurons each: images
# at half resolution, and penalties for a loss that sums over a tenth of the neurons.
COMMON = {"image_size": (18, 32), "batch_size": 32, "readout_bias": "mean", "random_state": 0}
CONVOLUTIONAL = {
    **COMMON,
    "n_layers": 3,
    "hidden_channels": 32,
    "input_kernel": 7,
    "hidden_kernel": 5,
    "lr": 0.005,
    "lr_patience": 1,
}
TRANSFORMER = {
    **COMMON,
    "patch_size": 6,
    "patch_stride": 2,
    "n_blocks": 2,
    "embed_dim": 48,
    "mlp_dim": 96,
    "attention_dropout": 0.0,
    "mlp_dropout": 0.1,
    "core_l1": 0.01,
    "lr": 0.003,
    "lr_patience": 1,
}
MODELS = {
    "LN": v1.LNRegressor(**CONVOLUTIONAL, max_epochs=6),
    "CNN": v1.CNNRegressor(**CONVOLUTIONAL, max_epochs=15),
    "ViT": v1.ViTRegressor(**TRANSFORMER, max_epochs=8),
    "V1T": v1.V1TRegressor(**TRANSFORMER, max_epochs=8),
}


def main(output: Path) -> None:
    """Simulate, fit, score and draw."""
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    recordings = v1.make_v1_recordings(
        n_mice=3, n_neurons=400, n_trials=3000, n_test_images=50, n_repeats=10, random_state=0
    )
    v1.save_recordings(recordings, output / "recordings.nc")
    trials = v1.Trials(recordings)
    train, validation = trials.sel(tier="train"), trials.sel(tier="validation")
    test = trials.sel(tier="test")
    print(
        f"{len(trials.mice)} mice, {sum(trials.n_neurons.values())} neurons, {len(train)} training "
        f"trials; simulated in {time.perf_counter() - start:.0f} s"
    )
    oracle = single_trial_correlation(test.responses, test.expected_responses)
    rows, predictions = {}, {}
    for name, model in MODELS.items():
        start = time.perf_counter()
        model.set_params(verbose=1).fit(train, validation=validation)
        seconds = time.perf_counter() - start
        model.save(output / "models" / name)
        predictions[name] = model.predict(test)
        reached = single_trial_correlation(test.responses, predictions[name])
        rows[name] = {
            "single-trial correlation": reached,
            "correlation to average": average_correlation(test.responses, predictions[name]),
            "share of the oracle": reached / oracle,
            "seconds": seconds,
        }
    rows["oracle"] = {
        "single-trial correlation": oracle,
        "correlation to average": average_correlation(test.responses, test.expected_responses),
        "share of the oracle": 1.0,
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.to_csv(output / "scores.csv", index_label="model")
    print("\nHeld-out images, each shown ten times; means over neurons, then over mice")
    formats = {
        "single-trial correlation": "{:.3f}".format,
        "correlation to average": "{:.3f}".format,
        "share of the oracle": "{:.0%}".format,
        "seconds": "{:.0f}".format,
    }
    print(table.to_string(formatters=formats, na_rep=""))
    draw(predictions["V1T"], test, output / "demo.png")
    print(f"\nFigure, table and models are in {output}/")


def draw(predicted: v1.Responses, test: v1.Trials, path: Path) -> None:
    """Predicted against recorded responses of one neuron and of all, and the training curves."""
    mouse = test.mice[0]
    recorded_images = test.responses[mouse].groupby("image_id").mean()
    predicted_images = predicted[mouse].groupby("image_id").mean()
    per_neuron = average_correlation(
        test.sel(mouse_id=mouse).responses,
        predicted[np.flatnonzero(predicted.mouse_ids == mouse)],
        multioutput="raw_values",
    )
    neuron = int(np.argsort(per_neuron)[int(0.9 * len(per_neuron))])
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    axes[0].plot(
        predicted_images[:, neuron], recorded_images[:, neuron], "o", ms=4, color="tab:blue"
    )
    axes[0].axline((0, 0), slope=1, color="0.7", lw=1, zorder=0)
    axes[0].set(
        xlabel="predicted response (a.u.)",
        ylabel="recorded response, mean of 10 repeats (a.u.)",
        title=f"V1T, mouse {mouse}, one neuron: r = {per_neuron[neuron]:.2f}",
    )
    axes[1].hist(per_neuron, bins=30, color="tab:blue")
    axes[1].axvline(np.mean(per_neuron), color="k", lw=1, ls="--")
    axes[1].set(
        xlabel="correlation to average",
        ylabel="neurons",
        title=f"V1T, mouse {mouse}: mean {np.mean(per_neuron):.2f}",
    )
    for name, model in MODELS.items():
        axes[2].plot(
            [record["epoch"] for record in model.history_],
            [record["validation_correlation"] for record in model.history_],
            ".-",
            label=name,
        )
    axes[2].set(xlabel="epoch", ylabel="validation correlation", title="Training")
    axes[2].legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=150)
    plt.close(fig)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    main(parser.parse_args().output)

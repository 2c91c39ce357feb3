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
from joblib import Parallel, delayed

import v1tlearn as v1
from v1tlearn.metrics import average_correlation, single_trial_correlation

# Smaller than the published models, which are made for five mice with 8,000 neurons each: images
# at half resolution, fewer tokens and channels, and penalties for a loss that sums over an eighth
# of the neurons.
COMMON = {
    "image_size": (18, 32),
    "batch_size": 32,
    "readout_bias": "mean",
    "readout_l1": 0.003,
    "lr_patience": 2,
    "warm_start": True,
    "random_state": 0,
}
CONVOLUTIONAL = {**COMMON, "hidden_channels": 32, "laplace": 1.0, "lr": 0.008}
TRANSFORMER = {**COMMON, "patch_size": 6, "patch_stride": 3, "n_blocks": 2, "n_heads": 2}
TRANSFORMER |= {"embed_dim": 64, "mlp_dim": 128, "core_l1": 0.01, "lr": 0.003}
TRANSFORMER |= {"patch_dropout": 0.0, "attention_dropout": 0.0, "mlp_dropout": 0.0}
MODELS = {
    "CNN": v1.CNNRegressor(**CONVOLUTIONAL, n_layers=3, input_kernel=7, hidden_kernel=5),
    "V1T": v1.V1TRegressor(**TRANSFORMER),
    "ViT": v1.ViTRegressor(**TRANSFORMER),
    "LN": v1.LNRegressor(**{**CONVOLUTIONAL, "hidden_channels": 16}, n_layers=1, input_kernel=13),
}
# Enough to compare, not to converge: LN gains some points more with three times the epochs.
EPOCHS = {"CNN": (10, 3), "V1T": (5, 2), "ViT": (4, 2), "LN": (6, 2)}


def fit(name: str, model, train: v1.Trials, validation: v1.Trials, path: Path):
    """Fit one model, go on at a quarter of the learning rate, and save it."""
    start = time.perf_counter()
    first, last = EPOCHS[name]
    model.set_params(max_epochs=first).fit(train, validation=validation)
    model.set_params(max_epochs=last, lr=model.lr / 4).fit(train, validation=validation)
    model.save(path)
    return name, model, time.perf_counter() - start


def main(output: Path, seed: int) -> None:
    """Simulate, fit, score and draw."""
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    recordings = v1.make_v1_recordings(
        n_mice=2, n_neurons=1000, n_trials=4500, n_test_images=50, n_repeats=10, random_state=seed
    )
    v1.save_recordings(recordings, output / "recordings.nc", compression=None)
    trials = v1.Trials(recordings)
    train, validation = trials.sel(tier="train"), trials.sel(tier="validation")
    test = trials.sel(tier="test")
    print(
        f"{len(trials.mice)} mice with {trials.n_neurons} neurons, {len(train)} training trials, "
        f"{len(test)} test trials; simulated in {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    oracle = single_trial_correlation(test.responses, test.expected_responses)
    print(f"Fitting {', '.join(MODELS)}, two at a time ...", flush=True)
    fits = Parallel(n_jobs=2, return_as="generator_unordered")(
        delayed(fit)(name, model, train, validation, output / "models" / name)
        for name, model in MODELS.items()
    )
    models, rows, predictions = {}, {}, {}
    for name, model, seconds in fits:
        models[name], predictions[name] = model, model.predict(test)
        reached = single_trial_correlation(test.responses, predictions[name])
        rows[name] = {
            "single-trial correlation": reached,
            "correlation to average": average_correlation(test.responses, predictions[name]),
            "share of the oracle": reached / oracle,
        }
        print(f"  {name}: {model.n_iter_} epochs in {seconds:.0f} s", flush=True)
    rows["oracle"] = {
        "single-trial correlation": oracle,
        "correlation to average": average_correlation(test.responses, test.expected_responses),
        "share of the oracle": 1.0,
    }
    table = pd.DataFrame.from_dict(rows, orient="index").loc[["LN", "CNN", "ViT", "V1T", "oracle"]]
    table.to_csv(output / "scores.csv", index_label="model")
    print("\nHeld-out images, each shown ten times; means over neurons, then over mice")
    formats = {
        "single-trial correlation": "{:.3f}".format,
        "correlation to average": "{:.3f}".format,
        "share of the oracle": "{:.1%}".format,
    }
    print(table.to_string(formatters=formats))
    draw(models, predictions["V1T"], test, output / "demo.png")
    print(f"\nFigure, table and models are in {output}/")


def draw(models: dict, predicted: v1.Responses, test: v1.Trials, path: Path) -> None:
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
    for name, model in sorted(models.items()):
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
    parser.add_argument("--seed", type=int, default=0, help="of the simulated recordings")
    arguments = parser.parse_args()
    main(arguments.output, arguments.seed)

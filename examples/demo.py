"""
Fit LN, CNN, ViT and V1T to simulated mice, print tables of scores and draw a figure.

``make demo`` runs this: LN and CNN beside the true rates after half a minute of processor time, all
four models after two. ``make demo FULL=1`` takes more neurons, trials and epochs. Recordings,
models, table and figure are left in ``demo_output/``.
"""

import argparse
import os
import threading
import time
from pathlib import Path


class Teller:
    """Prints what is said and, a second after the last line, what is being done."""

    def __init__(self, clock=time.perf_counter) -> None:
        self._clock = clock
        self._begin = self._last = self._since = clock()
        self._doing = "starting"
        self._lock = threading.Lock()  # so that every line is printed whole

    def start(self) -> None:
        """Print a line a second from now on, whatever else is printed."""
        threading.Thread(target=self._go_on, daemon=True).start()

    def say(self, text: str) -> None:
        """Print lines at once."""
        with self._lock:
            print(text, flush=True)
            self._last = self._clock()

    def do(self, what: str) -> None:
        """Print what begins now."""
        with self._lock:
            self._doing, self._since = what, self._clock()
        self.say(f"{self._since - self._begin:5.0f} s  {what} ...")

    def remind(self) -> float:
        """Print what is being done if nothing was printed for a second; seconds till the next."""
        now = self._clock()
        if now >= self._last + 1:
            self.say(f"{now - self._begin:5.0f} s  ... {self._doing} for {now - self._since:.0f} s")
        return self._last + 1 - now

    def _go_on(self) -> None:
        while True:
            time.sleep(max(0.05, self.remind()))


def processor_seconds() -> float:
    """Processor time of this process so far, all of its threads and the imports included."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    parser.add_argument("--seed", type=int, default=0, help="of the simulated recordings")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="recordings and models of a real size")
    size.add_argument("--quick", action="store_true", help="only shows that everything runs")
    return parser.parse_args()


ARGUMENTS = parse()
FORM = "full" if ARGUMENTS.full else "quick" if ARGUMENTS.quick else "short"
if FORM != "full":
    # Steps of small models are too short to be shared between threads, which then wait for one
    # another and spend processor time on it. Must be set before the import of torch.
    os.environ["OMP_NUM_THREADS"] = "1"
TELLER = Teller()
TELLER.start()
TELLER.do("importing PyTorch, scikit-learn and xarray")

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import v1tlearn as v1
from v1tlearn.inspection import PredictionDisplay, ScoreDisplay, model_color
from v1tlearn.metrics import average_correlation, single_trial_correlation

SIMULATED = {
    "quick": {
        "n_mice": 2,
        "n_neurons": 12,
        "n_trials": 60,
        "n_test_images": 6,
        "n_repeats": 4,
        "image_shape": (18, 32),
        "explainable_variance": 0.4,
    },
    "short": {
        "n_mice": 2,
        "n_neurons": 100,
        "n_trials": 1500,
        "n_test_images": 40,
        "n_repeats": 10,
        "image_shape": (18, 32),
        "explainable_variance": 0.4,
    },
    "full": {
        "n_mice": 2,
        "n_neurons": 1000,
        "n_trials": 4500,
        "n_test_images": 50,
        "n_repeats": 10,
    },
}

# Smaller than the published models, which are made for five mice with 8,000 neurons each: images
# at half resolution, fewer tokens and channels, and penalties for a loss that sums over fewer
# neurons.
COMMON = {
    "image_size": (18, 32),
    "readout_bias": "mean",
    "penalty_scale": "absolute",
    "readout_l1": 0.003,
    "warm_start": True,
    "random_state": 0,
}
TRANSFORMER = {
    "patch_size": 6,
    "patch_stride": 3,
    "n_blocks": 2,
    "n_heads": 2,
    "patch_dropout": 0.0,
    "attention_dropout": 0.0,
    "mlp_dropout": 0.0,
}
SHORT = {
    "LN": {
        "n_layers": 1,
        "hidden_channels": 16,
        "input_kernel": 11,
        "laplace": 0.1,
        "lr": 0.006,
        "batch_size": 16,
    },
    "CNN": {
        "n_layers": 2,
        "hidden_channels": 16,
        "input_kernel": 7,
        "hidden_kernel": 5,
        "laplace": 0.1,
        "lr": 0.006,
        "batch_size": 16,
    },
    "V1T": {
        **TRANSFORMER,
        "embed_dim": 48,
        "mlp_dim": 96,
        "core_l1": 0.0,
        "lr": 0.004,
        "batch_size": 16,
    },
}
FULL = {
    "LN": {
        "n_layers": 1,
        "hidden_channels": 16,
        "input_kernel": 13,
        "laplace": 1.0,
        "lr": 0.008,
        "lr_patience": 2,
        "batch_size": 32,
    },
    "CNN": {
        "n_layers": 3,
        "hidden_channels": 32,
        "input_kernel": 7,
        "hidden_kernel": 5,
        "laplace": 1.0,
        "lr": 0.008,
        "lr_patience": 2,
        "batch_size": 32,
    },
    "V1T": {
        **TRANSFORMER,
        "embed_dim": 64,
        "mlp_dim": 128,
        "core_l1": 0.01,
        "lr": 0.003,
        "lr_patience": 2,
        "batch_size": 32,
    },
}
SHORT["ViT"], FULL["ViT"] = SHORT["V1T"], FULL["V1T"]
PARAMETERS = {"quick": SHORT, "short": SHORT, "full": FULL}
CLASSES = {
    "LN": v1.LNRegressor,
    "CNN": v1.CNNRegressor,
    "ViT": v1.ViTRegressor,
    "V1T": v1.V1TRegressor,
}
# At the first learning rate, and then at a quarter of it. Enough to compare, not to converge: LN
# gains some points more with three times the epochs.
EPOCHS = {
    "quick": {"LN": (1, 1), "CNN": (1, 1), "ViT": (1, 1), "V1T": (1, 1)},
    "short": {"LN": (4, 2), "CNN": (4, 2), "ViT": (5, 2), "V1T": (4, 2)},
    "full": {"LN": (6, 2), "CNN": (10, 3), "ViT": (4, 2), "V1T": (5, 2)},
}
METRICS = {
    "single-trial correlation": single_trial_correlation,
    "correlation to average": average_correlation,
}


def simulate() -> tuple[v1.Trials, v1.Trials, v1.Trials]:
    """Trials to fit, to choose the epoch by, and to score."""
    TELLER.do("simulating two mice")
    recordings = v1.make_v1_recordings(random_state=ARGUMENTS.seed, **SIMULATED[FORM])
    v1.save_recordings(recordings, ARGUMENTS.output / "recordings.nc", compression=None)
    trials = v1.Trials(recordings)
    train, validation, test = (trials.sel(tier=t) for t in ("train", "validation", "test"))
    TELLER.say(
        f"{len(trials.mice)} mice with {' and '.join(map(str, trials.n_neurons.values()))} neurons,"
        f" {len(train)} training trials, {len(test)} test trials"
    )
    return train, validation, test


def fit(name: str, train: v1.Trials, validation: v1.Trials):
    """Fit one model, go on at a quarter of the learning rate, and save it."""
    first, last = EPOCHS[FORM][name]
    model = CLASSES[name](**COMMON, **PARAMETERS[FORM][name])

    def on_epoch(record: dict[str, float]) -> None:
        TELLER.say(
            f"         {name} epoch {record['epoch']:2} of {first + last}: validation correlation "
            f"{record['validation_correlation']:.3f}"
        )

    TELLER.do(f"fitting {name}")
    given = {"validation": validation, "on_epoch": on_epoch}
    model.set_params(max_epochs=first).fit(train, **given)
    model.set_params(max_epochs=last, lr=model.lr / 4).fit(train, **given)
    model.save(ARGUMENTS.output / "models" / name)
    return model


def scores(predictions: dict[str, v1.Responses], test: v1.Trials) -> pd.DataFrame:
    """Table of all predictions, the true rates among them."""
    rows = {
        name: {label: metric(test.responses, predicted) for label, metric in METRICS.items()}
        for name, predicted in predictions.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    single = table["single-trial correlation"]
    return table.assign(**{"share of the oracle": single / single["oracle"]})


def show(table: pd.DataFrame) -> None:
    """Print a table, and what it has cost."""
    formats = dict.fromkeys(METRICS, "{:.3f}".format) | {"share of the oracle": "{:.1%}".format}
    repeats = SIMULATED[FORM]["n_repeats"]
    TELLER.say(
        f"\nHeld-out images, each shown {repeats} times; means over neurons, then over mice. The "
        f"oracle is\nthe true rate, with which no model can do better.\n"
        f"{table.to_string(formatters=formats)}\n"
        f"Processor time so far, imports included: {processor_seconds():.0f} s\n"
    )


def main() -> None:
    """Simulate, fit, score and draw."""
    ARGUMENTS.output.mkdir(parents=True, exist_ok=True)
    train, validation, test = simulate()
    models, predictions = {}, {}
    for name in ("LN", "CNN", "ViT", "V1T"):
        models[name] = fit(name, train, validation)
        TELLER.do(f"scoring {name}")
        predictions[name] = models[name].predict(test)
        if name in ("CNN", "V1T"):
            table = scores({**predictions, "oracle": test.expected_responses}, test)
            show(table)
    table.to_csv(ARGUMENTS.output / "scores.csv", index_label="model")
    TELLER.do("drawing")
    draw(models, predictions, table, validation, test)
    TELLER.say(f"Figure demo.png, table scores.csv and the models are in {ARGUMENTS.output}/")


def draw(models, predictions, table, validation: v1.Trials, test: v1.Trials) -> None:
    """Scores, training curves, and what the best model predicts of one neuron and of all."""
    best = table.drop(index="oracle")["single-trial correlation"].idxmax()
    mouse = test.mice[0]
    of_mouse, predicted = test.sel(mouse_id=mouse), predictions[best].sel(mouse_id=mouse)
    ceiling = single_trial_correlation(validation.responses, validation.expected_responses)
    fig, axes = plt.subplots(2, 2, figsize=(7, 7), layout="constrained")
    draw_scores(axes[0, 0], table)
    draw_training(axes[0, 1], models, ceiling)
    draw_neuron(axes[1, 0], best, predicted[mouse], of_mouse.responses[mouse])
    ScoreDisplay.from_predictions(
        of_mouse.responses,
        {best: predicted},
        ceiling=of_mouse.expected_responses,
        kind="scatter",
        ax=axes[1, 1],
    )
    axes[1, 1].set_title(f"{best}: neurons of mouse {mouse}")
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(ARGUMENTS.output / "demo.png", dpi=200)
    plt.close(fig)


def draw_scores(axis, table: pd.DataFrame) -> None:
    """Mean correlation of each model, below that of the true rates."""
    values = table["single-trial correlation"]
    models = values.drop("oracle")
    bars = axis.bar(models.index, models, color=[model_color(name) for name in models.index])
    axis.bar_label(bars, [f"{share:.0%}" for share in table["share of the oracle"].drop("oracle")])
    axis.axhline(values["oracle"], color=model_color("oracle"), lw=1.5, ls="--")
    axis.annotate(
        "oracle: noise ceiling",
        (0.02, values["oracle"]),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
    )
    axis.axhline(0, color="k", lw=0.8)
    axis.set(ylabel="single-trial correlation", title="Held-out images, share of the oracle")
    axis.set_ylim(min(0, 1.15 * models.min()), 1.15 * values["oracle"])


def draw_training(axis, models, ceiling: float) -> None:
    """Validation correlation after each epoch."""
    for name, model in models.items():
        axis.plot(
            [record["epoch"] for record in model.history_],
            [record["validation_correlation"] for record in model.history_],
            ".-",
            color=model_color(name),
            label=name,
        )
    axis.axhline(ceiling, color=model_color("oracle"), lw=1.5, ls="--")
    axis.set(xlabel="epoch", ylabel="validation correlation", title="Training")
    axis.set_ylim(top=1.15 * ceiling)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(0, 0.86))


def draw_neuron(axis, name, predicted, recorded) -> None:
    """Responses of one neuron, averaged over the repeats of each image, on equal axes."""
    per_neuron = single_trial_correlation(recorded, predicted, multioutput="raw_values")
    neuron = int(np.argsort(per_neuron)[int(0.9 * len(per_neuron))])  # a good one, not the best
    predicted = predicted.groupby("image_id").mean()[:, neuron]
    recorded = recorded.groupby("image_id").mean()[:, neuron]
    dots = {"s": 36, "alpha": 0.6}
    PredictionDisplay(recorded, {name: predicted}).plot(axis, scatter_kw=dots)
    r = np.corrcoef(predicted, recorded)[0, 1]
    axis.set(
        xlabel="recorded, mean of repeats (a.u.)",
        ylabel="predicted (a.u.)",
        title=f"{name}: images, one neuron (r = {r:.2f})",
    )


if __name__ == "__main__":
    main()

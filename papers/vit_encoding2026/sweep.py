"""
FEVE over the blocks of a pretrained transformer, frozen and fine-tuned, and over its resolution.

From the files of a mouse to tables and a figure beside the published numbers::

    python -m papers.vit_encoding2026.sweep --quick
    python -m papers.vit_encoding2026.sweep --data nat60k/ --mouse FX10

Every fit is kept in ``--out``, so that a run that was stopped goes on. The page chose the best
block by its score on the test images, here it is chosen on those of validation, too, and the
difference is told. Blocks are printed from 1, as on the page; `PretrainedViTRegressor` counts from
0.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from math import isnan
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import v1tlearn as v1
from papers.vit_encoding2026.pretrain import SIZES, pretrain
from v1tlearn.metrics import feve

FEV_ABOVE = 0.15
# Mean FEVE of mouse FX10 over blocks 1 to 12, read off the page's figures.
_FROZEN = "0.249 0.279 0.301 0.321 0.323 0.300 0.276 0.247 0.221 0.196 0.177 0.147"
_LAST_2 = "nan 0.381 0.415 0.517 0.516 0.492 0.452 0.411 0.360 0.306 0.266 0.252"
PUBLISHED = [
    (float(frozen), float(tuned))
    for frozen, tuned in zip(_FROZEN.split(), _LAST_2.split(), strict=True)
]
RESOLUTIONS: dict[str, dict[str, Any]] = {
    "grid of the page": {},
    "stride of half a patch": {"halved": True},
    "twice the pixels": {"upsample": 2},
}
_QUICK_FIT: dict[str, Any] = {"lr": 0.01, "core_lr": 3e-4, "space_init": 0.3, "normalize": "layer"}
_QUICK_FIT |= {"image_size": (32, 64), "crop_columns": None, "selection": "correlation"}
_QUICK_FIT |= {"space_l2": 0.0, "channel_l2": 1e-3, "space_weight_decay": None}
_QUICK_FIT |= {"channel_weight_decay": None}

Row = dict[str, Any]


def recordings_of(args: argparse.Namespace, seed: int) -> v1.Trials:
    """Trials of the mouse, or of a simulated one."""
    if args.quick:
        made = v1.make_v1_recordings(
            n_mice=1,
            n_neurons=args.neurons,
            n_trials=args.trials,
            n_test_images=30,
            n_repeats=8,
            image_shape=(32, 64),
            explainable_variance=0.6,
            random_state=seed,
        )
        return v1.Trials(made)
    responses = sorted(args.data.glob(f"{args.mouse}*nat60k*.npz"))
    if not responses:
        raise SystemExit(f"{args.data} holds no file {args.mouse}*nat60k*.npz")
    return v1.Trials(v1.read_nat60k(responses, args.data / "nat60k_text16.mat", window=None))


def parameters(
    preset: str, args: argparse.Namespace, block: int, seed: int, **more: Any
) -> dict[str, Any]:
    """Parameters of a fit, as published or for a quick look."""
    halved = more.pop("halved", False)
    if halved:
        more["patch_stride"] = 4 if args.quick else 8
    own = {"backbone": str(args.backbone), "block": block, "random_state": seed}
    own |= {"feature_cache": str(args.out / "features"), "device": args.device}
    if args.quick:
        own |= _QUICK_FIT
    if args.epochs is not None:
        own["max_epochs"] = args.epochs
    made = v1.PretrainedViTRegressor.from_preset(preset, **own | more)
    return made.get_params()


def scores(est: v1.PretrainedViTRegressor, trials: v1.Trials) -> dict[str, float]:
    """Best validation score and FEVE on the test images."""
    test = trials.sel(tier="test")
    record = est.history_[est.best_epoch_ - 1]
    name = f"validation_{est.selection}"
    found = feve(test.responses, est.predict(test), threshold=FEV_ABOVE)
    return {"validation": record[name], "test": float(found)}


def fits(args: argparse.Namespace, trials: v1.Trials, seed: int) -> Iterator[Row]:
    """Fit every block, and the best one at other resolutions; what is there is not fitted again."""
    train, validation = (trials.sel(tier=tier) for tier in ("train", "validation"))
    rows = []
    for block in args.blocks:
        yield (row := _kept(args, f"block{block + 1}-seed{seed}", seed, block, train, validation))
        rows.append(row)
    best = max(rows, key=lambda row: row["frozen"]["validation"])["block"] - 1
    for name, more in RESOLUTIONS.items():
        job = f"{name.replace(' ', '_')}-seed{seed}"
        yield _kept(args, job, seed, best, train, validation, resolution=name, **more)


def _kept(
    args: argparse.Namespace,
    job: str,
    seed: int,
    block: int,
    train: v1.Trials,
    validation: v1.Trials,
    resolution: str = "",
    **more: Any,
) -> Row:
    """One fit with a frozen core, and one that goes on from there and fine-tunes it."""
    file = args.out / f"{job}.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    frozen = parameters("vit_encoding2026_frozen", args, block, seed, **more)
    est = v1.PretrainedViTRegressor(**frozen).fit(train, validation=validation)
    row = {"block": block + 1, "seed": seed, "resolution": resolution}
    row["frozen"] = scores(est, args.trials_of[seed])
    stages = min(args.fine_tune, block + 1)
    tuned = parameters("vit_encoding2026_fine_tuned", args, block, seed, **more)
    est.set_params(**tuned | {"fine_tune": stages}).fit(train, validation=validation)
    row["fine-tuned"] = scores(est, args.trials_of[seed]) | {"stages": stages}
    file.write_text(json.dumps(row), encoding="utf-8")
    return row


def _spread(values: list[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def block_table(rows: list[Row]) -> str:
    """FEVE over blocks, and what choosing the block on the test images adds."""
    rows = [row for row in rows if not row["resolution"]]
    lines = [
        "| block | frozen | fine-tuned | page, frozen | page, last 2 blocks |",
        "|---" * 5 + "|",
    ]
    for block in sorted({row["block"] for row in rows}):
        ours = [_spread([r[k]["test"] for r in rows if r["block"] == block]) for k in _KINDS]
        page = ["-" if isnan(value) else f"{value:.3f}" for value in PUBLISHED[block - 1]]
        lines.append(f"| {block} | {' | '.join(ours + page)} |")
    for kind in _KINDS:
        picked: dict[str, list[float]] = {"validation": [], "test": []}
        for seed in sorted({row["seed"] for row in rows}):
            own = [row for row in rows if row["seed"] == seed]
            for by, found in picked.items():
                best = max(own, key=lambda row, by=by: row[kind][by])
                found.append(best[kind]["test"])
        gain = [t - v for t, v in zip(picked["test"], picked["validation"], strict=True)]
        lines.append(
            f"\n{kind}: FEVE {_spread(picked['validation'])} with the block chosen on validation "
            f"images, {_spread(picked['test'])} with the block chosen on test images, as the page "
            f"did: {_spread(gain)} more."
        )
    return "\n".join(lines)


def resolution_table(rows: list[Row]) -> str:
    """FEVE over resolutions."""
    lines = ["| resolution | frozen | fine-tuned |", "|---" * 3 + "|"]
    for name in RESOLUTIONS:
        own = [row for row in rows if row["resolution"] == name]
        if own:
            ours = [_spread([row[kind]["test"] for row in own]) for kind in _KINDS]
            lines.append(f"| {name} | {' | '.join(ours)} |")
    return "\n".join(lines)


_KINDS = ("frozen", "fine-tuned")


def draw(rows: list[Row], path: Path) -> None:
    """Draw FEVE over blocks."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if not row["resolution"]]
    blocks = sorted({row["block"] for row in rows})
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for kind, color in zip(_KINDS, ("tab:gray", "tab:red"), strict=True):
        means = [mean(r[kind]["test"] for r in rows if r["block"] == b) for b in blocks]
        axes.plot(blocks, means, "o-", color=color, label=kind)
    axes.set(xlabel="block, from 1", ylabel="FEVE, test images", xticks=blocks)
    axes.legend()
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> Mapping[str, Any]:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the nat60k recordings")
    parser.add_argument("--mouse", default="FX10")
    parser.add_argument("--quick", action="store_true", help="a simulated mouse, a small backbone")
    parser.add_argument("--backbone", default="facebook/dinov3-vits16-pretrain-lvd1689m")
    parser.add_argument("--blocks", type=int, nargs="+", help="from 1; all by default")
    parser.add_argument("--fine-tune", type=int, default=4, help="stages, at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="at most; as published by default")
    parser.add_argument("--trials", type=int, default=600, help="of the simulated mouse")
    parser.add_argument("--neurons", type=int, default=30, help="of the simulated mouse")
    parser.add_argument("--images", type=int, default=1000, help="of the quick pretraining")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("vit_encoding2026_output"))
    args = parser.parse_args(arguments)
    if args.data is None and not args.quick:
        parser.error("give --data, the folder of the recordings, or --quick")
    (args.out / "features").mkdir(parents=True, exist_ok=True)
    n_blocks = 12
    if args.quick:
        args.epochs = 15 if args.epochs is None else args.epochs
        args.backbone = args.out / "backbone"
        n_blocks = SIZES["num_hidden_layers"]
        if not args.backbone.exists():
            losses = pretrain(args.backbone, n_images=args.images, epochs=8)
            print(f"pretraining leaves {losses[-1]:.3f} of the variance of noisy pixels")
    args.blocks = [b - 1 for b in args.blocks] if args.blocks else list(range(n_blocks))
    args.trials_of = {seed: recordings_of(args, seed) for seed in args.seeds}
    rows: list[Row] = []
    for seed, trials in args.trials_of.items():
        for row in fits(args, trials, seed):
            rows.append(row)
            told = {kind: round(row[kind]["test"], 3) for kind in _KINDS}
            print(f"seed {seed}, block {row['block']}, {row['resolution'] or 'sweep'}: {told}")
    tables = f"{block_table(rows)}\n\n{resolution_table(rows)}\n"
    print(f"\n{tables}")
    (args.out / "tables.md").write_text(tables, encoding="utf-8")
    draw(rows, args.out / "blocks.png")
    return {"rows": rows, "tables": tables}


if __name__ == "__main__":
    main()

"""
FEVE over the blocks of a pretrained transformer, frozen and fine-tuned, and over its resolution.

From the files of a mouse to tables and a figure beside the published numbers::

    python -m papers.vit_encoding2026.sweep --quick
    python -m papers.vit_encoding2026.sweep --data nat60k/ --mouse FX10

Every fit is kept in ``--out``, so that a run that was stopped goes on; other settings ask for
another folder. The page chose the best block by its score on the test images, here it is chosen on
those of validation, too, and the difference is told. Blocks are printed from 1, as on the page;
`PretrainedViTRegressor` counts from 0.
"""

import argparse
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig

import v1tlearn as v1
from papers.minimodel2025.data import describe
from papers.v1t2023.jobs import check_settings, keep_settings
from papers.vit_encoding2026 import data, fits, tables
from papers.vit_encoding2026.pretrain import SIZES, pretrain
from v1tlearn.datasets.nat60k import WINDOWS

DEFAULT = "vit_encoding2026_output"
BACKBONE = "facebook/dinov3-vits16-pretrain-lvd1689m"
_CHOICES = ("quick", "mouse", "flips", "fine_tune", "epochs")
_QUICK_CHOICES = ("trials", "neurons", "images")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the nat60k recordings")
    parser.add_argument("--mouse", default="FX10", choices=list(WINDOWS))
    parser.add_argument("--quick", action="store_true", help="a simulated mouse, a small backbone")
    parser.add_argument(
        "--backbone", nargs="+", help=f"names or folders; default {BACKBONE}", metavar="NAME"
    )
    parser.add_argument("--blocks", type=int, nargs="+", help="from 1; all by default")
    text = "numbers of stages; default 4, with --quick 2"
    parser.add_argument("--fine-tune", type=int, nargs="+", help=text)
    parser.add_argument(
        "--flips",
        choices=["drop", "published"],
        default="drop",
        help="training trials with mirrored test images: left out, or as published",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="at most; as published by default")
    parser.add_argument("--trials", type=int, default=400, help="of the simulated mouse")
    parser.add_argument("--neurons", type=int, default=20, help="of the simulated mouse")
    parser.add_argument("--images", type=int, default=1000, help="of the quick pretraining")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help=f"default {DEFAULT}, with --quick {DEFAULT}_quick")
    args = parser.parse_args(arguments)
    if args.quick and (args.data or args.backbone):
        parser.error("--quick makes its mouse and backbone: leave --data and --backbone away")
    if args.data is None and not args.quick:
        parser.error("give --data, the folder of the recordings, or --quick")
    if args.out is None:
        args.out = Path(DEFAULT + "_quick" * args.quick)
    args.fine_tune = sorted(set(args.fine_tune or [2 if args.quick else 4]))
    if args.quick and args.epochs is None:
        args.epochs = 15
    args.backbone = [str(args.out / "backbone")] if args.quick else args.backbone or [BACKBONE]
    names = {Path(name).name for name in args.backbone}
    if len(names) < len(args.backbone):
        parser.error(f"--backbone has several of one name: only {', '.join(sorted(names))}")
    if min(args.fine_tune) < 1:
        parser.error(f"--fine-tune is {args.fine_tune}: expected numbers of stages from 1 on")
    return args


def depth_of(backbone: str) -> int:
    """Return the number of blocks of a backbone, as its configuration tells."""
    return AutoConfig.from_pretrained(backbone, trust_remote_code=False).num_hidden_layers


def blocks_of(backbone: str, asked: list[int] | None) -> list[int]:
    """Return the blocks to fit, from 0, of those asked for, from 1; all by default."""
    depth = depth_of(backbone)
    asked = list(range(1, depth + 1)) if asked is None else sorted(set(asked))
    if outside := [block for block in asked if not 1 <= block <= depth]:
        raise SystemExit(f"--blocks has {outside}: {backbone} has blocks 1 to {depth}")
    return [block - 1 for block in asked]


def weights_of(backbone: str) -> str | int:
    """Return what tells a backbone from others: a checksum of a folder's files, or its name."""
    if not Path(backbone).is_dir():
        return backbone
    checksum = 0
    for path in sorted(Path(backbone).iterdir()):
        checksum = zlib.crc32(path.read_bytes(), checksum) if path.is_file() else checksum
    return checksum


def prepare(args: argparse.Namespace) -> Mapping[str, Any]:
    """Check and keep what results depend on; with --quick make the backbone and the mouse."""
    path = args.out / "settings.json"
    names = _CHOICES + _QUICK_CHOICES * args.quick
    settings: dict[str, Any] = {name: getattr(args, name) for name in names}
    check_settings(path, settings)
    args.out.mkdir(parents=True, exist_ok=True)
    for folder in ("features", "jobs"):
        (args.out / folder).mkdir(exist_ok=True)
    if args.quick:
        settings["sizes of the backbone"] = SIZES
        keep_settings(path, settings, ["blocks"])
        if not Path(args.backbone[0]).exists():
            folder = Path(args.backbone[0])
            losses = pretrain(folder, n_images=args.images, patch=16, side=64, epochs=8)
            print(f"pretraining leaves {losses[-1]:.3f} of the variance of noisy pixels")
    args.blocks_of = {backbone: blocks_of(backbone, args.blocks) for backbone in args.backbone}
    settings |= {f"backbone {Path(name).name}": weights_of(name) for name in args.backbone}
    for seed in args.seeds:
        own = f" of seed {seed}" * args.quick
        settings[f"recording{own}"] = describe(open_mouse(args, seed))
    return keep_settings(path, settings, ["blocks"])


def open_mouse(args: argparse.Namespace, seed: int, **options: Any) -> v1.Trials:
    """Open the mouse, with --quick another one for each seed."""
    folder = args.data
    if args.quick:
        folder = args.out / f"simulated-{seed}"
        data.simulate(folder, args.mouse, args.neurons, args.trials, seed)
    return data.open_mouse(folder, args.mouse, args.flips, **options)


def main(arguments: list[str] | None = None) -> Mapping[str, Any]:
    """Run the command."""
    args = parse(arguments)
    settings = prepare(args)
    rows: list[fits.Row] = []
    full: list[fits.Row] = []
    for seed in args.seeds:

        def in_view(seed: int = seed) -> v1.Trials:
            return open_mouse(args, seed, window="auto")

        full.append(fits.full_model(args, seed, in_view))
        trials = open_mouse(args, seed)
        for backbone in args.backbone:
            rows += fits.sweep(args, trials, backbone, seed)
    text = tables.write(args.out, settings, rows, full)
    print(f"\n{text}")
    return {"rows": rows, "tables": text}


if __name__ == "__main__":
    main()

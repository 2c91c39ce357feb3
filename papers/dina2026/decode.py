"""
Which image did the mouse see, and what says so? The measurements that are reported of DINA (2026).

From the recording of a mouse to a table beside the reported numbers, and a figure::

    python -m papers.dina2026.decode --quick
    python -m papers.dina2026.decode --data natimg2800/ --mouse M170717_MP033_2017-08-20

Every fit and every measurement is kept in ``--out``, so that a run that was stopped goes on; other
settings ask for another folder.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import v1tlearn as v1
from papers.dina2026 import data, measures, tables
from papers.dina2026.published import CNN, DINA
from papers.minimodel2025.data import describe
from papers.v1t2023.jobs import check_settings, keep_settings
from papers.v1t2023.tables import slug, write_beside

DEFAULT = "dina2026_output"
PUBLISHED_HABITS = {"select_on": "test", "keep": "last", "range": "recording"}
_CHOICES = ("quick", "mouse", "recipe", "repeats", "epochs", *PUBLISHED_HABITS)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    text = "a folder of natimg2800, one with images.mat and responses.mat, or a saved recording"
    parser.add_argument("--data", type=Path, help=text)
    parser.add_argument("--mouse", help="which recording, where there are several")
    parser.add_argument("--quick", action="store_true", help="a simulated mouse, small models")
    text = "sizes of DINA: those of its description, or of the released code (5,000 epochs)"
    parser.add_argument(
        "--recipe", choices=["description", "code"], default="description", help=text
    )
    text = "every trial by itself, or one per image with the mean of its responses"
    parser.add_argument("--repeats", choices=["single", "mean"], default="single", help=text)
    parser.add_argument("--measures", nargs="+", choices=list(measures.MEASURED), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="at most")
    text = "as the released code: --select-on test --keep last --range recording"
    parser.add_argument("--published-habits", action="store_true", help=text)
    text = "tier that chooses the epoch; with test, validation is trained on (published)"
    parser.add_argument("--select-on", choices=["validation", "test"], help=text)
    parser.add_argument("--keep", choices=["best", "last"], help="epoch that is kept")
    text = "trials whose range scales responses: all of the recording is a leak (published)"
    parser.add_argument("--range", choices=["train", "recording"], help=text)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help=f"default {DEFAULT}, with --quick {DEFAULT}_quick")
    args = parser.parse_args(arguments)
    if args.quick and (args.data or args.mouse):
        parser.error("--quick makes its mouse: leave --data and --mouse away")
    if args.data is None and not args.quick:
        parser.error("give --data, the recording, or --quick")
    clean = {"select_on": "validation", "keep": "best", "range": "train"}
    for name, value in (PUBLISHED_HABITS if args.published_habits else clean).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.out is None:
        args.out = Path(DEFAULT + "_quick" * args.quick)
    args.measures = args.measures or list(measures.MEASURED)
    if args.quick and args.epochs is None:
        args.epochs = 40
    return args


def open_trials(args: argparse.Namespace) -> dict[int, v1.Trials]:
    """Open the recording of every seed: with --quick another one for each, or one for all."""

    def opened(path: Path) -> v1.Trials:
        trials = data.open_recording(path, args.mouse)
        return data.mean_of_repeats(trials) if args.repeats == "mean" else trials

    if not args.quick:
        return dict.fromkeys(args.seeds, opened(args.data))
    paths = {seed: args.out / "recordings" / f"simulated-{seed}.nc" for seed in args.seeds}
    return {seed: opened(data.simulate(path, seed)) for seed, path in paths.items()}


def fitted(args: argparse.Namespace, name: str, trials: v1.Trials, seed: int) -> v1.DINAAligner:
    """Load a model that was fitted before, or fit and keep it."""
    path = args.out / "models" / slug(name, seed)
    if (path / "model.json").is_file():
        return v1.DINAAligner.load(path, device=args.device)
    start = time.perf_counter()
    model = measures.fit(name, args, trials, seed)
    model.save(path)
    seconds = time.perf_counter() - start
    print(f"{name}, seed {seed}: epoch {model.best_epoch_} of {model.n_iter_}; {seconds:.0f} s")
    return model


def measure(args: argparse.Namespace, trials: v1.Trials, seed: int) -> dict[str, measures.Record]:
    """Measure what is not there yet, and read all of it."""
    paths = {name: args.out / "jobs" / f"{slug(name, seed)}.json" for name in args.measures}
    missing = [name for name, path in paths.items() if not path.exists()]
    models = {name: fitted(args, name, trials, seed) for name in (DINA, CNN) if missing}
    for name in missing:
        start = time.perf_counter()
        record = measures.MEASURED[name](models, args, trials)
        write_beside(paths[name], json.dumps({"seed": seed} | record, indent=1))
        print(f"{name}, seed {seed}; {time.perf_counter() - start:.0f} s", flush=True)
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()}


def main(arguments: list[str] | None = None) -> Mapping[str, Any]:
    """Run the command."""
    args = parse(arguments)
    path = args.out / "settings.json"
    settings: dict[str, Any] = {name: getattr(args, name) for name in _CHOICES}
    check_settings(path, settings)
    for folder in ("models", "jobs"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    trials = open_trials(args)
    settings |= {f"recording of seed {seed}": describe(own) for seed, own in trials.items()}
    settings = keep_settings(path, settings, ["decode"])
    found = [measure(args, own, seed) for seed, own in trials.items()]
    text = tables.write(args.out, settings, found)
    print(f"\n{text}")
    return {"found": found, "tables": text}


if __name__ == "__main__":
    main()

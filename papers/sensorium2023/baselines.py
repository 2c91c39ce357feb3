"""
Baselines of Sensorium 2023, from the recordings to a table with one command.

``python -m papers.sensorium2023.baselines --data FOLDER`` fits models that see time to movies that
mice saw (Turishcheva et al. 2023). FOLDER holds the zips that `v1tlearn.fetch_sensorium2023` leaves
there. ``--quick`` shows the same on two simulated mice, in two minutes.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import v1tlearn as v1
from papers.sensorium2023 import data, jobs, tables
from papers.v1t2023.jobs import check_settings, keep_settings

DEFAULT = "sensorium2023_output"
SKIPPED = 50  # frames at the beginning of a movie, which the competition does not score
_SKIPPED_QUICK = 10


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read arguments, by default those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    text = "folder with the zips or folders of the mice, or a saved recording (.nc)"
    parser.add_argument("--data", type=Path, help=text)
    parser.add_argument("--mice", nargs="+", help="default: all whose files are there")
    parser.add_argument("--neurons", type=int, help="at most so many per mouse; default all")
    parser.add_argument("--models", nargs="+", choices=list(jobs.MODELS), metavar="MODEL")
    text = "movies that choose the epoch: a tenth of training, or, as published, the split oracle"
    chosen = ["train", "validation"]
    parser.add_argument("--select-on", choices=chosen, default="train", help=text)
    text = f"first frames of each movie that are not scored; default {SKIPPED}, as published"
    parser.add_argument("--skip", type=int, help=text)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="at most")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="small models, simulated mice")
    parser.add_argument("--out", type=Path, help=f"default {DEFAULT}, with --quick {DEFAULT}_quick")
    options = parser.parse_args(arguments)
    if options.quick and (options.data or options.mice or options.neurons):
        parser.error("--quick makes its mice: leave --data, --mice and --neurons away")
    if options.data is None and not options.quick:
        parser.error("--data is missing: the folder of the mice, or --quick to try without")
    for name in ("neurons", "epochs"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} is 1 at least")
    if options.skip is None:
        options.skip = _SKIPPED_QUICK if options.quick else SKIPPED
    if options.skip < 0:
        parser.error("--skip is 0 at least")
    options.models = options.models or list(jobs.MODELS)
    if options.out is None:
        options.out = Path(DEFAULT + "_quick" * options.quick)
    options.figure = find_spec("matplotlib") is not None
    return options


def open_trials(options: argparse.Namespace) -> dict[int, v1.Trials]:
    """Open the mice of every seed: with --quick others for each, or the same for all."""
    if options.quick:
        paths = {s: options.out / "recordings" / f"simulated-{s}.nc" for s in options.seeds}
        return {
            seed: data.open_recordings(data.simulate(path, seed), None, None, None)
            for seed, path in paths.items()
        }
    cache = options.out / "recordings"
    opened = data.open_recordings(options.data, options.mice, options.neurons, cache)
    return dict.fromkeys(options.seeds, opened)


def main(arguments: list[str] | None = None) -> str:
    """From the recordings to the table."""
    options = parse(arguments)
    path = options.out / "settings.json"
    names = ("quick", "select_on", "skip", "epochs", "neurons")
    settings = {name: getattr(options, name) for name in names}
    check_settings(path, settings)
    options.out.mkdir(parents=True, exist_ok=True)
    opened = open_trials(options)
    settings |= {f"mice of seed {seed}": data.describe(own) for seed, own in opened.items()}
    keep_settings(path, settings, ["baselines"])
    for seed, own in opened.items():
        if left := [label for label in options.models if label not in jobs.labels(options, own)]:
            print(f"seed {seed}: these mice are not for {', '.join(left)}", flush=True)
    failures = jobs.run(options, opened)
    text = tables.write(options)
    print(f"\n{text}")
    figure = ", figure.png" if options.figure else " (no figure: matplotlib is missing)"
    print(f"results.csv, tables.md{figure} are in {options.out}/")
    if failures:
        sys.exit("\n".join(["failed, and tried again by the same command:", *failures]))
    return text


if __name__ == "__main__":
    main()

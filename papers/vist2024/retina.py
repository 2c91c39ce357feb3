"""
Redo the tables of Vi-ST on a retina that saw two movies: from the files to tables and figures.

``python -m papers.vist2024.retina --data FOLDER`` fits the models of Wu et al. (2024), "Aligning
neuronal coding of dynamic visual scenes with foundation vision models". FOLDER is the unpacked data
set of Onken et al. (2016). ``--quick`` shows the same on a simulated retina, in a minute or two.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import v1tlearn as v1
from papers.v1t2023.jobs import check_settings, keep_settings
from papers.vist2024 import data, figures, jobs, tables
from papers.vist2024.published import PROTOCOLS

DEFAULT = "vist2024_output"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read arguments, by default those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    text = "the unpacked data set of Onken et al. (2016), or a saved recording of two movies"
    parser.add_argument("--data", type=Path, help=text)
    parser.add_argument("--recording", help='which one, where there are several; "recording1"')
    parser.add_argument("--quick", action="store_true", help="a simulated retina, small models")
    text = "pretrained transformer: its name on the Hugging Face Hub, or a folder with its files"
    parser.add_argument("--backbone", default="facebook/dinov2-large", help=text)
    text = "folder with movie1.npy and movie2.npy (frames, patches, features), in place of it"
    parser.add_argument("--features", type=Path, help=text)
    parser.add_argument("--tables", nargs="+", choices=list(tables.TABLES), help="default: all")
    text = "which epoch is kept, and what is told of it; default: both"
    parser.add_argument("--protocols", nargs="+", choices=list(PROTOCOLS), help=text)
    text = "random choices of some of the cells; default 3, with --quick 1"
    parser.add_argument("--draws", type=int, help=text)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="at most")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help=f"default {DEFAULT}, with --quick {DEFAULT}_quick")
    options = parser.parse_args(arguments)
    if options.quick and (options.data or options.recording or options.features):
        parser.error("--quick makes its retina: leave --data, --recording and --features away")
    if options.data is None and not options.quick:
        parser.error("--data is missing: the folder of the recording, or --quick to try without")
    if options.epochs is not None and options.epochs < 1:
        parser.error("--epochs is 1 at least")
    if options.draws is None:
        options.draws = 1 if options.quick else 3
    if options.draws < 1:
        parser.error("--draws is 1 at least")
    options.tables = options.tables or list(tables.TABLES)
    options.protocols = options.protocols or list(PROTOCOLS)
    if options.out is None:
        options.out = Path(DEFAULT + "_quick" * options.quick)
    options.figure = find_spec("matplotlib") is not None
    return options


def open_papers(options: argparse.Namespace) -> list[jobs.Paper]:
    """Open the recording of every seed: with --quick another one for each, or one for all."""
    if options.quick:
        paths = {s: options.out / "recordings" / f"simulated-{s}.nc" for s in options.seeds}
        opened = {s: data.open_recording(data.simulate(p, s), None) for s, p in paths.items()}
    else:
        trials = data.open_recording(options.data, options.recording)
        opened = dict.fromkeys(options.seeds, trials)
    return [jobs.Paper(options, trials, seed) for seed, trials in opened.items()]


def describe(trials: v1.Trials) -> dict[str, int | float]:
    """Count cells and frames, and sum responses: what results were made of."""
    (name,) = trials.mice
    frames = dict(zip(trials.image_ids.tolist(), trials.n_frames.tolist(), strict=True))
    total = float(trials.responses[name].sum())
    return {"cells": trials.n_neurons[name], "sum of responses": round(total, 3), **frames}


def main(arguments: list[str] | None = None) -> str:
    """From the recording to the tables."""
    options = parse(arguments)
    path = options.out / "settings.json"
    names = ("quick", "recording", "epochs", "draws")
    settings = {name: getattr(options, name) for name in names}
    settings["prior"] = str(options.features or ("random" if options.quick else options.backbone))
    check_settings(path, settings)
    for folder in ("models", "jobs", "predictions"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    papers = open_papers(options)
    settings |= {f"recording of seed {paper.seed}": describe(paper.frames) for paper in papers}
    keep_settings(path, settings, options.tables)
    failures = jobs.run(papers)
    text = tables.write(options)
    if options.figure:
        figures.draw(options, papers[0].frames)
    print(f"\n{text}")
    drawn = ", figure.png, traces.png" if options.figure else " (no figures without matplotlib)"
    print(f"results.csv, tables.md{drawn} are in {options.out}/")
    if failures:
        sys.exit("\n".join(["failed, and tried again by the same command:", *failures]))
    return text


if __name__ == "__main__":
    main()

"""
Redo the tables of the minimodel paper on mice: from the files to tables with one command.

``python -m papers.minimodel2025.mice --data FOLDER`` fits the models of Du et al. 2025, "Towards a
simplified model of primary visual cortex". FOLDER holds ``nat60k_text16.mat`` and the files of the
mice, as `v1tlearn.fetch_nat60k` or a browser left them. ``--quick`` shows the same on small
simulated recordings of the same layout, in about a minute.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from papers.minimodel2025 import data, jobs, tables
from papers.v1t2023.jobs import keep_settings

DEFAULT = "paper_minimodel"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read arguments, by default those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the files of the mice and images")
    text = f"default {DEFAULT}, with --quick {DEFAULT}_quick"
    parser.add_argument("--output", type=Path, help=text)
    parser.add_argument("--tables", nargs="+", choices=list(tables.TABLES), help="default: all")
    parser.add_argument("--mice", nargs="+", help="default: all whose files are there")
    parser.add_argument("--neurons", type=int, help="at most so many per mouse; default all")
    parser.add_argument(
        "--flips",
        choices=["drop", "published"],
        default="drop",
        help="training trials with mirrored test images: left out, or as published",
    )
    parser.add_argument("--seeds", type=int, default=1, help="models per row")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="small models, simulated recordings")
    options = parser.parse_args(arguments)
    options.tables = options.tables or list(tables.TABLES)
    if options.output is None:
        options.output = Path(DEFAULT + "_quick" * options.quick)
    if options.quick:
        if options.data:
            parser.error("--quick simulates its recordings: leave --data away")
        options.data = data.simulate(options.output / "simulated")
    elif options.data is None:
        parser.error("--data is missing: the folder with the files, or --quick to try without")
    options.figure = find_spec("matplotlib") is not None
    return options


def main() -> None:
    """From the folder of recordings to the tables."""
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    paper = jobs.Paper(options)
    chosen = {name: getattr(options, name) for name in ("quick", "flips", "neurons")}
    settings = {**chosen, "mice": paper.describe()}
    keep_settings(options.output / "settings.json", settings, options.tables)
    failures = jobs.run(paper)
    tables.write(options.output, options)
    print(f"\n{(options.output / 'tables.md').read_text(encoding='utf-8')}")
    figure = ", figure.png" if options.figure else " (no figure: matplotlib is missing)"
    print(f"results.csv, tables.md{figure} are in {options.output}/")
    if failures:
        sys.exit("\n".join(["failed, and tried again by the same command:", *failures]))


if __name__ == "__main__":
    main()

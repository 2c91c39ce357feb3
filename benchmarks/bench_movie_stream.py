"""Prediction of long movies: the peak of memory over the length of the movie.

A small model of movies predicts one movie of a lazily opened netCDF file, in a process of its own
for each length. What is counted is memory beyond the model, the open file and what a first, short
prediction left.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _measure import Row, parser, peak_memory, report

import v1tlearn as v1

RATE = 30  # frames per second
SECONDS = {"1 minute": 60, "10 minutes": 600, "1 hour": 3600}
QUICK = {"4 seconds": 4, "8 seconds": 8}
HEIGHT, WIDTH, NEURONS = 16, 16, 5
AT_ONCE = 300  # frames
WAYS = {"whole": "predict", "parts": "predict_parts"}
# Bytes per frame: of a whole prediction, what comes out and numbers of frames; of parts, what a
# process of an hour keeps besides, where the frames alone would be 256.
BARS = {"whole": 250.0, "parts": 40.0}
NOTE = f"{RATE} frames/s of {HEIGHT} x {WIDTH} pixels, {NEURONS} neurons"


def write(path: Path, n_frames: int) -> None:
    """Write one mouse that saw one movie of noise."""
    generator = np.random.default_rng(0)
    stimuli = generator.integers(0, 256, (1, n_frames, 1, HEIGHT, WIDTH), np.uint8)
    responses = generator.random((1, n_frames, NEURONS), np.float32)
    dims = ("trial", "time", "channel", "height", "width")
    recording = xr.Dataset(
        {"stimuli": (dims, stimuli), "responses": (("trial", "time", "neuron"), responses)},
        {
            "time": ("time", np.arange(n_frames) / RATE, {"units": "s"}),
            "image_id": ("trial", ["the long movie"]),
            "tier": ("trial", ["test"]),
            "trial_id": ("trial", [0]),
            "neuron": np.arange(NEURONS),
        },
    )
    v1.save_recordings({"A": recording}, path)


def prepare(path: str, short: str, way: str) -> Callable[[], object]:
    """Predict a whole movie, or its parts one after the other, for the peak of its memory."""
    torch.set_num_threads(1)
    few = v1.Trials.open(short)
    est = v1.MovieCNNRegressor(
        n_layers=2, hidden_channels=4, input_kernel=5, window_frames=20, max_epochs=1,
        validation_fraction=0, random_state=0, device="cpu",
    )  # fmt: skip
    est.fit(few)
    trials = v1.Trials.open(path)

    def call(given: v1.Trials) -> None:
        if way == "whole":
            est.predict(given)
        else:
            deque(est.predict_parts(given, frames_at_once=AT_ONCE), maxlen=0)

    call(few)
    return lambda: call(trials)


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    lengths = QUICK if args.quick else SECONDS
    short, rows, peaks = folder / "short.nc", [], {}
    write(short, 2 * AT_ONCE)
    for length, seconds in lengths.items():
        path = folder / f"{seconds}.nc"
        write(path, seconds * RATE)
        for way, name in WAYS.items():
            call = ("prepare", __file__, str(path), str(short), way)
            peak = peak_memory(*call, in_fresh_process=not args.quick) / 2**20
            peaks[way, length] = peak
            rows.append(Row(f"{name}, {length}", None, peak, "MiB", note=NOTE))
    *_, shorter, longest = lengths
    for way, name in WAYS.items():
        frames = (lengths[longest] - lengths[shorter]) * RATE
        grown = (peaks[way, longest] - peaks[way, shorter]) * 2**20 / frames
        bar = None if args.quick else BARS[way]
        what = f"{name}, growth from {shorter} to {longest}"
        rows.append(Row(what, None, grown, "bytes/frame", None, bar, NOTE, at_most=True))
    return rows


def main() -> None:
    arguments = parser(__doc__)
    args = arguments.parse_args()
    args.device = "cpu"  # whose memory is counted
    with tempfile.TemporaryDirectory() as folder:
        report("movie_stream", measure(args, Path(folder)), args)


if __name__ == "__main__":
    main()

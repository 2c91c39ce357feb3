"""Reading of recordings from files: whole, and up to the first batch.

A recording in the Sensorium layout is written as deflated zip, stored zip and folder, in a
temporary directory. The plain reader takes the files one after the other, trial by trial, with
`np.load`: of a folder, and of the members of a zip that `zipfile` gives. Ours opens the recording
with `read_sensorium` and loads it; with a cache, opens the netCDF stores that an earlier call
left. Every value is compared before anything is timed. Files come from memory as far as the system
keeps them there, for either reader.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from _measure import Row, compare, parser, report

import v1tlearn as v1

NAME = "static1-2-3-GrayImageNet"
FOLDERS = ("images", "responses", "behavior", "pupil_center")
IMAGE_SHAPE = (1, 144, 256)
BAR = 3.0  # of a deflated zip, the form in which recordings are published
DISTINCT_IMAGES = 128

Trial = list[np.ndarray]


def make_images(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Grey levels with the 1/f spectrum of photographs, which decides how well they deflate."""
    height, width = shape[-2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    phase = rng.uniform(0, 2 * np.pi, (DISTINCT_IMAGES, *frequency.shape))
    images = np.fft.irfft2(np.exp(1j * phase) / frequency, (height, width))
    levels = 120 + 50 * images / images.std(axis=(1, 2), keepdims=True)
    return levels.clip(0, 255).astype(np.uint8)[:, None]


def trials(args: argparse.Namespace) -> Iterator[dict[str, np.ndarray]]:
    """Yield the arrays of one trial after the other."""
    rng = np.random.default_rng(0)
    images = make_images(IMAGE_SHAPE, rng)
    for trial in range(args.trials):
        yield {
            "images": images[trial % len(images)],
            "responses": rng.gamma(0.3, 3, args.neurons).astype(args.dtype),
            "behavior": rng.normal(size=3),
            "pupil_center": rng.normal(size=2),
        }


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def write(root: Path, args: argparse.Namespace) -> dict[str, Path]:
    """Write one recording in three forms, folder by folder, as packing programs lay them out."""
    paths = {
        "deflated": root / "deflated" / f"{NAME}.zip",
        "stored": root / "stored" / f"{NAME}.zip",
    }
    paths["folder"] = root / "folder" / NAME
    for path in paths.values():
        path.parent.mkdir()
    with (
        zipfile.ZipFile(paths["deflated"], "w", zipfile.ZIP_DEFLATED) as deflated,
        zipfile.ZipFile(paths["stored"], "w") as stored,
    ):

        def add(name: str, values: np.ndarray) -> None:
            """Write one array to the three forms."""
            path, data = paths["folder"] / f"{name}.npy", npy(values)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            for archive in (deflated, stored):
                archive.writestr(f"{NAME}/{name}.npy", data)

        for folder in FOLDERS:
            for trial, arrays in enumerate(trials(args)):
                add(f"data/{folder}/{trial}", arrays[folder])
        add("meta/trials/tiers", np.array(["train"] * args.trials))
        add("meta/trials/trial_idx", np.arange(args.trials))
        add("meta/neurons/unit_ids", np.arange(args.neurons))
    return paths


@contextmanager
def opened(path: Path) -> Iterator[Callable[[str], np.ndarray]]:
    """Give a function that reads one array, the plain way."""
    if path.is_dir():
        yield lambda name: np.load(path / name)
        return
    with zipfile.ZipFile(path) as archive:
        yield lambda name: np.load(io.BytesIO(archive.read(f"{NAME}/{name}")))


def plain(path: Path, numbers: range) -> list[Trial]:
    with opened(path) as load:
        return [[load(f"data/{folder}/{number}.npy") for folder in FOLDERS] for number in numbers]


def ours(path: Path, numbers: range, cache: Path | None = None) -> list[np.ndarray]:
    with v1.read_sensorium(path, cache=cache) as recordings:
        (mouse,) = recordings.children.values()
        part = slice(numbers.start, numbers.stop)
        return [mouse[name][part].values for name in ("stimuli", "responses", "behaviors")]


def from_store(path: Path, numbers: range) -> list[np.ndarray]:
    with v1.open_recordings(path) as recordings:
        (mouse,) = recordings.children.values()
        part = slice(numbers.start, numbers.stop)
        return [mouse[name][part].values for name in ("stimuli", "responses", "behaviors")]


def check(expected: list[Trial], found: list[np.ndarray]) -> None:
    """Compare all values, a trial at a time."""
    for (image, response, behavior, pupil), *ours in zip(expected, *found, strict=True):
        columns = np.concatenate([behavior, pupil])
        for value, other in zip((image, response, columns), ours, strict=True):
            np.testing.assert_array_equal(other, value.astype(other.dtype))


def measure(args: argparse.Namespace, root: Path) -> list[Row]:
    paths, cache, store = write(root, args), root / "cache", root / "recordings.nc"
    v1.save_recordings(v1.read_sensorium(paths["deflated"]), store)
    deflated, stored, folder = (paths[form] for form in ("deflated", "stored", "folder"))
    # What is read, the files that the plain reader takes for it, and our way.
    readers = (
        ("deflated zip", deflated, lambda numbers: ours(deflated, numbers)),
        ("deflated zip, cached", deflated, lambda numbers: ours(deflated, numbers, cache)),
        ("deflated zip, as netCDF file", deflated, lambda numbers: from_store(store, numbers)),
        ("stored zip", stored, lambda numbers: ours(stored, numbers)),
        ("folder", folder, lambda numbers: ours(folder, numbers)),
    )
    note = f"{args.trials} trials, {args.neurons} neurons, {args.dtype}"
    rows = []
    for extent, n_trials in (("all trials", args.trials), ("first batch", args.batch_size)):
        numbers = range(min(n_trials, args.trials))
        for name, source, read in readers:
            check(plain(source, numbers), read(numbers))
            *times, ratio = compare(
                partial(plain, source, numbers), partial(read, numbers), args.repeats
            )
            aimed = (name, extent) == ("deflated zip", "all trials") and not args.quick
            rows.append(Row(f"{name}: {extent}", *times, "s", ratio, BAR if aimed else None, note))
    return rows


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=6000)
    arguments.add_argument("--neurons", type=int, default=8000)
    arguments.add_argument("--dtype", default="float32", help="of the responses in the files")
    arguments.add_argument("--batch-size", type=int, default=128)
    arguments.add_argument("--tmp", type=Path, help="where the files are written meanwhile")
    arguments.set_defaults(repeats=3)
    args = arguments.parse_args()
    if args.quick:
        args.trials, args.neurons, args.repeats = 12, 20, 1
    with tempfile.TemporaryDirectory(dir=args.tmp) as root:
        rows = measure(args, Path(root))
    report("reading", rows, args)


if __name__ == "__main__":
    main()

"""Which mice there are in a folder, a zip, or a folder of those; what is none is told."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from v1tlearn._opening import check_plain
from v1tlearn.datasets.sensorium.folder_files import FolderFiles, find_entry, is_junk
from v1tlearn.datasets.sensorium.trial_files import first_few
from v1tlearn.datasets.sensorium.zip_files import ZipFiles, plain_name, read_directory

logger = logging.getLogger(__name__)

_DEEPEST = 4  # levels of folders below the one given
_KEY = re.compile(
    r"(?:static(?P<images>.+)-(?:gray|color)imagenet|dynamic(?P<movies>.+)-video)"
    r"(?:-[0-9a-f]+)?(?: ?\(\d+\)| - copy)?",
    re.IGNORECASE,
)
IMAGES, MOVIES = "data/images", "data/videos"
_READERS = {IMAGES: "read_sensorium", MOVIES: "read_sensorium2023"}

# What a mouse may be called, best first, and its files.
_Found = tuple[list[str], FolderFiles | ZipFiles]


def find_mice(
    path: Path, skipped: list[str], stimuli: str = IMAGES
) -> list[tuple[str, FolderFiles | ZipFiles]]:
    """Return (data key, files) of the mice in a folder, a zip, or a folder of those.

    What else lies there is told in `skipped`. A mouse is known by the folder of its stimuli.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; expected a folder or zip in the Sensorium layout"
        )
    if path.is_dir() and _is_mouse(path, stimuli):
        found: list[_Found] = [([path.resolve().name], FolderFiles(path))]
    elif path.is_dir():
        found, others = _mice_below(path, [], stimuli)
        if not found:
            other, what = (MOVIES, "movies") if stimuli == IMAGES else (IMAGES, "images")
            has_others = any(find_entry(one, other) for one in (path, *_folders(path)))
            raise ValueError(
                f"{path} holds no mouse: no {stimuli} in it or in the folders below it, and no "
                "zip of one; expected the folder of a mouse, or a folder of mice or zips"
                + (
                    f". It holds {what} ({other}), which this reader does not read, but "
                    f"{_READERS[other]} does"
                )
                * has_others
                + "".join(f". {other}" for other in others)
            )
        skipped += others
    else:
        check_plain(path)
        if path.suffix.lower() in (".nc", ".h5", ".hdf5", ".cdf"):
            raise ValueError(
                f"{path} is no folder or zip in the Sensorium layout; recordings that are kept as "
                f"netCDF are opened by open_recordings({str(path)!r}) or Trials.open"
            )
        found = _mice_in_zip(path, stimuli)
        if not found:
            raise ValueError(
                f"{path} holds no {stimuli}/*.npy; expected a zip of a mouse in the Sensorium "
                "layout"
            )
    return [(_data_key(names), files) for names, files in found]


def _is_mouse(path: Path, stimuli: str) -> bool:
    folder = find_entry(path, stimuli)
    return folder is not None and folder.is_dir()


def _folders(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.is_dir() and not is_junk(entry.name)]


def _mice_below(folder: Path, outer: list[Path], stimuli: str) -> tuple[list[_Found], list[str]]:
    """Return the mice in a folder that is none itself, and what else lies there."""
    entries = sorted((e for e in folder.iterdir() if not is_junk(e.name)), key=_natural_order)
    around = [*outer, folder.resolve()]
    mice: dict[str, list[_Found]] = {}
    skipped: list[str] = []
    for entry in entries:
        if not entry.is_dir():
            continue
        if _is_mouse(entry, stimuli):
            mice[entry.name] = [([entry.name], FolderFiles(entry))]
        elif len(outer) < _DEEPEST and entry.resolve() not in around:  # no links in a circle
            inside, others = _mice_below(entry, around, stimuli)
            if inside:
                mice[entry.name] = inside
                skipped += others
    unpacked, foreign = set(mice), []
    for entry in entries:
        if entry.name in mice:
            continue
        if entry.suffix.lower() == ".zip" and entry.is_file():
            if entry.stem in unpacked:
                logger.info("%s lies beside its unpacked folder, which is read instead", entry)
                continue
            mice[entry.name] = _mice_in_zip(entry, stimuli)
            if not mice[entry.name]:
                skipped.append(f"{entry} holds no {stimuli}/*.npy")
        else:
            foreign.append(entry.name)
    if foreign:
        skipped.append(f"in {folder} {first_few(foreign)}, no mice")
    found = [one for entry in entries for one in mice.get(entry.name, ())]
    if len(found) == 1:  # it may be the folder around that bears the name
        found[0][0].append(around[-1].name)
    return found, skipped


def _mice_in_zip(path: Path, stimuli: str) -> list[_Found]:
    """Return the mice in a zip, none if there is none."""
    directory = read_directory(path)
    prefixes = set()
    for folder, _, file in (plain_name(info).rpartition("/") for info in directory):
        above = folder[: -len(stimuli)]
        is_mouse = f"/{folder.lower()}".endswith(f"/{stimuli}") and "__MACOSX" not in above
        if is_mouse and re.fullmatch(r"\d+\.npy", file.lower()):
            prefixes.add(above)
    mice: list[_Found] = []
    for prefix in sorted(prefixes):
        folders = [part for part in reversed(prefix.split("/")) if part]
        names = [*folders, path.stem]
        if len(prefixes) > 1:
            names = names[:1]
        mice.append((names, ZipFiles(path, prefix, directory, any_case=True)))
    return mice


def _data_key(names: list[str]) -> str:
    """Return "21067-10-18" for "static21067-10-18-GrayImageNet-...", any other name as it is."""
    keys = [match["images"] or match["movies"] for match in map(_KEY.fullmatch, names) if match]
    return (keys or names)[0]


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort "mouse10" after "mouse2"."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", path.name)
        if part
    ]

"""What an NWB file tells of neurons: their ids, planes, areas and positions in micrometres."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from v1tlearn._options import as_word, as_words
from v1tlearn._warn import warn
from v1tlearn.datasets.nwb.finding import column_of, name_of
from v1tlearn.datasets.nwb.opening import numbers, refuse
from v1tlearn.datasets.nwb.traces import Population
from v1tlearn.datasets.schema import AXES, POSITION_ATTRS

_MICROMETRES = {"meters": 1e6, "metres": 1e6, "m": 1e6, "millimeters": 1e3, "mm": 1e3}
_MICROMETRES |= {"micrometers": 1.0, "microns": 1.0, "um": 1.0, "µm": 1.0}
_PEAK = "peak_channel_id"  # column of units that points to an electrode by its id
_TAKEN = ("neuron", "plane", "area", "position", "axis")
_WORDS = ("auto", "none")
Positions = Literal["auto", "none"] | Sequence[str]


def as_positions(positions: Any) -> str | tuple[str, ...]:
    """Refuse positions of neurons that are neither a word that is known nor names of columns.

    Parameters
    ----------
    positions : object

    Returns
    -------
    str or tuple of str

    Raises
    ------
    TypeError, ValueError
        If they are something else.
    """
    if isinstance(positions, str):
        return as_word(positions, _WORDS, "positions", ", or columns in micrometres, ('x', 'y')")
    return tuple(as_words(positions, "positions", of="x"))


def neuron_coords(
    path: Path,
    nwb: Any,
    populations: list[Population],
    positions: str | tuple[str, ...],
    labels: Sequence[str],
) -> dict[str, tuple]:
    """Coordinates of the neurons of all populations, one behind the other.

    Parameters
    ----------
    path : Path
    nwb : NWBFile
    populations : list of Population
    positions : "auto", "none" or tuple of str
        Columns of the table of regions or units, in micrometres.
    labels : sequence of str
        Columns of these tables that become coordinates.

    Returns
    -------
    dict of str to tuple
        `neuron`, and `plane`, `area` and `position` where they are known.
    """
    if len(populations) == 1:
        ids = populations[0].ids
    else:  # regions of each plane count from 0
        ids = np.concatenate([[f"{one.name}/{i}" for i in one.ids] for one in populations])
    if len(np.unique(ids)) < len(ids):
        names = [one.name for one in populations]
        refuse(path, f"regions or units of {names} share their ids", "an id of their own each")
    coords: dict[str, tuple] = {"neuron": ("neuron", ids)}
    counts = [len(one.rows) for one in populations]
    if populations[0].name != "units":
        planes = [one.table.imaging_plane for one in populations]
        coords["plane"] = ("neuron", np.repeat([plane.name for plane in planes], counts))
        located = np.repeat([str(plane.location) for plane in planes], counts)
        coords["area"] = ("neuron", located)
    elif (areas := _areas(path, nwb, populations[0])) is not None:
        coords["area"] = ("neuron", areas)
    for label in labels:
        coords[label] = ("neuron", _labels(path, populations, label))
    if isinstance(positions, str) and positions == "none":
        return coords
    if isinstance(positions, str):
        place = _found(populations)
    else:
        place = _columns(path, populations, positions)
    if place is not None:
        coords["position"] = (("neuron", "axis"), place, POSITION_ATTRS)
        coords["axis"] = ("axis", list(AXES[: place.shape[1]]))
    return coords


def _columns(path: Path, populations: list[Population], names: tuple[str, ...]) -> np.ndarray:
    found = []
    for one in populations:
        absent = [name for name in names if name not in one.table.colnames]
        if absent or len(names) not in (2, 3):
            refuse(
                path,
                f"positions is {names}, the columns of {name_of(one.table)} are "
                f"{list(one.table.colnames)}",
                "two or three of them: x, y and z in micrometres",
            )
        read = [column_of(path, name_of(one.table), one.table, name) for name in names]
        columns = [numbers(path, *told)[one.rows] for told in zip(names, read, strict=True)]
        found.append(np.stack(columns, axis=1))
    return np.concatenate(found).astype(np.float64)


def _found(populations: list[Population]) -> np.ndarray | None:
    """Positions from masks of regions, or from electrodes; None, with a warning, without."""
    found = [_of_one(one) for one in populations]
    told = [place for place in found if not isinstance(place, str)]
    why = next((place for place in found if isinstance(place, str)), _of_two_systems(populations))
    if why is not None:
        warn(
            f"positions of neurons are left out: {why}. Name columns in micrometres by "
            "positions=(...), or leave them out by positions='none'."
        )
        return None
    n_axes = min(place.shape[1] for place in told)
    position = np.concatenate([place[:, :n_axes] for place in told])
    if not np.isfinite(position).all():
        lost = int((~np.isfinite(position).all(axis=1)).sum())
        warn(
            f"positions of neurons are left out: those of {lost} of {len(position)} are NaN. Name "
            "columns by positions=(...), or leave them out by positions='none'."
        )
        return None
    return position


def _of_two_systems(populations: list[Population]) -> str | None:
    """Why positions on several planes cannot be held against each other; None where they can."""
    if populations[0].name == "units":
        return None
    planes = [one.table.imaging_plane for one in populations]
    lost = [plane.name for plane in planes if plane.origin_coords is None]
    if len(lost) in (0, len(planes)):
        return None
    return f"the plane {lost[0]!r} does not tell where it lies (origin_coords), as others do"


def _of_one(one: Population) -> np.ndarray | str:
    if one.name == "units":
        return _of_electrodes(one)
    plane = one.table.imaging_plane
    spacing = None if plane.grid_spacing is None else np.asarray(plane.grid_spacing[:], float)
    scale = _MICROMETRES.get(str(plane.grid_spacing_unit).lower())
    if spacing is None or scale is None or len(spacing) < 2:
        return f"the plane {plane.name!r} does not tell the size of its pixels (grid_spacing)"
    pixels = _centroids(one)
    if isinstance(pixels, str):
        return pixels
    position = pixels[:, : len(spacing)] * spacing[: pixels.shape[1]] * scale
    if plane.origin_coords is None:
        return position
    origin = np.asarray(plane.origin_coords[:], float)
    scale = _MICROMETRES.get(str(plane.origin_coords_unit).lower())
    if scale is None:
        return f"the origin of the plane {plane.name!r} is in {plane.origin_coords_unit!r}"
    out = np.zeros((len(position), max(position.shape[1], len(origin))))
    out[:, : position.shape[1]] = position
    out[:, : len(origin)] += origin * scale
    return out


def _centroids(one: Population) -> np.ndarray | str:
    """Weighted centres of masks in pixels, x, y and, of volumes, z; one mask is in memory."""
    columns = one.table.colnames
    found = []
    for row in one.rows:
        if "image_mask" in columns:
            mask = np.asarray(one.table["image_mask"].data[int(row)], np.float64)
            places, weights = np.argwhere(mask).astype(np.float64), mask[mask != 0]
        elif "pixel_mask" in columns or "voxel_mask" in columns:
            name = "pixel_mask" if "pixel_mask" in columns else "voxel_mask"
            entries = np.array([tuple(e) for e in one.table[name][int(row)]], np.float64)
            places, weights = entries[:, :-1], entries[:, -1]
        else:
            return f"{name_of(one.table)} has no masks"
        if not len(places) or not weights.sum() > 0:
            return f"the mask of region {one.table.id[int(row)]} is empty"
        found.append(weights @ places / weights.sum())
    return np.stack(found)


def _of_electrodes(one: Population) -> np.ndarray | str:
    if "electrodes" not in one.table.colnames:
        return "the units do not name their electrodes"
    found = []
    for row in one.rows:
        electrodes = one.table["electrodes"][int(row)]
        absent = [axis for axis in AXES if axis not in electrodes.columns]
        if absent:
            return f"the electrodes have no {', '.join(absent)}"
        found.append(electrodes[list(AXES)].to_numpy(np.float64).mean(axis=0))
    return np.stack(found)


def _areas(path: Path, nwb: Any, one: Population) -> np.ndarray | None:
    """Where the electrodes of each unit are: all places, where these are several."""
    columns = one.table.colnames
    if "electrodes" in columns:
        places = [one.table["electrodes"][int(row)]["location"] for row in one.rows]
        return np.array(["; ".join(dict.fromkeys(map(str, place))) for place in places])
    if _PEAK not in columns or nwb.electrodes is None or "location" not in nwb.electrodes.colnames:
        return None
    found = column_of(path, "electrodes", nwb.electrodes, "location")
    location = dict(zip(np.asarray(nwb.electrodes.id[:]).tolist(), found, strict=True))
    peaks = column_of(path, one.name, one.table, _PEAK)[one.rows]
    absent = [peak for peak in peaks.tolist() if peak not in location]
    if absent:
        refuse(path, f"{_PEAK} of units names {absent[:3]}", "ids of the table of electrodes")
    return np.array([str(location[peak]) for peak in peaks.tolist()])


def _labels(path: Path, populations: list[Population], label: str) -> np.ndarray:
    """What a column of the tables of all populations says of each neuron."""
    for one in populations:
        if label not in one.table.colnames or label in _TAKEN:
            refuse(
                path,
                f"neuron_labels names {label!r}",
                f"columns of {name_of(one.table)}, {list(one.table.colnames)}"
                + (f", but {', '.join(_TAKEN)}" if label in _TAKEN else ""),
            )
    read = [column_of(path, name_of(one.table), one.table, label)[one.rows] for one in populations]
    values = np.concatenate(read)
    return values if values.dtype.kind != "O" else values.astype(str)

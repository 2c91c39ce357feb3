"""Names, dimensions, tiers and units of a recording, and the check that it follows them.

A recording is one mouse, an `xarray.Dataset`; recordings are several mice, an `xarray.DataTree`
with one child per mouse, or a mapping {mouse: dataset}. No reading or writing of files here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import xarray as xr

from v1tlearn._values import as_flag, as_ids
from v1tlearn.datasets.blocks import blocks
from v1tlearn.datasets.given_recordings import recordings_to_dict
from v1tlearn.datasets.receptive_maps import check_receptive_field
from v1tlearn.datasets.spontaneous import check_spontaneous, check_spontaneous_finite
from v1tlearn.datasets.time_axis import check_frames, check_time, frames_of, is_movie, with_time

TIERS = ("train", "validation", "test", "final_test")

BEHAVIOR_NAMES = (
    "pupil_dilation",
    "pupil_dilation_derivative",
    "running_speed",
    "pupil_x",
    "pupil_y",
)
BEHAVIOR_UNITS = {
    "pupil_dilation": "a.u.",
    "pupil_dilation_derivative": "a.u./s",
    "running_speed": "cm/s",
    "pupil_x": "px",
    "pupil_y": "px",
}

# Dimensions of the variables of a recording; those of movies have `time` behind `trial`. Statistics
# drop both; those of stimuli are scalars.
DIMS = {
    "stimuli": ("trial", "channel", "height", "width"),
    "behaviors": ("trial", "behavior"),
    "responses": ("trial", "neuron"),
    "expected_responses": ("trial", "neuron"),
}
TRIAL_LABELS = ("image_id", "tier", "trial_id", "n_frames")
NEURON_LABELS = ("area", "layer", "animal_id", "session", "scan")
AXES = ("x", "y", "z")
STATISTICS = ("mean", "std", "min", "max", "median")

STIMULI_ATTRS = {"long_name": "grey level, 0 to 255", "units": "1"}
RESPONSES_ATTRS = {"long_name": "response", "units": "a.u."}
POSITION_ATTRS = {"long_name": "cortical position", "units": "um"}


def are_known(categories: np.ndarray) -> np.ndarray:
    """Tell which labels in the coordinate `category` name one, as "unknown" does not.

    Parameters
    ----------
    categories : ndarray

    Returns
    -------
    ndarray of bool
    """
    return categories.astype(str) != "unknown"


def default_behavior_names(n_columns: int, mouse: str | None = None) -> list[str]:
    """Return the names of behaviour columns that come without names.

    Parameters
    ----------
    n_columns : int
        3 (pupil dilation, its derivative, running speed) or 5 (those and pupil x, y).
    mouse : str, optional
        Whose columns they are, for the error.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        For any other number of columns.
    """
    if n_columns not in (3, 5):
        whose = "" if mouse is None else f"mouse {mouse!r}: "
        raise ValueError(
            f"{whose}behaviors have {n_columns} columns without names; only 3 "
            f"({', '.join(BEHAVIOR_NAMES[:3])}) or 5 (those, pupil_x and pupil_y) have default "
            f"names: pass behavior_names with {n_columns} names"
        )
    return list(BEHAVIOR_NAMES[:n_columns])


def behavior_attrs(names: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Return the attributes of `behaviors`, which list the units of the columns that have one.

    Parameters
    ----------
    names : list or tuple of str
        The columns.

    Returns
    -------
    dict of str to str
        `long_name` and `units`, "pupil_dilation: a.u.; running_speed: cm/s".
    """
    units = [f"{name}: {BEHAVIOR_UNITS[name]}" for name in names if name in BEHAVIOR_UNITS]
    return {"long_name": "behaviour during the trial", "units": "; ".join(units)}


def statistic_dims(variable: str) -> tuple[str, ...]:
    """Return the dimensions of the statistics of a variable.

    Parameters
    ----------
    variable : {"stimuli", "behaviors", "responses"}
        The variable.

    Returns
    -------
    tuple of str
        Those of the variable without trial; none for stimuli, whose statistics are scalars.
    """
    return () if variable == "stimuli" else DIMS[variable][1:]


def validate_recordings(
    recordings: xr.DataTree | Mapping[str, xr.Dataset] | xr.Dataset, *, check_values: bool = True
) -> None:
    """Check that recordings follow the schema.

    NaN in responses means "not recorded" and is allowed; everything else must be finite. Variables
    and coordinates beyond the schema are left alone. Activity recorded without stimuli is the
    variable `spontaneous` (frame, neuron).

    Trials are images, or movies: then stimuli, behaviors and responses have the dimension `time`
    behind `trial`, with a coordinate `time` in seconds that rises evenly (or, with the unit
    "frame", counts the frames where nobody knows their rate). The coordinate `n_frames` (trial)
    says where trials end that are shorter than the time axis: responses are NaN from there on,
    stimuli and behaviour anything, because what stands there is not read.

    Parameters
    ----------
    recordings : DataTree, mapping {mouse: Dataset}, or Dataset
        One child, or dataset, per mouse; or one mouse alone: a child of a DataTree, or a dataset
        whose attribute `mouse_id` names it.
    check_values : bool, default=True
        Also look for missing ids and, block by block, for numbers that are not finite. False checks
        names, dimensions, dtypes and labels only, and reads no trial.

    Raises
    ------
    TypeError, ValueError
        Naming the mouse, the variable, what came, what was expected and what to do.
    """
    check_values = as_flag(check_values, "check_values")
    for mouse, dataset in recordings_to_dict(recordings).items():
        check_structure(mouse, dataset)
        _check_columns_named(mouse, dataset)
        _check_positions_finite(mouse, dataset)
        if check_values:
            check_ids(mouse, dataset)
            check_receptive_field(mouse, dataset)
            check_spontaneous_finite(mouse, dataset)
            for name in DIMS:
                if name in dataset and is_movie(dataset):
                    check_frames(mouse, name, dataset[name], frames_of(dataset))
                elif name in dataset:
                    _check_finite(mouse, name, dataset[name])


def check_read(
    files: str | os.PathLike | Sequence[str | os.PathLike],
    recordings: Mapping[str, xr.Dataset],
    *,
    check_values: bool = False,
) -> None:
    """Check recordings that were read of files, which are named where something is wrong.

    Parameters
    ----------
    files : path or sequence of path
    recordings : mapping {mouse: Dataset}
    check_values : bool, default=False
        As in `validate_recordings`.

    Raises
    ------
    ValueError
        Naming the files, the mouse and the variable.
    """
    with files_named(files):
        validate_recordings(recordings, check_values=check_values)


@contextmanager
def files_named(files: str | os.PathLike | Sequence[str | os.PathLike]) -> Iterator[None]:
    """Put files into errors about what they hold, which name none of them."""
    try:
        yield
    except (TypeError, ValueError) as error:
        every = [files] if isinstance(files, str | os.PathLike) else files
        paths = [os.fspath(file) for file in every]
        if any(path in str(error) for path in paths):
            raise
        raise ValueError(f"{', '.join(paths)}: {error}") from error


def check_structure(mouse: str, dataset: xr.Dataset) -> None:
    """Check names, dimensions, dtypes and labels of one recording, in a few milliseconds.

    Stimuli, behaviors and responses are not read. Everything but stimuli may be missing, and the
    columns of behaviors may come without names.

    Parameters
    ----------
    mouse : str
        Mouse id, for errors.
    dataset : Dataset
        The recording.

    Raises
    ------
    ValueError
        Naming the mouse, the variable, what came, what was expected and what to do.
    """
    _check_variables(mouse, dataset)
    _check_labels(mouse, dataset, TRIAL_LABELS, "trial")
    check_time(mouse, dataset)
    _check_labels(mouse, dataset, NEURON_LABELS, "neuron")
    _check_tiers(mouse, dataset)
    _check_behavior_names(mouse, dataset)
    if "neuron" in dataset.coords:
        _check_unique(mouse, "neuron", dataset["neuron"].values)
    _check_position(mouse, dataset)
    _check_statistics(mouse, dataset)
    check_spontaneous(mouse, dataset)


def check_ids(mouse: str, dataset: xr.Dataset) -> None:
    """Check that no image, trial or neuron of a recording lacks its id."""
    for name, of in (("image_id", "trial"), ("trial_id", "trial"), ("neuron", "neuron")):
        if name in dataset.coords:
            as_ids(dataset[name].values, f"mouse {mouse!r}, {name}", of=of)


def _check_variables(mouse: str, dataset: xr.Dataset) -> None:
    if "stimuli" not in dataset:
        found = ", ".join(map(str, dataset.data_vars)) or "none"
        raise ValueError(
            f"mouse {mouse!r}: stimuli are missing (variables found: {found}); expected a variable "
            f"'stimuli' with dims {DIMS['stimuli']}"
        )
    movies = is_movie(dataset)
    for name, dims in DIMS.items():
        if name not in dataset:
            continue
        array = dataset.variables[name]
        dims = with_time(dims) if movies else dims
        if array.dims != dims:
            timed = "time" in (*array.dims, *dims)
            why = f", because stimuli have {'a' if movies else 'no'} time axis" if timed else ""
            raise ValueError(
                f"mouse {mouse!r}, {name}: dims are {array.dims} with shape {array.shape}, "
                f"expected {dims}{why}; rename or transpose them. All variables share one "
                "dimension 'trial', so they must have the same number of trials"
            )
        if array.dtype.kind not in "uif":
            raise ValueError(
                f"mouse {mouse!r}, {name}: dtype is {array.dtype}, expected uint8 or float; "
                'convert it with .astype("float32")'
            )
        empty = [dim for dim, size in array.sizes.items() if size == 0]
        if empty:
            raise ValueError(
                f"mouse {mouse!r}, {name}: is empty, shape {dict(array.sizes)}; expected at least "
                f"one {empty[0]}: drop the mouse or the variable"
            )


def _check_labels(mouse: str, dataset: xr.Dataset, names: tuple[str, ...], dim: str) -> None:
    for name in names:
        if name not in dataset:
            continue
        label = dataset.variables[name]
        if label.dims != (dim,):
            raise ValueError(
                f"mouse {mouse!r}, {name}: dims are {label.dims} with shape {label.shape}, "
                f"expected ({dim!r},) with {dataset.sizes.get(dim, 0)} values, one label per {dim}"
            )
        _check_coordinate(mouse, dataset, name)


def _check_coordinate(mouse: str, dataset: xr.Dataset, name: str) -> None:
    if name in dataset.data_vars:
        raise ValueError(
            f"mouse {mouse!r}, {name}: is a data variable, expected a coordinate: "
            f"dataset.set_coords({name!r})"
        )


def _check_tiers(mouse: str, dataset: xr.Dataset) -> None:
    if "tier" not in dataset:
        return
    tiers = set(dataset["tier"].values.tolist())
    if any(isinstance(tier, bytes) for tier in tiers):
        raise ValueError(
            f"mouse {mouse!r}, tier: labels are bytes, expected strings: "
            "dataset.assign_coords(tier=dataset.tier.astype(str))"
        )
    unknown = sorted({str(tier) for tier in tiers} - set(TIERS))
    if unknown:
        raise ValueError(
            f"mouse {mouse!r}, tier: unknown {', '.join(map(repr, unknown))}; expected only "
            f"{', '.join(TIERS)}: rename or drop these trials"
        )


def _check_behavior_names(mouse: str, dataset: xr.Dataset) -> None:
    if "behavior" not in dataset.coords:
        return
    names = dataset["behavior"].values
    if not all(isinstance(name, str) for name in names.tolist()):
        raise ValueError(
            f"mouse {mouse!r}, behavior: names are {names.tolist()}, expected strings such as "
            f"{', '.join(BEHAVIOR_NAMES)}"
        )
    _check_unique(mouse, "behavior", names)


def _check_columns_named(mouse: str, dataset: xr.Dataset) -> None:
    if "behaviors" in dataset and "behavior" not in dataset.coords:
        raise ValueError(
            f"mouse {mouse!r}, behaviors: the {dataset.sizes['behavior']} columns have no names; "
            "expected a coordinate 'behavior': dataset.assign_coords(behavior=[...])"
        )


def _check_position(mouse: str, dataset: xr.Dataset) -> None:
    if "position" not in dataset:
        return
    position = dataset.variables["position"]
    if position.dims != ("neuron", "axis") or position.sizes["axis"] not in (2, 3):
        raise ValueError(
            f"mouse {mouse!r}, position: dims are {position.dims} with shape {position.shape}, "
            "expected ('neuron', 'axis') with 2 or 3 axes (x, y, z), in micrometres"
        )
    if position.dtype.kind not in "uif":
        raise ValueError(
            f"mouse {mouse!r}, position: dtype is {position.dtype}, expected numbers in micrometres"
        )


def _check_positions_finite(mouse: str, dataset: xr.Dataset) -> None:
    if "position" in dataset and not np.isfinite(dataset["position"].values).all():
        raise ValueError(
            f"mouse {mouse!r}, position: holds NaN or infinite values, expected finite numbers in "
            "micrometres; drop those neurons, or the position of this mouse"
        )


def _check_statistics(mouse: str, dataset: xr.Dataset) -> None:
    for variable in ("stimuli", "behaviors", "responses"):
        for statistic in STATISTICS:
            name = f"{variable}_{statistic}"
            if name not in dataset:
                continue
            array, dims = dataset.variables[name], statistic_dims(variable)
            if array.dims != dims:
                raise ValueError(
                    f"mouse {mouse!r}, {name}: dims are {array.dims} with shape {array.shape}, "
                    f"expected {dims}: the statistics of the training tier"
                )
            if array.dtype.kind not in "uif":
                raise ValueError(
                    f"mouse {mouse!r}, {name}: dtype is {array.dtype}, expected numbers"
                )


def _check_unique(mouse: str, name: str, values: np.ndarray) -> None:
    unique, counts = np.unique(values, return_counts=True)
    if (counts > 1).any():
        repeated = unique[counts > 1]
        raise ValueError(
            f"mouse {mouse!r}, {name}: {len(repeated)} names occur more than once, the first is "
            f"{repeated[0].item()!r}; expected unique names: drop or rename the duplicates"
        )


def _check_finite(mouse: str, name: str, array: xr.DataArray) -> None:
    if array.dtype.kind != "f":
        return
    nan_allowed = name == "responses"
    for start, block in blocks(array):
        bad = np.isinf(block) if nan_allowed else ~np.isfinite(block)
        if bad.any():
            trial = int(np.argmax(bad.reshape(len(block), -1).any(axis=1)))
            value = block[trial][bad[trial]][0]
            raise ValueError(
                f"mouse {mouse!r}, {name}: {value} in trial {start + trial}; expected finite values"
                + (" or NaN for 'not recorded'" if nan_allowed else "")
                + ": repair the value or drop the trial"
            )

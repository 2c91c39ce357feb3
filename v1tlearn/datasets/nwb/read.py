"""`read_nwb`: one NWB file, presentations of images and responses to them, as a recording."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn._instead import path_of
from v1tlearn._values import plain
from v1tlearn.datasets.given_files import check_there
from v1tlearn.datasets.nwb.behavior import Behaviors, behaviors_of
from v1tlearn.datasets.nwb.images import ShownImages, check_finite
from v1tlearn.datasets.nwb.neurons import Positions, neuron_coords
from v1tlearn.datasets.nwb.opening import opened, refuse
from v1tlearn.datasets.nwb.presentations import Asked, Presentations, column_of, find
from v1tlearn.datasets.nwb.series import Windows
from v1tlearn.datasets.nwb.traces import REDUCTIONS, Population, populations
from v1tlearn.datasets.schema import DIMS, STIMULI_ATTRS, validate_recordings

_AXES = (("height", "width"), ("width", "height"))
_INCOMPLETE = ("raise", "nan", "drop")

Window = tuple[float, float]


def read_nwb(
    path: str | os.PathLike,
    stimulus: str | None = None,
    responses: str | Sequence[str] | None = None,
    *,
    window: Window = (0.05, 0.55),
    reduction: Literal["auto", "mean", "sum", "rate"] = "auto",
    overlapping: bool = False,
    incomplete: Literal["raise", "nan", "drop"] = "raise",
    templates: str | np.ndarray | None = None,
    image_column: str | None = None,
    where: Mapping[str, Any] | None = None,
    first_index: int = 0,
    blanks: Sequence[Any] = (),
    image_axes: tuple[str, str] = ("height", "width"),
    behaviors: Behaviors | None = None,
    behavior_window: Window | None = None,
    tiers: str | None = None,
    positions: Positions = "auto",
    name: str | None = None,
) -> xr.Dataset:
    """Open a recording in the format NWB 2, in which DANDI keeps data: images and responses.

    Every presentation of an image is a trial. Nothing is guessed: where a file holds several
    series that may be meant, an error lists their names.

    Parameters
    ----------
    path : path
        The file.
    stimulus : str, optional
        Name of what tells which image was shown when: an ImageSeries, whose images were shown one
        after the other, an IndexSeries, which points to templates, or a table of intervals
        (trials, epochs or any other) with a column of images. By default the only one.
    responses : str or sequence of str, optional
        Name of a RoiResponseSeries (dF/F, fluorescence, deconvolved), as
        "ophys/DfOverF/plane_1" or the end of it; several, such as planes, whose neurons stand one
        behind the other; the container of several, in the order of their names; or "units". By
        default the only one.
    window : (float, float), default=(0.05, 0.55)
        From when, included, to when responses count, in seconds after the onset of an image.
    reduction : {"auto", "mean", "sum", "rate"}, default="auto"
        What becomes of samples in the window: their mean, their sum, or the sum per second.
        "auto" is the mean of series, and the rate of units in spikes per second.
    overlapping : bool, default=False
        Whether windows of trials may overlap, so that samples count twice.
    incomplete : {"raise", "nan", "drop"}, default="raise"
        What becomes of trials whose window was not recorded as a whole: outside of the recording,
        or across a gap in its timestamps. With "nan" their responses are "not recorded"; "drop"
        leaves these trials out, and those without behaviour, too.
    templates : str or ndarray, optional
        Name of the images, where the presentations do not tell it and there are several; or the
        images themselves (images, [channels,] height, width), where the file has none.
    image_column : str, optional
        Column of the table that says which image was shown, by its place or name; by default the
        only one of "image_index", "template_index", "stimulus_index", "frame", "image_id" and
        "image_name".
    where : mapping of str to label, optional
        Rows of the table that are read: what their columns hold, such as
        ``{"stimulus_name": "natural_scenes"}``.
    first_index : int, default=0
        What the first image is counted as; NWB says 0.
    blanks : sequence, default=()
        What stands in place of an image where none was shown, such as -1, NaN or "omitted". These
        presentations are left out.
    image_axes : {("height", "width"), ("width", "height")}, default=("height", "width")
        Order in which the sides of images are stored. Most files hold rows first, though the
        format says x, then y.
    behaviors : mapping of str to (str or (str, int)), optional
        Columns of behaviour, and the series that they are means of: ``{"running_speed":
        "behavior/speed", "pupil_x": ("EyeTracking/pupil", 0)}``, with the number of the column
        where a series has several.
    behavior_window : (float, float), optional
        From when to when behaviour counts; by default as responses.
    tiers : str, optional
        Column of the table with "train", "validation", "test" or "final_test".
    positions : "auto", "none" or sequence of str, default="auto"
        Positions of neurons in micrometres. "auto" takes the centres of masks, on planes that tell
        the size of a pixel, or the mean place of a unit's electrodes, and warns where these are
        not told. Or columns of the table of regions or units with x, y and possibly z.
    name : str, optional
        What the animal is called; by default the subject, or, without one, the identifier.

    Returns
    -------
    Dataset
        A recording, in the order of the presentations in the file, with

        * `stimuli` (trial, channel, height, width): uint8 as stored, or float32, read when indexed;
        * `responses` (trial, neuron): float32, in `units` as the attributes tell;
        * `behaviors` (trial, behavior): float32, in the units of the file;
        * coordinates `trial_id`, the order in time; `onset` in seconds of the session;
          `presentation`, the row in the series or table; `image_id`, the place of the template
          from 0, or none for an ImageSeries, where `Trials` compare what images show; `image_name`
          and `tier` where they are told; `neuron`, ids of regions or units, "series/id" for
          several series; `plane`, `area`, `position`.

        Its name is the attribute `mouse_id`, so that ``Trials(recording)`` takes it; several are
        given as ``{"A": recording, "B": other}``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        Without the extra "nwb".
    ValueError
        Naming the file: it is damaged, or links to others; a choice that is to be made, with the
        names; timestamps that do not rise; presentations that overlap, or windows that do; images
        that templates do not have; windows that were not recorded; behaviour that is NaN, images
        in other files or of several sizes.

    Warns
    -----
    UserWarning
        If positions of neurons are not told.

    See Also
    --------
    Trials : What a model is fitted to.

    Notes
    -----
    Conversion and offset of series are applied. A sample at the edge of a window, but for a
    thousandth of the time between samples, lies behind the edge. A gap is where the next sample
    comes after more than 1.5 times the median step. Windows that leave a unit's `obs_intervals` are
    "not recorded" of that unit, NaN. Samples that are NaN make the response NaN. Traces are read
    in blocks of 32 MiB along their chunks, images as far as they are indexed.

    Movies are not read: their frames follow each other faster than windows, which is an error.

    References
    ----------
    Rübel et al. 2022, The Neurodata Without Borders ecosystem for neurophysiological data science,
    eLife 11:e78362; https://www.nwb.org.

    Examples
    --------
    >>> recording = read_nwb("sub-1_ophys.nwb", window=(0.1, 0.6),
    ...                      behaviors={"running_speed": "speed"})  # doctest: +SKIP
    """
    path = Path(path_of("path", path, "read_nwb(path)"))
    check_there([path], "NWB")
    window = _seconds("window", window)
    within = window if behavior_window is None else _seconds("behavior_window", behavior_window)
    for argument, value, known in (
        ("reduction", reduction, REDUCTIONS),
        ("incomplete", incomplete, _INCOMPLETE),
        ("image_axes", image_axes, _AXES),
        ("first_index", plain(first_index), (0, 1)),
    ):
        if value not in known or isinstance(value, bool):
            raise ValueError(f"{argument} is {value!r}: expected one of {known}.")
    asked = Asked(
        stimulus,
        templates,
        image_column,
        int(first_index),
        tuple(blanks),
        dict(where or {}),
        image_axes == _AXES[1],
    )
    with opened(path) as nwb:
        shown = find(path, nwb, asked)
        if not overlapping:
            _check_apart(path, shown, window)
        found = populations(path, nwb, responses, Windows.after(shown.onsets, window), reduction)
        recorded = np.all([one.whole for one in found], axis=0)
        variables: dict[str, Any] = {}
        values = np.concatenate([one.values for one in found], axis=1)
        measured = np.ones(len(values), bool)
        if behaviors:
            columns, units = behaviors_of(path, nwb, behaviors, Windows.after(shown.onsets, within))
            measured = np.isfinite(columns).all(axis=1)
        kept = _kept(path, shown, recorded, measured, incomplete, list(behaviors or {}))
        if behaviors:
            said = "; ".join(f"{column}: {unit}" for column, unit in units.items())
            attrs = {"long_name": "mean in the window of the trial", "units": said}
            variables["behaviors"] = (DIMS["behaviors"], columns[kept], attrs)
        variables["responses"] = (
            DIMS["responses"],
            values[kept],
            _response_attrs(found, window),
        )
        shown = shown.keep(kept)
        check_finite(path, shown.images)
        stimuli = indexing.LazilyIndexedArray(ShownImages(shown.images, shown.shown))
        variables["stimuli"] = xr.Variable(DIMS["stimuli"], stimuli, STIMULI_ATTRS)
        coords = _trial_coords(path, shown, tiers) | neuron_coords(path, found, positions)
        if behaviors:
            coords["behavior"] = ("behavior", list(behaviors))
        dataset = xr.Dataset(variables, coords, _attrs(nwb, name))
    validate_recordings({dataset.attrs["mouse_id"]: dataset}, check_values=False)
    if np.isinf(values[kept]).any():
        refuse(path, "responses hold infinite values", "finite ones, or NaN where not recorded")
    return dataset


def _seconds(argument: str, window: Any) -> Window:
    ends = plain(window)
    try:
        start, stop = (float(end) for end in ends)
    except (TypeError, ValueError):
        start = stop = np.nan
    if not (np.isfinite(start) and np.isfinite(stop) and start < stop):
        raise ValueError(
            f"{argument} is {window!r}: expected two times in seconds after the onset, the first "
            "before the second."
        )
    return start, stop


def _check_apart(path: Path, shown: Presentations, window: Window) -> None:
    """Refuse windows that overlap, as those of the frames of a movie do."""
    order = np.argsort(shown.onsets, kind="stable")
    apart, seconds = np.diff(shown.onsets[order]), window[1] - window[0]
    near = np.flatnonzero(apart < seconds * (1 - 1e-6))
    if len(near):
        row = shown.rows[order[near[0] + 1]]
        refuse(
            path,
            f"presentation {row} of {shown.name} follows {apart[near[0]]:g} s after another, and "
            f"so do {len(near)} in all, but the window is {seconds:g} s long",
            "windows that do not overlap: pass a shorter window, or overlapping=True where images "
            "are meant so. Movies are not read",
        )


def _kept(
    path: Path,
    shown: Presentations,
    recorded: np.ndarray,
    measured: np.ndarray,
    incomplete: str,
    behaviors: list[str],
) -> np.ndarray:
    """Which presentations become trials."""
    if incomplete == "drop":
        kept = np.flatnonzero(recorded & measured)
        if not len(kept):
            refuse(path, "no trial was recorded as a whole", "some: look at window, and at clocks")
        return kept
    if incomplete == "raise" and not recorded.all():
        at = int(np.argmin(recorded))
        refuse(
            path,
            f"{(~recorded).sum()} of {len(recorded)} windows were not recorded as a whole, the "
            f"first of presentation {shown.rows[at]} of {shown.name}, shown at "
            f"{shown.onsets[at]:g} s",
            "presentations within the recording: pass incomplete='drop', or 'nan'",
        )
    if not measured.all():
        at = int(np.argmin(measured))
        refuse(
            path,
            f"in {(~measured).sum()} of {len(measured)} trials behaviour ({', '.join(behaviors)}) "
            f"is NaN or was not recorded, the first at {shown.onsets[at]:g} s",
            "behaviour in all trials: pass incomplete='drop', which leaves the others out",
        )
    return np.arange(len(recorded))


def _response_attrs(found: list[Population], window: Window) -> dict[str, Any]:
    units = {one.units for one in found}
    return {
        "long_name": "response",
        "units": units.pop()
        if len(units) == 1
        else "; ".join(f"{o.name}: {o.units}" for o in found),
        "window": list(window),
    }


def _trial_coords(path: Path, shown: Presentations, tiers: str | None) -> dict[str, tuple]:
    order = np.argsort(np.argsort(shown.onsets, kind="stable"), kind="stable")
    coords: dict[str, tuple] = {
        "trial_id": ("trial", order),
        "onset": ("trial", shown.onsets, {"units": "s"}),
        "presentation": ("trial", shown.rows),
    }
    if shown.are_indexed:
        coords["image_id"] = ("trial", shown.shown)
    if shown.names is not None:
        coords["image_name"] = ("trial", shown.names[shown.shown])
    if tiers is not None:
        if shown.table is None or tiers not in shown.table.colnames:
            told = "no columns" if shown.table is None else f"{list(shown.table.colnames)}"
            refuse(path, f"tiers is {tiers!r}, {shown.name} has {told}", "a column of the table")
        labels = column_of(path, shown.name, shown.table, tiers)[shown.rows]
        coords["tier"] = ("trial", labels.astype(str))
    return coords


def _attrs(nwb: Any, name: str | None) -> dict[str, Any]:
    subject = None if nwb.subject is None else nwb.subject.subject_id
    attrs = {
        "mouse_id": str(name or subject or nwb.identifier),
        "session": str(nwb.session_id or nwb.identifier),
        "session_start_time": nwb.session_start_time.isoformat(),
    }
    if nwb.subject is not None and nwb.subject.species:
        attrs["species"] = str(nwb.subject.species)
    return attrs

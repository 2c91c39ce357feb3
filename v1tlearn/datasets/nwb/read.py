"""`read_nwb`: one NWB file, presentations of images and responses to them, as a recording."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn._instead import path_of
from v1tlearn._options import as_words
from v1tlearn._values import as_flag, plain
from v1tlearn.datasets.given_files import check_there
from v1tlearn.datasets.nwb.assembling import (
    as_asked,
    attrs_of,
    behavior_attrs,
    check_choices,
    check_for_behaviors,
    check_names,
    check_seconds,
    kept_trials,
    response_attrs,
)
from v1tlearn.datasets.nwb.behavior import Behaviors, as_behaviors, behaviors_of
from v1tlearn.datasets.nwb.finding import as_wanted, column_of
from v1tlearn.datasets.nwb.images import ShownImages, check_finite
from v1tlearn.datasets.nwb.neurons import Positions, as_positions, neuron_coords
from v1tlearn.datasets.nwb.opening import opened, refuse
from v1tlearn.datasets.nwb.presentations import Presentations, find
from v1tlearn.datasets.nwb.series import Windows
from v1tlearn.datasets.nwb.traces import as_series_names, populations
from v1tlearn.datasets.schema import DIMS, STIMULI_ATTRS, check_read

REDUCTIONS = ("auto", "mean", "sum", "rate")

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
    behavior_gaps: float = 0.0,
    tiers: str | None = None,
    neurons: Mapping[str, Any] | None = None,
    neuron_labels: Sequence[str] = (),
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
        images themselves (images, [channels,] height, width), 1 or 3 channels, where the file
        has none.
    image_column : str, optional
        Column of the table that says which image was shown, by its place or name; by default the
        only one of "image_index", "template_index", "stimulus_index", "frame", "image_id" and
        "image_name".
    where : mapping of str to label or list of labels, optional
        Rows of the table that are read: what their columns hold, such as
        ``{"stimulus_name": "natural_scenes"}``.
    first_index : int, default=0
        What the first image is counted as; NWB says 0.
    blanks : sequence, default=()
        What stands in place of an image where none was shown, such as -1, NaN or "omitted". These
        presentations are left out. -1 is what unsigned integers make of it, too. One that is
        nowhere is warned of: it may be misspelt.
    image_axes : {("height", "width"), ("width", "height")}, default=("height", "width")
        Order in which the sides of images are stored, not of `templates` that are given. Most
        files hold rows first, though the format says x, then y.
    behaviors : mapping of str to (str or (str, int)), optional
        Columns of behaviour, and the series that they are means of: ``{"running_speed":
        "behavior/speed", "pupil_x": ("EyeTracking/pupil", 0)}``, with the number of the column
        where a series has several.
    behavior_window : (float, float), optional
        From when to when behaviour counts; by default as responses. Without `behaviors` it is
        refused, as is `behavior_gaps`.
    behavior_gaps : float, default=0
        Seconds between two samples of behaviour that are numbers, up to which NaN between them,
        such as blinks, is replaced by what lies on a line.
    tiers : str, optional
        Column of the table with "train", "validation", "test" or "final_test".
    neurons : mapping of str to label or list of labels, optional
        Regions or units that are read: what the columns of their table hold, such as
        ``{"quality": "good"}`` or ``{"valid_roi": True}``.
    neuron_labels : sequence of str, default=()
        Columns of the table of regions or units, such as measures of their quality, that become
        coordinates of the neurons.
    positions : "auto", "none" or sequence of str, default="auto"
        Positions of neurons in micrometres. "auto" takes the centres of masks, on planes that tell
        the size of a pixel, or the mean place of a unit's electrodes, and warns where these are
        not told, or only some of several planes tell where they lie. Or columns of the table of
        regions or units with x, y and possibly z.
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
    TypeError, ValueError
        If an argument cannot be meant, such as templates with colour behind height and width, or
        has no effect; before the file is opened where it takes no file to tell.
    ValueError
        Naming the file: it is damaged, or links to others; a choice that is to be made, with the
        names; timestamps that do not rise; presentations that overlap, or windows that do; images
        that templates do not have; windows that were not recorded; behaviour that is NaN, images
        in other files or of several sizes.

    Warns
    -----
    UserWarning
        If positions of neurons are not told, or regions are marked invalid (`valid_roi`,
        `Accepted`) and were not left out by `neurons`.

    See Also
    --------
    read_nwb_movies : The same for movies.
    Trials : What a model is fitted to.

    Notes
    -----
    Conversion and offset of series are applied. A sample at the edge of a window, but for a
    thousandth of the time between samples, lies behind the edge. A gap is where the next sample
    comes after more than 1.5 times the median step. Windows that leave a unit's `obs_intervals` are
    "not recorded" of that unit, NaN. Samples that are NaN make the response NaN. Traces are read
    in blocks of 32 MiB along their chunks, images as far as they are indexed.

    Windows that touch `invalid_times` of the file are "not recorded". Where units have no
    `obs_intervals`, nobody tells when recording began: windows count as recorded that lie between
    the first and the last spike of all units, or as near to them as silence goes by chance (14
    mean times between spikes of all).

    Single images without an order (`order_of_images`) are counted by the numbers that their names
    end in, if these are all from `first_index` on.

    :func:`read_nwb_movies` reads movies, whose frames follow each other faster than windows.

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
    may_overlap = as_flag(overlapping, "overlapping")
    check_choices(
        {"reduction": REDUCTIONS},
        reduction=reduction,
        incomplete=incomplete,
        image_axes=image_axes,
        first_index=first_index,
    )
    check_names(tiers=tiers)
    wanted, names = as_behaviors(behaviors), as_series_names(responses)
    cells, placed = as_wanted(neurons, "neurons"), as_positions(positions)
    labels = as_words(neuron_labels, "neuron_labels", of="snr")
    gaps = check_seconds("behavior_gaps", behavior_gaps)
    check_for_behaviors(wanted, behavior_window=behavior_window is not None, behavior_gaps=gaps > 0)
    asked = as_asked(stimulus, templates, image_column, first_index, blanks, where, image_axes)
    with opened(path) as nwb:
        shown = find(path, nwb, asked)
        if not may_overlap:
            _check_apart(path, shown, window)
        how = ("mean", "rate") if reduction == "auto" else (reduction, reduction)
        after = Windows.after(shown.onsets, window)
        found = populations(path, nwb, names, after, how, cells)
        recorded = np.all([one.whole for one in found], axis=0)
        variables: dict[str, Any] = {}
        values = np.concatenate([one.values for one in found], axis=1)
        measured = np.ones(len(values), bool)
        if wanted:
            after = Windows.after(shown.onsets, within)
            columns, units = behaviors_of(path, nwb, wanted, after, "mean", behavior_gaps)
            measured = np.isfinite(columns).all(axis=1)
        kept = kept_trials(path, shown, recorded, measured, incomplete, list(wanted))
        if wanted:
            variables["behaviors"] = (DIMS["behaviors"], columns[kept], behavior_attrs(units))
        variables["responses"] = (
            DIMS["responses"],
            values[kept],
            response_attrs(found) | {"window": list(window)},
        )
        shown = shown.keep(kept)
        check_finite(path, shown.images)
        stimuli = indexing.LazilyIndexedArray(ShownImages(shown.images, shown.shown))
        variables["stimuli"] = xr.Variable(DIMS["stimuli"], stimuli, STIMULI_ATTRS)
        neurons_told = neuron_coords(path, nwb, found, placed, labels)
        coords = _trial_coords(path, shown, tiers) | neurons_told
        if wanted:
            coords["behavior"] = ("behavior", list(wanted))
        dataset = xr.Dataset(variables, coords, attrs_of(nwb, name))
    check_read(path, {dataset.attrs["mouse_id"]: dataset})
    if np.isinf(values[kept]).any():
        refuse(path, "responses hold infinite values", "finite ones, or NaN where not recorded")
    return dataset


def _seconds(argument: str, window: Any) -> Window:
    try:
        ends = plain(list(window), argument)
    except TypeError:  # one number
        ends = []
    are_numbers = all(isinstance(end, Real) and not isinstance(end, bool) for end in ends)
    if not (len(ends) == 2 and are_numbers and -np.inf < ends[0] < ends[1] < np.inf):
        raise ValueError(
            f"{argument} is {window!r}: expected two times in seconds after the onset, the first "
            "before the second."
        )
    return float(ends[0]), float(ends[1])


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
            "are meant so. read_nwb_movies reads movies",
        )


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

"""`read_nwb_movies`: one NWB file, movies and responses to each of their frames, as a recording."""

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
from v1tlearn._values import plain
from v1tlearn.datasets.given_files import check_there
from v1tlearn.datasets.movie_frames import MovieOfFrames, ShownMovies
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
from v1tlearn.datasets.nwb.cutting import Showing
from v1tlearn.datasets.nwb.finding import as_wanted
from v1tlearn.datasets.nwb.images import check_finite
from v1tlearn.datasets.nwb.neurons import Positions, as_positions, neuron_coords
from v1tlearn.datasets.nwb.opening import opened, refuse
from v1tlearn.datasets.nwb.series import Windows
from v1tlearn.datasets.nwb.showings import Shown, find_showings
from v1tlearn.datasets.nwb.traces import as_series_names, populations
from v1tlearn.datasets.schema import DIMS, STIMULI_ATTRS, check_read
from v1tlearn.datasets.time_axis import time_coordinate, with_time

_REDUCTIONS = ("auto", "mean", "sum", "rate", "line")


def read_nwb_movies(
    path: str | os.PathLike,
    stimulus: str | None = None,
    responses: str | Sequence[str] | None = None,
    *,
    trials: str = "restarts",
    frame_rate: float | None = None,
    reduction: Literal["auto", "mean", "sum", "rate", "line"] = "auto",
    incomplete: Literal["raise", "nan", "drop"] = "raise",
    templates: str | np.ndarray | None = None,
    image_column: str | None = None,
    where: Mapping[str, Any] | None = None,
    first_index: int = 0,
    blanks: Sequence[Any] = (),
    image_axes: tuple[str, str] = ("height", "width"),
    behaviors: Behaviors | None = None,
    behavior_gaps: float = 0.0,
    tiers: str | None = None,
    neurons: Mapping[str, Any] | None = None,
    neuron_labels: Sequence[str] = (),
    positions: Positions = "auto",
    name: str | None = None,
) -> xr.Dataset:
    """Open a recording in the format NWB 2: movies, and responses to each of their frames.

    Each time that a movie was shown is a trial. Nothing is guessed: where a file holds several
    series that may be meant, an error lists their names.

    Parameters
    ----------
    path : path
        The file.
    stimulus : str, optional
        Name of what tells which frame was shown when: an ImageSeries of frames with times; an
        IndexSeries, which points to frames of templates; a table of intervals with a column of
        frames, one row per frame; or a table with one row per movie, whose `image_column` names
        ImageSeries among the templates. By default the only one.
    responses : str or sequence of str, optional
        As in `read_nwb`.
    trials : str, default="restarts"
        Where a movie begins and ends. "gaps" cuts where no frame follows for more than 2.5 frames;
        "restarts" cuts where the number of a frame falls, too. Or the name of a table of
        intervals, such as trials, one row per movie: its frames are those that begin in it.
    frame_rate : float, optional
        Frames per second of the recording; by default those of the file. At another rate, frames
        are repeated or left out.
    reduction : {"auto", "mean", "sum", "rate", "line"}, default="auto"
        What becomes of samples of series from the beginning of a frame, included, to its end:
        their mean, sum, or sum per second; or the value in the middle of the frame, on a line
        between the samples around it. "auto" is the mean, on the line for a frame without a
        sample, if the series is as fast as the frames; the line for all, if it is slower; and of
        units the number of spikes, "sum".
    incomplete : {"raise", "nan", "drop"}, default="raise"
        What becomes of movies of which some frame was not recorded: outside of the recording, or
        across a gap in its timestamps. With "nan" the responses to these frames are "not recorded";
        "drop" leaves these movies out, and those without behaviour, too.
    templates : str or ndarray, optional
        Name of the frames, where the presentations do not tell it and there are several; or the
        frames themselves (frames, [channels,] height, width), 1 or 3 channels, where the file
        has none. Neither they nor `first_index` are for an `image_column` that names movies.
    image_column : str, optional
        Column of the table that says which frame was shown, or which movie. Where `trials` is a
        table, its column that names the movies, by which repeats are found.
    where : mapping of str to label or list of labels, optional
        Rows that are read, of the table of `stimulus` or else of `trials`.
    first_index : int, default=0
        What the first frame is counted as.
    blanks : sequence, default=()
        What stands in place of a frame, or of the name of a movie, where none was shown;
        one that is nowhere is warned of.
    image_axes : {("height", "width"), ("width", "height")}, default=("height", "width")
        Order in which the sides of frames are stored, not of `templates` that are given.
    behaviors : mapping of str to (str or (str, int)), optional
        Columns of behaviour and their series, as in `read_nwb`; one value per frame, made as
        "auto" makes responses.
    behavior_gaps : float, default=0
        As in `read_nwb`.
    tiers : str, optional
        Column of the table of trials, or of the first frame of a movie, with "train",
        "validation", "test" or "final_test".
    neurons, neuron_labels, positions, name
        As in `read_nwb`.

    Returns
    -------
    Dataset
        A recording of movies, in the order in which they were shown, with

        * `stimuli` (trial, time, channel, height, width): uint8 as stored, or float32, read when
          indexed;
        * `responses` (trial, time, neuron): float32, in `units` as the attributes tell, with
          `reduction`, how they were made;
        * `behaviors` (trial, time, behavior): float32, in the units of the file;
        * coordinates `time` in seconds, `n_frames`; `image_id`, the same where the same frames were
          shown, or what `image_column` says, with `image_name` beside it; it is none for an
          ImageSeries alone, where `Trials` compare what movies show; `trial_id`, `onset` in seconds
          of the session, `presentation`, the row in the series or table; and those of neurons.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        Without the extra "nwb".
    TypeError, ValueError
        As `read_nwb`; or naming the row where a movie would have one frame, an interval has none,
        or frames are missing within it.

    Warns
    -----
    UserWarning
        As `read_nwb`.

    See Also
    --------
    read_nwb : The same for images.
    Trials : What a model is fitted to.

    Notes
    -----
    Frames count from when they were shown, so that clocks may jitter; `time` is even. A frame that
    stood for two, because one was dropped, is two frames of the recording. Such a movie has another
    `image_id` than one in which none was dropped.

    References
    ----------
    Rübel et al. 2022, The Neurodata Without Borders ecosystem for neurophysiological data science,
    eLife 11:e78362; https://www.nwb.org.

    Examples
    --------
    >>> recording = read_nwb_movies("sub-1_ophys.nwb", "natural_movie_one_stimulus",
    ...                             "DfOverF/DfOverF")  # doctest: +SKIP
    >>> model = MovieCNNRegressor().fit(Trials(recording))  # doctest: +SKIP
    """
    path = Path(path_of("path", path, "read_nwb_movies(path)"))
    check_there([path], "NWB")
    check_choices(
        {"reduction": _REDUCTIONS},
        reduction=reduction,
        incomplete=incomplete,
        image_axes=image_axes,
        first_index=first_index,
    )
    check_names(tiers=tiers, trials=trials)
    wanted, names = as_behaviors(behaviors), as_series_names(responses)
    cells, placed = as_wanted(neurons, "neurons"), as_positions(positions)
    labels = as_words(neuron_labels, "neuron_labels", of="snr")
    gaps = check_seconds("behavior_gaps", behavior_gaps)
    check_for_behaviors(wanted, behavior_gaps=gaps > 0)
    rate = plain(frame_rate)
    is_number = isinstance(rate, Real) and not isinstance(rate, bool)
    if rate is not None and not (is_number and 0 < rate < np.inf):
        raise ValueError(f"frame_rate is {frame_rate!r}: expected frames per second, above 0.")
    asked = as_asked(stimulus, templates, image_column, first_index, blanks, where, image_axes)
    with opened(path) as nwb:
        shown = find_showings(path, nwb, asked, trials, rate, tiers)
        edges = [one.edges for one in shown.showings]
        frames = Windows(
            np.concatenate([one[:-1] for one in edges]), np.concatenate([one[1:] for one in edges])
        )
        how = ("frame", "sum") if reduction == "auto" else (reduction, reduction)
        found = populations(path, nwb, names, frames, how, cells)
        values = np.concatenate([one.values for one in found], axis=1)
        recorded = _all_of(np.all([one.whole for one in found], axis=0), shown.showings)
        measured = np.ones(len(recorded), bool)
        if wanted:
            columns, units = behaviors_of(path, nwb, wanted, frames, "frame", behavior_gaps)
            measured = _all_of(np.isfinite(columns).all(axis=1), shown.showings)
        kept = kept_trials(path, shown.presentations, recorded, measured, incomplete, list(wanted))
        movies = [shown.showings[trial] for trial in kept]
        counts = np.array([len(one.order) for one in movies])
        check_finite(path, shown.presentations.images)
        variables: dict[str, Any] = {"stimuli": _stimuli(shown, movies)}
        attrs = response_attrs(found) | {
            "reduction": "; ".join(dict.fromkeys(one.reduction for one in found))
        }
        padded = _by_trial(values, shown.showings, kept, np.nan)
        variables["responses"] = (with_time(DIMS["responses"]), padded, attrs)
        coords: dict[str, Any] = {
            label: ("trial", values[kept]) for label, values in shown.labels.items()
        }
        coords["onset"] = ("trial", np.array([one.edges[0] for one in movies]), {"units": "s"})
        coords["n_frames"] = ("trial", counts)
        coords["time"] = time_coordinate(int(counts.max()), shown.frame_rate)
        coords |= neuron_coords(path, nwb, found, placed, labels)
        if wanted:
            padded = _by_trial(columns, shown.showings, kept, 0.0)
            dims = with_time(DIMS["behaviors"])
            variables["behaviors"] = (dims, padded, behavior_attrs(units))
            coords["behavior"] = ("behavior", list(wanted))
        dataset = xr.Dataset(variables, coords, attrs_of(nwb, name))
    check_read(path, {dataset.attrs["mouse_id"]: dataset})
    if np.isinf(dataset["responses"].values).any():
        refuse(path, "responses hold infinite values", "finite ones, or NaN where not recorded")
    return dataset


def _all_of(frames: np.ndarray, showings: Sequence[Showing]) -> np.ndarray:
    """Whether all frames of each movie are."""
    starts = np.cumsum([0] + [len(one.order) for one in showings[:-1]])
    return np.logical_and.reduceat(frames, starts)


def _by_trial(
    values: np.ndarray, showings: Sequence[Showing], kept: np.ndarray, fill: float
) -> np.ndarray:
    """Values of the frames of all movies, (trial, time, column), of those that are kept."""
    counts = np.array([len(one.order) for one in showings])
    starts = np.cumsum(counts) - counts
    out = np.full((len(kept), counts[kept].max(), values.shape[1]), fill, np.float32)
    for place, trial in enumerate(kept.tolist()):
        count = counts[trial]
        out[place, :count] = values[starts[trial] : starts[trial] + count]
    return out


def _stimuli(shown: Shown, movies: Sequence[Showing]) -> xr.Variable:
    """Stimuli that are read when indexed; movies that show the same are one."""
    numbers: dict[bytes, int] = {}
    places = [numbers.setdefault(one.order.tobytes(), len(numbers)) for one in movies]
    _, first = np.unique(places, return_index=True)
    frames = [MovieOfFrames(shown.presentations.images, movies[n].order) for n in first]
    stimuli = indexing.LazilyIndexedArray(ShownMovies(frames, np.array(places)))
    return xr.Variable(with_time(DIMS["stimuli"]), stimuli, STIMULI_ATTRS)

"""Frames of movies in their order in time, cut into the movies that were shown, on an even raster.

A movie is shown once from its first frame to its last one; each such time is a trial.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from v1tlearn.datasets.nwb.opening import refuse
from v1tlearn.datasets.nwb.presentations import Presentations

_HELD = 2.5  # frames, up to which the last one stands, because some were dropped
_EDGE = 0.1  # of a frame, by which clocks of frames and of trials may differ
_SAME_RATE = 1e-2  # by which a rate may differ from that of the file, and name it


@dataclass(frozen=True)
class Showing:
    """A movie, shown once.

    Attributes
    ----------
    first : int
        Place of its first frame among the presentations.
    sequence : ndarray of int
        Images as they were shown, each once per frame that it stood.
    edges : ndarray of float (n_frames + 1,)
        When each frame of the raster began, and the last one ended, in seconds of the session.
    order : ndarray of int (n_frames,)
        Images on the raster.
    """

    first: int
    sequence: np.ndarray
    edges: np.ndarray
    order: np.ndarray


def frame_seconds(path: Path, shown: Presentations) -> float:
    """Seconds from frame to frame: the mean without those that were followed late.

    Parameters
    ----------
    path : Path
    shown : Presentations
        Of frames, in the order of their time.

    Returns
    -------
    float
    """
    apart = np.diff(shown.onsets)
    if not len(apart):
        refuse(path, f"{shown.name} has one frame", "the frames of a movie")
    return float(apart[apart < 1.5 * np.median(apart)].mean())


def at_breaks(path: Path, shown: Presentations, seconds: float, restarts: bool) -> list[slice]:
    """Cut frames where nothing was shown for a while.

    Parameters
    ----------
    path : Path
    shown : Presentations
        Of frames, in the order of their time.
    seconds : float
        From frame to frame.
    restarts : bool
        Whether to cut where the number of a frame falls, too: where a movie begins anew.

    Returns
    -------
    list of slice
    """
    breaks = np.diff(shown.onsets) > _HELD * seconds
    if restarts and shown.are_indexed:
        breaks |= np.diff(shown.shown) < 0
    ends = np.append(np.flatnonzero(breaks) + 1, len(shown.onsets))
    starts = np.append(0, ends[:-1])
    short = np.flatnonzero(ends - starts < 2)
    if len(short):
        row = shown.rows[starts[short[0]]]
        refuse(
            path,
            f"{len(short)} of {len(ends)} movies of {shown.name} would have one frame, the first "
            f"at row {row}",
            "frames that count upwards in a movie and follow each other: pass trials='gaps' where "
            "they are shown in another order, or the name of a table of intervals, one per movie",
        )
    return [slice(start, end) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def in_intervals(
    path: Path,
    shown: Presentations,
    seconds: float,
    intervals: tuple[str, np.ndarray, np.ndarray, np.ndarray],
) -> list[slice]:
    """Take the frames that began in each of some intervals.

    Parameters
    ----------
    path : Path
    shown : Presentations
        Of frames, in the order of their time.
    seconds : float
        From frame to frame.
    intervals : tuple
        Name of a table, its rows, and when these start and stop.

    Returns
    -------
    list of slice
    """
    name, rows, starts, stops = intervals
    near = _EDGE * seconds
    first = np.searchsorted(shown.onsets, starts - near)
    last = np.searchsorted(shown.onsets, stops - near)
    late = np.diff(shown.onsets) > _HELD * seconds
    for row, begin, end in zip(rows.tolist(), first.tolist(), last.tolist(), strict=True):
        if end - begin < 1:
            refuse(path, f"no frame of {shown.name} began in row {row} of {name}", "some in each")
        if late[begin : end - 1].any():
            at = begin + int(np.argmax(late[begin : end - 1]))
            refuse(
                path,
                f"in row {row} of {name}, no frame of {shown.name} follows that at "
                f"{shown.onsets[at]:g} s for {shown.onsets[at + 1] - shown.onsets[at]:g} s",
                "frames all through: select rows by where=",
            )
    return [slice(*ends) for ends in zip(first.tolist(), last.tolist(), strict=True)]


def on_raster(
    shown: Presentations, cut: slice, seconds: float, frame_rate: float | None
) -> Showing:
    """Put the frames of a movie on an even raster.

    A frame that stood longer, because others were dropped, fills as many places as it stood for.

    Parameters
    ----------
    shown : Presentations
        Of frames, in the order of their time.
    cut : slice
        Those of the movie.
    seconds : float
        From frame to frame, as the file has them.
    frame_rate : float or None
        Of the raster; None, or about the same, for that of the file.

    Returns
    -------
    Showing
    """
    onsets, images = shown.onsets[cut], shown.shown[cut]
    stop = onsets[-1] + seconds
    if shown.stops is not None:
        stop = max(shown.stops[cut.stop - 1], onsets[-1] + seconds / 2)
    if cut.stop < len(shown.onsets) and shown.onsets[cut.stop] < onsets[-1] + 1.5 * seconds:
        stop = shown.onsets[cut.stop]  # another movie follows at once
    stood = np.diff(np.append(onsets, stop))
    places = np.maximum(1, np.rint(stood / seconds)).astype(int)
    sequence = np.repeat(images, places)
    within = np.arange(len(sequence)) - np.repeat(np.cumsum(places) - places, places)
    begun = np.repeat(onsets, places) + within * np.repeat(stood / places, places)
    edges = np.append(begun, stop)
    if frame_rate is None or is_own_rate(seconds, frame_rate):
        return Showing(cut.start, sequence, edges, sequence)
    step = 1 / (frame_rate * seconds)  # frames of the file per frame of the raster
    n_frames = max(1, int(len(sequence) / step + 1e-6))
    moved = np.interp(np.arange(n_frames + 1) * step, np.arange(len(edges)), edges)
    middles = ((np.arange(n_frames) + 0.5) * step).astype(int)
    return Showing(cut.start, sequence, moved, sequence[middles.clip(max=len(sequence) - 1)])


def is_own_rate(seconds: float, frame_rate: float | None) -> bool:
    """Whether a rate is that of frames so many seconds apart, or names it."""
    return frame_rate is None or abs(frame_rate * seconds - 1) < _SAME_RATE

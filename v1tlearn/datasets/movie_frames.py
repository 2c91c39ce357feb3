"""Movies that many trials show: kept once, in memory or in files, and read as far as asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from v1tlearn._opening import check_plain, content_of
from v1tlearn.datasets.lazy_rows import Key, LazyRows, is_number, take

_NUMBER = re.compile(r"\d+")


class Frames(Protocol):
    """Images of one size: the frames of a movie, or a set of images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, channels, height and width."""

    @property
    def dtype(self) -> np.dtype:
        """In which frames are read."""

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Read frames by their numbers from 0, (n, channel, height, width)."""


@dataclass(frozen=True)
class MovieInMemory:
    """The frames of a movie, or images, (frames, channel, height, width)."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, channels, height and width."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype:
        """In which frames are read."""
        return self.values.dtype

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Read frames by their numbers from 0."""
        return self.values[frames]


@dataclass(frozen=True)
class RawMovie:
    """The frames of a movie, one file of uint8 each, columns first as MATLAB writes matrices.

    Attributes
    ----------
    paths : tuple of str
        Of the frames, in their order.
    frame_shape : tuple of int
        Height and width in pixels.
    """

    paths: tuple[str, ...]
    frame_shape: tuple[int, int]

    @classmethod
    def open(cls, folder: Path, frame_shape: tuple[int, int]) -> RawMovie:
        """Find the frames of a folder, whose last number in the name is theirs."""
        names = [name for name in os.listdir(folder) if name.lower().endswith(".raw")]
        if not names:
            raise FileNotFoundError(f"{folder} holds no frames: expected files .raw, one per frame")
        numbers: dict[int, str] = {}
        for name in names:
            found = _NUMBER.findall(name[:-4])
            if not found:
                raise ValueError(f"{folder}/{name}: expected a name with the number of the frame")
            if (number := int(found[-1])) in numbers:
                raise ValueError(
                    f"{folder}: {numbers[number]} and {name} are both frame {number}; expected one "
                    "file per frame: remove one"
                )
            numbers[number] = name
        first, last = min(numbers), max(numbers)
        if last - first + 1 != len(numbers):
            missing = next(n for n in range(first, last) if n not in numbers)
            raise ValueError(
                f"{folder}: frame {missing} is missing, of {first} to {last}; expected a file of "
                "each: copy or download the frames again"
            )
        paths = tuple(str(folder / numbers[n]) for n in sorted(numbers))
        movie = cls(paths, frame_shape)
        for path in paths:
            movie.check_size(path, check_plain(path).st_size)
        return movie

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, channels, height and width."""
        return len(self.paths), 1, *self.frame_shape

    @property
    def dtype(self) -> np.dtype:
        """In which frames are read."""
        return np.dtype(np.uint8)

    def check_size(self, path: str, n_bytes: int) -> None:
        """Refuse files of another size than that of a frame."""
        height, width = self.frame_shape
        if n_bytes != height * width:
            raise ValueError(
                f"{path} has {n_bytes} bytes, expected {height * width}, a frame of {height} x "
                f"{width} pixels: copy or download it again, or pass another frame_shape"
            )

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Read frames by their numbers from 0, (n, 1, height, width)."""
        height, width = self.frame_shape
        out = np.empty((len(frames), 1, height, width), np.uint8)
        for place, frame in enumerate(frames):
            path = self.paths[frame]
            data = content_of(path)
            self.check_size(path, len(data))
            out[place, 0] = np.frombuffer(data, np.uint8).reshape((height, width), order="F")
        return out


@dataclass(frozen=True)
class MovieOfFrames:
    """A movie that shows some frames of others, in an order.

    Attributes
    ----------
    frames : Frames
    order : ndarray of int (n_frames,)
        Numbers of the frames that are shown.
    """

    frames: Frames
    order: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, channels, height and width."""
        return len(self.order), *self.frames.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """In which frames are read."""
        return self.frames.dtype

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Read frames by their places in the order, each that is shown again once."""
        numbers, places = np.unique(self.order[frames], return_inverse=True)
        return self.frames.read(numbers)[places]


@dataclass(frozen=True)
class JoinedFrames:
    """Frames of several movies, counted one movie behind the other.

    Attributes
    ----------
    movies : tuple of Frames
        With frames of one shape.
    """

    movies: tuple[Frames, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, channels, height and width."""
        return int(self.starts[-1]), *self.movies[0].shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """In which frames are read."""
        return np.result_type(*(movie.dtype for movie in self.movies))

    @property
    def starts(self) -> np.ndarray:
        """Number of the first frame of each movie, and of the one behind the last."""
        return np.cumsum([0] + [movie.shape[0] for movie in self.movies])

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Read frames by their numbers from 0, (n, channel, height, width)."""
        out = np.empty((len(frames), *self.shape[1:]), self.dtype)
        own = np.searchsorted(self.starts, frames, side="right") - 1
        for number in np.unique(own):
            out[own == number] = self.movies[number].read(
                frames[own == number] - self.starts[number]
            )
        return out


class ShownMovies(LazyRows):
    """Stimuli of trials, (trial, time, channel, height, width), read when and as far as indexed.

    Parameters
    ----------
    movies : sequence of Frames
        With frames of one shape. Of several types all are read in one that holds them.
    shown : ndarray of int (trials,)
        Which movie each trial shows. Behind its last frame there are zeros.
    """

    def __init__(self, movies: Sequence[Frames], shown: np.ndarray):
        self._movies, self._shown = tuple(movies), shown
        longest = max(movie.shape[0] for movie in movies)
        self.shape = (len(shown), longest, *movies[0].shape[1:])
        self.dtype = np.result_type(*(movie.dtype for movie in movies))

    def _read_rows(self, rows: np.ndarray, others: Key) -> np.ndarray:
        frames = np.atleast_1d(np.arange(self.shape[1])[others[0]])
        values = np.zeros((len(rows), len(frames), *self.shape[2:]), self.dtype)
        for number in np.unique(self._shown[rows]):
            movie = self._movies[number]
            there = frames < movie.shape[0]
            read = movie.read(frames[there])
            for row in np.flatnonzero(self._shown[rows] == number):  # repeats are read once
                values[row, there] = read
        return take(values, (0 if is_number(others[0]) else slice(None), *others[1:]))

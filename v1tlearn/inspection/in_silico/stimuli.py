"""Gratings, Gabors and plaids, labelled by what they are made of; still or drifting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._values import as_array, as_number, as_whole, whole_numbers

_PIXELS = ("channel", "height", "width")
_RESERVED = {"time", *_PIXELS}


def gratings(
    image_shape: Sequence[int],
    *,
    orientation: Any = tuple(range(0, 180, 15)),
    spatial_frequency: Any = 0.05,
    phase: Any = tuple(range(0, 360, 45)),
    contrast: Any = 1.0,
    diameter: Any = None,
    inner_diameter: Any = None,
    x: Any = None,
    y: Any = None,
    pixels_per_degree: float | None = None,
    background: float = 127.5,
    amplitude: float = 127.5,
    temporal_frequency: Any = None,
    n_frames: int | None = None,
    frame_rate: float | None = None,
) -> xr.DataArray:
    """Make sinusoidal gratings, in all combinations of what is given.

    A parameter is a number; a sequence, which becomes a dimension of its own name; or a DataArray
    with any dimensions, such as a preferred orientation for each ``neuron``.

    Parameters
    ----------
    image_shape : (channels, height, width) or (height, width)
        Of the stimuli that the model takes, in pixels. Channels are alike.
    orientation : float, sequence or DataArray
        Direction of the wave vector in degrees, clockwise from rightwards as images are seen: bars
        are vertical at 0 and horizontal at 90. Movies drift that way, 0 to 360.
    spatial_frequency : float, sequence or DataArray
        In cycles per pixel, at most 0.5; with `pixels_per_degree` in cycles per degree.
    phase : float, sequence or DataArray
        In degrees, at the centre.
    contrast : float, sequence or DataArray, default=1.0
        Michelson contrast where `amplitude` is the `background`.
    diameter, inner_diameter : float, sequence or DataArray, optional
        Of a disk that is seen, and of one that is cut out of it, in pixels (or degrees); their
        edges are one pixel wide. The whole image by default.
    x, y : float, sequence or DataArray, optional
        Centre, in pixels from the centre of the upper left one (or degrees); that of the image by
        default.
    pixels_per_degree : float, optional
        Pixels per degree of visual angle: frequencies, diameters and places are then in degrees.
    background, amplitude : float, default=127.5
        Grey level of contrast 0, and what a wave of contrast 1 adds to it at most, in the units of
        the stimuli: by default grey levels from 0 to 255. Where a model was fitted to standardised
        stimuli, ``background=0, amplitude=2`` are of about the same contrast.
    temporal_frequency : float, sequence or DataArray, optional
        In cycles per second, at most half the frame rate. Gratings are then movies, that drift
        along the wave vector.
    n_frames : int, optional
        Of movies.
    frame_rate : float, optional
        Of movies, in frames per second.

    Returns
    -------
    DataArray (..., [time,] channel, height, width)
        float32. Parameters are its coordinates, with their units.

    Raises
    ------
    ValueError
        If a parameter is out of its range, a movie lacks frames or frame rate, or pixels or frames
        are too few to show a frequency.

    See Also
    --------
    tuning_curves : Show them to a model.

    Examples
    --------
    >>> from v1tlearn.inspection import gratings
    >>> stimuli = gratings((36, 64), orientation=[0, 45, 90, 135], phase=[0, 90, 180, 270])
    >>> stimuli.dims, stimuli.shape
    (('orientation', 'phase', 'channel', 'height', 'width'), (4, 4, 1, 36, 64))
    """
    scale = _scale(pixels_per_degree)
    given = _parameters(
        {
            "orientation": orientation,
            "spatial_frequency": spatial_frequency,
            "phase": phase,
            "contrast": contrast,
            "diameter": diameter,
            "inner_diameter": inner_diameter,
            "x": x,
            "y": y,
            "temporal_frequency": temporal_frequency,
        },
        degrees=pixels_per_degree is not None,
    )
    channels, height, width = _shape(image_shape)
    rows, columns = _places(height, width)
    down, right = _from_centre(rows, columns, given, scale)
    time = _times(given.get("temporal_frequency"), n_frames, frame_rate)
    wave = given["contrast"] * _wave(right, down, given, scale, time)
    distance = (right**2 + down**2) ** 0.5
    if "diameter" in given:
        wave = wave * _disk(distance, given["diameter"] * (scale / 2))
    if "inner_diameter" in given:
        wave = wave * (1 - _disk(distance, given["inner_diameter"] * (scale / 2)))
    return _stimuli(wave, given, channels, background, amplitude, "gratings")


def gabors(
    image_shape: Sequence[int],
    *,
    orientation: Any = tuple(range(0, 180, 15)),
    spatial_frequency: Any = 0.05,
    phase: Any = (0, 90, 180, 270),
    contrast: Any = 1.0,
    sigma: Any = 5.0,
    x: Any = None,
    y: Any = None,
    pixels_per_degree: float | None = None,
    background: float = 127.5,
    amplitude: float = 127.5,
) -> xr.DataArray:
    """Make gratings under Gaussian envelopes, in all combinations of what is given.

    Parameters
    ----------
    image_shape, orientation, spatial_frequency, phase, contrast
        As of `gratings`.
    sigma : float, sequence or DataArray, default=5.0
        Standard deviation of the round envelope, in pixels (or degrees).
    x, y, pixels_per_degree, background, amplitude
        As of `gratings`.

    Returns
    -------
    DataArray (..., channel, height, width)
        float32. Parameters are its coordinates, with their units.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> from v1tlearn.inspection import gabors
    >>> gabors((36, 64), orientation=0, phase=0, sigma=3, x=[20, 30, 40], y=[10, 20]).dims
    ('x', 'y', 'channel', 'height', 'width')
    """
    scale = _scale(pixels_per_degree)
    given = _parameters(
        {
            "orientation": orientation,
            "spatial_frequency": spatial_frequency,
            "phase": phase,
            "contrast": contrast,
            "sigma": sigma,
            "x": x,
            "y": y,
        },
        degrees=pixels_per_degree is not None,
    )
    channels, height, width = _shape(image_shape)
    down, right = _from_centre(*_places(height, width), given, scale)
    envelope = np.exp(-0.5 * (right**2 + down**2) / (given["sigma"] * scale) ** 2)
    wave = given["contrast"] * envelope * _wave(right, down, given, scale, None)
    return _stimuli(wave, given, channels, background, amplitude, "gabors")


def plaids(
    image_shape: Sequence[int],
    *,
    orientation: Any = tuple(range(0, 180, 15)),
    angle: Any = 90,
    contrast: Any = 1.0,
    **options: Any,
) -> xr.DataArray:
    """Make sums of two gratings, each at half the contrast.

    Parameters
    ----------
    image_shape : (channels, height, width) or (height, width)
    orientation : float, sequence or DataArray
        Of the plaid, in degrees as of `gratings`: in the middle between the wave vectors of its two
        gratings.
    angle : float, sequence or DataArray, default=90
        Between the wave vectors, in degrees.
    contrast : float, sequence or DataArray, default=1.0
        Of the plaid.
    **options
        Others of `gratings`.

    Returns
    -------
    DataArray (..., [time,] channel, height, width)
        float32. Parameters are its coordinates, with their units.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> from v1tlearn.inspection import plaids
    >>> plaids((36, 64), angle=[60, 90, 120], phase=0).shape
    (12, 3, 1, 36, 64)
    """
    given = _parameters({"orientation": orientation, "angle": angle, "contrast": contrast})
    background = float(options.get("background", 127.5))
    parts = []
    for side in (-0.5, 0.5):
        turned = given["orientation"] + side * given["angle"]
        parts.append(
            gratings(image_shape, orientation=turned, contrast=0.5 * given["contrast"], **options)
            .drop_vars(["orientation", "contrast"], errors="ignore")
            .astype(np.float32)
        )
    both = (parts[0] + (parts[1] - np.float32(background))).astype(np.float32)
    both = both.assign_coords(
        {name: values.variable for name, values in given.items() if name not in both.coords}
    )
    return both.rename("plaids")


# ----------------------------------------------------------------------------- what they consist of


_NEEDED = {"orientation", "angle", "spatial_frequency", "phase", "contrast", "sigma"}


def _scale(pixels_per_degree: float | None) -> float:
    scale = 1.0 if pixels_per_degree is None else as_number(pixels_per_degree, "pixels_per_degree")
    if not 0 < scale < np.inf:
        raise ValueError(f"pixels_per_degree={pixels_per_degree!r}: expected a positive number.")
    return scale


def _shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    sides = whole_numbers(image_shape)
    if sides is None or len(sides) not in (2, 3):
        raise ValueError(
            f"image_shape={image_shape!r}: expected (channels, height, width) or (height, "
            "width) in pixels, of the stimuli that the model takes."
        )
    return (1, *sides) if len(sides) == 2 else sides  # type: ignore[return-value]


def _parameters(values: Mapping[str, Any], *, degrees: bool = False) -> dict[str, xr.DataArray]:
    """Parameters as arrays, sequences along a dimension of their name; those of None absent."""
    length = "degree" if degrees else "pixel"
    units = {
        "orientation": "degree",
        "angle": "degree",
        "phase": "degree",
        "spatial_frequency": f"cycle per {length}",
        "temporal_frequency": "cycle per second",
        **dict.fromkeys(("diameter", "inner_diameter", "sigma", "x", "y"), length),
    }
    positive = {"spatial_frequency", "sigma"}
    out = {}
    for name, value in values.items():
        if value is None and name in _NEEDED:
            raise TypeError(f"{name} is None: expected a number, or a sequence of some.")
        if value is None:
            continue
        if isinstance(value, xr.DataArray) and (taken := _RESERVED & set(value.dims)):
            raise ValueError(f"{name} has the dimensions {sorted(taken)}, which pixels have.")
        numbers = as_array(value, name, of="value").astype(np.float64)
        if isinstance(value, xr.DataArray):
            array = value.copy(data=numbers)
        else:
            if numbers.ndim > 1 or not numbers.size:
                raise ValueError(
                    f"{name} has the shape {numbers.shape}: expected a number, a sequence of some, "
                    "or a DataArray with named dimensions."
                )
            coords = {name: numbers} if numbers.ndim else None
            array = xr.DataArray(numbers, dims=(name,) * numbers.ndim, coords=coords)
        least = 0 if name in positive else -np.inf
        bad = ~np.isfinite(array.values) | (array.values <= least)
        if name in ("contrast", "diameter", "inner_diameter"):
            bad |= array.values < 0
        if bad.any():
            raise ValueError(
                f"{name} holds {array.values[bad][0]}: expected finite numbers"
                f"{' above 0' if name in positive else ', none below 0' if bad.any() else ''}."
            )
        array = array.assign_attrs(units=units.get(name, "1"))
        if name in array.dims:
            array[name].attrs["units"] = units.get(name, "1")
        out[name] = array
    return out


def _places(height: int, width: int) -> tuple[xr.DataArray, xr.DataArray]:
    return tuple(  # type: ignore[return-value]
        xr.DataArray(np.arange(n, dtype=np.float64), dims=name, coords={name: np.arange(n)})
        for name, n in (("height", height), ("width", width))
    )


def _bare(array: xr.DataArray) -> xr.DataArray:
    """Values and dimensions without the coordinates beside them, which would be in the way."""
    return array.reset_coords(drop=True)


def _from_centre(
    rows: xr.DataArray, columns: xr.DataArray, given: Mapping[str, xr.DataArray], scale: float
) -> tuple[xr.DataArray, xr.DataArray]:
    """Distances down and to the right of the centre, in pixels."""
    y = _bare(given["y"]) * scale if "y" in given else (rows.size - 1) / 2
    x = _bare(given["x"]) * scale if "x" in given else (columns.size - 1) / 2
    return rows - y, columns - x


def _times(
    temporal_frequency: xr.DataArray | None, n_frames: int | None, frame_rate: float | None
) -> xr.DataArray | None:
    if temporal_frequency is None:
        if n_frames is not None or frame_rate is not None:
            raise ValueError(
                "n_frames and frame_rate are those of movies: give temporal_frequency."
            )
        return None
    if n_frames is None or frame_rate is None or not 0 < frame_rate < np.inf:
        raise ValueError(
            f"temporal_frequency makes movies, n_frames={n_frames!r} and frame_rate={frame_rate!r} "
            "came: expected a number of frames, and frames per second."
        )
    n_frames = as_whole(n_frames, "n_frames")
    fastest = float(np.abs(temporal_frequency).max())
    if fastest > frame_rate / 2:
        raise ValueError(
            f"temporal_frequency holds {fastest:g} cycles per second, which {frame_rate:g} frames "
            f"per second cannot show: expected at most half of them, {frame_rate / 2:g}."
        )
    seconds = np.arange(n_frames) / frame_rate
    return xr.DataArray(seconds, dims="time", coords={"time": ("time", seconds, {"units": "s"})})


def _wave(
    right: xr.DataArray,
    down: xr.DataArray,
    given: Mapping[str, xr.DataArray],
    scale: float,
    time: xr.DataArray | None,
) -> xr.DataArray:
    finest = float(given["spatial_frequency"].max()) / scale
    if finest > 0.5:
        raise ValueError(
            f"spatial_frequency holds {finest:.3g} cycles per pixel, which pixels cannot show: "
            "expected at most 0.5."
        )
    angle = np.deg2rad(_bare(given["orientation"]))
    along = right * np.cos(angle) + down * np.sin(angle)
    cycles = along * _bare(given["spatial_frequency"]) / scale
    if time is not None:
        cycles = cycles - _bare(given["temporal_frequency"]) * time
    turns = 2 * np.pi * cycles.astype(np.float32) + np.deg2rad(_bare(given["phase"]))
    return turns.copy(data=np.cos(turns.values))


def _disk(distance: xr.DataArray, radius: xr.DataArray) -> xr.DataArray:
    return (0.5 + _bare(radius) - distance).clip(0, 1).where(_bare(radius) > 0, 0)


def _stimuli(
    wave: xr.DataArray,
    given: Mapping[str, xr.DataArray],
    channels: int,
    background: float,
    amplitude: float,
    name: str,
) -> xr.DataArray:
    for what, number in (("background", background), ("amplitude", amplitude)):
        if not isinstance(number, Real) or not np.isfinite(number):
            raise ValueError(f"{what}={number!r}: expected a finite number.")
    values = (background + amplitude * wave).astype(np.float32)
    values = values.expand_dims(channel=np.arange(channels))
    found = list(dict.fromkeys(d for p in given.values() for d in p.dims))
    found += [dim for dim in ("time",) if dim in values.dims]
    values = values.transpose(*found, *_PIXELS)
    coords: dict[str, Any] = {}
    for array in given.values():  # unit ids and what else parameters bring
        coords |= {str(key): c.variable for key, c in array.coords.items() if key not in given}
    coords |= {key: array.variable for key, array in given.items()}
    for side in ("height", "width"):
        values[side].attrs["units"] = "pixel"
    attrs = {"background": background, "amplitude": amplitude}
    return values.assign_coords(coords).assign_attrs(attrs).rename(name)

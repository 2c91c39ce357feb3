"""Kernels in space and time: maps at some lags, and the course of the strongest pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import xarray as xr

from v1tlearn._options import as_word
from v1tlearn._values import as_whole
from v1tlearn.inspection._drawing import pyplot

_NAME = "KernelDisplay"
_POSITIVE, _NEGATIVE = "#b2182b", "#2166ac"  # the ends of the maps' colours
_UNITS = {"s": ("ms", 1000.0), "frame": ("frames", 1.0)}


class KernelDisplay:
    """Kernels of neurons in space and time: a row of maps, and time courses, for each.

    Maps are the right way up, red where light raises the response and blue where it lowers it,
    white at zero, on one scale per neuron. Right of them is what happens over time, the past to the
    left: in red at the pixel that is most positive at any time, in blue at the most negative one,
    unless it is the same. Kernels of one row, or one column, of pixels are drawn as a single map of
    space and time.

    Parameters
    ----------
    kernels : array of shape (n_neurons, n_lags, height, width)
        Lag 0 first.
    lags : array of shape (n_lags,), optional
        Time of each ahead of the response; by default in frames.
    units : {"s", "frame"}, default="frame"
        Of the lags.
    titles : sequence of str, optional
        One per neuron.
    n_maps : int, default=5
        Maps per neuron, spread evenly over the lags.

    Attributes
    ----------
    axes_ : ndarray of shape (n_neurons, n_maps + 1)
        After `plot`: maps, the past first, and the time course. (n_neurons, 2) of kernels of one
        row or column.
    figure_ : Figure

    Raises
    ------
    ValueError
        If kernels have another shape, or lags or titles another number.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.inspection import KernelDisplay
    >>> KernelDisplay(np.zeros((2, 10, 18, 32)), n_maps=4).shown_lags.tolist()
    [9, 6, 3, 0]
    """

    def __init__(
        self,
        kernels: Any,
        lags: Any = None,
        *,
        units: str = "frame",
        titles: Sequence[str] | None = None,
        n_maps: int = 5,
    ) -> None:
        self.kernels = np.asarray(kernels, np.float64)
        if self.kernels.ndim != 4 or not self.kernels.size:
            raise ValueError(
                f"kernels have the shape {self.kernels.shape}: expected (neurons, lags, height, "
                "width), at least one of each."
            )
        n, n_lags, height, width = self.kernels.shape
        self.lags = np.arange(n_lags, dtype=float) if lags is None else np.asarray(lags, float)
        if self.lags.shape != (n_lags,):
            raise ValueError(f"lags have the shape {self.lags.shape}: expected ({n_lags},).")
        as_word(units, list(_UNITS), "units")
        self.units = units
        self.titles = [""] * n if titles is None else [str(title) for title in titles]
        if len(self.titles) != n:
            raise ValueError(f"{len(self.titles)} titles came for {n} kernels.")
        n_maps = as_whole(n_maps, "n_maps")
        self.is_line: bool = 1 in (height, width)
        places = np.rint(np.linspace(n_lags - 1, 0, min(n_maps, n_lags))).astype(int)
        self.shown_lags: np.ndarray = places

    @classmethod
    def from_kernels(
        cls, kernels: xr.DataArray, *, n_neurons: int = 3, n_maps: int = 5, figure: Any = None
    ) -> Self:
        """Draw the kernels of the first neurons.

        Parameters
        ----------
        kernels : DataArray (neuron, lag, height, width), with a channel or not
            Such as those of one mouse from `spike_triggered_average`. Of several channels the mean
            is drawn.
        n_neurons : int, default=3
            From the first on; choose with ``kernels.sel(neuron=[...])``.
        n_maps : int, default=5
            Maps per neuron.
        figure
            Of `plot`.

        Returns
        -------
        KernelDisplay

        Raises
        ------
        TypeError, ValueError
            If this is no DataArray with these dimensions.
        """
        if not isinstance(kernels, xr.DataArray):
            raise TypeError(
                f"kernels is a {type(kernels).__name__}: expected a DataArray, such as "
                'spike_triggered_average(trials, 10)["A"]; arrays go to KernelDisplay(...).'
            )
        if "channel" in kernels.dims:
            kernels = kernels.mean("channel")
        dims = ("neuron", "lag", "height", "width")
        if "neuron" not in kernels.dims:
            kernels = kernels.expand_dims("neuron")
        if set(kernels.dims) != set(dims):
            raise ValueError(f"kernels have the dimensions {kernels.dims}: expected {dims}.")
        n_neurons = as_whole(n_neurons, "n_neurons")
        shown = kernels.transpose(*dims).isel(neuron=slice(0, n_neurons))
        known = "neuron" in shown.coords
        ids = shown["neuron"].values if known else np.arange(shown.sizes["neuron"])
        timed = "lag" in shown.coords
        display = cls(
            shown.values,
            shown["lag"].values if timed else None,
            units=shown["lag"].attrs.get("units", "s") if timed else "frame",
            titles=[f"neuron {one}" for one in ids],
            n_maps=n_maps,
        )
        return display.plot(figure)

    def plot(self, figure: Any = None) -> Self:
        """Draw the kernels.

        Parameters
        ----------
        figure : Figure or SubFigure, optional
            Where to draw. A new figure by default.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            Without matplotlib, the extra `plot`.
        """
        n, _, height, width = self.kernels.shape
        maps = 1 if self.is_line else len(self.shown_lags)
        side = 1.1 * min(max(height / width, 0.5), 1.5) + 0.35
        size = (1.1 * maps + 2.4 if not self.is_line else 5.2, (1.7 if self.is_line else side) * n)
        if figure is None:
            size = size[0], max(size[1], 1.8)
            figure = pyplot(_NAME).figure(figsize=size, layout="constrained")
        self.figure_ = figure
        ratios = [1.0] * maps + [1.0 if self.is_line else 1.8]
        self.axes_ = figure.subplots(
            n, maps + 1, squeeze=False, gridspec_kw={"width_ratios": ratios}
        )
        for row, (kernel, title) in enumerate(zip(self.kernels, self.titles, strict=True)):
            most = np.abs(kernel[np.isfinite(kernel)]).max(initial=0.0) or 1.0
            style = {"cmap": "RdBu_r", "vmin": -most, "vmax": most, "interpolation": "nearest"}
            axes = self.axes_[row]
            if self.is_line:
                self._draw_line(axes[0], kernel, style)
            else:
                self._draw_maps(axes[:-1], kernel, style, row == 0)
            axes[0].set_ylabel(title, fontsize="small")
            self._draw_courses(axes[-1], kernel, most)
            for axis in axes if row < n - 1 else ():
                axis.set_xlabel("")
                axis.tick_params(labelbottom=False)
        return self

    def _times(self) -> tuple[np.ndarray, str]:
        """Times of the lags, the past negative, and their unit."""
        unit, factor = _UNITS[self.units]
        return -self.lags * factor, unit

    def _draw_maps(self, axes: Any, kernel: np.ndarray, style: dict, labelled: bool) -> None:
        times, unit = self._times()
        for axis, lag in zip(axes, self.shown_lags, strict=True):
            axis.imshow(kernel[lag], origin="upper", aspect="equal", **style)
            axis.set(xticks=[], yticks=[])
            if labelled:
                axis.set_title(f"{_signed(times[lag])} {unit}", fontsize="small")

    def _draw_line(self, axis: Any, kernel: np.ndarray, style: dict) -> None:
        """Space upwards or down, as in the image, time to the right."""
        times, unit = self._times()
        n_lags = len(times)
        step = abs(times[-1] - times[0]) / max(n_lags - 1, 1) or 1.0
        line = kernel.reshape(n_lags, -1)[::-1].T  # (pixels, lags), the past to the left
        edges = (times[-1] - step / 2, times[0] + step / 2, len(line) - 0.5, -0.5)
        axis.imshow(line, origin="upper", aspect="auto", extent=edges, **style)
        axis.set(yticks=[])
        _label_time(axis, unit)

    def _draw_courses(self, axis: Any, kernel: np.ndarray, most: float) -> None:
        times, unit = self._times()
        pixels = kernel.reshape(len(times), -1)
        axis.axhline(0, color="0.8", lw=0.8, zorder=0)
        if np.isfinite(pixels).all():
            highest, lowest = pixels.max(axis=0).argmax(), pixels.min(axis=0).argmin()
            axis.plot(times, pixels[:, highest], color=_POSITIVE, lw=1.4)
            if lowest != highest:  # or else one line would hide the other
                axis.plot(times, pixels[:, lowest], color=_NEGATIVE, lw=1.4)
        axis.set(ylim=(-1.1 * most, 1.1 * most), yticks=[0])
        _label_time(axis, unit)
        axis.spines[["top", "right"]].set_visible(False)


def _label_time(axis: Any, unit: str) -> None:
    axis.set_xlabel(f"time ahead of\nthe response ({unit})", fontsize="small")
    axis.tick_params(labelsize="small")


def _signed(value: float) -> str:
    return "0" if value == 0 else f"\N{MINUS SIGN}{abs(value):.3g}"

"""Tuning curves as lines: one panel per neuron, one line per model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import xarray as xr

from v1tlearn._values import as_whole
from v1tlearn.inspection._drawing import axes_for, legend_above
from v1tlearn.inspection.colors import model_color

_NAME = "TuningCurveDisplay"
_LOG = ("spatial_frequency", "temporal_frequency")


class TuningCurveDisplay:
    """Responses along one dimension of stimuli, where those along all others are largest.

    Parameters
    ----------
    curves : DataArray (neuron, ...), or dict of str to DataArray
        Of one mouse, from `tuning_curves`; several by name, of the same neurons, are drawn as lines
        of their own.
    along : str, default="orientation"
        Dimension of the stimuli that is the horizontal axis.
    n_neurons : int, default=6
        Number of neurons, from the first on; all of them where they are fewer.

    Attributes
    ----------
    axes_ : ndarray of Axes
        One per neuron.
    ax_ : Axes
        The first.
    figure_ : Figure
    lines_ : list of Line2D

    Raises
    ------
    TypeError, ValueError
        If these are no such curves, or not of the same neurons.

    Notes
    -----
    Of each other dimension the entry is taken at which the response is largest, for each neuron and
    line, phases and time included.

    Examples
    --------
    >>> from v1tlearn.inspection import TuningCurveDisplay
    >>> TuningCurveDisplay(tuning_curves(model, gratings((36, 64)))["A"]).plot()  # doctest: +SKIP
    """

    def __init__(self, curves: Any, along: str = "orientation", n_neurons: int = 6) -> None:
        named = curves if isinstance(curves, Mapping) else {"": curves}
        n_neurons = as_whole(n_neurons, "n_neurons")
        if not named:
            raise ValueError("curves is empty: expected at least one DataArray.")
        self.curves: dict[str, xr.DataArray] = {}
        ids: list[str] | None = None
        for name, own in named.items():
            if not isinstance(own, xr.DataArray):
                raise TypeError(
                    f"curves is a {type(own).__name__}: expected the DataArray of one mouse that "
                    'tuning_curves gives, such as tuning_curves(model, stimuli)["A"].'
                )
            if not {"neuron", along} <= set(own.dims):
                raise ValueError(
                    f"curves have the dimensions {own.dims}: expected neuron and {along!r}, the "
                    "horizontal axis; set `along`."
                )
            found = [str(neuron) for neuron in own["neuron"].values]
            if ids is not None and found != ids:
                raise ValueError(f"curves of {name!r} are of other neurons than the first ones.")
            ids = found
            some = own.isel(neuron=slice(n_neurons)).transpose("neuron", along, ...)
            self.curves[str(name)] = _largest(some)
        self.along = along

    def plot(
        self, ax: Any = None, *, n_columns: int = 3, line_kw: Mapping[str, Any] | None = None
    ) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : Axes or sequence of Axes, optional
            One per neuron. A new figure by default.
        n_columns : int, default=3
            Panels beside each other in a new figure.
        line_kw : dict, optional
            Of the lines, as `matplotlib.axes.Axes.plot` takes it.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are no columns, or axes are not as many as neurons.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        n_columns = as_whole(n_columns, "n_columns")
        first = next(iter(self.curves.values()))
        n = first.sizes["neuron"]
        columns = min(n_columns, n)
        rows = -(-n // columns)
        size = (2.2 * max(columns, 2), 1.9 * rows + 0.3)
        self.axes_, self.figure_ = axes_for(ax, n, _NAME, (rows, columns), size, sharex=True)
        self.ax_, self.lines_ = self.axes_[0], []
        at = np.asarray(first[self.along].values, dtype=float)
        for place, axis in enumerate(self.axes_):
            for name, own in self.curves.items():
                style = {"color": model_color(name), "marker": "o", "markersize": 3, "label": name}
                values = own.isel(neuron=place).values
                here = np.asarray(own[self.along].values, dtype=float)
                self.lines_ += axis.plot(here, values, **style | dict(line_kw or {}))
            axis.set_title(f"neuron {first['neuron'].values[place]}", fontsize="small")
            axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
            axis.spines[["top", "right"]].set_visible(False)
            if self.along in _LOG and (at > 0).all():
                axis.set_xscale("log", base=2)
        self._name_axes(columns)
        if len(self.curves) > 1:
            legend_above(self.ax_, lines_up=1)
        return self

    def _name_axes(self, columns: int) -> None:
        first = next(iter(self.curves.values()))
        unit = first[self.along].attrs.get("units", "")
        label = self.along.replace("_", " ") + (f" ({unit})" if unit and unit != "1" else "")
        for place, axis in enumerate(self.axes_):
            if place % columns == 0:
                axis.set_ylabel("response")
            if place + columns >= len(self.axes_):
                axis.set_xlabel(label)
                axis.tick_params(labelbottom=True)


def _largest(curves: xr.DataArray) -> xr.DataArray:
    """Curves (neuron, along), at the other stimuli that drive each neuron most."""
    values = curves.values
    flat = values.reshape(*values.shape[:2], -1)
    best = flat.max(1).argmax(1)
    found = np.take_along_axis(flat, best[:, None, None], axis=2)[..., 0]
    dims = curves.dims[:2]
    coords = {name: curves.coords[name] for name in dims if name in curves.coords}
    return xr.DataArray(found, dims=dims, coords=coords)

"""Where neurons look, over where they lie in cortex (Li et al. 2023, Fig. A.5)."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import xarray as xr

from v1tlearn.inspection._drawing import axes_for
from v1tlearn.inspection.positions import readout_positions
from v1tlearn.inspection.retinotopy import places_and_positions

_NAME = "RetinotopyDisplay"
_COLORS = "viridis"


class RetinotopyDisplay:
    """Cortical positions of neurons, coloured by where they look: along x, and along y.

    `from_estimator` makes one of a fitted model.

    Parameters
    ----------
    places : Dataset (neuron)
        Of one mouse, from `readout_positions` or `fit_gaussians`; neurons that are not ``good`` are
        left out.
    position : array of shape (n_neurons, 2 or 3), optional
        Cortical positions in micrometres; by default ``position`` of `places`.
    smoothness : Dataset, optional
        From `retinotopy_smoothness`, told above the figure.

    Attributes
    ----------
    looks : ndarray of shape (n, 2)
        Of the neurons that are drawn.
    cortex : ndarray of shape (n, 2 or 3)
    axes_ : ndarray of shape (2,)
        After `plot`.
    figure_ : Figure

    Raises
    ------
    TypeError, ValueError
        If there are no places or no positions.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from v1tlearn.inspection import RetinotopyDisplay
    >>> cortex = np.random.default_rng(0).uniform(0, 600, (100, 2))
    >>> x, y = cortex.T / 20
    >>> places = xr.Dataset({"x": ("neuron", x), "y": ("neuron", y)})
    >>> RetinotopyDisplay(places, cortex).looks.shape
    (100, 2)
    """

    def __init__(
        self, places: Any, position: Any = None, *, smoothness: xr.Dataset | None = None
    ) -> None:
        self.looks, self.cortex, _ = places_and_positions(places, position)
        if not len(self.looks):
            raise ValueError("no neuron has both a place and a cortical position.")
        self.unit = places["x"].attrs.get("units", "pixel")
        known = places["position"] if position is None else position
        scale = getattr(known, "attrs", {}).get("units", "micrometre")
        self.cortex_unit = {"micrometre": " (µm)", "um": " (µm)", "1": ""}.get(scale, f" ({scale})")
        self.smoothness = smoothness

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        mouse_id: str | None = None,
        position: Any = None,
        degrees_per_pixel: Any = None,
        ax: Any = None,
    ) -> Self:
        """Draw the readout positions of one mouse.

        Parameters
        ----------
        estimator : V1TRegressor, CNNRegressor or another model
            Fitted.
        mouse_id : str, optional
            By default the first mouse.
        position : array of shape (n_neurons, 2 or 3), optional
            By default what was known at `fit`.
        degrees_per_pixel : (float, float), optional
            Of `readout_positions`.
        ax : sequence of two Axes, optional

        Returns
        -------
        RetinotopyDisplay
        """
        mice = None if mouse_id is None else [mouse_id]
        found = readout_positions(estimator, mice=mice, degrees_per_pixel=degrees_per_pixel)
        return cls(next(iter(found.values())), position).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw two maps.

        Parameters
        ----------
        ax : sequence of two Axes, optional
            A new figure by default.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If these are not two axes.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        self.axes_, self.figure_ = axes_for(ax, 2, _NAME, (1, 2), (8.4, 3.4))
        size = float(np.clip(3000 / len(self.looks), 3, 40))
        x, y = self.cortex[:, 0], self.cortex[:, 1]
        for number, (axis, name) in enumerate(zip(self.axes_, "xy", strict=True)):
            drawn = axis.scatter(x, y, c=self.looks[:, number], s=size, lw=0, cmap=_COLORS)
            bar = axis.figure.colorbar(drawn, ax=axis, shrink=0.9)
            bar.set_label(f"looks at {name} ({self.unit})")
            if name == "y":
                bar.ax.invert_yaxis()  # as in the image, where y grows downwards
            # Matplotlib lays out boxes that shrink a second time late, and labels are cut off
            axis.set_aspect("equal", adjustable="datalim" if ax is None else None)
            axis.set_xlabel(f"cortex, x{self.cortex_unit}")
            axis.spines[["top", "right"]].set_visible(False)
        self.axes_[0].set_ylabel(f"cortex, y{self.cortex_unit}")
        if self.smoothness is not None:
            told = {name: float(self.smoothness[name]) for name in ("scatter", "p_value")}
            shuffled = float(np.sqrt((self.smoothness["shuffled"] ** 2).mean()))
            self.figure_.suptitle(
                f"scatter about neighbours {told['scatter']:.3g} {self.unit}, shuffled "
                f"{shuffled:.3g}, p = {told['p_value']:.2g}",
                fontsize="medium",
            )
        return self

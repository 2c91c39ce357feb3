"""Where receptive fields of several models lie, and how wide they are (Li et al. 2023, Fig. 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import xarray as xr

from v1tlearn._models import by_text
from v1tlearn.inspection._drawing import axes_for, legend_above
from v1tlearn.inspection.colors import figure_colors

_NAME = "FieldDistributionDisplay"
_NEEDED = ("x", "y", "sigma_x", "sigma_y")
_BINS = 25


class FieldDistributionDisplay:
    """Centres and widths of receptive fields, models side by side.

    Parameters
    ----------
    gaussians : dict of str to Dataset, or to dict of str to Dataset
        Per model those of one mouse, from `fit_gaussians` or `readout_positions`, or of several,
        which are put together. Neurons that are not ``good`` are left out, and counted.

    Attributes
    ----------
    medians_ : dict of str to dict of str to float
        Per model the median ``x``, ``y``, ``sigma_x`` and ``sigma_y`` of the neurons that count.
    counts_ : dict of str to (int, int)
        Per model the neurons that count, and all.
    axes_ : ndarray
        After `plot`: centres of each model, then widths along x and along y.
    figure_ : Figure

    Raises
    ------
    TypeError, ValueError
        If these are no Gaussians, units differ, or no neuron of a model counts.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from v1tlearn.inspection import FieldDistributionDisplay
    >>> rng = np.random.default_rng(0)
    >>> fits = {name: xr.Dataset({v: ("neuron", rng.uniform(1, 9, 20))
    ...                           for v in ("x", "y", "sigma_x", "sigma_y")})
    ...         for name in ("CNN", "V1T")}
    >>> FieldDistributionDisplay(fits).counts_
    {'CNN': (20, 20), 'V1T': (20, 20)}
    """

    def __init__(self, gaussians: Mapping[str, Any]) -> None:
        models = by_text("gaussians", gaussians)
        if not models:
            raise ValueError("gaussians is empty: expected those of one model or more.")
        self.values: dict[str, dict[str, np.ndarray]] = {}
        self.counts_: dict[str, tuple[int, int]] = {}
        units = set()
        for name, given in models.items():
            parts = list(given.values()) if _is_by_mouse(given) else [given]
            for part in parts:
                _check(name, part)
                units.add(part["x"].attrs.get("units", "pixel"))
            whole = {v: np.concatenate([part[v].values for part in parts]) for v in _NEEDED}
            counted = np.concatenate([_counted(part) for part in parts])
            if not counted.any():
                raise ValueError(
                    f"{name!r}: none of {len(counted)} neurons has a good fit: nothing to draw."
                )
            self.values[name] = {v: values[counted] for v, values in whole.items()}
            self.counts_[name] = (int(counted.sum()), len(counted))
        if len(units) > 1:
            raise ValueError(f"Gaussians are in different units, {sorted(units)}: bring one.")
        self.unit = units.pop()
        self.medians_ = {
            name: {v: float(np.median(values)) for v, values in own.items()}
            for name, own in self.values.items()
        }

    @classmethod
    def from_gaussians(cls, gaussians: Mapping[str, Any], *, ax: Any = None) -> Self:
        """Draw the distributions.

        Parameters
        ----------
        gaussians : dict
            See `FieldDistributionDisplay`.
        ax : sequence of Axes, optional
            Of `plot`.

        Returns
        -------
        FieldDistributionDisplay
        """
        return cls(gaussians).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw centres of each model, and widths of all.

        Parameters
        ----------
        ax : sequence of Axes, optional
            One per model and two for the widths. A new figure by default.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If axes are not as many.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        n = len(self.values) + 2
        self.axes_, self.figure_ = axes_for(ax, n, _NAME, (1, n), (2.9 * n, 2.9))
        colors = figure_colors(self.values)
        limits = [self._limits(v) for v in ("x", "y")]
        for axis, (name, own) in zip(self.axes_, self.values.items(), strict=False):
            size = float(np.clip(1500 / len(own["x"]), 2, 20))
            axis.scatter(own["x"], own["y"], s=size, color=colors[name], lw=0, alpha=0.6)
            axis.set(xlim=limits[0], ylim=limits[1][::-1], aspect="equal")
            axis.set(xlabel=f"centre, x ({self.unit})", ylabel=f"centre, y ({self.unit})")
            count, whole = self.counts_[name]
            axis.set_title(f"{name}: {count} of {whole} neurons", fontsize="small")
        for axis, side in zip(self.axes_[-2:], ("x", "y"), strict=True):
            self._widths(axis, f"sigma_{side}", colors)
            axis.set_xlabel(f"width along {side}, s.d. ({self.unit})")
        self.axes_[-2].set_ylabel("share of neurons")
        legend_above(self.axes_[-2])
        for axis in self.axes_:
            axis.spines[["top", "right"]].set_visible(False)
        return self

    def _limits(self, name: str) -> tuple[float, float]:
        whole = np.concatenate([own[name] for own in self.values.values()])
        margin = 0.05 * float(np.ptp(whole)) or 0.5
        return float(whole.min()) - margin, float(whole.max()) + margin

    def _widths(self, axis: Any, name: str, colors: Mapping[str, str]) -> None:
        whole = np.concatenate([own[name] for own in self.values.values()])
        bins = np.linspace(0, float(whole.max()) or 1.0, _BINS + 1)
        for model, own in self.values.items():
            style = {"color": colors[model], "histtype": "step", "lw": 1.6, "label": model}
            axis.hist(own[name], bins, weights=np.full(len(own[name]), 1 / len(own[name])), **style)
            axis.axvline(self.medians_[model][name], color=colors[model], lw=1, ls=":")
        axis.set_xlim(left=0)


def _is_by_mouse(given: Any) -> bool:
    return isinstance(given, Mapping) and not isinstance(given, xr.Dataset)


def _check(name: str, part: Any) -> None:
    if not isinstance(part, xr.Dataset) or not set(_NEEDED) <= set(part.data_vars):
        raise TypeError(
            f"{name!r}: a {type(part).__name__} came: expected the Dataset of one mouse with "
            f"{', '.join(_NEEDED)}, such as fit_gaussians(fields), or a dict of them by mouse."
        )


def _counted(part: xr.Dataset) -> np.ndarray:
    known = np.isfinite(np.stack([part[v].values for v in _NEEDED])).all(axis=0)
    return np.asarray(known & part["good"].values if "good" in part else known)

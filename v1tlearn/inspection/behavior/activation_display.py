"""Distributions of what behaviour networks put out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import xarray as xr

from v1tlearn._models import by_text
from v1tlearn._values import as_whole
from v1tlearn.inspection._drawing import axes_for
from v1tlearn.inspection.behavior.activations import behavior_activations
from v1tlearn.inspection.colors import figure_colors
from v1tlearn.trials import Trials

_NAME = "BehaviorActivationDisplay"


class BehaviorActivationDisplay:
    """Distributions of the outputs of behaviour networks, an axes per block and a line per mouse.

    `from_estimator` makes one of a fitted model.

    Parameters
    ----------
    activations : dict of str to DataArray (block, trial, unit)
        From `behavior_activations`.

    Attributes
    ----------
    axes_ : ndarray of shape (n_blocks,)
        After `plot`.
    ax_ : Axes
        The first of them.
    figure_ : Figure

    Raises
    ------
    ValueError
        If there are none, or mice differ in their blocks.

    References
    ----------
    Li et al., 2023, Fig. A.1.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from v1tlearn.inspection import BehaviorActivationDisplay
    >>> outputs = xr.DataArray(np.zeros((2, 5, 3)), dims=("block", "trial", "unit"),
    ...                        coords={"block": [0, 1]})
    >>> BehaviorActivationDisplay({"A": outputs}).blocks
    [0, 1]
    """

    def __init__(self, activations: Mapping[str, xr.DataArray]) -> None:
        self.activations = by_text("activations", activations)
        if not self.activations:
            raise ValueError("activations is empty: expected those of at least one mouse.")
        blocks = {mouse: own["block"].values.tolist() for mouse, own in self.activations.items()}
        self.blocks = next(iter(blocks.values()))
        if any(own != self.blocks for own in blocks.values()):
            raise ValueError(f"mice have networks ahead of different blocks: {blocks}.")

    @classmethod
    def from_estimator(
        cls, estimator: Any, trials: Trials, *, ax: Any = None, n_bins: int = 50
    ) -> Self:
        """Compute outputs, and draw.

        Parameters
        ----------
        estimator : V1TRegressor
            Fitted, see `behavior_activations`.
        trials : Trials
        ax, n_bins
            Of `plot`.

        Returns
        -------
        BehaviorActivationDisplay

        Raises
        ------
        TypeError, ValueError
            As `behavior_activations`.
        NotFittedError
            Before `fit`.
        """
        return cls(behavior_activations(estimator, trials)).plot(ax, n_bins=n_bins)

    def plot(self, ax: Any = None, *, n_bins: int = 50) -> Self:
        """Draw the distributions over trials and units.

        Parameters
        ----------
        ax : Axes or sequence of Axes, optional
            One per block. A new figure by default.
        n_bins : int, default=50
            From -1 to 1.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If axes are not as many as blocks.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        edges = np.linspace(-1, 1, as_whole(n_bins, "n_bins") + 1)
        n = len(self.blocks)
        size = (2.4 * n + 0.6, 2.6)
        self.axes_, self.figure_ = axes_for(ax, n, _NAME, (1, n), size, sharey=True)
        self.ax_ = self.axes_[0]
        colors = figure_colors([f"mouse {mouse}" for mouse in self.activations])
        for axis, block in zip(self.axes_, self.blocks, strict=True):
            for mouse, own in self.activations.items():
                values = own.sel(block=block).values.ravel()
                share = np.histogram(values, edges)[0] / len(values)
                label = f"mouse {mouse}"
                axis.stairs(share, edges, color=colors[label], lw=1.5, label=label)
            axis.set_xlim(-1, 1)
            axis.set_xlabel("output (tanh)")
            axis.set_title(f"block {block + 1}", fontsize="medium", loc="right")
            axis.spines[["top", "right"]].set_visible(False)
        self.ax_.set_ylabel("share of outputs")
        self.ax_.set_ylim(bottom=0)
        if len(self.activations) > 1:
            handles = self.ax_.get_legend_handles_labels()[0]
            self.axes_[-1].legend(
                handles=handles, loc="upper left", frameon=False, fontsize="small",
                bbox_to_anchor=(1.0, 1.0), handlelength=1.2,
            )  # fmt: skip
        return self

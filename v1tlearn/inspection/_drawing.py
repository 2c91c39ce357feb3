"""What the displays share: matplotlib on demand, and axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def pyplot(display: str) -> Any:
    """Import matplotlib, which is there with the extra `plot` only."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f'{display} draws with matplotlib, which is not here: install the extra "plot", from '
            'the folder of v1tlearn with pip install -e ".[plot]".'
        ) from error
    return plt


def axes_for(
    ax: Any, n: int, display: str, shape: tuple[int, int], size: tuple[float, float], **options: Any
) -> tuple[np.ndarray, Figure]:
    """Take the axes of the caller, or make a figure with some."""
    plt = pyplot(display)
    if ax is None:
        options = {"layout": "constrained", **options}
        figure, grid = plt.subplots(*shape, figsize=size, squeeze=False, **options)
        for unused in grid.flat[n:]:
            unused.remove()
        return grid.ravel()[:n], figure
    axes = np.ravel(np.asarray(ax, dtype=object))
    if len(axes) != n:
        raise ValueError(f"ax: {len(axes)} axes came, {display} draws {n}: give {n}, or None.")
    return axes, axes[0].figure


def only_axes(ax: Axes | None, display: str, size: tuple[float, float]) -> tuple[Axes, Figure]:
    """Take the one axes of the caller, or make a figure of it."""
    axes, figure = axes_for(ax, 1, display, (1, 1), size)
    return axes[0], figure


def legend_above(axis: Axes, handles: Sequence[Any] | None = None, lines_up: int = 0) -> Any:
    """Put a legend above the axes, where no data are, in as many columns as fit beside others."""
    from matplotlib.transforms import offset_copy

    handles = axis.get_legend_handles_labels()[0] if handles is None else handles
    widths = [0.4 + 0.066 * len(str(handle.get_label())) for handle in handles]  # inches
    figure = cast("Figure", axis.figure)  # or a part of one, which is taken alike
    room = axis.get_window_extent().width / figure.dpi
    columns = len(widths) if sum(widths) <= room else int(room / max(widths))
    up = offset_copy(axis.transAxes, figure, y=18 * lines_up, units="points")
    return axis.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        bbox_transform=up,
        ncols=max(1, min(5, columns)),
        frameon=False,
        fontsize="small",
        handlelength=1.2,
        columnspacing=1.0,
        handletextpad=0.5,
        borderaxespad=0.2,
    )


def same_axes(ax: Axes, values: np.ndarray) -> None:
    """Give both axes the limits of all values, equal aspect and a line where they are equal.

    Parameters
    ----------
    ax : Axes
    values : ndarray
        Of both axes; NaN is left out.
    """
    low, high = (float(f(values, initial=0.0)) for f in (np.nanmin, np.nanmax))
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin * (low < 0), high + margin
    ax.axline((0, 0), slope=1, color="0.6", lw=1, zorder=0, label="_equal")
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    ax.spines[["top", "right"]].set_visible(False)

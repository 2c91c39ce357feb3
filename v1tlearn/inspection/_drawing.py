"""What the displays share: matplotlib on demand, axes, and names of estimators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def pyplot(display: str) -> Any:
    """Import matplotlib, which is there with the extra `plot` only.

    Parameters
    ----------
    display : str
        Who needs it.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        Naming the extra.
    """
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
    """Take the axes of the caller, or make a figure with some.

    Parameters
    ----------
    ax : Axes, sequence of Axes or None
    n : int
        Number of axes needed.
    display : str
        Who needs them.
    shape : (int, int)
        Rows and columns of a new figure.
    size : (float, float)
        Its width and height, in inches.
    **options
        Of `matplotlib.pyplot.subplots`.

    Returns
    -------
    axes : ndarray of shape (n,)
    figure : Figure

    Raises
    ------
    ValueError
        If another number of axes came.
    """
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
    """Put a legend above the axes, where no data are.

    Parameters
    ----------
    axis : Axes
    handles : sequence of artists, optional
        By default all with a label.
    lines_up : int, default=0
        Lines of text that are left free below.

    Returns
    -------
    Legend
    """
    from matplotlib.transforms import offset_copy

    handles = axis.get_legend_handles_labels()[0] if handles is None else handles
    up = offset_copy(axis.transAxes, axis.figure, y=18 * lines_up, units="points")
    return axis.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        bbox_transform=up,
        ncols=5,
        frameon=False,
        fontsize="small",
        handlelength=1.2,
        columnspacing=1.0,
        handletextpad=0.5,
        borderaxespad=0.2,
    )


def named(estimators: Any, what: str = "estimators") -> dict[str, Any]:
    """Name estimators, or what belongs to them.

    Parameters
    ----------
    estimators : estimator, sequence of estimators or dict of str to estimator
    what : str
        The argument, for errors.

    Returns
    -------
    dict of str to estimator

    Raises
    ------
    ValueError
        If there is none, or two have one name.
    """
    if isinstance(estimators, Mapping):
        out = by_name(estimators, what)
    else:
        several = isinstance(estimators, Sequence) and not isinstance(estimators, str)
        out = {}
        # a Pipeline is a sequence for Python, and one estimator for us
        for estimator in estimators if several and not hasattr(estimators, "fit") else [estimators]:
            name = short_name(estimator)
            number = sum(other == name or other.startswith(f"{name} (") for other in out) + 1
            out[name if number == 1 else f"{name} ({number})"] = estimator
    if not out:
        raise ValueError(f"{what} is empty: expected at least one.")
    return out


def by_name(values: Any, what: str) -> dict[str, Any]:
    """Make text of the names of models, which stay as many.

    Parameters
    ----------
    values : dict of str to anything
    what : str
        The argument, for errors.

    Returns
    -------
    dict of str to anything

    Raises
    ------
    TypeError
        If this is no dict.
    ValueError
        If two names are the same text.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{what} is a {type(values).__name__}: expected a dict by model.")
    out: dict[str, Any] = {}
    for name, value in values.items():
        if str(name) in out:
            raise ValueError(f"{what}: two are called {str(name)!r}: give each its own name.")
        out[str(name)] = value
    return out


def fitted(estimators: Any) -> dict[str, Any]:
    """Name estimators, and check that they are some, and fitted.

    Parameters
    ----------
    estimators : estimator, sequence of estimators or dict of str to estimator

    Returns
    -------
    dict of str to estimator

    Raises
    ------
    TypeError
        If one is no estimator.
    NotFittedError
        If one is not fitted.
    """
    out = named(estimators)
    for name, estimator in out.items():
        if isinstance(estimator, type) or not hasattr(estimator, "fit"):
            came = repr(estimator) if isinstance(estimator, type) else type(estimator).__name__
            raise TypeError(
                f"estimators: {came} came as {name!r}: expected a fitted estimator, such as "
                "CNNRegressor().fit(trials), several in a list, or a dict of them by name."
            )
        model = last_step(estimator)
        if hasattr(model, "__sklearn_tags__"):  # what is no estimator of scikit-learn cannot tell
            check_is_fitted(
                model,
                msg=f"{name!r}, a %(name)s, is not fitted: call fit(trials) first.",
            )
    return out


def short_name(estimator: Any) -> str:
    """Name of a model as figures have it: "V1T", "ensemble", or that of another class."""
    name = type(last_step(estimator)).__name__
    name = name.removesuffix("Regressor")
    return "ensemble" if name == "Ensemble" else name


def last_step(estimator: Any) -> Any:
    """Give the model of a Pipeline, the best one of a search; any other estimator as it is."""
    if hasattr(estimator, "best_estimator_"):
        return last_step(estimator.best_estimator_)
    if hasattr(estimator, "steps"):
        return last_step(estimator.steps[-1][1])
    return estimator

"""How a fitted model, or several, came about: losses and validation correlation by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from v1tlearn._models import by_text, last_step, named_models
from v1tlearn.inspection._drawing import axes_for, legend_above
from v1tlearn.inspection.colors import figure_colors, shades

_NAME = "TrainingDisplay"
_UNKNOWN = "loss"
_SEVERAL = "loss\n(each its own)"
# What `loss` is called on an axis; sequences are judged by another one than they minimise.
_LOSSES = {
    "poisson": "Poisson loss\nper response",
    "squared": "squared error\nper response",
    "vist": "training: Vi-ST loss\nvalidation: squared error",
    "rmse": "training: root mean squared error\nvalidation: squared error",
}


class TrainingDisplay:
    """Training curves: losses above, validation correlation below, by epoch.

    `from_estimator` makes one of fitted models.

    Parameters
    ----------
    histories : dict of str to list of dict
        Per model one record per epoch, as in `history_`: "epoch", "loss", "lr" and, with
        validation, "validation_loss" and "validation_correlation".
    kept : dict of str to int, optional
        Per model the epoch whose weights it keeps, 0 where those are the initial ones, which no
        dot marks. Of a model that is not in it, the epoch of the highest validation correlation,
        or the last without validation.
    losses : dict of str to str, optional
        Per model what its loss is called on the axis; "loss" by default. `from_estimator` knows.
    colors : dict of str to str, optional
        Per model; by default those of `model_color`, in shades where models bear one name.

    Attributes
    ----------
    kept_ : dict of str to int
        Per model the epoch whose weights it keeps.
    lr_drops_ : dict of str to list of int
        Per model the epochs from which on its learning rate was lower than before.
    axes_ : ndarray of shape (2,)
        The axes of loss and correlation; after `plot`. One only, where no model was validated.
    figure_ : Figure
    lines_ : dict of str to list of Line2D
        Per model its lines: training loss, validation loss, validation correlation.

    Raises
    ------
    ValueError
        If there is no model, one has no epochs, two have one name, or `kept` names another model
        or epoch.

    See Also
    --------
    ScoreDisplay : What the models reached.

    Examples
    --------
    >>> from v1tlearn.inspection import TrainingDisplay
    >>> records = [{"epoch": 1, "loss": 2.0, "lr": 0.01, "validation_loss": 2.1,
    ...             "validation_correlation": 0.1},
    ...            {"epoch": 2, "loss": 1.5, "lr": 0.01, "validation_loss": 1.9,
    ...             "validation_correlation": 0.2},
    ...            {"epoch": 3, "loss": 1.2, "lr": 0.003, "validation_loss": 2.0,
    ...             "validation_correlation": 0.15}]
    >>> display = TrainingDisplay({"CNN": records})
    >>> display.kept_, display.lr_drops_
    ({'CNN': 2}, {'CNN': [3]})
    """

    def __init__(
        self,
        histories: Mapping[str, Sequence[Mapping[str, float]]],
        *,
        kept: Mapping[str, int] | None = None,
        losses: Mapping[str, str] | None = None,
        colors: Mapping[str, str] | None = None,
    ) -> None:
        named = by_text("histories", histories)
        if not named:
            raise ValueError("histories is empty: expected at least one model.")
        self.histories = {name: list(records) for name, records in named.items()}
        for name, records in self.histories.items():
            if not records:
                raise ValueError(
                    f"{name!r} has no epochs to show: it was not trained here (max_epochs=0, or "
                    "opened from published code)."
                )
        self.colors = dict(colors or figure_colors(self.histories))
        named_losses = by_text("losses", losses or {})
        self.losses = {name: named_losses.get(name, _UNKNOWN) for name in self.histories}
        self.kept_ = {name: _kept(records) for name, records in self.histories.items()}
        for name, epoch in by_text("kept", kept or {}).items():
            known = [0, *(r["epoch"] for r in self.histories.get(name, []))]
            if name not in self.histories or epoch not in known:
                raise ValueError(
                    f"kept: epoch {epoch!r} of {name!r} came: expected one of {known} of "
                    f"{list(self.histories)}."
                )
            self.kept_[name] = int(epoch)
        self.lr_drops_ = {name: _drops(records) for name, records in self.histories.items()}

    @classmethod
    def from_estimator(
        cls,
        estimators: Any,
        *,
        ax: Any = None,
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the training of fitted models.

        Parameters
        ----------
        estimators : estimator, sequence of estimators or dict of str to estimator
            Fitted. Of an ensemble all members are shown, in shades of its colour, the best first;
            of a Pipeline its model; of a search the best estimator.
        ax, line_kw
            Of `plot`.

        Returns
        -------
        TrainingDisplay
            With the kept epochs of `best_epoch_`.

        Raises
        ------
        TypeError
            If these are no estimators, or do not note their training.
        NotFittedError
            If one is not fitted.
        """
        models = named_models(estimators)
        colors = figure_colors(models)
        trained, of_members = {}, {}
        for name, estimator in models.items():
            model = last_step(estimator)
            if not hasattr(model, "estimators_"):
                trained[name], of_members[name] = model, colors[name]
                continue
            members = {f"{name}, member {i}": m for i, m in enumerate(model.estimators_, 1)}
            trained |= members
            tones = shades(colors[name], len(members))
            of_members |= dict(zip(members, tones, strict=True))
        histories = {name: _history(name, model) for name, model in trained.items()}
        # a model that was opened from elsewhere may not have noted it
        noted = {name: getattr(model, "best_epoch_", None) for name, model in trained.items()}
        kept = {name: epoch for name, epoch in noted.items() if epoch is not None}
        losses = {name: _loss(model) for name, model in trained.items()}
        shown = cls(histories, kept=kept, losses=losses, colors=of_members)
        return shown.plot(ax, line_kw=line_kw)

    def plot(self, ax: Any = None, *, line_kw: Mapping[str, Any] | None = None) -> Self:
        """Draw the curves.

        The epoch whose weights are kept is a dot on every validation curve; the first epoch after
        every drop of the learning rate is a tick at the bottom, in the colour of its model.

        Parameters
        ----------
        ax : sequence of two Axes, optional
            For the losses and for the correlation; a single one where no model was validated. A
            new figure by default.
        line_kw : dict, optional
            Of all lines, as `matplotlib.axes.Axes.plot` takes it.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            Without matplotlib, the extra `plot`.
        """
        # any record: an update without validation may follow a fit with
        records = [record for own in self.histories.values() for record in own]
        validated = any("validation_correlation" in record for record in records)
        n = 1 + validated
        self.axes_, self.figure_ = axes_for(ax, n, _NAME, (n, 1), (5.0, 2.4 * n + 0.2), sharex=True)
        self.lines_ = {name: self._draw(name, line_kw or {}) for name in self.histories}
        losses = self.axes_[0]
        called = set(self.losses.values())
        losses.set_ylabel(called.pop() if len(called) == 1 else _SEVERAL)
        if validated:
            self.axes_[1].set_ylabel("validation\ncorrelation")
        self.axes_[-1].set_xlabel("epoch")
        self.axes_[-1].xaxis.get_major_locator().set_params(integer=True)
        for axis in self.axes_:
            axis.spines[["top", "right"]].set_visible(False)
        self._legend(losses, validated)
        return self

    def _draw(self, name: str, line_kw: Mapping[str, Any]) -> list[Any]:
        records = self.histories[name]
        epochs = [record["epoch"] for record in records]
        style = {"color": self.colors[name], "lw": 1.5, **line_kw}
        kept = self.kept_[name]
        lines = [self.axes_[0].plot(epochs, _column(records, "loss"), label=name, **style)[0]]
        for axis, key, dashes in (
            (self.axes_[0], "validation_loss", {"ls": "--"}),
            (self.axes_[-1], "validation_correlation", {}),
        ):
            values = _column(records, key)
            if np.isnan(values).all():
                continue
            lines += axis.plot(epochs, values, label=f"_{name}", **style | dashes)
            if kept in epochs:  # not the initial weights
                value = values[epochs.index(kept)]
                axis.plot(kept, value, "o", color=style["color"], ms=5, label=f"_{name}, kept")
        for axis in self.axes_ if self.lr_drops_[name] else ():
            axis.plot(
                self.lr_drops_[name],
                np.zeros(len(self.lr_drops_[name])),
                "|",
                transform=axis.get_xaxis_transform(),
                color=style["color"],
                ms=10,
                mew=1.5,
                clip_on=False,
                label=f"_{name}, lr drops",
            )
        return lines

    def _legend(self, axis: Any, validated: bool) -> None:
        """Models by colour, and what the marks mean, above the axes where no data are."""
        from matplotlib.lines import Line2D

        models = [Line2D([], [], color=c, lw=2, label=name) for name, c in self.colors.items()]
        grey: dict[str, Any] = {"color": "0.4", "lw": 1.5}
        marks = []
        if validated:
            marks = [
                Line2D([], [], label="training", **grey),
                Line2D([], [], ls="--", label="validation", **grey),
            ]
        if validated and any(self.kept_.values()):
            marks.append(Line2D([], [], marker="o", ms=5, ls="", color="0.4", label="kept"))
        if any(self.lr_drops_.values()):
            marks.append(
                Line2D([], [], marker="|", ms=10, mew=1.5, ls="", color="0.4", label="lr drop")
            )
        if marks:
            axis.add_artist(legend_above(axis, marks))
        legend_above(axis, models, lines_up=bool(marks))


def _column(records: Sequence[Mapping[str, float]], key: str) -> np.ndarray:
    return np.array([record.get(key, np.nan) for record in records], dtype=float)


def _history(name: str, model: Any) -> Sequence[Mapping[str, float]]:
    if not hasattr(type(model), "history_") and not hasattr(model, "history_"):
        raise TypeError(
            f"{name!r} is a {type(model).__name__}, which has no history_: expected a model of "
            "this package, or a Pipeline, search or ensemble of them."
        )
    return model.history_


def _loss(model: Any) -> str:
    """What a model minimised, for the axis."""
    loss = model._knows()[0].parameters.get("loss", "poisson") if hasattr(model, "_knows") else None
    if isinstance(loss, str):
        return _LOSSES[loss]
    return _UNKNOWN if loss is None else f"{getattr(loss, '__name__', _UNKNOWN)}\nper response"


def _kept(records: Sequence[Mapping[str, float]]) -> int:
    scores = _column(records, "validation_correlation")
    best = len(records) - 1 if np.isnan(scores).all() else int(np.nanargmax(scores))
    return int(records[best]["epoch"])


def _drops(records: Sequence[Mapping[str, float]]) -> list[int]:
    rates = _column(records, "lr")
    return [int(records[i + 1]["epoch"]) for i in np.flatnonzero(np.diff(rates) < 0).tolist()]

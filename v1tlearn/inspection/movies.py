"""Predictions over time: frames of a movie, and below them recorded and predicted traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from v1tlearn._models import by_text, named_models
from v1tlearn._values import as_responses, as_whole
from v1tlearn.inspection._drawing import legend_above, pyplot
from v1tlearn.inspection._predictions import models_alike, one_mouse
from v1tlearn.inspection._repeats import mean_recorded
from v1tlearn.inspection.colors import MODEL_COLORS, figure_colors
from v1tlearn.trials import Responses, Trials

_NAME = "MoviePredictionDisplay"


class MoviePredictionDisplay:
    """Frames of a movie, and below them what neurons did and what models predict, over time.

    `from_estimator` makes one of fitted models, `from_predictions` of what they predicted.

    Parameters
    ----------
    recorded : array of shape (n_frames, n_neurons)
        Recorded responses, means over repeats; NaN where not recorded.
    predicted : dict of str to array of shape (n_frames, n_neurons)
        Per model its predictions.
    frames : array of shape (n_frames, n_channels, height, width), optional
        The movie; without it only traces are drawn.
    frame_rate : float, optional
        Frames per second; without it time is in frames.
    spread : array of shape (n_frames, n_neurons), optional
        Standard error of what was recorded, drawn as a band.
    neurons : sequence of str, optional
        What neurons are called.
    units : str, default="a.u."
        Of the responses.
    title : str, default=""
    n_frames : int, default=8
        Frames that are drawn, spread evenly over the movie.
    colors : dict of str to str, optional
        Per model; by default those of `model_color`.

    Attributes
    ----------
    axes_ : ndarray of shape (n_neurons,)
        Of the traces, after `plot`.
    frame_ax_ : Axes or None
        Of the frames.
    figure_ : Figure

    Raises
    ------
    ValueError
        If there is no model, or shapes do not fit each other.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.inspection import MoviePredictionDisplay
    >>> traces = np.ones((90, 2))
    >>> display = MoviePredictionDisplay(traces, {"LN": traces}, frame_rate=30.0)
    >>> round(float(display.times[-1]), 3)
    2.967
    """

    def __init__(
        self,
        recorded: Any,
        predicted: Mapping[str, Any],
        frames: Any = None,
        *,
        frame_rate: float | None = None,
        spread: Any = None,
        neurons: Sequence[str] | None = None,
        units: str = "a.u.",
        title: str = "",
        n_frames: int = 8,
        colors: Mapping[str, str] | None = None,
    ) -> None:
        self.recorded = _traces(recorded, "recorded")
        self.predicted = {
            name: _traces(values, f"predicted: {name!r}")
            for name, values in by_text("predicted", predicted).items()
        }
        if not self.predicted:
            raise ValueError("predicted is empty: expected at least one model.")
        self.spread = None if spread is None else _traces(spread, "spread")
        others = dict(self.predicted) | ({} if self.spread is None else {"spread": self.spread})
        for name, values in others.items():
            if values.shape != self.recorded.shape:
                raise ValueError(
                    f"{name!r} has the shape {values.shape}, what was recorded "
                    f"{self.recorded.shape}: expected the same frames and neurons."
                )
        length, n = self.recorded.shape
        self.frames = None if frames is None else np.asarray(frames)
        if self.frames is not None and (self.frames.ndim != 4 or len(self.frames) != length):
            raise ValueError(
                f"frames have the shape {self.frames.shape}: expected ({length}, channels, height, "
                "width), one for each of the responses."
            )
        n_frames = as_whole(n_frames, "n_frames")
        self.shown_frames: np.ndarray = np.unique(
            ((np.arange(n_frames) + 0.5) * length / n_frames).astype(int)
        )
        self.neurons: list[Any] = (
            [f"neuron {i}" for i in range(n)] if neurons is None else list(neurons)
        )
        if len(self.neurons) != n:
            raise ValueError(f"{len(self.neurons)} names came for {n} neurons.")
        self.times: np.ndarray = np.arange(length) / (1.0 if frame_rate is None else frame_rate)
        self.time_units: str = "frames" if frame_rate is None else "s"
        self.units: str = units
        self.title: str = title
        self.colors: dict[str, Any] = dict(colors or figure_colors(self.predicted))

    @classmethod
    def from_estimator(
        cls,
        estimators: Any,
        trials: Trials,
        *,
        mouse_id: str | None = None,
        image_id: Any = None,
        neurons: Any = None,
        colors: Mapping[str, str] | None = None,
        figure: Any = None,
    ) -> Self:
        """Predict a movie with fitted models, and draw.

        Parameters
        ----------
        estimators : estimator, sequence of estimators or dict of str to estimator
            Fitted.
        trials : Trials
            Of movies, with responses.
        mouse_id, image_id, neurons, colors
            Of `from_predictions`.
        figure
            Of `plot`.

        Returns
        -------
        MoviePredictionDisplay

        Raises
        ------
        TypeError, ValueError
            As `from_predictions`.
        """
        if not isinstance(trials, Trials):
            raise TypeError(
                f"trials is a {type(trials).__name__}: expected Trials; predictions go to "
                "MoviePredictionDisplay.from_predictions."
            )
        mouse, image = _one_movie(trials, mouse_id, image_id)
        shown = trials.sel(mouse_id=mouse, image_id=image)
        predictions = {name: e.predict(shown) for name, e in named_models(estimators).items()}
        return cls.from_predictions(
            shown, predictions, neurons=neurons, colors=colors, figure=figure
        )

    @classmethod
    def from_predictions(
        cls,
        trials: Trials,
        predictions: Responses | Mapping[str, Responses],
        *,
        mouse_id: str | None = None,
        image_id: Any = None,
        neurons: Any = None,
        colors: Mapping[str, str] | None = None,
        figure: Any = None,
    ) -> Self:
        """Draw predictions of a movie and what was recorded.

        Parameters
        ----------
        trials : Trials
            Of movies, with responses; their preprocessing is applied to the frames.
        predictions : Responses, or dict of str to Responses
            Of the same trials; per model where there are several.
        mouse_id : str, optional
            Whose responses; not needed where there is one mouse.
        image_id : optional
            Which movie, with all its repeats: responses are averaged over them, predictions, which
            may differ with behaviour, too. By default that of the first trial.
        neurons : optional
            Unit ids of some neurons, one or several; by default the three that vary most from frame
            to frame in relation to their mean over repeats.
        colors : dict of str to str, optional
            Per model; by default those of `model_color`.
        figure
            Of `plot`.

        Returns
        -------
        MoviePredictionDisplay

        Raises
        ------
        TypeError, ValueError
            If these are no trials of movies, or no `Responses` of the same trials and neurons in
            the same order, or mouse, movie or neuron are unknown.
        """
        if not isinstance(trials, Trials):
            raise TypeError(f"trials is a {type(trials).__name__}: expected Trials of movies.")
        recorded = trials.responses
        models = models_alike(recorded, predictions, _NAME)
        mouse, image = _one_movie(trials, mouse_id, image_id)
        chosen = (trials.mouse_ids == mouse) & (trials.image_ids == image)
        shown, recorded = trials[chosen], recorded[chosen]
        models = {name: values[chosen] for name, values in models.items()}
        assert shown.n_frames is not None
        length = int(shown.n_frames.max())
        table = recorded.get(mouse)[:, :length]
        places = _chosen(shown, mouse, neurons, table)
        table = table[:, :, places]
        missing = np.isnan(table)
        tables = {
            # means are over the same repeats
            name: np.where(missing, np.nan, values.get(mouse)[:, :length][:, :, places])
            for name, values in models.items()
        }
        ids = shown.neuron_ids(mouse)[places]
        display = cls(
            mean_recorded(table),
            {name: mean_recorded(values) for name, values in tables.items()},
            shown[:1].get("stimuli", mouse)[0, :length],
            frame_rate=shown.frame_rate(mouse),
            spread=_standard_error(table) if len(table) > 1 else None,
            neurons=[f"neuron {one}" for one in ids],
            units=str(recorded[mouse].attrs.get("units", "a.u.")),
            title=f"Mouse {mouse}, movie {image}, {len(table)} "
            + ("repeats" if len(table) > 1 else "trial"),
            colors=colors,
        )
        return display.plot(figure)

    def plot(self, figure: Any = None) -> Self:
        """Draw frames above, traces below, on one axis of time.

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
        n = self.recorded.shape[1]
        width, strip = 7.0, 0.0
        if self.frames is not None:
            height, columns = self.frames.shape[2:]
            strip = 0.3 + min(0.9 * width / len(self.shown_frames) * height / columns, 1.6)
        if figure is None:
            size = (width, strip + 1.15 * n + 0.9)
            figure = pyplot(_NAME).figure(figsize=size, layout="constrained")
        self.figure_ = figure
        above = [] if self.frames is None else [strip]
        grid = figure.add_gridspec(len(above) + n, 1, height_ratios=[*above, *[1.15] * n])
        self.frame_ax_ = None
        if self.frames is not None:
            self.frame_ax_ = figure.add_subplot(grid[0])
            self._draw_frames(self.frame_ax_)
        first = figure.add_subplot(grid[len(above)])
        rest = [figure.add_subplot(grid[len(above) + i], sharex=first) for i in range(1, n)]
        self.axes_ = np.array([first, *rest], dtype=object)
        for neuron, axis in enumerate(self.axes_):
            self._draw_traces(axis, neuron)
            axis.tick_params(labelbottom=neuron == n - 1)
        self.axes_[-1].set_xlabel(f"time ({self.time_units})")
        self.axes_[0].set_xlim(self.times[0], max(self.times[-1], self.times[0] + 1e-9))
        legend_above(first)
        if self.title:
            figure.suptitle(self.title, fontsize="medium")
        return self

    def _draw_frames(self, axis: Any) -> None:
        """Draw frames side by side, each over the time at which it was shown."""
        assert self.frames is not None
        shown = self.frames[self.shown_frames].mean(axis=1)  # channels
        finite = shown[np.isfinite(shown)]
        whole = self.frames.dtype.kind in "iu" and self.frames.max() > 1  # not 0 and 1
        low, high = (0, 255) if whole or not finite.size else (finite.min(), finite.max())
        n, height, width = shown.shape
        gap = max(1, width // 16)
        strip = np.full((n, height, width + gap), np.nan)
        strip[:, :, gap // 2 : gap // 2 + width] = shown
        row = np.concatenate(list(strip), axis=1)
        style = {"cmap": "gray", "vmin": low, "vmax": high, "interpolation": "nearest"}
        axis.imshow(row, origin="upper", aspect="equal", **style)
        labels = [f"{self.times[frame]:.3g} {self.time_units}" for frame in self.shown_frames]
        axis.set_xticks((np.arange(n) + 0.5) * (width + gap) - 0.5, labels, fontsize="small")
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        axis.set_yticks([])
        axis.spines[:].set_visible(False)

    def _draw_traces(self, axis: Any, neuron: int) -> None:
        color = MODEL_COLORS["recorded"]
        values = self.recorded[:, neuron]
        if self.spread is not None:
            error = self.spread[:, neuron]
            axis.fill_between(self.times, values - error, values + error, color="0.85", lw=0)
        axis.plot(self.times, values, color=color, lw=1.2, label="recorded")
        for name, predicted in self.predicted.items():
            axis.plot(self.times, predicted[:, neuron], color=self.colors[name], lw=1.2, label=name)
        axis.set_ylabel(f"{self.neurons[neuron]}\n({self.units})", fontsize="small")
        axis.tick_params(labelsize="small")
        axis.margins(y=0.08)
        axis.spines[["top", "right"]].set_visible(False)


def _traces(values: Any, name: str) -> np.ndarray:
    found = as_responses(values, name).astype(float)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or not found.size:
        raise ValueError(f"{name} has the shape {found.shape}: expected (frames, neurons).")
    return found


def _one_movie(trials: Trials, mouse_id: str | None, image_id: Any) -> tuple[str, Any]:
    if trials.n_frames is None:
        raise ValueError(
            "the trials are images, which have no time: responses to them are drawn by "
            "PredictionDisplay."
        )
    mouse = one_mouse(trials, mouse_id)
    images = trials.image_ids[trials.rows(mouse)[0]]
    if image_id is None:
        return mouse, images[0]
    if image_id not in images:
        known = np.unique(images)[:10].tolist()
        raise ValueError(f"mouse {mouse!r}: unknown movie {image_id!r}, there are {known}.")
    return mouse, image_id


def _chosen(trials: Trials, mouse: str, neurons: Any, table: np.ndarray) -> np.ndarray:
    """Places of the neurons that are drawn."""
    if neurons is None:
        over_time = mean_recorded(table)
        mean = mean_recorded(over_time)
        deviation = np.sqrt(mean_recorded((over_time - mean) ** 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            vary = np.nan_to_num(deviation / np.abs(mean))
        return np.sort(np.argsort(-vary, kind="stable")[:3])
    ids = trials.neuron_ids(mouse).tolist()
    wanted = np.atleast_1d(np.asarray(neurons)).tolist()
    if unknown := [one for one in wanted if one not in ids]:
        raise ValueError(f"mouse {mouse!r}: unknown neurons {unknown}, there are {ids[:10]}...")
    return np.array([ids.index(one) for one in wanted])


def _standard_error(values: np.ndarray) -> np.ndarray:
    """Standard errors of these means; NaN of less than two repeats."""
    count = (~np.isnan(values)).sum(axis=0)
    off = np.nan_to_num(values - mean_recorded(values)) ** 2
    variance = off.sum(axis=0) / np.maximum(count - 1, 1)
    return np.where(count > 1, np.sqrt(variance / np.maximum(count, 1)), np.nan)

"""Masking curves, drawn: what is left of the maps when few neurons are attended to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xarray as xr

from v1tlearn._options import as_word
from v1tlearn.inspection._drawing import legend_above, only_axes
from v1tlearn.inspection.colors import model_color
from v1tlearn.inspection.neurons.masking import attention_masking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.lines import Line2D

_NAME = "MaskingDisplay"
_LABELS = {
    "correlation_full": "correlation with\nthe whole map",
    "ssim_full": "structural similarity to\nthe whole map",
    "correlation_image": "correlation with\nthe map of the image",
    "ssim_image": "structural similarity to\nthe map of the image",
    "top1": "images found (top 1)",
}
# Colours that colour-blind readers tell apart, as those of the models.
_COLORS = {"attention": "#d55e00", "amplitude": "#0072b2", "reliability": "#009e73"}
_RANDOM = "#999999"


class MaskingDisplay:
    """Masking curves against the share of neurons that is kept, with the band of random ones.

    `from_estimator` makes one of a fitted aligner.

    Parameters
    ----------
    curves : Dataset
        Of one mouse, as `attention_masking` gives it.

    Attributes
    ----------
    half_ : dict of str to float
        Per ranking the smallest share of neurons kept as keys with which the measure is at least
        halfway from its lowest to its highest value over all curves; NaN where it never is. After
        `plot`.
    lines_ : dict of (str, str) to Line2D
        Of each ranking and kind that is kept.
    band_ : PolyCollection or None
        From the lowest to the highest random ranking.
    ax_ : Axes
    figure_ : Figure

    Raises
    ------
    TypeError
        If these are no such curves.

    See Also
    --------
    attention_masking : What is drawn.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=8, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.DINAAligner(
    ...     neural_tower="attention", embed_dim=4, max_epochs=2, map_size=(4, 6), map_channels=2,
    ...     random_state=0).fit(trials.sel(tier="train"))
    >>> curves = v1.inspection.attention_masking(est, trials.sel(tier="test"), n_random=3)
    >>> display = v1.inspection.MaskingDisplay(curves["A"])
    >>> display.rankings
    ['attention', 'amplitude', 'random']
    """

    def __init__(self, curves: xr.Dataset) -> None:
        dims = set(getattr(curves, "dims", ()))
        if not isinstance(curves, xr.Dataset) or not {"ranking", "keep", "step"} <= dims:
            raise TypeError(
                f"curves is a {type(curves).__name__} with the dimensions {sorted(dims)}: expected "
                "what attention_masking gives for one mouse, attention_masking(...)[mouse]."
            )
        self.curves = curves
        self.rankings = [str(name) for name in curves["ranking"].values]

    @classmethod
    def from_estimator(
        cls,
        aligner: Any,
        trials: Any,
        *,
        mouse: str | None = None,
        measure: str = "correlation_full",
        keep: str = "key",
        responses: str = "recorded",
        ax: Axes | None = None,
        line_kw: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Mask the neurons of a fitted aligner, and draw the curves.

        Parameters
        ----------
        aligner, trials
            Of `attention_masking`.
        mouse : str, optional
            Whose curves; needed where the trials are of several mice.
        measure, keep, responses, ax, line_kw
            Of `plot`.
        **options
            Of `attention_masking`.

        Returns
        -------
        MaskingDisplay

        Raises
        ------
        TypeError, ValueError
            As of `attention_masking` and `plot`; and if the mouse is not told or unknown.
        """
        mice = list(getattr(trials, "mice", []))
        if mouse is None and len(mice) > 1:
            raise ValueError(f"the trials are of the mice {mice}: say with mouse= whose curves.")
        if mouse is not None and str(mouse) not in mice:
            raise ValueError(f"mouse={mouse!r}: the trials are of the mice {mice}.")
        own = trials if mouse is None else trials.sel(mouse_id=str(mouse))
        (curves,) = attention_masking(aligner, own, **options).values()
        shown = {"measure": measure, "keep": keep, "responses": responses}
        return cls(curves).plot(ax, **shown, line_kw=line_kw)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        measure: str = "correlation_full",
        keep: str = "key",
        responses: str = "recorded",
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : Axes, optional
            A new figure by default.
        measure : {"correlation_full", "ssim_full", "correlation_image", "ssim_image", "top1"}
            What is drawn.
        keep : {"key", "non_key", "both"}, default="key"
            Which neurons are kept: those that rank highest, lowest (dashed), or both.
        responses : {"recorded", "shuffled"}, default="recorded"
        line_kw : dict, optional
            Of the curves, as `matplotlib.axes.Axes.plot` takes it.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an option is unknown, or no step keeps a neuron.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        for name, value, known in (
            ("measure", measure, tuple(_LABELS)),
            ("keep", keep, ("key", "non_key", "both")),
            ("responses", responses, ("recorded", "shuffled")),
        ):
            as_word(value, known, name)
        curves = self.curves.sel(responses=responses)
        kinds = ("key", "non_key") if keep == "both" else (keep,)
        if not (curves["fraction"].sel(keep=list(kinds)) > 0).any():
            raise ValueError(
                "no step keeps a neuron, so there is nothing to draw: give lower thresholds, or "
                "fractions, to attention_masking."
            )
        self.ax_, self.figure_ = only_axes(ax, _NAME, (4.8, 3.2))
        self.lines_: dict[tuple[str, str], Line2D] = {}
        self.band_: PolyCollection | None = None
        for kind in kinds:
            self._draw(curves.sel(keep=kind), measure, kind, line_kw or {})
        if f"{measure}_unmasked" in curves:
            whole = float(curves[f"{measure}_unmasked"])
            self.ax_.axhline(whole, color="0.3", lw=1, ls=":", label="no neuron masked", zorder=0)
        self.half_ = self._halfway(curves.sel(keep="key"), measure)
        self.ax_.set_xscale("log")
        self.ax_.set(xlabel="share of neurons kept", ylabel=_LABELS[measure])
        self.ax_.spines[["top", "right"]].set_visible(False)
        self._legend(kinds)
        return self

    def _draw(
        self, curves: xr.Dataset, measure: str, kind: str, line_kw: Mapping[str, Any]
    ) -> None:
        share = curves["fraction"].values
        order = np.argsort(share, kind="stable")
        order = order[share[order] > 0]  # none has no place on a logarithmic axis
        style = {"ls": "-" if kind == "key" else "--", "lw": 1.6, **line_kw}
        for name in self.rankings:
            values = curves[measure].sel(ranking=name).values[order]
            own = {"color": self._color(name), "zorder": 2 if name == "random" else 3, **style}
            (self.lines_[name, kind],) = self.ax_.plot(
                share[order], values, label=name if kind == "key" else f"_{name}, {kind}", **own
            )
        if "random" in self.rankings:
            draws = curves[f"{measure}_random"].values[:, order]
            self.band_ = self.ax_.fill_between(
                share[order], draws.min(0), draws.max(0), color=_RANDOM, alpha=0.3, lw=0, zorder=1
            )

    def _color(self, name: str) -> str:
        others = [n for n in self.rankings if n not in _COLORS and n != "random"]
        return _RANDOM if name == "random" else _COLORS.get(name) or model_color(name, others)

    def _halfway(self, curves: xr.Dataset, measure: str) -> dict[str, float]:
        values, share = curves[measure], curves["fraction"].values
        half = (float(values.min()) + float(values.max())) / 2
        out = {}
        for name in self.rankings:
            enough = share[values.sel(ranking=name).values >= half]
            out[name] = float(enough.min()) if enough.size else np.nan
        return out

    def _legend(self, kinds: tuple[str, ...]) -> None:
        from matplotlib.lines import Line2D

        handles, _ = self.ax_.get_legend_handles_labels()
        if len(kinds) > 1:
            grey: dict[str, Any] = {"color": "0.4", "lw": 1.5}
            marks = [Line2D([], [], label="highest", **grey)]
            marks.append(Line2D([], [], ls="--", label="lowest", **grey))
            self.ax_.add_artist(legend_above(self.ax_, marks))
        elif kinds == ("non_key",):
            handles = [self.lines_[name, "non_key"] for name in self.rankings]
            for name, handle in zip(self.rankings, handles, strict=True):
                handle.set_label(f"{name}, lowest")
        legend_above(self.ax_, handles, lines_up=int(len(kinds) > 1))

"""Receptive fields over an image, with the Gaussians that were fitted to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xarray as xr

from v1tlearn._values import as_array, as_dims, as_whole
from v1tlearn.inspection._coordinates import edges_of
from v1tlearn.inspection._drawing import axes_for
from v1tlearn.inspection._opened import known_mice, one_model
from v1tlearn.inspection.fields import receptive_fields
from v1tlearn.inspection.gaussians import fit_gaussians

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "ReceptiveFieldDisplay"
_DIMS = ("neuron", "height", "width")
_NEEDED = {"x", "y", "sigma_x", "sigma_y", "angle"}
_STANDARD_DEVIATIONS = 2  # at which ellipses are drawn
_ELLIPSE = "#009e73"


class ReceptiveFieldDisplay:
    """Receptive fields in red and blue, over an image where there is one, with ellipses.

    `from_fields` makes one of receptive fields, `from_estimator` of a fitted model.

    Parameters
    ----------
    fields : DataArray (neuron, height, width), with a channel or not
        Of one mouse; channels are averaged. Coordinates ``height`` and ``width`` say where pixels
        lie.
    gaussians : Dataset (neuron), optional
        Ellipses ``x``, ``y``, ``sigma_x``, ``sigma_y``, ``angle`` of these neurons, in their order
        or by their unit ids: from `fit_gaussians`, or from `readout_positions`. They are drawn at
        two standard deviations; dashed where they are not ``good``, and not at all where NaN.
    image : array of shape (height, width), optional
        As recorded, in grey, below the fields, which are opaque where they are strongest.

    Attributes
    ----------
    axes_ : ndarray of shape (n_neurons,)
        After `plot`.
    figure_ : Figure
    images_ : list of AxesImage
        The fields.
    ellipses_ : list of Ellipse or None

    Raises
    ------
    TypeError, ValueError
        If fields have other dimensions, Gaussians are of other neurons or lack something, or the
        image is none.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from v1tlearn.inspection import ReceptiveFieldDisplay, fit_gaussians
    >>> y, x = np.mgrid[:20, :30]
    >>> field = np.exp(-((x - 12) ** 2 / 18 + (y - 8) ** 2 / 8))[None, None]
    >>> fields = xr.DataArray(field, dims=("neuron", "channel", "height", "width"))
    >>> ReceptiveFieldDisplay(fields, fit_gaussians(fields, worst=0)).titles
    ['']
    """

    def __init__(self, fields: Any, gaussians: Any = None, image: Any = None) -> None:
        if not isinstance(fields, xr.DataArray):
            raise TypeError(
                f"fields is a {type(fields).__name__}: expected the DataArray of one mouse, such "
                'as receptive_fields(model, method="gradient")["A"].'
            )
        if "channel" in fields.dims:
            fields = fields.mean("channel")
        if "lag" in fields.dims:
            raise ValueError(
                f"fields has the dimensions {fields.dims}, kernels in time: draw "
                "KernelDisplay.from_kernels(fields), or the map of one lag, fields.isel(lag=0)."
            )
        fields = as_dims(fields, _DIMS, "fields")
        if fields.dims != _DIMS or not fields.size:
            raise ValueError(
                f"fields has the dimensions {dict(fields.sizes)}: expected neuron, height and "
                "width, at least one of each."
            )
        self.fields: xr.DataArray = fields
        self.gaussians: xr.Dataset | None = (
            None if gaussians is None else _of_these(gaussians, fields)
        )
        self.image = None if image is None else as_array(image, "image", of="row")
        if self.image is not None and (self.image.ndim != 2 or not self.image.size):
            raise ValueError(
                f"image has the shape {self.image.shape}: expected (height, width), of one channel."
            )
        known = "neuron" in fields.coords
        ids = fields["neuron"].values if known else [""] * fields.sizes["neuron"]
        self.titles = [f"neuron {one}" if known else "" for one in ids]

    @classmethod
    def from_fields(
        cls,
        fields: xr.DataArray,
        gaussians: xr.Dataset | None = None,
        *,
        image: Any = None,
        n_fields: int = 6,
        ax: Any = None,
        n_columns: int = 3,
    ) -> Self:
        """Draw the first receptive fields.

        Parameters
        ----------
        fields : DataArray (neuron, channel, height, width)
            Of one mouse, such as from `receptive_fields`.
        gaussians : Dataset, optional
            By default `fit_gaussians` of those that are drawn, none called bad for its width.
        image : array of shape (height, width), optional
        n_fields : int, default=6
            From the first on; all of them where they are fewer. Choose with ``fields.sel``.
        ax, n_columns
            Of `plot`.

        Returns
        -------
        ReceptiveFieldDisplay
        """
        first = slice(0, as_whole(n_fields, "n_fields"))
        whole = cls(fields, gaussians, image)
        shown, gaussians = whole.fields[first], whole.gaussians
        if gaussians is None:
            gaussians = fit_gaussians(shown.expand_dims(channel=1, axis=1), worst=0)
        else:
            gaussians = gaussians.isel(neuron=first)
        return cls(shown, gaussians, image).plot(ax, n_columns=n_columns)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        mouse_id: str | None = None,
        neurons: Sequence[Any] | None = None,
        image: Any = None,
        n_fields: int = 6,
        ax: Any = None,
        n_columns: int = 3,
        **options: Any,
    ) -> Self:
        """Draw receptive fields of a fitted model, and the Gaussians fitted to them.

        Parameters
        ----------
        estimator : CNNRegressor, V1TRegressor or another model of images
            Fitted, alone, in a Pipeline or found by a search.
        mouse_id : str, optional
            By default the first mouse.
        neurons : sequence, optional
            Unit ids; by default those of the first `n_fields` neurons.
        image : array of shape (height, width), optional
        n_fields : int, default=6
            Where no neurons are named.
        ax, n_columns
            Of `plot`.
        **options
            Of `receptive_fields`; by default ``method="gradient"``.

        Returns
        -------
        ReceptiveFieldDisplay

        Raises
        ------
        ValueError
            If the model sees time.
        """
        found = one_model(estimator, "receptive fields")
        fitted = found.fitted
        if found.model.context_frames is not None:
            raise ValueError(
                "this model sees time, its fields are kernels of lags and pixels: draw "
                'KernelDisplay.from_kernels(receptive_fields(model, method="gradient")["A"]).'
            )
        mouse = known_mice(fitted, None if mouse_id is None else [mouse_id])[0]
        chosen: dict[str, Any] = {mouse: neurons}
        if neurons is None:
            known = fitted.mice[mouse].unit_ids
            every = np.arange(fitted.mice[mouse].n_neurons) if known is None else known
            chosen = {mouse: every[: as_whole(n_fields, "n_fields")]}
        options = {"method": "gradient", **options}
        fields = receptive_fields(estimator, mice=[mouse], neurons=chosen, **options)[mouse]
        # of few neurons none is called bad for being the widest
        gaussians = fit_gaussians(fields, worst=0)
        return cls(fields, gaussians, image).plot(ax, n_columns=n_columns)

    def plot(self, ax: Any = None, *, n_columns: int = 3) -> Self:
        """Draw the fields.

        Parameters
        ----------
        ax : Axes or sequence of Axes, optional
            One per neuron. A new figure by default.
        n_columns : int, default=3
            Fields beside each other in a new figure.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are no columns, or axes are not as many as fields.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        n = self.fields.sizes["neuron"]
        columns = min(as_whole(n_columns, "n_columns"), n)
        rows = -(-n // columns)
        sides = [edges_of(self.fields, name) for name in ("width", "height")]
        if self.image is not None:  # all of it is shown
            sides = [
                (min(low, -0.5), max(high, size - 0.5))
                for (low, high), size in zip(sides, self.image.shape[::-1], strict=True)
            ]
        shape = abs((sides[1][1] - sides[1][0]) / (sides[0][1] - sides[0][0]))
        width = 6.4 / max(columns, 2)
        size = (width * columns, (width * shape + 0.1 + 0.2 * any(self.titles)) * rows)
        self.axes_, self.figure_ = axes_for(ax, n, _NAME, (rows, columns), size)
        self.images_: list[Any] = []
        self.ellipses_: list[Any] = []
        for number, (axis, title) in enumerate(zip(self.axes_, self.titles, strict=True)):
            self._draw(axis, number)
            axis.set(xlim=sides[0], ylim=sides[1][::-1], xticks=[], yticks=[])
            axis.set_title(title, fontsize="small")
        return self

    def _draw(self, axis: Axes, number: int) -> None:
        field = self.fields.values[number]
        most = np.abs(field[np.isfinite(field)]).max(initial=0.0) or 1.0
        left, right = edges_of(self.fields, "width")
        top, bottom = edges_of(self.fields, "height")
        style: dict[str, Any] = {"origin": "upper", "aspect": "equal", "interpolation": "nearest"}
        alpha: Any = None
        if self.image is not None:
            height, width = self.image.shape
            whole = (-0.5, width - 0.5, height - 0.5, -0.5)
            axis.imshow(self.image, cmap="gray", extent=whole, **style)
            alpha = np.sqrt(np.abs(np.nan_to_num(field)) / most)
        style |= {"cmap": "RdBu_r", "vmin": -most, "vmax": most, "alpha": alpha}
        self.images_.append(axis.imshow(field, extent=(left, right, bottom, top), **style))
        self.ellipses_.append(self._ellipse(axis, number))

    def _ellipse(self, axis: Axes, number: int) -> Any:
        from matplotlib.patches import Ellipse

        if self.gaussians is None:
            return None
        own = {name: float(self.gaussians[name].values[number]) for name in _NEEDED}
        if not np.isfinite(list(own.values())).all():
            return None
        good = "good" not in self.gaussians or bool(self.gaussians["good"].values[number])
        return axis.add_patch(
            Ellipse(
                (own["x"], own["y"]),
                2 * _STANDARD_DEVIATIONS * own["sigma_x"],
                2 * _STANDARD_DEVIATIONS * own["sigma_y"],
                angle=np.degrees(own["angle"]),
                fill=False,
                color=_ELLIPSE,
                lw=1.4,
                ls="-" if good else ":",
            )
        )


def _of_these(gaussians: Any, fields: xr.DataArray) -> xr.Dataset:
    """Gaussians of the neurons of the fields, in their order."""
    lacking = _NEEDED - set(getattr(gaussians, "data_vars", ()))
    if not isinstance(gaussians, xr.Dataset) or lacking:
        raise TypeError(
            f"gaussians is a {type(gaussians).__name__} without {sorted(lacking)}: expected the "
            "Dataset of one mouse, such as fit_gaussians(fields)."
        )
    if "neuron" in gaussians.coords and "neuron" in fields.coords:
        strangers = ~np.isin(fields["neuron"].values, gaussians["neuron"].values)
        if strangers.any():
            raise ValueError(
                f"gaussians lacks {int(strangers.sum())} of the {len(strangers)} neurons of fields,"
                f" such as {fields['neuron'].values[strangers][0]!r}."
            )
        return gaussians.sel(neuron=fields["neuron"].values)
    if gaussians.sizes["neuron"] != fields.sizes["neuron"]:
        raise ValueError(
            f"gaussians are of {gaussians.sizes['neuron']} neurons, fields of "
            f"{fields.sizes['neuron']}."
        )
    return gaussians

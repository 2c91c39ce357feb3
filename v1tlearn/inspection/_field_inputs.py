"""What receptive fields are asked of: some mice and neurons of a model, lags, behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from v1tlearn._guesses import did_you_mean, guess
from v1tlearn._options import as_finite
from v1tlearn._values import as_ids, as_whole
from v1tlearn.datasets.time_axis import FRAMES, SECONDS
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.inspection._opened import behavior_at_model
from v1tlearn.nn import EncodingModel, GaussianReadout

# Standardised behaviour (columns,) of the core, and the mice whose images it sees with it.
Group = tuple[np.ndarray | None, list[str]]


class Frames(NamedTuple):
    """Frames around a response of a model that sees time.

    Attributes
    ----------
    n_lags : int
        That are looked at: the one of the response, and those before it.
    before, after : int
        That the model sees besides the one of the response.
    """

    n_lags: int
    before: int
    after: int

    @property
    def ahead(self) -> int:
        """Frames of a movie ahead of its first response, for model and lags."""
        return max(self.before, self.n_lags - 1)


def frames_of(model: EncodingModel, n_lags: Any) -> Frames | None:
    """Frames that are looked at; None of a model that sees images alone.

    Parameters
    ----------
    model : EncodingModel
    n_lags : int, optional
        By default all that the model sees up to that of the response.

    Returns
    -------
    Frames or None

    Raises
    ------
    ValueError
        If lags are no count, or asked of a model of images.
    """
    if model.context_frames is None:
        if n_lags is not None:
            raise ValueError(f"n_lags={n_lags!r}: this model sees single images, leave n_lags out.")
        return None
    before, after = model.context_frames
    if n_lags is None:
        n_lags = before + 1
    return Frames(as_whole(n_lags, "n_lags", more="None or "), before, after)


def places_of(
    fitted: Fitted, mice: Sequence[str], neurons: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
    """Places of the neurons that are asked for, by mouse; all of mice that are not named.

    Parameters
    ----------
    fitted : Fitted
    mice : sequence of str
    neurons : mapping of str to sequence, optional
        Unit ids by mouse; places, where there are no ids.

    Returns
    -------
    dict of str to ndarray of int

    Raises
    ------
    TypeError
        If it is no mapping.
    ValueError
        If a mouse or an id is unknown, none is asked for, or one twice.
    """
    out = {mouse: np.arange(fitted.mice[mouse].n_neurons) for mouse in mice}
    if neurons is None:
        return out
    if not isinstance(neurons, Mapping):
        raise TypeError(
            f"neurons is a {type(neurons).__name__}: expected a dict of unit ids by mouse, such as "
            f"{{{mice[0]!r}: [1, 2]}}."
        )
    by_text = {str(mouse): ids for mouse, ids in neurons.items()}
    if strangers := [mouse for mouse in by_text if mouse not in out]:
        raise ValueError(f"neurons names the mice {strangers}, those mapped are {list(out)}.")
    for mouse, ids in by_text.items():
        known = fitted.mice[mouse].unit_ids
        known = out[mouse] if known is None else known
        wanted = np.atleast_1d(as_ids(ids, f"neurons of mouse {mouse!r}", of="neuron"))
        at = {label: place for place, label in enumerate(known.tolist())}
        missing = [label for label in wanted.tolist() if label not in at]
        if missing or not len(wanted) or len(set(wanted.tolist())) < len(wanted):
            what = f"{missing[:5]} are not among its {len(known)}" if missing else f"got {ids!r}"
            raise ValueError(
                f"mouse {mouse!r}: neurons: {what}: expected unit ids, each once, such as "
                f"{known[:3].tolist()}."
            )
        out[mouse] = np.array([at[label] for label in wanted.tolist()])
    return out


def same_behavior(
    estimator: Any, fitted: Fitted, mice: Sequence[str], behaviors: Mapping[str, float]
) -> list[Group]:
    """Standardised behaviour of the core, and the mice whose images it sees with it.

    Parameters
    ----------
    estimator : estimator
    fitted : Fitted
        Of the estimator, or of the model that it ends in.
    mice : sequence of str
    behaviors : mapping of str to float
        By column, in the units of the recordings; those not named are at the zero of the core.

    Returns
    -------
    list of (ndarray of shape (n_columns,) or None, list of str)

    Raises
    ------
    ValueError
        If a column is unknown, or a value not finite.
    """
    columns = fitted.core_columns
    if not isinstance(behaviors, Mapping):
        raise TypeError(
            f"behaviors is a {type(behaviors).__name__}: expected a dict of values by column, such "
            'as {"running_speed": 0.0}.'
        )
    if strangers := [name for name in behaviors if name not in columns]:
        found = [column for name in strangers for column in guess(name, columns)]
        raise ValueError(
            f"behaviors names {strangers}, the core of this model sees the columns {columns}"
            f"{did_you_mean(list(map(repr, found)))} Name those only."
        )
    if not columns:
        return [(None, list(mice))]
    named = {name: _finite(name, value) for name, value in behaviors.items()}
    groups: dict[tuple, tuple[np.ndarray, list[str]]] = {}
    for mouse in mice:
        row = np.zeros(len(columns))
        for name, value in behavior_at_model(estimator, fitted, mouse, named).items():
            row[columns.index(name)] = _standardized(fitted, mouse, name, value)
        own = mouse if fitted.behavior_mode == "b_mlp_per_mouse" else ""
        groups.setdefault((own, *row), (row, []))[1].append(mouse)
    return list(groups.values())


def rows_of(behavior: np.ndarray | None, images: Tensor) -> Tensor | None:
    """One behaviour, for every image or frame.

    Parameters
    ----------
    behavior : ndarray of shape (n_columns,) or None
    images : Tensor of shape (n_images, [n_frames,] channels, height, width)

    Returns
    -------
    Tensor of shape (n_images, [n_frames,] n_columns) or None
    """
    if behavior is None:
        return None
    row = torch.as_tensor(behavior, dtype=torch.float32, device=images.device)
    return row.expand(*images.shape[:-3], -1)


def computed_from_cortex(model: EncodingModel, mouse: str) -> bool:
    """Tell whether a readout computes places from cortical positions, by one smooth function.

    Parameters
    ----------
    model : EncodingModel
    mouse : str

    Returns
    -------
    bool
    """
    readout = model.readout(mouse)
    readout = getattr(readout, "readout", readout)  # behind a filter in time
    return isinstance(readout, GaussianReadout) and readout.position_network is not None


def labelled(
    fitted: Fitted,
    mouse: str,
    places: np.ndarray,
    values: np.ndarray,
    pixels: tuple[Tensor, Tensor],
    **told: Any,
) -> xr.DataArray:
    """Fields with the labels of their neurons, and where pixels lie in the recorded images.

    Parameters
    ----------
    fitted : Fitted
    mouse : str
    places : ndarray of int of shape (n_neurons,)
    values : ndarray of shape (n_neurons, [n_lags,] channels height width)
        In standardised units of responses.
    pixels : (Tensor, Tensor)
        Of `ImageCropper.source_positions`.
    **told
        Attributes.

    Returns
    -------
    DataArray (neuron, [lag,] channel, height, width)
        Float32, in the units of the responses.
    """
    known = fitted.mice[mouse]
    scale = known.statistics["response_scale"].astype(np.float64)[places]
    rows, columns = (side.numpy() for side in pixels)
    in_pixels = {"units": "pixel"}
    coords: dict[str, Any] = {name: ("neuron", of[places]) for name, of in known.labels.items()}
    lags = values.shape[1:-1]
    if lags:
        rate = fitted.frame_rate
        told_of_lags = {
            "long_name": "time ahead of the response",
            "units": SECONDS if rate else FRAMES,
        }
        coords["lag"] = ("lag", np.arange(*lags, dtype=np.float64) / (rate or 1.0), told_of_lags)
    scale = scale.reshape(-1, *[1] * (values.ndim - 1))
    shape = (fitted.image_shape[0], len(rows), len(columns))
    return xr.DataArray(
        (values * scale).astype(np.float32).reshape(len(values), *lags, *shape),
        dims=("neuron", *(["lag"] if lags else []), "channel", "height", "width"),
        coords={
            **coords,
            "channel": np.arange(shape[0]),
            "height": ("height", rows, {"long_name": "row of the image", **in_pixels}),
            "width": ("width", columns, {"long_name": "column of the image", **in_pixels}),
        },
        name="receptive_fields",
        attrs={"mouse_id": mouse, **told, "image_size": list(fitted.image_shape[1:])},
    )


def _finite(name: str, value: Any) -> float:
    return as_finite(value, f"behaviors: {name!r}")


def _standardized(fitted: Fitted, mouse: str, name: str, value: float) -> float:
    statistics = fitted.mice[mouse].statistics
    if "behavior_shift" not in statistics:
        return value
    names = fitted.mice[mouse].behavior_names
    assert names is not None  # of what is scaled
    i = names.index(name)
    return (value - statistics["behavior_shift"][i]) / statistics["behavior_scale"][i]

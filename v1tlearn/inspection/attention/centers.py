"""The centre of attention, and whether it follows the eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import t as t_distribution

from v1tlearn._options import as_numbers, as_words
from v1tlearn._values import as_flag, as_whole
from v1tlearn.inspection._controls import generator
from v1tlearn.inspection.attention._maps import maps_by_block, open_attention
from v1tlearn.training import isolated
from v1tlearn.trials import Trials

_AXES = ("x", "y")


def attention_center_of_mass(maps: Any) -> Any:
    r"""Find the middle of maps, weighted by their values.

    :math:`x = \sum_p v_p x_p / \sum_p v_p` over the pixels p of a map, and y alike.

    Parameters
    ----------
    maps : DataArray (..., height, width), or dict of str to DataArray
        From `attention_rollout`; or others that are not negative. Coordinates ``height`` and
        ``width`` tell where pixels are, without them they are counted from 0; ``moved_x`` and
        ``moved_y`` are added where they come along.

    Returns
    -------
    DataArray (..., axis), or dict of str to DataArray
        "x", rightwards, and "y", downwards, in pixels of the image, float64. NaN where a map is all
        0.

    Raises
    ------
    TypeError
        If these are no DataArrays.
    ValueError
        If a dimension is missing, or values are negative or not finite.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from v1tlearn.inspection import attention_center_of_mass
    >>> maps = xr.DataArray(np.eye(3), dims=("height", "width"))
    >>> attention_center_of_mass(maps).sel(axis="x").item()
    1.0
    """
    if isinstance(maps, Mapping) and not isinstance(maps, xr.Dataset):
        return {mouse: attention_center_of_mass(own) for mouse, own in maps.items()}
    if not isinstance(maps, xr.DataArray):
        raise TypeError(
            f"maps is a {type(maps).__name__}: expected a DataArray, or a dict of them per mouse, "
            "as attention_rollout gives."
        )
    if missing := [dim for dim in ("height", "width") if dim not in maps.dims]:
        raise ValueError(f"maps has the dimensions {maps.dims}: {missing} are missing.")
    values = maps.copy(data=as_numbers(maps.values, "maps", of="map"))
    values = values.transpose(..., "height", "width")
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("maps hold values that are negative or not finite: expected from 0 on.")
    total = values.sum(("height", "width"))
    centers = []
    for axis, along, across in (("x", "width", "height"), ("y", "height", "width")):
        at = maps[along].values if along in maps.coords else np.arange(maps.sizes[along])
        at = as_numbers(at, f"{along} of the maps", of="pixel")
        weighted = (values.sum(across) * xr.DataArray(at, dims=along)).sum(along)
        center = (weighted / total.where(total > 0)).drop_vars(("height", "width"), errors="ignore")
        moved = maps.coords.get(f"moved_{axis}")
        centers.append(center if moved is None else center + moved.variable)
    out = xr.concat(centers, xr.IndexVariable("axis", list(_AXES)), coords="minimal")
    out = out.transpose(..., "axis").rename("attention_center")
    out.attrs = {**maps.attrs, "long_name": "centre of attention", "units": "pixel"}
    return out


@isolated()
def attention_pupil_correlation(
    estimator: Any,
    trials: Trials,
    *,
    columns: Sequence[str] = ("pupil_x", "pupil_y"),
    head_reduction: str = "mean",
    placement: str = "stretched",
    n_permutations: int = 1000,
    random_state: Any = 0,
    as_table: bool = False,
) -> xr.Dataset | pd.DataFrame:
    """Correlate the centre of attention with the centre of the pupil.

    Centres are those of `attention_center_of_mass` of each trial, of which no more than these are
    kept. The control pairs them with the pupils of other trials of the mouse, at random.

    Parameters
    ----------
    estimator : V1TRegressor, ViTRegressor or EncodingRegressor
        Fitted, see `attention_rollout`.
    trials : Trials
        With the columns below, at least 3 of each mouse.
    columns : (str, str), default=("pupil_x", "pupil_y")
        Behaviour that x and y of the centre are correlated with.
    head_reduction, placement : str
        Of `attention_rollout`.
    n_permutations : int, default=1000
        Of the control.
    random_state : int, RandomState, Generator or None, default=0
        Of these.
    as_table : bool, default=False
        Give a table such as Table 2 of the paper instead.

    Returns
    -------
    Dataset (mouse, axis), or DataFrame
        ``correlation``, Pearson's over trials; ``p_value``, two-sided, of normal independent
        trials; ``permutation_p_value``, the share of permutations that reach the absolute
        correlation, counting the true pairing as one; ``control``, the 95th percentile of
        theirs; and ``n_trials`` that have a centre. Correlations are NaN where centres or pupils do
        not vary. As a table: a row per mouse and one of the means, the absolute correlation and
        ``p_value`` of x and y.

    Raises
    ------
    TypeError, ValueError
        As `attention_rollout`; if a mouse lacks a column, or has fewer than 3 trials with a centre.
    NotFittedError
        Before `fit`.

    Notes
    -----
    What sign is to be expected depends on the camera; published are absolute values. Both p values
    take trials as independent of each other, which slow changes of behaviour may make them not.
    A model that is given the pupil can let its attention depend on it in any way, without training,
    too: hold the correlation against that of a model that was not trained (``max_epochs=0``).

    References
    ----------
    Li et al., 2023, Table 2.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import attention_pupil_correlation
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.V1TRegressor(patch_size=4, patch_stride=4, n_blocks=1, n_heads=2, embed_dim=8,
    ...                         mlp_dim=8, max_epochs=2, random_state=0)
    >>> found = attention_pupil_correlation(
    ...     model.fit(trials.sel(tier="train")), trials.sel(tier="test"), as_table=True)
    >>> found.index.tolist(), found["x"].columns.tolist()
    (['A', 'B', 'mean'], ['correlation', 'p_value'])
    """
    as_whole(n_permutations, "n_permutations")
    as_table = as_flag(as_table, "as_table")
    names = as_words(columns, "columns", of="pupil_x")
    if len(names) != 2:
        raise ValueError(f"columns={columns!r}: expected two, for x and for y.")
    found = open_attention(estimator, trials, head_reduction, placement)
    rng = generator(random_state)
    for mouse in found.trials.mice:
        given = found.trials.behavior_names(mouse) or []
        if missing := [name for name in names if name not in given]:
            raise ValueError(
                f"mouse {mouse!r}: {missing} are needed, its columns of behaviour are {given}. "
                "Select mice that have them, trials.sel(mouse_id=...), or name columns=."
            )
    rows = []
    for mouse in found.trials.mice:
        centers = np.concatenate(
            [
                attention_center_of_mass(some).values
                for some in _blocks(found, mouse, head_reduction, placement)
            ]
        )
        given = found.trials.behavior_names(mouse) or []
        pupil = np.asarray(found.trials.get("behaviors", mouse), dtype=np.float64)
        pupil = pupil[:, [given.index(name) for name in names]]
        known = np.isfinite(centers).all(1) & np.isfinite(pupil).all(1)
        if known.sum() < 3:
            raise ValueError(
                f"mouse {mouse!r}: {known.sum()} of {len(known)} trials have a centre of attention "
                "and of the pupil: expected at least 3. Maps that are the same everywhere have "
                "none."
            )
        rows.append(_correlations(centers[known], pupil[known], int(n_permutations), rng))
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    out = xr.Dataset(
        {name: (("mouse", "axis"), values) for name, values in stacked.items()},
        coords={"mouse": found.trials.mice, "axis": list(_AXES)},
        attrs={"n_permutations": int(n_permutations), "head_reduction": head_reduction},
    )
    out = out.assign_coords(column=("axis", names))
    return _table(out) if as_table else out


def _blocks(found: Any, mouse: str, head_reduction: str, placement: str) -> Any:
    """Maps of some trials at a time, with the coordinates that centres need."""
    rows, columns = (side.numpy() for side in found.model.cropper.source_positions(mouse))
    for maps, moved in maps_by_block(found, mouse, head_reduction, placement):
        coords: dict[str, Any] = {"height": rows, "width": columns}
        if moved is not None:
            coords |= {"moved_x": ("trial", moved[:, 0]), "moved_y": ("trial", moved[:, 1])}
        yield xr.DataArray(maps, dims=("trial", "height", "width"), coords=coords)


def _correlations(
    centers: np.ndarray, pupil: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Of x and y, each (2,)."""
    n = len(centers)
    one, two = _standardized(centers), _standardized(pupil)  # (n, 2), NaN where constant
    r = (one * two).sum(0).clip(-1, 1)
    shuffled = np.stack(
        [(one * two[rng.permutation(n)]).sum(0) for _ in range(n_permutations)]
    )  # (permutations, 2)
    reached = (np.abs(shuffled) >= np.abs(r) - 1e-12).sum(0)
    with np.errstate(divide="ignore"):  # of a perfect one
        statistic = np.abs(r) * np.sqrt((n - 2) / (1 - r**2))
    known = np.isfinite(r)
    return {
        "correlation": r,
        "p_value": np.where(known, 2 * t_distribution.sf(statistic, n - 2), np.nan),
        "permutation_p_value": np.where(known, (1 + reached) / (1 + n_permutations), np.nan),
        "control": np.quantile(np.abs(shuffled), 0.95, axis=0),
        "n_trials": np.full(2, n),
    }


def _standardized(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1; NaN where they do not vary, but by rounding."""
    away = values - values.mean(0)
    length = np.sqrt((away**2).sum(0))
    constant = length <= 1e-6 * np.abs(values).max(0) * np.sqrt(len(values))
    return away / np.where(constant, np.nan, length)


def _table(found: xr.Dataset) -> pd.DataFrame:
    """Absolute correlations and p values, a row per mouse and their means."""
    parts = {}
    for axis in _AXES:
        own = found.sel(axis=axis)
        rows = pd.DataFrame(
            {"correlation": np.abs(own["correlation"].values), "p_value": own["p_value"].values},
            index=pd.Index(found["mouse"].values.tolist(), name="mouse"),
        )
        rows.loc["mean"] = [rows["correlation"].mean(), np.nan]
        parts[axis] = rows
    return pd.concat(parts, axis=1)

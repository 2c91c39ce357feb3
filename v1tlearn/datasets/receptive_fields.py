"""Receptive fields that were measured or estimated, put into the recordings of their neurons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._values import as_array, as_sides, labels_along
from v1tlearn.datasets.given_recordings import recordings_to_dict
from v1tlearn.datasets.receptive_maps import (
    FIELD,
    FIELD_DIMS,
    average_over_areas,
    check_receptive_field,
)

_SIDES = (("row", "column"), ("height", "width"))


def with_receptive_fields(
    recordings: xr.DataTree | Mapping[str, xr.Dataset] | xr.Dataset,
    fields: Mapping[str, Any],
    grid: tuple[int, int] | None = None,
) -> xr.DataTree:
    """Put receptive fields into recordings, as the variable `receptive_field`.

    Parameters
    ----------
    recordings : DataTree, mapping {mouse: Dataset}, or Dataset
        As `validate_recordings` takes them. They stay as they are.
    fields : mapping from mouse to array of shape (n_neurons, rows, columns)
        Maps over the image of all mice, such as those of `receptive_fields_from_outlines`, or
        DataArrays (neuron, row, column) or (neuron, height, width), such as
        ``space_time_components(averages["A"])["receptive_field"]``. Where these bear unit ids,
        these are of the recording's neurons, in any order.
    grid : (int, int), optional
        Rows and columns to which maps are averaged over areas.

    Returns
    -------
    DataTree
        The recordings, with `receptive_field` (neuron, row, column), float32.

    Raises
    ------
    TypeError, ValueError
        Naming the mouse: no fields of it, fields of mice that are not there, of other neurons, of
        other dimensions, or that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import v1tlearn as v1
    >>> recordings = v1.make_movie_recordings(1, 5, 4, 1, 3, n_frames=30, random_state=0)
    >>> maps = np.ones((5, 36, 64))
    >>> v1.with_receptive_fields(recordings, {"A": maps}, (16, 16))["A"]["receptive_field"].shape
    (5, 16, 16)
    """
    datasets = recordings_to_dict(recordings)
    grid = None if grid is None else as_sides(grid, "grid")
    if not isinstance(fields, Mapping) or isinstance(fields, xr.Dataset):
        raise TypeError(
            f"fields is a {type(fields).__name__}: expected a dict of the maps of each mouse"
        )
    own = {str(mouse): maps for mouse, maps in fields.items()}
    if set(own) != set(datasets):
        raise ValueError(
            f"fields are of the mice {sorted(own)}, recordings of {sorted(datasets)}: expected "
            "receptive fields of each mouse"
        )
    out = {}
    for mouse, dataset in datasets.items():
        maps = _maps(mouse, dataset, own[mouse])
        if grid is not None:
            maps = average_over_areas(maps, grid)
        # another grid has other sides
        bare = dataset.drop_vars(FIELD, errors="ignore").drop_vars(FIELD_DIMS[1:], errors="ignore")
        out[mouse] = bare.assign({FIELD: (FIELD_DIMS, maps.astype(np.float32))})
        check_receptive_field(mouse, out[mouse])
    tree = xr.DataTree(children={mouse: xr.DataTree(ds) for mouse, ds in out.items()})
    if isinstance(recordings, xr.DataTree) and recordings.children:
        tree.attrs = dict(recordings.attrs)
    return tree


def _maps(mouse: str, dataset: xr.Dataset, maps: Any) -> np.ndarray:
    """Maps (neuron, rows, columns), in the order of the recording's neurons."""
    n = dataset.sizes.get("neuron", 0)
    if isinstance(maps, xr.DataArray):
        sides = [pair for pair in _SIDES if set(maps.dims) == {"neuron", *pair}]
        if not sides:
            raise ValueError(
                f"mouse {mouse!r}: fields have the dimensions {maps.dims}, expected {FIELD_DIMS} or"
                " (neuron, height, width): of spike-triggered averages take the receptive_field of "
                "space_time_components"
            )
        maps = maps.transpose("neuron", *sides[0])
    values = as_array(maps, f"mouse {mouse!r}: fields", of="neuron")
    if values.ndim != 3 or len(values) != n or values.dtype == bool:
        raise ValueError(
            f"mouse {mouse!r}: fields have shape {values.shape} and dtype {values.dtype}, expected "
            f"numbers ({n}, rows, columns), a map for each neuron of the recording"
        )
    ids = labels_along(maps, "neuron") if isinstance(maps, xr.DataArray) else None
    known = labels_along(dataset["neuron"], "neuron") if "neuron" in dataset.coords else None
    if ids is None or known is None:
        return values
    places = ids.get_indexer(known) if ids.is_unique else np.full(n, -1)
    if (places < 0).any():
        raise ValueError(
            f"mouse {mouse!r}: fields are of the neurons {list(ids[:5])}..., there is none of "
            f"{known[places < 0][0]!r} of the recording, or several: give those of its neurons"
        )
    return values[places]

"""Recordings of several mice, or one, in whichever form they come, as one dataset per mouse."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from v1tlearn._instead import recordings_instead
from v1tlearn._values import as_names


def recordings_to_dict(
    recordings: xr.DataTree | Mapping[str, xr.Dataset | xr.DataTree] | xr.Dataset,
    *,
    unnamed: str | None = None,
) -> dict[str, xr.Dataset]:
    """Return recordings as a plain dict {mouse: dataset}, whichever form they came in.

    Parameters
    ----------
    recordings : DataTree, mapping {mouse: Dataset or DataTree}, or Dataset
        One child, or dataset, per mouse; or one mouse alone: a child of a DataTree, or a dataset
        whose attribute `mouse_id` names it.
    unnamed : str, optional
        What one mouse alone is called that has no name.

    Returns
    -------
    dict of str to Dataset
        In the order they came in; nothing is copied or read. Mouse ids are text.

    Raises
    ------
    TypeError
        If `recordings` are none.
    ValueError
        If there is no mouse, one has no name, a name that files cannot hold, or that of another;
        or a mouse has groups below it.
    """
    if isinstance(recordings, xr.DataTree) and not recordings.data_vars:
        recordings = dict(recordings.children)
    elif isinstance(recordings, xr.DataTree | xr.Dataset):
        recordings = {_mouse_of(recordings, unnamed): recordings}
    if not isinstance(recordings, Mapping):
        raise TypeError(
            "recordings are expected as a DataTree, a dict of Datasets per mouse or one Dataset, "
            f"but {recordings_instead(recordings)}."
        )
    if not recordings:
        raise ValueError(
            "there is no mouse: expected at least one child of the DataTree, or entry of the dict. "
            "One recording alone is given as its Dataset"
        )
    datasets: dict[str, xr.Dataset] = {}
    for name, recording in recordings.items():
        mouse = str(name)
        if mouse in datasets:
            raise ValueError(f"duplicate mouse ids: {mouse!r} names two recordings")
        _check_mouse_name(mouse)
        as_names([name], "the mouse ids of recordings")
        if isinstance(recording, xr.DataTree):
            if recording.children:
                raise ValueError(
                    f"mouse {mouse!r}: has groups below it ({', '.join(recording.children)}); "
                    "expected one child per mouse and nothing deeper. One group of mice alone is "
                    f'given as such: tree["{mouse}"]'
                )
            recording = recording.to_dataset()
        if not isinstance(recording, xr.Dataset):
            raise TypeError(
                f"mouse {mouse!r} is a {type(recording).__name__}: expected an xarray Dataset. "
                "Plain arrays go through Trials.from_arrays"
            )
        datasets[mouse] = recording
    return datasets


def _mouse_of(recording: xr.Dataset | xr.DataTree, unnamed: str | None) -> str:
    tree = isinstance(recording, xr.DataTree)
    if tree and recording.name is not None:
        return recording.name
    if "mouse_id" in recording.attrs:
        return as_names([recording.attrs["mouse_id"]], "the attribute mouse_id")[0]
    if unnamed is not None and not (tree and recording.children):
        return unnamed
    found = ", ".join(map(str, recording.data_vars))
    raise ValueError(
        f"the {'root of the DataTree' if tree else 'Dataset'} holds variables ({found}) and no "
        'name of a mouse: give {"mouse": dataset}, or dataset.assign_attrs(mouse_id="mouse")'
    )


def _check_mouse_name(mouse: str) -> None:
    if not mouse or mouse != mouse.strip() or "/" in mouse or "\0" in mouse or mouse in (".", ".."):
        raise ValueError(
            f"mouse id {mouse!r} cannot name a group of a file; expected a non-empty string other "
            "than '.' and '..', without '/' and without blanks at either end: rename the mouse"
        )

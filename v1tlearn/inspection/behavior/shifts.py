"""Where a fitted model moves receptive fields as the eye moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.inspection._opened import opened
from v1tlearn.training import isolated, numerics
from v1tlearn.trials import Trials


@isolated()
def readout_shifts(estimator: Any, trials: Trials) -> dict[str, xr.DataArray]:
    """Compute by how much a model moves the receptive fields of a mouse in each trial.

    Parameters
    ----------
    estimator : CNNRegressor, V1TRegressor or another encoding model
        Fitted with ``shift="readout"`` or "both"; alone, in a Pipeline or found by a search.
    trials : Trials
        With the columns that move readouts. Neither stimuli nor responses matter.

    Returns
    -------
    dict of str to DataArray (trial, axis)
        Per mouse, "x" rightwards and "y" downwards, in half sides of the feature map: 1 is from its
        middle to its edge. All neurons of a mouse move alike.

    Raises
    ------
    TypeError
        If this is no single model, or these are no trials.
    ValueError
        If readouts of a mouse do not move, or trials are not like those at `fit`.
    NotFittedError
        Before `fit`.

    Notes
    -----
    Only differences between trials mean something: a constant is made up for by the positions of
    the readouts.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import readout_shifts
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.CNNRegressor(n_layers=2, hidden_channels=4, max_epochs=2, random_state=0)
    >>> model = model.fit(trials.sel(tier="train"))
    >>> readout_shifts(model, trials.sel(tier="test"))["A"].shape
    (12, 2)
    """
    found = opened(estimator, trials, "the shift of readouts")
    out = {}
    for mouse in found.trials.mice:
        shifter = found.model.shifter(mouse)
        if shifter is None:
            raise ValueError(
                f"mouse {mouse!r}: its readouts do not move (shift="
                f"{found.fitted.parameters.get('shift')!r}, columns "
                f"{found.trials.behavior_names(mouse)}): fit with shift='readout' and "
                f"{list(found.fitted.moving_columns)}."
            )
        parts = []
        for block in found.trials.blocks(mouse):
            pupil = mouse_data(found.fitted, block, mouse, found.device).pupil
            with (
                torch.inference_mode(),
                numerics("float32", found.device, deterministic=found.deterministic),
            ):
                parts.append(shifter(pupil).cpu().numpy())
        own = found.trials[found.trials.rows(mouse)[0]]
        out[mouse] = xr.DataArray(
            np.concatenate(parts),
            dims=("trial", "axis"),
            coords={
                "axis": ["x", "y"],
                "image_id": ("trial", own.image_ids),
                "tier": ("trial", own.tiers),
            },
            name="readout_shifts",
            attrs={
                "long_name": "shift of receptive fields",
                "units": "half sides of the feature map",
                "mouse_id": mouse,
            },
        )
    return out

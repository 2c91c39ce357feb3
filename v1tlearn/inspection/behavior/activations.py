"""What the behaviour networks of a transformer add to its tokens."""

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
def behavior_activations(estimator: Any, trials: Trials) -> dict[str, xr.DataArray]:
    """Compute what the behaviour networks (B-MLP) of a transformer put out in each trial.

    Parameters
    ----------
    estimator : V1TRegressor, or EncodingRegressor of such a core
        Fitted with a `behavior_mode` that has networks, "b_mlp" and its variants; alone, in a
        Pipeline or found by a search.
    trials : Trials
        With behaviour. Neither stimuli nor responses matter.

    Returns
    -------
    dict of str to DataArray (block, trial, unit)
        Per mouse the outputs behind the last tanh, from -1 to 1, float32, one unit for each
        dimension of a token. Only blocks ahead of which behaviour enters: the first of
        "b_mlp_first_block", and that of "b_mlp_shared" once, as block 0.

    Raises
    ------
    TypeError
        If this is no single model, or these are no trials.
    ValueError
        If the model has no behaviour networks, or trials are not like those at `fit`.
    NotFittedError
        Before `fit`.

    See Also
    --------
    BehaviorActivationDisplay : Their distributions.

    References
    ----------
    Li et al., 2023, Fig. A.1.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import behavior_activations
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.V1TRegressor(patch_size=4, patch_stride=4, n_blocks=2, n_heads=2, embed_dim=8,
    ...                         mlp_dim=8, max_epochs=2, random_state=0)
    >>> model = model.fit(trials.sel(tier="train"))
    >>> dict(behavior_activations(model, trials.sel(tier="test"))["A"].sizes)
    {'block': 2, 'trial': 12, 'unit': 8}
    """
    found = opened(estimator, trials, "the output of behaviour networks")
    networks = _networks(found.model.core)
    if not networks:
        raise ValueError(
            f"this model has no behaviour networks: its core is a {type(found.model.core).__name__}"
            f" with behavior_mode={found.fitted.behavior_mode!r}. V1TRegressor has some, with "
            "behavior_mode 'b_mlp', 'b_mlp_first_block', 'b_mlp_shared' or 'b_mlp_per_mouse'."
        )
    out = {}
    for mouse in found.trials.mice:
        parts = []
        for block in found.trials.blocks(mouse):
            behaviors = mouse_data(found.fitted, block, mouse, found.device).behaviors
            assert behaviors is not None  # there are networks
            with (
                torch.inference_mode(),
                numerics("float32", found.device, deterministic=found.deterministic),
            ):
                outputs = [
                    network(behaviors, [(mouse, len(behaviors))])[:, 0]
                    for network in networks.values()
                ]
                parts.append(torch.stack(outputs).cpu().numpy())
        own = found.trials[found.trials.rows(mouse)[0]]
        out[mouse] = xr.DataArray(
            np.concatenate(parts, axis=1),
            dims=("block", "trial", "unit"),
            coords={
                "block": list(networks),
                "image_id": ("trial", own.image_ids),
                "tier": ("trial", own.tiers),
            },
            name="behavior_activations",
            attrs={
                "long_name": "output of the behaviour network",
                "units": "1",
                "mouse_id": mouse,
                "behavior_mode": found.fitted.behavior_mode,
            },
        )
    return out


def _networks(core: Any) -> dict[int, Any]:
    """Behaviour networks by the block that they stand ahead of; a shared one once."""
    if not hasattr(core, "behavior_mlp") or not hasattr(core, "blocks"):
        return {}
    out: dict[int, Any] = {}
    for block in range(len(core.blocks)):
        network = core.behavior_mlp(block)
        if network is not None and not any(network is known for known in out.values()):
            out[block] = network
    return out

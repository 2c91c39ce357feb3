"""Weights of the members of an ensemble, learned as the published code learns them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.nn import Head, poisson_loss
from v1tlearn.training import initial_rng, isolated_rng, numerics, resolve_device
from v1tlearn.training.data import epoch_batches
from v1tlearn.trials import Responses, Trials

# Of the published mixing layers (bryanlimy/V1T, ensemble.py).
EPOCHS, BATCH_SIZE = 200, 4
OPTIMIZER = {"lr": 0.001, "betas": (0.9, 0.9999), "eps": 1e-8, "weight_decay": 0.01}


def shared_head(members: Sequence[BaseEncodingRegressor], mouse: str) -> Head:
    """Give the output non-linearity that all members have for a mouse.

    Parameters
    ----------
    members : sequence of estimators
        Fitted.
    mouse : str

    Returns
    -------
    Head

    Raises
    ------
    ValueError
        If it is learned: then outputs of several members mean different rates.
    """
    head = members[0].module_.head(mouse)
    if next(head.parameters(), None) is not None:
        raise ValueError(
            f"combine='outputs' and learned weights need members with one output non-linearity, "
            f"but that of a {type(head).__name__} is learned: set combine='rates'."
        )
    return head


@torch.inference_mode(False)  # whatever the caller's mode is
@torch.enable_grad()
def learn_weights(
    members: Sequence[BaseEncodingRegressor],
    trials: Trials,
    target: Responses,
    seed: int,
    *,
    per_mouse: bool,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Learn how to weight the outputs of members ahead of the non-linearity.

    Parameters
    ----------
    members : sequence of BaseEncodingRegressor
        Fitted to the same trials, so that their units are the same; they stay as they are.
    trials : Trials
        Not those the members were trained on.
    target : Responses
        Of these trials.
    seed : int
        Of the order of the batches.
    per_mouse : bool
        Weights for each mouse of the members, otherwise the same for all.

    Returns
    -------
    weights : dict of str to ndarray of shape (n_members,)
        Per mouse of the members.
    intercepts : dict of str to float

    Raises
    ------
    ValueError
        If a mouse that needs weights of its own has no trials.
    """
    first = members[0]
    mice = first.mice_
    if per_mouse and (without := [m for m in mice if m not in trials.mice]):
        raise ValueError(
            f"the mice {without} have no validation trials to learn weights on: give them some, "
            "or set combine='learned' or 'outputs'."
        )
    device = resolve_device(first.device)
    outputs = _outputs(members, trials, device)
    responses = {m: _scaled(first, target, m, device) for m in trials.mice}
    heads = {m: shared_head(members, m) for m in trials.mice}
    row = {m: k * per_mouse for k, m in enumerate(mice)}
    n_rows = len(mice) if per_mouse else 1
    weights = torch.full((n_rows, len(members)), 1 / len(members), device=device)
    intercepts = torch.zeros(n_rows, device=device)
    parameters = [weights.requires_grad_(), intercepts.requires_grad_()]
    optimizer = torch.optim.AdamW(parameters, **OPTIMIZER)
    lengths = {m: len(values) for m, values in outputs.items()}
    with (
        isolated_rng(initial_rng(seed), device),
        numerics("float32", device, deterministic=first.deterministic),
    ):
        for _ in range(EPOCHS):
            for rows in epoch_batches(lengths, BATCH_SIZE, device):
                loss = 0.0
                for mouse, where in rows.items():
                    k = row[mouse]
                    mixed = outputs[mouse][where] @ weights[k] + intercepts[k]  # (B, neurons)
                    values = responses[mouse][where]
                    loss = loss + poisson_loss(heads[mouse](mixed), values, ~values.isnan())
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
    table = weights.detach().cpu().numpy().astype(np.float64)
    added = intercepts.detach().cpu().tolist()
    return {m: table[row[m]].copy() for m in mice}, {m: added[row[m]] for m in mice}


def _outputs(
    members: Sequence[BaseEncodingRegressor], trials: Trials, device: torch.device
) -> dict[str, Tensor]:
    """Outputs ahead of the non-linearity per mouse, (trials, neurons, members)."""
    per_member = [member._predict(trials, activate=False) for member in members]
    return {
        m: torch.from_numpy(np.stack([out[m] for out in per_member], axis=-1)).float().to(device)
        for m in trials.mice
    }


def _scaled(
    member: BaseEncodingRegressor, target: Responses, mouse: str, device: torch.device
) -> Tensor:
    """Responses in the units of the outputs, NaN where not recorded."""
    scaled = target.get(mouse) / member.statistics_[mouse]["response_scale"]
    return torch.as_tensor(scaled.astype(np.float32), device=device)

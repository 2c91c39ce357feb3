"""Weights of the members of an ensemble, learned as the published code learns them; their sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v1tlearn.nn import poisson_loss
from v1tlearn.training import initial_rng, isolated_rng, numerics
from v1tlearn.training.data import epoch_batches

# Of the published mixing layers (bryanlimy/V1T, ensemble.py).
EPOCHS, BATCH_SIZE = 200, 4
OPTIMIZER: dict[str, Any] = {"lr": 0.001, "betas": (0.9, 0.9999), "eps": 1e-8, "weight_decay": 0.01}

_AT_ONCE = 2**16  # values that are combined together: they stay in the cache


@torch.inference_mode(False)  # whatever the caller's mode is
@torch.enable_grad()
def learn_weights(
    outputs: Mapping[str, np.ndarray],
    responses: Mapping[str, np.ndarray],
    heads: Mapping[str, Callable[[Tensor], Tensor]],
    seed: int,
    *,
    per_mouse: bool,
    device: torch.device,
    deterministic: bool = False,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Learn how to weight the outputs of members ahead of the non-linearity.

    Parameters
    ----------
    outputs : dict of str to ndarray of shape (n_trials, n_neurons, n_members)
        Per mouse, of trials that the members were not trained on.
    responses : dict of str to ndarray of shape (n_trials, n_neurons)
        Of these trials, in the units of the outputs; NaN where not recorded.
    heads : dict of str to callable
        Per mouse the output non-linearity.
    seed : int
        Of the order of the batches.
    per_mouse : bool
        Weights for each mouse, otherwise the same for all.
    device : torch.device
    deterministic : bool, default=False

    Returns
    -------
    weights : dict of str to ndarray of shape (n_members,)
    intercepts : dict of str to float
    """
    given = {m: torch.as_tensor(x, dtype=torch.float32, device=device) for m, x in outputs.items()}
    wanted = {
        m: torch.as_tensor(x, dtype=torch.float32, device=device) for m, x in responses.items()
    }
    row = {m: k * per_mouse for k, m in enumerate(given)}
    n_members = next(iter(given.values())).shape[-1]
    n_rows = len(given) if per_mouse else 1
    weights = torch.full((n_rows, n_members), 1 / n_members, device=device)
    intercepts = torch.zeros(n_rows, device=device)
    optimizer = torch.optim.AdamW(
        [weights.requires_grad_(), intercepts.requires_grad_()], **OPTIMIZER
    )
    lengths = {m: len(values) for m, values in given.items()}
    with (
        isolated_rng(initial_rng(seed), device),
        numerics("float32", device, deterministic=deterministic),
    ):
        for _ in range(EPOCHS):
            for rows in epoch_batches(lengths, BATCH_SIZE, device):
                loss = intercepts.new_zeros(())
                for mouse, where in rows.items():
                    k = row[mouse]
                    mixed = given[mouse][where] @ weights[k] + intercepts[k]  # (B, neurons)
                    values = wanted[mouse][where]
                    loss = loss + poisson_loss(heads[mouse](mixed), values, ~values.isnan())
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
    table = weights.detach().cpu().numpy().astype(np.float64)
    added = intercepts.detach().cpu().tolist()
    return {m: table[k].copy() for m, k in row.items()}, {m: added[k] for m, k in row.items()}


def add_share(total: np.ndarray, values: np.ndarray, share: float) -> None:
    """Add what a member gives, weighted, some trials after the others.

    Parameters
    ----------
    total : ndarray of shape (n_trials, n_neurons)
        Of the members before it, float64; changed in place.
    values : ndarray of this shape
    share : float
    """
    for rows in _some_rows(total):
        total[rows] += share * values[rows].astype(np.float64)


def responses_of(
    total: np.ndarray, head: Callable[[Tensor], Tensor] | None, added: float, scale: np.ndarray
) -> np.ndarray:
    """Make responses of the weighted sum of what members give, some trials after the others.

    Parameters
    ----------
    total : ndarray of shape (n_trials, n_neurons)
        float64.
    head : callable or None
        The output non-linearity; None where these are responses already.
    added : float
        Ahead of the non-linearity.
    scale : ndarray of shape (n_neurons,)
        In the units of the responses, of what comes out of it.

    Returns
    -------
    ndarray of shape (n_trials, n_neurons)
        float32.
    """
    out = np.empty(total.shape, np.float32)
    for rows in _some_rows(total):
        values = total[rows]
        if head is not None:
            with torch.no_grad():
                values = head(torch.from_numpy(values + added)).cpu().numpy() * scale
        out[rows] = values
    return out


def _some_rows(values: np.ndarray) -> Iterator[slice]:
    """Cut trials into parts, so that no copy of all is made."""
    step = max(1, _AT_ONCE // max(1, values.shape[1]))
    return (slice(start, start + step) for start in range(0, len(values), step))

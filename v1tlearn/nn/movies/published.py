"""Names of weights in saved states of the published code, and the network that they tell of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from v1tlearn.nn.movies.vist import ViST

_LAYER = {"convolution": "conv_dilated", "norm": "norm", "mix": "conv_1x1"}
_OTHER = {
    "read_in": "stage1.conv_1x1",
    "read_out": "stage1.conv_out",
    "modulation.condition": "adaln.adaLN_modulation.1",
    "modulation.mix": "adaln.net.1",
}


def published_name(name: str, n_blocks: int) -> str:
    """Name of a weight in a saved state of the published code.

    Parameters
    ----------
    name : str
        Of a weight of a `ViST`.
    n_blocks : int
        How many blocks this has.

    Returns
    -------
    str
        Without the prefix of checkpoints, and the ``conv`` of causal branches.
    """
    part, _, kind = name.rpartition(".")
    if part == "to_responses":
        return f"msb_{n_blocks + 1}.{kind}"
    if part in _OTHER:
        return f"{_OTHER[part]}.{kind}"
    group, number, rest = part.split(".", 2)
    if group == "layers":
        return f"stage1.layers.{number}.{_LAYER[rest]}.{kind}"
    branch = rest.removeprefix("branches.")
    place = {"mix": "mapping", "skip": "conv1x1"}.get(rest, f"embed.{branch}.0")
    return f"msb_{int(number) + 1}.{place}.{kind}"


def vist_from_published(
    state: Mapping[str, Tensor], *, causal: bool | None = None, dropout: float = 0.25
) -> ViST:
    """Network of a saved state of the published Vi-ST code, in evaluation mode.

    Sizes, layers, kernels and grid follow from the arrays.

    Parameters
    ----------
    state : mapping of str to Tensor
        Arrays by name, such as ``stage1.layers.0.conv_dilated.weight``, with or without the prefix
        ``net.`` that checkpoints have.
    causal : bool, optional
        Whether the network looks back only. By default the names tell: branches of causal blocks
        are called ``embed.0.0.conv`` in a saved state, others ``embed.0.0``.
    dropout : float, default=0.25
        Which leaves no trace in the arrays.

    Returns
    -------
    ViST
        In float32, or float64 where the arrays are.

    Raises
    ------
    ValueError
        If arrays are missing, have no place, have other shapes than the rest asks for, or hold NaN;
        or if `causal` is not what the names tell.
    """
    arrays = {name.removeprefix("net."): value for name, value in state.items()}
    told = {".0.conv." in name for name in arrays if ".embed." in name}
    if len(told) > 1 or (told == {True} and causal is False):
        raise ValueError(
            f"causal={causal}, but branches are called embed.J.0.conv, as causal ones are, some at "
            "least: expected all of one kind, and causal=None or True."
        )
    arrays = {name.replace(".0.conv.", ".0."): value for name, value in arrays.items()}
    model = ViST(**_sizes(arrays), causal=told == {True} if causal is None else causal,
                 dropout=dropout)  # fmt: skip
    n_blocks, weights = len(model.blocks), {}
    for name, own in model.state_dict().items():
        published = published_name(name, n_blocks)
        if name.endswith("num_batches_tracked"):
            weights[name] = arrays.pop(published, own)
            continue
        value = _get(arrays, published)
        if value.shape != own.shape:
            raise ValueError(
                f"{published!r} has the shape {tuple(value.shape)}, but the rest of the network "
                f"asks for {tuple(own.shape)}."
            )
        if not value.isfinite().all():
            raise ValueError(f"{published!r} holds NaN or infinite values.")
        weights[name] = arrays.pop(published)
    if arrays:
        raise ValueError(
            f"arrays that the network has no place for: {sorted(arrays)[:5]}, {len(arrays)} in "
            "all. Is this a model of another kind?"
        )
    if weights["to_responses.weight"].dtype == torch.float64:
        model.double()
    model.load_state_dict(weights)
    return model.eval()


def _get(arrays: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in arrays:
        raise ValueError(
            f"there is no array {name!r}; there are, among others, {list(arrays)[:3]}: is this a "
            "model of another kind?"
        )
    return arrays[name]


def _sizes(arrays: Mapping[str, Tensor]) -> dict[str, Any]:
    """Parameters of the network."""
    blocks = sorted({int(n.split(".")[0][4:]) for n in arrays if n.startswith("msb_")})
    kernels = []
    for block in blocks[:-1]:
        names = [f"msb_{block}.embed.{j}.0.weight" for j in range(len(arrays))]
        kernels.append(tuple(arrays[n].shape[2] for n in names if n in arrays))
    n_neurons, width = _get(arrays, f"msb_{blocks[-1] if blocks else 5}.weight").shape
    side = math.isqrt(width // n_neurons)
    if side**2 * n_neurons != width:
        raise ValueError(
            f"the last layer reads {width} values for {n_neurons} neurons: expected a square "
            "number of places times the neurons."
        )
    read_in = _get(arrays, "stage1.conv_1x1.weight")
    return {
        "n_features": read_in.shape[1],
        "n_neurons": n_neurons,
        "grid": side + 2 * len(kernels),
        "n_layers": len({n.split(".")[2] for n in arrays if n.startswith("stage1.layers.")}),
        "channels": len(read_in),
        "kernels": tuple(kernels),
        "condition": "receptive_fields" if "adaln.net.1.weight" in arrays else "none",
    }

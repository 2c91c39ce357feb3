"""What neurons read at their points of feature maps, and its gradients.

Feature vectors (images, neurons, channels) never exist as a whole.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from v1tlearn.nn.fast.choice import sized
from v1tlearn.nn.fast.derivatives import differentiable_once

# Points that are read together on a CPU: enough for the quick sort that torch has for long vectors
# of integers. Cells that are: as many as stay in the cache. But always some images.
_CHUNK_POINTS = 2**15
_CHUNK_VALUES = 2**22
_CHUNK_IMAGES = 8
# Values of feature vectors that a thread makes at a time where no gradient is asked for.
_BLOCK_VALUES = 2**19


class _Corners(NamedTuple):
    """The four cells around each point; all of shape (..., 4) but the last two."""

    cells: Tensor  # row of the padded table, int32
    weights: Tensor
    right: Tensor  # distance from the left cells, in cells
    down: Tensor


def _step(features: Tensor, n_neurons: int) -> int:
    """Images that are read together; elsewhere than on a CPU, all are."""
    n_images, n_channels, height, width = features.shape
    if features.device.type != "cpu":
        return max(1, n_images)
    fitting = sized(_CHUNK_VALUES) // (n_channels * (height + 4) * (width + 4))
    return max(_CHUNK_IMAGES, min(sized(_CHUNK_POINTS) // n_neurons, fitting))


def _chunks(features: Tensor, n_neurons: int) -> list[slice]:
    step = _step(features, n_neurons)
    return [slice(i, i + step) for i in range(0, len(features), step)]


class _Table:
    """Cells of maps, channels last, within zeros; its memory serves one chunk after the other.

    Two rows and columns on each side, so that a point far from the map finds four cells of zeros.
    """

    def __init__(self, features: Tensor, n_neurons: int, dtype: torch.dtype) -> None:
        _, n_channels, height, width = features.shape
        n_images = min(len(features), _step(features, n_neurons))
        shape = (n_images, height + 4, width + 4, n_channels)
        self.cells = features.new_zeros(shape, dtype=dtype)

    def fill(self, features: Tensor) -> Tensor:
        """Rows (b (h + 4) (w + 4), C) of some maps (b, C, h, w)."""
        cells = self.cells[: len(features)]
        cells[:, 2:-2, 2:-2] = features.permute(0, 2, 3, 1)
        return cells.flatten(0, 2)


def _corners(points: Tensor, height: int, width: int, image_dim: int = 0) -> _Corners:
    """Cells and weights of points (b, n, 2), or (n, b, 2) where images are dimension 1."""
    images = torch.arange(points.shape[image_dim], dtype=torch.int32, device=points.device)
    first = images.mul_((height + 4) * (width + 4)).add_(2)
    first = first[:, None] if image_dim == 0 else first
    x = ((points[..., 0] + 1) * ((width - 1) / 2)).clamp(-2, width)
    y = ((points[..., 1] + 1) * ((height - 1) / 2)).clamp(-2, height)
    left, top = x.floor(), y.floor()
    right, down = x - left, y - top
    # Clamped as integers: a position that is NaN then gives NaN, not an index out of bounds.
    column, row = left.int().clamp_(-2, width), top.int().clamp_(-2, height)
    cell = row.add_(2).mul_(width + 4).add_(column).add_(first)
    cells = torch.stack((cell, cell + 1, cell + (width + 4), cell + (width + 5)), -1)
    at_right, below = right * down, down - right * down
    above = right - at_right
    weights = torch.stack((1 - right - below, above, below, at_right), -1)
    return _Corners(cells, weights, right, down)


def _products(table: Tensor, corners: _Corners, weights: Tensor) -> Tensor:
    """Products (B, n, 4) of each cell around a point and the weights (n, C) of its neuron."""
    n_images, n_neurons, _ = corners.cells.shape
    neurons = torch.arange(n_neurons, dtype=torch.int32, device=table.device)
    bags = neurons[:, None].expand(n_images, -1, 4).flatten().contiguous()
    # What embedding_bag calls the gradient of its weights per sample, given that of each bag.
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        weights, table, corners.cells.view(-1), neurons, bags, 0
    ).view_as(corners.cells)


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, points: Tensor, weights: Tensor) -> Tensor:
        """Read chunk by chunk; see `read_points`."""
        height, width = features.shape[2:]
        n_images, n_neurons, _ = points.shape
        products = points.new_empty(n_images, n_neurons, 4)
        out = points.new_empty(n_images, n_neurons)
        table = _Table(features, n_neurons, points.dtype)
        for chunk in _chunks(features, n_neurons):
            corners = _corners(points[chunk], height, width)
            products[chunk] = _products(table.fill(features[chunk]), corners, weights)
            torch.sum(products[chunk] * corners.weights, -1, out=out[chunk])
        ctx.save_for_backward(features, points, weights, products)
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients chunk by chunk; those of the maps are sums over points sorted by cell."""
        features, points, weights, products = ctx.saved_tensors
        need_features, need_points, need_weights = ctx.needs_input_grad
        height, width = features.shape[2:]
        to_features = torch.empty_like(features) if need_features else None
        to_points = torch.empty_like(points) if need_points else None
        to_weights = torch.zeros_like(weights) if need_weights else None
        table = _Table(features, len(weights), points.dtype) if need_weights else None
        for chunk in _chunks(features, len(weights)):
            # Neurons first: all that one has read lies together.
            g = gradient[chunk].T.contiguous()  # (n, b)
            p = points[chunk].transpose(0, 1).contiguous()
            corners = _corners(p, height, width, image_dim=1)
            if to_points is not None:
                to_points[chunk] = _points_gradient(
                    g, products[chunk].transpose(0, 1), corners, height, width
                ).transpose(0, 1)
            corners.weights.mul_(g[..., None])
            if to_weights is not None and table is not None:
                to_weights += F.embedding_bag(
                    corners.cells.flatten(1),
                    table.fill(features[chunk]),
                    per_sample_weights=corners.weights.flatten(1),
                    mode="sum",
                )
            if to_features is not None:
                to_features[chunk] = _features_gradient(corners, weights, features[chunk])
        return to_features, to_points, to_weights


def _points_gradient(
    gradient: Tensor, products: Tensor, corners: _Corners, height: int, width: int
) -> Tensor:
    """Gradient (..., 2) of points, whose cells have those products."""
    top_left, top_right, low_left, low_right = products.unbind(-1)
    above, below = top_right - top_left, low_right - low_left
    slope_x = torch.lerp(above, below, corners.down)
    left, right = low_left - top_left, low_right - top_right
    slope_y = torch.lerp(left, right, corners.right)
    return torch.stack(
        (
            slope_x.mul_(gradient).mul_((width - 1) / 2),
            slope_y.mul_(gradient).mul_((height - 1) / 2),
        ),
        -1,
    )


def _features_gradient(corners: _Corners, weights: Tensor, features: Tensor) -> Tensor:
    """Gradient (b, C, h, w) of maps; `corners` (n, b, 4) bring weights times gradient."""
    n_images, n_channels, height, width = features.shape
    n_cells = n_images * (height + 4) * (width + 4)
    ordered, order = corners.cells.view(-1).sort()
    begins = torch._convert_indices_from_coo_to_csr(ordered, n_cells, out_int32=True)
    neurons = order.div(4 * n_images, rounding_mode="floor").int()
    table = F.embedding_bag(
        neurons,
        weights,
        begins[:-1],
        per_sample_weights=corners.weights.view(-1)[order],
        mode="sum",
    ).view(n_images, height + 4, width + 4, n_channels)
    return table[:, 2:-2, 2:-2].permute(0, 3, 1, 2)


def _blocks(n_images: int, weights: Tensor) -> list[slice]:
    """Neurons whose feature vectors in some images stay in the caches of all threads."""
    n_neurons, n_channels = weights.shape
    step = max(1, torch.get_num_threads() * sized(_BLOCK_VALUES) // (n_images * n_channels))
    return [slice(i, i + step) for i in range(0, n_neurons, step)]


def _read_without_gradients(features: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """Read block by block on a CPU; see `read_points`.

    No gradient needs the products of single cells, so that a sum of cells goes before the product.
    """
    n_channels, height, width = features.shape[1:]
    n_neurons = len(weights)
    out = points.new_empty(len(features), n_neurons)
    table = _Table(features, n_neurons, points.dtype)
    everywhere = _corners(points, height, width) if len(points) == 1 else None
    for chunk in _chunks(features, n_neurons):
        cells = table.fill(features[chunk])
        n_images = len(features[chunk])
        first = torch.arange(n_images, dtype=torch.int32).mul_((height + 4) * (width + 4))
        for block in _blocks(n_images, weights):
            if everywhere is None:
                found = _corners(points[chunk, block], height, width)
                numbers, shares = found.cells, found.weights
            else:
                numbers = everywhere.cells[:, block] + first[:, None, None]
                shares = everywhere.weights[:, block].expand(n_images, -1, -1)
            vectors = F.embedding_bag(
                numbers.view(-1, 4), cells, per_sample_weights=shares.reshape(-1, 4), mode="sum"
            ).view(n_images, -1, n_channels)
            torch.sum(vectors.mul_(weights[block]), -1, out=out[chunk, block])
    return out


def read_points(features: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """Product of each neuron's weights with the feature vector at its point.

    The values of ``(sample_features(features, points) * weights).sum(-1)``.

    Parameters
    ----------
    features : Tensor of shape (n_images, n_channels, height, width)
        Feature maps, of any floating type; quick where channels are last.
    points : Tensor of shape (n_images, n_neurons, 2) or (1, n_neurons, 2)
        Points as (x, y), float32 or float64; -1 and 1 are the centres of the outermost cells. One
        set of points is that of all images.
    weights : Tensor of shape (n_neurons, n_channels)
        Of the same dtype as the points.

    Returns
    -------
    Tensor of shape (n_images, n_neurons)
        Of the dtype of the points.
    """
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (features, points, weights))
    if features.device.type == "cpu" and not learns:
        return _read_without_gradients(features, points, weights)
    return _Read.apply(features, points.expand(len(features), -1, -1), weights)

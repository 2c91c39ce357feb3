"""The Gaussian readout: one position on the feature map and one weight vector per neuron."""

from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor, nn

from v1tlearn.nn import fast
from v1tlearn.nn.drawing import drawn
from v1tlearn.nn.fast.reading import read_points
from v1tlearn.nn.losses import l1_penalty
from v1tlearn.nn.readouts.readout import Moments, Readout, copied, initial_bias

_SPREAD_SHAPES = {"full": (2, 2), "uncorrelated": (2,), "isotropic": (1,)}
# The last point of a map: within the outermost cells, so that the slope there is that of the map.
_EDGE = 1 - 2**-20


class _OntoMap(torch.autograd.Function):
    """Move points beyond a map to its edge; of their gradients stays what leads back onto it.

    That is gradient descent with projection onto the map: the derivative of clamping alone would be
    zero, and a point that left the map would never come back.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(points: Tensor) -> Tensor:
        """Points (..., 2) on the map."""
        return points.clamp(-_EDGE, _EDGE)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep the points."""
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Leave out what leads away from the map."""
        (points,) = ctx.saved_tensors
        away = ((points > _EDGE) & (gradient < 0)) | ((points < -_EDGE) & (gradient > 0))
        return torch.where(away, 0, gradient)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        """Points beyond the map stay at its edge."""
        (points,) = ctx.saved_tensors
        return torch.where(points.abs() > _EDGE, 0, tangent)


def sample_features(features: Tensor, positions: Tensor) -> Tensor:
    """Read feature maps at points between their cells, bilinearly, with zeros outside.

    The values of ``grid_sample(align_corners=True)``: -1 and 1 are the centres of the outermost
    cells. There are derivatives of any order.

    Parameters
    ----------
    features : Tensor of shape (n_images, n_channels, height, width)
        Feature maps, float32 or float64.
    positions : Tensor of shape (n_images, n_points, 2)
        Points as (x, y), of the same dtype.

    Returns
    -------
    Tensor of shape (n_images, n_points, n_channels)
        Interpolated feature vectors.
    """
    height, width = features.shape[2:]
    x = (positions[..., 0] + 1) * ((width - 1) / 2)  # (B, n), in cells
    y = (positions[..., 1] + 1) * ((height - 1) / 2)
    images = torch.arange(len(features), device=features.device)[:, None]
    table = features.permute(0, 2, 3, 1)  # (B, h, w, C)
    sampled = features.new_zeros(())
    for column, row in product((x.floor(), x.floor() + 1), (y.floor(), y.floor() + 1)):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        weight = (1 - (x - column).abs()) * (1 - (y - row).abs()) * inside
        # Clamped as integers: a position that is NaN then gives NaN, not an index out of bounds.
        i, j = row.int().clamp(0, height - 1), column.int().clamp(0, width - 1)
        sampled = sampled + weight[..., None] * table[images, i, j]
    return sampled


def _centred(positions: object, n_neurons: int) -> Tensor:
    """Cortical positions around zero, divided by their largest absolute coordinate."""
    positions = copied(positions, torch.float64)
    if positions.ndim != 2 or positions.shape[0] != n_neurons or positions.shape[1] < 1:
        raise ValueError(
            f"positions must be an array of shape (n_neurons, n_axes) with {n_neurons} neurons, "
            f"got shape {tuple(positions.shape)}."
        )
    if not positions.isfinite().all():
        raise ValueError(
            "positions hold NaN or infinite values; leave those neurons out, or give no positions "
            "to learn free ones."
        )
    positions = positions - positions.mean(0)
    extent = positions.abs().max()
    return (positions / extent if extent > 0 else positions).float()


class GaussianReadout(Readout):
    """Gaussian readout of one mouse (Lurz et al. 2021).

    In training each neuron reads the map at a new random point per image, drawn around its
    position; in evaluation at the position itself.

    Parameters
    ----------
    core_shape : tuple of int
        Channels, height and width of the feature map.
    n_neurons : int
        Number of neurons.
    positions : array of shape (n_neurons, n_axes), optional
        Cortical positions in any unit, usually micrometres. A network shared by the neurons maps
        them, centred and divided by their largest absolute coordinate, to the feature map. Without
        them every neuron learns its own position.
    gaussian : {"full", "uncorrelated", "isotropic"}, default="full"
        Shape of the spread around a position: a 2 x 2 factor A of its covariance (positions are
        drawn as ``mu + A e``), one width per axis, or one width.
    init_sigma : float, default=0.1
        Initial spread, in half map sides; the elements of a full factor are uniform within it.
    init_mu_range : float, default=0.3
        Free positions start uniformly within this distance of the centre.
    hidden_layers : int, default=1
        Hidden layers of the position network.
    hidden_units : int, default=30
        Units of each.
    l1 : float, default=0.0076
        Weight of the absolute feature weights in `penalty`.
    bias_init : array of shape (n_neurons,), optional
        Initial biases; zeros by default.
    beyond_map : {"zeros", "edge"}, default="zeros"
        What is read where a shift moves a neuron beyond the map: zeros, as published, where no
        gradient leads back; or the edge of the map, from where gradients lead back onto it.

    Raises
    ------
    ValueError
        If shapes disagree, positions are not finite, or an option is out of its range.
    """

    positions: Tensor

    def __init__(
        self,
        core_shape: tuple[int, int, int],
        n_neurons: int,
        *,
        positions: object | None = None,
        gaussian: str = "full",
        init_sigma: float = 0.1,
        init_mu_range: float = 0.3,
        hidden_layers: int = 1,
        hidden_units: int = 30,
        l1: float = 0.0076,
        bias_init: object | None = None,
        beyond_map: str = "zeros",
    ) -> None:
        super().__init__(n_neurons)
        if beyond_map not in ("zeros", "edge"):
            raise ValueError(f"beyond_map must be 'zeros' or 'edge', got {beyond_map!r}.")
        if gaussian not in _SPREAD_SHAPES:
            raise ValueError(
                f"gaussian must be one of {', '.join(map(repr, _SPREAD_SHAPES))}, got {gaussian!r}."
            )
        if not init_sigma > 0:
            raise ValueError(f"init_sigma must be positive, got {init_sigma}.")
        if not 0 < init_mu_range <= 1:
            raise ValueError(f"init_mu_range must be above 0 and at most 1, got {init_mu_range}.")
        if hidden_layers < 0 or hidden_units < 1:
            raise ValueError(
                f"the position network needs hidden_layers >= 0 and hidden_units >= 1, got "
                f"{hidden_layers} and {hidden_units}."
            )
        n_channels = core_shape[0]
        self.core_shape = tuple(core_shape)
        self.gaussian = gaussian
        self.l1 = l1
        self.beyond_map = beyond_map

        if positions is None:
            self.free_mu = nn.Parameter(torch.empty(n_neurons, 2))
            nn.init.uniform_(self.free_mu, -init_mu_range, init_mu_range)
            self.position_network = None
        else:
            self.register_buffer("positions", _centred(positions, n_neurons))
            widths = [self.positions.shape[1], *[hidden_units] * hidden_layers, 2]
            layers: list[nn.Module] = []
            for n_in, n_out in pairwise(widths):
                layers += [nn.Linear(n_in, n_out), nn.ELU()]
            self.position_network = nn.Sequential(*layers[:-1], nn.Tanh())

        # Registered before they are filled: whoever counts parameters can refuse them in time.
        self.sigma = nn.Parameter(torch.empty(n_neurons, *_SPREAD_SHAPES[gaussian]))
        self.features = nn.Parameter(torch.empty(n_neurons, n_channels))
        if gaussian == "full":
            nn.init.uniform_(self.sigma, -init_sigma, init_sigma)
        else:
            nn.init.constant_(self.sigma, init_sigma)
        nn.init.constant_(self.features, 1 / n_channels)
        self.bias = nn.Parameter(initial_bias(bias_init, n_neurons))
        self.float()  # whatever torch's default dtype is

    def mu(self) -> Tensor:
        """Positions of the neurons on the feature map.

        Returns
        -------
        Tensor of shape (n_neurons, 2)
            (x, y); -1 and 1 are the centres of the outermost cells of the map.
        """
        if self.position_network is None:
            return self.free_mu.clamp(-1, 1)
        with torch.autocast(self.positions.device.type, enabled=False):
            return self.position_network(self.positions)

    def shifted(self, points: Tensor, shift: Tensor) -> Tensor:
        """Move points with the eye.

        Parameters
        ----------
        points : Tensor of shape (n_images or 1, n_neurons, 2)
        shift : Tensor of shape (n_images, 2)
            In half map sides.

        Returns
        -------
        Tensor of shape (n_images, n_neurons, 2)
            Beyond the map only where `beyond_map` is "zeros".
        """
        points = points + shift[:, None].to(points.dtype)
        return _OntoMap.apply(points) if self.beyond_map == "edge" else points

    @torch.no_grad()
    def spatial_moments(self) -> Moments:
        """Positions on the map, and the covariance from which they are drawn in training.

        Returns
        -------
        Moments
        """
        height, width = self.core_shape[1:]
        half = torch.tensor([width - 1, height - 1], dtype=torch.float64) / 2
        sigma = self.sigma.cpu().double()  # Apple's GPUs have no float64
        if self.gaussian != "full":
            sigma = torch.diag_embed(sigma.expand(-1, 2))
        factor = half[:, None] * sigma  # in cells
        return Moments((self.mu().cpu().double() + 1) * half, factor @ factor.mT)

    def penalty(self) -> Tensor:
        """Weighted sum of the absolute feature weights.

        Returns
        -------
        Tensor
            Scalar.
        """
        return self.l1 * l1_penalty([self.features])

    def _draw(self, n_images: int) -> Tensor:
        """Random positions of one training batch, (B, n, 2)."""
        mu = self.mu()
        noise = drawn(
            lambda n: torch.randn(n, *mu.shape, dtype=mu.dtype, device=mu.device), n_images
        )
        if self.gaussian == "full":
            offset = (
                self.sigma[..., 0] * noise[..., :1] + self.sigma[..., 1] * noise[..., 1:]
            )  # A e
        else:
            offset = self.sigma * noise
        return (mu + offset).clamp(-1, 1)

    def points_each(self, neurons: Tensor, shift: Tensor | None = None) -> Tensor | None:
        """Positions (B, 2) of neurons, one for each map; None of derived classes that read more."""
        own = type(self).forward is GaussianReadout.forward
        same = own and type(self).read_each is GaussianReadout.read_each
        return self._points(neurons, shift) if same else None

    def _points(self, neurons: Tensor, shift: Tensor | None) -> Tensor:
        with torch.autocast(self.features.device.type, enabled=False):
            points = self.mu()[neurons][:, None]  # (B, 1, 2)
            return (points if shift is None else self.shifted(points, shift))[:, 0]

    def read_at(self, features: Tensor, points: Tensor, neurons: Tensor) -> Tensor:
        """Outputs (B,) of one neuron for each map (B, C, h, w), at a point."""
        with torch.autocast(features.device.type, enabled=False):
            seen = sample_features(features.to(self.features.dtype), points[:, None])[:, 0]
            return (seen * self.features[neurons]).sum(-1) + self.bias[neurons]

    def read_each(self, features: Tensor, neurons: Tensor, shift: Tensor | None = None) -> Tensor:
        """Outputs (B,) of one neuron for each map (B, C, h, w), at its position."""
        if type(self).forward is not GaussianReadout.forward:  # a derived class reads otherwise
            return super().read_each(features, neurons, shift)
        return self.read_at(features, self._points(neurons, shift), neurons)

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Responses (B, n) before the output non-linearity, of feature maps (B, C, h, w).

        `shift` (B, 2) moves all receptive fields of an image, right and down, in half map sides.
        """
        if tuple(features.shape[1:]) != self.core_shape:
            raise ValueError(
                f"the readout is made for feature maps of shape {self.core_shape}, got "
                f"{tuple(features.shape[1:])}."
            )
        n_images = features.shape[0]
        if self.training and self.position_network is None:
            with torch.no_grad():  # else a position that left the map would get no gradient again
                self.free_mu.clamp_(-1, 1)
        with torch.autocast(features.device.type, enabled=False):
            # (B, n, 2), or (1, n, 2) for all images
            points = self._draw(n_images) if self.training else self.mu()[None]
            if shift is not None:
                points = self.shifted(points, shift)
            if not fast.is_plain():
                return read_points(features, points, self.features) + self.bias
            points = points.expand(n_images, -1, -1)
            sampled = sample_features(features.to(points.dtype), points)  # (B, n, C)
            return (sampled * self.features).sum(-1) + self.bias

"""A training step of a full model (Du et al. 2025), against plain forms of it.

Published size: 66 x 130 pixels, 16 filters of 25 x 25, 320 channels, 100 trials, 2,000 neurons, in
float32. The plain model is made of torch's modules on NCHW maps. Its readout comes in two forms:
weights of space as one matrix, whose product with the maps is then weighted over channels, which is
the sensible order; and one sum of four operands, as in the published code, which torch works out
from left to right (channels first here, the order that takes the least memory). All predict the
same and have the same gradients, which is checked first.

Whatever the order, the outputs of the readout, the gradient of the maps and that of the weights of
space take three products of (trials x channels) x places x neurons. What they would take at the
rate that this machine has for large matrices stands in a row of its own: no step can be faster.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from _measure import Row, compare, matrix_rate, parser, report
from torch import Tensor, nn

from v1tlearn.nn import (
    EncodingModel,
    FactorizedReadout,
    ImageCropper,
    MouseBatch,
    TwoLayerCore,
    poisson_loss,
)
from v1tlearn.training import make_optimizer, resolve_device

IMAGE, TINY_IMAGE = (66, 130), (20, 34)
TINY = {"channels": (3, 5), "kernels": (9, 5)}
BARS = {"space": 2.0, "four operands": 8.0}
WORDS = {
    "space": "space as one matrix, then channels",
    "four operands": "one sum of four operands, as published",
}


class PlainFullModel(nn.Module):
    """A full model of torch's modules; parameters are those of the model given, not copies.

    Parameters
    ----------
    model : EncodingModel
    order : {"space", "four operands"}
        How the readout contracts.
    """

    def __init__(self, model: EncodingModel, order: str) -> None:
        super().__init__()
        self.layers, self.readout, self.order = model.core.layers, model.readouts[0], order

    def forward(self, images: Tensor) -> Tensor:
        """Rates (B, n) of images (B, 1, h, w)."""
        maps = self.layers(images.contiguous())  # (B, C, h', w')
        rows, columns, channels, bias = (p for p in self.readout.parameters())
        rows, columns, channels = (p[:, 0] for p in (rows, columns, channels))
        if self.order == "space":
            space = (rows[:, :, None] * columns[:, None]).flatten(1)  # (n, h' w')
            seen = maps.flatten(2) @ space.T  # (B, C, n)
            out = torch.einsum("bcn,nc->bn", seen, channels)
        else:
            out = torch.einsum("bcyx,nc,ny,nx->bn", maps, channels, rows, columns)
        return F.elu(out + bias) + 1


def make(
    n_trials: int, n_neurons: int, device: torch.device, *, quick: bool
) -> tuple[EncodingModel, Tensor, Tensor]:
    """Model in training mode, images and responses."""
    torch.manual_seed(0)
    image = TINY_IMAGE if quick else IMAGE
    core = TwoLayerCore((1, *image), weight_decay=0.1, **(TINY if quick else {}))
    weights = {"space_weight_decay": 1.0, "channel_weight_decay": 0.1}
    readout = FactorizedReadout(core.output_shape, n_neurons, **weights)
    model = EncodingModel(core, {"A": readout}, cropper=ImageCropper(image)).to(device).train()
    images = torch.randn(n_trials, 1, *image, device=device)
    return model, images, torch.rand(n_trials, n_neurons, device=device)


def step_of(
    predict: Callable[[Tensor], Tensor], model: EncodingModel, images: Tensor, responses: Tensor
) -> Callable[[], None]:
    """Forward and backward pass, and a step of AdamW with its projection."""
    optimizer = make_optimizer(model, "adamw", lr=1e-3)

    def step() -> None:
        """One batch."""
        loss = poisson_loss(predict(images), responses) / responses.shape[1]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for module in (model.core, *model.readouts):
            module.project_()

    return step


def ours(model: EncodingModel) -> Callable[[Tensor], Tensor]:
    """Prediction of the package."""
    return lambda images: model({"A": MouseBatch(images, None, None, None)})["A"]


def check_same(model: EncodingModel, images: Tensor, responses: Tensor) -> None:
    """Check that all forms have the same predictions and gradients, of a few trials."""
    found = []
    for predict in (ours(model), *(PlainFullModel(model, order) for order in BARS)):
        rates = predict(images[:2])
        loss = poisson_loss(rates, responses[:2])
        found.append([rates, *torch.autograd.grad(loss, list(model.parameters()))])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            error = (one - other).abs().max() / other.abs().max().clamp(min=1e-30)
            if not error < 1e-3:
                raise AssertionError(f"results differ by {error:.1e}")


def main() -> None:
    """Run at published size, or tiny."""
    made = parser(__doc__)
    made.add_argument("--trials", type=int, default=100, help="of a batch")
    made.add_argument("--neurons", type=int, default=2000)
    args = made.parse_args()
    device = resolve_device(args.device)
    n_trials, n_neurons = (6, 5) if args.quick else (args.trials, args.neurons)
    model, *data = make(n_trials, n_neurons, device, quick=args.quick)
    check_same(model, *data)
    published = not args.quick and n_trials >= 100 and n_neurons >= 2000
    channels, height, width = model.core.output_shape
    note = f"{n_trials} trials, {n_neurons} neurons, maps {channels} x {height} x {width}"
    rows = []
    for order, bar in BARS.items():
        plain = step_of(PlainFullModel(model, order), model, *data)
        found = compare(plain, step_of(ours(model), model, *data), args.repeats, device)
        what = f"training step, readout: {WORDS[order]}"
        rows.append(Row(what, *found[:2], "s", found[2], bar if published else None, note))
    least = (
        6 * n_trials * channels * height * width * n_neurons / matrix_rate(torch.float32, device)
    )
    rows.append(Row("three matrix products of the readout", None, least, "s", note=note))
    report("minimodel", rows, args)


if __name__ == "__main__":
    main()

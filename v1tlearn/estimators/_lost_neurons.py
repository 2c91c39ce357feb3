"""Neurons that a model lost on its way: at the edge of the map or beyond, constant, or run off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from v1tlearn._rounding import ROUNDING_FLOAT32
from v1tlearn._warn import warn
from v1tlearn.nn import EncodingModel, GaussianReadout, Readout
from v1tlearn.training import MouseData
from v1tlearn.training.data import by_neuron
from v1tlearn.training.devices import numerics

# Shares of the neurons of a mouse above which there is a warning. Whoever is constant is lost; at
# the edge of the map a receptive field may truly be, and with eyes that move much, many are.
LOST, CONSTANT = 0.8, 0.5
_TRIALS = 32  # by which constant predictions are told, of each mouse
_WINDOWS = 4  # of movies, by which those that ran off are told
_RAN_OFF = 100  # times the largest response that is predicted on average
_AT_EDGE = 0.999  # in half map sides
_ALWAYS = 0.95  # of the trials
_BLOCK = 64  # trials whose moved positions are there at a time


@torch.inference_mode()
def warn_of_lost_neurons(model: EncodingModel, data: Mapping[str, MouseData]) -> None:
    """Warn of mice of which many neurons cannot follow their images, and say what helps."""
    device = next(iter(data.values())).device
    with numerics("float32", device):
        found = {mouse: _lost(model, mouse, trials) for mouse, trials in data.items()}
    for mouse, (at_edge, constant) in found.items():
        n, lost = len(constant), int((at_edge | constant).sum())
        if lost > LOST * n or constant.sum() > CONSTANT * n:
            warn(
                f"mouse {mouse!r}: {lost} of {n} neurons cannot follow their images: "
                f"{int(at_edge.sum())} read at the edge of the feature map or beyond, "
                f"{int(constant.sum())} are predicted to be constant. What is predicted for this "
                f"mouse is worth little: {_remedies(model.readout(mouse))}."
            )


@torch.inference_mode()
def warn_of_diverged(model: EncodingModel, data: Mapping[str, MouseData]) -> None:
    """Warn of mice whose predictions are finite, and far beyond all responses to some trials."""
    device = next(iter(data.values())).device
    for mouse, trials in data.items():
        few = slice(_TRIALS if trials.n_images == 1 else _WINDOWS)
        with numerics("float32", device):
            rates = model({mouse: trials.batch(few)})[mouse].float().flatten(0, -2)
        largest = by_neuron(trials.targets(few))[0].abs().max().clamp(min=1.0)
        size = rates.abs().mean(0) / largest
        ran_off = size > _RAN_OFF
        if ran_off.any():
            warn(
                f"mouse {mouse!r}: of {int(ran_off.sum())} of {len(ran_off)} neurons responses are "
                f"predicted that are up to {float(size.max()):.2g} times as large as any that was "
                "recorded: the training ran off, and what it came to is no model. Lower lr (a "
                "tenth is a good start)."
            )


def _remedies(readout: Readout) -> str:
    """What may help, of what is not so already."""
    if not isinstance(readout, GaussianReadout):
        return "give it more trials or epochs, or lower lr"
    remedies = "give it more trials, lower lr, set shift='none' or position_network=False"
    if readout.beyond_map == "edge":
        return remedies
    return f"{remedies}, or keep receptive fields on the map with beyond_map='edge'"


def _lost(model: EncodingModel, mouse: str, trials: MouseData) -> tuple[Tensor, Tensor]:
    """Which neurons of a mouse are at the edge in nearly all trials, and which are constant."""
    readout, shifter = model.readout(mouse), model.shifter(mouse)
    at_edge = constant = torch.zeros(readout.n_neurons, dtype=torch.bool, device=trials.device)
    if isinstance(readout, GaussianReadout):  # others have no positions
        points = readout.mu()[None]
        moved = [points] if shifter is None else _moved(readout, points, shifter(trials.pupil))
        counts = [(len(p), (p.abs().amax(-1) >= _AT_EDGE).sum(0)) for p in moved]
        often = _ALWAYS * sum(n for n, _ in counts)
        at_edge = torch.stack([beyond for _, beyond in counts]).sum(0) > often
    if len(trials) > 1:
        rates = model({mouse: trials.batch(slice(_TRIALS))})[mouse].float().flatten(0, -2)
        spread = rates.amax(0) - rates.amin(0)
        constant = spread <= ROUNDING_FLOAT32 * rates.abs().amax(0)
    return at_edge, constant


def _moved(readout: GaussianReadout, points: Tensor, shift: Tensor) -> Iterator[Tensor]:
    """Positions that move with the eye, of all trials, block by block."""
    return (readout.shifted(points, block) for block in shift.split(_BLOCK))

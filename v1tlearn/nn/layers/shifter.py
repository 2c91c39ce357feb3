"""Networks that turn the pupil centre into a displacement of receptive fields or of the image."""

from typing import cast

import torch
from torch import Tensor, nn


class Shifter(nn.Module):
    """Readout shifter of one mouse: a small perceptron, tanh after every layer.

    As in Sensorium 2022 (Willeke et al. 2022) and V1T (Li et al. 2023): 2-5-5-2 units,
    57 parameters, the default initialisation of torch.

    Parameters
    ----------
    n_inputs : int, default=2
        Number of input variables.
    hidden_units : int, default=5
        Units of either hidden layer.
    """

    def __init__(self, n_inputs: int = 2, hidden_units: int = 5) -> None:
        super().__init__()
        self.n_inputs = n_inputs
        self.network = nn.Sequential(
            nn.Linear(n_inputs, hidden_units),
            nn.Tanh(),
            nn.Linear(hidden_units, hidden_units),
            nn.Tanh(),
            nn.Linear(hidden_units, 2),
            nn.Tanh(),
        )
        self.float()  # whatever torch's default dtype is

    def forward(self, inputs: Tensor) -> Tensor:
        """Displacement (B, 2), right and down, in half map sides, of standardised inputs (B, v)."""
        if inputs.ndim != 2 or inputs.shape[1] != self.n_inputs:
            raise ValueError(
                f"the shifter takes {self.n_inputs} standardised variables per trial, got an "
                f"array of shape {tuple(inputs.shape)}."
            )
        # A displacement moves by less than bfloat16 resolves: full precision under autocast too.
        with torch.autocast(inputs.device.type, enabled=False):
            first = cast(nn.Linear, self.network[0])
            return self.network(inputs.to(first.weight.dtype))


class StimulusShifter(Shifter):
    """Stimulus shifter of one mouse: moves the crop within the image (Li et al. 2023).

    Parameters
    ----------
    n_inputs : int, default=2
        2: pupil centre; 5: dilation, its derivative, running speed, pupil centre.
    hidden_units : int, default=10
        Units of either hidden layer.
    max_shift : float, default=1.0
        Largest displacement, in half image sides; ``1 - crop_scale`` keeps the crop inside.
    """

    def __init__(self, n_inputs: int = 2, hidden_units: int = 10, max_shift: float = 1.0) -> None:
        super().__init__(n_inputs, hidden_units)
        self.max_shift = max_shift

    def forward(self, inputs: Tensor) -> Tensor:
        """Displacement (B, 2), right and down, in half image sides, of inputs (B, v)."""
        return self.max_shift * super().forward(inputs)

"""The linear-nonlinear model: the convolutional one without its inner non-linearities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from v1tlearn.estimators._docs import document
from v1tlearn.estimators.cnn import SENSORIUM_2022, V1T_2023, CNNRegressor


@document
@dataclass(eq=False, repr=False, kw_only=True)
class LNRegressor(CNNRegressor):
    """Linear-nonlinear model: a linear convolutional core, readout, and ELU + 1.

    The core of `CNNRegressor` without ELU; batch normalisation stays, as published.

    Parameters
    ----------
    n_layers : int, default=3
        Convolutional layers.
    hidden_channels : int, default=64
        Channels of each.
    input_kernel, hidden_kernel : int, default=9, 7
        Side of the filters of the first layer, which has no padding, and of the others; in pixels.
    depth_separable : bool, default=True
        Build the layers after the first of pointwise and depthwise convolutions.
    batch_norm_momentum : float, default=0.1
        Weight of the newest batch in the running statistics of batch normalisation.
    laplace : float, default=6.3831
        Weight of the penalty on rough first filters.
    behavior_mode : {"auto", "none", "channels"}, default="auto"
        "channels" appends behaviour to the image as constant planes; "auto" does so when all mice
        have behaviour, and leaves it out when none has.
    {common}

    {attributes}

    See Also
    --------
    CNNRegressor

    References
    ----------
    Willeke et al., "The Sensorium competition on predicting large-scale mouse primary visual
    cortex activity", arXiv:2206.08666, 2022.
    """

    n_layers: int = 3

    _linear: ClassVar[bool] = True
    _presets: ClassVar[dict[str, dict[str, Any]]] = {
        "sensorium2022": SENSORIUM_2022,
        "v1t2023": {**V1T_2023, "n_layers": 4},
    }

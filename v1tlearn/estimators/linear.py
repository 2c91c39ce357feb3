"""The linear-nonlinear model: the convolutional one without its inner non-linearities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from v1tlearn.estimators._architectures import CONVOLUTIONAL
from v1tlearn.estimators._docs import document
from v1tlearn.estimators.cnn import SENSORIUM_2022, V1T_2023, CNNRegressor


@document(architecture=CONVOLUTIONAL)
@dataclass(eq=False, repr=False, kw_only=True)
class LNRegressor(CNNRegressor):
    """Linear-nonlinear model: a linear convolutional core, readout, and ELU + 1.

    The core of `CNNRegressor` without ELU; batch normalisation stays, as published.

    {groups}

    Parameters
    ----------
    {parameters}

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

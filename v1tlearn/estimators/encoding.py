"""Encoding models of any core, readout and head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from v1tlearn.estimators._architectures import MODULES
from v1tlearn.estimators._build import Recipe
from v1tlearn.estimators._docs import OWN, TIME, document
from v1tlearn.estimators._parameters import (
    HEADS,
    ReadoutParameters,
    TimeParameters,
    readout_maker,
)
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.nn import Core, Head, Readout


@document(architecture=MODULES, behavior_mode=OWN, time=TIME)
@dataclass(eq=False, repr=False)
class EncodingRegressor(TimeParameters, ReadoutParameters, BaseEncodingRegressor):
    """A core of your own, with readouts, heads and all that a model needs beside it.

    {groups}

    Parameters
    ----------
    {parameters}

    {attributes}

    See Also
    --------
    CNNRegressor, V1TRegressor
    v1tlearn.nn.Core : What a core has to fulfil.

    Notes
    -----
    `save` notes classes by name, with the arguments of ``functools.partial``. `load` finds classes
    that are imported already, and imports nothing itself. Functions cannot be saved, only pickled.

    Examples
    --------
    >>> import torch, v1tlearn as v1
    >>> class Energy(v1.nn.Core):
    ...     def __init__(self, input_shape, n_pairs=4):
    ...         super().__init__(input_shape)
    ...         channels, height, width = input_shape
    ...         self.output_shape = (n_pairs, height - 8, width - 8)
    ...         self.filters = torch.nn.Conv2d(channels, 2 * n_pairs, 9)
    ...     def forward(self, images, behaviors=None, sizes=None):
    ...         even, odd = self.filters(images).chunk(2, dim=1)
    ...         return (even**2 + odd**2 + 1e-6).sqrt()
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.EncodingRegressor(core=Energy, max_epochs=2, random_state=0)
    >>> est.fit(trials.sel(tier="train")).predict(trials.sel(tier="test"))["B"].shape
    (12, 5)
    """

    core: Callable[..., Core]
    _: KW_ONLY
    readout: str | Callable[..., Readout] = "gaussian"  # type: ignore[assignment]  # or your own
    head: str | Callable[..., Head] = "elu"
    loss: str | Callable[..., Tensor] = "poisson"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseEncodingRegressor._parameter_constraints,
        **ReadoutParameters._parameter_constraints,
        **TimeParameters._parameter_constraints,
        "behavior_mode": [StrOptions({"auto", "none", "channels", "core"})],
        "core": [callable],
        "readout": [StrOptions({"gaussian", "factorized"}), callable],
        "head": [StrOptions(set(HEADS)), callable],
        "loss": [StrOptions({"poisson", "squared"}), callable],
    }

    @classmethod
    def _recipe(cls, parameters: Mapping[str, Any]) -> Recipe:
        readout, head = parameters["readout"], parameters["head"]
        if isinstance(readout, str):
            readout = readout_maker(parameters)
        return Recipe(parameters["core"], readout, HEADS.get(head, head))

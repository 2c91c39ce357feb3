"""The linear-nonlinear model of movies: a kernel of pixels and frames for each neuron."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from v1tlearn.estimators._architectures import KERNEL, MOVIE_KERNEL
from v1tlearn.estimators._build import Recipe
from v1tlearn.estimators._docs import MOVIE_CHANNELS, TIME, document
from v1tlearn.estimators._parameters import DEPTH, HEADS, TimeParameters
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.nn import FramesCore, KernelReadout

_WEIGHT = Interval(Real, 0, None, closed="left")
_OF_READOUT = ("n_lags", "space_smoothness", "time_smoothness", "l2")


@document(architecture=MOVIE_KERNEL, behavior_mode=MOVIE_CHANNELS, readout=KERNEL, time=TIME)
@dataclass(eq=False, repr=False, kw_only=True)
class MovieLNRegressor(TimeParameters, BaseEncodingRegressor):
    """Linear-nonlinear model of movies: a causal kernel in space and time, and a non-linearity.

    {groups}

    Parameters
    ----------
    {parameters}

    {attributes}

    See Also
    --------
    MovieCNNRegressor
    LNRegressor : Of images.

    References
    ----------
    Chichilnisky, "A simple white noise analysis of neuronal light responses", Network, 2001.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_movie_recordings(1, 5, 8, 2, 3, random_state=0))
    >>> est = v1.MovieLNRegressor(n_lags=10, max_epochs=2, random_state=0)
    >>> est.fit(trials.sel(tier="train")).predict(trials.sel(tier="test"))["A"].shape
    (6, 90, 5)
    >>> est.kernels("A").shape
    (5, 10, 1, 18, 32)
    """

    n_lags: int = 15
    kernel: str = "separable"
    space_smoothness: float = 5.0
    time_smoothness: float = 5.0
    l2: float = 1.0
    head: str = "softplus"
    readout_bias: str = "mean"
    shift: str = "none"
    optimizer: str = "adam"
    lr: float = 0.1
    batch_size: int = 8
    max_epochs: int = 200

    _published_behavior_mode: ClassVar[str] = "none"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseEncodingRegressor._parameter_constraints,
        **TimeParameters._parameter_constraints,
        "n_lags": [DEPTH],
        "kernel": [StrOptions({"separable", "full"})],
        "space_smoothness": [_WEIGHT],
        "time_smoothness": [_WEIGHT],
        "l2": [_WEIGHT],
        "head": [StrOptions(set(HEADS)), callable],
        "readout_bias": [StrOptions({"zero", "mean"})],
        "shift": [StrOptions({"none", "stimulus"})],
    }

    @classmethod
    def _recipe(cls, parameters: Mapping[str, Any]) -> Recipe:
        readout = partial(
            KernelReadout,
            separable=parameters["kernel"] == "separable",
            **{name: parameters[name] for name in _OF_READOUT},
        )
        return Recipe(FramesCore, readout, HEADS.get(parameters["head"], parameters["head"]))

    def kernels(self, mouse_id: str) -> np.ndarray:
        """Kernels of the neurons of a mouse.

        Parameters
        ----------
        mouse_id : str

        Returns
        -------
        ndarray of shape (n_neurons, n_lags, channels, height, width)
            What is added to a neuron's drive, ahead of the non-linearity, per standard deviation of
            grey level; lag 0 is the frame that is shown. Channels of behaviour come last.

        Raises
        ------
        ValueError
            For a mouse the model does not know.
        """
        check_is_fitted(self)
        return self.module_.readout(mouse_id).kernels().cpu().numpy()

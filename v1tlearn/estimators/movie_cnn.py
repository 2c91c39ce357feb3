"""Convolutional models of movies, with or without a memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from v1tlearn.estimators._architectures import MOVIE_CONVOLUTIONAL
from v1tlearn.estimators._build import Recipe
from v1tlearn.estimators._docs import MOVIE_CHANNELS, TIME, document
from v1tlearn.estimators._parameters import (
    DEPTH,
    HEADS,
    WIDTH,
    ReadoutParameters,
    TimeParameters,
    readout_maker,
)
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.nn import MovieCNNCore

_OF_CORE = (
    "n_layers",
    "hidden_channels",
    "input_kernel",
    "hidden_kernel",
    "input_time_kernel",
    "hidden_time_kernel",
    "causal",
    "recurrent",
    "memory_frames",
    "batch_norm_momentum",
    "laplace",
)

# The factorised benchmark of ecker-lab/sensorium_2023, notebooks/benchmarks_training.ipynb, and its
# training, sensorium/training/video_training_loop.py. Windows of 80 frames lose 18 there, as
# convolutions have no padding in time.
SENSORIUM_2023: dict[str, Any] = {
    "n_layers": 3,
    "hidden_channels": (32, 64, 128),
    "input_kernel": 11,
    "hidden_kernel": 5,
    "input_time_kernel": 11,
    "hidden_time_kernel": 5,
    "batch_norm_momentum": 0.7,
    "laplace": 10.0,
    "init_mu_range": 0.2,
    "init_sigma": 1.0,
    "readout_l1": 0.0,
    "readout_bias": "published_mean_over_std",
    "beyond_map": "zeros",
    "window_frames": 62,
    "core_pass": "per_mouse",
    "optimizer": "adamw",
    "lr": 0.005,
    "betas": (0.9, 0.999),
    "weight_decay": 0.01,
    "batch_size": 8,
    "max_epochs": 200,
    "loss_scale": "sqrt_recording",
    "penalty_scale": "absolute",
    "loss_epsilon": 1e-8,
    "schedule": "rounds",
    "lr_patience": 5,
    "lr_factor": 0.3,
    "max_lr_drops": 3,
    "precision": "tf32",
}


@document(architecture=MOVIE_CONVOLUTIONAL, behavior_mode=MOVIE_CHANNELS, time=TIME)
@dataclass(eq=False, repr=False, kw_only=True)
class MovieCNNRegressor(TimeParameters, ReadoutParameters, BaseEncodingRegressor):
    """Factorised 3-D convolutions, space then time, with a readout per mouse.

    Behaviour over time is appended to each frame as constant planes, and pupil positions over time
    move the readouts, as in the baselines of Sensorium 2023.

    {groups}

    Parameters
    ----------
    {parameters}

    {attributes}

    See Also
    --------
    MovieLNRegressor
    CNNRegressor : Of images, or of movies frame by frame.

    References
    ----------
    Turishcheva et al., "The dynamic Sensorium competition for predicting large-scale mouse visual
    cortex activity from videos", arXiv:2305.19654, 2023.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_movie_recordings(1, 5, 8, 2, 3, random_state=0))
    >>> est = v1.MovieCNNRegressor(
    ...     n_layers=2, hidden_channels=4, max_epochs=2, random_state=0)
    >>> est.fit(trials.sel(tier="train")).predict(trials.sel(tier="test"))["A"].shape
    (6, 90, 5)
    """

    n_layers: int = 3
    hidden_channels: int | Sequence[int] = 32
    input_kernel: int | tuple[int, int] = 9
    hidden_kernel: int = 5
    input_time_kernel: int = 11
    hidden_time_kernel: int = 5
    causal: bool = True
    recurrent: bool = False
    memory_frames: int = 20
    batch_norm_momentum: float = 0.1
    laplace: float = 1.0
    head: str = "elu"
    optimizer: str = "adam"
    lr: float = 0.005
    batch_size: int = 8
    max_epochs: int = 200

    _presets: ClassVar[dict[str, dict[str, Any]]] = {"sensorium2023": SENSORIUM_2023}
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseEncodingRegressor._parameter_constraints,
        **ReadoutParameters._parameter_constraints,
        **TimeParameters._parameter_constraints,
        "n_layers": [DEPTH],
        "hidden_channels": [WIDTH, tuple, list],
        "input_kernel": [WIDTH, tuple, list],
        "hidden_kernel": [WIDTH],
        "input_time_kernel": [DEPTH],
        "hidden_time_kernel": [DEPTH],
        "causal": ["boolean"],
        "recurrent": ["boolean"],
        "memory_frames": [WIDTH],
        "batch_norm_momentum": [Interval(Real, 0, 1, closed="right")],
        "laplace": [Interval(Real, 0, None, closed="left")],
        "head": [StrOptions(set(HEADS)), callable],
    }

    @classmethod
    def _recipe(cls, parameters: Mapping[str, Any]) -> Recipe:
        core = partial(MovieCNNCore, **{name: parameters[name] for name in _OF_CORE})
        head = HEADS.get(parameters["head"], parameters["head"])
        return Recipe(core, readout_maker(parameters), head)

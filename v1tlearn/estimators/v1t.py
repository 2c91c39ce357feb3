"""Vision-transformer models: V1T, and the ViT it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from v1tlearn.estimators._architectures import TRANSFORMER
from v1tlearn.estimators._build import Recipe
from v1tlearn.estimators._docs import B_MLP, READOUT_LAGS, document
from v1tlearn.estimators._parameters import (
    DEPTH,
    V1T_TRAINING,
    WIDTH,
    ReadoutParameters,
    TimeParameters,
    filtered_in_time,
    readout_maker,
)
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.nn import ViTCore

_RATE = Interval(Real, 0, 1, closed="left")
_OF_CORE = (
    "patch_size",
    "patch_stride",
    "tokenizer",
    "position_embedding",
    "token_grid",
    "patch_dropout",
    "n_blocks",
    "n_heads",
    "embed_dim",
    "mlp_dim",
    "attention",
    "attention_dropout",
    "mlp_dropout",
    "drop_path",
    "bias",
)
_PUBLISHED = {**V1T_TRAINING, "lr": 0.001647}


@document(architecture=TRANSFORMER, time=READOUT_LAGS)
@dataclass(eq=False, repr=False, kw_only=True)
class ViTRegressor(TimeParameters, ReadoutParameters, BaseEncodingRegressor):
    """Vision transformer core with a Gaussian readout per mouse; behaviour as image channels.

    {groups}

    Parameters
    ----------
    {parameters}

    {attributes}

    See Also
    --------
    V1TRegressor : With behaviour in every block.

    References
    ----------
    Li, Cornacchia, Rochefort and Onken, "V1T: large-scale mouse V1 response prediction using a
    Vision Transformer", TMLR, 2023.
    """

    patch_size: int = 8
    patch_stride: int = 1
    tokenizer: str = "unfold"
    position_embedding: str = "auto"
    token_grid: str = "true"
    patch_dropout: float = 0.0229
    n_blocks: int = 4
    n_heads: int = 4
    embed_dim: int = 155
    mlp_dim: int = 488
    attention: str = "standard"
    attention_dropout: float = 0.2544
    mlp_dropout: float = 0.2544
    drop_path: float = 0.0
    bias: bool = True
    core_l1: float = 0.5379
    readout_lags: int = 1
    betas: tuple[float, float] = (0.9, 0.9999)

    _presets: ClassVar[dict[str, dict[str, Any]]] = {"v1t2023": _PUBLISHED}
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseEncodingRegressor._parameter_constraints,
        **ReadoutParameters._parameter_constraints,
        **TimeParameters._parameter_constraints,
        "readout_lags": [DEPTH],
        "patch_size": [WIDTH],
        "patch_stride": [WIDTH],
        "tokenizer": [StrOptions({"unfold", "conv", "spt", "cct", "dual_norm"})],
        "position_embedding": [StrOptions({"auto", "learned", "sinusoidal"})],
        "token_grid": [StrOptions({"true", "published"})],
        "patch_dropout": [_RATE],
        "n_blocks": [DEPTH],
        "n_heads": [WIDTH],
        "embed_dim": [WIDTH],
        "mlp_dim": [WIDTH],
        "attention": [StrOptions({"standard", "lsa"})],
        "attention_dropout": [_RATE],
        "mlp_dropout": [_RATE],
        "drop_path": [_RATE],
        "bias": ["boolean"],
        "core_l1": [Interval(Real, 0, None, closed="left")],
    }

    @classmethod
    def _recipe(cls, parameters: Mapping[str, Any]) -> Recipe:
        core = partial(
            ViTCore, l1=parameters["core_l1"], **{name: parameters[name] for name in _OF_CORE}
        )
        n_lags = parameters.get("readout_lags", 1)  # of models saved before: frame by frame
        return Recipe(core, filtered_in_time(readout_maker(parameters), n_lags))


@document(architecture=TRANSFORMER, behavior_mode=B_MLP, time=READOUT_LAGS)
@dataclass(eq=False, repr=False, kw_only=True)
class V1TRegressor(ViTRegressor):
    """V1T: vision transformer core with behaviour in every block, Gaussian readout per mouse.

    {groups}

    Parameters
    ----------
    {parameters}

    {attributes}

    See Also
    --------
    ViTRegressor, CNNRegressor, LNRegressor

    References
    ----------
    Li, Cornacchia, Rochefort and Onken, "V1T: large-scale mouse V1 response prediction using a
    Vision Transformer", TMLR, 2023.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.V1TRegressor(patch_stride=4, n_blocks=1, embed_dim=8, mlp_dim=16, max_epochs=2,
    ...                       random_state=0).fit(trials.sel(tier="train"))
    >>> predictions = est.predict(trials.sel(tier="test"))
    >>> predictions["A"].shape
    (12, 5)
    """

    behavior_columns: str | Sequence[str] = "all"

    _published_behavior_mode: ClassVar[str] = "b_mlp"
    _presets: ClassVar[dict[str, dict[str, Any]]] = {"v1t2023": _PUBLISHED}
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ViTRegressor._parameter_constraints,
        "behavior_mode": [
            StrOptions(
                {
                    "auto",
                    "none",
                    "channels",
                    "b_mlp",
                    "b_mlp_first_block",
                    "b_mlp_shared",
                    "b_mlp_per_mouse",
                }
            )
        ],
    }

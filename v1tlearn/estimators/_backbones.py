"""Pretrained backbones: found by name or folder, read by transformers, never executed.

The library is the extra ``backbones``, and is imported when a backbone is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from v1tlearn._warn import warn
from v1tlearn.estimators._build import OversizedError, uncounted
from v1tlearn.estimators._parameters import WIDTH
from v1tlearn.nn import BackboneError, PretrainedViTCore
from v1tlearn.training import isolated

# What parameters that all models with a backbone have may be.
OF_BACKBONES: dict[str, list[Any]] = {
    "weights": [StrOptions({"pretrained"}), None],
    "block": [Interval(Integral, 0, None, closed="left"), list, tuple, np.ndarray],
    "normalize": [StrOptions({"none", "final", "layer"})],
    "upsample": [Interval(Integral, 1, 64, closed="both")],
    "patch_stride": [WIDTH, None],
    "pixel_scaling": [StrOptions({"per_image", "recording"})],
    "augment_positions": ["boolean"],
    "core_weight_decay": [Interval(Real, 0, None, closed="left"), None],
    "feature_cache": [str, os.PathLike, None],
    "cache_gigabytes": [Interval(Real, 0, None, closed="left")],
}
_OF_CORE = (
    "block",
    "tokens",
    "normalize",
    "patch_stride",
    "pixel_scaling",
    "augment_positions",
    "upsample",
)

Source = str | os.PathLike | dict[str, Any] | nn.Module


def check_backbone(parameters: Mapping[str, Any], chooser: str, example: str) -> None:
    """Check that there is a backbone where one is asked for, and warn of one without use.

    Parameters
    ----------
    parameters : mapping
    chooser : str
        Name of the parameter whose "pretrained" takes the backbone.
    example : str
        Name of a backbone.

    Raises
    ------
    ValueError
        If there is none.
    """
    chosen, backbone = parameters[chooser], parameters["backbone"]
    if isinstance(chosen, str) and chosen == "pretrained":
        if backbone is None:
            raise ValueError(
                f"{chooser}='pretrained' needs a backbone: the name of a model on Hugging Face, "
                f"such as backbone={example!r}, or a folder that holds one."
            )
    elif backbone is not None:
        warn(
            f"the backbone has no effect with {chooser}={chosen!r}: set {chooser}='pretrained', "
            "or leave the backbone out."
        )


def pretrained_core(
    parameters: Mapping[str, Any], input_shape: tuple[int, int, int], fine_tune: str | int
) -> PretrainedViTCore:
    """Make the core that the parameters of an estimator ask for, with its backbone.

    Parameters
    ----------
    parameters : mapping
    input_shape : (int, int, int)
    fine_tune : "none", "all" or int
        What of it is trained.

    Returns
    -------
    PretrainedViTCore
        Weights that have a name, and are not trained, count as kept elsewhere.

    Raises
    ------
    BackboneError
        If there is no such backbone, or it does not take these images.
    """
    source, weights = parameters["backbone"], parameters["weights"]
    is_named = isinstance(source, str | os.PathLike)
    loaded = load_backbone(source, weights)
    try:
        return PretrainedViTCore(
            input_shape,
            loaded,
            weight_decay=parameters["core_weight_decay"],
            kept_elsewhere=is_named and weights is not None,
            fine_tune=fine_tune,
            **{name: parameters[name] for name in _OF_CORE},
        )
    except BackboneError as error:
        raise BackboneError(f"{error} The backbone is {source}.") if is_named else error from error


def load_backbone(source: Source, weights: str | None) -> nn.Module:
    """Load a vision transformer, or make a random one.

    Parameters
    ----------
    source : str, path, dict or Module
        The name of a model on Hugging Face; a folder that ``save_pretrained`` of such a model
        wrote; a configuration, with its ``model_type``; or a model, which is copied.
    weights : "pretrained" or None
        None makes random weights for a configuration, by the generators of torch.

    Returns
    -------
    Module
        On the CPU, in float32.

    Raises
    ------
    BackboneError
        If there is no such model or access to it, or its files are damaged.
    ImportError
        Without transformers.
    """
    if isinstance(source, nn.Module):
        if weights is None:
            raise BackboneError(
                "weights=None asks for random weights, but backbone is a module, which has some: "
                "give its configuration, backbone=model.config.to_dict(), or leave weights as is."
            )
        return deepcopy(source).cpu().float()
    transformers = _transformers()
    if isinstance(source, dict):
        if weights is not None:
            raise BackboneError(
                "backbone is a configuration, which has no weights: set weights=None for random "
                "ones, or give a name or a folder."
            )
        return _random(transformers, _configuration(transformers, source))
    name = os.path.expanduser(os.fspath(source))
    local = os.path.isdir(name)
    if not local and _is_path(source, name):
        raise BackboneError(
            f"the folder of the backbone, {name}, is not there: bring it back to this place, or "
            "fit anew with another backbone. It is one that save_pretrained(...) of a model of "
            "transformers wrote."
        )
    with _errors_named(name, local=local), _quiet(transformers):
        if weights is None:
            found = transformers.AutoConfig.from_pretrained(
                name, local_files_only=local, trust_remote_code=False
            )
            return _random(transformers, found)
        with isolated(), uncounted():  # draws what it then replaces
            model, told = transformers.AutoModel.from_pretrained(
                name,
                local_files_only=local,
                dtype=torch.float32,
                output_loading_info=True,
                use_safetensors=True,  # never the pickles that some have beside them
                trust_remote_code=False,  # nor code that comes with them
            )
    _check_complete(name, told)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # perhaps a map of the file, which may change
    return model


def whole_path(source: Source) -> Source:
    """Give the whole path of a folder that is there; what else a backbone may be stays.

    Parameters
    ----------
    source : str, path, dict or Module
        As of `load_backbone`.

    Returns
    -------
    str, path, dict or Module
    """
    if isinstance(source, str | os.PathLike):
        path = os.path.abspath(os.path.expanduser(os.fspath(source)))
        return path if os.path.isdir(path) else source
    return source


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "pretrained backbones are read with transformers, which is not here: install the extra "
            '"backbones", from the folder of v1tlearn with pip install -e ".[backbones]".'
        ) from error
    return transformers


def _is_path(source: Source, name: str) -> bool:
    """Whether a text can only be a path: names on Hugging Face are ``owner/model`` at most."""
    told = isinstance(source, os.PathLike) or os.path.isabs(name)
    return told or name.startswith(".") or "\\" in name or name.count("/") > 1


def _configuration(transformers: Any, source: dict[str, Any]) -> Any:
    values = dict(source)
    kind = values.pop("model_type", None)
    if kind is None:
        raise BackboneError(
            'the configuration of the backbone has no "model_type": expected for instance '
            '{"model_type": "dinov2", "hidden_size": 384}.'
        )
    try:
        return transformers.AutoConfig.for_model(kind, **values)
    except _wrong(ValueError) as error:
        raise BackboneError(f"the configuration of the backbone is not one: {error}") from error


def _random(transformers: Any, configuration: Any) -> nn.Module:
    try:
        with _quiet(transformers):
            return transformers.AutoModel.from_config(
                configuration, trust_remote_code=False
            ).float()
    except OversizedError:
        raise
    except _wrong(ValueError) as error:
        raise BackboneError(
            f"no backbone can be made of a configuration of {type(configuration).__name__}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _wrong(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Errors of values in a configuration of a wrong type or out of range, and others."""
    from huggingface_hub.errors import StrictDataclassError

    return StrictDataclassError, ArithmeticError, AttributeError, LookupError, TypeError, *others


def _check_complete(name: str, told: Mapping[str, Any]) -> None:
    """Refuse files that lack weights, for which the library would draw random ones."""
    lacking = sorted(str(n) for n in told["missing_keys"] if "pooler" not in str(n))
    if lacking:
        raise BackboneError(
            f"the files of the backbone {name} lack {len(lacking)} of its weights, the first "
            f"{lacking[0]}, which would be random numbers: get them anew."
        )


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Neither bars, reports nor lines about every new try: what matters becomes an error."""
    from huggingface_hub.utils import logging as hub_log

    log = transformers.utils.logging
    bars, levels = log.is_progress_bar_enabled(), [of.get_verbosity() for of in (log, hub_log)]
    log.disable_progress_bar()
    for of in (log, hub_log):
        of.set_verbosity_error()
    try:
        yield
    finally:
        for of, level in zip((log, hub_log), levels, strict=True):
            of.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


@contextmanager
def _errors_named(name: str, *, local: bool) -> Iterator[None]:
    """Say what to do about whatever goes wrong while files are fetched and read."""
    try:
        yield
    except SafetensorError as error:
        raise BackboneError(
            f"the weights of the backbone {name} are damaged or cut short ({error}): get them anew."
        ) from error
    except _wrong(OSError, ValueError, RuntimeError, EOFError) as error:
        if isinstance(error, BackboneError | OversizedError | torch.OutOfMemoryError):
            raise
        raise BackboneError(_words(name, error, local=local)) from error


def _words(name: str, error: Exception, *, local: bool) -> str:
    if local:
        return (
            f"the folder {name} holds no backbone that can be read: {_first_line(error)} Expected "
            "what save_pretrained(...) of a model of transformers wrote, config.json and "
            f"model.safetensors; there is {', '.join(sorted(os.listdir(name))[:5]) or 'nothing'}."
        )
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    causes = list(_chain(error))
    if any(isinstance(e, GatedRepoError) for e in causes):
        return (
            f"the weights of {name} are given to those alone who accepted their licence: do so at "
            f"https://huggingface.co/{name}, log in (hf auth login, or the variable HF_TOKEN), and "
            "try again; or give a folder that holds them. The weights of DINOv2, such as "
            "facebook/dinov2-small, need no access."
        )
    if any(isinstance(e, RepositoryNotFoundError) for e in causes):  # said of private ones, too
        return (
            f"there is neither a folder {name!r} here nor a model of this name on Hugging Face, or "
            "it is private: check the name; log in (hf auth login, or the variable HF_TOKEN) if it "
            "is private; or give a folder."
        )
    return (
        f"the backbone {name!r} is neither a folder here nor a model that could be had from "
        f"Hugging Face: {_first_line(error)} Check the name and the connection, or give a folder."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = " ".join(lines[: 1 + lines[0].endswith(":")])
    return line if line.endswith(".") else f"{line}."


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__

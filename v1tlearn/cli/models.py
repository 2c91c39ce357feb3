"""Models by name, with parameters that a command line gives; and those that were saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sklearn.utils._param_validation import InvalidParameterError

from v1tlearn._by_name import no_parameter, parameter_names, public_kinds
from v1tlearn._guesses import did_you_mean, guess
from v1tlearn._opening import json_object, read_plain, reading
from v1tlearn._paths import MODEL_FILE
from v1tlearn.cli.errors import UsageError
from v1tlearn.estimators import EncodingRegressor, load
from v1tlearn.estimators.base_trained import TrainedEstimator
from v1tlearn.training import resolve_device

_SAVED = "model"  # the folder within that of a run
_NOT_OVER = ("running", "interrupted", "failed")  # attempts, as a run tells of its last one


def kinds() -> dict[str, type[Any]]:
    """Give the classes of models that can be named, by name."""
    found = [kind for kind in public_kinds() if issubclass(kind, TrainedEstimator)]
    return {kind.__name__: kind for kind in found if kind is not EncodingRegressor}


def make_estimator(name: str, preset: str | None, parameters: Mapping[str, Any]) -> Any:
    """Make a model that is not fitted yet.

    Parameters
    ----------
    name : str
    preset : str or None
    parameters : mapping

    Returns
    -------
    estimator

    Raises
    ------
    UsageError
        If there is no such model, preset or parameter, or a value is none of those allowed.
    """
    known = kinds()
    if name == EncodingRegressor.__name__:
        raise UsageError(f"--model {name} takes a core of your own, which only Python can give.")
    if name not in known:
        found = guess(name, known) or guess(f"{name}Regressor", known)
        raise UsageError(
            f"there is no model {name!r}{did_you_mean(found)} The models are {', '.join(known)}."
        )
    kind = known[name]
    names = parameter_names(kind)
    for given in parameters:
        if given not in names:
            raise UsageError(no_parameter(kind, given, names))
    try:
        if preset is None:
            estimator = kind(**parameters)
        elif hasattr(kind, "from_preset"):
            estimator = kind.from_preset(preset, **parameters)
        else:
            raise UsageError(f"{name} has no presets.")
        estimator._validate_params()
    except (InvalidParameterError, ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    return estimator


def check_device(device: str) -> None:
    """Raise where there is no such device, ahead of all work.

    Parameters
    ----------
    device : str

    Raises
    ------
    UsageError
        If it is none, or not on this machine.
    """
    try:
        resolve_device(device)
    except ValueError as error:
        raise UsageError(str(error)) from error


def load_model(path: Path, device: str) -> Any:
    """Open a saved model, or the one in the folder of a run.

    Parameters
    ----------
    path : Path
    device : str

    Returns
    -------
    estimator
        Fitted.

    Raises
    ------
    UsageError
        If nothing is there, or there is no such device.
    ValueError
        If it holds no model, or a damaged one; or a run whose last attempt did not come to its end.
    """
    check_device(device)
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or directory. Expected a saved model.")
    if (path / MODEL_FILE).is_file():
        return load(path, device)
    saved, states = path / _SAVED, sorted((path / "checkpoints").glob("epoch-*"))
    if (saved / MODEL_FILE).is_file():
        status = _status(path)
        if status in _NOT_OVER:
            raise ValueError(
                f"the last attempt of the run in {path} has the status {status!r}, and {saved} may "
                "be the model of an earlier one: finish the run (v1tlearn fit with --resume), or "
                f"give that model, {saved}"
                + (f", or the last state, {states[-1]}." if states else ".")
            )
        return load(saved, device)
    if (path / "run.json").is_file():
        raise ValueError(
            f"{path} holds a run that has not come to its end"
            + (f": go on with it, or give its last state, {states[-1]}." if states else ".")
        )
    return load(path, device)


def _status(folder: Path) -> Any:
    """How the last attempt of a run ended; None where nothing tells."""
    file = folder / "run.json"
    if not file.is_file():
        return None
    with reading(file, "does not tell of a run", f"give the model, {folder / _SAVED}"):
        return json_object(read_plain(file)).get("status")

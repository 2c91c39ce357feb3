"""Open any saved estimator, without being told of which class it is.

Classes are looked up by name among those of this package; a name in a file never imports anything.
"""

from __future__ import annotations

from pathlib import Path

from v1tlearn._instead import path_of
from v1tlearn.estimators._files import check_holds_model, class_of, subclasses
from v1tlearn.estimators.base import SavingMixin


def load(path: str | Path, device: str = "auto") -> SavingMixin:
    """Load whatever estimator was saved, a model, an ensemble or a decoder.

    Nothing in the files is executed.

    Parameters
    ----------
    path : str or Path
        A directory that the `save` of an estimator wrote.
    device : str, default="auto"
        Where the model goes, whatever it was fitted on.

    Returns
    -------
    CNNRegressor, V1TRegressor, EnsembleRegressor, DINAAligner, RidgeDecoder or another
        Fitted.

    Raises
    ------
    TypeError
        If `path` is no path.
    FileNotFoundError, NotADirectoryError
        If there is nothing at `path`, or a file.
    ValueError
        If the directory holds no model, with what else it might be; if it is damaged; or if it is
        of a class that this package does not have, whose own ``load`` is named.

    See Also
    --------
    Trials.open : Opens recordings.
    fetch_model : Gets a model by its name, from a registry.
    load_v1t : Opens models of the published V1T code.
    load_sensorium : Opens models of the Sensorium 2022 code.
    """
    path = path_of("path", path, "load(path)")
    check_holds_model(path)
    name = class_of(path)
    kinds = {kind.__name__: kind for kind in subclasses(SavingMixin)}
    ours = {n: k for n, k in kinds.items() if k.__module__.split(".")[0] == "v1tlearn"}
    if name not in ours:
        raise ValueError(
            f"{path} holds a {name}, which is no class of v1tlearn: load it with {name}.load(...)"
            + ("." if name in kinds else ", after importing that class.")
        )
    return ours[name].load(path, device)

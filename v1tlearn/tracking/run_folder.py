"""A folder for a training, with a file that says what ran: model, recordings, versions, course."""

from __future__ import annotations

import json
import math
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from v1tlearn._instead import path_of
from v1tlearn._models import as_ever, last_step
from v1tlearn._opening import first_line, json_object, read_plain, reading
from v1tlearn._replacing import make_folder, only_one_in, replacing
from v1tlearn._values import plain, without_addresses
from v1tlearn._versions import package_versions, processor_info
from v1tlearn.training import is_first, join
from v1tlearn.trials import Trials
from v1tlearn.trials._fingerprint import describe_recording

FORMAT = 1
_TOLD = {"seed_": "seed", "device_": "device", "precision_": "precision"}
_TOLD |= {"best_epoch_": "best_epoch", "stop_reason_": "stop_reason"}
_KINDS: dict[str, Any] = {"attempts": list, "history": list, "parameters": dict, "model": str}
_KINDS |= {"recordings": dict, "validation": dict | None, "started": str}
# Parameters that may change where a training goes on.
_FREE = ("max_epochs", "verbose", "n_jobs", "device", "warm_start")


class RunFolder:
    """A folder that says what ran in it: with it, a training, and as ``on_epoch`` its course.

    Its file ``run.json`` is written when the block begins, after every epoch and at the end, whole
    or not at all. A block that begins in the folder of the same run, after a crash or to go on, is
    noted there as another attempt; another run is refused, and so is a second process at a time.
    Of processes that train together (`torchrun`), which all enter the block, the first one writes.

    Parameters
    ----------
    folder : path
        Made where it is missing.
    estimator : V1TRegressor, EnsembleRegressor or another estimator
        What is fitted in the block; a Pipeline, too.
    trials : Trials
        What it is fitted to. It is read once, for the fingerprint.
    validation : Trials, optional
        What it is validated with, where `fit` is given that.

    Attributes
    ----------
    path : Path
        The folder.
    checkpoints : Path
        A folder in it for the ``checkpoint_dir`` of the fit.

    Raises
    ------
    FileExistsError
        As the block begins: if the folder holds another run, or another process is at work in it.
    TypeError
        If the estimator is none, or trials are no `Trials`.
    ValueError
        If what lies there as ``run.json`` is none.
    RuntimeError
        As a fit begins that is given it as ``on_epoch`` outside its block.

    See Also
    --------
    CSVLog : A table of the epochs.

    Notes
    -----
    ``run.json`` holds ``format``; ``model``, its class; ``parameters``; ``recordings`` and
    ``validation``, for each mouse the numbers of trials and neurons and a fingerprint of the trials
    given (the card of a model, ``save(card=...)``, has the same of those trained on: without the
    trials that ``validation_fraction`` set aside, so that it differs where some were);
    ``versions`` of Python and packages; ``machine``;
    ``started`` and ``ended``, in UTC; ``status``, "running", "finished", "interrupted" or "failed";
    ``error``, its first line; as soon as they are known ``seed``, ``device``, ``precision``,
    ``best_epoch`` and ``stop_reason``, of a fit within the block; ``history``, a record per epoch;
    and ``attempts``, when which process began and how that ended. Where the process was killed, the
    status stays "running" and ``updated`` tells of when it last was. What JSON does not know is
    text, and what is not finite null.

    Records of candidates that other processes train cannot be noted: give ``on_epoch`` a `CSVLog`
    there.

    Examples
    --------
    >>> import tempfile
    >>> import json
    >>> import v1tlearn as v1
    >>> from v1tlearn.tracking import RunFolder
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0)).sel(tier="train")
    >>> model = v1.LNRegressor(hidden_channels=4, batch_size=16, max_epochs=2, random_state=0)
    >>> with RunFolder(tempfile.mkdtemp(), model, trials) as run:
    ...     model = model.fit(trials, on_epoch=run, checkpoint_dir=run.checkpoints)
    ...     model.save(run.path / "model")
    >>> told = json.loads((run.path / "run.json").read_text())
    >>> told["status"], told["stop_reason"], len(told["history"])
    ('finished', 'max_epochs', 2)
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        estimator: Any,
        trials: Trials,
        validation: Trials | None = None,
    ) -> None:
        self.path = path_of("folder", folder, "RunFolder(folder, model, trials)").absolute()
        if not hasattr(estimator, "get_params") or isinstance(estimator, type):
            raise TypeError(
                f"estimator is {estimator!r:.60}: expected what is fitted, such as CNNRegressor()."
            )
        for name, given in (("trials", trials), ("validation", validation)):
            if not isinstance(given, Trials) and not (given is None and name == "validation"):
                raise TypeError(f"{name} is a {type(given).__name__}: expected Trials.")
        self.checkpoints = self.path / "checkpoints"
        self._estimator, self._trials, self._validation = estimator, trials, validation
        self._held = ExitStack()
        self._document: dict[str, Any] = {}  # while the block is under way
        self._before: dict[str, int] = {}  # what was fitted when it began

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r}, {type(self._estimator).__name__})"

    def __enter__(self) -> Self:
        join().first(self._begin)
        return self

    def _begin(self) -> None:
        make_folder(self.path)
        with ExitStack() as held:
            held.enter_context(only_one_in(self.path, "a training"))
            self._before = _fitted(self._estimator)
            earlier, attempts = read_run(self.path), []
            document = self._described(None if earlier is None else earlier["recordings"])
            if earlier is not None:
                self._check_same(earlier, document)
                attempts = earlier["attempts"]
                document["history"] = earlier["history"]
                document["started"] = earlier["started"]
            attempt: dict[str, Any] = {"started": _now(), "ended": None, "status": "running"}
            attempt |= {"host": socket.gethostname(), "process": os.getpid()}
            self._document = document | {"attempts": [*attempts, attempt]}
            self._write()
            self._held = held.pop_all()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not is_first():
            return
        with self._held:
            status = "finished"
            if error is not None:
                status = "failed" if isinstance(error, Exception) else "interrupted"
                self._document["error"] = first_line(error)
            now = _now()
            self._document |= {"status": status, "ended": now}
            self._document["attempts"][-1] |= {"status": status, "ended": now}
            history = getattr(last_step(self._estimator), "history_", None)
            if error is None and history is not None and self._is_fitted_here():
                self._document["history"] = list(history)
            self._write()
            self._document, self._before = {}, {}

    def begin(self, history: Sequence[Mapping[str, Any]], candidate: int | None = None) -> None:
        """Bring the history to what was trained already.

        Parameters
        ----------
        history : sequence of dict
            Records of the epochs that a training goes on from.
        candidate : int, optional
            Whose they are.

        Raises
        ------
        RuntimeError
            If no block is under way.
        """
        self._check_entered()
        label = {} if candidate is None else {"candidate": candidate}
        others = [r for r in self._document["history"] if r.get("candidate") != candidate]
        self._document["history"] = [*others, *({**label, **record} for record in history)]

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Note an epoch.

        Parameters
        ----------
        record : dict

        Raises
        ------
        RuntimeError
            If no block is under way.
        """
        self._check_entered()
        self._document["history"].append(dict(record))
        self._write()

    def __getstate__(self) -> dict[str, Any]:
        """Stay in the process that writes the file."""
        raise TypeError(
            "a RunFolder writes its file from one process, and candidates that others train "
            "cannot tell it of their epochs: give on_epoch a CSVLog, or set n_jobs=None."
        )

    def _check_entered(self) -> None:
        if not self._document:
            raise RuntimeError(
                f"{self!r} is told of a training outside its block: fit within "
                "`with RunFolder(folder, model, trials) as run:`."
            )

    def _is_fitted_here(self) -> bool:
        """Whether the estimator holds another fit than when the block began."""
        return _fitted(self._estimator) != self._before

    # -------------------------------------------------------------------------------------- content

    def _described(self, like: Mapping[str, str] | None) -> dict[str, Any]:
        """What is to run, its recordings described as an earlier attempt described them."""
        last, validation = last_step(self._estimator), self._validation
        now = _now()
        return {
            "format": FORMAT,
            "model": type(last).__name__,
            "parameters": parameters_as_json(self._estimator),
            "recordings": describe_recording(self._trials, self._trials.responses, like),
            "validation": None
            if validation is None
            else describe_recording(validation, validation.responses, like),
            "versions": package_versions(),
            "machine": {
                **processor_info(),
                "cores": os.cpu_count(),
                "command": list(sys.argv),
            },
            "status": "running",
            "started": now,
            "updated": now,
            "ended": None,
            "error": None,
            "history": [],
        }

    def _check_same(self, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        told = []
        if earlier["model"] != now["model"]:
            told.append(f"model (was {earlier['model']}, is {now['model']})")
        compared = dict(earlier)
        compared["parameters"] = _completed(earlier["parameters"], self._estimator)
        for what in ("parameters", "recordings", "validation"):
            was, given = compared[what] or {}, now[what] or {}
            told += [
                f"{what} {name} (was {was.get(name)!r}, is {given.get(name)!r})"
                for name in dict.fromkeys([*was, *given])
                if was.get(name) != given.get(name) and name not in _FREE
            ]
        if told:
            raise FileExistsError(
                f"{self.path} holds another run; there differ: {'; '.join(told)}. Give what that "
                "run was given, or another folder."
            )

    def _write(self) -> None:
        last = last_step(self._estimator)
        for attribute, name in _TOLD.items() if self._is_fitted_here() else ():
            with suppress(AttributeError):  # not fitted, or of a search that has none
                self._document[name] = getattr(last, attribute)
        self._document["updated"] = _now()
        text = json.dumps(as_json(self._document), indent=1, allow_nan=False)
        with replacing(self.path / "run.json") as beside:
            beside.write_text(text + "\n", encoding="utf-8")


def read_run(folder: Path) -> dict[str, Any] | None:
    """Read what ran in a folder; None where nothing did.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    dict or None

    Raises
    ------
    ValueError
        If the file there is no description of a run, or one of a later version.
    """
    path = folder / "run.json"
    if not path.exists():
        return None
    remedy = "remove it, or give another folder"
    with reading(path, "does not tell of a run", remedy):
        found = json_object(read_plain(path))
        if found["format"] != FORMAT:
            raise ValueError(
                f"it has format {found['format']!r}, this version reads {FORMAT}: update v1tlearn"
            )
        for name, kind in _KINDS.items():
            if not isinstance(found[name], kind):
                raise TypeError(f"{name} is a {type(found[name]).__name__}")
        for name in ("attempts", "history"):
            if wrong := [one for one in found[name] if not isinstance(one, dict)]:
                raise TypeError(f"{name} holds a {type(wrong[0]).__name__}")
        return found


def parameters_as_json(estimator: Any) -> dict[str, Any]:
    """Parameters of an estimator, and of those inside, as JSON knows them.

    Parameters
    ----------
    estimator : estimator

    Returns
    -------
    dict
    """
    return {name: as_json(value) for name, value in estimator.get_params(deep=False).items()}


def _completed(were: Any, estimator: Any) -> Any:
    """Parameters of an earlier run, with those that came later: these count as they always were."""
    if isinstance(were, list) and isinstance(estimator, list | tuple):  # the steps of a Pipeline
        same = len(were) == len(estimator)
        return [_completed(*pair) for pair in zip(were, estimator, strict=True)] if same else were
    if not isinstance(were, dict) or not isinstance(estimator, BaseEstimator):
        return were
    if "parameters" in were:
        return were | {"parameters": _completed(were["parameters"], estimator)}
    before = {name: as_json(value) for name, value in as_ever(type(estimator)).items()}
    inner = estimator.get_params(deep=False)
    return {n: _completed(were.get(n, before.get(n)), inner.get(n)) for n in before | were}


def as_json(value: Any) -> Any:
    """Write a value as JSON knows it: estimators as class and parameters, the rest as text.

    Parameters
    ----------
    value : object

    Returns
    -------
    object
    """
    value = plain(value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [as_json(entry) for entry in value]
    if isinstance(value, BaseEstimator):
        return {"class": type(value).__name__, "parameters": parameters_as_json(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return without_addresses(str(value))


def _fitted(estimator: Any) -> dict[str, int]:
    """Identities of what the last step has learned, which a fit makes beside those of before."""
    learned = getattr(last_step(estimator), "__dict__", {})
    return {n: id(v) for n, v in learned.items() if n.endswith("_") and not n.startswith("_")}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""Cards of saved models: what a model was fitted on, how good it is, and what may be done with it.

A card is a text for people, `README.md` beside the model, in the form that hubs of models show.
Nothing is read of it.
"""

from __future__ import annotations

import hashlib
import html
import json
import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from v1tlearn._opening import printable, read_plain
from v1tlearn._replacing import replacing
from v1tlearn._urls import REPOSITORY_URL
from v1tlearn.estimators._fitted import Fitted

CARD_FILE = "README.md"
_LIBRARY = "library_name: v1tlearn"
_KEYS = ("title", "description", "licence", "scores")
_PARAMETERS = ["parameter", "value"]
_WORDS_OF_YAML = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
_MOST_BYTES = 2**20
_OF_TRAINING = ("v1tlearn", "torch", "numpy", "scikit-learn")


@dataclass(frozen=True)
class FittedOn:
    """What a model was fitted on.

    Attributes
    ----------
    recordings : dict of str to dict
        Per mouse "trials", "neurons" and "hash", the fingerprint; some may not be known.
    image_shape : tuple of int
        Channels, height, width.
    behavior_names : sequence of str
    frame_rate : float or None
    """

    recordings: Mapping[str, Mapping[str, Any]]
    image_shape: tuple[int, int, int]
    behavior_names: Sequence[str] = ()
    frame_rate: float | None = None


def fitted_on(fitted: Fitted) -> FittedOn:
    """Gather what a trained model was fitted on."""
    told = fitted.trained_on or {}
    recordings = {
        mouse: {"neurons": known.n_neurons} | dict(told.get(mouse, {}))
        for mouse, known in fitted.mice.items()
    }
    names = next(iter(fitted.mice.values())).behavior_names
    return FittedOn(recordings, fitted.image_shape, names or (), fitted.frame_rate)


def check_card(card: Any) -> dict[str, Any]:
    """Return what a card is to say, or raise where it says nothing known."""
    if not isinstance(card, Mapping) or set(card) - set(_KEYS):
        came = list(card) if isinstance(card, Mapping) else f"a {type(card).__name__}"
        raise ValueError(f"card is {came}: expected a dict with any of {', '.join(_KEYS)}.")
    told = {name: value for name, value in card.items() if value is not None}
    for name in ("title", "description", "licence"):
        if not isinstance(told.get(name, ""), str):
            raise TypeError(f"card: {name} is a {type(told[name]).__name__}, expected text.")
    if "\n" in told.get("licence", "") + told.get("title", ""):
        raise ValueError("card: licence and title are one line each, the licence best an SPDX id.")
    scores = told.get("scores")
    if scores is not None and not isinstance(scores, pd.DataFrame | Mapping):
        raise TypeError(
            f"card: scores are a {type(scores).__name__}, expected a table, as score_table gives, "
            "or a dict of scores by name."
        )
    return told


def write_card(
    path: Path,
    kind: type,
    parameters: Mapping[str, Any],
    fitted: FittedOn | None,
    card: Mapping[str, Any],
) -> None:
    """Write the card of a model into its folder; an earlier one is replaced."""
    text = _text(path, kind, parameters, fitted, card)
    with replacing(path / CARD_FILE) as new:
        new.write_text(text, encoding="utf-8")


def check_replaceable(path: Path) -> None:
    """Refuse to write the card of a model over what somebody wrote himself."""
    found = path / CARD_FILE
    if found.exists() and not (found.is_file() and _is_card(found)):
        raise FileExistsError(
            f"{found} is there, and no card of v1tlearn: rename it, or save without card."
        )


def check_tells_of(card: Path, tensors: Path) -> None:
    """Refuse a card of another model, as a process leaves it that is killed as it saves one."""
    told = re.findall(r"\| \S+\.safetensors \| ([0-9a-f]{64}) \|", _read(card))
    if told and sha256_of(tensors) not in told:
        raise ValueError(
            f"{card} tells of another model than {tensors} is of: save the model with its card "
            "anew, or remove the card."
        )


def licence_in(card: Path) -> str | None:
    """The licence that the head of a card tells; None where it tells none."""
    text = _read(card)
    head = text.partition("\n---")[0] if text.startswith("---") else ""
    found = re.search(r"^license:[ \t]*(.*?)\s*$", head, re.MULTILINE)
    told = "" if found is None else found[1]
    if told.startswith('"'):
        with suppress(ValueError):
            told = str(json.loads(told))
    return told.strip("\"'") or None


def remove_card(path: Path) -> None:
    """Remove the card of an earlier model, which tells of that; not what somebody wrote himself."""
    found = path / CARD_FILE
    if found.is_file() and _is_card(found):
        found.unlink(missing_ok=True)


def _is_card(path: Path) -> bool:
    text = _read(path)
    return text.startswith("---\n") and _LIBRARY in text.partition("\n---\n")[0]


def _read(path: Path) -> str:
    return read_plain(path)[:_MOST_BYTES].decode("utf-8", "replace")


def _text(
    path: Path,
    kind: type,
    parameters: Mapping[str, Any],
    fitted: FittedOn | None,
    card: Mapping[str, Any],
) -> str:
    name = kind.__name__
    licence = card.get("licence")
    title = card.get("title", f"{name} of v1tlearn")
    head = ["---", _LIBRARY, f"license: {_quoted(licence)}" if licence else "", "---"]
    parts = ["\n".join(line for line in head if line), f"# {title}"]
    parts += [card["description"].strip()] if "description" in card else []
    parts += [f"Licence: {licence or 'not told: ask whoever made it before you share it'}."]
    parts += ["## Fitted on", *_data(fitted)]
    if "scores" in card:
        parts += ["## Scores", _scores(card["scores"])]
    parts += [
        "## Use",
        f'```python\nimport v1tlearn as v1\n\nmodel = v1.load("{path.name}")\n'
        "predictions = model.predict(trials)\n```",
        f"With [v1tlearn]({REPOSITORY_URL}). Nothing in the files is executed.",
        "## Model",
        _table([[n, _Code(repr(v))] for n, v in _changed(kind, parameters).items()], _PARAMETERS),
        "## Files and versions",
        _table(_files_of(path), ["file", "SHA-256"]),
        "Saved with Python "
        + ", ".join([platform.python_version(), *(f"{one} {version(one)}" for one in _OF_TRAINING)])
        + ".",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _data(fitted: FittedOn | None) -> list[str]:
    if fitted is None:
        return ["Not told."]
    rows = [
        [mouse, *(str(told.get(what, "not told")) for what in ("trials", "neurons", "hash"))]
        for mouse, told in fitted.recordings.items()
    ]
    channels, height, width = fitted.image_shape
    said = f"Stimuli of {channels} × {height} × {width} (channels, height, width)"
    if fitted.frame_rate is not None:
        said += f", movies of {fitted.frame_rate:g} frames per second"
    names = fitted.behavior_names
    said += f"; behaviour: {_cell(', '.join(names))}." if names else "; no behaviour."
    header = ["mouse", "training trials", "neurons", "fingerprint of the data"]
    return [_table(rows, header), said]


def _scores(scores: pd.DataFrame | Mapping[str, Any]) -> str:
    if isinstance(scores, Mapping):
        return _table([[n, _number(v)] for n, v in scores.items()], ["metric", "score"])
    rows = [[_number(value) for value in row] for row in scores.itertuples(index=False)]
    index, header = scores.index, list(scores.columns)
    if isinstance(index, pd.RangeIndex) and index.name is None:  # a count of the rows
        return _table(rows, header)
    labels = [label if isinstance(label, tuple) else (label,) for label in index]
    rows = [[*map(_number, own), *row] for own, row in zip(labels, rows, strict=True)]
    return _table(rows, ["" if name is None else name for name in index.names] + header)


def _number(value: Any) -> str:
    """Three decimals, or three digits where these would tell little of a small number."""
    if not isinstance(value, float | np.floating):
        return str(value)
    return f"{value:.3g}" if 0 < abs(float(value)) < 0.01 else f"{value:.3f}"


def _changed(kind: type, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that are not at their defaults, but for those that are of the machine."""
    defaults = {name: known.default for name, known in signature(kind).parameters.items()}
    told = {n: v for n, v in parameters.items() if n not in ("device", "verbose")}
    return {n: v for n, v in told.items() if n not in defaults or repr(defaults[n]) != repr(v)}


def _files_of(path: Path) -> list[list[str]]:
    names = sorted(file.name for file in path.glob("*.safetensors"))
    return [[name, sha256_of(path / name)] for name in names]


def sha256_of(path: Path) -> str:
    """Checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _table(rows: list[list[str]], header: list[Any]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


class _Code(str):
    """Text that is shown as code, in which Markdown and HTML mean nothing."""


def _cell(value: Any) -> str:
    """Text as it is: what Markdown or HTML would make of it, names of mice may hold."""
    text = printable(re.sub(r"\s+", " ", str(value)))
    if isinstance(value, _Code):
        return f"`{text.replace('`', chr(39))}`".replace("|", "\\|")
    return html.escape(re.sub(r"([\\`*|!\[\]])", r"\\\1", text), quote=False)


def _quoted(value: str) -> str:
    """Text in YAML: plain where nothing in it has a meaning, else as JSON, which YAML knows."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9.+-]*", value) and value.lower() not in _WORDS_OF_YAML:
        return value
    return printable(json.dumps(value, ensure_ascii=False))

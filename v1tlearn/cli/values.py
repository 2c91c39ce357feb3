"""Values of parameters, as text on a command line and in files: literals of JSON, never code."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from v1tlearn._opening import read_plain, reading
from v1tlearn.cli.errors import UsageError

_MOST_BYTES = 2**20
_OF_PYTHON = {"True": "true", "False": "false", "None": "null"}
_WORD = re.compile(r"[A-Za-z_./~][\w./~:+-]*")  # an option, a device, a path


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``name=value`` several times.

    Parameters
    ----------
    texts : sequence of str

    Returns
    -------
    dict

    Raises
    ------
    UsageError
        If one is none, a name comes twice, or a value is neither JSON nor a plain word.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--set {text}: expected NAME=VALUE, as in --set lr=0.001.")
        if name in found:
            raise UsageError(f"--set gives {name} twice.")
        found[name] = _literal(name, value)
    return found


def _literal(name: str, text: str) -> Any:
    try:
        return _from_json(text)
    except ValueError:
        pass
    if text in _OF_PYTHON:
        raise UsageError(f"--set {name}={text}: write {_OF_PYTHON[text]}, as JSON does.")
    if _WORD.fullmatch(text) and not _is_number(text):
        return text
    raise UsageError(
        f'--set {name}={text}: expected JSON, such as 0.1, 1e-3, true, null, [9, 7] or "text", in '
        f"quotation marks of the shell where it has spaces: --set '{name}=[9, 7]'. A plain word "
        "needs no quotation marks."
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True  # ".5" or "nan", which JSON does not know


def _from_json(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def read_parameters(path: Path) -> dict[str, Any]:
    """Read parameters from a file: JSON, YAML, or the ``run.json`` of an earlier run.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        By name.

    Raises
    ------
    UsageError
        If it is not there, or of another kind.
    ValueError
        If it is damaged.
    """
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml", ".json") and not path.exists():
        raise UsageError(f"--params {path}: there is no such file.")
    if suffix in (".yaml", ".yml"):
        from v1tlearn.interop.plain_yaml import read_yaml  # needs an extra

        content = read_yaml(path)
    elif suffix == ".json":
        with reading(path, "is no JSON of parameters", "correct it"):
            content = _from_json(read_plain(path, _MOST_BYTES).decode("utf-8"))
    else:
        raise UsageError(f"--params {path}: expected a file .json, .yaml or .yml.")
    if isinstance(content, dict) and {"format", "parameters", "attempts"} <= set(content):
        content = content["parameters"]  # of a run
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds a {type(content).__name__}, expected names and values.")
    return content

"""Reading YAML as plain data. Needs PyYAML; no other file of the package does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from v1tlearn.interop.safe_files import check_there, first_line

try:
    import yaml
except ImportError as error:
    raise ImportError(
        'load_v1t reads args.yaml with PyYAML, which is not here: install the extra "interop", '
        'from the folder of v1tlearn with pip install -e ".[interop]".'
    ) from error

_PYTHON_TAG = "tag:yaml.org,2002:python/"


class _PlainLoader(yaml.SafeLoader):
    """YAML as plain data: what is tagged as a Python object is read as the data it is made of."""


def _plain(loader: _PlainLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if suffix.startswith(("int", "long", "float", "bool", "none", "None")):
        return yaml.safe_load(node.value)
    return node.value


_PlainLoader.add_multi_constructor(_PYTHON_TAG, _plain)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping as plain data."""
    check_there(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no plain YAML: {first_line(error)}.") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        what = "nothing" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"{path} holds {what}: expected a mapping from argument names to values.")
    return content

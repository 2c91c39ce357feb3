"""Reading YAML as plain data. Needs PyYAML; no other file of the package does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from v1tlearn._opening import read_plain, reading
from v1tlearn.interop.safe_files import check_there

try:
    import yaml
except ImportError as error:
    raise ImportError(
        'load_v1t reads args.yaml with PyYAML, which is not here: install the extra "interop", '
        'from the folder of v1tlearn with pip install -e ".[interop]".'
    ) from error

_PYTHON_TAG = "tag:yaml.org,2002:python/"


# An args.yaml has a few thousand bytes, and no alias but of a list that occurs twice.
_MOST_BYTES = 2**18
_MOST_ALIASES = 1000
_MOST_MERGED = 10**6


class _PlainLoader(yaml.SafeLoader):
    """YAML as plain data: what is tagged as a Python object is read as the data it is made of."""

    n_aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        self.n_aliases += self.check_event(yaml.AliasEvent)
        if self.n_aliases > _MOST_ALIASES:
            raise ValueError(f"it has over {_MOST_ALIASES} aliases")
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if self.n_aliases * len(node.value) > _MOST_MERGED:
            raise ValueError("mappings are merged into one another without end")


def _plain(loader: _PlainLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if suffix.startswith(("int", "long", "float", "bool", "none", "None")):
        return yaml.load(node.value, _PlainLoader)
    return node.value


_PlainLoader.add_multi_constructor(_PYTHON_TAG, _plain)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping as plain data."""
    check_there(path)
    with reading(path, "is no plain YAML", "copy it again"):
        content = yaml.load(read_plain(path, _MOST_BYTES).decode("utf-8"), _PlainLoader)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        what = "nothing" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"{path} holds {what}: expected a mapping from argument names to values.")
    return content

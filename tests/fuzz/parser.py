"""What a reader that is fuzzed consists of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def always(found):
    """What was read cannot be told from what might have been written."""
    return True


@dataclass
class Parser:
    """One reader.

    Attributes
    ----------
    root : Path
        What is read.
    targets : list of Path
        Files that are changed, one at a time.
    read : callable
        The public door, without arguments.
    is_right : callable
        Whether what `read` gave is right for the files as they now are.
    is_sane : callable
        Whether it can be right for files of any content, for those that say something else.
    in_child : bool
        Whether it is tried in a process of its own, because a library in C may crash or hang.
    """

    root: Path
    targets: list[Path]
    read: Callable[[], Any]
    is_right: Callable[[Any], bool] = always
    is_sane: Callable[[Any], bool] = always
    in_child: bool = False


def loaded(tree):
    """Datasets of a tree, read as a whole."""
    return {name: node.to_dataset().load() for name, node in tree.children.items()}

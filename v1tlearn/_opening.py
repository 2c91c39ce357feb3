"""Files that others made: opened where they are plain files, and what goes wrong told by name.

Every parser of the package runs inside `reading`, which makes one error that names the file of
whatever it raises. What the operating system refuses is told as that, not as damage.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

_LONGEST = 300  # characters of another library's message that are quoted
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# What a terminal obeys in place of showing it, and what turns the direction of text.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# Of the system's own errors those that a wrong number in a file leads to.
_OF_DAMAGE = (None, errno.EINVAL, errno.EOVERFLOW)


def check_plain(path: str | os.PathLike) -> os.stat_result:
    """Raise for what is no plain file, without opening it: a pipe would wait for ever."""
    state = os.stat(path)
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder, expected a file", os.fspath(path))
    if not stat.S_ISREG(state.st_mode):
        what = _KINDS.get(stat.S_IFMT(state.st_mode), "something else")
        raise ValueError(f"{os.fspath(path)}: is {what}, which is never opened; expected a file")
    return state


def no_file(path: str | os.PathLike, said: str) -> OSError:
    """Make the error for a path where a file was expected and none is."""
    return (IsADirectoryError if os.path.isdir(path) else FileNotFoundError)(said)


def no_folder(path: str | os.PathLike, said: str) -> OSError:
    """Make the error for a path where a folder was expected and none is."""
    return (NotADirectoryError if os.path.exists(path) else FileNotFoundError)(said)


def read_plain(path: str | os.PathLike, most: int | None = None) -> bytes:
    """Return the content of a plain file of at most `most` bytes."""
    size = check_plain(path).st_size
    if most is not None and size > most:
        raise ValueError(f"{os.fspath(path)}: is {size} bytes long, expected at most {most}")
    return content_of(path)


def content_of(path: str | os.PathLike) -> bytes:
    """Return the content of a file that is known to be plain."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        _raise_with_path(error, path)


@contextmanager
def system_errors_named(path: str | os.PathLike) -> Iterator[None]:
    """Put the path into errors of the system that come without one, as of reading and writing."""
    try:
        yield
    except OSError as error:
        _raise_with_path(error, path)


def _raise_with_path(error: OSError, path: str | os.PathLike) -> NoReturn:
    """Raise an error of the system again, with the path if it has none."""
    if error.errno is None or error.filename is not None:
        raise error
    raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextmanager
def reading(
    where: str | os.PathLike,
    wrong: str,
    remedy: str,
    kind: type[Exception] = ValueError,
    passed: Callable[[Exception], bool] = lambda error: False,
) -> Iterator[None]:
    """Turn whatever a parser raises into one error that names the file, and what is to be done.

    Parameters
    ----------
    where : path or str
        The file, or a text that ends in it.
    wrong : str
        What it then is, "is no readable zip".
    remedy : str
        What is to be done.
    kind : type
        Of the error; one that names the file already is left as it is.
    passed : callable
        Whether an error has nothing to do with the file. Memory that ends is damage unless sizes
        that the file tells of were held against its own before.
    """
    try:
        with system_errors_named(where):
            yield
    except Exception as error:
        named = isinstance(error, kind) and os.fspath(where) in str(error)
        if named or _is_of_system(error) or passed(error):
            raise
        raise kind(f"{where} {wrong} ({first_line(error)}); {remedy}") from error


def _is_of_system(error: Exception) -> bool:
    """Whether the system refuses; libraries raise plain ones of their own, without a number."""
    if not isinstance(error, OSError):
        return False
    return type(error) is not OSError or (error.errno not in _OF_DAMAGE and error.errno > 0)


def first_line(error: BaseException) -> str:
    """Name an error, and the first line of what it says."""
    lines = printable(str(error)).strip().splitlines()
    said = f", {lines[0].rstrip('.')[:_LONGEST]}" if lines else ""
    return f"{type(error).__name__}{said}"


def printable(text: str) -> str:
    """Write what a terminal would obey as it is written in Python: names come from strangers."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def json_object(data: bytes | str) -> dict[str, Any]:
    """Parse a JSON object, all texts of which can be written."""
    content = json.loads(data)
    json.dumps(content, ensure_ascii=False).encode()  # halves of characters end no file's name
    if not isinstance(content, dict):
        raise TypeError(f"it holds a {type(content).__name__}, expected an object")
    return content

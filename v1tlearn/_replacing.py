"""Files and folders that take the place of others: whole or not at all, whenever a process dies.

What is not whole yet lies beside its place under a name that tells its writer, so that the next
writer removes what killed ones left, never what one still writes, never what is another's.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from v1tlearn._opening import system_errors_named

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MARK = re.compile(r"([0-9a-f]{8})-(\d+)-[0-9a-f]{16}")
_ABANDONED_SECONDS = 24 * 3600  # without a change, where the writer cannot be asked after
_at_work: set[str] = set()  # marks of what this process is writing


@contextmanager
def marked() -> Iterator[str]:
    """Give a text, new each time, that tells what this process writes until the block ends."""
    mark = f"{_host()}-{os.getpid()}-{secrets.token_hex(8)}"
    _at_work.add(mark)
    try:
        yield mark
    finally:
        _at_work.discard(mark)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside another, whose place is taken when the block ends without an error.

    A folder takes the place of none or of an empty one: what is in the way is for the caller. A
    link stays, and leads to what is new. Errors of the system in the block that name no file are
    of what it writes.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path.absolute()
    check_writable(path)
    remove_left(path.parent)
    with marked() as mark:
        new = path.with_name(f".v1tlearn-{mark}.part")
        try:
            with system_errors_named(new):
                yield new
            replace(new, path)
        except OSError as error:  # of a file that the caller does not know, or one within it
            place = Path(os.fsdecode(error.filename)) if _names_a_path(error) else None
            if place is None or not place.is_relative_to(new):
                raise
            named = path / place.relative_to(new)
            raise OSError(error.errno, error.strerror, str(named)) from error
        finally:
            remove(new)


def _names_a_path(error: OSError) -> bool:
    return error.errno is not None and isinstance(error.filename, str | bytes | os.PathLike)


def replace(new: Path, path: Path) -> None:
    """Rename a file, or a folder, once all in it is on the disk; then so is its name.

    A file that takes the place of another is for the same people.
    """
    for folder, _, names in os.walk(new, topdown=False):
        for name in names:
            synchronize(Path(folder, name))
        synchronize(Path(folder))
    if new.is_file():
        if path.is_file():
            shutil.copymode(path, new)
        synchronize(new)
    os.replace(new, path)
    synchronize(path.parent)


def check_writable(path: Path) -> None:
    """Refuse to replace a file that is read-only, which a rename would not mind."""
    if path.is_file() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is read-only", str(path))


def append(path: Path, content: bytes) -> None:
    """Add to a file, made where there is none: all of it, or nothing; then it is on the disk."""
    with system_errors_named(path), path.open("ab", buffering=0) as file:
        start, left = os.fstat(file.fileno()).st_size, memoryview(content)
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(start)
            raise


def synchronize(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if not path.is_dir():
        with system_errors_named(path), path.open("r+b") as file:
            os.fsync(file.fileno())
        return
    with contextlib.suppress(OSError):  # systems that know no such thing of folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder, and those around it, whose names are on the disk afterwards."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        synchronize(folder.parent)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a folder that is never found half removed; that it is gone is no matter."""
    with marked() as mark, contextlib.suppress(FileNotFoundError):
        gone = path.with_name(f".v1tlearn-{mark}.part")
        path.rename(gone)
        remove(gone)


def remove_left(folder: Path) -> None:
    """Remove what killed writers left in a folder where they were replacing something."""
    for path in folder.iterdir() if folder.is_dir() else ():
        mark = path.name.removeprefix(".v1tlearn-").removesuffix(".part")
        if path.name == f".v1tlearn-{mark}.part" and _MARK.fullmatch(mark):
            with contextlib.suppress(OSError):  # finished or removed meanwhile
                if is_left(path, mark):
                    remove(path)


def is_left(path: Path, mark: str) -> bool:
    """Whether the process that writes a path under a mark is gone."""
    known = _MARK.fullmatch(mark)
    if known is None:
        return True
    host, pid = known[1], int(known[2])
    if host != _host() or os.name == "nt":  # where signal 0 is no question
        return time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
    if pid == os.getpid():
        return mark not in _at_work
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # of another user
        return False
    return False


@functools.cache
def _host() -> str:
    """Where process ids mean the same."""
    try:
        processes = os.readlink("/proc/self/ns/pid")  # containers have their own
    except OSError:
        processes = ""
    return hashlib.sha256(f"{platform.node()} {processes}".encode()).hexdigest()[:8]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of the same block on a folder, where the system can."""
    descriptor = None
    if fcntl is not None:
        with contextlib.suppress(OSError):  # file systems without locks
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def only_one_in(folder: Path, what: str) -> Iterator[None]:
    """Refuse a second process in the same block on a folder, where the system can tell."""
    descriptor = None
    if fcntl is not None:
        with contextlib.suppress(OSError):  # file systems that cannot be written to, or lock
            descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FileExistsError(
                    f"another process has {what} in {folder}: wait for its end, or give another "
                    "folder"
                ) from error
            except OSError:  # no locks there
                pass
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def alone_at(path: Path) -> Iterator[None]:
    """Keep other processes out of the same block on a file, where the system can.

    The file is made if it is not there; the block may rename or remove it.
    """
    descriptor = None
    while fcntl is not None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                break
        os.close(descriptor)  # another process renamed or removed it meanwhile
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)

"""Members of a zip, read by number: in file order, many at once, each checked by its checksum.

Knows the zip format; what the members hold is told in trial_files.py.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import operator
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn._opening import check_plain, reading, system_errors_named
from v1tlearn.datasets.sensorium.folder_files import is_junk
from v1tlearn.datasets.sensorium.inflate import Content, crc32, inflate

# Signature, length of the name, length of the extra field.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MOST_INFLATED = 1032  # bytes of data that deflate can make of one
_MOST_FOLDED = 200  # ... and that it may make of one where the data are more than small
_SMALL = 2**26
_COLUMNS = operator.attrgetter(
    "header_offset", "compress_size", "file_size", "compress_type", "CRC", "flag_bits"
)


def read_directory(path: Path) -> list[zipfile.ZipInfo]:
    """Read what the directory of a zip tells about its members, folders left out.

    Their places are held against each other and the file, so that no byte counts twice.
    """
    check_plain(path)
    remedy = "it is damaged, probably truncated: download or copy it again"
    with open(path, "rb") as file:
        if path.suffix.lower() != ".zip" and file.read(2) != b"PK":
            remedy = "expected the folder or zip of a mouse, or a folder of these"
    with reading(path, "is not a readable zip", remedy):
        n_bytes = os.path.getsize(path)
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename[-1:] not in ("/", "\\")]
        if any(info.header_offset < 0 for info in members):
            raise zipfile.BadZipFile("its beginning is missing")
    for info in members:
        if info.file_size > _MOST_INFLATED * n_bytes:
            raise _damaged(path, info, f"it cannot be {info.file_size} bytes")
        if info.header_offset + info.compress_size > n_bytes:
            raise _damaged(path, info, "the zip ends within it")
    members_by_place = sorted(members, key=operator.attrgetter("header_offset"))
    for one, following in itertools.pairwise(members_by_place):
        if one.header_offset + _LOCAL_HEADER.size + one.compress_size > following.header_offset:
            raise _damaged(path, one, f"it overlaps {following.filename}")
    return members


def _damaged(path: Path, info: zipfile.ZipInfo, why: str) -> ValueError:
    return ValueError(f"{path}/{info.filename}: damaged ({why}); copy or download the zip again")


def plain_name(info: zipfile.ZipInfo) -> str:
    """Return the name of a member with the separators that zips should have."""
    return info.filename.replace("\\", "/").removeprefix("./")


class ZipFiles:
    """The files below a folder inside a zip, without unpacking it.

    Parameters
    ----------
    path : Path
    prefix : str
        The folder, with a slash at its end; "" for all of the zip.
    directory : sequence of ZipInfo
        What `read_directory` gave.
    any_case : bool, default=False
        Whether names count as alike that differ in case only.
    """

    def __init__(
        self,
        path: Path,
        prefix: str,
        directory: Sequence[zipfile.ZipInfo],
        *,
        any_case: bool = False,
    ):
        self.path = Path(os.path.abspath(path))
        self.prefix = prefix
        self._table = np.array([_COLUMNS(info) for info in directory], np.int64).reshape(-1, 6)
        self._folders: dict[str, dict[str, int]] = {}
        self._spelled: dict[tuple[str, str], str] = {}
        # What may be inflated of labels: all of them are kept.
        self._allowance = _SMALL + _MOST_FOLDED * int(self._table[:, 1].sum())
        twice = []
        for number, name in enumerate(map(plain_name, directory)):
            if name.startswith(prefix):
                folder, _, file = name[len(prefix) :].rpartition("/")
                key = (folder.lower(), file.lower()) if any_case else (folder, file)
                if key in self._spelled:
                    twice.append(name)
                self._spelled[key] = file
                self._folders.setdefault(key[0], {})[file] = number
        if twice:
            raise ValueError(
                f"{self.path}: {', '.join(twice[:3])} is in it twice, {len(twice)} such names in "
                "all; expected every name once: pack the folder anew, with one of each"
            )

    def __str__(self) -> str:
        return f"{self.path}/{self.prefix}".rstrip("/")

    def listdir(self, folder: str) -> list[str]:
        """Return the names of files and folders in `folder`, hidden files left out."""
        files = [name for name in self._folders.get(folder, ()) if not is_junk(name)]
        inside = f"{folder}/"
        below = {
            name[len(inside) :].split("/")[0] for name in self._folders if name.startswith(inside)
        }
        return files + sorted(name for name in below if not is_junk(name))

    def read(self, name: str) -> bytes | None:
        """Return the content of one file, None if it is missing."""
        folder, _, file = name.rpartition("/")
        found = self._spelled.get((folder, file)) or self._spelled.get((folder, file.lower()))
        if found is None:
            return None
        members = self.members(folder, [found])
        self._allowance -= int(members.table[0, 2])
        if self._allowance < 0:
            raise ValueError(
                f"{self.path}: its labels and statistics inflate to over {_MOST_FOLDED} times the "
                "size of the zip, as no recording does; unpack it and read the folder, if you "
                "trust its origin"
            )
        _, data = next(members.read_many(np.zeros(1, np.int64)))
        return bytes(data)

    def fingerprint(self) -> str:
        """Return a text that changes with the zip: its size, time and central directory."""
        found = os.stat(self.path)
        directory = hashlib.sha256(self._table.tobytes())
        for folder, files in self._folders.items():
            directory.update("\n".join([folder, *files, ""]).encode("utf-8", "surrogateescape"))
        times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
        return f"{found.st_size} {times} {directory.hexdigest()}"

    def all_members(self) -> ZipMembers:
        """Return a reader of all files, in the order of the directory."""
        names = {
            number: f"{folder}/{file}" if folder else file
            for folder, files in self._folders.items()
            for file, number in files.items()
        }
        in_order = tuple(names[number] for number in sorted(names))
        return ZipMembers(str(self.path), self.prefix, in_order, self._table[sorted(names), :5])

    def members(self, folder: str, names: Sequence[str]) -> ZipMembers:
        """Return a reader of the files `names` of `folder`, by number."""
        inside = f"{self.prefix}{folder}/" if folder else self.prefix
        files = self._folders[folder]
        table = self._table[[files[name] for name in names]]
        methods, flags = table[:, 3], table[:, 5]
        odd = np.flatnonzero(
            (flags & 1 > 0) | ~np.isin(methods, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        )
        if len(odd):
            raise ValueError(
                f"{self.path}: {inside}{names[odd[0]]} is encrypted or compressed with method "
                f"{methods[odd[0]]}; expected stored or deflated members: unpack the zip "
                "and read the folder"
            )
        return ZipMembers(str(self.path), inside, tuple(names), table[:, :5])


@dataclass(frozen=True)
class ZipMembers:
    """Members of a zip, read by their number in `names`.

    The central directory is read once, by whoever makes the object, and kept as a table of offset,
    sizes, method and checksum; so threads and processes share nothing.
    """

    path: str
    folder: str
    names: tuple[str, ...]
    table: np.ndarray
    header_guess: int = 512  # bytes, with name and extra field; a longer one is read again
    read_bytes: int = 2**20  # read at once where members are neighbours
    read_gap: int = 2**14  # members this far apart are neighbours

    def __getstate__(self) -> dict[str, Any]:
        """Pickles differ where the zip does, for those who compare them, as joblib's Memory."""
        found = os.stat(self.path) if os.path.exists(self.path) else None
        state = found and (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return {**self.__dict__, "state": state}

    def shares(self, numbers: np.ndarray, n_shares: int) -> list[np.ndarray]:
        """Split positions in `numbers` into stretches of the zip of about equal size."""
        order = np.argsort(self.table[numbers, 0], kind="stable")
        ends = np.cumsum(self.table[numbers[order], 1])
        bounds = np.searchsorted(ends, ends[-1] * np.arange(1, n_shares) // n_shares, side="right")
        return [share for share in np.split(order, bounds) if len(share)]

    def read_many(self, numbers: np.ndarray) -> Iterator[tuple[int, Content]]:
        """Yield (position in `numbers`, content) of members, in the order of the zip.

        A content is valid until the next one is asked for.
        """
        order = np.argsort(self.table[numbers, 0], kind="stable")
        offsets, sizes = self.table[numbers[order], :2].T
        ends = offsets + len(self.folder) + self.header_guess + sizes
        # Where the row of neighbours ends that each member is in, or what is read at once of it.
        last = np.append(np.flatnonzero(offsets[1:] - ends[:-1] > self.read_gap), len(order) - 1)
        stops = np.repeat(ends[last], np.diff(last, prepend=-1))
        stops = np.maximum(ends, np.minimum(stops, offsets + self.read_bytes))
        check_plain(self.path)
        with system_errors_named(self.path), open(self.path, "rb", buffering=0) as file:
            n_file = os.fstat(file.fileno()).st_size
            lengths = np.clip(stops, 0, n_file) - np.minimum(offsets, n_file)
            buffer = memoryview(bytearray(lengths.max()))
            start, read = 0, buffer[:0]
            for position, offset, size, length in zip(
                *map(np.ndarray.tolist, (order, offsets, sizes, lengths)), strict=True
            ):
                number = numbers[position]
                if offset - start + self.header_guess + len(self.folder) + size > len(read):
                    start, read = offset, _read_at(file, offset, buffer[:length])
                member = read[offset - start :]
                n_header = self._check_header(number, member)
                if offset + n_header + size > n_file:
                    raise self._damaged(number, "the zip ends within it")
                if n_header + size > len(member):  # an extra field of uncommon length
                    member = _read_at(file, offset, memoryview(bytearray(n_header + size)))
                yield position, self._unpack(number, member[n_header : n_header + size])

    def _check_header(self, number: int, member: memoryview) -> int:
        """Return the length of a member's own header, with name and extra field."""
        if len(member) < _LOCAL_HEADER.size:
            raise self._damaged(number, "the zip ends within it")
        signature, n_name, n_extra = _LOCAL_HEADER.unpack_from(member)
        if signature != b"PK\x03\x04":
            raise self._damaged(number, "the zip was replaced since it was opened")
        n_header = _LOCAL_HEADER.size + n_name
        if len(member) < n_header:
            raise self._damaged(number, "the zip ends within it")
        if not self._is_named(number, bytes(member[_LOCAL_HEADER.size : n_header])):
            raise self._damaged(number, "another member lies in its place")
        return n_header + n_extra

    def _is_named(self, number: int, stored: bytes) -> bool:
        """Tell whether a member's own header has the name that the central directory told."""
        name = (self.folder + self.names[number]).lower()
        # Windows separates with backslashes, and some programs put a dot before all.
        stored = stored.replace(b"\\", b"/").removeprefix(b"./").lower()
        if name.isascii():
            return stored == name.encode("ascii")
        # Folders in other alphabets may be encoded in more ways than these.
        found = {stored.decode("utf-8", "replace").lower(), stored.decode("cp437").lower()}
        return name.rpartition("/")[2] in {one.rpartition("/")[2] for one in found}

    def _unpack(self, number: int, content: memoryview) -> Content:
        """Return a member's data, inflated where it is deflated, once its checksum fits."""
        _, size, full_size, method, crc = self.table[number].tolist()
        data: Content = content
        if method != zipfile.ZIP_STORED:
            if full_size > _MOST_INFLATED * size:
                raise self._damaged(number, f"it cannot be {full_size} bytes")
            if full_size > max(_SMALL, _MOST_FOLDED * size):
                raise ValueError(
                    f"{self.where(number)}: inflates from {size} to {full_size} bytes, which no "
                    "trial does; unpack the zip and read the folder, if you trust its origin"
                )
            inflated = inflate(content, full_size)
            if inflated is None:
                raise self._damaged(number, "it does not inflate to its size")
            data = inflated
        if len(data) != full_size or crc32(data) != crc:
            raise self._damaged(number, "its checksum does not match")
        return data

    def where(self, number: int) -> str:
        """Return the zip and the name of one member."""
        return f"{self.path}/{self.folder}{self.names[number]}"

    def _damaged(self, number: int, why: str) -> ValueError:
        return ValueError(
            f"{self.where(number)}: damaged ({why}); copy or download the zip again and reopen it"
        )


def _read_at(file: io.RawIOBase, start: int, into: memoryview) -> memoryview:
    """Fill a buffer, or less of it at the end of the file; one read may return less than asked."""
    file.seek(start)
    n_read = 0
    while n_read < len(into) and (n := file.readinto(into[n_read:])):
        n_read += n
    return into[:n_read]

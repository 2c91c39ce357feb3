"""Members of a zip, read by number: in file order, many at once, each checked by its checksum.

Knows the zip format; what the members hold is told in _trial_files.py.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import deflate
import numpy as np

# Signature, disks, entries on this disk and in all, bytes and start of the directory, comment.
_END = struct.Struct("<4s4H2LH")
_ENTRY = np.dtype(
    [
        ("signature", "S4"),
        ("versions", "<u2", 2),
        ("flags", "<u2"),
        ("method", "<u2"),
        ("time", "<u4"),
        ("crc", "<u4"),
        ("size", "<u4"),
        ("full_size", "<u4"),
        ("lengths", "<u2", 3),  # of the name, the extra field, the comment
        ("disk", "<u2"),
        ("internal", "<u2"),
        ("external", "<u4"),
        ("offset", "<u4"),
    ]
)
_LENGTHS = struct.Struct("<3H")
_LENGTHS_AT = _ENTRY.fields["lengths"][1]
_COLUMNS = ("offset", "size", "full_size", "method", "crc", "flags")
# Signature, length of the name, length of the extra field.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_HEADER_GUESS = 512  # bytes, with name and extra field; a member with a longer one is read again
_MOST_INFLATED = 1032  # bytes of data that deflate can make of one
_MOST_BYTES = 2**32 - 1  # that the decoder makes of a member: it counts them in 32 bits
_READ_BYTES = 2**20  # read at once where members are neighbours
_READ_GAP = 2**14  # members this far apart are neighbours


@dataclass(frozen=True)
class ZipDirectory:
    """What the central directory of a zip tells about its members, folders left out.

    Parameters
    ----------
    names : list of str
        Of the members, with their folders.
    table : ndarray of int64 (members, 6)
        Offset, size in the zip, full size, method, checksum and flags.
    """

    names: list[str]
    table: np.ndarray

    @classmethod
    def read(cls, path: Path) -> ZipDirectory:
        """Read the central directory, an ordinary one in a quarter of the time of `zipfile`.

        Raises
        ------
        zipfile.BadZipFile, EOFError, ValueError
            If there is none.
        """
        found = _read_ordinary(path)
        if found is None:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
            table = [
                (
                    info.header_offset,
                    info.compress_size,
                    info.file_size,
                    info.compress_type,
                    info.CRC,
                    info.flag_bits,
                )
                for info in infos
            ]
            found = [info.filename for info in infos], np.array(table, np.int64).reshape(-1, 6)
        names, table = found
        if (table[:, 0] < 0).any():
            raise zipfile.BadZipFile("its beginning is missing")
        files = [k for k, name in enumerate(names) if not name.endswith("/")]
        return cls([names[k] for k in files], table[files])


def _read_ordinary(path: Path) -> tuple[list[str], np.ndarray] | None:
    """Return names and table of a zip without comment, ZIP64 or bytes of its own at either end."""
    with open(path, "rb") as file:
        n_file = file.seek(0, os.SEEK_END)
        file.seek(max(0, n_file - _END.size))
        end = file.read(_END.size)
        if len(end) < _END.size:
            return None
        signature, *disks, n_here, n_entries, n_bytes, start, n_comment = _END.unpack(end)
        if (
            signature != b"PK\x05\x06"
            or any(disks)
            or n_here != n_entries
            or n_comment
            or start + n_bytes + _END.size != n_file
        ):
            return None
        file.seek(start)
        raw = file.read(n_bytes)
    starts, names, at = [], [], 0
    for _ in range(n_entries):
        if at + _ENTRY.itemsize > n_bytes:
            return None
        n_name, n_extra, n_entry_comment = _LENGTHS.unpack_from(raw, at + _LENGTHS_AT)
        starts.append(at)
        at += _ENTRY.itemsize
        names.append(raw[at : at + n_name])
        at += n_name + n_extra + n_entry_comment
    if at != n_bytes or not starts:
        return None
    fields = np.array(starts)[:, None] + np.arange(_ENTRY.itemsize)
    entries = np.frombuffer(raw, np.uint8)[fields].view(_ENTRY)[:, 0]
    table = np.stack([entries[column].astype(np.int64) for column in _COLUMNS], axis=1)
    text = b"\n".join(names)
    ordinary = text.isascii() and not any(odd in text for odd in (b"\0", b"\\"))
    if not ordinary or (entries["signature"] != b"PK\x01\x02").any() or (table == 0xFFFFFFFF).any():
        return None
    return [name.decode("ascii") for name in names], table


class ZipFiles:
    """The files below a folder inside a zip, without unpacking it."""

    def __init__(self, path: Path, prefix: str, directory: ZipDirectory):
        self.path = Path(os.path.abspath(path))
        self.prefix = prefix
        self._table = directory.table
        self._folders: dict[str, dict[str, int]] = {}
        for number, name in enumerate(directory.names):
            if name.startswith(prefix):
                folder, _, file = name[len(prefix) :].rpartition("/")
                self._folders.setdefault(folder, {})[file] = number

    def __str__(self) -> str:
        return f"{self.path}/{self.prefix}".rstrip("/")

    def listdir(self, folder: str) -> list[str]:
        """Return the names of files and folders in `folder`, hidden files left out."""
        files = [name for name in self._folders.get(folder, ()) if not name.startswith(".")]
        inside = f"{folder}/"
        below = {
            name[len(inside) :].split("/")[0] for name in self._folders if name.startswith(inside)
        }
        return files + sorted(below)

    def read(self, name: str) -> bytes | None:
        """Return the content of one file, None if it is missing."""
        folder, _, file = name.rpartition("/")
        if file not in self._folders.get(folder, ()):
            return None
        _, data = next(self.members(folder, [file]).read_many(np.zeros(1, np.int64)))
        return bytes(data)

    def fingerprint(self) -> str:
        """Return a text that changes with the zip: its size, time and central directory."""
        found = os.stat(self.path)
        directory = hashlib.sha256(self._table.tobytes())
        for folder, files in self._folders.items():
            directory.update("\n".join([folder, *files, ""]).encode("utf-8", "surrogateescape"))
        return f"{found.st_size} {found.st_mtime_ns} {directory.hexdigest()}"

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

    def shares(self, numbers: np.ndarray, n_shares: int) -> list[np.ndarray]:
        """Split positions in `numbers` into stretches of the zip of about equal size."""
        order = np.argsort(self.table[numbers, 0], kind="stable")
        ends = np.cumsum(self.table[numbers[order], 1])
        bounds = np.searchsorted(ends, ends[-1] * np.arange(1, n_shares) // n_shares, side="right")
        return [share for share in np.split(order, bounds) if len(share)]

    def read_many(self, numbers: np.ndarray) -> Iterator[tuple[int, bytearray | memoryview]]:
        """Yield (position in `numbers`, content) of members, in the order of the zip.

        A content is valid until the next one is asked for.
        """
        order = np.argsort(self.table[numbers, 0], kind="stable")
        offsets, sizes = self.table[numbers[order], :2].T
        ends = offsets + len(self.folder) + _HEADER_GUESS + sizes
        # Where the row of neighbours ends that each member is in, or what is read at once of it.
        last = np.append(np.flatnonzero(offsets[1:] - ends[:-1] > _READ_GAP), len(order) - 1)
        stops = np.repeat(ends[last], np.diff(last, prepend=-1))
        stops = np.maximum(ends, np.minimum(stops, offsets + _READ_BYTES))
        with open(self.path, "rb", buffering=0) as file:
            n_file = os.fstat(file.fileno()).st_size
            lengths = np.clip(stops, 0, n_file) - np.minimum(offsets, n_file)
            buffer = memoryview(bytearray(lengths.max()))
            start, read = 0, buffer[:0]
            for position, offset, size, length in zip(
                *map(np.ndarray.tolist, (order, offsets, sizes, lengths)), strict=True
            ):
                number = numbers[position]
                if offset - start + _HEADER_GUESS + len(self.folder) + size > len(read):
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
        name = (self.folder + self.names[number]).replace("\\", "/")
        stored = stored.replace(b"\\", b"/")  # which Windows separates with
        if name.isascii():
            return stored == name.encode("ascii")
        # Folders in other alphabets may be encoded in more ways than these.
        found = {stored.decode("utf-8", "replace"), stored.decode("cp437")}
        return name.rpartition("/")[2] in {one.rpartition("/")[2] for one in found}

    def _unpack(self, number: int, content: memoryview) -> bytearray | memoryview:
        """Return a member's data, inflated where it is deflated, once its checksum fits."""
        _, size, full_size, method, crc = self.table[number].tolist()
        data: bytearray | memoryview = content
        if method != zipfile.ZIP_STORED:
            if full_size > _MOST_INFLATED * size:
                raise self._damaged(number, f"it cannot be {full_size} bytes")
            if full_size > _MOST_BYTES:
                raise ValueError(
                    f"{self.where(number)}: {full_size} bytes are more than can be inflated at "
                    f"once ({_MOST_BYTES}); unpack the zip, or store this member uncompressed"
                )
            try:
                data = deflate.deflate_decompress(content, full_size)
            except deflate.DeflateError as error:
                raise self._damaged(number, "it does not inflate to its size") from error
        if len(data) != full_size or deflate.crc32(data) != crc:
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

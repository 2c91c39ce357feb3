import io
import os
import struct
import tracemalloc
import zipfile
import zlib
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v1tlearn.datasets.sensorium import inflate as inflating
from v1tlearn.datasets.sensorium.zip_files import ZipFiles, read_directory

names = st.text("ab/.é7\\", min_size=1, max_size=8).filter(lambda name: name.strip("/"))
methods = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
contents = st.binary(max_size=80) | st.integers(0, 3000).map(bytes)


def write(path, members, *, comment=b"", before=b"", extra=b""):
    """Write {name: (content, method)}; streamed ones, whose sizes follow them, at odd places."""
    with open(path, "wb") as file:
        file.write(before)
        with zipfile.ZipFile(file, "w") as archive:
            archive.comment = comment
            for place, (name, (content, method)) in enumerate(members.items()):
                info = zipfile.ZipInfo(name)
                info.compress_type, info.extra = method, extra
                with archive.open(info, "w", force_zip64=place % 3 == 2) as member:
                    member.write(content)


def read_all(path, numbers, folder="", **sizes):
    """Return the content of the files of one folder, by name, read as numbered."""
    files = ZipFiles(path, "", read_directory(path))
    found = files.listdir(folder)
    members = replace(files.members(folder, found), **sizes)
    numbers = np.array([number % len(found) for number in numbers])
    content = {}
    for position, data in members.read_many(numbers):
        content.setdefault(found[numbers[position]], []).append(bytes(data))
    assert sum(map(len, content.values())) == len(numbers)
    return content


@given(
    members=st.lists(st.tuples(contents, methods), min_size=1, max_size=9),
    numbers=st.lists(st.integers(0, 99), min_size=1, max_size=20),
    read_bytes=st.sampled_from([1, 50, 2**20]),
    gap=st.sampled_from([0, 100, 2**14]),
    guess=st.sampled_from([40, 512]),
    extra=st.sampled_from([b"", struct.pack("<2H", 0x9999, 700) + bytes(700)]),
    folder=st.sampled_from(["", "data/", "dätä/", "日本/"]),
    comment=st.sampled_from([b"", b"hello"]),
    before=st.sampled_from([b"", b"#!/bin/sh\n"]),
)
def test_members_are_read_in_any_order_and_number(
    tmp_path_factory, members, numbers, read_bytes, gap, guess, extra, folder, comment, before
):
    path = tmp_path_factory.mktemp("any") / "a.zip"
    named = {f"{folder}{number}": member for number, member in enumerate(members)}
    write(path, named, comment=comment, before=before, extra=extra)
    sizes = {"read_bytes": read_bytes, "read_gap": gap, "header_guess": guess}
    found = read_all(path, numbers, folder.rstrip("/"), **sizes)
    for name, copies in found.items():
        assert set(copies) == {named[folder + name][0]}
    expected = {str(number % len(members)) for number in numbers}
    assert set(found) == expected


@given(
    sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=30),
    numbers=st.lists(st.integers(0, 29), min_size=1, max_size=60),
    n_shares=st.integers(1, 12),
)
def test_shares_are_stretches_of_the_zip_of_about_equal_size(
    tmp_path_factory, sizes, numbers, n_shares
):
    path = tmp_path_factory.mktemp("any") / "a.zip"
    write(path, {str(k): (bytes(size), zipfile.ZIP_STORED) for k, size in enumerate(sizes)})
    files = ZipFiles(path, "", read_directory(path))
    members = files.members("", [str(k) for k in range(len(sizes))])
    numbers = np.array(numbers) % len(sizes)
    shares = members.shares(numbers, n_shares)
    assert len(shares) <= n_shares
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(numbers)))
    in_file_order = numbers[np.concatenate(shares)]
    assert (np.diff(in_file_order) >= 0).all()
    all_bytes = np.array(sizes)[numbers]
    for share in shares:
        assert all_bytes[share].sum() <= all_bytes.sum() / n_shares + 2 * all_bytes.max() + 1


class Counting(io.FileIO):
    """A file that counts from how many places it is read."""

    places = 0

    def seek(self, offset, whence=0):
        self.places += 1
        return super().seek(offset, whence)


def test_neighbours_are_read_at_once(tmp_path):
    path = tmp_path / "a.zip"
    write(path, {str(k): (os.urandom(900), zipfile.ZIP_DEFLATED) for k in range(100)})
    files = ZipFiles(path, "", read_directory(path))
    members = files.members("", [str(k) for k in range(100)])
    for numbers in (range(100), [3, 97]):
        opened = Counting(path, "rb")
        with mock.patch("builtins.open", return_value=opened):
            assert len([bytes(data) for _, data in members.read_many(np.array(numbers))])
        # Of all members the last is read again: the file ends where it is guessed to.
        assert opened.places <= 2


def small_zip(path):
    content = {"a/0": b"0" * 70, "a/1": bytes(range(40)), "a/2": b""}
    methods = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    write(path, dict(zip(content, zip(content.values(), methods, strict=True), strict=True)))
    return content


def allowed(path, content):
    """Read a damaged zip: an error, or members as they were, none under another's name."""
    try:
        found = read_all(path, range(3), "a")
    except (ValueError, zipfile.BadZipFile, EOFError, NotImplementedError, struct.error):
        return
    except (KeyError, ZeroDivisionError):  # the test's own: no such folder, no file in it
        return
    for name, copies in found.items():
        assert set(copies) == {content[f"a/{name}"]}


@pytest.mark.parametrize("change", [0x01, 0x20, 0x80, 0xFF])
def test_no_changed_byte_gives_other_data(tmp_path, change):
    path = tmp_path / "a.zip"
    content = small_zip(path)
    intact = path.read_bytes()
    for place in range(len(intact)):
        damaged = bytearray(intact)
        damaged[place] ^= change
        path.write_bytes(damaged)
        allowed(path, content)


def test_no_truncation_gives_other_data(tmp_path):
    path = tmp_path / "a.zip"
    small_zip(path)
    intact = path.read_bytes()
    for length in range(len(intact)):
        path.write_bytes(intact[:length])
        with pytest.raises((zipfile.BadZipFile, ValueError)):
            read_directory(path)


def test_a_zip_that_is_cut_off_after_it_was_opened_gives_no_other_data(tmp_path):
    path = tmp_path / "a.zip"
    content = small_zip(path)
    intact = path.read_bytes()
    members = ZipFiles(path, "", read_directory(path)).members("a", ["0", "1", "2"])
    directory = intact.index(b"PK\x01\x02")
    for length in range(len(intact)):
        path.write_bytes(intact[:length])
        if length < directory:
            with pytest.raises(ValueError, match=r"a/\d: damaged .the zip ends"):
                list(members.read_many(np.arange(3)))
        else:
            data = [bytes(data) for _, data in members.read_many(np.arange(3))]
            assert data == list(content.values())


@settings(max_examples=300)
@given(data=st.data())
def test_no_overwritten_stretch_gives_other_data(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "a.zip"
    content = small_zip(path)
    damaged = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(damaged)))
    old = data.draw(st.integers(0, 40))
    damaged[start : start + old] = data.draw(
        st.binary(max_size=40) | st.sampled_from([b"\0" * 8, b"\xff" * 8, bytes(damaged[:35])])
    )
    path.write_bytes(damaged)
    allowed(path, content)


def test_a_size_far_beyond_the_zip_takes_no_memory(tmp_path):
    path = tmp_path / "a.zip"
    content = small_zip(path)
    entry = path.read_bytes().index(b"PK\x01\x02")
    for field in (20, 24):  # size in the zip, full size
        damaged = bytearray(path.read_bytes())
        damaged[entry + field : entry + field + 4] = b"\xf0\xff\xff\x7f"
        (tmp_path / "b.zip").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a/0: damaged"):
            read_all(tmp_path / "b.zip", range(3), "a")
    allowed(path, content)


@pytest.mark.parametrize("level", range(10))
def test_members_of_every_level_are_inflated(tmp_path, level):
    rng = np.random.default_rng(level)
    contents = {
        "random": rng.bytes(70_000),
        "floats": rng.gamma(0.3, 3, 20_000).astype("f4").tobytes(),
        "words": b"to be or not to be " * 4000,
        "zeros": bytes(2**21),
        "empty": b"",
    }
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=level) as zip:
        for name, content in contents.items():
            zip.writestr(name, content)
    found = read_all(tmp_path / "a.zip", range(len(contents)))
    assert found == {name: [content] for name, content in contents.items()}


def change_entry(path, at, values):
    """Write a number into the directory's entry of the first member, once for each value."""
    intact = path.read_bytes()
    place = intact.index(b"PK\x01\x02") + at
    for value in values:
        path.write_bytes(intact[:place] + struct.pack("<L", value) + intact[place + 4 :])
        yield value


def test_a_deflated_member_that_ends_early_is_refused(tmp_path):
    path, content = tmp_path / "a.zip", os.urandom(50) + b"0" * 500
    write(path, {"0": (content, zipfile.ZIP_DEFLATED)})
    n_bytes = read_directory(path)[0].compress_size
    for _ in change_entry(path, 20, range(n_bytes)):
        with pytest.raises(ValueError, match=r"a.zip/0: damaged .it (does not|cannot)"):
            read_all(path, [0])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_checksum_that_does_not_fit_is_refused(tmp_path, method):
    path = tmp_path / "a.zip"
    write(path, {"0": (b"to be or not to be " * 40, method)})
    crc = read_directory(path)[0].CRC
    for _ in change_entry(path, 16, [0, crc ^ 1, crc ^ 2**31]):
        with pytest.raises(ValueError, match=r"a.zip/0: damaged .its checksum does not match"):
            read_all(path, [0])


def test_a_size_that_the_deflated_data_do_not_have_is_refused(tmp_path):
    path, content = tmp_path / "a.zip", b"to be or not to be " * 40
    write(path, {"0": (content, zipfile.ZIP_DEFLATED)})
    n = len(content)
    for _ in change_entry(path, 24, [0, 1, n - 1, n + 1, 2 * n, 2**20, 2**32 - 2]):
        with pytest.raises(ValueError, match=r"a.zip/0: damaged .it"):
            read_all(path, [0])


@pytest.mark.parametrize("inflate", [inflating.inflate, inflating.inflate_by_zlib])
def test_deflated_data_come_back_and_damaged_ones_do_not(inflate):
    rng = np.random.default_rng(0)
    for data in (bytes(5000), rng.bytes(300), b"to be or not to be " * 40):
        packed = zlib.compress(data, wbits=-zlib.MAX_WBITS)
        for n_bytes in (len(data), len(data) + 7):
            assert inflate(packed, n_bytes) == data
        assert inflate(packed, len(data) - 1) is None
        assert inflate(packed[:-1], len(data)) is None
        assert inflate(b"\xff" + packed, len(data)) is None
        assert inflating.crc32(data) == zlib.crc32(data)
    assert inflate(zlib.compress(b"", wbits=-zlib.MAX_WBITS), 0) == b""


@pytest.mark.parametrize("inflate", [inflating.inflate, inflating.inflate_by_zlib])
def test_a_bomb_is_not_inflated_beyond_its_size(inflate):
    packed = zlib.compress(bytes(2**26), wbits=-zlib.MAX_WBITS)
    tracemalloc.start()
    try:
        assert inflate(packed, 1000) is None
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_exchanged_names_are_noticed(tmp_path):
    path = tmp_path / "a.zip"
    small_zip(path)
    intact = path.read_bytes()
    directory = intact.index(b"PK\x01\x02")
    swapped = intact[directory:].replace(b"a/0", b"a/x").replace(b"a/1", b"a/0")
    path.write_bytes(intact[:directory] + swapped.replace(b"a/x", b"a/1"))
    with pytest.raises(ValueError, match=r"a/\d: damaged .another member lies in its place"):
        read_all(path, range(3), "a")

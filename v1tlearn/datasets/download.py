"""Downloads of zips that go on where an earlier one broke off, and are checked.

Where no checksum is known, a download is checked as a whole zip with intact members, and files of
MATLAB by their length and first bytes. Addresses may send on to another host, as publishers do to
their stores, which is logged; never from https to http. No file may be larger than `MOST_BYTES`,
and what comes so slowly that it would never end counts as broken off.
"""

from __future__ import annotations

import errno
import http.client
import json
import logging
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urljoin, urlsplit

from tqdm.auto import tqdm

from v1tlearn._opening import check_plain, first_line, reading, system_errors_named
from v1tlearn._replacing import alone_at, make_folder, replace

try:
    import pooch
    import requests
    import urllib3
except ImportError as error:
    raise ImportError(
        f"files are downloaded with pooch and requests, and {error.name} is not here: install "
        'the extra "fetch", from the folder of v1tlearn with pip install -e ".[fetch]".'
    ) from error

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 2**16
_TIMEOUT_S = 60.0  # to wait for a connection, and for whatever comes next
_MINUTE_S = 60.0
_LEAST_PER_MINUTE = 2**16  # bytes, of what still comes
MOST_BYTES = 2**36  # of one file: many times the largest zip of the publishers
_MOST_JSON = 2**22  # bytes of a list of files
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
_OF_THE_NETWORK = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
)
# What no second try would change.
_OF_THE_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.TooManyRedirects,
    urllib3.exceptions.LocationParseError,
    UnicodeError,
)


class _TooSlow(requests.ConnectionError):
    """What is sent keeps coming, and would never end."""


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """Give what comes as it comes, and raise `_TooSlow` after a minute in which hardly any did."""
    since, came = time.monotonic(), 0
    while piece := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        yield piece
        came += len(piece)
        passed = time.monotonic() - since
        if passed < _MINUTE_S:
            continue
        if came < _LEAST_PER_MINUTE * passed / _MINUTE_S:
            raise _TooSlow(
                f"{came} bytes came in {passed:.0f} s, fewer than {_LEAST_PER_MINUTE} a minute"
            )
        since, came = time.monotonic(), 0


def data_folder(cache_dir: str | os.PathLike | None, dataset: str) -> Path:
    """Return where the files of a data set are kept, by default where the system keeps such."""
    root = cache_dir or os.environ.get("V1TLEARN_DATA") or pooch.os_cache("v1tlearn")
    return Path(root).expanduser() / dataset


def read_json(url: str, what: str) -> Any:
    """Return what an address tells in JSON."""
    try:
        with (
            system_errors_named(url),
            Session() as session,
            session.get(url, stream=True, timeout=_TIMEOUT_S) as response,
        ):
            response.raise_for_status()
            content = b""
            for piece in _pieces(response):
                content += piece
                if len(content) > _MOST_JSON:
                    raise ValueError(f"it is longer than {_MOST_JSON} bytes")
            return json.loads(content)
    except (*_OF_THE_NETWORK, ValueError, RecursionError) as error:
        raise OSError(f"{what} could not be read from {url} ({first_line(error)})") from error


def download(
    files: Mapping[str, tuple[str, str]],
    folder: Path,
    checksums: Mapping[str, str] | str | os.PathLike | None,
    retries: int,
    retry_pause: float,
    progressbar: bool,
    most_bytes: int = MOST_BYTES,
    *,
    of: str = "mouse",
    given_in: str = "files= or base_url=",
) -> list[Path]:
    """Download {mouse: (address, name)} into a folder; what is there already is kept.

    In errors, `of` is what the keys name, and `given_in` where addresses stand.
    """
    options = retries, retry_pause, progressbar, most_bytes, of, given_in
    known: Mapping[str, str] = {}
    if isinstance(checksums, Mapping):
        known = checksums
    elif checksums is not None:
        check_plain(checksums)
        with reading(checksums, "is no file of checksums", 'expected lines "name checksum".'):
            register = pooch.create(path=folder, base_url="")
            register.load_registry(os.fspath(checksums))
            known = register.registry
    for given, expected in known.items():
        _check_checksum(given, expected)
    paths = []
    for mouse, (url, name) in files.items():
        checksum = known.get(name)
        target = (folder / name).resolve()
        if target.exists():
            check_plain(target)
        if not target.exists() or _other_checksum(target, checksum):
            make_folder(target.parent)
            _ResumingDownload(mouse, url, target, checksum, *options).run()
        paths.append(target)
    return paths


def _check_checksum(name: str, checksum: str) -> None:
    algorithm, _, expected = str(checksum).rpartition(":")
    known = (algorithm or "sha256") in pooch.hashes.ALGORITHMS_AVAILABLE
    if not isinstance(checksum, str) or not known or not re.fullmatch("[0-9a-fA-F]+", expected):
        raise ValueError(
            f"checksums: {name!r} has {checksum!r}; expected 'sha256:' or 'md5:' and hexadecimal "
            "digits"
        )


def _other_checksum(path: Path, checksum: str | None) -> str | None:
    """Return the checksum of a file where it is not the one expected, None where it is."""
    if checksum is None:
        return None
    algorithm, _, expected = checksum.rpartition(":")
    came = pooch.file_hash(str(path), alg=algorithm or "sha256")
    return None if came == expected.lower() else came


class Session(requests.Session):
    """Follows redirects, but not from https to http, and says where they lead."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where an answer leads, None where it is the last."""
        target = super().get_redirect_target(resp)
        if target is not None:
            before, after = urlsplit(resp.url), urlsplit(urljoin(resp.url, target))
            if before.scheme == "https" and after.scheme != "https":
                raise OSError(
                    f"{resp.url} sends on to {target}, which is not encrypted and is refused; "
                    "check the address, or download the file by hand"
                )
            if before.hostname != after.hostname:
                logger.warning("%s sends on to another host, %s", resp.url, after.hostname)
        return target


class _ResumingDownload:
    """A download that goes on where an earlier try, or call, broke off.

    What has come so far lies in `{target}.part` until it is whole and checked; only then is it
    renamed, so a file under its own name is always whole.
    """

    def __init__(
        self,
        mouse: str,
        url: str,
        target: Path,
        checksum: str | None,
        retries: int,
        retry_pause: float,
        progressbar: bool,
        most_bytes: int,
        of: str,
        given_in: str,
    ):
        self._mouse, self._url, self._target, self._checksum = mouse, url, target, checksum
        self._what, self._given_in = f"{of} {mouse!r}", given_in
        self._retries, self._retry_pause = retries, retry_pause
        self._progressbar, self._most_bytes = progressbar, most_bytes
        self._part = target.with_name(target.name + ".part")

    def run(self) -> None:
        """Download, check and rename, alone: where another process does, wait for its end."""
        if self._part.exists():
            check_plain(self._part)
        with alone_at(self._part):
            try:
                if not self._target.exists() or _other_checksum(self._target, self._checksum):
                    self._run()
            finally:
                if self._part.exists() and not self._size():
                    self._part.unlink()

    def _run(self) -> None:
        resumed = self._size() > 0
        self._download()
        problem = self._problem()
        if problem and resumed:
            logger.warning(
                "%s, continued from an earlier try: %s; starting over", self._url, problem
            )
            self._part.unlink()
            self._download()
            problem = self._problem()
        if problem:
            self._part.unlink()
            raise ValueError(
                f"{self._what}: what {self._url} sent {problem}; nothing was kept. Check "
                f"the address and the checksum, or download the file by hand to {self._target}"
            )
        replace(self._part, self._target)

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _download(self) -> None:
        """Complete the part file; try again as long as each few tries bring it further, in time."""
        furthest, failures = self._size(), 0
        while True:
            try:
                self._try_once()
                return
            except requests.HTTPError as error:
                answer = error.response
                if answer is not None and answer.status_code not in _PASSING_STATUS:
                    raise OSError(
                        f"{self._what}: {self._url} answered {answer.status_code} "
                        f"({answer.reason}); check the address in a browser and pass the "
                        f"right one in {self._given_in}, or download the file by hand to "
                        f"{self._target}"
                    ) from error
                reason: Exception = error
            except _OF_THE_ADDRESS as error:
                raise OSError(
                    f"{self._what}: {self._url} leads to no address "
                    f"({first_line(error)}); check the address in {self._given_in}"
                ) from error
            except _OF_THE_NETWORK as error:
                reason = error
            further = self._size() > furthest and not isinstance(reason, _TooSlow)
            failures = 0 if further else failures + 1
            furthest = max(furthest, self._size())
            if failures > self._retries:
                raise OSError(
                    f"{self._what}: download of {self._url} failed {failures} times in a "
                    f"row ({reason}); {furthest} bytes are kept: call again to go on from there, "
                    f"or download the file by hand to {self._target}"
                ) from reason
            logger.warning("download of %s broke off (%s); trying again", self._url, reason)
            time.sleep(self._retry_pause * min(2**failures, 30))

    def _try_once(self) -> None:
        have = self._size()
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with (
            Session() as session,
            session.get(self._url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response,
        ):
            content_range = response.headers.get("Content-Range", "")
            if response.status_code == 416:
                if content_range == f"bytes */{have}":
                    return  # all of it was there already
                self._part.unlink()
                raise requests.ConnectionError("the part kept is longer than the file")
            response.raise_for_status()
            start = have if response.status_code == 206 else 0  # 200: the server sends it all
            if start and not content_range.startswith(f"bytes {have}-"):
                self._part.unlink()
                raise requests.ConnectionError(f"asked from byte {have}, got {content_range!r}")
            total = self._total(response, start)
            self._check_room(total, start)
            with (
                system_errors_named(self._part),
                open(self._part, "ab" if start else "wb") as file,
                tqdm(
                    total=total,
                    initial=start,
                    unit="B",
                    unit_scale=True,
                    desc=self._mouse,
                    disable=not self._progressbar,
                ) as bar,
            ):
                most, came = self._most_bytes if total is None else total, start
                for piece in _pieces(response):
                    came += len(piece)
                    if came > most:
                        self._give_up(f"sends more than {most} bytes")
                    file.write(piece)
                    bar.update(len(piece))
        if total is not None and self._size() != total:
            raise requests.ConnectionError(f"{self._size()} of {total} bytes came")
        if total is None and (self._is_mat() or not zipfile.is_zipfile(self._part)):
            raise requests.ConnectionError(
                f"the server does not say how long the file is, and the {self._size()} bytes that "
                f"came {'may not be all' if self._is_mat() else 'are not a whole zip'}"
            )

    def _is_mat(self) -> bool:
        return self._target.suffix == ".mat"

    def _total(self, response: requests.Response, start: int) -> int | None:
        """Return how long the whole file is, None where the server does not say."""
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            self._give_up(f"sends the file encoded ({encoding}), though asked for it as it is")
        length = response.headers.get("Content-Length", "").strip()
        return start + int(length) if re.fullmatch("[0-9]{1,18}", length) else None

    def _check_room(self, total: int | None, start: int) -> None:
        """Refuse a file that is too large, ever or for the disk."""
        if total is None:
            return
        if total > self._most_bytes:
            self._give_up(f"would send {total} bytes; expected at most {self._most_bytes}")
        free = shutil.disk_usage(self._part.parent).free
        if total - start > free:
            raise OSError(
                errno.ENOSPC,
                f"{self._what}: {self._url} would send {total - start} bytes, but {free} "
                "are free; make room, or choose another cache_dir",
                str(self._part.parent),
            )

    def _give_up(self, why: str) -> NoReturn:
        self._part.unlink(missing_ok=True)
        raise ValueError(
            f"{self._what}: {self._url} {why}; nothing was kept. Check the address, or "
            f"download the file by hand to {self._target}"
        )

    def _problem(self) -> str | None:
        """Return what is wrong with the complete part file, None if nothing is."""
        if self._checksum is not None:
            came = _other_checksum(self._part, self._checksum)
            return came and f"has the checksum {came}, expected {self._checksum}"
        if self._is_mat():
            with open(self._part, "rb") as file:
                return None if file.read(7) == b"MATLAB " else "is no file of MATLAB"
        try:
            with (
                reading(self._part, "is not a zip", "nothing was kept"),
                zipfile.ZipFile(self._part) as archive,
            ):
                locked = [info.filename for info in archive.infolist() if info.flag_bits & 1]
                damaged = None if locked else archive.testzip()
        except ValueError as error:
            return f"is not a zip ({first_line(error.__cause__ or error)})"
        if locked:
            return f"is an encrypted zip ({locked[0]}), which cannot be read"
        return f"is a zip with a damaged member ({damaged})" if damaged else None

"""Downloads of zips that go on where an earlier one broke off, and are checked.

Checksums are not published with the recordings, so a download is checked as a whole zip with intact
members unless a checksum is given.
"""

from __future__ import annotations

import logging
import os
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tqdm.auto import tqdm

try:
    import pooch
    import requests
except ImportError as error:
    raise ImportError(
        f"recordings are downloaded with pooch and requests, and {error.name} is not here: install "
        'the extra "fetch", from the folder of v1tlearn with pip install -e ".[fetch]".'
    ) from error

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 2**12  # what a break-off loses at most
_TIMEOUT_S = 60.0
RETRY_PAUSE_S = 1.0
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}


def cache_folder() -> Path:
    """Return where the operating system keeps what can be downloaded again."""
    return Path(pooch.os_cache("v1tlearn"))


def download(
    urls: Mapping[str, str],
    folder: Path,
    checksums: Mapping[str, str] | str | os.PathLike | None,
    retries: int,
    progressbar: bool,
) -> list[Path]:
    """Download {mouse: address} into a folder; what is there already is kept."""
    known: Mapping[str, str] = {}
    if isinstance(checksums, Mapping):
        known = checksums
    elif checksums is not None:
        register = pooch.create(path=folder, base_url="")
        register.load_registry(os.fspath(checksums))
        known = register.registry
    paths = []
    for mouse, url in urls.items():
        name = unquote(urlsplit(url).path).rpartition("/")[2]
        checksum = known.get(name)
        target = (folder / name).resolve()
        if not target.exists() or _other_checksum(target, checksum):
            target.parent.mkdir(parents=True, exist_ok=True)
            _ResumingDownload(mouse, url, target, checksum, retries, progressbar).run()
        paths.append(target)
    return paths


def _other_checksum(path: Path, checksum: str | None) -> str | None:
    """Return the checksum of a file where it is not the one expected, None where it is."""
    if checksum is None:
        return None
    algorithm, _, expected = checksum.rpartition(":")
    came = pooch.file_hash(str(path), alg=algorithm or "sha256")
    return None if came == expected.lower() else came


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
        progressbar: bool,
    ):
        self._mouse, self._url, self._target, self._checksum = mouse, url, target, checksum
        self._retries, self._progressbar = retries, progressbar
        self._part = target.with_name(target.name + ".part")

    def run(self) -> None:
        """Download, check and rename."""
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
                f"mouse {self._mouse!r}: what {self._url} sent {problem}; nothing was kept. Check "
                f"the address and the checksum, or download the zip by hand to {self._target}"
            )
        os.replace(self._part, self._target)

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _download(self) -> None:
        """Complete the part file; try again as long as each few tries bring it further."""
        furthest, failures = self._size(), 0
        while True:
            try:
                self._try_once()
                return
            except requests.HTTPError as error:
                answer = error.response
                if answer is not None and answer.status_code not in _PASSING_STATUS:
                    raise OSError(
                        f"mouse {self._mouse!r}: {self._url} answered {answer.status_code} "
                        f"({answer.reason}); check the address in a browser and pass the "
                        "right one in files= or base_url=, or download the zip by hand to "
                        f"{self._target}"
                    ) from error
                reason: Exception = error
            except requests.RequestException as error:
                reason = error
            failures = 0 if self._size() > furthest else failures + 1
            furthest = max(furthest, self._size())
            if failures > self._retries:
                raise OSError(
                    f"mouse {self._mouse!r}: download of {self._url} failed {failures} times in a "
                    f"row ({reason}); {furthest} bytes are kept: call again to go on from there, "
                    f"or download the zip by hand to {self._target}"
                ) from reason
            logger.warning("download of %s broke off (%s); trying again", self._url, reason)
            time.sleep(RETRY_PAUSE_S * min(2**failures, 30))

    def _try_once(self) -> None:
        have = self._size()
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(self._url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
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
            length = response.headers.get("Content-Length")
            total = start + int(length) if length else None
            with (
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
                for chunk in response.iter_content(_CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
        if total is not None and self._size() != total:
            raise requests.ConnectionError(f"{self._size()} of {total} bytes came")
        if total is None and not zipfile.is_zipfile(self._part):
            raise requests.ConnectionError(
                f"the server does not say how long the file is, and the {self._size()} bytes that "
                "came are not a whole zip"
            )

    def _problem(self) -> str | None:
        """Return what is wrong with the complete part file, None if nothing is."""
        if self._checksum is not None:
            came = _other_checksum(self._part, self._checksum)
            return came and f"has the checksum {came}, expected {self._checksum}"
        try:
            with zipfile.ZipFile(self._part) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            return f"is not a zip ({error})"
        return f"is a zip with a damaged member ({damaged})" if damaged else None

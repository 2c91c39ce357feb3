"""Download of the public recordings, one zip per mouse, resumed after a break-off.

What is known of the files: their names. Their checksums are not published with them, so a download
is checked as a whole zip with intact members unless a checksum is given.
"""

from __future__ import annotations

import logging
import os
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pooch
import requests
from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

_GRAY = "GrayImageNet-94c6ff995dac583098847cfecd43e7b6"
_COLOR = "ColorImageNet-104e446ed0128d89c639eef0abe4655b"
_COLOR_B = "ColorImageNet-b23ac8521543becfd382e56c657ba29b"
_COLOR_C = "ColorImageNet-6a21297215f4dbb802554a60c0e72877"

# Letter of the mouse: (data key, rest of the file name). S0 and S1 are the competition mice.
SENSORIUM_2022 = {
    "A": ("21067-10-18", _GRAY),
    "B": ("22846-10-16", _GRAY),
    "C": ("23343-5-17", _GRAY),
    "D": ("23656-14-22", _GRAY),
    "E": ("23964-4-22", _GRAY),
    "S0": ("26872-17-20", _GRAY),
    "S1": ("27204-5-13", _GRAY),
}
FRANKE_2022 = {
    "F": ("25311-10-26", _COLOR),
    "G": ("25340-3-19", _COLOR),
    "H": ("25704-2-12", _COLOR_B),
    "I": ("25830-10-4", _COLOR),
    "J": ("26085-6-3", _COLOR),
    "K": ("26142-2-11", _COLOR_C),
    "L": ("26426-18-13", _COLOR_B),
    "M": ("26470-4-5", _COLOR),
    "N": ("26644-6-2", _COLOR_B),
    "O": ("26872-21-6", _COLOR),
}
SENSORIUM_2022_URL = "https://gin.g-node.org/cajal/Sensorium2022/raw/master"
FRANKE_2022_URL = "https://gin.g-node.org/cajal/Franke_Willeke_2022/raw/master/imagenet%20scans"

_CHUNK_BYTES = 2**12  # what a break-off loses at most
_TIMEOUT_S = 60.0
_RETRY_PAUSE_S = 1.0
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}


def fetch_sensorium2022(
    mice: str | Sequence[str] = "all",
    cache_dir: str | os.PathLike | None = None,
    *,
    base_url: str | None = None,
    files: Mapping[str, str] | None = None,
    checksums: Mapping[str, str] | str | os.PathLike | None = None,
    retries: int = 5,
    progressbar: bool = False,
) -> list[Path]:
    """Download recordings of the Sensorium 2022 data set, one zip per mouse.

    Parameters
    ----------
    mice : str or sequence of str, default="all"
        Letters (A to E, and the competition mice S0 and S1), data keys ("21067-10-18"), or "all".
    cache_dir : path, optional
        Where the zips are kept, in a folder `sensorium2022`; default the environment variable
        V1TLEARN_DATA, else the cache folder of the operating system.
    base_url : str, optional
        Address of the folder of zips, for a mirror; default the environment variable
        V1TLEARN_SENSORIUM2022_URL, else the publisher's.
    files : mapping from data key to str, optional
        Names or whole addresses of zips where they differ from the known ones, or of other mice.
    checksums : mapping from file name to str, or path, optional
        Checksums ("sha256:..." or "md5:..."), or a file of lines "name checksum", as pooch has
        it. Zips without one are checked to be whole.
    retries : int, default=5
        How often to try again in a row without getting any further; each try goes on where the
        last one broke off, also one of an earlier call.
    progressbar : bool, default=False
        Show one.

    Returns
    -------
    list of Path
        The zips, in the order of `mice`; `read_sensorium` takes them. Zips already there are not
        downloaded again.

    Raises
    ------
    OSError
        If the download fails, naming the mouse and the address.
    ValueError
        If a mouse is unknown, or what came is not a whole zip or has another checksum.

    References
    ----------
    Willeke et al. 2022, The Sensorium competition, arXiv:2206.08666;
    https://gin.g-node.org/cajal/Sensorium2022.
    """
    base_url = base_url or os.environ.get("V1TLEARN_SENSORIUM2022_URL") or SENSORIUM_2022_URL
    folder = _cache_folder(cache_dir, "sensorium2022")
    urls = _urls(mice, SENSORIUM_2022, base_url, files)
    return _fetch(urls, folder, checksums, retries, progressbar)


def fetch_franke2022(
    mice: str | Sequence[str] = "all",
    cache_dir: str | os.PathLike | None = None,
    *,
    base_url: str | None = None,
    files: Mapping[str, str] | None = None,
    checksums: Mapping[str, str] | str | os.PathLike | None = None,
    retries: int = 5,
    progressbar: bool = False,
) -> list[Path]:
    """Download recordings of Franke et al. 2022 (two colours), one zip per mouse.

    Parameters
    ----------
    mice : str or sequence of str, default="all"
        Letters (F to O), data keys ("25311-10-26"), or "all".
    cache_dir : path, optional
        Where the zips are kept, in a folder `franke2022`; default the environment variable
        V1TLEARN_DATA, else the cache folder of the operating system.
    base_url : str, optional
        Address of the folder of zips, for a mirror; default the environment variable
        V1TLEARN_FRANKE2022_URL, else the publisher's.
    files : mapping from data key to str, optional
        Names or whole addresses of zips where they differ from the known ones, or of other mice.
    checksums : mapping from file name to str, or path, optional
        Checksums ("sha256:..." or "md5:..."), or a file of lines "name checksum", as pooch has
        it. Zips without one are checked to be whole.
    retries : int, default=5
        How often to try again in a row without getting any further; each try goes on where the
        last one broke off, also one of an earlier call.
    progressbar : bool, default=False
        Show one.

    Returns
    -------
    list of Path
        The zips, in the order of `mice`; `read_sensorium` takes them. Zips already there are not
        downloaded again.

    Raises
    ------
    OSError
        If the download fails, naming the mouse and the address.
    ValueError
        If a mouse is unknown, or what came is not a whole zip or has another checksum.

    Notes
    -----
    The names of the zips are those that published code reads; the publisher may rename them. If
    one is not found, look it up at the address below and pass it in `files`.

    References
    ----------
    Franke et al. 2022, State-dependent pupil dilation rapidly shifts visual feature selectivity,
    Nature; https://gin.g-node.org/cajal/Franke_Willeke_2022.
    """
    base_url = base_url or os.environ.get("V1TLEARN_FRANKE2022_URL") or FRANKE_2022_URL
    folder = _cache_folder(cache_dir, "franke2022")
    urls = _urls(mice, FRANKE_2022, base_url, files)
    return _fetch(urls, folder, checksums, retries, progressbar)


def _cache_folder(cache_dir: str | os.PathLike | None, name: str) -> Path:
    root = cache_dir or os.environ.get("V1TLEARN_DATA") or pooch.os_cache("v1tlearn")
    return Path(root).expanduser() / name


def _urls(
    mice: str | Sequence[str],
    known: Mapping[str, tuple[str, str]],
    base_url: str,
    files: Mapping[str, str] | None,
) -> dict[str, str]:
    """Return {data key: address} of the mice asked for, in their order."""
    names = {key: f"static{key}-{rest}.zip" for key, rest in known.values()} | dict(files or {})
    letters = {letter: key for letter, (key, _) in known.items()}
    asked = [mice] if isinstance(mice, str) else list(mice)
    keys = list(names) if asked == ["all"] else [letters.get(mouse, mouse) for mouse in asked]
    unknown = [key for key in keys if key not in names]
    if unknown or not keys:
        listed = ", ".join(f"{letter} ({key})" for letter, key in letters.items())
        raise ValueError(
            f"mice holds {', '.join(map(repr, unknown)) or 'nothing'}; expected 'all' or any of "
            f"{listed}: another mouse needs files={{data key: file name or address}}"
        )
    return {
        key: names[key]
        if "://" in names[key]
        else f"{base_url.rstrip('/')}/{quote(names[key], safe='')}"
        for key in keys
    }


def _fetch(
    urls: Mapping[str, str],
    folder: Path,
    checksums: Mapping[str, str] | str | os.PathLike | None,
    retries: int,
    progressbar: bool,
) -> list[Path]:
    if checksums is not None and not isinstance(checksums, Mapping):
        register = pooch.create(path=folder, base_url="")
        register.load_registry(os.fspath(checksums))
        checksums = register.registry
    paths = []
    for mouse, url in urls.items():
        name = unquote(urlsplit(url).path).rpartition("/")[2]
        checksum = (checksums or {}).get(name)
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
                if error.response.status_code not in _PASSING_STATUS:
                    raise OSError(
                        f"mouse {self._mouse!r}: {self._url} answered {error.response.status_code} "
                        f"({error.response.reason}); check the address in a browser and pass the "
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
            time.sleep(_RETRY_PAUSE_S * min(2**failures, 30))

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

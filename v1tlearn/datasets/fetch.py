"""Download of the public recordings: which mice there are, and what their zips are called."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

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
_PUBLISHED = {
    "sensorium2022": (SENSORIUM_2022, SENSORIUM_2022_URL),
    "franke2022": (FRANKE_2022, FRANKE_2022_URL),
}


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
    ImportError
        Without the extra "fetch".
    OSError
        If the download fails, naming the mouse and the address; if the disk is full; if an
        address sends on from https to http.
    ValueError
        If a mouse is unknown; if an address ends in no plain file name, or two in the same one; if
        a file is larger than 64 GiB; if what came is not a whole zip, is encrypted or has another
        checksum. Nothing of it is kept then.

    Notes
    -----
    Addresses may send on to another host, as publishers do to their stores; the log names it.

    References
    ----------
    Willeke et al. 2022, The Sensorium competition, arXiv:2206.08666;
    https://gin.g-node.org/cajal/Sensorium2022.
    """
    return _fetch(
        "sensorium2022", mice, cache_dir, base_url, files, checksums, retries, progressbar
    )


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
    cache_dir, base_url, files, checksums, retries, progressbar
        As for `fetch_sensorium2022`; the folder is `franke2022`, the environment variable
        V1TLEARN_FRANKE2022_URL.

    Returns
    -------
    list of Path
        The zips, in the order of `mice`; `read_sensorium` takes them.

    Raises
    ------
    ImportError, OSError, ValueError
        As `fetch_sensorium2022` does.

    See Also
    --------
    fetch_sensorium2022 : Says what each parameter means.

    Notes
    -----
    The names of the zips are those that published code reads; the publisher may rename them. If
    one is not found, look it up at the address below and pass it in `files`.

    References
    ----------
    Franke et al. 2022, State-dependent pupil dilation rapidly shifts visual feature selectivity,
    Nature; https://gin.g-node.org/cajal/Franke_Willeke_2022.
    """
    return _fetch("franke2022", mice, cache_dir, base_url, files, checksums, retries, progressbar)


def _fetch(
    dataset: str,
    mice: str | Sequence[str],
    cache_dir: str | os.PathLike | None,
    base_url: str | None,
    files: Mapping[str, str] | None,
    *options: Any,
) -> list[Path]:
    from v1tlearn.datasets.download import cache_folder, download

    known, published_at = _PUBLISHED[dataset]
    base_url = base_url or os.environ.get(f"V1TLEARN_{dataset.upper()}_URL") or published_at
    asked = _files(mice, known, base_url, files)
    root = cache_dir or os.environ.get("V1TLEARN_DATA") or cache_folder()
    return download(asked, Path(root).expanduser() / dataset, *options)


def _files(
    mice: str | Sequence[str],
    known: Mapping[str, tuple[str, str]],
    base_url: str,
    files: Mapping[str, str] | None,
) -> dict[str, tuple[str, str]]:
    """Return {data key: (address, file name)} of the mice asked for, in their order."""
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
    found: dict[str, tuple[str, str]] = {}
    for key in keys:
        url, name = _address_and_name(key, names[key], base_url)
        for other, (_, taken) in found.items():
            if taken == name and other != key:
                raise ValueError(
                    f"the zips of the mice {other!r} and {key!r} are both called {name!r}, so that "
                    "one would be taken for the other; fetch them into two cache_dir"
                )
        found[key] = url, name
    return found


def _address_and_name(mouse: str, given: str, base_url: str) -> tuple[str, str]:
    """Return the address of a zip, and what it is to be called in the cache."""
    if not isinstance(given, str):
        raise TypeError(
            f"files: mouse {mouse!r} has a {type(given).__name__}; expected a file name or address"
        )
    whole = "://" in given
    url = given if whole else f"{base_url.rstrip('/')}/{quote(given, safe='')}"
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"mouse {mouse!r}: {url!r} is no address; expected one that begins with https:// or "
            "http://"
        )
    name = unquote(parts.path).rpartition("/")[2] if whole else given
    if name in ("", ".", "..") or re.search(r"[/\\:\x00-\x1f]", name):
        raise ValueError(
            f"mouse {mouse!r}: {given!r} ends in {name!r}, which names no file in the cache; "
            "expected a plain file name, or an address that ends in one"
        )
    return url, name

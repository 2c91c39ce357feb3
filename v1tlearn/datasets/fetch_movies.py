"""Download of the public recordings of movies."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from v1tlearn.datasets.addresses import address_and_name
from v1tlearn.datasets.mouse_zips import MouseZip, fetch_zips

_HASHES = ("8744edeac3b4d1ce16b680916b5267ce", "9b4f6a1a067fe51e15306b9628efea20")
_SENSORIUM_2023_URLS = (
    "https://gin.g-node.org/pollytur/Sensorium2023Data/raw/master",
    "https://gin.g-node.org/pollytur/sensorium_2023_dataset/raw/master",
)

# Letter of the mouse: (data key, whether it is of the second release, in a repository of its own).
SENSORIUM_2023 = {
    "A": ("29156-11-10", False),
    "B": ("29228-2-10", False),
    "C": ("29234-6-9", False),
    "D": ("29513-3-5", False),
    "E": ("29514-2-9", False),
    "F": ("29515-10-12", True),
    "G": ("29623-4-9", True),
    "H": ("29647-19-8", True),
    "I": ("29712-5-9", True),
    "J": ("29755-2-8", True),
}

_MAHUAS_2020_URL = (
    "https://raw.githubusercontent.com/gmahuas/2stepGLM/"
    "b6e04092254b9ae58c32a709f06f63cfa40dd37b/data"
)
_MAHUAS_2020 = {
    "train": (
        "nonrepeat_data_bars.mat",
        "sha256:0e23ba9f6b80f1bbcff6b840f40802f70a312404a5223e0819c8087ddd90d0cb",
    ),
    "test": (
        "test_data_bars.mat",
        "sha256:49d1bcd99357aa1d4e71d59e7e8e9d7dd75160785ab72e78ab66726009eef5e6",
    ),
}


def fetch_sensorium2023(
    mice: str | Sequence[str] = "all",
    cache_dir: str | os.PathLike | None = None,
    *,
    base_url: str | None = None,
    files: Mapping[str, str] | None = None,
    checksums: Mapping[str, str] | str | os.PathLike | None = None,
    retries: int = 5,
    retry_pause: float = 1.0,
    progressbar: bool = False,
) -> list[Path]:
    """Download recordings of the Sensorium 2023 data set, movies, one zip per mouse.

    Parameters
    ----------
    mice : str or sequence of str, default="all"
        Letters (A to E, the competition mice, and F to J, released ahead of them), data keys
        ("29156-11-10"), or "all".
    cache_dir, base_url, files, checksums, retries, retry_pause, progressbar
        As for `fetch_sensorium2022`; the folder is `sensorium2023`, the environment variable
        V1TLEARN_SENSORIUM2023_URL.

    Returns
    -------
    list of Path
        The zips, in the order of `mice`; `read_sensorium2023` takes them.

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
    one is not found, look it up at the addresses below and pass it in `files`.

    References
    ----------
    Turishcheva et al. 2023, arXiv:2305.19654; https://gin.g-node.org/pollytur/Sensorium2023Data and
    https://gin.g-node.org/pollytur/sensorium_2023_dataset.
    """
    zips = {
        letter: MouseZip(
            key,
            f"dynamic{key}-Video-{_HASHES[second]}.zip",
            _SENSORIUM_2023_URLS[second],
        )
        for letter, (key, second) in SENSORIUM_2023.items()
    }
    options = checksums, retries, retry_pause, progressbar
    return fetch_zips("sensorium2023", zips, mice, cache_dir, base_url, files, *options)


def fetch_mahuas2020(
    cache_dir: str | os.PathLike | None = None,
    *,
    base_url: str | None = None,
    checksums: Mapping[str, str] | str | os.PathLike | None = None,
    retries: int = 5,
    retry_pause: float = 1.0,
    progressbar: bool = False,
) -> dict[str, Path]:
    """Download the recording of the rat retina to moving bars of Mahuas et al. (2020).

    Parameters
    ----------
    cache_dir : path, optional
        As for `fetch_sensorium2022`; the folder is `mahuas2020`.
    base_url : str, optional
        Address of a folder of the files under their names, for a mirror; default the environment
        variable V1TLEARN_MAHUAS2020_URL, else the publishers'.
    checksums : mapping from file name to str, or path, optional
        As for `fetch_sensorium2022`; by default those of the published files.
    retries, retry_pause, progressbar
        As for `fetch_sensorium2022`.

    Returns
    -------
    dict of str to Path
        The files of the tiers "train", 50 sequences shown once, and "test", one shown 54 times:
        ``read_stimulus_spikes(fetch_mahuas2020(), 1 / 600)`` reads them, in their bins of 1.667 ms.

    Raises
    ------
    ImportError, OSError, ValueError
        As `fetch_sensorium2022` does.

    See Also
    --------
    fetch_sensorium2022 : Says what each parameter means.

    Notes
    -----
    The address is that of one state of the repository, and the publishers may move it; whatever
    comes from there is kept only if it has the checksums of the files that were published.

    References
    ----------
    Mahuas et al. 2020, A new inference approach for training shallow and deep generalized linear
    models of noisy interacting neurons, NeurIPS; https://github.com/gmahuas/2stepGLM.
    """
    from v1tlearn.datasets.download import data_folder, download

    base_url = base_url or os.environ.get("V1TLEARN_MAHUAS2020_URL") or _MAHUAS_2020_URL
    asked = {
        tier: address_and_name(tier, name, base_url) for tier, (name, _) in _MAHUAS_2020.items()
    }
    folder = data_folder(cache_dir, "mahuas2020")
    known = dict(_MAHUAS_2020.values()) if checksums is None else checksums
    paths = download(asked, folder, known, retries, retry_pause, progressbar)
    return dict(zip(asked, paths, strict=True))

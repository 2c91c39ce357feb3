"""Download of the public recordings: which mice there are, and what their zips are called."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from v1tlearn.datasets.addresses import asked_for
from v1tlearn.datasets.figshare import Article, fetch_article
from v1tlearn.datasets.mouse_zips import MouseZip, fetch_zips

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
# Mouse of Du et al. 2025: (date, whether it saw textures, too).
NAT60K = {
    "L1_A5": ("2023_02_27", False),
    "L1_A1": ("2023_03_06", False),
    "FX9": ("2023_05_15", True),
    "FX10": ("2023_05_16", True),
    "FX8": ("2023_05_16", True),
    "FX20": ("2023_09_29", True),
}
NAT60K_IMAGES = "nat60k_text16.mat"
# Those of the files whose numbers are known; others are looked up in the list of the article.
NAT60K_FILES = {
    NAT60K_IMAGES: 53678783,
    "FX8_nat60k_2023_05_16.npz": 53712320,
    "FX10_nat60k_2023_05_16.npz": 53712311,
}
NAT60K_URL = "https://ndownloader.figshare.com/files"
NAT60K_LIST = "https://api.figshare.com/v2/articles/28797638/files?page_size=1000"
NATIMG2800 = (
    "M160825_MP027_2016-12-14",
    "M161025_MP030_2017-05-29",
    "M170604_MP031_2017-06-28",
    "M170714_MP032_2017-08-07",
    "M170714_MP032_2017-09-14",
    "M170717_MP033_2017-08-20",
    "M170717_MP034_2017-09-11",
)
NATIMG2800_IMAGES = "images_natimg2800_all.mat"
NATIMG2800_CLASSES = {
    "all": "stimuli_class_assignment.mat",
    "confident": "stimuli_class_assignment_confident.mat",
}
NATIMG2800_CLASSES_URL = (
    "https://raw.githubusercontent.com/MouseLand/stringer-pachitariu-et-al-2018b/master/classes"
)
NATIMG2800_LIST = "https://api.figshare.com/v2/articles/6845348/files?page_size=1000"
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
    retry_pause: float = 1.0,
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
    retry_pause : float, default=1
        Seconds to wait before the first of these tries, twice as many before each next one, up to
        30 times as many.
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
    options = checksums, retries, retry_pause, progressbar
    return _fetch("sensorium2022", mice, cache_dir, base_url, files, *options)


def fetch_franke2022(
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
    """Download recordings of Franke et al. 2022 (two colours), one zip per mouse.

    Parameters
    ----------
    mice : str or sequence of str, default="all"
        Letters (F to O), data keys ("25311-10-26"), or "all".
    cache_dir, base_url, files, checksums, retries, retry_pause, progressbar
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
    options = checksums, retries, retry_pause, progressbar
    return _fetch("franke2022", mice, cache_dir, base_url, files, *options)


def fetch_nat60k(
    mice: str | Sequence[str] = "all",
    cache_dir: str | os.PathLike | None = None,
    *,
    textures: bool = False,
    base_url: str | None = None,
    listing: str = NAT60K_LIST,
    files: Mapping[str, str] | None = None,
    checksums: Mapping[str, str] | str | os.PathLike | None = None,
    retries: int = 5,
    retry_pause: float = 1.0,
    progressbar: bool = False,
) -> tuple[list[Path], Path]:
    """Download recordings of Du et al. 2025, one file per mouse, and the images of all.

    Parameters
    ----------
    mice : str or sequence of str, default="all"
        "L1_A5", "L1_A1", "FX9", "FX10", "FX8", "FX20", or "all".
    cache_dir : path, optional
        As for `fetch_sensorium2022`; the folder is `nat60k`.
    textures : bool, default=False
        The responses to textures, of FX8, FX9, FX10 and FX20, instead of those to natural images.
    base_url : str, optional
        Address of a folder of the files under their names, for a mirror; default the environment
        variable V1TLEARN_NAT60K_URL, else the publisher's, where files have numbers.
    listing : str, optional
        Address of the list of the article's files, where it has moved.
    files : mapping from file name to str, optional
        Whole addresses of files, where they differ from the known ones.
    checksums : mapping from file name to str, or path, optional
        As for `fetch_sensorium2022`. None are published; files that are looked up in the list of
        the article have those of the list. Without one, files of arrays are checked to be whole
        zips, and images by their length and first bytes.
    retries, retry_pause, progressbar
        As for `fetch_sensorium2022`.

    Returns
    -------
    responses : list of Path
        The files of the mice, in their order, as `read_nat60k` or `read_text16` takes them.
    images : Path
        The images.

    Raises
    ------
    ImportError, OSError, ValueError
        As `fetch_sensorium2022` does; and OSError if the list of the article is needed and cannot
        be read or does not have a file.

    See Also
    --------
    fetch_sensorium2022 : Says what each parameter means.

    References
    ----------
    Du et al. 2025, Towards a simplified model of primary visual cortex; Figshare
    28797638.
    """
    known = {mouse: date for mouse, (date, seen) in NAT60K.items() if seen or not textures}
    asked = asked_for(mice)
    asked = list(known) if asked == ["all"] else asked
    if unknown := [mouse for mouse in asked if mouse not in known]:
        raise ValueError(
            f"mice holds {', '.join(map(repr, unknown))}; expected 'all' or any of "
            f"{', '.join(known)}" + (", which saw textures" if textures else "")
        )
    layout = "text16_{}_{}.npz" if textures else "{}_nat60k_{}.npz"
    names = {mouse: layout.format(mouse, known[mouse]) for mouse in asked}
    names["images"] = NAT60K_IMAGES
    numbered = {name: f"{NAT60K_URL}/{number}" for name, number in NAT60K_FILES.items()}
    article = Article("nat60k", "Du et al. 2025", listing, numbered)
    options = checksums, retries, retry_pause, progressbar
    *responses, images = fetch_article(article, names, cache_dir, base_url, files, *options)
    return responses, images


def fetch_natimg2800(
    mice: str | Sequence[str] = "all",
    cache_dir: str | os.PathLike | None = None,
    *,
    classes: Literal["all", "confident"] | None = "all",
    base_url: str | None = None,
    listing: str = NATIMG2800_LIST,
    files: Mapping[str, str] | None = None,
    checksums: Mapping[str, str] | str | os.PathLike | None = None,
    retries: int = 5,
    retry_pause: float = 1.0,
    progressbar: bool = False,
) -> tuple[list[Path], Path, Path | None]:
    """Download recordings of Stringer et al. 2019, one file each, and the images of all.

    Parameters
    ----------
    mice : str or sequence of str, default="all"
        Recordings, such as "M170717_MP033_2017-08-20", or "all" seven.
    cache_dir : path, optional
        As for `fetch_sensorium2022`; the folder is `natimg2800`.
    classes : {"all", "confident"} or None, default="all"
        Which classes of the images: sixteen, or the eleven that are sure; None for neither.
    base_url : str, optional
        Address of a folder of the files under their names, for a mirror; default the environment
        variable V1TLEARN_NATIMG2800_URL, else the publishers', where the numbers of files are
        looked up in the list of the article.
    listing : str, optional
        Address of the list of the article's files, where it has moved.
    files : mapping from file name to str, optional
        Whole addresses of files, where they differ from the known ones.
    checksums : mapping from file name to str, or path, optional
        As for `fetch_sensorium2022`. Files that are looked up in the list of the article have those
        of the list. Without one, files are checked by their length and first bytes.
    retries, retry_pause, progressbar
        As for `fetch_sensorium2022`.

    Returns
    -------
    responses : list of Path
        The recordings, in their order.
    images : Path
        The images.
    classes : Path or None
        The classes. All three as `read_natimg2800` takes them.

    Raises
    ------
    ImportError, OSError, ValueError
        As `fetch_nat60k` does.

    See Also
    --------
    fetch_sensorium2022 : Says what each parameter means.

    References
    ----------
    Stringer et al. 2019, Nature 571, 361-365; Figshare 6845348; the classes are in
    https://github.com/MouseLand/stringer-pachitariu-et-al-2018b.
    """
    if classes not in (*NATIMG2800_CLASSES, None):
        raise ValueError(
            f"classes is {classes!r}; expected one of {list(NATIMG2800_CLASSES)}, or None"
        )
    asked = asked_for(mice)
    asked = list(NATIMG2800) if asked == ["all"] else asked
    if unknown := [mouse for mouse in asked if mouse not in NATIMG2800]:
        raise ValueError(
            f"mice holds {', '.join(map(repr, unknown))}; expected 'all' or any of "
            f"{', '.join(NATIMG2800)}"
        )
    names = {mouse: f"natimg2800_{mouse}.mat" for mouse in asked}
    names["images"] = NATIMG2800_IMAGES
    if classes is not None:
        names["classes"] = NATIMG2800_CLASSES[classes]
    in_repository = {
        name: f"{NATIMG2800_CLASSES_URL}/{name}" for name in NATIMG2800_CLASSES.values()
    }
    article = Article("natimg2800", "Stringer et al. 2019", listing, in_repository)
    options = checksums, retries, retry_pause, progressbar
    found = fetch_article(article, names, cache_dir, base_url, files, *options)
    by_name = dict(zip(names, found, strict=True))
    return [by_name[mouse] for mouse in asked], by_name["images"], by_name.get("classes")


def _fetch(
    dataset: str,
    mice: str | Sequence[str],
    cache_dir: str | os.PathLike | None,
    base_url: str | None,
    files: Mapping[str, str] | None,
    *options: Any,
) -> list[Path]:
    known, published_at = _PUBLISHED[dataset]
    zips = {
        letter: MouseZip(key, f"static{key}-{rest}.zip", published_at)
        for letter, (key, rest) in known.items()
    }
    return fetch_zips(dataset, zips, mice, cache_dir, base_url, files, *options)

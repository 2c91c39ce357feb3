"""Downloads from an article of Figshare, where files have numbers, or from a mirror by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from v1tlearn.datasets.addresses import address_and_name


@dataclass(frozen=True)
class Article:
    """Where an article's files are found."""

    dataset: str  # which names the folder in the cache, and the variable with a mirror's address
    called: str  # in errors
    listing: str  # address of the list of its files
    known: Mapping[str, str]  # {name: address}, for which no list is needed


def fetch_article(
    article: Article,
    names: Mapping[str, str],
    cache_dir: str | os.PathLike | None,
    base_url: str | None,
    files: Mapping[str, str] | None,
    checksums: Mapping[str, str] | str | os.PathLike | None,
    *options: Any,
) -> list[Path]:
    """Download files of an article, {what it is of: name}, in their order."""
    from v1tlearn.datasets.download import data_folder, download

    base_url = base_url or os.environ.get(f"V1TLEARN_{article.dataset.upper()}_URL")
    addresses, listed = _addresses(article, names, base_url, files)
    if checksums is None:
        checksums = listed
    elif isinstance(checksums, Mapping):
        checksums = listed | dict(checksums)
    return download(addresses, data_folder(cache_dir, article.dataset), checksums, *options)


def _addresses(
    article: Article,
    names: Mapping[str, str],
    base_url: str | None,
    files: Mapping[str, str] | None,
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Return {mouse: (address, name)}, and checksums of files that were looked up."""
    given = dict(files or {})
    if base_url is None:
        given = dict(article.known) | given
    found: dict[str, str] = {name: given[name] for name in names.values() if name in given}
    checksums: dict[str, str] = {}
    absent = [name for name in names.values() if name not in found]
    if absent and base_url is not None:
        found |= {name: f"{base_url.rstrip('/')}/{quote(name, safe='')}" for name in absent}
    elif absent:
        listed, checksums = _listed(article, absent)
        found |= listed
    for mouse, name in names.items():  # which says what is no address
        address_and_name(mouse, found[name], "")
    return {mouse: (found[name], name) for mouse, name in names.items()}, checksums


def _listed(article: Article, names: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Look up addresses and checksums in the list of the article's files."""
    from v1tlearn.datasets.download import read_json

    remedy = "look the files up at the article and pass files={name: address}, or a base_url"
    try:
        entries = read_json(article.listing, f"the list of the files of {article.called}")
        listed = {entry["name"]: entry for entry in entries if entry["name"] in names}
        addresses = {name: str(entry["download_url"]) for name, entry in listed.items()}
        sums = {name: entry.get("computed_md5") for name, entry in listed.items()}
    except (OSError, TypeError, KeyError, AttributeError) as error:
        said = (
            str(error) if isinstance(error, OSError) else f"{article.listing} gave no list of files"
        )
        raise OSError(f"{said}: {remedy}") from error
    if absent := [name for name in names if name not in addresses]:
        raise OSError(f"{article.listing} does not list {', '.join(absent)}: {remedy}")
    return addresses, {name: f"md5:{value}" for name, value in sums.items() if value}

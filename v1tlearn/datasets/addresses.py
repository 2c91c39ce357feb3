"""What callers of downloads ask for: mice by name, and addresses of files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote, urlsplit


def asked_for(mice: Any) -> list[str]:
    """Names of mice, one or several."""
    asked = list(mice) if isinstance(mice, Iterable) and not isinstance(mice, str) else [mice]
    if others := [mouse for mouse in asked if not isinstance(mouse, str)]:
        raise TypeError(
            f"mice holds {others[0]!r}, a {type(others[0]).__name__}: expected names of mice, or "
            "'all'."
        )
    return asked


def address_and_name(mouse: str, given: str, base_url: str) -> tuple[str, str]:
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

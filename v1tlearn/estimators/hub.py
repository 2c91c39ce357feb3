"""Models by name: a registry that lists them, at an address or in a folder, and how one gets in.

A registry is a file of JSON, ``registry.json``: {name: {url, sha256, licence, card}}, with zips of
saved models beside it or anywhere. What it names is checked before it is unpacked, and nothing of
it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from v1tlearn._guesses import did_you_mean, guess
from v1tlearn._instead import path_of
from v1tlearn._opening import (
    check_plain,
    json_object,
    read_plain,
    reading,
    system_errors_named,
)
from v1tlearn._options import as_finite
from v1tlearn._paths import MODEL_FILE, REGISTRY_FILE
from v1tlearn._replacing import alone_in, make_folder, replacing
from v1tlearn._values import as_flag, as_whole
from v1tlearn.estimators._cards import CARD_FILE, check_tells_of, licence_in, sha256_of, write_card
from v1tlearn.estimators.loading import load

_VARIABLE = "V1TLEARN_MODELS"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MEMBER = re.compile(rf"{MODEL_FILE}|{CARD_FILE}|tensors-[0-9a-f-]{{1,99}}\.safetensors")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MOST_REGISTRY = 2**22  # bytes
_MOST_BYTES = 2**35  # of a model, unpacked
_MOST_INFLATED = 1100  # times as long as it was
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class _Entry:
    """What a registry says of a model."""

    name: str
    url: str
    sha256: str


def fetch_model(
    name: str,
    registry: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    *,
    retries: int = 5,
    retry_pause: float = 1.0,
    progressbar: bool = False,
) -> Path:
    """Get a model by its name from a registry, for ``load``.

    Parameters
    ----------
    name : str
        As the registry has it.
    registry : str or path, optional
        Address, ``https://``, of a registry or of the folder of its ``registry.json``; or such a
        file or folder on a disk. Default the environment variable V1TLEARN_MODELS.
    cache_dir : path, optional
        Where models are kept, in a folder `models`; default the environment variable
        V1TLEARN_DATA, else the cache folder of the operating system.
    retries, retry_pause, progressbar
        Of downloads, as for `fetch_sensorium2022`.

    Returns
    -------
    Path
        The folder of the model, with its card, ``README.md``, and ``model.json``. A model that was
        fetched before is not downloaded again.

    Raises
    ------
    ImportError
        For addresses, without the extra "fetch".
    OSError
        If the registry or the model cannot be read or downloaded.
    TypeError
        If an argument is of another kind.
    ValueError
        If the registry does not list the model, or is none; if an address is not encrypted, or
        leads out of the folder of the registry; if what came has another checksum, or is no zip of
        a model, of which nothing is kept then; or if `retries` or `retry_pause` is out of range.

    See Also
    --------
    load : Opens what this gives, and checks that the weights are those that were saved.
    publish_model : Puts a model into a registry.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> model = v1.load(v1.fetch_model("v1-cnn", "https://lab.example/models"))  # doctest: +SKIP
    """
    if not isinstance(name, str):
        raise TypeError(f"name is a {type(name).__name__}: expected the name of a model, as text.")
    retries = as_whole(retries, "retries", 0)
    retry_pause = as_finite(retry_pause, "retry_pause", 0)
    progressbar = as_flag(progressbar, "progressbar")
    registry = os.environ.get(_VARIABLE) if registry is None else registry
    if not registry:
        raise ValueError(
            f"no registry is given: expected registry=, an address or a folder, or {_VARIABLE} in "
            "the environment."
        )
    source = os.fspath(path_of("registry", registry, "fetch_model(name, registry)"))
    remote = "://" in str(registry)
    source = str(registry) if remote else source
    entry, base = _look_up(name, source, remote=remote)
    root = _models_folder(cache_dir)
    folder = root / f"{name}-{entry.sha256[:16]}"
    if (folder / MODEL_FILE).is_file():
        return folder
    if "://" in entry.url:
        from v1tlearn.datasets.download import download

        archive = f"{folder.name}.zip"
        checksums = {archive: f"sha256:{entry.sha256}"}
        options = checksums, retries, retry_pause, progressbar
        (path,) = download(
            {name: (entry.url, archive)}, root, *options, of="model", given_in="the registry"
        )
        _unpack(path, folder)
        path.unlink(missing_ok=True)
        return folder
    path = _beside(name, Path(base), entry.url)
    if not path.exists():
        raise FileNotFoundError(
            f"model {name!r}: there is no {path}, which {source} names; copy the zip there, too."
        )
    check_plain(path)
    came = sha256_of(path)
    if came != entry.sha256:
        raise ValueError(
            f"model {name!r}: {path} has the checksum {came}, expected {entry.sha256} as "
            f"{source} says; copy it again."
        )
    _unpack(path, folder)
    return folder


def _models_folder(cache_dir: str | os.PathLike | None) -> Path:
    root = cache_dir or os.environ.get("V1TLEARN_DATA")
    if root:
        return Path(root).expanduser() / "models"
    from v1tlearn.datasets.download import data_folder

    return data_folder(None, "models")


def _look_up(name: str, source: str, *, remote: bool) -> tuple[_Entry, str]:
    """The entry of a model, and what its address is relative to."""
    if remote:
        _check_encrypted(source)
        address = source if source.endswith(".json") else f"{source.rstrip('/')}/{REGISTRY_FILE}"
        from v1tlearn.datasets.download import read_json

        listed, base = read_json(address, "the registry of models"), address
    else:
        path = Path(source).expanduser()
        path = path / REGISTRY_FILE if path.is_dir() else path
        with reading(path, "is no registry of models", "expected JSON, {name: {url, sha256, ...}}"):
            listed = json_object(read_plain(path, _MOST_REGISTRY))
        address, base = str(path), str(path.parent)
    if not isinstance(listed, Mapping):
        raise ValueError(f"{address} holds a {type(listed).__name__}, expected {{name: {{...}}}}.")
    if name not in listed:
        raise ValueError(
            f"{address} lists no model {name!r}, only {sorted(listed)}"
            + did_you_mean(guess(name, list(listed)))
        )
    return _checked(name, listed[name], address, base, remote=remote), base


def _checked(name: str, told: Any, address: str, base: str, *, remote: bool) -> _Entry:
    entry = told if isinstance(told, Mapping) else {}
    url, digest = entry.get("url"), str(entry.get("sha256", "")).lower()
    if not _NAME.fullmatch(name) or not isinstance(url, str) or not _DIGEST.fullmatch(digest):
        raise ValueError(
            f"{address}: the entry of {name!r} is {told!r}; expected a name of letters, digits, "
            "'.', '_' and '-', a url, and a sha256 of 64 hexadecimal digits."
        )
    if remote:
        url = urljoin(base, url)
    if "://" in url:
        _check_encrypted(url)
    return _Entry(name, url, digest)


def _check_encrypted(url: str) -> None:
    """Refuse addresses that are not encrypted, but for those of this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not parts.hostname or not (parts.scheme == "https" or local):
        raise ValueError(f"{url!r} is no address that begins with https://, and is not opened.")


def _beside(name: str, folder: Path, url: str) -> Path:
    """A file of the folder of a registry, or below it."""
    path = folder / unquote(url)
    if "\0" in str(path) or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"model {name!r}: {url!r} leads out of {folder}, the folder of the registry; expected "
            "a file within it, or an address."
        )
    return path.resolve()


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the zip of a model, whole or not at all."""
    wrong, remedy = "is no zip of a model", "nothing was kept; expected what publish_model writes"
    make_folder(folder.parent)
    with alone_in(folder.parent):
        if (folder / MODEL_FILE).is_file():
            return  # another process was first
        with reading(archive, wrong, remedy):
            _unpack_alone(archive, folder)


def _unpack_alone(archive: Path, folder: Path) -> None:
    with (
        zipfile.ZipFile(archive) as packed,
        replacing(folder) as new,
    ):
        new.mkdir()
        most = left = min(_MOST_BYTES, _MOST_INFLATED * archive.stat().st_size)
        for info in packed.infolist():
            file = new / info.filename
            if not _MEMBER.fullmatch(info.filename) or info.flag_bits & 1 or file.exists():
                raise ValueError(
                    f"its member {info.filename!r} is none of a model, encrypted or there twice"
                )
            left -= info.file_size
            if left < 0:
                raise ValueError(f"unpacked it would be larger than {most} bytes")
            with packed.open(info) as member, system_errors_named(file), file.open("xb") as copy:
                shutil.copyfileobj(member, copy, 2**20)
        if not (new / MODEL_FILE).is_file():
            raise ValueError(f"it has no {MODEL_FILE}")


def publish_model(
    path: str | os.PathLike,
    registry: str | os.PathLike,
    name: str,
    *,
    licence: str,
    description: str | None = None,
    scores: Any = None,
) -> Path:
    """Put a saved model into a registry, a folder that may be served to others as it is.

    Parameters
    ----------
    path : path
        The folder that `save` wrote. A card in it, README.md, goes along; without one, one is
        written.
    registry : path
        A folder, which is made where there is none: it holds ``registry.json``, and a zip and a
        card for each model. Put it on any web server, or on a shared disk.
    name : str
        By which others fetch it: letters, digits, ".", "_" and "-". An earlier model of that name
        is replaced in the list, and its zip stays, for those who have read the list before.
    licence : str
        What others may do with it, best an SPDX id, such as "CC-BY-4.0".
    description : str, optional
        Of a card that is written.
    scores : DataFrame or dict, optional
        Of a card that is written, as in ``save(card=...)``.

    Returns
    -------
    Path
        The zip.

    Raises
    ------
    TypeError, ValueError
        If there is no such model, it is damaged, or the name is another; if `registry` is an
        address; if the card tells of another licence.

    See Also
    --------
    fetch_model : Gets it by its name.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> model.save("v1-cnn", card={"scores": v1.score_table(model, test)})  # doctest: +SKIP
    >>> v1.publish_model("v1-cnn", "models", "v1-cnn", licence="CC-BY-4.0")  # doctest: +SKIP
    """
    path = path_of("path", path, "publish_model(path, registry, name, licence=...)")
    folder = path_of("registry", registry, "publish_model(path, registry, name, licence=...)")
    if "://" in str(registry):
        raise ValueError(f"registry is {registry!r}: expected a folder, which you then serve.")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"name is {name!r}: expected letters and digits, and '.', '_' and '-' behind the first."
        )
    if not isinstance(licence, str) or not licence.strip() or "\n" in licence:
        raise ValueError(f"licence is {licence!r}: expected one line of text, best an SPDX id.")
    model = load(path, device="cpu")  # which says what is wrong with it
    if not (path / CARD_FILE).is_file():
        card = {"title": name, "licence": licence, "description": description, "scores": scores}
        told = {key: value for key, value in card.items() if value is not None}
        given = model.get_params(deep=False)
        write_card(path, type(model), given, model._fitted_on(), told)
    elif description is not None or scores is not None:
        raise ValueError(
            f"{path} has a card, {CARD_FILE}, which is published as it is: leave out description "
            "and scores, or save the model with card=None before."
        )
    of_card = licence_in(path / CARD_FILE)
    if of_card is not None and of_card.casefold() != licence.strip().casefold():
        raise ValueError(
            f"licence is {licence!r}, and the card {path / CARD_FILE} says {of_card!r}: give "
            "that, or correct the card, or remove it, and one is written."
        )
    document = json_object(read_plain(path / MODEL_FILE))
    tensors = path / Path(document["tensors"]).name
    check_tells_of(path / CARD_FILE, tensors)
    make_folder(folder)
    members = {member.name: member for member in (path / MODEL_FILE, tensors, path / CARD_FILE)}
    digests = " ".join(sha256_of(member) for member in members.values())
    archive = folder / f"{name}-{hashlib.sha256(digests.encode()).hexdigest()[:12]}.zip"
    text = archive.with_suffix(".md")
    with alone_in(folder):
        with replacing(archive) as new, zipfile.ZipFile(new, "w") as packed:
            for member_name, member in members.items():  # of one date, so the same is the same
                into = zipfile.ZipInfo(member_name)
                with member.open("rb") as source, packed.open(into, "w", force_zip64=True) as file:
                    shutil.copyfileobj(source, file, 2**20)
        with replacing(text) as new:
            new.write_bytes(read_plain(path / CARD_FILE))
        listed: dict[str, Any] = {}
        index = folder / REGISTRY_FILE
        if index.exists():
            with reading(index, "is no registry of models", "choose another folder"):
                listed = json_object(read_plain(index, _MOST_REGISTRY))
        digest = sha256_of(archive)
        listed[name] = {
            "url": archive.name,
            "sha256": digest,
            "licence": licence,
            "card": text.name,
        }
        with replacing(index) as new:
            new.write_text(json.dumps(listed, indent=1, sort_keys=True), encoding="utf-8")
    return archive

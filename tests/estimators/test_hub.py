"""Models by name, from a folder and from a real server on this machine."""

import functools
import hashlib
import json
import shutil
import ssl
import subprocess
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import v1tlearn as v1

fetch_model = functools.partial(v1.fetch_model, retries=0, retry_pause=0)


@pytest.fixture(scope="module")
def model():
    trials = v1.Trials(
        v1.make_v1_recordings(1, 3, 24, 2, 2, image_shape=(16, 24), random_state=0)
    ).sel(tier="train")
    sizes = {"n_layers": 1, "hidden_channels": 2, "input_kernel": 5, "max_epochs": 1}
    return v1.CNNRegressor(**sizes, device="cpu", random_state=0).fit(trials), trials


@pytest.fixture(scope="module")
def published(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    model[0].save(folder / "saved")
    told = {"licence": "CC0-1.0", "description": "A small one.", "scores": {"correlation": 0.1}}
    v1.publish_model(folder / "saved", folder / "models", "v1-cnn", **told)
    return folder / "models"


@pytest.fixture
def registry(published, tmp_path):
    return shutil.copytree(published, tmp_path / "models")


def change(registry, **entry):
    index = registry / "registry.json"
    listed = json.loads(index.read_text())
    listed["v1-cnn"] |= entry
    index.write_text(json.dumps(listed))


class Server:
    """The files of a folder, and what was asked for."""

    def __init__(self, folder, context=None):
        server = self
        self.asked, self.redirects = [], {}

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                if self.path in server.redirects:
                    self.send_response(302)
                    self.send_header("Location", server.redirects[self.path])
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                super().do_GET()

            def log_message(self, *args):
                pass

        handler = functools.partial(Handler, directory=folder)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        if context is not None:
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
            self.url = f"https://localhost:{self._http.server_port}"
        self.port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def certified(tmp_path):
    """A certificate of this machine, made for the test, and its key."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


@pytest.fixture
def server(registry, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server(registry)
    yield server
    server.close()


def predicted(folder, model):
    return v1.load(folder, device="cpu").predict(model[1])["A"].values


def test_a_model_comes_from_a_server_once(server, model, tmp_path):
    folder = fetch_model("v1-cnn", server.url, tmp_path / "cache")
    assert folder.parent == tmp_path / "cache" / "models"
    np.testing.assert_array_equal(predicted(folder, model), model[0].predict(model[1])["A"])
    names = sorted(path.name.split("-")[0] for path in folder.iterdir())
    assert names == ["README.md", "model.json", "tensors"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert fetch_model("v1-cnn", f"{server.url}/registry.json", tmp_path / "cache") == folder
    zips = [path for path in server.asked if path.endswith(".zip")]
    assert len(zips) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl makes a certificate here")
def test_an_encrypted_server_is_trusted_by_its_certificate(
    registry, certified, model, tmp_path, monkeypatch
):
    monkeypatch.setenv("NO_PROXY", "localhost")
    context, certificate = certified
    server = Server(registry, context)
    try:
        with pytest.raises(OSError, match=r"registry of models could not be read.*SSLError"):
            fetch_model("v1-cnn", server.url, tmp_path / "cache")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        folder = fetch_model("v1-cnn", server.url, tmp_path / "cache")
        np.testing.assert_array_equal(predicted(folder, model), model[0].predict(model[1])["A"])
        shutil.rmtree(folder)
        archive = next(registry.glob("*.zip")).name
        plain = f"http://localhost:{server.port}/{archive}"
        server.redirects[f"/{archive}"] = plain
        with pytest.raises(OSError, match=r"sends on to http://.* which is not encrypted"):
            fetch_model("v1-cnn", server.url, tmp_path / "cache")
    finally:
        server.close()


def test_a_model_comes_from_a_folder(registry, model, tmp_path, monkeypatch):
    monkeypatch.setenv("V1TLEARN_MODELS", str(registry))
    monkeypatch.setenv("V1TLEARN_DATA", str(tmp_path / "cache"))
    folder = v1.fetch_model("v1-cnn")
    np.testing.assert_array_equal(predicted(folder, model), model[0].predict(model[1])["A"])
    assert v1.fetch_model("v1-cnn", registry / "registry.json") == folder


def test_the_registry_tells_licence_and_card(registry):
    (entry,) = json.loads((registry / "registry.json").read_text()).values()
    assert entry["licence"] == "CC0-1.0"
    card = (registry / entry["card"]).read_text(encoding="utf-8")
    assert "license: CC0-1.0" in card
    assert "A small one." in card
    assert "| correlation | 0.100 |" in card


def test_what_has_another_checksum_is_not_kept(server, registry, tmp_path):
    change(registry, sha256="0" * 64)
    with pytest.raises(ValueError, match=r"model 'v1-cnn': .* has the checksum .*nothing was kept"):
        fetch_model("v1-cnn", server.url, tmp_path / "cache")
    assert list((tmp_path / "cache" / "models").iterdir()) == []
    with pytest.raises(ValueError, match=r"model 'v1-cnn': .* has the checksum .*copy it again"):
        fetch_model("v1-cnn", registry, tmp_path / "cache")


@pytest.mark.parametrize(
    "url",
    ["http://lab.example/m.zip", "ftp://lab.example/m.zip", "file:///etc/m.zip", "https:///m.zip"],
)
def test_addresses_that_are_not_encrypted_are_not_opened(registry, tmp_path, url):
    change(registry, url=url)
    with pytest.raises(ValueError, match="no address that begins with https://"):
        fetch_model("v1-cnn", registry, tmp_path)
    with pytest.raises(ValueError, match="no address that begins with https://"):
        fetch_model("v1-cnn", url, tmp_path)


def test_addresses_that_lead_out_of_the_folder_are_not_followed(registry, tmp_path):
    shutil.copy(next(registry.glob("*.zip")), tmp_path / "outside.zip")
    for url in ("../outside.zip", "%2e%2e/outside.zip", str(tmp_path / "outside.zip"), "a%00/b"):
        change(registry, url=url)
        with pytest.raises(ValueError, match="leads out of"):
            fetch_model("v1-cnn", registry, tmp_path / "cache")


def packed(registry, members):
    from v1tlearn.estimators._cards import sha256_of

    archive = registry / "other.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    change(registry, url="other.zip", sha256=sha256_of(archive))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        *[
            ({"model.json": "{}", name: "{}"}, "is none of a model, encrypted or there twice")
            for name in (
                *("../model.json", "a/model.json", "/tmp/evil", ".hidden", "MODEL.json"),
                *("..\\evil", "C:evil", "CON", "nul.txt", "model.json ", "m\N{DIAERESIS}odel.json"),
                *("tensors-0.safetensors.exe", "weights.safetensors"),
            )
        ],
        ({"tensors-0.safetensors": "x"}, "it has no model.json"),
        ({}, "it has no model.json"),
    ],
)
def test_zips_that_hold_something_else_are_refused_whole(registry, tmp_path, members, said):
    packed(registry, members)
    with pytest.raises(ValueError, match=rf"is no zip of a model.*{said}"):
        fetch_model("v1-cnn", registry, tmp_path / "cache")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_members_of_one_name_are_refused(registry, tmp_path):
    archive = registry / "other.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("model.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("model.json", "[]")
    change(registry, url="other.zip", sha256=hashlib.sha256(archive.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match=r"'model.json' is none of a model, .* there twice"):
        fetch_model("v1-cnn", registry, tmp_path / "cache")


def test_load_says_what_a_registry_and_its_zips_are(registry):
    (archive,) = registry.glob("*.zip")
    with pytest.raises(NotADirectoryError, match="it is a zip of a saved model, whose"):
        v1.load(archive)
    with pytest.raises(ValueError, match="it is a registry of models: v1tlearn"):
        v1.load(registry)


def test_what_is_no_zip_and_what_is_no_registry_are_named(registry, tmp_path):
    from v1tlearn.estimators._cards import sha256_of

    (registry / "other.zip").write_bytes(b"PK no zip")
    change(registry, url="other.zip", sha256=sha256_of(registry / "other.zip"))
    with pytest.raises(ValueError, match=r"other.zip is no zip of a model"):
        fetch_model("v1-cnn", registry, tmp_path / "cache")
    change(registry, sha256="abc")
    with pytest.raises(ValueError, match=r"the entry of 'v1-cnn' is .*a sha256 of 64"):
        fetch_model("v1-cnn", registry, tmp_path / "cache")
    (registry / "registry.json").write_text("[]")
    with pytest.raises(ValueError, match=r"registry.json is no registry of models"):
        fetch_model("v1-cnn", registry, tmp_path / "cache")
    with pytest.raises(FileNotFoundError):
        fetch_model("v1-cnn", tmp_path / "nowhere", tmp_path / "cache")


def test_unknown_names_are_told_with_those_that_are_there(registry, tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"lists no model 'v1-cn', only \['v1-cnn'\]: did you mean"
    ):
        fetch_model("v1-cn", registry, tmp_path)
    monkeypatch.delenv("V1TLEARN_MODELS", raising=False)
    with pytest.raises(ValueError, match="no registry is given"):
        fetch_model("v1-cnn")
    with pytest.raises(TypeError, match="name is a int"):
        fetch_model(3, registry)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        *(({"retries": value}, ValueError) for value in ("x", -1, 1.5, None)),
        *(({"retry_pause": value}, ValueError) for value in (-1.0, float("nan"))),
        *(({"retry_pause": "x"}, TypeError), ({"progressbar": "no"}, TypeError)),
    ],
)
def test_options_of_downloads_are_checked(registry, tmp_path, options, error):
    ((name, _),) = options.items()
    with pytest.raises(error, match=name):
        v1.fetch_model("v1-cnn", registry, tmp_path, **options)


def test_a_zip_that_is_not_beside_its_registry_is_named_with_its_model(registry, tmp_path):
    next(registry.glob("*.zip")).unlink()
    with pytest.raises(FileNotFoundError, match=r"model 'v1-cnn': there is no .*\.zip, which"):
        fetch_model("v1-cnn", registry, tmp_path)


def test_a_server_that_has_nothing_is_told(server, registry, tmp_path):
    next(registry.glob("*.zip")).unlink()
    with pytest.raises(OSError, match=r"model 'v1-cnn': .* answered 404.*in the registry"):
        fetch_model("v1-cnn", server.url, tmp_path)
    with pytest.raises(OSError, match="the registry of models could not be read"):
        fetch_model("v1-cnn", f"{server.url}/nowhere", tmp_path)


def test_weights_that_were_changed_after_all_are_refused_when_loaded(registry, tmp_path):
    folder = fetch_model("v1-cnn", registry, tmp_path / "cache")
    (weights,) = folder.glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="differs from its checksum"):
        v1.load(folder)


def test_a_model_that_was_damaged_after_all_is_fetched_again_as_its_error_says(registry, tmp_path):
    folder = fetch_model("v1-cnn", registry, tmp_path)
    (weights,) = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ValueError, match="remove the folder and fetch it again"):
        v1.load(fetch_model("v1-cnn", registry, tmp_path))
    shutil.rmtree(folder)
    v1.load(fetch_model("v1-cnn", registry, tmp_path))


def test_several_models_share_a_registry_and_a_card_goes_as_it_is(model, registry, tmp_path):
    model[0].save(tmp_path / "saved", card={"title": "Mine"})
    v1.publish_model(tmp_path / "saved", registry, "other", licence="MIT")
    assert set(json.loads((registry / "registry.json").read_text())) == {"v1-cnn", "other"}
    folder = fetch_model("other", registry, tmp_path / "cache")
    assert "# Mine" in (folder / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"has a card, README.md, which is published as it is"):
        v1.publish_model(tmp_path / "saved", registry, "x", licence="MIT", description="d")


def test_a_licence_that_the_card_contradicts_is_refused(model, registry, tmp_path):
    before = (registry / "registry.json").read_text()
    model[0].save(tmp_path / "saved", card={"licence": "CC-BY-NC-4.0"})
    said = r"licence is 'CC0-1.0', and the card .*README.md says 'CC-BY-NC-4.0'"
    with pytest.raises(ValueError, match=said):
        v1.publish_model(tmp_path / "saved", registry, "other", licence="CC0-1.0")
    assert (registry / "registry.json").read_text() == before
    v1.publish_model(tmp_path / "saved", registry, "other", licence="CC-BY-NC-4.0")
    model[0].save(tmp_path / "again")
    for licence in ('my "own" \\ terms', "no"):
        v1.publish_model(tmp_path / "again", registry, "again", licence=licence)
        v1.publish_model(tmp_path / "again", registry, "again", licence=licence)
        with pytest.raises(ValueError, match="correct the card, or remove it"):
            v1.publish_model(tmp_path / "again", registry, "again", licence="MIT")
        (tmp_path / "again" / "README.md").unlink()


def test_a_card_of_ones_own_may_tell_no_licence_or_in_other_letters(model, registry, tmp_path):
    model[0].save(tmp_path / "saved")
    for text in ("# Mine\n", "---\ntags: []\n---\nlicense: none\n", "---\nlicense: 'mit'\n---\n"):
        (tmp_path / "saved" / "README.md").write_text(text)
        v1.publish_model(tmp_path / "saved", registry, "other", licence="MIT")


@pytest.mark.parametrize(
    ("name", "licence", "said"),
    [("a/b", "MIT", "name is 'a/b'"), ("", "MIT", "name is ''"), ("a", " ", "licence is ' '")],
)
def test_names_and_licences_are_checked(model, registry, tmp_path, name, licence, said):
    model[0].save(tmp_path / "saved")
    with pytest.raises(ValueError, match=said):
        v1.publish_model(tmp_path / "saved", registry, name, licence=licence)
    with pytest.raises(ValueError, match="expected a folder, which you then serve"):
        v1.publish_model(tmp_path / "saved", "https://lab.example", "a", licence="MIT")

import errno
import gc
import gzip
import hashlib
import io
import json
import os
import re
import sys
import threading
import zipfile
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import numpy as np
import pytest
import requests

import v1tlearn as v1
from v1tlearn.datasets.download import Session, download
from v1tlearn.datasets.fetch import (
    NAT60K_LIST,
    NAT60K_URL,
    NATIMG2800_CLASSES_URL,
    NATIMG2800_LIST,
)

fetch_sensorium2022 = partial(v1.fetch_sensorium2022, retry_pause=0)
fetch_franke2022 = partial(v1.fetch_franke2022, retry_pause=0)
fetch_nat60k = partial(v1.fetch_nat60k, retry_pause=0)
fetch_natimg2800 = partial(v1.fetch_natimg2800, retry_pause=0)
fetch_sensorium2023 = partial(v1.fetch_sensorium2023, retry_pause=0)
fetch_mahuas2020 = partial(v1.fetch_mahuas2020, retry_pause=0)

NAME = "static21067-10-18-GrayImageNet-94c6ff995dac583098847cfecd43e7b6.zip"


def make_zip(seed=0, n_bytes=300_000):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", np.random.default_rng(seed).bytes(n_bytes))
    return buffer.getvalue()


CONTENT = make_zip()


class Server:
    """A local server of one content under any name, with the faults of real ones.

    `break_after` lists, for the first requests, after how many bytes to close the connection.
    """

    def __init__(self):
        self.content, self.break_after, self.status, self.ranges = CONTENT, [], [], True
        self.tells_length, self.headers, self.redirects = True, {}, {}
        self.slow = threading.Event()  # set once a slow server may end
        self.slow.set()
        self.requests = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                server.requests.append((self.path, asked))
                if server.status:
                    self.send_error(server.status.pop(0))
                    return
                if self.path in server.redirects:
                    self.send_response(302)
                    self.send_header("Location", server.redirects[self.path])
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                start = int(asked[6:-1]) if asked and server.ranges else 0
                body = server.content[start:]
                if start and not body:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(server.content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                if start:
                    total = len(server.content)
                    self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
                headers = {"Content-Length": str(len(body))} if server.tells_length else {}
                for name, value in (headers | server.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                cut = server.break_after.pop(0) if server.break_after else None
                while body and not server.slow.is_set():  # a byte at a time, for ever
                    with suppress(OSError):
                        self.wfile.write(body[:1])
                    body = body[1:] or body
                    server.slow.wait(0.01)
                self.wfile.write(body[:cut])
                self.close_connection = True

            def log_message(self, *args):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/data"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()

    def close(self):
        self.slow.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_mouse_comes_whole_and_is_not_downloaded_twice(server, tmp_path):
    for _ in range(2):
        paths = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert paths == [tmp_path / "sensorium2022" / NAME]
    assert paths[0].read_bytes() == CONTENT
    assert server.requests == [(f"/data/{NAME}", None)]


def test_a_download_that_breaks_off_goes_on_from_there(server, tmp_path):
    server.break_after = [2 * 2**16, 2**16]
    (path,) = fetch_sensorium2022(["21067-10-18"], tmp_path, base_url=server.url)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=131072-", "bytes=196608-"]
    assert names(path.parent) == [NAME]


def test_a_small_file_goes_on_from_where_it_broke_off(server, tmp_path):
    server.content, server.break_after = make_zip(n_bytes=66_000), [33_000]
    (path,) = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert path.read_bytes() == server.content
    assert [asked for _, asked in server.requests] == [None, "bytes=33000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_break_off_without_a_known_length_is_noticed(server, tmp_path, ranges):
    server.tells_length, server.ranges, server.break_after = False, ranges, [50_000, 100_000]
    (path,) = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_a_page_without_a_known_length_is_given_up(server, tmp_path):
    server.tells_length, server.ranges, server.content = False, False, b"<html>log in</html>"
    with pytest.raises(OSError, match=r"mouse '21067-10-18'.*2 times in a row.*not a whole zip"):
        fetch_sensorium2022("A", tmp_path, base_url=server.url, retries=1)


def test_what_comes_a_byte_at_a_time_is_given_up_and_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr("v1tlearn.datasets.download._MINUTE_S", 0.05)
    server.slow.clear()
    slow = r"2 times in a row \(\d+ bytes came in 0 s, fewer than 65536 a minute\); (\d+) bytes"
    with pytest.raises(OSError, match=slow) as raised:
        fetch_sensorium2022("A", tmp_path, base_url=server.url, retries=1)
    server.slow.set()
    kept = int(re.search(slow, str(raised.value))[1])
    assert 0 < kept < len(CONTENT)
    (path,) = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert server.requests[-1][1] == f"bytes={kept}-"
    assert path.read_bytes() == CONTENT


def test_nothing_is_written_to_the_terminal(server, tmp_path, capfd):
    fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert capfd.readouterr() == ("", "")


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server, tmp_path):
    server.break_after = [2**16, 0, 0]
    with pytest.raises(
        OSError, match=r"mouse '21067-10-18'.*2 times in a row.*65536 bytes are kept"
    ):
        fetch_sensorium2022("A", tmp_path, base_url=server.url, retries=1)
    (path,) = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert path.read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=65536-"


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.break_after, server.ranges = [100_000], False
    (path,) = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert path.read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_kept(server, tmp_path):
    folder = tmp_path / "sensorium2022"
    folder.mkdir()
    (folder / f"{NAME}.part").write_bytes(CONTENT)
    (path,) = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert path.read_bytes() == CONTENT
    assert names(folder) == [NAME]


@pytest.mark.parametrize("n_bytes", [50_000, 2 * len(CONTENT)])
def test_a_part_of_another_file_is_thrown_away(server, tmp_path, n_bytes):
    folder = tmp_path / "sensorium2022"
    folder.mkdir()
    (folder / f"{NAME}.part").write_bytes(make_zip(seed=1, n_bytes=10**6)[:n_bytes])
    (path,) = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert path.read_bytes() == CONTENT


def test_a_passing_failure_of_the_server_is_tried_again(server, tmp_path):
    server.status = [503, 500]
    (path,) = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert path.read_bytes() == CONTENT


def test_a_missing_file_fails_at_once_and_says_what_to_do(server, tmp_path):
    server.status = [404] * 9
    with pytest.raises(OSError, match=rf"mouse '21067-10-18'.*{NAME} answered 404.*by hand to"):
        fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert len(server.requests) == 1


def test_no_server_fails_after_the_retries(server, tmp_path):
    url = server.url.replace("/data", "")
    server.break_after = [0] * 9
    with pytest.raises(OSError, match="failed 3 times in a row"):
        fetch_sensorium2022("A", tmp_path, base_url=url, retries=2)


def test_a_right_checksum_passes_and_a_wrong_one_keeps_nothing(server, tmp_path):
    right = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    (path,) = fetch_sensorium2022("A", tmp_path / "a", base_url=server.url, checksums={NAME: right})
    assert path.read_bytes() == CONTENT
    registry = tmp_path / "registry.txt"
    registry.write_text(f"{NAME} md5:{'0' * 32}\n")
    with pytest.raises(ValueError, match=r"has the checksum .*expected md5:0000.*nothing was kept"):
        fetch_sensorium2022("A", tmp_path / "b", base_url=server.url, checksums=registry)
    assert names(tmp_path / "b" / "sensorium2022") == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<html>please log in</html>", "is not a zip"),
        (CONTENT[:1000] + b"\xff" * 8 + CONTENT[1008:], "damaged member"),
    ],
    ids=["a page", "a damaged zip"],  # of bytes, ids would have the time that a zip has
)
def test_without_a_checksum_only_a_whole_zip_passes(server, tmp_path, content, problem):
    server.content = content
    with pytest.raises(ValueError, match=problem):
        fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert names(tmp_path / "sensorium2022") == []


def test_a_kept_file_with_another_checksum_is_replaced(server, tmp_path):
    target = tmp_path / "sensorium2022" / NAME
    target.parent.mkdir()
    target.write_bytes(make_zip(seed=1))
    checksums = {NAME: hashlib.sha256(CONTENT).hexdigest()}
    assert fetch_sensorium2022("A", tmp_path, base_url=server.url, checksums=checksums) == [target]
    assert target.read_bytes() == CONTENT


def test_all_mice_come_in_order(server, tmp_path):
    gray = fetch_sensorium2022(cache_dir=tmp_path, base_url=server.url)
    color = fetch_franke2022("all", tmp_path, base_url=server.url)
    assert len(gray) == 7
    assert gray[0].name == NAME
    assert len(color) == 10
    assert color[0].parent == tmp_path / "franke2022"
    assert all("ColorImageNet" in path.name for path in color)


def test_address_and_cache_come_from_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("V1TLEARN_FRANKE2022_URL", f"{server.url}/imagenet%20scans/")
    monkeypatch.setenv("V1TLEARN_DATA", str(tmp_path))
    (path,) = fetch_franke2022(["K"])
    assert path.parent == tmp_path / "franke2022"
    assert server.requests[0][0].startswith("/data/imagenet%20scans/static26142-2-11-ColorImageNet")


@pytest.mark.skipif(sys.platform != "linux", reason="caches are moved otherwise there")
def test_the_cache_of_the_system_is_the_default(server, tmp_path, monkeypatch):
    monkeypatch.delenv("V1TLEARN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (path,) = fetch_sensorium2022("A", base_url=server.url)
    assert path.parent == tmp_path / "v1tlearn" / "sensorium2022"


def test_other_names_and_addresses_of_zips(server, tmp_path):
    files = {"25311-10-26": "renamed.zip", "1-2-3": f"{server.url}/else/my%20mouse.zip?v=1"}
    paths = fetch_franke2022(["F", "1-2-3"], tmp_path, base_url=server.url, files=files)
    assert [path.name for path in paths] == ["renamed.zip", "my mouse.zip"]


@pytest.mark.parametrize("mice", ["Z", ["A", "9-9-9"], []])
def test_unknown_mice_are_refused_with_the_list_of_known_ones(tmp_path, mice):
    with pytest.raises(ValueError, match=r"expected 'all' or any of A \(21067-10-18\)"):
        fetch_sensorium2022(mice, tmp_path)


def test_movies_of_both_releases_come_from_their_own_repositories(server, tmp_path):
    paths = fetch_sensorium2023(["A", "29515-10-12"], tmp_path, base_url=server.url)
    assert [path.name for path in paths] == [
        "dynamic29156-11-10-Video-8744edeac3b4d1ce16b680916b5267ce.zip",
        "dynamic29515-10-12-Video-9b4f6a1a067fe51e15306b9628efea20.zip",
    ]
    assert paths[0].parent == tmp_path / "sensorium2023"
    assert len(fetch_sensorium2023(cache_dir=tmp_path, base_url=server.url)) == 10
    own = {"1-2-3": f"{server.url}/else/mine.zip"}
    (path,) = fetch_sensorium2023("1-2-3", tmp_path, files=own)
    assert path.name == "mine.zip"


@pytest.mark.parametrize("mice", ["Z", ["A", "9-9-9"], []])
def test_unknown_mice_of_movies_are_refused_with_the_list_of_known_ones(tmp_path, mice):
    with pytest.raises(ValueError, match=r"expected 'all' or any of A \(29156-11-10\)"):
        fetch_sensorium2023(mice, tmp_path)


def test_the_retina_comes_by_tier_and_other_files_under_its_name_are_not_kept(server, tmp_path):
    with pytest.raises(ValueError, match="checksum"):
        fetch_mahuas2020(tmp_path, base_url=server.url)
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    names = ("nonrepeat_data_bars.mat", "test_data_bars.mat")
    checksums = dict.fromkeys(names, digest)
    found = fetch_mahuas2020(tmp_path, base_url=server.url, checksums=checksums)
    assert {tier: path.name for tier, path in found.items()} == dict(
        zip(("train", "test"), names, strict=True)
    )


@pytest.mark.parametrize(
    "fetch", [fetch_sensorium2022, fetch_franke2022, fetch_nat60k, fetch_sensorium2023]
)
@pytest.mark.parametrize("mice", [5, None, ["A", 5], [["A"]]])
def test_mice_that_are_no_names_are_refused(tmp_path, fetch, mice):
    with pytest.raises(TypeError, match=r"mice holds .*expected names of mice, or 'all'"):
        fetch(mice, tmp_path)


def test_a_progress_bar_on_request(server, tmp_path, capsys):
    fetch_sensorium2022("A", tmp_path, base_url=server.url, progressbar=True)
    assert "21067-10-18: 100%" in capsys.readouterr().err


# ---------------------------------------------------------------------- servers that mean no good


@pytest.mark.parametrize(
    "given",
    ["..", "", ".", "../x.zip", "/etc/x.zip", "C:\\x.zip", "a\\..\\x.zip", "x\0.zip", "C:x.zip"],
)
@pytest.mark.parametrize("whole", [False, True])
def test_names_that_leave_the_folder_are_refused(server, tmp_path, given, whole):
    given = f"{server.url}/{quote(given)}" if whole else given
    if whole and given.endswith("/x.zip"):
        pytest.skip("of an address only the end is a name")
    with pytest.raises(ValueError, match=r"mouse '1-2-3': .* names no file in the cache"):
        fetch_sensorium2022(["1-2-3"], tmp_path / "in", base_url=server.url, files={"1-2-3": given})
    assert names(tmp_path) == []
    assert server.requests == []


@pytest.mark.parametrize("given", ["file:///etc/x.zip", "ftp://host/x.zip", "http:///x.zip"])
def test_other_kinds_of_addresses_are_refused_at_once(tmp_path, given):
    with pytest.raises(ValueError, match="is no address; expected one that begins with https://"):
        fetch_sensorium2022(["1-2-3"], tmp_path, files={"1-2-3": given})
    with pytest.raises(TypeError, match="mouse '1-2-3' has a int; expected a file name"):
        fetch_sensorium2022(["1-2-3"], tmp_path, files={"1-2-3": 5})


def test_two_zips_of_one_name_are_refused(server, tmp_path):
    files = {"1": f"{server.url}/a/x.zip", "2": f"{server.url}/b/x.zip"}
    with pytest.raises(ValueError, match=r"of the mice '1' and '2' are both called 'x.zip'"):
        fetch_sensorium2022(["1", "2"], tmp_path, files=files)


def test_an_encrypted_zip_is_refused_and_blocks_nothing(server, tmp_path):
    locked = bytearray(CONTENT)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + at] |= 1
    server.content = bytes(locked)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"is an encrypted zip \(a.npy\).*nothing was kept"):
            fetch_sensorium2022("A", tmp_path, base_url=server.url)
        assert names(tmp_path / "sensorium2022") == []
    server.content = CONTENT
    (path,) = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("method", [0x63, 1])
def test_a_zip_of_an_unknown_method_is_refused(server, tmp_path, method):
    other = bytearray(CONTENT)
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        other[other.index(mark) + at] = method
    server.content = bytes(other)
    with pytest.raises(ValueError, match=r"is not a zip .NotImplementedError"):
        fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert names(tmp_path / "sensorium2022") == []


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_file_beyond_the_limit_is_refused(server, tmp_path, tells_length):
    server.tells_length = tells_length
    with pytest.raises(ValueError, match=r"mouse 'A': .*100000.*; nothing was kept"):
        download({"A": (server.url, "a.zip")}, tmp_path, None, 5, 0, False, most_bytes=100_000)
    assert names(tmp_path) == []
    assert len(server.requests) == 1


def test_a_file_that_the_disk_has_no_room_for_is_refused(server, tmp_path):
    server.headers["Content-Length"] = str(10**17)  # so it tells, and sends nothing like it
    with pytest.raises(OSError, match=rf"would send {10**17} bytes, but .* are free") as caught:
        download({"A": (server.url, "a.zip")}, tmp_path, None, 5, 0, False, most_bytes=10**18)
    assert caught.value.errno == errno.ENOSPC
    assert len(server.requests) == 1


@pytest.mark.parametrize("length", ["abc", "-5", "", "1e6", "²", "0x10"])
def test_a_length_that_is_no_number_counts_as_unknown(server, tmp_path, length):
    server.headers["Content-Length"] = length
    (path,) = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert path.read_bytes() == CONTENT


def test_a_length_beyond_all_measure_is_never_reached(server, tmp_path):
    server.headers["Content-Length"], server.ranges = "9" * 40, False
    with pytest.raises(OSError, match=r"mouse '21067-10-18'.*times in a row"):
        fetch_sensorium2022("A", tmp_path, base_url=server.url, retries=0)
    assert NAME not in names(tmp_path / "sensorium2022")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_lengths_that_contradict_each_other_are_told(server, tmp_path):
    server.headers["Content-Length"] = "5, 7"
    with pytest.raises(OSError, match=r"mouse '21067-10-18'.*Content-Length"):
        fetch_sensorium2022("A", tmp_path, base_url=server.url, retries=0)
    assert NAME not in names(tmp_path / "sensorium2022")
    gc.collect()  # urllib3 leaves its socket to it


def test_a_body_shorter_than_its_length_is_never_taken_for_whole(server, tmp_path):
    server.headers["Content-Length"] = str(len(CONTENT) + 10)
    server.ranges = False
    with pytest.raises(OSError, match=r"mouse '21067-10-18'.*times in a row"):
        fetch_sensorium2022("A", tmp_path, base_url=server.url, retries=1)
    assert NAME not in names(tmp_path / "sensorium2022")


def test_a_file_that_comes_encoded_is_refused(server, tmp_path):
    server.content, server.headers["Content-Encoding"] = gzip.compress(CONTENT), "gzip"
    with pytest.raises(ValueError, match=r"sends the file encoded .gzip.*nothing was kept"):
        fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert names(tmp_path / "sensorium2022") == []


def test_a_redirect_to_another_host_is_followed_and_logged(server, tmp_path, caplog):
    port = server.url.split(":")[2].split("/")[0]
    server.redirects = {f"/data/{NAME}": f"http://localhost:{port}/store/x"}
    (path,) = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert path.read_bytes() == CONTENT
    assert path.name == NAME
    assert "sends on to another host, localhost" in caplog.text


def test_a_redirect_on_one_host_says_nothing(server, tmp_path, caplog):
    server.redirects = {f"/data/{NAME}": "/store/x"}
    (path,) = fetch_sensorium2022("A", tmp_path, base_url=server.url)
    assert path.read_bytes() == CONTENT
    assert caplog.text == ""


def test_redirects_without_end_and_to_files_fail_at_once(server, tmp_path):
    for target in (f"/data/{NAME}", "file:///etc/passwd"):
        server.redirects = {f"/data/{NAME}": target}
        before = len(server.requests)
        with pytest.raises(OSError, match=r"mouse '21067-10-18': .* leads to no address"):
            fetch_sensorium2022("A", tmp_path, base_url=server.url, retries=0)
        assert len(server.requests) - before < 40


def test_a_redirect_from_https_to_http_is_refused():
    response = requests.Response()
    response.status_code, response.url = 302, "https://publisher.org/a.zip"
    for target in ("http://publisher.org/a.zip", "http://else.org/a.zip"):
        response.headers["Location"] = target
        with pytest.raises(OSError, match=f"sends on to {target}, which is not encrypted"):
            Session().get_redirect_target(response)
    response.headers["Location"] = "//store.publisher.org/a.zip"
    assert Session().get_redirect_target(response) == "//store.publisher.org/a.zip"


@pytest.mark.parametrize("checksum", ["crc7:00", "sha256:xyz", "sha256:", 5, None])
def test_checksums_that_are_none_are_refused_before_anything_is_sent(server, tmp_path, checksum):
    with pytest.raises(ValueError, match=r"checksums: .* expected 'sha256:' or 'md5:'"):
        fetch_sensorium2022("A", tmp_path, base_url=server.url, checksums={NAME: checksum})
    assert server.requests == []


def test_a_file_that_is_no_register_of_checksums_is_named(server, tmp_path):
    (tmp_path / "sums.txt").write_bytes(b"\xff\xfe one two three four")
    with pytest.raises(ValueError, match=r"sums.txt is no file of checksums"):
        fetch_sensorium2022("A", tmp_path, base_url=server.url, checksums=tmp_path / "sums.txt")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [NAME, f"{NAME}.part"])
def test_a_pipe_in_the_cache_is_never_opened(server, tmp_path, name):
    folder = tmp_path / "sensorium2022"
    folder.mkdir()
    os.mkfifo(folder / name)
    with pytest.raises(ValueError, match="is a named pipe"):
        fetch_sensorium2022("A", tmp_path, base_url=server.url)


# ----------------------------------------------------------------------------------------- nat60k

MAT = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + bytes(2**17)


def serve_both(server, listing=b"[]"):
    """Serve images where a name ends in .mat, a list where it is "files", and zips otherwise."""
    handler = server._http.RequestHandlerClass
    original = handler.do_GET

    def do_get(request):
        contents = {".mat": MAT, "/files": listing}
        found = (content for end, content in contents.items() if request.path.endswith(end))
        server.content = next(found, CONTENT)
        original(request)

    handler.do_GET = do_get


def test_mice_and_images_of_nat60k_come_from_a_mirror(server, tmp_path):
    serve_both(server)
    responses, images = fetch_nat60k(["FX20", "FX8"], tmp_path, base_url=server.url)
    assert [path.name for path in responses] == [
        "FX20_nat60k_2023_09_29.npz",
        "FX8_nat60k_2023_05_16.npz",
    ]
    assert images == tmp_path / "nat60k" / "nat60k_text16.mat"
    assert images.read_bytes() == MAT
    assert responses[0].read_bytes() == CONTENT
    assert server.requests[0] == ("/data/FX20_nat60k_2023_09_29.npz", None)


def test_a_download_of_images_that_breaks_off_goes_on_from_there(server, tmp_path):
    serve_both(server)
    fetch_nat60k("FX8", tmp_path, base_url=server.url)
    (tmp_path / "nat60k" / "nat60k_text16.mat").unlink()
    server.requests.clear()
    server.break_after = [2**16]
    _, images = fetch_nat60k("FX8", tmp_path, base_url=server.url)
    assert images.read_bytes() == MAT
    assert [asked for _, asked in server.requests] == [None, "bytes=65536-"]


def test_textures_are_other_files_of_four_mice(server, tmp_path, monkeypatch):
    serve_both(server)
    monkeypatch.setenv("V1TLEARN_NAT60K_URL", server.url)
    responses, _ = fetch_nat60k(cache_dir=tmp_path, textures=True)
    assert [path.name for path in responses] == [
        "text16_FX9_2023_05_15.npz",
        "text16_FX10_2023_05_16.npz",
        "text16_FX8_2023_05_16.npz",
        "text16_FX20_2023_09_29.npz",
    ]
    with pytest.raises(ValueError, match=r"'L1_A5'; expected 'all' or .* which saw textures"):
        fetch_nat60k("L1_A5", tmp_path, textures=True)


def test_known_numbers_are_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # where nobody listens
    for mouse, address in (("FX10", f"{NAT60K_URL}/53712311"), ("FX9", NAT60K_LIST)):
        with pytest.raises(OSError, match=re.escape(address)):
            fetch_nat60k(mouse, tmp_path, retries=0)


def test_other_files_are_looked_up_with_their_checksums(server, tmp_path):
    name = "FX9_nat60k_2023_05_15.npz"
    entry = {"name": name, "download_url": f"{server.url}/77", "computed_md5": "0" * 32}
    serve_both(server, json.dumps([{"name": "other"}, entry]).encode())
    options = {"files": {"nat60k_text16.mat": f"{server.url}/a.mat"}}
    options["listing"] = f"{server.url}/files"
    with pytest.raises(ValueError, match="expected md5:0000"):
        fetch_nat60k("FX9", tmp_path, **options)
    assert [path for path, _ in server.requests] == ["/data/files", "/data/77"]
    right = {name: "md5:" + hashlib.md5(CONTENT).hexdigest()}
    (looked_up,), _ = fetch_nat60k("FX9", tmp_path, checksums=right, **options)
    assert looked_up.name == name


@pytest.mark.parametrize(
    "listing", [b"[]", b"{}", b"[1]", b"no json", b'[{"name": 3}]', b"x" * 2**23]
)
def test_a_list_without_the_file_says_what_to_do(server, tmp_path, listing):
    serve_both(server, listing)
    with pytest.raises(OSError, match=r"files.*pass files=\{name: address\}, or a base_url"):
        fetch_nat60k("FX9", tmp_path, listing=f"{server.url}/files")


def test_images_of_another_kind_are_not_kept(server, tmp_path):
    with pytest.raises(ValueError, match=r"mouse 'images': .* is no file of MATLAB; nothing was"):
        fetch_nat60k("FX8", tmp_path, base_url=server.url)
    assert names(tmp_path / "nat60k") == ["FX8_nat60k_2023_05_16.npz"]


def test_images_of_unknown_length_are_not_taken_for_whole(server, tmp_path):
    serve_both(server)
    server.tells_length, server.ranges = False, False
    with pytest.raises(OSError, match="bytes that came may not be all"):
        fetch_nat60k("FX8", tmp_path, base_url=server.url, retries=0)


def test_recordings_images_and_classes_of_natimg2800_come_from_a_mirror(server, tmp_path):
    serve_both(server)
    asked = ["M170717_MP034_2017-09-11", "M160825_MP027_2016-12-14"]
    responses, images, classes = fetch_natimg2800(asked, tmp_path, base_url=server.url)
    folder = tmp_path / "natimg2800"
    assert responses == [folder / f"natimg2800_{mouse}.mat" for mouse in asked]
    assert images == folder / "images_natimg2800_all.mat"
    assert classes == folder / "stimuli_class_assignment.mat"
    assert all(path.read_bytes() == MAT for path in (*responses, images, classes))
    sure = fetch_natimg2800(asked[:1], tmp_path, base_url=server.url, classes="confident")[2]
    assert sure == folder / "stimuli_class_assignment_confident.mat"
    server.requests.clear()
    assert fetch_natimg2800(asked, tmp_path, base_url=server.url, classes=None)[2] is None
    assert server.requests == []


def test_numbers_of_natimg2800_are_looked_up_with_their_checksums(server, tmp_path):
    names = ["natimg2800_M170717_MP033_2017-08-20.mat", "images_natimg2800_all.mat"]
    md5 = hashlib.md5(MAT).hexdigest()
    listing = [
        {"name": name, "download_url": f"{server.url}/{n}.mat", "computed_md5": md5}
        for n, name in enumerate(names)
    ]
    serve_both(server, json.dumps(listing).encode())
    (found,), images, classes = fetch_natimg2800(
        "M170717_MP033_2017-08-20",
        tmp_path,
        listing=f"{server.url}/files",
        files={"stimuli_class_assignment.mat": f"{server.url}/classes.mat"},
    )
    assert [found.name, images.name] == names
    assert classes.read_bytes() == MAT
    assert [path for path, _ in server.requests] == [
        "/data/files",
        "/data/0.mat",
        "/data/1.mat",
        "/data/classes.mat",
    ]


def test_published_addresses_of_natimg2800_are_used(server, tmp_path, monkeypatch):
    serve_both(server)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # where nobody listens
    mouse = "M170717_MP033_2017-08-20"
    with pytest.raises(OSError, match=re.escape(NATIMG2800_LIST)):
        fetch_natimg2800(mouse, tmp_path, retries=0)
    names = (f"natimg2800_{mouse}.mat", "images_natimg2800_all.mat")
    files = {name: f"{server.url}/{name}" for name in names}
    classes = re.escape(f"{NATIMG2800_CLASSES_URL}/stimuli_class_assignment.mat")
    with pytest.raises(OSError, match=classes):
        fetch_natimg2800(mouse, tmp_path, files=files, retries=0)


def test_a_recording_of_natimg2800_with_another_checksum_is_not_kept(server, tmp_path):
    name = "natimg2800_M170717_MP033_2017-08-20.mat"
    entry = {"name": name, "download_url": f"{server.url}/0.mat", "computed_md5": "0" * 32}
    serve_both(server, json.dumps([entry]).encode())
    options = {"classes": None, "listing": f"{server.url}/files"}
    files = {"images_natimg2800_all.mat": f"{server.url}/a.mat"}
    with pytest.raises(ValueError, match="expected md5:0000"):
        fetch_natimg2800("M170717_MP033_2017-08-20", tmp_path, files=files, **options)
    assert not (tmp_path / "natimg2800" / name).exists()


def test_unknown_recordings_and_classes_of_natimg2800_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"mice holds 'MP033'; expected 'all' or any of M160825"):
        fetch_natimg2800("MP033", tmp_path)
    with pytest.raises(ValueError, match=r"classes is 'unsure'; expected one of \['all', 'conf"):
        fetch_natimg2800(cache_dir=tmp_path, classes="unsure")

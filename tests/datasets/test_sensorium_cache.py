import errno
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from v1tlearn.datasets.schema import BEHAVIOR_NAMES
from v1tlearn.datasets.sensorium import read_sensorium, write_sensorium
from v1tlearn.datasets.sensorium.cache import VERSION, store_name
from v1tlearn.datasets.sensorium.folder_files import FolderFiles
from v1tlearn.datasets.store import open_groups, open_recordings, save_recordings

ROOT = Path(__file__).parents[2]


def recording(n_trials=6, n_neurons=4, n_columns=5, dtype="u1", silent=False, seed=0):
    rng = np.random.default_rng(seed)
    dataset = xr.Dataset(
        {
            "stimuli": (
                ("trial", "channel", "height", "width"),
                rng.integers(0, 256, (n_trials, 1, 3, 5)).astype(dtype),
            ),
            "responses": (
                ("trial", "neuron"),
                rng.gamma(0.5, 2, (n_trials, n_neurons)).astype("f4"),
                {"units": "s", "window": [0.05, 0.55], "nested": {"a": [None, True]}},
            ),
            "responses_std": ("neuron", rng.random(n_neurons)),
        },
        coords={
            "tier": ("trial", np.array(["train"] * (n_trials - 2) + ["test"] * 2)),
            "trial_id": ("trial", rng.permutation(n_trials)),
            "half": ("trial", np.arange(n_trials, dtype="f2")),
            "position": (("neuron", "axis"), rng.random((n_neurons, 3)).astype("f4")),
        },
        attrs={"description": "µm²", "note": None},
    )
    if silent:
        dataset.responses[-2:] = 0
    if n_columns:
        columns = rng.normal(size=(n_trials, n_columns)).astype("f4")
        dataset["behaviors"] = (("trial", "behavior"), columns)
        dataset["behavior"] = list(BEHAVIOR_NAMES[:n_columns])
    return dataset


@pytest.fixture(params=[False, True], ids=["folder", "zip"])
def source(request, tmp_path):
    (path,) = write_sensorium({"A": recording()}, tmp_path / "in", zip=request.param)
    return path


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def stores(cache):
    return sorted(os.listdir(cache))


def states(cache):
    """Which stores there are, each as it was written."""
    found = {path.name: path.stat() for path in cache.iterdir()}
    return {name: (state.st_ino, state.st_mtime_ns) for name, state in found.items()}


@pytest.mark.parametrize(
    "dataset",
    [
        recording(),
        recording(n_columns=0, dtype="f4"),
        recording(n_columns=3).assign(
            expected_responses=(("trial", "neuron"), np.ones((6, 4), "f4"))
        ),
        recording(silent=True),
    ],
    ids=["plain", "without behaviour, float", "expected responses", "withheld responses"],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_cached_recording_equals_the_source(tmp_path, cache, dataset, zipped):
    paths = write_sensorium({"A": dataset, "B": recording(seed=1)}, tmp_path / "in", zip=zipped)
    plain = read_sensorium(paths)
    found = []
    for _ in range(2):  # written, then opened
        cached = read_sensorium(paths, cache=cache)
        xr.testing.assert_identical(cached, plain)
        for mouse in plain.children:
            theirs, ours = plain[mouse].to_dataset(), cached[mouse].to_dataset()
            assert list(ours.variables) == list(theirs.variables)
            for name, variable in theirs.variables.items():
                assert ours.variables[name].dtype == variable.dtype
                assert ours.variables[name].attrs == variable.attrs
                assert ours.variables[name]._in_memory == variable._in_memory
        copy = pickle.loads(pickle.dumps(cached))
        np.testing.assert_array_equal(copy["B"].stimuli[[4, 1]], plain["B"].stimuli[[4, 1]])
        cached.close()
        found.append(states(cache))
    assert len(found[0]) == 2
    assert found[1] == found[0]


def test_a_store_can_be_opened_by_itself(source, cache):
    plain = read_sensorium(source)["A"]
    read_sensorium(source, cache=cache)
    with open_recordings(cache / stores(cache)[0]) as opened:
        (node,) = opened.children.values()
        np.testing.assert_array_equal(node.stimuli, plain.stimuli)
        np.testing.assert_array_equal(node.responses, plain.responses)


def test_trials_come_from_the_store_and_mice_may_be_renamed(source, cache):
    expected = read_sensorium(source)["A"].to_dataset().load()
    read_sensorium(source, cache=cache)
    written = states(cache)
    cached = read_sensorium(source, names=["B"], cache=str(cache))
    if source.is_dir():
        shutil.rmtree(source)
    else:
        source.unlink()
    xr.testing.assert_identical(cached["B"].to_dataset().load(), expected)
    assert states(cache) == written


def test_without_cache_nothing_is_written(source):
    before = sorted(source.parent.rglob("*"))
    read_sensorium(source).load()
    assert sorted(source.parent.rglob("*")) == before


def _touch(source):
    path = source / "data/images/3.npy" if source.is_dir() else source
    os.utime(path, ns=(1, 2))


def _grow(source):
    path = source / "meta/trials/new.npy" if source.is_dir() else source
    if source.is_dir():
        np.save(path, np.arange(6))
    else:
        state = path.stat()
        path.write_bytes(b"#!" + path.read_bytes())
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def _other_content(source):
    """Other values at the same size and time: a zip's directory tells, a folder's must not."""
    if source.is_dir():
        source = source / "data/images/0.npy"
        np.save(source, np.load(source) // 2)
        os.utime(source, ns=(5, 6))
        return
    state = source.stat()
    source.unlink()
    dataset = recording().assign(stimuli=lambda d: d.stimuli[:, :, :, ::-1])
    (path,) = write_sensorium({"A": dataset}, source.parent, zip=True)
    content = path.read_bytes()
    path.write_bytes(content + bytes(max(0, state.st_size - len(content))))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def _settings(source):
    if source.is_dir():
        text = (source / "config.json").read_text()
        (source / "config.json").write_text(text.replace('"note": null', '"note": 1'))
    else:
        _touch(source)


@pytest.mark.parametrize("change", [_touch, _grow, _other_content, _settings])
def test_a_changed_source_is_read_anew_and_its_old_store_removed(source, cache, change):
    read_sensorium(source, cache=cache).close()
    (before,) = stores(cache)
    change(source)
    found = []
    for _ in range(2):
        cached = read_sensorium(source, cache=cache)
        xr.testing.assert_identical(cached, read_sensorium(source))
        cached.close()
        found.append(states(cache))
    assert found[1] == found[0]
    (after,) = stores(cache)
    assert after != before


def test_another_version_of_the_format_is_written_anew(tmp_path, cache):
    (source,) = write_sensorium({"A": recording()}, tmp_path / "in")
    read_sensorium(source, cache=cache).close()
    (name,) = stores(cache)
    files = FolderFiles(source)
    now, later = (store_name(files, files.fingerprint(), VERSION + i) for i in range(2))
    assert now == name != later
    (cache / now).rename(cache / later)
    read_sensorium(source, cache=cache).close()
    assert stores(cache) == [now]


def test_sources_of_one_name_have_stores_of_their_own(tmp_path, cache):
    paths = [
        write_sensorium({"A": recording(seed=seed)}, tmp_path / str(seed), zip=True)[0]
        for seed in (1, 2)
    ]
    for _ in range(2):
        for seed, path in enumerate(paths, 1):
            cached = read_sensorium(path, cache=cache)["A"]
            np.testing.assert_array_equal(cached.stimuli, recording(seed=seed).stimuli)
    assert len(stores(cache)) == 2


@pytest.mark.slow
def test_a_store_with_damage_gives_the_values_of_the_source_or_is_refused(source, cache):
    plain = read_sensorium(source)["A"].to_dataset().load()
    read_sensorium(source, cache=cache).close()
    (store,) = cache.iterdir()
    whole = store.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place : place + 4] = rng.bytes(4)
        store.write_bytes(damaged)
        cached = read_sensorium(source, cache=cache)
        try:
            xr.testing.assert_identical(cached["A"].to_dataset().load(), plain)
        except ValueError as error:
            assert "is damaged" in str(error)  # noqa: PT017
            refused += 1
        cached.close()
    assert 0 < refused < 30


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_broken_store_is_written_again(source, cache, kept, caplog):
    read_sensorium(source, cache=cache).close()
    (store,) = cache.iterdir()
    store.write_bytes(store.read_bytes()[: int(kept * store.stat().st_size)])
    with caplog.at_level(logging.WARNING, "v1tlearn"):
        cached = read_sensorium(source, cache=cache)
    assert "mouse 'A'" in caplog.text
    assert "is broken" in caplog.text
    xr.testing.assert_identical(cached, read_sensorium(source))
    assert len(stores(cache)) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda own: {"other": own}, "stimuli is missing"),
        (lambda own: {"recording": own.drop_vars("responses")}, "responses is missing"),
        (lambda own: {"recording": own.isel(trial=slice(4))}, "stimuli is {'trial': 4, "),
        (lambda own: {"recording": own.astype("f8")}, "stimuli is .* of float64, expected .*uint8"),
    ],
)
def test_a_whole_store_of_other_trials_is_written_again(tmp_path, cache, change, said, caplog):
    (source,) = write_sensorium({"A": recording()}, tmp_path / "in")
    read_sensorium(source, cache=cache).close()
    (store,) = cache.iterdir()
    save_recordings(change(open_groups(store)["recording"].to_dataset().load()), store)
    with caplog.at_level(logging.WARNING, "v1tlearn"):
        cached = read_sensorium(source, cache=cache)
    assert re.search(said, caplog.text)
    xr.testing.assert_identical(cached, read_sensorium(source))


def test_a_damaged_source_leaves_no_store(tmp_path, cache):
    (source,) = write_sensorium({"A": recording()}, tmp_path / "in")
    (source / "data/images/4.npy").write_bytes(b"spoilt")
    with pytest.raises(ValueError, match=r"mouse 'A'.*4.npy: is not a readable .npy file"):
        read_sensorium(source, cache=cache)
    assert stores(cache) == []


def test_a_source_that_changes_while_it_is_read_is_refused(source, cache, caplog):
    class Touching(logging.Handler):
        """Touches the source when it is told that its trials are being written."""

        def emit(self, record):
            if "keeping the trials" in record.getMessage():
                _touch(source)

    log, touching = logging.getLogger("v1tlearn"), Touching()
    log.addHandler(touching)
    with (
        caplog.at_level(logging.INFO, "v1tlearn"),
        pytest.raises(ValueError, match=r"mouse 'A'.*changed while it was read into the cache"),
    ):
        read_sensorium(source, cache=cache)
    log.removeHandler(touching)
    assert stores(cache) == []


def test_a_cache_that_cannot_be_is_named(source, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match=r"cache is .*file.*no folder"):
            read_sensorium(source, cache=path)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no folder without any room here")
def test_a_cache_without_room_is_named(source):
    with pytest.raises(OSError, match=r"mouse 'A': its trials take 0.0 GiB.*make room") as error:
        read_sensorium(source, cache="/proc/self/fd")
    assert error.value.errno == errno.ENOSPC


READ = """
    import sys, time
    import numpy as np
    from v1tlearn.datasets import netcdf
    from v1tlearn.datasets.sensorium import read_sensorium

    def slowly(array, *args):
        for start in range(len(array)):
            print("block", flush=True)
            time.sleep(float(sys.argv[3]))
            yield start, array[start : start + 1].values

    netcdf.blocks = slowly
    for mouse in read_sensorium(sys.argv[1], cache=sys.argv[2]).children.values():
        mouse = mouse.to_dataset().load()
        print("sum", mouse.stimuli.values.sum(), mouse.responses.values.sum(dtype="f8"))
"""


def start(source, cache, seconds):
    command = [sys.executable, "-c", textwrap.dedent(READ), str(source), str(cache), str(seconds)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def wait_for_a_block(process):
    line = process.stdout.readline()
    assert line == "block\n", process.communicate()


@pytest.mark.slow
def test_two_processes_may_write_at_once(source, cache):
    expected = read_sensorium(source)["A"].to_dataset()
    line = f"sum {expected.stimuli.values.sum()} {expected.responses.values.sum(dtype='f8')}"
    processes = [start(source, cache, 0.05) for _ in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert output.splitlines()[-1] == line
    assert len(stores(cache)) == 1
    xr.testing.assert_identical(read_sensorium(source, cache=cache)["A"].to_dataset(), expected)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system kills in another way")
def test_a_writer_that_is_killed_leaves_nothing_that_is_read(source, cache):
    process = start(source, cache, 60)
    wait_for_a_block(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert all(left.startswith(".") for left in stores(cache))
    xr.testing.assert_identical(read_sensorium(source, cache=cache), read_sensorium(source))
    (store,) = stores(cache)
    assert not store.startswith(".")

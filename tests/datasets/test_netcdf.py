"""The netCDF library used by many threads at once, and files that change while they are read."""

import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from v1tlearn.datasets.store import open_recordings, save_recordings

ROOT = Path(__file__).parents[2]


def recording(seed=0, n_trials=5, n_neurons=3):
    rng = np.random.default_rng(seed)
    return xr.Dataset(
        {
            "stimuli": (
                ("trial", "channel", "height", "width"),
                rng.integers(0, 256, (n_trials, 1, 4, 6), np.uint8),
            ),
            "responses": (("trial", "neuron"), rng.random((n_trials, n_neurons), "f4")),
        },
        coords={"tier": ("trial", ["train"] * n_trials), "area": ("neuron", ["V1"] * n_neurons)},
    )


def test_threads_write_open_and_read_files_of_their_own_and_one_of_all(tmp_path):
    save_recordings({"A": recording(seed=99)}, tmp_path / "shared.nc")
    shared = v1.Trials.open(tmp_path / "shared.nc")
    rounds = threading.Barrier(4)

    def work(number):
        for turn in range(3):
            rounds.wait()
            path = tmp_path / f"{number}.nc"
            compression = ["zlib", None][turn % 2]
            save_recordings({"A": recording(number)}, path, compression=compression)
            with open_recordings(path) as opened:
                xr.testing.assert_identical(opened["A"].to_dataset().load(), recording(number))
            np.testing.assert_array_equal(shared.get("stimuli", "A"), recording(99).stimuli)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_lazy_recordings_of_a_file_are_written_to_another(tmp_path):
    """Reading needs the lock of the library, and so does writing."""
    save_recordings({"A": recording()}, tmp_path / "a.nc")
    with open_recordings(tmp_path / "a.nc") as opened:
        save_recordings(opened, tmp_path / "b.nc", compression=None)
    with xr.open_datatree(tmp_path / "b.nc", engine="netcdf4", cache=False) as plain:
        save_recordings(plain, tmp_path / "c.nc")  # lazy by means of xarray alone
    with open_recordings(tmp_path / "c.nc") as opened:
        np.testing.assert_array_equal(opened["A"].stimuli, recording().stimuli)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_find_the_library_in_use(tmp_path):
    save_recordings({"A": recording()}, tmp_path / "a.nc")
    stop = threading.Event()

    def write():
        while not stop.is_set():
            save_recordings({"A": recording()}, tmp_path / "b.nc")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if not child:
                with open_recordings(tmp_path / "a.nc") as opened:
                    os._exit(int(opened["A"].stimuli.values.sum() != recording().stimuli.sum()))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("compression", ["zlib", None])
def test_what_was_opened_stays_what_it_was_when_its_file_is_replaced(tmp_path, compression):
    path = tmp_path / "a.nc"
    save_recordings({"A": recording(1)}, path, compression=compression)
    opened = open_recordings(path)
    np.testing.assert_array_equal(opened["A"].stimuli[0], recording(1).stimuli[0])
    pickled = pickle.dumps(opened)
    save_recordings({"A": recording(2)}, path, compression=compression)
    np.testing.assert_array_equal(opened["A"].stimuli, recording(1).stimuli)
    opened.close()
    for stale in (opened, pickle.loads(pickled)):
        with pytest.raises(ValueError, match=r"a\.nc was written anew since it was opened: open"):
            stale["A"].stimuli.values  # noqa: B018
    with open_recordings(path) as again:
        np.testing.assert_array_equal(again["A"].stimuli, recording(2).stimuli)
    path.unlink()
    with pytest.raises(ValueError, match=r"a\.nc was removed since it was opened"):
        again["A"].responses.values  # noqa: B018


def test_more_files_may_be_in_use_than_the_library_keeps_open(tmp_path):
    opened = []
    for number in range(70):
        save_recordings({"A": recording(number)}, tmp_path / f"{number}.nc", compression=None)
        opened.append(open_recordings(tmp_path / f"{number}.nc"))
    for number, tree in enumerate(opened):
        np.testing.assert_array_equal(tree["A"].stimuli, recording(number).stimuli)


def test_files_are_open_several_times_and_closed_one_by_one(tmp_path):
    """HDF5 itself fails at this: with two files, of which the second is open twice."""
    few, many = recording().drop_vars("responses"), recording()
    for name, dataset in (("a", few), ("b", many)):
        save_recordings({"A": dataset}, tmp_path / f"{name}.nc", compression=None)
    first, second = open_recordings(tmp_path / "a.nc"), open_recordings(tmp_path / "b.nc")
    copy = pickle.loads(pickle.dumps(second))
    assert copy["A"].stimuli.values.any()
    first.close()
    second.close()
    with open_recordings(tmp_path / "a.nc"), open_recordings(tmp_path / "b.nc") as again:
        np.testing.assert_array_equal(again["A"].stimuli, many.stimuli)
    np.testing.assert_array_equal(copy["A"].responses, many.responses)


def test_files_of_recordings_that_are_gone_are_closed(tmp_path):
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not tell what is open")
    save_recordings({"A": recording()}, tmp_path / "a.nc")

    def times_open():
        found = 0
        for entry in os.listdir("/proc/self/fd"):
            try:
                found += os.readlink(f"/proc/self/fd/{entry}") == str(tmp_path / "a.nc")
            except OSError:
                continue
        return found

    opened = open_recordings(tmp_path / "a.nc")
    assert opened["A"].stimuli.values.any()
    assert times_open() == 1
    del opened
    gc.collect()
    assert times_open() == 0


MANY = """
    import gc, sys, threading
    import numpy as np, xarray as xr
    import v1tlearn as v1
    from v1tlearn.datasets.sensorium import read_sensorium, write_sensorium

    folder, n_threads, turns = sys.argv[1], 6, 25
    recordings = v1.make_v1_recordings(n_mice=2, n_neurons=5, n_trials=12, random_state=0,
                                       n_test_images=2, n_repeats=3, image_shape=(8, 12))
    v1.save_recordings(recordings, f"{folder}/shared.nc")
    sources = write_sensorium(recordings, f"{folder}/in")
    shared = v1.Trials.open(f"{folder}/shared.nc")
    foreign = xr.open_datatree(f"{folder}/shared.nc", engine="netcdf4", cache=False)
    expected = recordings["A"].stimuli.values
    failures = []

    def work(number):
        try:
            for turn in range(turns):
                path = f"{folder}/{number}.nc"
                kind = (number + turn) % 3
                if kind == 0:
                    v1.save_recordings(recordings, path, compression=[None, "zlib"][turn % 2])
                    opened = v1.open_recordings(path)
                    assert (opened["A"].stimuli.values == expected).all()
                elif kind == 1:
                    cached = read_sensorium(sources, cache=f"{folder}/cache{number}-{turn}")
                    assert (cached["A"].stimuli.values == expected).all()
                else:
                    shared.responses.to_netcdf(f"{folder}/y{number}.nc")
                    v1.Responses.open(f"{folder}/y{number}.nc")
                    assert (foreign["A"].stimuli.values == expected).all()
                assert (shared.get("stimuli", "A") == expected).all()
                if turn % 5 == 0:
                    gc.collect()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(n,)) for n in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("failures", failures)
"""


@pytest.mark.slow
def test_a_process_whose_threads_use_the_library_at_once_survives(tmp_path):
    """Saving, opening, caches, responses, and what was opened by xarray itself."""
    command = [sys.executable, "-c", textwrap.dedent(MANY), str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )
    assert (done.returncode, done.stdout) == (0, "failures []\n"), done.stderr


STARVES = """
    import sys
    import numpy as np, xarray as xr
    import v1tlearn as v1
    from tests.interruptions.processes import limit_memory

    stimuli = np.zeros((2, 1, 2, 2), "u1")
    data = xr.Dataset({"stimuli": (("trial", "channel", "height", "width"), stimuli)})
    v1.save_recordings({"A": data}, "r.nc")
    limit_memory(2**int(sys.argv[1]))
    try:
        v1.save_recordings({"A": data}, "r.nc") if sys.argv[2] == "save" else v1.Trials.open("r.nc")
    except v1.training.InsufficientMemoryError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others do not limit this memory")
@pytest.mark.parametrize("bits", [18, 22])
@pytest.mark.parametrize(
    ("what", "told"), [("save", "make a netCDF file"), ("open", "open {}/r.nc")]
)
def test_where_memory_ends_no_file_is_called_broken_and_no_process_crashes(
    bits, what, told, tmp_path
):
    """The library crashes in less than a megabyte, and reads nothing in less than four."""
    command = [sys.executable, "-c", textwrap.dedent(STARVES), str(bits), what]
    path = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | path, capture_output=True, text=True, check=False
    )
    told = f"memory does not suffice to {told.format(tmp_path)}.\n"
    assert done.stdout == told, (done.returncode, done.stderr)


WAITS = """
    import signal, threading
    import numpy as np, xarray as xr
    from xarray.backends.locks import HDF5_LOCK, NETCDFC_LOCK
    import v1tlearn as v1

    stimuli = np.zeros((2, 1, 2, 2), "u1")
    data = xr.Dataset({"stimuli": (("trial", "channel", "height", "width"), stimuli)})

    def save():
        v1.save_recordings({"A": data}, "r.nc")

    for lock in (HDF5_LOCK, NETCDFC_LOCK):
        lock.acquire()
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            save()
        except KeyboardInterrupt:
            print("interrupted")
        lock.release()
        thread = threading.Thread(target=save, daemon=True)
        thread.start()
        thread.join(60)
        print("saved" if not thread.is_alive() else "waits")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no such signals")
def test_who_is_interrupted_while_waiting_for_the_library_holds_it_no_longer(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(WAITS)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["interrupted", "saved"] * 2

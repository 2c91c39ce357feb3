import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from v1tlearn.datasets import checksums
from v1tlearn.datasets.schema import BEHAVIOR_NAMES
from v1tlearn.datasets.sensorium import read_sensorium, write_sensorium
from v1tlearn.datasets.store import open_recordings, save_recordings


def recording(n_trials=7, n_neurons=4, seed=0):
    rng = np.random.default_rng(seed)
    responses = rng.gamma(0.5, 2, (n_trials, n_neurons)).astype("f4")
    responses[1, 2] = np.nan
    return xr.Dataset(
        {
            "stimuli": (
                ("trial", "channel", "height", "width"),
                rng.integers(0, 256, (n_trials, 1, 6, 8), np.uint8),
                {"units": "1"},
            ),
            "behaviors": (("trial", "behavior"), rng.normal(size=(n_trials, 5)).astype("f4")),
            "responses": (("trial", "neuron"), responses, {"units": "s", "window": [0.05, 0.55]}),
            "expected_responses": (("trial", "neuron"), np.ones((n_trials, n_neurons), "f4")),
            "stimuli_mean": ((), 113.5),
            "responses_std": ("neuron", rng.random(n_neurons)),
        },
        coords={
            "trial": np.arange(10, 10 + n_trials),
            "tier": ("trial", np.array(["train"] * (n_trials - 1) + ["final_test"])),
            "image_id": ("trial", np.array(["", *[f"im{i}é" for i in range(n_trials - 1)]])),
            "trial_id": ("trial", rng.permutation(n_trials)),
            "behavior": list(BEHAVIOR_NAMES),
            "neuron": np.arange(n_neurons, dtype=np.int32),
            "good": ("neuron", np.arange(n_neurons) % 2 == 0),
            "position": (
                ("neuron", "axis"),
                rng.random((n_neurons, 3)).astype("f4"),
                {"units": "um"},
            ),
            "axis": ["x", "y", "z"],
        },
        attrs={"description": "µm²", "rate": 8.0, "numbers": np.arange(3), "words": ["a", "b"]},
    )


def same(first, second):
    """Values, labels, attributes, and kinds of dtype (a text may come back narrower)."""
    xr.testing.assert_identical(first, second)
    for mouse in first.children:
        kinds = [
            {
                name: str(v.dtype) if v.dtype.kind != "U" else "U"
                for name, v in tree[mouse].variables.items()
            }
            for tree in (first, second)
        ]
        assert kinds[0] == kinds[1]


@pytest.mark.parametrize("compression", ["zlib", None])
def test_recordings_come_back_identical(tmp_path, compression):
    tree = xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs={"title": "toy"}), "A": recording(), "B": recording(3, 9, seed=1)}
    )
    save_recordings(tree, tmp_path / "r.nc", compression=compression)
    with open_recordings(tmp_path / "r.nc") as opened:
        same(opened, tree)
    assert os.listdir(tmp_path) == ["r.nc"]


def test_a_mapping_of_datasets_is_stored_like_a_tree(tmp_path):
    save_recordings({"A": recording()}, tmp_path / "r.nc")
    with open_recordings(str(tmp_path / "r.nc")) as opened:
        same(opened, xr.DataTree.from_dict({"A": recording()}))


@pytest.mark.parametrize(
    "mouse", ["21067-10-18", "a.b", "two words", "ä", "1", "_x", "a:b,c", "get"]
)
def test_mouse_ids_with_odd_characters(tmp_path, mouse):
    tree = xr.DataTree(children={mouse: xr.DataTree(recording())})
    save_recordings(tree, tmp_path / "r.nc")
    with open_recordings(tmp_path / "r.nc") as opened:
        assert list(opened.children) == [mouse]
        same(opened, tree)


@pytest.mark.parametrize(("mouse", "message"), [("a/b", "cannot name a group"), ("-a", "so;")])
def test_mouse_ids_that_cannot_be_stored(tmp_path, mouse, message):
    with pytest.raises(ValueError, match=message):
        save_recordings({mouse: recording()}, tmp_path / "r.nc")


@given(
    dtype=st.sampled_from(["u1", "u2", "i2", "i8", "f4", "f8", ">f4"]),
    shape=npst.array_shapes(min_dims=4, max_dims=4, max_side=5),
    kind=st.sampled_from([str, object, np.dtypes.StringDType()]),
    compression=st.sampled_from(["zlib", None]),
    data=st.data(),
)
def test_any_dtype_shape_and_text_comes_back(
    tmp_path_factory, dtype, shape, kind, compression, data
):
    texts = data.draw(st.lists(st.text("aé /0_", max_size=5), min_size=shape[0], max_size=shape[0]))
    stimuli = data.draw(
        npst.arrays(dtype, shape, elements={"allow_nan": False} if dtype[-2] == "f" else None)
    )
    stimuli = np.where(np.isfinite(stimuli), stimuli, 0).astype(dtype)
    dataset = xr.Dataset(
        {"stimuli": (("trial", "channel", "height", "width"), stimuli)},
        coords={"image_id": ("trial", np.array(texts).astype(kind))},
    )
    path = tmp_path_factory.mktemp("any") / "r.nc"
    save_recordings({"A": dataset}, path, compression=compression)
    with open_recordings(path) as opened:
        assert opened["A"].stimuli.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(opened["A"].stimuli.values, stimuli)
        assert opened["A"].image_id.dtype.kind == "U"
        assert opened["A"].image_id.values.tolist() == texts


def test_a_chunk_is_one_trial_and_without_compression_trials_lie_in_a_row(tmp_path):
    for compression in ("zlib", None):
        save_recordings({"A": recording()}, tmp_path / "r.nc", compression=compression)
        with netCDF4.Dataset(tmp_path / "r.nc") as file:
            for name, chunk in (("stimuli", [1, 1, 6, 8]), ("responses", [1, 4])):
                variable = file["A"][name]
                assert variable.chunking() == (chunk if compression else "contiguous")
                filters = variable.filters() or {}
                assert filters.get("zlib", False) == filters.get("shuffle", False)
                assert filters.get("complevel", 0) == (1 if compression else 0)
                assert filters.get("zlib", False) == bool(compression)


def test_recordings_stored_in_chunks_without_compression_are_read(tmp_path):
    save_recordings({"A": recording()}, tmp_path / "r.nc", compression=None)
    with xr.open_dataset(tmp_path / "r.nc", group="A", decode_timedelta=False) as dataset:
        chunks = {
            name: {"chunksizes": (1, *dataset[name].shape[1:]), "contiguous": False}
            for name in ("stimuli", "responses", "expected_responses")
        }
        dataset.load().to_netcdf(tmp_path / "old.nc", group="A", encoding=chunks)
    with netCDF4.Dataset(tmp_path / "old.nc") as file:
        assert file["A"]["stimuli"].chunking() == [1, 1, 6, 8]
    with open_recordings(tmp_path / "old.nc") as opened:
        same(opened, xr.DataTree.from_dict({"A": recording()}))


def test_trials_stay_on_disk_until_used_and_labels_do_not(tmp_path):
    save_recordings({"A": recording()}, tmp_path / "r.nc")
    with open_recordings(tmp_path / "r.nc") as opened:
        lazy = {n for n, v in opened["A"].variables.items() if not v._in_memory}
        assert lazy == {"stimuli", "responses", "expected_responses"}
        part = opened["A"].to_dataset().isel(trial=[5, 2])
        xr.testing.assert_identical(part.load(), recording().isel(trial=[5, 2]))
        assert not opened["A"].variables["stimuli"]._in_memory


def test_opened_recordings_can_be_pickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_recordings({"A": recording()}, "r.nc")
    with open_recordings("r.nc") as opened:
        content = pickle.dumps(opened)
    monkeypatch.chdir("/")
    copy = pickle.loads(content)
    same(copy, xr.DataTree.from_dict({"A": recording()}))


@pytest.mark.parametrize("zipped", [False, True])
def test_every_step_from_sensorium_to_netcdf_keeps_values_and_labels(tmp_path, zipped):
    tree = xr.DataTree.from_dict(
        {
            "21067-10-18": recording().drop_vars("expected_responses"),
            "B": recording(3, 9, seed=1),
        }
    )
    paths = write_sensorium(tree, tmp_path / "out", zip=zipped)
    read = read_sensorium(paths)
    same(read, tree)
    save_recordings(read, tmp_path / "r.nc")
    with open_recordings(tmp_path / "r.nc") as opened:
        same(opened, tree)
        again = read_sensorium(write_sensorium(opened, tmp_path / "again", zip=not zipped))
        same(again, tree)


def test_a_file_is_replaced_only_when_the_new_one_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "r.nc"
    save_recordings({"A": recording()}, path)
    before = path.read_bytes()
    broken = {"A": recording(), "B": recording().assign_coords(extra=("trial", [len] * 7))}
    with pytest.raises((TypeError, ValueError)):
        save_recordings(broken, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["r.nc"]
    save_recordings({"B": recording(seed=2)}, path)
    with open_recordings(path) as opened:
        same(opened, xr.DataTree.from_dict({"B": recording(seed=2)}))


def test_the_file_that_is_read_from_is_replaced_only_after_load(tmp_path):
    path = tmp_path / "r.nc"
    save_recordings({"A": recording()}, path)
    with open_recordings(path) as opened:
        part = {"A": opened["A"].to_dataset().isel(trial=slice(2, 5))}
        with pytest.raises(ValueError, match=r"mouse 'A', \w+ is read lazily from .*r.nc.*load"):
            save_recordings(part, path)
        save_recordings(part, tmp_path / "other.nc")
        part["A"].load()
    save_recordings(part, path)
    for name in ("r.nc", "other.nc"):
        with open_recordings(tmp_path / name) as opened:
            same(opened, xr.DataTree.from_dict({"A": recording().isel(trial=slice(2, 5))}))


@pytest.mark.parametrize(
    "value", [None, True, {"a": 1}, np.zeros((2, 2)), [], [1, "a"], 1j, [None]]
)
def test_attributes_that_netcdf_cannot_hold_are_named(tmp_path, value):
    for place in ("recording", "variable"):
        dataset = recording()
        (dataset if place == "recording" else dataset.responses).attrs["note"] = value
        with pytest.raises(
            ValueError, match=r"(?s)mouse 'A'.*attribute 'note' is .*netCDF cannot hold"
        ):
            save_recordings({"A": dataset}, tmp_path / "r.nc")
    assert os.listdir(tmp_path) == []


def test_other_things_that_cannot_be_stored_are_named(tmp_path):
    path = tmp_path / "r.nc"
    dataset = recording()
    dataset.stimuli.attrs["scale_factor"] = 2.0
    with pytest.raises(
        ValueError, match=r"'A', stimuli: the attribute 'scale_factor' has a meaning"
    ):
        save_recordings({"A": dataset}, path)
    half = recording().assign(stimuli=recording().stimuli.astype("f2"))
    with pytest.raises(ValueError, match=r"'A', stimuli: netCDF has no dtype float16"):
        save_recordings({"A": half}, path)
    with pytest.raises(ValueError, match=r"'A': stimuli are missing"):
        save_recordings({"A": recording().drop_vars("stimuli")}, path)
    with pytest.raises(ValueError, match=r"compression is 'lz4', expected 'zlib' or None"):
        save_recordings({"A": recording()}, path, compression="lz4")


@pytest.mark.parametrize("compression", ["zlib", None])
def test_damage_is_found_and_a_whole_file_in_its_place_is_opened(tmp_path, compression):
    path = tmp_path / "r.nc"
    save_recordings({"A": recording()}, path, compression=compression)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    expected = xr.DataTree.from_dict({"A": recording()})
    for place in rng.integers(0, len(whole) - 30, 40):  # of labels, data, and between them
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with (
            pytest.raises(ValueError, match=r"r\.nc.*(not a readable netCDF4|is damaged)"),
            open_recordings(path) as opened,
        ):
            same(opened.load(), expected)
        path.write_bytes(whole)
        with open_recordings(path) as opened:
            same(opened, expected)


def test_files_of_others_are_opened_and_so_are_those_that_others_changed(tmp_path):
    path = tmp_path / "r.nc"
    save_recordings({"A": recording()}, path, compression=None)
    with netCDF4.Dataset(path, "a") as file:
        file["A"]["responses"][0] = 5
        file["A"].setncattr("note", "changed")
    with open_recordings(path) as opened:
        assert (opened["A"].responses[0] == 5).all()
        assert opened["A"].attrs["note"] == "changed"
    xr.DataTree.from_dict({"A": recording()}).to_netcdf(path, engine="netcdf4")
    with open_recordings(path) as opened:
        same(opened, xr.DataTree.from_dict({"A": recording()}))


UNIX = pytest.mark.skipif(sys.platform == "win32", reason="it has no limit of processor time")

LOOP = """
    import time, netCDF4
    class Dataset(netCDF4.Dataset):
        def __init__(self, *args):
            while WAITS:
                time.sleep(3600) if WAITS == "sleep" else None
    netCDF4.Dataset = Dataset
"""


@pytest.mark.parametrize(
    ("waits", "limit"),
    [("sleep", "most_waiting"), pytest.param("compute", "most_seconds", marks=UNIX)],
)
def test_a_file_that_keeps_the_library_busy_is_refused(tmp_path, monkeypatch, waits, limit):
    """As some damage does; here the library of the process that looks first never ends."""
    path = tmp_path / "r.nc"
    xr.DataTree.from_dict({"A": recording()}).to_netcdf(path, engine="netcdf4")
    (tmp_path / "sitecustomize.py").write_text(f"WAITS = {waits!r}\n" + textwrap.dedent(LOOP))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ValueError, match="it kept the library busy for 2 s"):
        checksums.check(path, **{limit: 2.0})
    monkeypatch.delenv("PYTHONPATH")
    with open_recordings(path) as opened:
        same(opened, xr.DataTree.from_dict({"A": recording()}))


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = tmp_path / "r.nc"
    save_recordings({"A": recording(100, 50)}, path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(
        ValueError, match=r"r.nc is not a readable netCDF4 file .*broken, truncated"
    ):
        open_recordings(path)


def test_files_that_hold_no_recordings_are_refused(tmp_path):
    path = tmp_path / "r.nc"
    with pytest.raises(FileNotFoundError, match=r"r.nc is not a file"):
        open_recordings(path)
    with pytest.raises(IsADirectoryError, match="is not a file"):
        open_recordings(tmp_path)
    path.write_text("plain text")
    with pytest.raises(ValueError, match="not a readable netCDF4 file"):
        open_recordings(path)
    for dataset, group, message in (
        (recording(), None, "the root of the DataTree holds variables"),
        (recording().drop_vars("stimuli"), "A", "mouse 'A': stimuli are missing"),
        (xr.Dataset(attrs={"a": 1}), None, "there is no mouse"),
    ):
        path.unlink()
        dataset.to_netcdf(path, group=group, engine="netcdf4")
        with pytest.raises(ValueError, match=f"does not hold recordings .*{message}"):
            open_recordings(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are in kilobytes on Linux alone")
def test_six_thousand_trials_of_eight_thousand_neurons_stream_through(tmp_path):
    """The peak memory of writing, checking and averaging stays far below the size of the data."""
    script = """
        import resource, sys
        import numpy as np, xarray as xr
        from xarray.backends import BackendArray
        from xarray.core import indexing
        from v1tlearn.datasets.blocks import blocks
        from v1tlearn.datasets.schema import DIMS, validate_recordings
        from v1tlearn.datasets.store import open_recordings, save_recordings

        class Made(BackendArray):
            '''Values that depend on the trial only, made when indexed.'''
            def __init__(self, shape, dtype):
                self.shape, self.dtype = shape, np.dtype(dtype)
            def __getitem__(self, key):
                return indexing.explicit_indexing_adapter(
                    key, self.shape, indexing.IndexingSupport.BASIC, self.make)
            def make(self, key):
                trials = np.arange(self.shape[0])[key[0]] % 251
                out = np.empty((len(trials), *self.shape[1:]), self.dtype)
                out[...] = trials.reshape(-1, *[1] * (out.ndim - 1))
                return out

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

        n, neurons = 6000, 8000
        lazy = lambda name, shape, dtype: (
            DIMS[name], indexing.LazilyIndexedArray(Made((n, *shape), dtype)))
        mouse = xr.Dataset({
            "stimuli": lazy("stimuli", (1, 144, 256), "u1"),
            "responses": lazy("responses", (neurons,), "f4"),
        }, coords={"tier": ("trial", np.full(n, "train"))})
        before = peak()
        save_recordings({"A": mouse}, sys.argv[1], compression=sys.argv[2] or None)
        with open_recordings(sys.argv[1]) as opened:
            validate_recordings(opened)
            for name in ("stimuli", "responses"):
                total = 0.0
                for start, block in blocks(opened["A"][name]):
                    expected = np.arange(start, start + len(block)) % 251
                    assert (block.reshape(len(block), -1) == expected[:, None]).all()
                    total += block.mean(dtype="f8") * len(block)
                assert abs(total / n - (np.arange(n) % 251).mean()) < 1e-9
        print(before, peak())
    """
    root = Path(__file__).parents[2]
    for compression in ("", "zlib"):
        path = tmp_path / f"large{compression}.nc"
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(path), compression],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        before, peak = map(float, done.stdout.split())
        size = 6000 * (144 * 256 + 4 * 8000) / 2**20
        assert peak - before < 0.4 * size, (
            f"{peak:.0f} MiB, {before:.0f} of it before, for {size:.0f}"
        )
        if not compression:
            assert path.stat().st_size / 2**20 > size
        path.unlink()

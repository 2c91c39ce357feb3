import json
import logging
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from v1tlearn.datasets._sensorium_write import write_sensorium
from v1tlearn.datasets.schema import BEHAVIOR_NAMES
from v1tlearn.datasets.sensorium import read_sensorium

GRAY = "static1-2-3-GrayImageNet-94c6ff995dac583098847cfecd43e7b6"
COLOR = "static4-5-6-ColorImageNet-104e446ed0128d89c639eef0abe4655b"
N_TRIALS, N_NEURONS = 12, 5
STATISTICS = ("mean", "std", "min", "max", "median")


def save(root, name, values):
    path = root / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def write_by_hand(root, *, image_shape=(1, 6, 8), image_dtype="u1", behavior=True, color=False):
    """Write a mouse file by file, as the publisher lays it out; return what its files hold."""
    rng = np.random.default_rng(3)
    data = {
        "images": rng.integers(0, 256, (N_TRIALS, *image_shape)).astype(image_dtype),
        "responses": rng.gamma(0.5, 2, (N_TRIALS, N_NEURONS)),
    }
    if behavior:
        data["behavior"] = rng.normal(size=(N_TRIALS, 3))
        data["pupil_center"] = rng.normal(size=(N_TRIALS, 2))
    for folder, values in data.items():
        for trial, value in enumerate(values):
            save(root, f"data/{folder}/{trial}", value)
        for k, statistic in enumerate(STATISTICS):
            value = np.float64(k) if folder == "images" else np.full(values.shape[1:], k + 0.5)
            save(root, f"meta/statistics/{folder}/all/{statistic}", value)
            save(root, f"meta/statistics/{folder}/stimulus_frame/{statistic}", value + 100)
    neurons = {
        "unit_ids": np.arange(1, N_NEURONS + 1),
        "area": np.array(["V1"] * N_NEURONS),
        "layer": np.array(["L2/3"] * N_NEURONS),
        "animal_ids": np.full(N_NEURONS, 1),
        "sessions": np.full(N_NEURONS, 2),
        "scan_idx": np.full(N_NEURONS, 3),
        "cell_motor_coordinates": rng.integers(-800, 500, (N_NEURONS, 3)),
    }
    prefix = "colorframeprojector" if color else "frame"
    trials = {
        "tiers": np.array(["train", "validation", "test"] * (N_TRIALS // 3)),
        "trial_idx": rng.permutation(N_TRIALS),
        f"{prefix}_image_id": rng.integers(0, 5000, N_TRIALS),
        f"{prefix}_image_class": np.array(["imagenet"] * N_TRIALS),
        f"{prefix}_trial_ts": np.array([f"2020-01-01 00:00:{i:02}" for i in range(N_TRIALS)]),
    }
    for name, values in neurons.items():
        save(root, f"meta/neurons/{name}", values)
    for name, values in trials.items():
        save(root, f"meta/trials/{name}", values)
    return data | neurons | trials


def pack(root, target, *, top=None):
    """Zip a folder; its content lies under `top`, or directly at the top of the zip."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        if top:
            archive.mkdir(top)
            archive.writestr(f"__MACOSX/{top}/data/images/._0.npy", b"x")
        for path in sorted(root.rglob("*.npy")):
            name = path.relative_to(root).as_posix()
            archive.write(path, f"{top}/{name}" if top else name)
    return target


@pytest.fixture
def mouse(tmp_path):
    root = tmp_path / GRAY
    write_by_hand(root)
    return root


@pytest.mark.parametrize("form", ["folder", "zip of the folder", "zip of the content"])
@pytest.mark.parametrize(
    ("image_shape", "dtype", "in_memory", "color"),
    [
        ((1, 144, 256), "u1", "u1", False),
        ((1, 36, 64), "f4", "f4", False),
        ((2, 36, 64), "f8", "f4", True),
        ((1, 36, 64), ">i2", "f4", False),
    ],
)
def test_everything_in_the_files_is_read(tmp_path, form, image_shape, dtype, in_memory, color):
    name = COLOR if color else GRAY
    root = tmp_path / name
    files = write_by_hand(root, image_shape=image_shape, image_dtype=dtype, color=color)
    path = root
    if form != "folder":
        path = pack(root, tmp_path / f"{name}.zip", top=name if "folder" in form else None)
    tree = read_sensorium(path)
    assert list(tree.children) == ["4-5-6" if color else "1-2-3"]
    (ds,) = (node.to_dataset() for node in tree.children.values())
    assert ds.stimuli.dims == ("trial", "channel", "height", "width")
    assert ds.stimuli.dtype == in_memory
    assert ds.behaviors.dtype == ds.responses.dtype == np.float32
    np.testing.assert_array_equal(ds.stimuli, files["images"])
    np.testing.assert_array_equal(ds.responses, files["responses"].astype("f4"))
    behaviors = np.concatenate([files["behavior"], files["pupil_center"]], axis=1)
    np.testing.assert_array_equal(ds.behaviors, behaviors.astype("f4"))
    assert ds.behavior.values.tolist() == list(BEHAVIOR_NAMES)
    prefix = "colorframeprojector" if color else "frame"
    for label, file in {
        "tier": "tiers",
        "trial_id": "trial_idx",
        "image_id": f"{prefix}_image_id",
        "image_class": f"{prefix}_image_class",
        f"trial_{prefix}_trial_ts": f"{prefix}_trial_ts",
        "neuron": "unit_ids",
        "area": "area",
        "layer": "layer",
        "animal_id": "animal_ids",
        "session": "sessions",
        "scan": "scan_idx",
        "position": "cell_motor_coordinates",
    }.items():
        np.testing.assert_array_equal(ds.coords[label], files[file], err_msg=label)
    assert ds.position.attrs["units"] == "um"
    assert ds.axis.values.tolist() == ["x", "y", "z"]
    for k, statistic in enumerate(STATISTICS):
        assert ds[f"stimuli_{statistic}"].item() == k
        assert ds[f"behaviors_{statistic}"].dims == ("behavior",)
        assert ds[f"responses_{statistic}"].values.tolist() == [k + 0.5] * N_NEURONS
        assert ds[f"behaviors_{statistic}_stimulus_frame"].values.tolist() == [k + 100.5] * 5


def test_files_are_sorted_by_number(mouse):
    stimuli = read_sensorium(mouse)["1-2-3"].stimuli
    np.testing.assert_array_equal(stimuli[10], np.load(mouse / "data/images/10.npy"))


def test_a_mouse_without_behavior_and_one_with_pupil_only(tmp_path):
    write_by_hand(tmp_path / GRAY, behavior=False)
    assert "behaviors" not in read_sensorium(tmp_path / GRAY)["1-2-3"]
    write_by_hand(tmp_path / COLOR)
    for folder in ("data", "meta/statistics"):
        shutil.rmtree(tmp_path / COLOR / folder / "behavior")
    dataset = read_sensorium(tmp_path / COLOR)["4-5-6"]
    assert dataset.behavior.values.tolist() == ["pupil_x", "pupil_y"]
    assert dataset.behaviors_mean.shape == (2,)


def test_no_byte_of_a_trial_is_read_before_it_is_indexed(mouse, tmp_path):
    path = pack(mouse, tmp_path / "m.zip")
    from_zip, from_folder = read_sensorium(path)["m"], read_sensorium(mouse)["1-2-3"]
    expected = np.load(mouse / "data/images/7.npy")
    for number in set(range(N_TRIALS)) - {7}:
        (mouse / f"data/images/{number}.npy").write_bytes(b"spoilt")
    np.testing.assert_array_equal(from_folder.stimuli[7], expected)
    with pytest.raises(ValueError, match=r"mouse '1-2-3'.*images.6.npy: is not a readable .npy"):
        from_folder.stimuli[6:8].load()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        from_zip.stimuli[7].load()


@pytest.mark.parametrize("zipped", [False, True])
def test_any_index_reads_the_same_as_numpy(mouse, tmp_path, zipped):
    path = pack(mouse, tmp_path / "m.zip", top=GRAY) if zipped else mouse
    tree = pickle.loads(pickle.dumps(read_sensorium(path)))
    stimuli = tree["1-2-3"].stimuli.variable
    whole = stimuli.values
    everything = slice(None)
    for key in (
        (3, everything, everything, everything),
        (slice(None, None, -2), 0, everything, everything),
        (np.array([4, 1, 1]), everything, slice(1, 3), 5),
        (slice(0, 0), everything, everything, everything),
        (-1, 0, np.array([0, 2]), np.array([1, 1])),
        (np.arange(12) % 5 == 0, everything, everything, slice(None, None, 3)),
    ):
        expected = whole
        for axis in reversed(range(4)):
            expected = expected[(everything,) * axis + (key[axis],)]
        np.testing.assert_array_equal(stimuli[key].values, expected)
    points = xr.DataArray([0, 5, 11], dims="point")
    np.testing.assert_array_equal(
        stimuli[{"trial": points.variable, "width": points.variable % 8}].values,
        np.stack([whole[t, :, :, t % 8] for t in (0, 5, 11)]),
    )


def test_a_few_neurons_of_many_trials_are_read_in_blocks_and_threads(mouse, tmp_path, monkeypatch):
    from v1tlearn.datasets import _trial_files

    responses = read_sensorium(pack(mouse, tmp_path / "m.zip"))["m"].responses
    whole = responses.values
    monkeypatch.setattr(_trial_files, "_BLOCK_BYTES", 60)
    monkeypatch.setattr(_trial_files, "_THREAD_BYTES", 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    np.testing.assert_array_equal(responses.values, whole)
    np.testing.assert_array_equal(responses[:, 2].values, whole[:, 2])
    np.testing.assert_array_equal(responses[::2, [3, 0]].values, whole[::2][:, [3, 0]])


def test_files_of_one_kind_may_differ_in_layout_but_not_in_shape_or_kind(mouse):
    image = np.load(mouse / "data/images/2.npy")
    np.save(mouse / "data/images/2.npy", np.asfortranarray(image))
    save(mouse, "data/responses/2", np.arange(N_NEURONS, dtype="i2"))
    dataset = read_sensorium(mouse)["1-2-3"]
    np.testing.assert_array_equal(dataset.stimuli[2], image)
    np.testing.assert_array_equal(dataset.responses[2], np.arange(N_NEURONS))
    save(mouse, "data/images/4", np.zeros((1, 8, 6), "u1"))
    with pytest.raises(ValueError, match=r"'1-2-3'.*images.4.npy: shape is \(1, 8, 6\), expected"):
        dataset.stimuli.load()
    save(mouse, "data/images/4", np.full((1, 6, 8), 0.5))
    with pytest.raises(ValueError, match=r"images.4.npy: dtype is float64, expected uint8"):
        dataset.stimuli.load()


def test_withheld_responses_of_a_competition_mouse_are_nan(mouse, tmp_path, caplog):
    rng = np.random.default_rng(0)
    tiers = np.array(["train", "test", "final_test"])[rng.permutation(N_TRIALS) % 3]
    save(mouse, "meta/trials/tiers", tiers)
    save(mouse, "meta/trials/trial_idx", np.array([f"{i:x}f3" for i in range(N_TRIALS)]))
    for trial in np.flatnonzero(tiers == "test"):
        save(mouse, f"data/responses/{trial}", np.zeros(N_NEURONS))
    for trial in np.flatnonzero(tiers == "final_test")[:-1]:  # one trial has responses
        save(mouse, f"data/responses/{trial}", np.zeros(N_NEURONS))
    with caplog.at_level(logging.INFO, "v1tlearn"):
        tree = read_sensorium(mouse)
    assert "4 responses of tier test" in caplog.text
    dataset = pickle.loads(pickle.dumps(tree))["1-2-3"]
    responses = dataset.responses.values
    assert np.isnan(responses[tiers == "test"]).all()
    assert (responses[np.flatnonzero(tiers == "final_test")[:-1]] == 0).all()
    for trial in np.flatnonzero(tiers == "train"):
        stored = np.load(mouse / f"data/responses/{trial}.npy").astype("f4")
        np.testing.assert_array_equal(responses[trial], stored)
    assert dataset.trial_id.dtype.kind == "U"
    (path,) = write_sensorium(tree, tmp_path / "again", zip=True)
    xr.testing.assert_identical(read_sensorium(path), tree)


def test_a_folder_of_mice_and_zips_and_lists_with_names(tmp_path, caplog):
    folder = tmp_path / "mice"
    for name in (GRAY, COLOR, "mouse10", "mouse9"):
        write_by_hand(folder / name)
    pack(folder / GRAY, folder / f"{GRAY}.zip", top=GRAY)
    pack(folder / COLOR, folder / f"{COLOR}.zip", top=COLOR)
    shutil.rmtree(folder / COLOR)
    with caplog.at_level(logging.INFO, "v1tlearn"):
        assert list(read_sensorium(folder).children) == ["mouse9", "mouse10", "1-2-3", "4-5-6"]
    assert "unpacked folder, which is read instead" in caplog.text
    paths = [folder / f"{COLOR}.zip", str(folder / "mouse9")]
    assert list(read_sensorium(paths).children) == ["4-5-6", "mouse9"]
    assert list(read_sensorium(paths, names=["B", "A"]).children) == ["B", "A"]
    assert list(read_sensorium(paths, names={"4-5-6": "F"}).children) == ["F", "mouse9"]
    with pytest.raises(ValueError, match="1 names for 2 recordings"):
        read_sensorium(paths, names=["A"])
    with pytest.raises(ValueError, match="entries for 9-9-9"):
        read_sensorium(paths, names={"9-9-9": "F"})
    with pytest.raises(TypeError, match="got the string 'AB'"):
        read_sensorium(paths, names="AB")
    with pytest.raises(ValueError, match=r"two recordings are called 'A'.*must be unique"):
        read_sensorium(paths, names=["A", "A"])


def test_a_zip_may_hold_several_mice(tmp_path):
    for name in (GRAY, COLOR):
        write_by_hand(tmp_path / "in" / name)
    path = pack(tmp_path / "in", tmp_path / "all.zip", top="outer")
    assert list(read_sensorium(path).children) == ["1-2-3", "4-5-6"]


def test_a_renamed_zip_keeps_the_data_key_of_the_folder_inside(mouse, tmp_path):
    assert list(read_sensorium(pack(mouse, tmp_path / "a.zip", top=GRAY)).children) == ["1-2-3"]
    path = pack(mouse, tmp_path / f"{COLOR}.zip", top="mouse")
    assert list(read_sensorium(path).children) == ["4-5-6"]


def test_a_folder_that_cannot_be_written_to_is_read(mouse):
    before = sorted(mouse.rglob("*"))
    mouse.chmod(0o555)
    try:
        read_sensorium(mouse).load()
    finally:
        mouse.chmod(0o755)
    assert sorted(mouse.rglob("*")) == before


def _remove(name):
    def change(root):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def _save(name, values, **kwargs):
    return lambda root: np.save(root / f"{name}.npy", values, **kwargs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_remove("data/responses"), "data/responses is missing or empty"),
        (_remove("data/images/4.npy"), r"data/images .*4.npy is missing.*highest is 11"),
        (_remove("data/images/11.npy"), "11 files in data/images but 12 in data/behavior"),
        (_remove("data/responses/11.npy"), "12 files in data/images but 11 in data/responses"),
        (_save("data/images/007", np.zeros((1, 6, 8))), "are both trial 7"),
        (_remove("meta/trials/tiers.npy"), "meta/trials/tiers.npy is missing"),
        (_save("meta/trials/tiers", np.array(["train"] * 3)), r"tiers.npy.*\(3,\), expected \(12"),
        (_save("meta/trials/tiers", np.array(["none"] * 12)), "tier: unknown 'none'"),
        (
            _save("meta/trials/tiers", np.array(["train"] * 12, object), allow_pickle=True),
            "meta/trials/tiers.npy.*pickled Python objects, which are never loaded",
        ),
        (
            _save("data/responses/0", np.array([1.0, "a"], object), allow_pickle=True),
            "responses.0.npy: holds pickled Python objects",
        ),
        (_save("data/responses/0", np.array(["a"])), "responses.0.npy: dtype is <U1"),
        (_save("data/images/0", np.zeros((6, 8))), r"images/0.npy.*\(6, 8\), expected \(channel"),
        (_save("data/behavior/0", np.zeros(4)), r"behavior/0.npy.*\(4,\), expected \(3,\): pupil"),
        (_save("meta/neurons/unit_ids", np.arange(4)), r"unit_ids.npy.*\(4,\), expected \(5,\)"),
        (_save("meta/neurons/unit_ids", np.ones(5)), "neuron: 1 names occur more than once"),
        (_save("meta/neurons/cell_motor_coordinates", np.ones(5)), r"expected \(5, 3\)"),
        (_save("meta/statistics/responses/all/std", np.ones(4)), r"std.npy.*\(4,\).*\(5,\)"),
        (_remove("meta/statistics/pupil_center"), "pupil_center/all/mean.npy is missing"),
        (
            _save("meta/trials/colorframeprojector_image_id", np.ones(12)),
            "image_id is stored twice",
        ),
        (lambda root: (root / "data/images/0.npy").write_bytes(b""), "0.npy: is not a readable"),
        (lambda root: (root / "config.json").write_text("{"), "config.json .* not a JSON object"),
        (
            lambda root: (root / "config.json").write_text(
                '{"v1tlearn": {"attrs": {"depth": {}}}}'
            ),
            "config.json .* tells of depth, whose files are missing",
        ),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_errors_name_the_mouse_and_the_file(mouse, tmp_path, change, message, zipped):
    change(mouse)
    path = mouse
    if zipped:
        path = tmp_path / "m.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(p for p in mouse.rglob("*") if p.is_file()):
                archive.write(file, f"{GRAY}/{file.relative_to(mouse).as_posix()}")
    with pytest.raises(ValueError, match=rf"mouse '1-2-3'.*{message}"):
        read_sensorium(path)


def test_unknown_arrays_that_do_not_fit_are_left_out_with_a_warning(mouse, caplog):
    np.save(mouse / "meta/trials/notes.npy", np.array([{}] * 12), allow_pickle=True)
    save(mouse, "meta/neurons/pairs", np.zeros((5, 5)))
    save(mouse, "meta/statistics/images/all/mean", np.zeros((2, 1, 1)))
    dataset = read_sensorium(mouse)["1-2-3"]
    assert not {"trial_notes", "neuron_pairs", "stimuli_mean"} & set(dataset.variables)
    for name in ("notes.npy", "pairs.npy", "images/all/mean.npy"):
        assert name in caplog.text


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_zip_is_refused(mouse, tmp_path, kept):
    path = pack(mouse, tmp_path / "m.zip")
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"m.zip is not a readable zip .*truncated"):
        read_sensorium(path)


def test_a_damaged_or_replaced_zip_is_noticed_on_reading(mouse, tmp_path):
    path = pack(mouse, tmp_path / "m.zip")
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("data/images/3.npy").header_offset
    dataset, content = read_sensorium(path)["m"], path.read_bytes()
    for start, end in ((offset, offset + 4), (offset + 60, offset + 70)):
        path.write_bytes(content[:start] + b"\xff" * (end - start) + content[end:])
        with pytest.raises(ValueError, match=r"m.zip/data/images/3.npy: damaged"):
            dataset.stimuli[3].load()
        dataset.stimuli[2].load()
    path.write_bytes(content[: offset + 10])
    with pytest.raises(ValueError, match=r"damaged .the zip ends within it"):
        dataset.stimuli[4].load()


@given(data=st.data())
def test_no_damage_to_a_zip_gives_other_data(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "m.zip"
    dataset = recording(position=(("neuron", "axis"), np.arange(9, dtype="f4").reshape(3, 3)))
    (path,) = write_sensorium({"m": dataset}, path.parent, zip=True)
    intact = read_sensorium(path)["m"].to_dataset().load()
    damaged = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(damaged) - 1))
    if data.draw(st.booleans()):
        damaged[start] ^= data.draw(st.integers(1, 255))
    else:
        end = start + data.draw(st.integers(0, 200))
        damaged[start:end] = data.draw(st.binary(max_size=20))
    path.write_bytes(damaged)
    try:
        (found,) = (node.to_dataset().load() for node in read_sensorium(path).children.values())
    except ValueError:
        return
    # A damaged name hides a file that no recording needs to have; the others are as they were.
    for name in set(found.variables) & set(intact.variables):
        xr.testing.assert_equal(found[name].variable, intact[name].variable)
    assert {"stimuli", "responses", "tier"} <= set(found.variables)


def test_other_zip_methods_are_refused(mouse, tmp_path):
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.write(mouse / "data/images/0.npy", "data/images/0.npy")
    with pytest.raises(ValueError, match=r"compressed with method 14.*unpack the zip"):
        read_sensorium(path)


def test_paths_without_a_mouse_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        read_sensorium(tmp_path / "missing")
    with pytest.raises(ValueError, match="holds no mouse"):
        read_sensorium(tmp_path)
    with pytest.raises(ValueError, match="no paths given"):
        read_sensorium([])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(ValueError, match=r"a.zip holds no data/images"):
        read_sensorium(tmp_path)


# -- the way back ------------------------------------------------------------------------------


def recording(**changes):
    rng = np.random.default_rng(1)
    dataset = xr.Dataset(
        {
            "stimuli": (
                ("trial", "channel", "height", "width"),
                rng.integers(0, 256, (4, 1, 3, 5), np.uint8),
            ),
            "responses": (("trial", "neuron"), rng.random((4, 3), np.float32)),
        },
        coords={"tier": ("trial", ["train", "train", "validation", "test"])},
    )
    return dataset.assign(changes)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("color", [False, True])
def test_what_was_read_is_written_and_read_back_identical(tmp_path, zipped, color):
    name = COLOR if color else GRAY
    write_by_hand(tmp_path / "in" / name, image_shape=(1 + color, 3, 4), color=color)
    first = read_sensorium(tmp_path / "in")
    paths = write_sensorium(first, tmp_path / "out", zip=zipped)
    assert [path.suffix == ".zip" for path in paths] == [zipped]
    assert sorted(os.listdir(tmp_path / "out")) == [path.name for path in paths]
    second = read_sensorium(paths)
    xr.testing.assert_identical(first, second)
    assert second.children[next(iter(first.children))].stimuli.dtype == np.uint8
    stem = "colorframeprojector" if color else "frame"
    assert set(_files(paths[0], "meta/trials")) == {
        "tiers.npy",
        "trial_idx.npy",
        *(f"{stem}_{name}.npy" for name in ("image_id", "image_class", "trial_ts")),
    }


@pytest.mark.parametrize("zipped", [False, True])
def test_positions_are_written_as_variable_or_as_coordinate(tmp_path, zipped):
    position = (("neuron", "axis"), np.arange(9, dtype="f4").reshape(3, 3), {"units": "um"})
    for name, dataset in {
        "variable": recording(position=position),
        "coordinate": recording().assign_coords(position=position),
    }.items():
        given = {"m": dataset}
        write_sensorium(given, tmp_path / name, zip=zipped)
        assert given["m"] is dataset
        found = read_sensorium(tmp_path / name)["m"].to_dataset()
        np.testing.assert_array_equal(found["position"], position[1])
        assert found["position"].attrs == {"units": "um"}
        assert "position" in found.coords


def _files(path, folder):
    if path.is_dir():
        return os.listdir(path / folder)
    names = zipfile.ZipFile(path).namelist()
    return [name.split("/")[-1] for name in names if name.startswith(folder + "/")]


def test_what_the_layout_has_no_place_for_comes_back_too(tmp_path):
    dataset = recording(expected_responses=(("trial", "neuron"), np.ones((4, 3), "f4")))
    dataset = dataset.assign_coords(
        trial=[7, 8, 9, 10],
        temperature=("trial", [1.5, 2.5, 3.5, 4.5], {"units": "degC"}),
        trial_temperature=("trial", [1, 2, 3, 4]),
        trial_tiers=("trial", [0, 1, 2, 3]),
        unit_ids=("trial", [1, 1, 1, 1]),
        neuron=["a", "b", "c"],
        depth=("neuron", [1, 2, 3]),
    )
    dataset.attrs = {"description": "µm²", "rate": 8.0, "values": np.array([1, 2])}
    dataset.responses.attrs = {"units": "spikes/s"}
    write_sensorium({"a.b c": dataset}, tmp_path)
    xr.testing.assert_identical(read_sensorium(tmp_path)["a.b c"].to_dataset(), dataset)


@given(
    dtype=st.sampled_from(["u1", "f4"]),
    n_trials=st.integers(1, 12),
    shape=npst.array_shapes(min_dims=3, max_dims=3, max_side=5),
    n_neurons=st.integers(1, 6),
    n_columns=st.sampled_from([0, 2, 3, 5]),
    zipped=st.booleans(),
    data=st.data(),
)
def test_any_recording_is_read_back_identical(
    tmp_path_factory, dtype, n_trials, shape, n_neurons, n_columns, zipped, data
):
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
    pixels = finite if dtype == "f4" else st.integers(0, 255)
    texts = st.text("abcé/0", min_size=1, max_size=9)
    dataset = xr.Dataset(
        {
            "stimuli": (
                ("trial", "channel", "height", "width"),
                data.draw(npst.arrays(dtype, (n_trials, *shape), elements=pixels)),
            ),
            "responses": (
                ("trial", "neuron"),
                data.draw(
                    npst.arrays("f4", (n_trials, n_neurons), elements=finite | st.just(np.nan))
                ),
            ),
        },
        coords={
            "tier": ("trial", np.array(["train"] * n_trials)),
            "image_id": ("trial", data.draw(npst.arrays("U9", n_trials, elements=texts))),
            "trial_id": ("trial", data.draw(npst.arrays("i8", n_trials))),
        },
    )
    if n_columns:
        names = BEHAVIOR_NAMES[3:] if n_columns == 2 else BEHAVIOR_NAMES[:n_columns]
        values = data.draw(npst.arrays("f4", (n_trials, n_columns), elements=finite))
        dataset["behaviors"] = (("trial", "behavior"), values)
        dataset["behavior"] = list(names)
    folder = tmp_path_factory.mktemp("any")
    write_sensorium({"A": dataset}, folder, zip=zipped)
    read = read_sensorium(folder)["A"].to_dataset()
    xr.testing.assert_identical(read, dataset)
    assert {n: v.dtype.kind for n, v in read.variables.items()} == {
        n: v.dtype.kind for n, v in dataset.variables.items()
    }


def test_equal_recordings_give_equal_zips(tmp_path):
    for name in "ab":
        (path,) = write_sensorium({"A": recording()}, tmp_path / name, zip=True)
    assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()


def test_nothing_is_overwritten_and_nothing_half_written_stays(tmp_path):
    write_sensorium({"A": recording()}, tmp_path)
    with pytest.raises(FileExistsError, match=r"mouse 'A'.*exists already"):
        write_sensorium({"B": recording(), "A": recording()}, tmp_path)
    assert os.listdir(tmp_path) == ["staticA-GrayImageNet"]
    broken = recording()
    broken.attrs["function"] = len
    for zipped in (False, True):
        with pytest.raises(ValueError, match=r"mouse 'B', attributes of the recording: .*JSON"):
            write_sensorium({"B": broken}, tmp_path, zip=zipped)
        assert os.listdir(tmp_path) == ["staticA-GrayImageNet"]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (recording().drop_vars("tier"), "tier is missing"),
        (recording().drop_vars("responses"), "responses is missing"),
        (recording(spectrum=(("trial", "f"), np.ones((4, 2)))), "spectrum: .* no place for it"),
        (recording(mood=("trial", np.ones(4))), "mood: only coordinates can be labels"),
        (
            recording(behaviors=(("trial", "behavior"), np.ones((4, 2)))).assign_coords(
                behavior=["running_speed", "pupil_dilation"]
            ),
            "behavior: columns are running_speed, pupil_dilation; the Sensorium layout holds",
        ),
        (
            recording().assign_coords(notes=("trial", np.array([1, "a", None, 2], object))),
            "notes: holds Python objects",
        ),
    ],
)
def test_a_recording_that_the_layout_cannot_hold_is_refused(tmp_path, dataset, message):
    with pytest.raises(ValueError, match=f"mouse 'A'.*{message}"):
        write_sensorium({"A": dataset}, tmp_path)


def test_written_files_have_the_published_layout(tmp_path):
    write_by_hand(tmp_path / GRAY)
    (root,) = write_sensorium(read_sensorium(tmp_path / GRAY), tmp_path / "out")
    assert root.name == "static1-2-3-GrayImageNet"
    assert json.loads((root / "config.json").read_text())["links"] == {}
    original = {p.relative_to(tmp_path / GRAY) for p in (tmp_path / GRAY).rglob("*.npy")}
    assert {p.relative_to(root) for p in root.rglob("*.npy")} == original
    for name in sorted(original):
        theirs, ours = np.load(tmp_path / GRAY / name), np.load(root / name)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-6) if ours.dtype.kind == "f" else (
            np.testing.assert_array_equal(ours, theirs)
        )

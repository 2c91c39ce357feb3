import logging
import pickle
import shutil

import numpy as np
import pytest
import xarray as xr

from tests.datasets.sensorium_files import (
    COLOR,
    GRAY,
    N_NEURONS,
    N_TRIALS,
    STATISTICS,
    pack,
    save,
    write_by_hand,
)
from v1tlearn.datasets.schema import BEHAVIOR_NAMES
from v1tlearn.datasets.sensorium import read_sensorium, trial_files, write_sensorium


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
        "category": f"{prefix}_image_class",
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


@pytest.mark.slow
def test_a_few_neurons_of_many_trials_are_read_in_blocks_and_threads(mouse, tmp_path):
    written = np.arange(N_TRIALS * 3 * 2**18, dtype="f4").reshape(N_TRIALS, 1, 3 * 2**9, 2**9)
    assert written.nbytes / N_TRIALS < trial_files.BLOCK_BYTES < written.nbytes
    for trial, image in enumerate(written):
        save(mouse, f"data/images/{trial}", image)
    stimuli = read_sensorium(pack(mouse, tmp_path / "m.zip"))["m"].stimuli
    np.testing.assert_array_equal(stimuli, written)
    np.testing.assert_array_equal(stimuli[..., 2], written[..., 2])
    np.testing.assert_array_equal(stimuli[::2, 0, [3, 0]], written[::2, 0][:, [3, 0]])


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

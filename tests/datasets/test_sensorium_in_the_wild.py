"""Folders and zips as other programs, operating systems and later releases leave them."""

import os
import shutil
import socket
import warnings
import zipfile

import numpy as np
import pytest
import xarray as xr

from tests.datasets.sensorium_files import GRAY, N_TRIALS, pack, recording, save, write_by_hand
from v1tlearn.datasets.sensorium import read_sensorium, write_sensorium


@pytest.fixture
def intact(mouse):
    return read_sensorium(mouse)["1-2-3"].to_dataset().load()


def zip_as(root, target, rename=lambda name: name, top=""):
    """Zip a mouse, each member under another name."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(root.rglob("*.npy")):
            archive.write(path, rename(f"{top}{path.relative_to(root).as_posix()}"))
        if "\\" in rename("/"):  # which zipfile itself would turn round elsewhere than on Linux
            assert "\\" in archive.namelist()[0]
    return target


def same(found, intact):
    (node,) = found.children.values()
    xr.testing.assert_identical(node.to_dataset().load(), intact)


# ------------------------------------------------------------------------------------ places, names


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_a_mouse_in_folders_in_folders_is_found(mouse, intact, tmp_path, levels):
    """As "Extract all" leaves it: static.../static.../data."""
    outer = tmp_path / "extracted"
    inner = outer.joinpath(*[GRAY] * levels)
    inner.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(mouse, inner)
    found = read_sensorium(outer)
    assert list(found.children) == ["1-2-3"]
    same(found, intact)


def test_the_folder_around_names_a_mouse_whose_own_does_not(mouse, tmp_path):
    outer = tmp_path / "in" / GRAY
    outer.mkdir(parents=True)
    shutil.move(mouse, outer / "content")
    assert list(read_sensorium(tmp_path / "in").children) == ["1-2-3"]
    assert list(read_sensorium(outer).children) == ["1-2-3"]


@pytest.mark.parametrize(
    "name",
    [f"{GRAY} (1)", GRAY.upper(), "static1-2-3-GrayImageNet", f"{GRAY}(2)", f"{GRAY} - Copy"],
)
def test_copies_keep_their_data_key(mouse, name):
    mouse.rename(mouse.with_name(name))
    assert list(read_sensorium(mouse.with_name(name)).children) == ["1-2-3"]


@pytest.mark.parametrize("top", ["", f"{GRAY}/", "./", f"./{GRAY}/", f"a/b/{GRAY}/"])
@pytest.mark.parametrize("slash", ["/", "\\"])
@pytest.mark.parametrize("upper", [False, True])
def test_zips_of_any_program_are_read(mouse, tmp_path, top, slash, upper):
    (mouse / "meta/trials/frame_trial_ts.npy").unlink()
    intact = read_sensorium(mouse)["1-2-3"].to_dataset().load()

    def rename(name):
        return (name.upper() if upper else name).replace("/", slash)

    folder = tmp_path / "zips"
    folder.mkdir()
    zip_as(mouse, folder / f"{GRAY}.ZIP", rename, top)
    for path in (folder, folder / f"{GRAY}.ZIP"):
        same(read_sensorium(path), intact)


def test_folders_in_upper_case_are_read(mouse):
    (mouse / "meta/trials/frame_trial_ts.npy").unlink()  # names beyond the layout stay as they are
    intact = read_sensorium(mouse)["1-2-3"].to_dataset().load()
    for path in sorted(mouse.rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.upper()))
    same(read_sensorium(mouse), intact)


def test_own_labels_keep_their_case(tmp_path):
    dataset = recording().assign_coords(trial_Frame=("trial", [1, 2, 3, 4]))
    for zipped in (False, True):
        (path,) = write_sensorium({"m": dataset}, tmp_path, zip=zipped)
        assert read_sensorium(path)["m"].trial_Frame.values.tolist() == [1, 2, 3, 4]


def test_two_names_that_are_one_are_refused(mouse, tmp_path):
    (mouse / "meta").rename(mouse / "Meta")
    (mouse / "META").mkdir()
    with pytest.raises(ValueError, match="holds META and Meta, which are both meta"):
        read_sensorium(mouse)


@pytest.mark.parametrize(
    "second", ["data/images/3.npy", "data\\images\\3.npy", "data/images/3.NPY"]
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_a_zip_has_twice_are_refused(mouse, tmp_path, second):
    path = pack(mouse, tmp_path / "m.zip", top=GRAY)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{GRAY}/{second}", b"other")
    with pytest.raises(ValueError, match=r"m\.zip: .*images/3\.(npy|NPY) is in it twice, 1 such"):
        read_sensorium(path)


# --------------------------------------------------------------------------------- foreign company


def test_what_operating_systems_leave_is_passed_over(mouse, intact, tmp_path):
    folder = mouse.parent
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/._x", ".git/config"):
        for root in (folder, mouse, mouse / "data", mouse / "data/images", mouse / "meta/trials"):
            path = root / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"\0\5\26\7")
    for part in ("data/images/._0.npy", "data/responses/._3.npy", "meta/trials/._tiers.npy"):
        (mouse / part).write_bytes(b"\0\5\26\7")
    same(read_sensorium(folder), intact)
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in mouse.rglob("*") if p.is_file()):
            name = f"{GRAY}/{file.relative_to(mouse).as_posix()}"
            archive.write(file, name)
            archive.writestr(f"__MACOSX/{name}", b"\0\5\26\7")
    same(read_sensorium(path), intact)


def test_foreign_things_beside_the_mice_are_named_once(mouse, intact):
    folder = mouse.parent
    (folder / "README.md").write_text("hello")
    (folder / "weights").mkdir()
    (folder / "weights" / "a.pt").write_bytes(b"")
    (folder / f"{GRAY[:-3]}.zip.part").write_bytes(b"PK")
    with zipfile.ZipFile(folder / "code.zip", "w") as archive:
        archive.writestr("setup.py", "")
    (mouse / "data/images/0 (1).npy").write_bytes(b"")
    (mouse / "data/notes").mkdir()
    with pytest.warns(UserWarning, match="left out, or read otherwise") as caught:
        same(read_sensorium(folder), intact)
    (one,) = caught
    assert one.filename == __file__
    for name in ("README.md", "weights", "zip.part", "code.zip", "0 (1).npy", "notes"):
        assert name in str(one.message)


def test_a_broken_zip_beside_the_mice_is_no_foreign_thing(mouse):
    path = pack(mouse, mouse.with_name("other.zip"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"other.zip is not a readable zip"):
        read_sensorium(mouse.parent)


def test_folders_linked_in_a_circle_end(mouse, intact):
    os.symlink(mouse.parent, mouse.parent / "again")
    with pytest.warns(UserWarning, match="'again', no mice"):
        same(read_sensorium(mouse.parent), intact)


def test_linked_mice_and_files_are_read(mouse, intact, tmp_path):
    os.symlink(mouse, tmp_path / "linked")
    (mouse / "data/images/3.npy").rename(tmp_path / "elsewhere.npy")
    os.symlink(tmp_path / "elsewhere.npy", mouse / "data/images/3.npy")
    same(read_sensorium(tmp_path / "linked"), intact)


def test_movies_are_said_to_be_movies(mouse):
    (mouse / "data/images").rename(mouse / "data/videos")
    with pytest.raises(ValueError, match=r"holds movies .data/videos., which this reader does not"):
        read_sensorium(mouse)


# ----------------------------------------------------------------------------------------- no files


@pytest.mark.parametrize("name", ["meta/trials/tiers.npy", "data/images/0.npy", "config.json"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.timeout(60)
def test_what_is_no_file_is_never_opened(mouse, monkeypatch, name, kind):
    path = mouse / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        os.symlink("/dev/zero", path)
    else:
        monkeypatch.chdir(path.parent)  # names of sockets are short
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    with pytest.raises(ValueError, match=rf"{path.name}: is a .*{kind}, which is never opened"):
        read_sensorium(mouse)


@pytest.mark.parametrize("name", ["mouse.zip", "mouse"])
@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_a_zip_is_never_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: is a named pipe"):
        read_sensorium(tmp_path / name)


@pytest.mark.parametrize("name", ["meta/trials/tiers.npy", "data/images/0.npy", "config.json"])
def test_what_the_system_refuses_is_told_as_that(mouse, name):
    path = mouse / name
    path.unlink(missing_ok=True)
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=name):
        read_sensorium(mouse)
    path.rmdir()
    os.symlink(path.name, path)  # a link to itself
    with pytest.raises(OSError, match=name) as caught:
        read_sensorium(mouse)
    assert caught.value.errno == 40
    path.unlink()
    os.symlink("/proc/self/mem", path)  # opens, and fails when it is read
    with pytest.raises(OSError, match="Input/output error") as caught:
        read_sensorium(mouse)
    assert caught.value.filename == str(path)


# -------------------------------------------------------------------------------- labels and shapes


def label(mouse, tiers):
    save(mouse, "meta/trials/tiers", np.resize(np.array(tiers), N_TRIALS))


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("oracle", "validation"),
        ("live_test_main", "test"),
        ("live_test_bonus", "test"),
        ("live_main", "test"),
        ("final_test_1", "final_test"),
        ("final_test_2", "final_test"),
        ("final_test_main", "final_test"),
        ("final_bonus", "final_test"),
        ("Train", "train"),
        ("TEST ", "test"),
    ],
)
def test_tiers_of_other_releases_are_read_as_those_of_this_one(mouse, stored, read):
    label(mouse, ["train", "train", stored])
    with pytest.warns(UserWarning, match=f"the 4 trials of tier '{stored}', read as '{read}'"):
        found = read_sensorium(mouse)["1-2-3"]
    assert found.tier.values.tolist() == ["train", "train", read] * 4
    assert found.trial_tier.values.tolist() == ["train", "train", stored] * 4


def test_trials_of_no_tier_are_left_out_and_told(mouse, intact, tmp_path):
    label(mouse, ["train", "none", "test", ""])
    with pytest.warns(UserWarning, match="3 trials of tier ''.*3 trials of tier 'none'"):
        found = read_sensorium(mouse)["1-2-3"]
    kept = [0, 2, 4, 6, 8, 10]
    assert found.tier.values.tolist() == ["train", "test"] * 3
    for name in ("stimuli", "responses", "behaviors", "image_id"):
        np.testing.assert_array_equal(found[name], intact[name][kept])
    np.testing.assert_array_equal(found.stimuli[1:4, :, 2], intact.stimuli[kept[1:4], :, 2])
    with pytest.warns(UserWarning, match="trials of tier"):
        cached = read_sensorium(mouse, cache=tmp_path / "cache")["1-2-3"]
    xr.testing.assert_identical(cached.to_dataset().load(), found.to_dataset().load())


def test_one_of_two_test_tiers_may_be_withheld(mouse):
    tiers = ["train", "live_test_main", "live_test_bonus"]
    label(mouse, tiers)
    for trial in range(1, N_TRIALS, 3):
        save(mouse, f"data/responses/{trial}", np.zeros(5))
    with pytest.warns(UserWarning, match="live_test"):
        responses = read_sensorium(mouse)["1-2-3"].responses
    missing = np.isnan(responses).all("neuron").values
    assert missing.tolist() == [False, True, False] * 4
    assert np.isfinite(responses[~missing]).all()


def test_labels_that_are_bytes_are_text(mouse, intact):
    for name in ("trials/tiers", "trials/frame_image_class", "neurons/area", "neurons/layer"):
        values = np.load(mouse / f"meta/{name}.npy")
        save(mouse, f"meta/{name}", np.char.encode(values))
    same(read_sensorium(mouse), intact)
    save(mouse, "meta/neurons/area", np.array([b"\xff"] * 5))
    with pytest.raises(ValueError, match=r"area.npy.*bytes that are no UTF-8"):
        read_sensorium(mouse)


def test_tiers_that_are_numbers_are_refused(mouse):
    label(mouse, [0, 1, 2])
    with pytest.raises(ValueError, match="'1-2-3', tier: labels are int64, expected text"):
        read_sensorium(mouse)


@pytest.mark.parametrize("shape", [(6, 8, 1), (36, 64, 2), (144, 256, 3)])
def test_channels_that_come_last_are_named(tmp_path, shape):
    write_by_hand(tmp_path / GRAY, image_shape=shape)
    with pytest.raises(ValueError, match=r"'1-2-3'.*images/0.npy.*channels come last"):
        read_sensorium(tmp_path / GRAY)


def test_images_without_a_channel_are_named(tmp_path):
    write_by_hand(tmp_path / GRAY, image_shape=(6, 8))
    with pytest.raises(ValueError, match=r"there is no channel; save image\[None\]"):
        read_sensorium(tmp_path / GRAY)


def test_height_and_width_that_may_be_exchanged_are_told(tmp_path):
    write_by_hand(tmp_path / GRAY, image_shape=(1, 64, 36))
    with pytest.warns(UserWarning, match="images 64 high and 36 wide.*exchanged"):
        found = read_sensorium(tmp_path / GRAY)
    assert found["1-2-3"].stimuli.shape[1:] == (1, 64, 36)


def test_own_recordings_may_have_any_shape(tmp_path):
    dims = ("trial", "channel", "height", "width")
    for mouse, shape in (("a", (4, 10, 6, 2)), ("b", (4, 1, 64, 36))):
        (path,) = write_sensorium({mouse: recording(stimuli=(dims, np.zeros(shape)))}, tmp_path)
        with warnings.catch_warnings(action="error"):
            assert read_sensorium(path)[mouse].stimuli.shape == shape


def test_several_missing_trials_are_named_and_counted(mouse):
    for trial in (2, 5, 6, 8):
        (mouse / f"data/images/{trial}.npy").unlink()
    with pytest.raises(ValueError, match=r"2.npy, 5.npy, 6.npy is missing, 4 in all"):
        read_sensorium(mouse)

import shutil
import zipfile

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tests.datasets.sensorium_files import GRAY, pack, recording, save
from tests.sweeps import quick
from v1tlearn.datasets.sensorium import read_sensorium, write_sensorium


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
@pytest.mark.parametrize("zipped", quick([False, True], 1))
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

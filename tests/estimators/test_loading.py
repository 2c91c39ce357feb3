"""Opening a saved estimator without being told what it is, and what else a path may be."""

import json
import os
import zipfile
import zlib
from dataclasses import dataclass

import joblib
import pytest
import torch
from safetensors.torch import save_file

import v1tlearn as v1
from tests.descriptions import sealed
from tests.sweeps import quick


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "kind",
    quick(
        [v1.CNNRegressor, v1.FullModelRegressor, v1.LNRegressor, v1.ViTRegressor, v1.V1TRegressor],
        0,
        4,
    ),
)
def test_single_models(kind, small, trials, equal, tmp_path):
    est = small(kind, max_epochs=1).fit(trials)
    est.save(tmp_path / "model")
    for path in (tmp_path / "model", str(tmp_path / "model")):
        loaded = v1.load(path)
        assert type(loaded) is kind
        assert loaded.device == "auto"
        assert equal(loaded.predict(trials), est.predict(trials))
    assert v1.load(tmp_path / "model", device="cpu").device == "cpu"


def test_ensembles(small, trials, equal, tmp_path):
    est = v1.EnsembleRegressor(small(max_epochs=1), n_candidates=2, n_members=2, random_state=0)
    est.fit(trials).save(tmp_path / "model")
    loaded = v1.load(tmp_path / "model", device="cpu")
    assert type(loaded) is v1.EnsembleRegressor
    assert [member.device for member in loaded.estimators_] == ["cpu", "cpu"]
    assert equal(loaded.predict(trials), est.predict(trials))


def test_a_class_of_the_user(small, trials, tmp_path):
    @dataclass(eq=False, repr=False, kw_only=True)
    class OwnRegressor(v1.CNNRegressor):
        """Not of the package."""

    params = small(max_epochs=1).get_params()
    OwnRegressor(**params).fit(trials).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"holds a OwnRegressor.*load it with OwnRegressor\.load"):
        v1.load(tmp_path / "model")
    assert isinstance(OwnRegressor.load(tmp_path / "model"), OwnRegressor)


@pytest.mark.parametrize("name", ["os.system", "HyperbandSearch", "Trials", ""])
def test_names_in_the_file_import_nothing(name, saved):
    content = json.loads((saved / "model.json").read_text())
    (saved / "model.json").write_text(json.dumps({**content, "class": name}))
    with pytest.raises(ValueError, match=r"which is no class of v1tlearn.*after importing"):
        v1.load(saved)


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"format": 1}', '{"class": ["CNNRegressor"]}'])
def test_damaged_files(text, saved):
    (saved / "model.json").write_text(text)
    with pytest.raises(ValueError, match="is damaged or incomplete") as caught:
        v1.load(saved)
    assert str(saved) in str(caught.value)


def test_damaged_weights_and_later_formats_are_refused_as_by_the_class(saved):
    content = json.loads((saved / "model.json").read_text())
    (saved / "model.json").write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(ValueError, match="format 99, this version reads 2"):
        v1.load(saved)
    (saved / "model.json").write_text(json.dumps(content))
    for file in saved.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ValueError, match="damaged or incomplete"):
        v1.load(saved)


def make(kind, path, recordings):
    """Put something else where a model is looked for."""
    if kind == "netcdf":
        v1.save_recordings(recordings, path)
    elif kind == "pickle":
        joblib.dump([1], path)
    elif kind == "weights":
        torch.save({"a": torch.zeros(1)}, path)
    elif kind == "run":
        path.mkdir()
        (path / "args.yaml").write_text("a: 1")
    elif kind == "sensorium":
        v1.write_sensorium(recordings, path)
        path = next(path.glob("*"))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("data/images/0.npy", b"")
    elif kind == "text":
        path.write_text("hello")
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "name", "advice"),
    [
        ("netcdf", "recordings.nc", r"Trials\.open"),
        ("netcdf", "without_ending", r"Trials\.open"),
        ("pickle", "model.joblib", r"joblib\.load"),
        ("weights", "model.pth", r"v1tlearn\.load_sensorium"),
        ("run", "run", r"v1tlearn\.load_v1t"),
        ("sensorium", "mice", r"v1tlearn\.read_sensorium"),
        ("zip", "mouse.zip", r"v1tlearn\.read_sensorium"),
        ("text", "notes.txt", "a file of another kind. Expected the directory that save wrote"),
        ("folder", "empty", "a folder of other things"),
        ("nothing", "missing", "there is no such file or directory"),
    ],
)
def test_what_else_a_path_may_be(kind, name, advice, recordings, tmp_path):
    path = make(kind, tmp_path / name, recordings)
    error = ValueError if path.is_dir() else NotADirectoryError
    error = error if path.exists() else FileNotFoundError
    with pytest.raises(error, match=f"holds no saved model: .*{advice}"):
        v1.load(path)


def test_a_file_of_a_model_or_the_folder_above(saved):
    with pytest.raises(
        NotADirectoryError, match=r"it is a file of a saved model: v1tlearn\.load\("
    ):
        v1.load(saved / "model.json")
    with pytest.raises(ValueError, match=r"a folder of the saved models \['model'\]: v1tl"):
        v1.load(saved.parent)


# ------------------------------------------------------------------------ sizes that are not there


def changed(saved, change):
    """Change the JSON of a saved model."""
    content = json.loads((saved / "model.json").read_text())
    change(content)
    (saved / "model.json").write_text(sealed(json.dumps(content)))


def pairs(content, *names):
    """Walk down pairs of names and values, as they are in the file."""
    for name in names:
        content = next(value for key, value in content["$dict"] if key == name)
    return content


def parameters_of(content):
    return pairs(content["content"], "fitted", "parameters")["$dict"]


@pytest.mark.parametrize(("name", "value"), [("hidden_channels", 20_000), ("n_layers", 10**9)])
@pytest.mark.timeout(120)
def test_parameters_that_ask_for_a_larger_model_are_not_believed(saved, name, value):
    def change(content):
        for pair in parameters_of(content):
            pair[1] = value if pair[0] == name else pair[1]

    changed(saved, change)
    with pytest.raises(ValueError, match=r"damaged or incomplete.*ask for a model of over \d+"):
        v1.load(saved, device="cpu")


def test_neurons_that_ask_for_a_larger_model_are_not_believed(saved):
    def change(content):
        for _, mouse in pairs(content["content"], "fitted", "mice")["$dict"]:
            for pair in mouse["$dict"]:
                pair[1] = 10**9 if pair[0] == "n_neurons" else pair[1]

    changed(saved, change)
    with pytest.raises(ValueError, match=r"damaged or incomplete.* 1000000000 neurons, but resp"):
        v1.load(saved, device="cpu")


@pytest.mark.parametrize("kind", ["$tensor", "$array"])
def test_references_without_end_to_one_tensor_are_not_believed(saved, kind):
    (file,) = saved.glob("*.safetensors")
    save_file({"big": torch.zeros(2**20)}, file)
    crc = zlib.crc32(file.read_bytes())
    changed(saved, lambda c: c.update(content=[{kind: "big"}] * 1000, checksum=crc))
    with pytest.raises(ValueError, match=r"damaged or incomplete.*far more memory than its files"):
        v1.load(saved, device="cpu")


def test_texts_that_are_as_long_as_the_longest_are_not_believed(saved):
    labels = {"$strings": ["x" * 100_000] + [""] * 10_000, "object": False}
    changed(saved, lambda content: content.update(content=labels))
    with pytest.raises(ValueError, match=r"damaged or incomplete.*far more memory than its files"):
        v1.load(saved, device="cpu")


def test_a_model_of_many_equal_tensors_is_saved_whole(small, trials, equal, tmp_path):
    """Each is stored as often as its use is believed when it is read."""
    est = small(max_epochs=1).fit(trials)
    est.state_["more"] = [torch.full((2**18,), 3.0) for _ in range(100)]
    est.save(tmp_path / "model")
    loaded = v1.load(tmp_path / "model", device="cpu")
    assert equal(loaded.predict(trials), est.predict(trials))
    assert all(torch.equal(a, est.state_["more"][0]) for a in loaded.state_["more"])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '"\\ud800"', "NaN"])
def test_json_that_no_parser_can_read_is_named_and_kept(saved, fitted, text):
    (saved / "model.json").write_text(text)
    with pytest.raises(ValueError, match="is damaged or incomplete") as caught:
        v1.load(saved)
    assert str(saved) in str(caught.value)
    with pytest.raises(FileExistsError, match="is no saved model: choose another path"):
        fitted.save(saved)
    assert (saved / "model.json").read_text() == text


@pytest.mark.timeout(60)
def test_what_the_system_refuses_is_no_damage(saved, fitted):
    (weights,) = saved.glob("*.safetensors")
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(ValueError, match=f"{weights.name}: is a named pipe"):
        v1.load(saved)
    weights.unlink()
    weights.mkdir()
    with pytest.raises(IsADirectoryError, match=weights.name):
        v1.load(saved)
    (saved / "model.json").unlink()
    os.symlink("/proc/self/mem", saved / "model.json")
    for door in (v1.load, fitted.save):
        with pytest.raises(OSError, match="Input/output error") as caught:
            door(saved)
        assert caught.value.filename == str(saved / "model.json")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_ends_is_no_damage(saved, monkeypatch, error):
    def fail(data):
        raise error

    monkeypatch.setattr(json, "loads", fail)
    with pytest.raises(type(error)) as caught:
        v1.load(saved)
    assert caught.value is error


def test_a_device_that_is_not_there_is_no_damage(saved):
    with pytest.raises(ValueError, match="device") as caught:
        v1.load(saved, device="warp")
    assert "damaged" not in str(caught.value)


def test_weights_that_changed_are_found(saved, fitted):
    """One bit in the middle of them makes other weights, all of them finite."""
    (weights,) = saved.glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    said = rf"damaged or incomplete .*{weights.name} differs from its checksum.*; save it anew"
    with pytest.raises(ValueError, match=said) as caught:
        v1.load(saved)
    assert str(saved) in str(caught.value)
    fitted.save(saved)
    v1.load(saved)


def test_models_without_a_checksum_are_read(saved):
    changed(saved, lambda content: content.pop("checksum"))
    v1.load(saved)


def test_who_cannot_save_over_a_damaged_model_is_told_to_remove_it(saved, fitted):
    (saved / "model.json").write_text("{")
    with pytest.raises(ValueError, match="remove the folder and save it anew"):
        v1.load(saved)
    with pytest.raises(FileExistsError):
        fitted.save(saved)

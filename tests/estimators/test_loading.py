"""Opening a saved estimator without being told what it is, and what else a path may be."""

import json
import zipfile
from dataclasses import dataclass

import joblib
import pytest
import torch

import v1tlearn as v1


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "kind", [v1.CNNRegressor, v1.LNRegressor, v1.ViTRegressor, v1.V1TRegressor]
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
    with pytest.raises(ValueError, match=f"holds no saved model: .*{advice}"):
        v1.load(path)


def test_a_file_of_a_model_or_the_folder_above(saved):
    with pytest.raises(ValueError, match=r"it is a file of a saved model: v1tlearn\.load\("):
        v1.load(saved / "model.json")
    with pytest.raises(ValueError, match=r"a folder of the saved models \['model'\]: v1tl"):
        v1.load(saved.parent)

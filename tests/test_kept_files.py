"""Files that earlier releases wrote: they open, and models give what they gave then.

Each format is kept as zips that versions wrote that had it; see `tests.kept_files`.
"""

import json
import re
import shutil
import zipfile

import numpy as np
import pytest

import v1tlearn as v1
from tests.kept_files import CNN, FOLDER, interrupted, outputs, unfitted
from tests.search.pretended import search_pretended
from v1tlearn.tracking import CSVLog, RunFolder

ZIPS = {path.stem: zipfile.ZipFile(path).namelist() for path in sorted(FOLDER.glob("*.zip"))}
MODELS = [  # in which zip, under which name: the class, and what tells it from others of it
    (name, part.partition("/")[0])
    for name, parts in ZIPS.items()
    for part in parts
    if part.endswith("/model.json") and part.count("/") == 1
]
MOVIES = {type(model).__name__ for model in unfitted()["movies"]} | {"V1TRegressor-movies"}
UNTRAINED = {"RidgeDecoder", "EnsembleRegressor", "EnsembleRegressor-learned"}  # have no module_


def holding(part):
    """The zips that hold a file or a folder."""
    return [name for name, parts in ZIPS.items() if any(p.startswith(part) for p in parts)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    made = {}

    def unpack(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
                archive.extractall(made[name])
        return made[name]

    return unpack


def test_the_format_of_today_is_kept():
    for name, kind in MODELS:
        document = json.loads(zipfile.ZipFile(FOLDER / f"{name}.zip").read(f"{kind}/model.json"))
        assert name.startswith(f"format_{document['format']}")
    assert all(path.stat().st_size < 200 * 2**10 for path in FOLDER.iterdir())


def test_every_class_that_can_be_saved_is_kept():
    public = {name: getattr(v1, name) for name in v1.__all__ if isinstance(getattr(v1, name), type)}
    saved = {name for name, kind in public.items() if hasattr(kind, "save")}
    assert saved == {kind.partition("-")[0] for _, kind in MODELS}


@pytest.mark.parametrize(("name", "kind"), MODELS)
def test_a_model_of_then_gives_what_it_gave(name, kind, kept):
    folder = kept(name)
    model = v1.load(folder / kind, device="cpu")
    assert type(model).__name__ == kind.partition("-")[0]
    data = "movies" if kind in MOVIES else "images"
    found = outputs(model, v1.Trials.open(folder / f"{data}.nc").sel(tier="test"))
    with np.load(folder / f"{kind}.npz") as then:
        assert set(then.files) == set(found)
        for key, values in found.items():
            np.testing.assert_allclose(values, then[key], rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize(("name", "kind"), [m for m in MODELS if m[1] not in UNTRAINED])
def test_a_model_of_then_is_saved_as_one_of_today(name, kind, kept, tmp_path):
    model = v1.load(kept(name) / kind, device="cpu")
    model.save(tmp_path / "again")
    again = v1.load(tmp_path / "again", device="cpu")
    for key, value in model.module_.state_dict().items():
        assert value.equal(again.module_.state_dict()[key])


@pytest.mark.parametrize("name", ZIPS)
def test_recordings_of_then_are_whole(name, kept):
    for data in unfitted():
        with v1.open_recordings(kept(name) / f"{data}.nc") as tree:
            v1.validate_recordings(tree)
            for node in tree.children.values():  # movies end before the longest one
                assert np.isfinite(node["responses"].values).mean() > 0.8


@pytest.mark.parametrize("name", holding("predicted.nc"))
def test_responses_of_then_open(name, kept):
    found = v1.Responses.open(kept(name) / "predicted.nc")
    with np.load(kept(name) / "CNNRegressor.npz") as then:
        for mouse in found.mice:
            np.testing.assert_allclose(np.ravel(found.get(mouse)), then[mouse], rtol=1e-5)


@pytest.mark.parametrize("name", holding("checkpoints/"))
def test_a_fit_of_then_goes_on(name, kept):
    """Its training trials are those of the recordings that lie beside it."""
    folder = kept(name)
    train = v1.Trials.open(folder / "images.nc").sel(tier="train")
    longer = v1.LNRegressor(**CNN | {"max_epochs": 2})
    longer.fit(train, checkpoint_dir=folder / "checkpoints")
    assert [record["epoch"] for record in longer.history_] == [1, 2]
    then, now = v1.load(folder / "LNRegressor", device="cpu").history_[0], longer.history_[0]
    assert now | {"seconds": 0} == then | {"seconds": 0}


@pytest.mark.filterwarnings("ignore:mouse 'B'. the responses of 1 of 3 neurons do not vary")
@pytest.mark.parametrize("data", unfitted())
@pytest.mark.parametrize("name", holding("checkpoints-"))
def test_fits_of_then_of_every_kind_go_on(name, data, kept, tmp_path, caplog):
    train = v1.Trials.open(kept(name) / f"{data}.nc").sel(tier="train")
    models = [model for where, model in interrupted() if where == data]
    assert models
    for model in models:
        folder = kept(name) / f"checkpoints-{type(model).__name__}"
        epochs = 3 if model.max_epochs is None else model.max_epochs + 1
        with caplog.at_level("INFO", logger="v1tlearn"):
            model.set_params(max_epochs=epochs).fit(train, checkpoint_dir=folder)
        assert f"{type(model).__name__}: goes on from {folder}" in caplog.messages
        assert [record["epoch"] for record in model.history_] == list(range(1, epochs + 1))


@pytest.mark.parametrize("name", holding("run/"))
def test_a_run_of_then_goes_on(name, kept):
    folder = kept(name) / "run"
    train = v1.Trials.open(kept(name) / "images.nc").sel(tier="train")
    longer = v1.LNRegressor(**CNN | {"max_epochs": 2})
    with RunFolder(folder, longer, train) as run:
        log = CSVLog(folder / "epochs.csv")
        longer.fit(train, on_epoch=[run, log], checkpoint_dir=run.checkpoints)
    document = json.loads((folder / "run.json").read_text())
    assert [attempt["status"] for attempt in document["attempts"]] == ["finished", "finished"]
    assert len((folder / "epochs.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("name", holding("study.db"))
def test_a_study_of_then_goes_on(name, kept):
    folder = kept(name)
    train = v1.Trials.open(folder / "images.nc").sel(tier="train")
    search = search_pretended(storage=folder / "study.db", n_trials=3).fit(train)
    assert len(search.results_) == 3


def changed(model, target, change):
    """A copy of a kept model whose description another version may have written."""
    shutil.copytree(model, target)
    document = json.loads((target / "model.json").read_text())
    document.pop("described", None)  # a checksum, which earlier ones do not have
    change(document)
    (target / "model.json").write_text(json.dumps(document))
    return target


def without(tree, name):
    """Take an entry out of every dict of a description."""
    for value in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(value, dict | list):
            without(value, name)
    for entries in [tree["$dict"]] if "$dict" in tree else []:
        entries[:] = [entry for entry in entries if entry[0] != name]


@pytest.mark.parametrize("load", [v1.load, v1.LNRegressor.load])
def test_a_model_of_the_first_format_says_what_to_do(kept, tmp_path, load):
    """No release wrote it."""
    told = {"format": 1}
    path = changed(kept("format_2") / "LNRegressor", tmp_path / "a", lambda d: d.update(told))
    with pytest.raises(ValueError, match=r"has format 1, this version reads 2: fit the model anew"):
        load(path)


@pytest.mark.parametrize("load", [v1.load, v1.LNRegressor.load])
@pytest.mark.parametrize("kind", ["LNRegressor", "LaterRegressor"])
def test_a_model_of_a_later_format_names_the_version_that_wrote_it(kept, tmp_path, load, kind):
    told = {"format": 3, "class": kind, "version": "7.1.0"}
    path = changed(kept("format_2") / "LNRegressor", tmp_path / "a", lambda d: d.update(told))
    text = r"a has format 3, this version reads 2: update v1tlearn. v1tlearn 7.1.0 wrote it."
    with pytest.raises(ValueError, match=text):
        load(path)


def test_what_is_saved_tells_which_version_wrote_it(kept, tmp_path):
    v1.load(kept("format_2") / "RidgeDecoder").save(tmp_path / "a")
    document = json.loads((tmp_path / "a" / "model.json").read_text())
    assert document["version"] == v1.__version__


@pytest.mark.parametrize("kind", ["CNNRegressor", "EnsembleRegressor", "RidgeDecoder"])
def test_a_parameter_that_is_not_known_here_is_of_a_later_version(kept, tmp_path, kind):
    def change(document):
        content = dict(document["content"]["$dict"])
        content["parameters"]["$dict"].append(["whitening", True])

    path = changed(kept("format_2") / kind, tmp_path / "a", change)
    with pytest.raises(ValueError, match=rf"a: the {kind} .* 'whitening', .*: update v1tlearn"):
        v1.load(path)


@pytest.mark.parametrize("kind", ["CNNRegressor", "EnsembleRegressor"])
def test_a_parameter_that_came_later_is_what_it_has_always_been(kept, tmp_path, kind):
    path = changed(
        kept("format_2") / kind, tmp_path / "a", lambda d: without(d["content"], "penalty_scale")
    )
    parameters = v1.load(path, device="cpu").get_params()
    found = {value for name, value in parameters.items() if name.endswith("penalty_scale")}
    assert found == {"absolute"}


def test_recordings_of_a_later_format_say_what_to_do(kept, tmp_path):
    path = tmp_path / "later.nc"
    content = (kept("format_2") / "images.nc").read_bytes()
    assert content.endswith(b"V1TLRN1\n")
    path.write_bytes(content[:-2] + b"2\n")
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(path))} has format .*: update v1tlearn"
    ):
        v1.open_recordings(path)

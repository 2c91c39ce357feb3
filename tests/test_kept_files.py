"""Files that earlier releases wrote: they open, and models give what they gave then.

Each format is kept as a zip that the release wrote that had it; see `tests.kept_files`.
"""

import json
import re
import zipfile

import numpy as np
import pytest

import v1tlearn as v1
from tests.kept_files import CNN, FOLDER, outputs, unfitted
from tests.search.pretended import search_pretended

FORMATS = sorted(path.stem for path in FOLDER.glob("*.zip"))
KINDS = [(type(m).__name__, data) for data, models in unfitted().items() for m in models]


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
    document = json.loads(zipfile.ZipFile(FOLDER / "format_2.zip").read("CNNRegressor/model.json"))
    assert f"format_{document['format']}" == FORMATS[-1]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 200 * 2**10


@pytest.mark.parametrize(("kind", "data"), KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_model_of_then_gives_what_it_gave(name, kind, data, kept):
    folder = kept(name)
    model = v1.load(folder / kind, device="cpu")
    assert type(model) is getattr(v1, kind)
    found = outputs(model, v1.Trials.open(folder / f"{data}.nc").sel(tier="test"))
    with np.load(folder / f"{kind}.npz") as then:
        assert set(then.files) == set(found)
        for key, values in found.items():
            np.testing.assert_allclose(values, then[key], rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_of_then_is_saved_as_one_of_today(name, kept, tmp_path):
    model = v1.load(kept(name) / "CNNRegressor", device="cpu")
    model.save(tmp_path / "again")
    again = v1.load(tmp_path / "again", device="cpu")
    for key, value in model.module_.state_dict().items():
        assert value.equal(again.module_.state_dict()[key])


@pytest.mark.parametrize("name", FORMATS)
def test_recordings_of_then_are_whole(name, kept):
    for data in unfitted():
        with v1.open_recordings(kept(name) / f"{data}.nc") as tree:
            v1.validate_recordings(tree)
            for node in tree.children.values():  # movies end before the longest one
                assert np.isfinite(node["responses"].values).mean() > 0.8


@pytest.mark.parametrize("name", FORMATS)
def test_responses_of_then_open(name, kept):
    found = v1.Responses.open(kept(name) / "predicted.nc")
    with np.load(kept(name) / "CNNRegressor.npz") as then:
        for mouse in found.mice:
            np.testing.assert_allclose(np.ravel(found.get(mouse)), then[mouse], rtol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_a_fit_of_then_goes_on(name, kept):
    """Its training trials are those of the recordings that lie beside it."""
    folder = kept(name)
    train = v1.Trials.open(folder / "images.nc").sel(tier="train")
    longer = v1.LNRegressor(**CNN | {"max_epochs": 2})
    longer.fit(train, checkpoint_dir=folder / "checkpoints")
    assert [record["epoch"] for record in longer.history_] == [1, 2]
    then, now = v1.load(folder / "LNRegressor", device="cpu").history_[0], longer.history_[0]
    assert now | {"seconds": 0} == then | {"seconds": 0}


@pytest.mark.parametrize("name", FORMATS)
def test_a_study_of_then_goes_on(name, kept):
    folder = kept(name)
    train = v1.Trials.open(folder / "images.nc").sel(tier="train")
    search = search_pretended(storage=folder / "study.db", n_trials=3).fit(train)
    assert len(search.results_) == 3


def test_a_model_of_the_first_format_says_what_to_do(kept, tmp_path):
    """No release wrote it."""
    source = kept("format_2") / "LNRegressor" / "model.json"
    document = json.loads(source.read_text()) | {"format": 1}
    (tmp_path / "model.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"has format 1, this version reads 2: fit the model anew"):
        v1.load(tmp_path)


def test_recordings_of_a_later_format_say_what_to_do(kept, tmp_path):
    path = tmp_path / "later.nc"
    content = (kept("format_2") / "images.nc").read_bytes()
    assert content.endswith(b"V1TLRN1\n")
    path.write_bytes(content[:-2] + b"2\n")
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(path))} has format .*: update v1tlearn"
    ):
        v1.open_recordings(path)

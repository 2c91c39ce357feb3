"""Wrong calls are answered by what to write; protocols that look for a name still find none."""

import copy
import os
import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.base import clone
from sklearn.utils import _safe_indexing

import v1tlearn as v1
from tests.trials.labelled import N, recording

XARRAY = ["isel", "dims", "sizes", "coords", "where", "groupby", "attrs", "plot", "drop_sel"]
PANDAS = ["iloc", "loc", "head", "columns", "index", "query", "to_numpy"]
LABELS = ["tier", "mouse_id", "image_id", "trial_id", "neuron", "position", "area", "layer"]


@pytest.mark.parametrize("name", [*XARRAY, *PANDAS, *LABELS, "values", "data"])
def test_names_of_xarray_and_pandas_are_answered(trials, name):
    for view, called in ((trials, "trials"), (trials.responses, "responses")):
        with pytest.raises(AttributeError, match=rf"no attribute '{name}': .*{called}") as caught:
            getattr(view, name)
        assert caught.value.name == name
        assert not hasattr(view, name)


@pytest.mark.parametrize(
    ("view", "name", "instead"),
    [
        ("trials", "isel", "trials[indices]"),
        ("trials", "data_vars", "trials.stimuli"),
        ("trials", "to_dataset", 'trials["A"]'),
        ("trials", "groupby", 'trials["A"].groupby'),
        ("trials", "tier", "trials.tiers"),
        ("trials", "B", 'trials["B"]'),
        ("trials", "images", "trials.stimuli"),
        ("trials", "mean", "trials.responses.mean"),
        ("trials", "to_dataframe", "trials.responses.to_dataframe()"),
        ("responses", "std", 'responses["A"].std'),
        ("responses", "stimuli", "trials.stimuli"),
        ("responses", "values", "numpy.asarray(responses)"),
        ("stimuli", "isel", "trials.stimuli[indices]"),
    ],
)
def test_the_answer_names_what_to_write(trials, view, name, instead):
    view = {"trials": trials, "responses": trials.responses, "stimuli": trials.stimuli}[view]
    with pytest.raises(AttributeError) as caught:
        getattr(view, name)
    assert instead in str(caught.value)


def test_what_the_answers_name_is_there(trials, opened):
    """Each name of a view that an answer recommends exists."""
    from v1tlearn.trials import _guesses

    views = {"trials": trials, "responses": trials.responses}
    tables = (_guesses._INSTEAD, _guesses._OF_TRIALS, _guesses._OF_RESPONSES)
    for called, view in views.items():
        for table in tables:
            for text in table.values():
                text = text.format(view=called, one=f'{called}["A"]')
                for word in text.replace("(", " ").replace(",", " ").split():
                    if word.startswith(f"{called}."):
                        target = view
                        for part in word.rstrip(";:.)").split(".")[1:]:
                            target = getattr(target, part)
                    elif word.startswith(f'{called}["A"].'):
                        name = word.rstrip(";:.)").rsplit(".", 1)[1]
                        exists = hasattr(view["A"], name)
                        assert exists or name in {"area", "layer", "data_vars", "variables"}


def test_other_names_fail_as_everywhere(trials):
    for view in (trials, trials.responses, trials.behaviors):
        with pytest.raises(AttributeError, match=r"has no attribute 'no_such_name'$"):
            view.no_such_name  # noqa: B018


def test_protocols_look_in_vain(trials):
    names = ["__array_interface__", "__array_struct__", "__dataframe__", "__cuda_array_interface__"]
    names += ["_ipython_display_", "_repr_mimebundle_", "_ipython_canary_method_should_not_exist_"]
    names += ["__dlpack__", "__arrow_c_stream__", "__sklearn_clone__", "__torch_function__"]
    names += ["iloc", "columns", "values", "dtypes", "toarray", "__narwhals_dataframe__"]
    for view in (trials, trials.responses, trials.stimuli):
        assert not [name for name in names if hasattr(view, name)]
        assert hasattr(view, "shape")
        for again in (copy.copy(view), copy.deepcopy(view), pickle.loads(pickle.dumps(view))):
            assert len(again) == N
            np.testing.assert_array_equal(again.mouse_ids, view.mouse_ids)
        assert len(_safe_indexing(view, np.array([0, 3]))) == 2
        assert len(_safe_indexing(view, np.arange(N) % 2 == 0)) == (N + 1) // 2
        half_made = object.__new__(type(view))
        assert not hasattr(half_made, "_recordings")
    with pytest.raises((TypeError, ValueError)):
        torch.as_tensor(trials.responses)
    with pytest.raises(TypeError):
        clone(trials)
    assert len(list(torch.utils.data.DataLoader(trials, batch_size=None))) == N


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("train", r"trials\.sel\(tier='train'\)"),
        ("tier", r"trials\.tiers"),
        ("responses", r"trials\.responses"),
        ("stimuli", r"trials\.stimuli"),
        ("isel", r"trials\[indices\]"),
        ("mouse-1", "Did you mean 'mouse_1'"),
        ("zebra", r"\['mouse_1'\]\.$"),
    ],
)
def test_what_is_no_mouse(name, hint):
    trials = v1.Trials({"mouse_1": recording("A")})
    with pytest.raises(KeyError, match=rf"unknown mouse '{name}': .*{hint}"):
        trials[name]


def test_what_is_no_recording_is_told_what_it_is(trials, recordings, tmp_path):
    (tmp_path / "mice" / "static1" / "data").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    cases = [
        ("r.nc", r"open it, v1tlearn\.open_recordings\('r\.nc'\)"),
        (tmp_path / "r.nc", r"open it, v1tlearn\.open_recordings\("),
        (tmp_path / "mice", r"open it, v1tlearn\.read_sensorium\("),
        (tmp_path / "model", r"it is a saved model: v1tlearn\.load\("),
        ("static1.zip", r"read_sensorium\('static1\.zip'\)"),
        (trials, "Trials came, which are views of recordings already"),
        (trials.responses, "Responses came, which are views"),
        (list(recordings.values()), 'name the mice, {"A": dataset'),
        ([xr.DataTree.from_dict(recordings)], "v1tlearn.concat"),
        (np.zeros((3, 1, 4, 6)), "a ndarray came. Plain arrays go through Trials.from_arrays"),
        ([np.zeros((3, 1, 4, 6))], "a list came. Plain arrays go through Trials.from_arrays"),
        (None, "a NoneType came"),
    ]
    for came, match in cases:
        with pytest.raises(TypeError, match=f"expected as a DataTree, a dict of Datasets.*{match}"):
            v1.Trials(came)


def test_what_is_no_file_of_recordings_is_told_what_reads_it(trials, tmp_path):
    model, mice, mouse = tmp_path / "model", tmp_path / "mice", tmp_path / "mice" / "static1"
    for folder in (model, mouse / "data", tmp_path / "zips", tmp_path / "empty"):
        folder.mkdir(parents=True)
    (model / "model.json").write_text("{}")
    (tmp_path / "zips" / "static1.zip").write_bytes(b"")
    cases = [
        (model, r"a saved model: v1tlearn\.load\("),
        (mice, r"mice in the Sensorium layout: v1tlearn\.read_sensorium\("),
        (mouse, r"mouse in the Sensorium layout: v1tlearn\.read_sensorium\("),
        (tmp_path / "zips", r"mice in the Sensorium layout: v1tlearn\.read_sensorium\("),
        (tmp_path / "empty", "Expected a netCDF4 file"),
        (tmp_path / "none.nc", "there is no such file"),
    ]
    for opening in (v1.Trials.open, v1.open_recordings):
        for path, match in cases:
            error = IsADirectoryError if path.is_dir() else FileNotFoundError
            with pytest.raises(error, match=match):
                opening(path)
            with pytest.raises(error, match=match):
                opening(os.fspath(path))
    for came in (trials, {"A": recording("A")}, [tmp_path / "r.nc"], None):
        with pytest.raises(TypeError, match=r"a \w+ came where the path of one netCDF4 file"):
            v1.Trials.open(came)


def test_zips_are_told_from_broken_files(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "static1.zip", "w") as file:
        file.writestr("data/images/0.npy", b"")
    with pytest.raises(ValueError, match=r"it is a zip: .*read_sensorium"):
        v1.Trials.open(tmp_path / "static1.zip")
    (tmp_path / "r.nc").write_text("plain text")
    with pytest.raises(ValueError, match="broken, truncated or of another format"):
        v1.Trials.open(tmp_path / "r.nc")

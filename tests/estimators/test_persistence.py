"""How fitted models outlive the process: directories, pickle, and what goes wrong with them."""

import json
import os
import pickle
import pickletools
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.base import clone

import v1tlearn as v1
from tests.descriptions import sealed
from tests.sweeps import quick

MODEL = "model.json"


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


def weights_file(path):
    (file,) = path.glob("*.safetensors")
    return file


@pytest.mark.parametrize(
    "kind",
    quick(
        [v1.CNNRegressor, v1.FullModelRegressor, v1.LNRegressor, v1.ViTRegressor, v1.V1TRegressor],
        0,
        4,
    ),
)
def test_a_saved_model_predicts_the_same(kind, small, trials, equal, tmp_path):
    est = small(kind, behavior_columns=["running_speed"], image_size=(11, 14)).fit(trials)
    est.save(tmp_path / "model")
    loaded = kind.load(tmp_path / "model")
    assert type(loaded) is kind
    assert equal(loaded.predict(trials), est.predict(trials))
    assert loaded.history_ == est.history_
    params = est.get_params()
    assert loaded.get_params() == {**params, "device": "auto"}
    assert loaded.score(trials) == est.score(trials)
    for name in ("mice_", "n_neurons_", "image_shape_", "behavior_names_", "behavior_mode_"):
        assert getattr(loaded, name) == getattr(est, name)


def test_mouse_ids_of_any_text_survive(small, arrays, tmp_path, equal):
    names = {"A": "21067-10-18", "B": "a.b c d"}
    renamed = [{names[m]: v for m, v in arrays[k].items()} for k in ("stimuli", "responses")]
    est = small().fit(renamed[0], None, renamed[1])
    est.save(tmp_path / "model")
    loaded = v1.CNNRegressor.load(tmp_path / "model")
    assert equal(loaded.predict(renamed[0]), est.predict(renamed[0]))


@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_a_pickled_model_predicts_the_same(how, fitted, trials, equal, tmp_path):
    if how == "pickle":
        again = pickle.loads(pickle.dumps(fitted))
    else:
        joblib.dump(fitted, tmp_path / "model.joblib")
        again = joblib.load(tmp_path / "model.joblib")
    assert equal(again.predict(trials), fitted.predict(trials))


def test_unfitted_models_pickle(small):
    est = small()
    assert pickle.loads(pickle.dumps(est)).get_params() == est.get_params()


def test_the_device_is_never_kept(fitted, saved):
    assert "device_" not in fitted.__getstate__()
    assert "device_" not in (saved / MODEL).read_text()
    assert v1.CNNRegressor.load(saved, device="cpu").device == "cpu"


def test_the_training_data_are_not_kept(fitted, trials):
    n_pixels = sum(trials.get("stimuli", m).size for m in trials.mice)
    without = len(pickle.dumps(fitted))
    assert n_pixels < without  # so that the next line says something
    assert trials.get("stimuli", "A").tobytes()[:400] not in pickle.dumps(fitted)


def test_no_pickle_in_the_files(saved):
    assert sorted(f.suffix for f in saved.iterdir()) == [".json", ".safetensors"]
    json.loads((saved / MODEL).read_text())
    load_file(weights_file(saved))
    for file in saved.iterdir():
        with pytest.raises(ValueError), open(file, "rb") as stream:
            list(pickletools.genops(stream))


def test_parameters_set_after_fit_do_not_disturb(small, trials, equal, tmp_path):
    est = small().fit(trials)
    expected = est.predict(trials)
    est.set_params(hidden_channels=32, input_kernel=3, shift="none", crop_scale=0.5)
    est.save(tmp_path / "model")
    assert equal(est.predict(trials), expected)
    assert equal(pickle.loads(pickle.dumps(est)).predict(trials), expected)
    loaded = v1.CNNRegressor.load(tmp_path / "model")
    assert equal(loaded.predict(trials), expected)
    assert loaded.hidden_channels == 32
    assert clone(loaded).fit(trials).module_.core.output_shape[0] == 32


def test_saving_again_replaces(small, trials, saved, equal):
    est = small(random_state=5).fit(trials)
    est.save(saved)
    assert equal(v1.CNNRegressor.load(saved).predict(trials), est.predict(trials))
    assert len(list(saved.iterdir())) == 2


def test_other_files_beside_a_model_stay(fitted, saved):
    (saved / "figure.png").write_bytes(b"figure")
    fitted.save(saved)
    assert (saved / "figure.png").read_bytes() == b"figure"


def test_tensors_of_the_user_stay(fitted, saved, tmp_path):
    beside, alone = saved / "tensors-mine.safetensors", tmp_path / "other/tensors-0123.safetensors"
    alone.parent.mkdir()
    for path in (beside, alone):
        path.write_bytes(b"mine")
    for _ in range(2):
        fitted.save(saved)
    assert len(list(saved.iterdir())) == 3
    with pytest.raises(FileExistsError, match="is no saved model"):
        fitted.save(alone.parent)
    assert [path.read_bytes() for path in (beside, alone)] == [b"mine"] * 2


SAVES = textwrap.dedent(
    """
    import sys
    import v1tlearn as v1

    est, path = v1.CNNRegressor.load(sys.argv[1]), sys.argv[2]
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(15):
        est.save(path)
        assert v1.CNNRegressor.load(path).state_["epoch"] == est.state_["epoch"]
    """
)


@pytest.mark.slow
def test_processes_that_save_and_load_in_one_directory_find_whole_models(
    fitted, saved, trials, equal, tmp_path
):
    path = tmp_path / "shared"
    command = [sys.executable, "-c", SAVES, str(saved), str(path)]
    pipe = subprocess.PIPE
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env)
        for _ in range(4)
    ]
    for process in found:
        assert process.stdout.readline() == "ready\n"
    for process in found:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in found:
        assert (process.communicate(timeout=300)[1], process.returncode) == ("", 0)
    assert equal(v1.CNNRegressor.load(path).predict(trials), fitted.predict(trials))
    assert len(list(path.iterdir())) == 2


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system kills in another way")
def test_a_save_that_is_killed_at_any_moment_leaves_a_whole_model(fitted, saved, trials, equal):
    command = [sys.executable, "-c", SAVES.replace("range(15)", "iter(int, 1)"), saved, saved]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    rng = np.random.default_rng(0)
    for _ in range(4):
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert equal(v1.CNNRegressor.load(saved).predict(trials), fitted.predict(trials))
    fitted.save(saved)
    assert len(list(saved.iterdir())) == 2


def test_an_empty_directory_is_taken(fitted, tmp_path):
    fitted.save(tmp_path)
    assert (tmp_path / MODEL).is_file()


@pytest.mark.parametrize("name", ["notes.txt", MODEL])
def test_what_is_no_model_is_not_overwritten(name, fitted, tmp_path):
    (tmp_path / name).write_text('{"my": "notes"}')
    with pytest.raises(FileExistsError, match="is no saved model: choose another path"):
        fitted.save(tmp_path)
    with pytest.raises(FileExistsError):
        fitted.save(tmp_path / name)
    assert [f.name for f in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == '{"my": "notes"}'


def test_a_generator_is_saved_as_the_seed_drawn_from_it(small, trials, tmp_path, equal):
    est = small(random_state=np.random.RandomState(0), max_epochs=1).fit(trials)
    est.save(tmp_path / "model")
    assert isinstance(est.random_state, np.random.RandomState)
    loaded = type(est).load(tmp_path / "model")
    assert loaded.random_state == est.seed_
    assert equal(loaded.predict(trials), est.predict(trials))


def test_what_json_cannot_hold_is_refused(fitted, tmp_path):
    est = pickle.loads(pickle.dumps(fitted))
    est.lr = object()
    with pytest.raises(TypeError, match="parameters/lr' is a object"):
        est.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    import safetensors.torch

    way = [safetensors.torch.save_file]
    save_file, replace = way[0], os.replace
    safetensors.torch.save_file = lambda *args: way[0](*args)

    import v1tlearn as v1

    def killed(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    def torn(tensors, file):
        save_file(tensors, file)
        with open(file, "r+b") as stream:
            stream.truncate(100)
        killed()

    for number, path in enumerate(sys.argv[1:]):
        est = v1.CNNRegressor.load(path)
        est.state_["epoch"] = 99
        child = os.fork()
        if not child:
            if number == 0:
                way[0] = torn
            else:
                os.replace = killed if number == 1 else lambda *args: (replace(*args), killed())
            est.save(path)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    """
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.slow
def test_a_killed_save_leaves_one_whole_model(fitted, trials, equal, tmp_path):
    epochs = {"in weights": 2, "before rename": 2, "after rename": 99}
    paths = [tmp_path / when for when in epochs]
    for path in paths:
        fitted.save(path)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", KILLED, *map(str, paths)], env=env, check=True)
    for path, epoch in zip(paths, epochs.values(), strict=True):
        assert len(list(path.iterdir())) > 2
        loaded = v1.CNNRegressor.load(path)
        assert equal(loaded.predict(trials), fitted.predict(trials))
        assert loaded.state_["epoch"] == epoch
        fitted.save(path)  # and the next save clears the remains away
        assert len(list(path.iterdir())) == 2


def test_a_first_save_that_was_killed_does_not_bar_the_next(fitted, tmp_path):
    (tmp_path / "tensors-0123.safetensors").write_bytes(b"torn")
    (tmp_path / f".{MODEL}-0123").write_text("{")
    with pytest.raises(ValueError, match="holds no saved model"):
        v1.CNNRegressor.load(tmp_path)
    fitted.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("failing", ["tensors", MODEL])
def test_a_failed_save_leaves_nothing(failing, fitted, tmp_path):
    """Files may grow up to a limit, which the tensors or what is written after them surpass."""
    resource = pytest.importorskip("resource")
    fitted.save(tmp_path / "first")
    sizes = {
        path.name.split("-")[0]: path.stat().st_size for path in (tmp_path / "first").iterdir()
    }
    assert sizes["tensors"] < sizes[MODEL]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[failing] - 1, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            fitted.save(tmp_path / "second")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Path(caught.value.filename).name.startswith(failing)
    assert list((tmp_path / "second").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("nothing", FileNotFoundError),
        ("file", NotADirectoryError),
        ("file/below", FileNotFoundError),
        (".", ValueError),
    ],
)
def test_no_model_to_load(path, kind, tmp_path):
    (tmp_path / "file").write_text("no model")
    for load in (v1.CNNRegressor.load, v1.EnsembleRegressor.load, v1.RidgeDecoder.load, v1.load):
        with pytest.raises(kind, match="holds no saved model: "):
            load(tmp_path / path)


@pytest.mark.parametrize("kind", [v1.LNRegressor, v1.V1TRegressor])
def test_a_model_of_another_class(kind, saved):
    with pytest.raises(ValueError, match=r"holds a CNNRegressor: load it with CNNRegressor\.load"):
        kind.load(saved)


@pytest.mark.parametrize(
    "damage",
    [
        "truncated json",
        "json of another kind",
        "no content",
        "torn weights",
        "no weights",
        "another number",
    ],
)
def test_damaged_files_say_so(damage, saved):
    text = (saved / MODEL).read_text()
    content = json.loads(text)
    weights = weights_file(saved)
    if damage == "truncated json":
        (saved / MODEL).write_text(text[:1000])
    elif damage == "json of another kind":
        (saved / MODEL).write_text("[1, 2]")
    elif damage == "no content":
        content.pop("content")
        (saved / MODEL).write_text(json.dumps(content))
    elif damage == "torn weights":
        weights.write_bytes(weights.read_bytes()[:500])
    elif damage == "no weights":
        weights.unlink()
    else:
        assert "0.002" in text
        (saved / MODEL).write_text(text.replace("0.002", "0.003"))
    with pytest.raises(ValueError, match="damaged or incomplete") as caught:
        v1.CNNRegressor.load(saved)
    assert str(saved) in str(caught.value)


def test_a_later_format(saved):
    content = json.loads((saved / MODEL).read_text())
    (saved / MODEL).write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(ValueError, match=r"format 99, this version reads 2: update v1tlearn"):
        v1.CNNRegressor.load(saved)


def test_a_device_that_is_not_there(saved, trials):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(ValueError, match="not present on this machine: set device='auto'"):
        v1.CNNRegressor.load(saved, device="cuda")


def test_models_saved_before_a_parameter_came_have_its_default(saved, fitted, trials, equal):
    new = ("compile", "micro_batch_size", "low_memory")
    content = json.loads((saved / MODEL).read_text())
    kept = dict(content["content"]["$dict"])
    at_fit = dict(kept["fitted"]["$dict"])["parameters"]
    for items in (kept["parameters"]["$dict"], at_fit["$dict"]):
        items[:] = [item for item in items if item[0] not in new]
    (saved / MODEL).write_text(sealed(json.dumps(content)))
    loaded = v1.CNNRegressor.load(saved, device="cpu")
    assert [getattr(loaded, name) for name in new] == ["auto"] * 3
    assert equal(loaded.predict(trials), fitted.predict(trials))
    loaded.set_params(warm_start=True).fit(trials)
    assert loaded.n_iter_ == fitted.n_iter_ + loaded.max_epochs


def test_many_layers_with_equal_counts_are_saved(small, trials, equal, tmp_path):
    """Counters of batches of all layers are alike, and the best weights may be the last ones."""
    est = small(n_layers=4, max_epochs=1, validation_fraction=0).fit(trials)
    est.save(tmp_path / "model")
    assert equal(v1.load(tmp_path / "model").predict(trials), est.predict(trials))

"""Files from elsewhere: what is read, what is refused, and that nothing in them runs."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from v1tlearn.interop import load_sensorium, load_v1t
from v1tlearn.interop.plain_yaml import read_yaml
from v1tlearn.interop.safe_files import read_checkpoint


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


class Eval:
    def __init__(self, code):
        self.code = code

    def __reduce__(self):
        return eval, (self.code,)


class Imports:
    """Asks for a harmless function that is on no list."""

    def __reduce__(self):
        import shutil

        return shutil.which, ("ls",)


def hostile_objects(sentinel):
    yield Hostile(f"touch {sentinel}")
    yield Eval(f"open({str(sentinel)!r}, 'w').close()")
    yield Imports()


@pytest.fixture
def run(published, tmp_path):
    args = published.arguments()
    return published.write(tmp_path / "run", args, published.arrays(args))


def test_hostile_objects_run_when_unpickled_freely(tmp_path):
    """The attack works where nothing guards against it."""
    sentinel = tmp_path / "ran"
    pickle.loads(pickle.dumps(next(hostile_objects(sentinel))))
    assert sentinel.exists()


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("where", ["top", "scheduler", "model", "scaler state"])
@pytest.mark.parametrize("legacy", [False, True])
def test_hostile_checkpoints_are_refused_and_never_run(run, tmp_path, which, where, legacy):
    sentinel = tmp_path / "ran"
    path = run / "ckpt" / "model_state.pt"
    bad = list(hostile_objects(sentinel))[which]
    with torch.serialization.safe_globals([]):
        content = torch.load(path, weights_only=False)  # our own file, made above
    if where == "top":
        content = bad
    elif where == "scheduler":
        content["scheduler"]["scaler"] = bad
    elif where == "model":
        content["model"]["readouts.A.bias"] = bad
    else:
        content["scheduler"]["scaler"].__dict__["_growth_tracker"] = bad
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match="refused, and nothing in it was run") as error:
        load_v1t(run)
    assert str(path) in str(error.value)
    assert "add_safe_globals" not in str(error.value)  # no advice to open the door
    with pytest.raises(ValueError, match="refused"):
        load_sensorium(path)
    assert not sentinel.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_what_was_refused_is_named(tmp_path, legacy):
    for bad, name in ((Hostile("true"), f"{os.system.__module__}.system"), (Imports(), "which")):
        torch.save({"a": bad}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ValueError, match="refused") as error:
            read_checkpoint(tmp_path / "a.pt")
        what = str(error.value).partition("What came: ")[2].partition(" If you trust")[0]
        assert name in what


def test_plain_pickles_are_refused_and_never_run(run, tmp_path):
    sentinel = tmp_path / "ran"
    path = run / "ckpt" / "model_state.pt"
    path.write_bytes(pickle.dumps(Hostile(f"touch {sentinel}")))
    with pytest.raises(ValueError, match=r"model_state\.pt"):
        load_v1t(run)
    assert not sentinel.exists()


HOSTILE_YAML = [
    "lr: !!python/object/apply:os.system ['touch {sentinel}']",
    "lr: !!python/object/new:os.system ['touch {sentinel}']",
    "lr: !!python/object/apply:builtins.eval [\"open('{sentinel}', 'w').close()\"]",
    "lr: !!python/name:os.system ''",
    "lr: !!python/module:subprocess ''",
    "lr: !!python/object/new:type\n"
    "  args: ['z', !!python/tuple [], {{'extend': !!python/name:exec }}]\n"
    "  listitems: \"open('{sentinel}', 'w').close()\"",
]


@pytest.mark.parametrize("text", HOSTILE_YAML)
def test_hostile_arguments_are_refused_and_never_run(run, tmp_path, text):
    sentinel = tmp_path / "ran"
    path = run / "args.yaml"
    path.write_text(path.read_text() + "\n" + text.format(sentinel=sentinel) + "\n")
    with pytest.raises(ValueError, match=r"args\.yaml: lr is"):
        load_v1t(run)
    assert not sentinel.exists()


@pytest.mark.slow
def test_hostile_files_do_not_run_in_a_process_of_their_own(run, tmp_path):
    """Nor at import, nor when the process ends."""
    sentinel = tmp_path / "ran"
    torch.save({"model": {"a": Hostile(f"touch {sentinel}")}}, run / "ckpt" / "model_state.pt")
    path = run / "args.yaml"
    path.write_text(path.read_text() + HOSTILE_YAML[0].format(sentinel=sentinel).replace("lr", "x"))
    code = (
        "import sys\nfrom v1tlearn.interop import load_v1t\n"
        "try:\n    load_v1t(sys.argv[1])\nexcept ValueError as error:\n"
        "    sys.exit(0 if 'refused' in str(error) else 1)\nsys.exit(2)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], check=False)
    assert done.returncode == 0
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "text", ["[1, 2", "a: b: c", "- 1\n- 2", "", "1: 2", "a: !unknown 5", "? [a]\n: 1", "\tx: 1"]
)
def test_files_that_are_no_arguments_are_refused(tmp_path, text):
    (tmp_path / "args.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"args\.yaml"):
        read_yaml(tmp_path / "args.yaml")


def test_aliases_do_not_blow_up_errors(run):
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        text += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    path = run / "args.yaml"
    path.write_text(path.read_text() + text + "seed: *i\n")
    with pytest.raises(ValueError, match="seed is list") as error:
        load_v1t(run)
    assert len(str(error.value)) < 500


def test_python_tags_become_plain_data(tmp_path):
    path = tmp_path / "args.yaml"
    path.write_text(
        "shape: !!python/tuple [1, 36, 64]\n"
        "device: !!python/object/apply:torch.device [cuda]\n"
        "count: !!python/int '5'\n"
        "name: !!python/str text\n"
        "space: !!python/object:argparse.Namespace {lr: 0.1}\n"
    )
    assert read_yaml(path) == {
        "shape": [1, 36, 64],
        "device": ["cuda"],
        "count": 5,
        "name": "text",
        "space": {"lr": 0.1},
    }


def test_runs_written_with_tuples_and_devices_load(published, run):
    path = run / "args.yaml"
    text = path.read_text().replace(
        "input_shape:\n- 1\n- 20\n- 28", "input_shape: !!python/tuple [1, 20, 28]"
    )
    text = text.replace("device: cuda", "device: !!python/object/apply:torch.device [cuda, 0]")
    text = text.replace("  A:\n  - 5\n", "  A: !!python/tuple [5]\n")
    assert text.count("!!python") == 3
    path.write_text(text)
    assert load_v1t(run).image_shape_ == (1, 20, 28)


def test_scalers_of_both_names_and_scores_are_read(tmp_path):
    path = tmp_path / "state.pt"
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    scores = {"a": np.float64(0.25), "b": np.float32(0.5)}
    torch.save({"scaler": scaler, "scores": scores, "device": torch.device("cpu")}, path)
    found = read_checkpoint(path)
    assert found["scores"] == scores
    assert not isinstance(found["scaler"], torch.amp.GradScaler)  # a stand-in, which keeps nothing
    assert vars(found["scaler"]) == {}
    content = path.read_bytes()
    now, then = b"ctorch.amp.grad_scaler\nGradScaler", b"ctorch.cuda.amp.grad_scaler\nGradScaler"
    assert now in content
    legacy = tmp_path / "legacy.pt"  # a plain stream, in which a name can be exchanged
    torch.save({"scaler": scaler}, legacy, _use_new_zipfile_serialization=False)
    legacy.write_bytes(legacy.read_bytes().replace(now, then))
    assert then in legacy.read_bytes()
    assert vars(read_checkpoint(legacy)["scaler"]) == {}


def test_reading_leaves_the_list_of_torch_as_it_was(run):
    with torch.serialization.safe_globals([torch.amp.GradScaler]):
        before = set(torch.serialization.get_safe_globals())
        load_v1t(run)
        assert set(torch.serialization.get_safe_globals()) == before
        (run / "ckpt" / "model_state.pt").write_bytes(b"")
        with pytest.raises(ValueError, match=r"model_state\.pt"):
            load_v1t(run)
        assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02.", b"text", b"\x00" * 100])
def test_damaged_checkpoints_are_told(run, content):
    (run / "ckpt" / "model_state.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"model_state\.pt"):
        load_v1t(run)


def test_cut_off_checkpoints_are_told(run):
    path = run / "ckpt" / "model_state.pt"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged"):
        load_v1t(run)


@pytest.mark.parametrize("content", [{}, [1], {"model": 5}, {"model": {}}, {"model": {1: 2}}])
def test_checkpoints_of_another_kind_are_told(run, content):
    torch.save(content, run / "ckpt" / "model_state.pt")
    with pytest.raises(ValueError, match=r"model_state\.pt"):
        load_v1t(run)

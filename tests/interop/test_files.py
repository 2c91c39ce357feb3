"""Files from elsewhere: what is read, what is refused, and that nothing in them runs."""

import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
import yaml
from packaging.version import Version

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


# ------------------------------------------------------------------------ sizes that are not there


def refused(run, match):
    with pytest.raises(ValueError, match=match) as caught:
        load_v1t(run)
    assert str(run) in str(caught.value)


def saved_with(run, **changed):
    """Save the checkpoint of a run with other arrays in its model."""
    path = run / "ckpt" / "model_state.pt"
    content = read_checkpoint(path)
    content["model"] = {name: value.clone() for name, value in content["model"].items()}
    content = {"model": content["model"] | changed}
    torch.save(content, path)


def test_arrays_whose_strides_are_zero_are_not_believed(run):
    saved_with(run, **{"readouts.A.features": torch.zeros(1).expand(1, 8, 1, 10**9)})
    refused(run, r"its arrays would take 320\d+ bytes, but \d+ are there; .*readouts.A.features")


def test_arrays_that_overlap_are_not_believed(run):
    values = torch.zeros(10**6).as_strided((1, 8, 1, 10**8), (1, 1, 1, 0))
    saved_with(run, **{"readouts.A.features": values})
    refused(run, "its arrays would take")


def test_arrays_that_share_their_bytes_are_not_believed(run):
    values = torch.zeros(10**6)
    saved_with(run, **{f"core.x{i}": values for i in range(1000)})
    refused(run, "its arrays would take 40")


def test_small_arrays_may_have_any_strides(published, run):
    path = run / "ckpt" / "model_state.pt"
    bias = read_checkpoint(path)["model"]["readouts.A.bias"].clone()
    want = load_v1t(run).module_.state_dict()
    saved_with(run, **{"readouts.A.bias": torch.stack((bias, bias), 1)[:, 0]})
    found = load_v1t(run).module_.state_dict()
    assert all(torch.equal(value, want[name]) for name, value in found.items())


def test_arrays_without_values_are_refused(run):
    saved_with(run, **{"readouts.A.bias": torch.zeros(5, device="meta")})
    refused(run, r"readouts.A.bias', which is sparse, .* without values")


def test_an_array_of_the_old_format_beyond_its_file_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(7777)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content.count((7777).to_bytes(2, "little")) >= 2
    number = b"M" + (7777).to_bytes(2, "little")  # the pickle's opcode of a short number
    assert content.count(number) >= 2  # of the storage, and of the shape
    path.write_bytes(content.replace(number, b"J" + (2**31 - 1).to_bytes(4, "little")))
    with pytest.raises(ValueError, match=r"a.pt .*damaged one .*an array that is larger"):
        read_checkpoint(path)


def packed(path, change):
    """Pack the members of a checkpoint anew, each as `change` gives (content, method)."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            content, method = change(name, content)
            archive.writestr(name, content, method)


def test_a_compressed_member_is_refused(run):
    packed(run / "ckpt" / "model_state.pt", lambda name, content: (content, zipfile.ZIP_DEFLATED))
    refused(run, "compressed, as torch.save leaves none")


def test_changed_weights_are_noticed(run):
    """By the checksums of the file, at which torch does not look."""
    path = run / "ckpt" / "model_state.pt"
    value = read_checkpoint(path)["model"]["readouts.A.features"].numpy().tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(value) + 3] ^= 0x20
    path.write_bytes(content)
    refused(run, "its checksum does not match")


def test_checkpoints_without_checksums_are_read(run):
    path = run / "ckpt" / "model_state.pt"
    want = load_v1t(run).module_.state_dict()
    torch.serialization.set_crc32_options(False)
    try:
        saved_with(run)
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive:
        assert not any(info.CRC for info in archive.infolist())
    found = load_v1t(run).module_.state_dict()
    assert all(torch.equal(value, want[name]) for name, value in found.items())


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "text",
    [
        f"a: &a 1\nb: [{', '.join(['*a'] * 1001)}]\n",
        "x: " + "[" * 10_000,
        "x: " + "{a: " * 5_000,
        "x: !!timestamp 2001-99-99",
        "x: 1:" + ":".join(["59"] * 400) + ".5",
        "lr: " + "1" * 400,
        "seed: " + "1" * 5000,
        "x: !!python/int '" + "[" * 5000 + "'",
        "x: &x [*x]\nseed: *x",
        "x: !!python/tuple &x [*x]",
        "x: \ud800".encode("utf-8", "surrogatepass").decode("latin1"),
        "x: \x07",
        "#" * 2**18,
    ],
)
def test_arguments_that_would_not_end_are_refused(run, text):
    path = run / "args.yaml"
    path.write_bytes(path.read_bytes() + b"\n" + text.encode("latin1") + b"\n")
    refused(run, r"args\.yaml")


@pytest.mark.timeout(120)
def test_merges_of_merges_end(tmp_path):
    """PyYAML merges each key once since 6.0.4; before, they double, and are refused."""
    path = tmp_path / "args.yaml"
    merged = (f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12))
    path.write_text("\n".join(["a0: &a0 {x: 1}", *merged]))
    if Version(yaml.__version__) < Version("6.0.4"):
        with pytest.raises(ValueError, match="without end"):
            read_yaml(path)
    else:
        assert read_yaml(path)["a11"] == {"x": 1}


def test_merged_and_repeated_arguments_are_read(tmp_path):
    (tmp_path / "args.yaml").write_text("a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, x: 2}\nc: *a\n")
    a = {"x": 1, "y": [1, 2]}
    assert read_yaml(tmp_path / "args.yaml") == {"a": a, "b": a | {"x": 2}, "c": a}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["args.yaml", "ckpt/model_state.pt"])
def test_what_is_no_file_is_never_opened(run, name):
    path = run / name
    path.unlink()
    os.mkfifo(path)
    refused(run, rf"{path.name}: is a named pipe")
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=path.name):
        load_v1t(run)
    path.rmdir()
    os.symlink("/proc/self/mem", path)
    with pytest.raises(OSError, match="Input/output error") as caught:
        load_v1t(run)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        np.array([{}]),
        np.array(["a"]),
        np.zeros(2, "f4,f4"),
        np.ma.masked_array([1.0, 2.0], [True, False]),
    ],
    ids=["objects", "text", "structure", "masked"],
)
def test_arrays_that_are_no_numbers_are_named(value):
    with pytest.raises(TypeError, match=r"state_dict holds 'readout.A.bias', of dtype"):
        load_sensorium({"readout.A.bias": value})


@pytest.mark.parametrize("damage", ["huge header", "flipped", "deflated beyond measure", "twice"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_damaged_files_of_numpy_are_named(tmp_path, damage):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(1000.0))
    if damage == "huge header":
        header = (
            b"\x93NUMPY\x01\x00\x50\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': "
        )
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", (header + b"(10000000000,), }").ljust(90) + bytes(80))
    elif damage == "flipped":
        content = bytearray(path.read_bytes())
        content[3000] ^= 4
        path.write_bytes(content)
    elif damage == "twice":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("a.npy", b"")
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", bytes(2**27))
    with pytest.raises(ValueError, match=r"a\.npz"):
        load_sensorium(path)


@pytest.mark.parametrize("opcode", [pickle.BINBYTES8, pickle.BINUNICODE8, pickle.BYTEARRAY8])
def test_a_checkpoint_that_tells_of_terabytes_is_damaged(tmp_path, opcode):
    """Without asking for the memory of which it tells."""
    path = tmp_path / "a.pt"
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    path.write_bytes(magic + b"\x80\x05" + opcode + struct.pack("<Q", 2**45) + b"abc.")
    with pytest.raises(ValueError, match=r"a.pt is no checkpoint of torch, or a damaged one"):
        load_sensorium(path)

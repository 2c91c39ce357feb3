"""Files made to take all memory, to hang or to reach out of their folder, for each reader.

Each is read in a process whose memory is limited. A refusal that comes after memory was asked for
in vain counts as none: sizes are held against the file before.
"""

import io
import json
import multiprocessing
import os
import resource
import stat
import struct
import subprocess
import sys
import zipfile
import zlib

import h5py
import netCDF4
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import v1tlearn as v1
from tests.backbones import DINOV2, random_backbone
from tests.datasets.sensorium_files import recording
from tests.fuzz.parsers import PARSERS
from tests.mice import two_mice
from tests.sweeps import quick
from v1tlearn import nn

LIMIT = 2**29  # bytes beyond what the process has when it begins
SECONDS = 60  # of its processor
BOMB_BYTES = 2**31


def limited(read):
    """What came of a call in a process with little memory: the name and text of its error."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_tell, args=(sender, read))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"the process ended with {process.exitcode}") from None
    finally:
        process.join()
        receiver.close()


def _tell(sender, read):
    with open("/proc/self/statm") as file:
        has = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + LIMIT, has + LIMIT))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    try:
        read()
        sender.send(("nothing", ""))
    except Exception as error:
        causes = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        sender.send((type(error).__name__, " <- ".join(map(repr, causes))))
    sender.close()
    os._exit(0)


pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="memory is limited as on Linux"
)

# ----------------------------------------------------------------------------------------- attacks


def npy_header(shape, dtype="<f8"):
    """A file of NumPy's whose header tells of far more than follows."""
    file = io.BytesIO()
    told = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, told)
    return file.getvalue() + bytes(80)


def zeros(n_bytes, wbits, head=b""):
    """A deflated stream of a head and so many zeros, made without deflating them all."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = 2**24
    once = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + once * (n_bytes // block) + packer.flush()


def in_zip(data, change, *, only=None):
    """A zip in which members are changed: what `change` gives of each, or a bomb."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            chosen = only is None or only in name
            new.writestr(name, change(old.read(name)) if chosen else old.read(name))
    return out.getvalue()


def bomb_in_zip(data, only=""):
    """A zip, one member of which inflates to two gigabytes."""
    packed = zeros(BOMB_BYTES, -zlib.MAX_WBITS)
    placed = []

    def place(content):
        placed.append(content)
        return packed if len(placed) == 1 else content

    changed = bytearray(in_zip(data, place, only=only))
    at = changed.index(packed)
    with zipfile.ZipFile(io.BytesIO(bytes(changed))) as archive:
        (info,) = (info for info in archive.infolist() if info.file_size == len(packed))
    start = info.header_offset
    assert changed[start : start + 4] == b"PK\x03\x04"
    assert at > start
    entry = changed.index(struct.pack("<LLL", info.CRC, len(packed), len(packed)), at)
    for method, sizes in ((start + 8, start + 22), (entry - 6, entry + 8)):
        changed[method : method + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        changed[sizes : sizes + 4] = struct.pack("<L", BOMB_BYTES)
    return bytes(changed)


def safetensors(header, length=None):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(64)


def told_tensor(shape, end):
    return {"core.a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}


def mat_dims(data):
    """The first three sizes of a MATLAB file, set beyond all measure."""
    at = data.index(struct.pack("<II", 5, 12)) + 8
    return data[:at] + struct.pack("<3i", 2**30, 2**30, 2**30) + data[at + 12 :]


def mat_inflated(data):
    """Its compressed element, with other sizes in it."""
    (n_packed,) = struct.unpack_from("<I", data, 132)
    plain = zlib.decompress(data[136 : 136 + n_packed])
    packed = zlib.compress(mat_dims(plain))
    return data[:128] + struct.pack("<II", 15, len(packed)) + packed


def mat_bomb(data):
    """Its compressed element, which goes on for two gigabytes."""
    (n_packed,) = struct.unpack_from("<I", data, 132)
    plain = bytearray(zlib.decompress(data[136 : 136 + n_packed]))
    at = plain.index(struct.pack("<II", 5, 12)) + 8
    n_images = BOMB_BYTES // 6 // 2**20 * 2**20
    plain[at : at + 12] = struct.pack("<3i", 2, 3, n_images)
    tag = plain.index(struct.pack("<II", 2, 3600))  # the pixels, bytes
    plain[tag + 4 : tag + 8] = struct.pack("<I", 6 * n_images)
    plain[4:8] = struct.pack("<I", tag + 6 * n_images)
    packed = zeros(6 * n_images, zlib.MAX_WBITS, bytes(plain[: tag + 8]))
    return data[:128] + struct.pack("<II", 15, len(packed)) + packed


def aliases(depth):
    lines = [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" if i else "a0: &a0 [1]"
        for i in range(depth)
    ]
    return ("\n".join(lines) + f"\nseed: *a{depth - 1}\n").encode()


HUGE = npy_header((10**11,))
NESTED = b'{"a":' * 200_000

ATTACKS = {
    "npy image": ("npy", 0, lambda data: HUGE),
    "npy overflow": ("npy", 2, lambda data: npy_header((2**32, 2**32))),
    "npy text": ("npy", 4, lambda data: npy_header((2**20,), "<U2000000")),
    "npy labels": ("npy", 6, lambda data: HUGE),
    "json nested": ("config", 0, lambda data: NESTED),
    "zip bomb image": ("zips", 0, lambda data: bomb_in_zip(data, "data/images/1")),
    "zip bomb label": ("zips", 0, lambda data: bomb_in_zip(data, "meta/trials/tiers")),
    "zip header": ("zips", 0, lambda data: in_zip(data, lambda _: HUGE, only="responses")),
    "npz bomb": ("npz", 0, bomb_in_zip),
    "npz header": ("npz", 0, lambda data: in_zip(data, lambda _: HUGE)),
    "minimodel bomb": ("minimodel", 0, bomb_in_zip),
    "nat60k bomb": ("nat60k", 0, lambda data: bomb_in_zip(data, "istim_sp")),
    "nat60k header": ("nat60k", 0, lambda data: in_zip(data, lambda _: HUGE, only="sp.npy")),
    "cadena bomb": ("cadena2019", 0, lambda data: bomb_in_zip(data, "images")),
    "cadena header": ("cadena2019", 0, lambda data: in_zip(data, lambda _: HUGE)),
    "mat sizes": ("mat", 0, mat_dims),
    "mat sizes deflated": ("deflated_mat", 0, mat_inflated),
    "mat bomb": ("deflated_mat", 0, mat_bomb),
    "yaml aliases": ("yaml", 0, lambda data: data + aliases(12)),
    "yaml nested": ("yaml", 0, lambda data: data + b"\nx: " + b"[" * 100_000),
    "model nested": ("model", 0, lambda data: NESTED),
    "safetensors length": ("model", 2, lambda data: safetensors({}, 2**60)),
    "safetensors shape": ("model", 2, lambda data: safetensors(told_tensor([2**40], 2**42))),
    "safetensors overlap": ("model", 2, lambda data: safetensors(told_tensor([2**40], 64))),
    "safetensors product": ("model", 2, lambda data: safetensors(told_tensor([2**33] * 2, 64))),
    "checkpoint bomb": ("checkpoint", 0, lambda data: bomb_in_zip(data, "data.pkl")),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_sizes_are_refused_before_memory_is_asked_for(attack, tmp_path):
    name, which, change = ATTACKS[attack]
    parser = PARSERS[name](tmp_path)
    target = parser.targets[which]
    target.write_bytes(change(target.read_bytes()))
    kind, said = limited(parser.read)
    refused(kind, said, parser.root)


def refused(kind, said, root):
    """An error of ours that names the file, and was no search for memory."""
    assert kind in ("ValueError", "DamagedModelError", "FileNotFoundError"), said
    assert root.name in said
    for sign in ("MemoryError", "allocate", "can't alloc", "bad_alloc"):
        assert sign not in said


# ------------------------------------------------------------------------------------------ netCDF


def add(path, sizes, *, dims=("big",), chunks=(2**16,), kind="f8", values=None):
    """Add a variable to recordings; what is not written, the library makes up when it is read."""
    with netCDF4.Dataset(path, "a") as file:
        group = file["m"]
        for dim, size in sizes.items():
            group.createDimension(dim, size)
        variable = group.createVariable("big", kind, dims, chunksizes=chunks, zlib=True)
        for start in range(0, values or 0, 2**22):
            variable[start : start + 2**22] = 0


SIZES = {
    "label": {"sizes": {"big": 2**40}},
    "label within reach": {"sizes": {"big": 2**27}},
    "trials": {"sizes": {"big": 2**34}, "dims": ("trial", "big"), "chunks": (1, 2**16)},
    "chunk": {"sizes": {"big": 2**28}, "chunks": (2**28,)},
    "zeros": {"sizes": {"big": 2**24}, "chunks": (2**22,), "values": 2**24},
}


@pytest.mark.parametrize("name", SIZES)
def test_netcdf_that_tells_of_more_than_it_holds_is_refused(name, tmp_path):
    path = tmp_path / "a.nc"
    v1.save_recordings({"m": recording()}, path)
    add(path, **SIZES[name])
    assert path.stat().st_size < 2**20
    for read in (v1.open_recordings, v1.Trials.open):
        kind, said = limited(lambda read=read: read(path))
        refused(kind, said, path)
        assert "cannot hold; expected at most" in said


# In a process of its own: what others that the tests started held at most would count, too.
READ = """
import resource, sys
import v1tlearn as v1
try:
    v1.{}(sys.argv[1])
except ValueError as error:
    print(error, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, sep="\\n")  # KiB
"""


@pytest.mark.parametrize("read", quick(["open_recordings", "Trials.open", "Responses.open"], 0))
def test_groups_that_hold_themselves_are_refused(read, tmp_path):
    path = tmp_path / "a.nc"
    v1.save_recordings({"m": recording()}, path)
    with h5py.File(path, "r+") as file:
        file["m/again"] = file["/"]
    command = [sys.executable, "-c", READ.format(read), path]
    *said, most = subprocess.check_output(command, text=True).splitlines()
    assert path.name in said[0]
    assert int(most) < 2 * 2**20


def test_netcdf_of_others_with_labels_that_compress_well_is_opened(tmp_path):
    path = tmp_path / "a.nc"
    v1.save_recordings({"m": recording()}, path)
    add(path, {"big": 2**20}, chunks=(2**18,), values=2**20)
    tree = v1.open_recordings(path)
    assert (tree["m"]["big"].values == 0).all()
    tree.close()


# ------------------------------------------------------------------------------- out of the folder

OUTSIDE = [
    "../../evil.npy",
    "/tmp/evil.npy",
    "..\\..\\worse.npy",
    "C:\\evil.npy",
    "data/images/../../../../evil.npy",
]


def everything(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def test_members_of_a_zip_never_leave_it(tmp_path):
    (path,) = v1.write_sensorium({"m": recording()}, tmp_path / "in", zip=True)
    intact = v1.read_sensorium(path)["m"].to_dataset().load()
    link = zipfile.ZipInfo("data/images/passwd.npy")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        for name in OUTSIDE:
            archive.writestr(name, npy_header((3,)))
    before = everything(tmp_path)
    tree = v1.read_sensorium(path)
    assert tree["m"].to_dataset().load().equals(intact)
    assert everything(tmp_path) == before
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.warns(UserWarning, match=r"left out, or read otherwise: .*'passwd.npy', no trials"):
        tree = v1.read_sensorium(path)
    assert tree["m"].to_dataset().load().equals(intact)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["../other/tensors-0.safetensors", "/etc/passwd", "C:\\x", ".."])
def test_a_model_names_no_file_outside_its_folder(name, tmp_path):
    parser = PARSERS["model"](tmp_path)
    weights = parser.targets[2]
    other = tmp_path / "other" / "tensors-0.safetensors"
    other.parent.mkdir()
    other.write_bytes(weights.read_bytes())
    description = parser.root / "model.json"
    document = json.loads(description.read_text()) | {"tensors": name, "replaces": [name]}
    description.write_text(json.dumps(document))
    with pytest.raises((ValueError, OSError), match="saved"):
        parser.read()
    document["tensors"] = weights.name
    description.write_text(json.dumps(document))
    parser.read().save(parser.root)
    assert other.exists()


# ------------------------------------------------------------------------------------- backbones


@pytest.fixture
def backbone(tmp_path):
    """A folder with a backbone that tells of code of its own."""
    path = tmp_path / "backbone"
    random_backbone(DINOV2).save_pretrained(path)
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    (path / "configuration_own.py").write_text(code)
    (path / "modeling_own.py").write_text(code)
    return path


def fit(path):
    """Fit a model that reads a backbone, for which it is loaded."""
    mice = two_mice(n_neurons=2, n_trials=8, image_shape=(28, 42))
    train = v1.Trials(mice).sel(tier="train")
    return v1.PretrainedViTRegressor(backbone=path, block=0, max_epochs=0, device="cpu").fit(train)


def configure(path, **changes):
    config = path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))


@pytest.mark.parametrize("kind", ["dinov2", "of_their_own"])
def test_code_beside_a_backbone_never_runs(kind, backbone, tmp_path):
    told = {"AutoConfig": "configuration_own.Own", "AutoModel": "modeling_own.Own"}
    configure(backbone, model_type=kind, auto_map=told)
    if kind == "dinov2":
        fit(backbone)
    else:
        with pytest.raises(nn.BackboneError, match="holds no backbone that can be read"):
            fit(backbone)
    assert not (tmp_path / "ran").exists()


def test_weights_of_a_backbone_are_never_pickles(backbone):
    (weights,) = backbone.glob("*.safetensors")
    torch.save(load_file(weights), backbone / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(nn.BackboneError, match=r"holds no backbone .*model.safetensors"):
        fit(backbone)

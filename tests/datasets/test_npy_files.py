"""Headers of .npy files: believed as far as the bytes are there, and no other error than ours."""

import io
import tracemalloc

import numpy as np
import pytest

from tests.datasets.sensorium_files import write_by_hand
from tests.sweeps import quick
from v1tlearn.datasets.sensorium import read_sensorium

IMAGE = "data/images/0.npy"
TIERS = "meta/trials/tiers.npy"


def npy(header, data=b"", version=1):
    text = header.encode("latin1") if isinstance(header, str) else header
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def described(descr="'|u1'", shape="(1, 6, 8)", fortran="False"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


DAMAGED = {
    "empty": b"",
    "other magic": b"\x93NUMPX\x01\x00",
    "version": npy(described(), bytes(48), version=9),
    "token": npy("{'descr': '''", bytes(48)),
    "syntax": npy("{'descr':: }", bytes(48)),
    "indentation": npy("  \n\t {", bytes(48)),
    "nothing": npy("", bytes(48)),
    "no dict": npy("[1, 2]", bytes(48)),
    "deep": npy("(" * 9000, bytes(48)),
    "deep minus": npy("-" * 9000 + "1", bytes(48)),
    "long sum": npy("+".join("1" * 4000), bytes(48)),
    "unhashable key": npy("{[]: 1}", bytes(48)),
    "key missing": npy("{'descr': '|u1'}", bytes(48)),
    "no text": npy(b"\xff\xfe\x00{", bytes(48)),
    "null": npy("{\x00}", bytes(48)),
    "many digits": npy(described(shape="(" + "9" * 5000 + ",)"), bytes(48)),
    "text as shape": npy(described(shape="('a', 1)"), bytes(48)),
    "negative": npy(described(shape="(-1, -6, 8)"), bytes(48)),
    "dtype unknown": npy(described("'x9'"), bytes(48)),
    "dtype empty": npy(described("()"), bytes(48)),
    "dtype of nothing": npy(described("[]"), bytes(48)),
    "dtype None": npy(described("None"), bytes(48)),
    "zero bytes each": npy(described("'<U0'", "(1000000000000, 1, 1)")),
    "void": npy(described("'|V48'", "(1, 1, 1)"), bytes(48)),
    "structured": npy(described("[('a', '<f4')]", "(1, 6, 2)"), bytes(48)),
    "large structure": npy(described("[('a', '<f8', (10000, 10000))]", "(1, 1, 1)"), bytes(48)),
    "header too long": npy(described() + " " * 20_000, bytes(48)),
    "header beyond the file": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{",
    "huge": npy(described("'<f8'", "(1, 100000, 1000000)"), bytes(48)),
    "beyond 64 bits": npy(described(shape=f"(1, {2**40}, {2**40})"), bytes(48)),
    "overflow to 48": npy(described(shape=f"(1, {2**62 + 12}, 4)"), bytes(48)),
    "cut off": npy(described(), bytes(47)),
    "two arrays": npy(described(), bytes(48)) * 2,
    "a byte too many": npy(described(), bytes(49)),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", quick([IMAGE, "data/images/7.npy", TIERS], 0))
@pytest.mark.filterwarnings("ignore")  # of the compiler, about what such headers hold
def test_damaged_headers_name_the_file(mouse, damage, name):
    (mouse / name).write_bytes(DAMAGED[damage])
    with pytest.raises(ValueError, match=rf"mouse '1-2-3'.*{name}"):
        read_sensorium(mouse)["1-2-3"].load()


@pytest.mark.parametrize("damage", ["huge", "beyond 64 bits", "zero bytes each", "large structure"])
def test_no_header_takes_memory(mouse, damage):
    (mouse / IMAGE).write_bytes(DAMAGED[damage])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=IMAGE):
            read_sensorium(mouse)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def saved(values, **kwargs):
    file = io.BytesIO()
    np.lib.format.write_array(file, values, **kwargs)
    return file.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("dtype", ["u1", ">f8", "<f2", "f4", "?", "i8", ">u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_legal_array_is_read(mouse, version, dtype, order):
    values = np.asarray(np.arange(48).reshape(1, 6, 8) % 251, dtype, order=order)
    (mouse / IMAGE).write_bytes(saved(values, version=version))
    (mouse / "data/images/5.npy").write_bytes(saved(values, version=version))
    if dtype != "u1":  # the others are then of another kind
        for trial in range(12):
            (mouse / f"data/images/{trial}.npy").write_bytes(saved(values, version=version))
    stimuli = read_sensorium(mouse)["1-2-3"].stimuli
    for trial in (0, 5):
        np.testing.assert_array_equal(stimuli[trial], values.astype(stimuli.dtype))


def test_bytes_behind_the_array_shift_nothing(mouse):
    """Where all files had them, values of others were read in place of the first ones."""
    for trial in range(12):
        path = mouse / f"data/images/{trial}.npy"
        np.save(path, np.zeros((1, 6, 8), "u1"))
        path.write_bytes(path.read_bytes() + bytes(8))
    with pytest.raises(ValueError, match=r"of 48 bytes .* but 56 follow; more than one array"):
        read_sensorium(mouse)


def test_text_that_is_none_is_refused(mouse):
    values = np.full(12, 0x110000, "u4").view("<U1")
    (mouse / TIERS).write_bytes(saved(values))
    with pytest.raises(ValueError, match=rf"{TIERS}.*its text holds what is no character"):
        read_sensorium(mouse)


def test_values_beyond_float32_are_refused(tmp_path):
    write_by_hand(tmp_path / "m", image_dtype="f8")
    np.save(tmp_path / "m/data/responses/7.npy", np.full(5, 1e300))
    responses = read_sensorium(tmp_path / "m")["m"].responses
    with pytest.raises(ValueError, match=r"'m', .*responses/7.npy: holds numbers beyond those of"):
        responses.load()

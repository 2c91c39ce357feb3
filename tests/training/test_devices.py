import os

import pytest
import torch

from v1tlearn.training import autocast, numerics, resolve_device, resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_takes_what_is_there():
    assert resolve_device(present=["cpu"]) == CPU
    assert resolve_device("auto", present=["cpu", "mps"]) == torch.device("mps")
    assert resolve_device("auto", present=["cpu", "mps", "cuda"]) == CUDA
    assert resolve_device(torch.device("cpu")) == CPU
    assert resolve_device() in [torch.device(kind) for kind in ("cuda", "mps", "cpu")]


@pytest.mark.parametrize("absent", ["cuda", "cuda:3", "mps", torch.device("cuda"), "meta"])
def test_an_absent_device_is_named(absent):
    with pytest.raises(ValueError, match=r"is not present on this machine: set device='auto'"):
        resolve_device(absent, present=["cpu"])


def test_a_gpu_beyond_those_that_there_are_is_named():
    found = resolve_device("cuda:1", present=["cpu", "cuda"], n_cuda=2)
    assert found == torch.device("cuda", 1)
    with pytest.raises(ValueError, match=r"device='cuda:2' is not present .* which has 2 of them"):
        resolve_device("cuda:2", present=["cpu", "cuda"], n_cuda=2)


def test_workers_take_one_gpu_each_in_turn():
    several = {"present": ["cpu", "cuda"], "n_cuda": 2}
    taken = [resolve_device("auto", **several, worker=number) for number in range(4)]
    assert taken == [torch.device("cuda", index) for index in (0, 1, 0, 1)]
    assert resolve_device("auto", **several) == CUDA  # no worker
    assert resolve_device("cuda", **several, worker=1) == CUDA  # as the caller has set it
    assert resolve_device("auto", present=["cpu", "cuda"], n_cuda=1, worker=3) == CUDA
    assert resolve_device("auto", present=["cpu"], n_cuda=0, worker=3) == CPU


@pytest.mark.parametrize("wrong", ["gpu", "cuda:x", "", None, 3.5])
def test_what_is_no_device(wrong):
    with pytest.raises(ValueError, match="is no device: expected 'auto'"):
        resolve_device(wrong)


@pytest.mark.parametrize(
    ("device", "training", "has_bfloat16", "expected"),
    [
        (CPU, True, True, "float32"),
        (torch.device("mps"), True, True, "float32"),
        (CUDA, True, True, "bfloat16"),
        (CUDA, True, False, "float32"),
        (CUDA, False, True, "float32"),
    ],
)
def test_precision_auto(device, training, has_bfloat16, expected):
    found = resolve_precision("auto", device, training=training, has_bfloat16=has_bfloat16)
    assert found == expected


def test_precision_on_request():
    for precision in ("float32", "bfloat16"):
        assert resolve_precision(precision, CPU, training=False) == precision
    assert resolve_precision("tf32", CUDA, training=True) == "tf32"
    assert resolve_precision("tf32", CPU, training=True) == "float32"
    with pytest.raises(ValueError, match=r"precision='float16': expected 'auto' or one of"):
        resolve_precision("float16", CPU, training=True)


def test_a_gpu_that_emulates_bfloat16_is_told_of_once(caplog):
    for _ in range(2):
        found = resolve_precision("bfloat16", CUDA, training=True, has_bfloat16=False)
        assert found == "bfloat16"
    resolve_precision("bfloat16", CUDA, training=True, has_bfloat16=True)
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(told) <= 1  # it is said once in a process
    assert all("gains no time here: this GPU does not multiply bfloat16" in t for t in told)


def switches():
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("found", [False, True])
def test_switches_are_set_within_and_put_back(monkeypatch, precision, deterministic, found):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    original = switches()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = found
    torch.use_deterministic_algorithms(found, warn_only=found)
    before = switches()
    try:
        with numerics(precision, CUDA, deterministic=deterministic):
            tf32 = precision == "tf32"
            strict = (True, False) if deterministic else (found, found)
            assert switches() == (tf32, tf32, *strict, ":4096:8")
        assert switches() == before
        with pytest.raises(KeyError), numerics(precision, CUDA, deterministic=deterministic):
            raise KeyError
        assert switches() == before
        with numerics("float32", CPU):
            assert switches() == before
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = original[:2]
        torch.use_deterministic_algorithms(original[2], warn_only=original[3])


def test_a_workspace_that_the_user_chose_stays(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with numerics("float32", CUDA, deterministic=True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="this torch has one interface"
)
@pytest.mark.parametrize("found", ["tf32", "ieee"])
def test_users_of_the_newer_tf32_switches(found):
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision
    try:
        matmul.fp32_precision, conv.fp32_precision = found, "ieee" if found == "tf32" else "tf32"
        mine = matmul.fp32_precision, conv.fp32_precision
        for precision in ("tf32", "float32"):
            with numerics(precision, CUDA):
                assert (matmul.fp32_precision == "tf32") == (precision == "tf32")
                assert (conv.fp32_precision == "tf32") == (precision == "tf32")
            assert (matmul.fp32_precision, conv.fp32_precision) == mine
    finally:
        matmul.fp32_precision, conv.fp32_precision = before


def test_autocast_only_for_bfloat16():
    a = torch.ones(2, 2)
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        with autocast(precision, CPU):
            assert (a @ a).dtype == dtype

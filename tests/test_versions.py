"""What a report of a fault says, on every system, and that nothing makes it fail."""

import ctypes
import importlib.metadata
import io
import os
import platform
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

import v1tlearn as v1
from v1tlearn._versions import processor_name, vector_units
from v1tlearn.nn import fast

SECTIONS = ["versions", "extras", "processor", "threads", "memory", "GPUs"]


def broken(*args, **options):
    raise RuntimeError("out of order")


def test_it_tells_versions_kernels_and_threads():
    told = v1.versions_info()
    assert list(told) == SECTIONS
    assert told["versions"]["python"] == platform.python_version()
    for name in ("v1tlearn", "torch", "scikit-learn", "netCDF4", "joblib"):
        assert told["versions"][name] == importlib.metadata.version(name)
    assert {"transformers", "optuna", "pooch"} <= set(told["extras"])
    assert "pytest" not in told["extras"]
    assert told["processor"]["kernels"] == fast.describe_kernels()
    assert told["threads"]["torch"].startswith(f"{torch.get_num_threads()}, ")
    assert told["processor"]["bfloat16"] in ("products", "emulated", "not known")
    every = [entry for section in told.values() for entry in section.items()]
    assert all(isinstance(text, str) and text for entry in every for text in entry)


def test_it_prints_what_it_tells(capsys):
    v1.show_versions()
    printed = capsys.readouterr().out
    file = io.StringIO()
    v1.show_versions(file=file)
    assert capsys.readouterr().out == ""
    for text in (printed, file.getvalue()):
        assert [line for line in text.splitlines() if line and line[0] != " "] == SECTIONS
        for name, version in v1.versions_info()["versions"].items():
            assert any(line.split() == [name, *version.split()] for line in text.splitlines())


def test_letters_that_a_file_does_not_have_are_replaced(monkeypatch):
    monkeypatch.setattr(platform, "platform", lambda: "Läptop")
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    v1.show_versions(file)
    file.flush()
    assert b"L?ptop" in file.buffer.getvalue()


@pytest.mark.parametrize(
    ("where", "name", "section", "entry"),
    [
        (platform, "platform", "processor", "platform"),
        (torch.backends.cpu, "get_cpu_capability", "processor", "torch uses"),
        (torch, "get_num_threads", "threads", "torch"),
        (os, "cpu_count", "threads", "cores"),
        (torch.cuda, "is_available", "GPUs", "CUDA"),
        (importlib.metadata, "version", "versions", "v1tlearn"),
    ],
)
def test_what_cannot_be_read_is_unknown_and_all_else_is_told(
    monkeypatch, where, name, section, entry
):
    monkeypatch.setattr(where, name, broken)
    told = v1.versions_info()
    assert told[section][entry] == "not known (RuntimeError: out of order)"
    assert list(told) == SECTIONS
    assert told["versions"]["python"] == platform.python_version()


def test_without_metadata_the_packages_that_matter_most_are_named(monkeypatch):
    def not_found(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", not_found)
    monkeypatch.setattr(importlib.metadata, "version", not_found)
    told = v1.versions_info()
    assert told["versions"]["torch"] == "not installed"
    assert told["extras"] == {}


def test_processors_of_linux(tmp_path):
    (tmp_path / "proc").mkdir()
    file = tmp_path / "proc" / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: A 1 @ 2 GHz\n\nmodel name\t: A 2\n")
    assert processor_name("Linux", tmp_path) == "A 1 @ 2 GHz"
    file.write_text("processor\t: 0\nFeatures\t: fp asimd bf16 sve\nCPU part\t: 0xd40\n")
    assert processor_name("Linux", tmp_path) == (platform.processor() or platform.machine())
    assert processor_name("Linux", tmp_path / "none") == (
        platform.processor() or platform.machine()
    )


def test_vector_units_are_those_that_torch_or_linux_tell_of(monkeypatch, tmp_path):
    told = {"avx2": True, "avx512_f": False, "sse2": True, "fma3": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert vector_units() == "avx2 fma3"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert vector_units(tmp_path) == "not known"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("Features\t: fp asimd bf16 sve\n")
    assert vector_units(tmp_path) == "asimd bf16 sve"


@pytest.mark.skipif(os.name == "nt", reason="programs have other names")
def test_processors_of_macos_are_asked_of_its_program(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert processor_name("Darwin") == (platform.processor() or platform.machine())
    program = tmp_path / "sysctl"
    program.write_text('#!/bin/sh\n[ "$2" = machdep.cpu.brand_string ] && echo "Apple M9"\n')
    program.chmod(0o755)
    assert processor_name("Darwin") == "Apple M9"


@pytest.mark.skipif(os.name == "nt", reason="which has a registry")
def test_without_a_registry_windows_has_processors_too():
    assert processor_name("Windows") == (platform.processor() or platform.machine())


def test_memory_of_windows(monkeypatch):
    def fill(pointer):
        pointer._obj.whole, pointer._obj.free = 16 * 10**9, 4 * 10**9
        return pointer._obj.length == 64

    kernel = SimpleNamespace(GlobalMemoryStatusEx=fill)
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert v1.versions_info()["memory"] == {"whole": "16 GB", "free": "4 GB"}


def test_gpus_are_told_one_by_one(monkeypatch):
    properties = SimpleNamespace(name="A GPU", major=7, minor=5)
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_properties": lambda device: properties,
        "mem_get_info": lambda device: (3 * 10**9, 16 * 10**9),
        "device": lambda device: nullcontext(),
        "is_bf16_supported": lambda including_emulation: including_emulation,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    told = v1.versions_info()["GPUs"]
    for number in (0, 1):
        expected = "A GPU, capability 7.5, 3 GB of 16 GB free, bfloat16 emulated"
        assert told[f"GPU {number}"] == expected

"""Memory of machines, containers and GPUs."""

import os

import pytest
import torch

from v1tlearn.training import capacity

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def container(monkeypatch, tmp_path):
    """Write what the kernel tells a container, in files of either version."""
    names = ("limit", "usage", "inactive_file")
    monkeypatch.setattr(
        capacity, "_CGROUPS", [(str(tmp_path), *names), (str(tmp_path / "0"), *names)]
    )

    def write(limit, usage=0, files=0):
        """Limit, usage, and the part of it that are pages of files, in bytes."""
        (tmp_path / "limit").write_text(f"{limit}\n")
        (tmp_path / "usage").write_text(f"{usage}\n")
        (tmp_path / "memory.stat").write_text(f"anon 7\ninactive_file {files}\n")

    return write


def test_a_step_may_fill_half_of_the_machine_or_the_container(container, monkeypatch):
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(os, "sysconf", sizes.get, raising=False)
    for limit in (None, "max"):
        if limit is not None:
            container(limit)
        for deterministic in (False, True):
            found = capacity.available_memory(CPU, deterministic=deterministic)
            assert found == 4096 * 1000 / 2
    for usage in (0, 10**6, 10**7):
        container(10**6, usage)
        assert capacity.available_memory(CPU) == 500_000
    assert capacity.available_memory(torch.device("meta")) is None
    monkeypatch.delattr(os, "sysconf")  # as on Windows
    assert capacity.available_memory(CPU) is None


def test_free_memory_is_that_of_the_machine_or_the_container(container, monkeypatch, tmp_path):
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(capacity, "_MEMINFO", str(meminfo))
    meminfo.write_text("MemTotal: 90000 kB\nMemAvailable:    40000 kB\n")
    assert capacity.free_memory(CPU) == 40_960_000
    container(10**6, 700_000, 200_000)
    assert capacity.free_memory(CPU) == 500_000  # files give way
    container(10**6, 10**6 + 1)
    assert capacity.free_memory(CPU) == 0
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    4 kB\n")
    assert capacity.free_memory(CPU) == 0
    container("max", 10**6)
    assert capacity.free_memory(CPU) == 4096
    container(10**6)
    assert capacity.free_memory(CPU) == 4096
    meminfo.unlink()  # as where the system is another one
    assert capacity.free_memory(CPU) == 10**6
    container("max")
    assert capacity.free_memory(CPU) is None
    assert capacity.free_memory(torch.device("meta")) is None


def test_what_this_machine_tells():
    free, available = capacity.free_memory(CPU), capacity.available_memory(CPU)
    assert free is None or free >= 0
    assert available is None or available > 0


@pytest.mark.gpu
def test_deterministic_runs_on_cuda_do_not_go_by_what_is_free():
    before = [capacity.available_memory(CUDA, deterministic=wanted) for wanted in (True, False)]
    kept = torch.empty(2**28, dtype=torch.uint8, device=CUDA)
    after = [capacity.available_memory(CUDA, deterministic=wanted) for wanted in (True, False)]
    assert before[0] == after[0]
    assert before[1] > after[1]
    assert kept.nbytes < after[0] < torch.cuda.mem_get_info()[1]

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


def test_a_step_may_fill_half_of_the_machine_or_the_container(container):
    whole = capacity.available_memory(CPU)  # no container
    assert whole == capacity.available_memory(CPU, deterministic=True) > 0
    container("max")
    assert capacity.available_memory(CPU) == whole
    for usage in (0, 10**6, 10**7):
        container(10**6, usage)
        assert capacity.available_memory(CPU) == 500_000
    assert capacity.available_memory(torch.device("meta")) is None


@pytest.mark.skipif(not os.path.exists("/proc/meminfo"), reason="only Linux tells")
def test_free_memory_is_that_of_the_machine_or_the_container(container, monkeypatch, tmp_path):
    assert 0 < capacity.free_memory(CPU) < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    container(10**6, 700_000, 200_000)
    assert capacity.free_memory(CPU) == 500_000  # files give way
    container(10**6, 10**6 + 1)
    assert capacity.free_memory(CPU) == 0
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    4 kB\n")
    monkeypatch.setattr(capacity, "_MEMINFO", str(meminfo))
    assert capacity.free_memory(CPU) == 0
    container("max", 10**6)
    assert capacity.free_memory(CPU) == 4096
    container(10**6)
    assert capacity.free_memory(CPU) == 4096
    meminfo.unlink()
    assert capacity.free_memory(CPU) == 10**6
    container("max")
    assert capacity.free_memory(CPU) is None
    assert capacity.free_memory(torch.device("meta")) is None


@pytest.mark.gpu
def test_deterministic_runs_on_cuda_do_not_go_by_what_is_free():
    before = [capacity.available_memory(CUDA, deterministic=wanted) for wanted in (True, False)]
    kept = torch.empty(2**28, dtype=torch.uint8, device=CUDA)
    after = [capacity.available_memory(CUDA, deterministic=wanted) for wanted in (True, False)]
    assert before[0] == after[0]
    assert before[1] > after[1]
    assert kept.nbytes < after[0] < torch.cuda.mem_get_info()[1]

"""Memory of machines, containers and GPUs."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from v1tlearn.training import memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


VERSIONS = {
    2: ("sys/fs/cgroup", ("memory.max", "memory.current"), "inactive_file"),
    1: (
        "sys/fs/cgroup/memory",
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        "total_inactive_file",
    ),
}
either_version = pytest.mark.parametrize("container", VERSIONS, indirect=True)


@pytest.fixture
def container(request, tmp_path):
    """Write what the kernel tells a container, in files of either version."""
    folder, names, reclaimable = VERSIONS[request.param]
    (tmp_path / folder).mkdir(parents=True)

    def write(limit, usage=0, files=0):
        """Limit, usage, and the part of it that are pages of files, in bytes."""
        for name, value in zip(names, (limit, usage), strict=True):
            (tmp_path / folder / name).write_text(f"{value}\n")
        (tmp_path / folder / "memory.stat").write_text(f"anon 7\n{reclaimable} {files}\n")

    return write


@either_version
@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="Windows does not tell")
def test_a_step_may_fill_half_of_the_machine_or_the_container(container, monkeypatch, tmp_path):
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (None, "max"):
        if limit is not None:
            container(limit)
        for deterministic in (False, True):
            found = memory.available_memory(CPU, deterministic=deterministic, root=tmp_path)
            assert found == whole / 2
    for usage in (0, 10**6, 10**7):
        container(10**6, usage)
        assert memory.available_memory(CPU, root=tmp_path) == 500_000
    assert memory.available_memory(torch.device("meta")) is None
    monkeypatch.delattr(os, "sysconf")  # as on Windows
    assert memory.available_memory(CPU) is None


@either_version
def test_free_memory_is_that_of_the_machine_or_the_container(container, tmp_path):
    meminfo = tmp_path / "proc" / "meminfo"
    meminfo.parent.mkdir()
    meminfo.write_text("MemTotal: 90000 kB\nMemAvailable:    40000 kB\n")
    assert memory.free_memory(CPU, tmp_path) == 40_960_000
    container(10**6, 700_000, 200_000)
    assert memory.free_memory(CPU, tmp_path) == 500_000  # files give way
    container(10**6, 10**6 + 1)
    assert memory.free_memory(CPU, tmp_path) == 0
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    4 kB\n")
    assert memory.free_memory(CPU, tmp_path) == 0
    container("max", 10**6)
    assert memory.free_memory(CPU, tmp_path) == 4096
    container(10**6)
    assert memory.free_memory(CPU, tmp_path) == 4096
    meminfo.unlink()  # as where the system is another one
    assert memory.free_memory(CPU, tmp_path) == 10**6
    container("max")
    assert memory.free_memory(CPU, tmp_path) is None
    assert memory.free_memory(torch.device("meta")) is None


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others tell no memory in use")
@pytest.mark.parametrize("kind", ["RLIMIT_DATA", pytest.param("RLIMIT_AS", marks=pytest.mark.slow)])
def test_limits_of_the_process_count(kind):
    script = f"""
        import resource
        import torch
        from v1tlearn.training import memory

        limit = 2**40
        resource.setrlimit(resource.{kind}, (limit, limit))
        cpu = torch.device("cpu")
        before = memory.free_memory(cpu)
        used = int(open("/proc/self/statm").read().split()[{0 if kind == "RLIMIT_AS" else 5}])
        limit = used * resource.getpagesize() + 2**26
        resource.setrlimit(resource.{kind}, (limit, limit))
        held = torch.empty(2**25, dtype=torch.uint8)
        free = memory.free_memory(cpu)
        assert 0 < free <= 2**25 < before, (free, before)
        assert memory.available_memory(cpu) == limit / 2
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    subprocess.run(command, check=True, env=environment)


def test_what_this_machine_tells():
    free, available = memory.free_memory(CPU), memory.available_memory(CPU)
    assert free is None or free >= 0
    assert available is None or available > 0


@pytest.mark.gpu
def test_deterministic_runs_on_cuda_do_not_go_by_what_is_free():
    before = [memory.available_memory(CUDA, deterministic=wanted) for wanted in (True, False)]
    kept = torch.empty(2**28, dtype=torch.uint8, device=CUDA)
    after = [memory.available_memory(CUDA, deterministic=wanted) for wanted in (True, False)]
    assert before[0] == after[0]
    assert before[1] > after[1]
    assert kept.nbytes < after[0] < torch.cuda.mem_get_info()[1]

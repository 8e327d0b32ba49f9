"""Memory between the steps of a run."""

from contextlib import closing
from pathlib import Path

import pytest
import torch

from unlearnable.engine import allocator
from unlearnable.engine.allocator import KeptMemory

resource = pytest.importorskip("resource")
CPU = torch.device("cpu")
glibc = pytest.mark.skipif(not allocator._is_glibc(), reason="only glibc has mallopt")


def faults_of_a_step():
    """Fewest page faults of a step that needs 64 MB, after one that needed them too."""
    faults = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(16, 1 << 20).add_(1)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(faults[1:])


@glibc
def test_a_step_gets_the_memory_of_the_last_one():
    usual = faults_of_a_step()  # 16,000, or fewer where pages are larger
    with closing(KeptMemory(CPU)):
        assert faults_of_a_step() < usual / 4
        with closing(KeptMemory(CPU)):
            assert faults_of_a_step() < usual / 4
        assert faults_of_a_step() < usual / 4
    assert faults_of_a_step() > usual / 4


@glibc
def test_kept_memory_goes_back_at_the_end():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    with closing(KeptMemory(CPU)):
        faults_of_a_step()
        assert resident() - before > 50e6
    assert resident() - before < 20e6


def test_other_devices_and_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    with closing(KeptMemory(torch.device("cuda"))):
        pass
    monkeypatch.setattr(allocator.os, "confstr", lambda name: None)
    with closing(KeptMemory(CPU)):
        pass

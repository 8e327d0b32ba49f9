"""Memory between the steps of a run."""

import gc
import subprocess
import sys
from contextlib import closing

import pytest
import torch

from unlearnable.engine import allocator
from unlearnable.engine.allocator import KeptMemory

CPU = torch.device("cpu")


STEPS = """
import resource, torch
from contextlib import closing
from unlearnable.engine.allocator import KeptMemory

def fewest_faults():  # of a step that needs 64 MB, after one that needed them too
    faults = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(16, 1 << 20).add_(1)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(faults[1:])

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

print(fewest_faults(), resident())
with closing(KeptMemory(torch.device("cpu"))):
    print(fewest_faults(), resident())
    with closing(KeptMemory(torch.device("cpu"))):
        pass
    print(fewest_faults(), resident())
print(0, resident())
"""


@pytest.mark.skipif(not allocator._is_glibc(), reason="only glibc has mallopt")
def test_a_step_gets_the_memory_of_the_last_one_and_the_system_gets_it_in_the_end():
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    faults, resident = zip(
        *(map(int, line.split()) for line in done.stdout.splitlines()), strict=True
    )
    assert faults[0] > 10 and max(faults[1:]) < faults[0] / 4  # 16,000, fewer with larger pages
    assert min(resident[1:3]) - resident[0] > 50e6
    assert resident[3] - resident[0] < 20e6


@pytest.mark.skipif(not allocator._is_glibc(), reason="only glibc has mallopt")
def test_what_is_forgotten_keeps_nothing_and_is_counted_once():
    gc.collect()  # of what other tests forgot
    before = allocator._open
    forgotten, closed = KeptMemory(CPU), KeptMemory(CPU)
    assert allocator._open == before + 2
    closed.close()
    closed.close()
    assert allocator._open == before + 1
    del forgotten
    gc.collect()
    assert allocator._open == before


def test_other_devices_and_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    with closing(KeptMemory(torch.device("cuda"))):
        pass
    monkeypatch.setattr(allocator.os, "confstr", lambda name: None)
    with closing(KeptMemory(CPU)):
        pass

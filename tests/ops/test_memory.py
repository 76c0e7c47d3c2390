from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from recdistill.ops import memory
from recdistill.ops.memory import freed_memory_kept

PAGES = 10 * 1024  # of 4 KiB: a block of 40 MiB, above what glibc keeps by itself


def faults(steps: int) -> int:
    """Page faults of steps that each need a large temporary block."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.empty(PAGES * 1024).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Pages of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.fixture(autouse=True)
def glibc() -> None:
    if None in memory._glibc():
        pytest.skip("the C library is not glibc")


def test_a_block_that_was_freed_is_taken_again() -> None:
    with freed_memory_kept():
        within = faults(16)
    assert within < 8 * PAGES  # the first ones may yet lie elsewhere


def test_afterwards_memory_goes_back() -> None:
    with freed_memory_kept():
        faults(1)
        kept = resident()
    assert resident() < kept - PAGES // 2


def test_within_another_it_lasts_until_the_outer_one_ends() -> None:
    with freed_memory_kept():
        with freed_memory_kept():
            faults(1)
        assert faults(16) < 8 * PAGES


def test_an_error_gives_memory_back_too() -> None:
    with pytest.raises(ValueError, match="stop"), freed_memory_kept():
        raise ValueError("stop")
    assert memory._inside == 0


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda: (None, None))
    with freed_memory_kept():
        assert memory._inside == 0

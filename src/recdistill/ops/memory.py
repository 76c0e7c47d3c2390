"""Memory that a process has freed, kept for its next step."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # glibc's names for mallopt
_MIB = 1 << 20

_inside = 0


@contextmanager
def freed_memory_kept() -> Generator[None]:
    """Large blocks that are freed within stay with the process, and the next block of the size takes them.

    By default glibc maps each block above 32 MiB anew and gives it back when it is freed, so that a step whose
    temporary tensors are as large pays for a page fault every 4 KiB. On leaving, what is free goes back to the
    system. Nothing happens where the C library is another one.
    """
    global _inside
    mallopt, trim = _glibc()
    if mallopt is None or trim is None:
        yield
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)  # as a size: never
    _inside += 1
    try:
        yield
    finally:
        _inside -= 1
        if _inside == 0:
            # where glibc's own thresholds, which move with what is freed, come to rest
            mallopt(_MMAP_MAX, 65536)
            mallopt(_MMAP_THRESHOLD, 32 * _MIB)
            mallopt(_TRIM_THRESHOLD, 64 * _MIB)
            trim(0)


@cache
def _glibc() -> tuple[Callable[[int, int], int] | None, Callable[[int], int] | None]:
    """``mallopt`` and ``malloc_trim``, where there are both."""
    if sys.platform != "linux":
        return None, None
    library = ctypes.CDLL(None)
    return getattr(library, "mallopt", None), getattr(library, "malloc_trim", None)

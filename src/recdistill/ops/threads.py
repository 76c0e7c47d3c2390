"""Work in blocks on several Python threads, each with torch to itself on one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def spread(work: Callable[[], None], workers: int, pending: deque[int]) -> None:
    """Run `work`, which takes from `pending` until it is empty, on several threads at once.

    After an error or Ctrl-C each thread ends with the block it is at.
    """
    if workers == 1:
        work()
        return
    threads = torch.get_num_threads()

    def alone() -> None:
        torch.set_num_threads(1)  # holds for this thread, and for threads that start while it runs
        work()

    try:
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(alone) for _ in range(workers)]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pending.clear()
                raise
    finally:
        torch.set_num_threads(threads)  # threads that start later begin with the caller's number again


def taken(pending: deque[int]) -> int | None:
    """The next block, or None where another thread took the last one."""
    try:
        return pending.popleft()
    except IndexError:
        return None

"""What numba compiles. A module here is imported when the first of its kernels is called, never before.

Kernels compile at their first call and are cached on disk. They take C-contiguous numpy arrays of one fixed
dtype each, so that there is one compiled version of each, and trust their arguments: the functions in
``recdistill.ops`` check them. Their results do not depend on the number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numba
import numba.core.config
import numba.np.ufunc.parallel
import torch

P = ParamSpec("P")
R = TypeVar("R")

# Sums may be reordered and fused, which lets loops use vector instructions; inf and NaN keep their meaning. Signs of
# zeros do too: where they were free, code from the cache gave −0 and freshly compiled code gave 0.
REORDER = {"reassoc", "contract"}

SMALL_WORK = 1 << 17

_njit: Callable[..., Any] = numba.njit  # numba's own types hide the signature of what they wrap
_most_threads: int = vars(numba.core.config)["NUMBA_NUM_THREADS"]
_lock = threading.Lock()
_launched = False
_turn: AbstractContextManager[object] = nullcontext()  # what a kernel with threads holds while it runs


def kernel(*, parallel: bool = False, reorder: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function at its first call, cached on disk where there is a place for it.

    Other Python threads run meanwhile.

    Args:
        parallel: whether its ``prange`` loops run on several threads.
        reorder: whether floating-point sums may be reordered.
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        # error_model numpy: a division by zero is inf, not a branch that stops loops from vectorising
        settings: dict[str, Any] = {
            "parallel": parallel,
            "nogil": True,
            "fastmath": REORDER if reorder else False,
            "error_model": "numpy",
        }
        try:
            compiled = _njit(cache=True, **settings)(function)
        except RuntimeError:  # no folder for the cache can be written: compile in each process
            compiled = _njit(**settings)(function)
        return _in_turn(compiled) if parallel else compiled

    return wrap


def _in_turn(compiled: Callable[P, R]) -> Callable[P, R]:
    @wraps(compiled)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with _turn:
            return compiled(*args, **kwargs)

    return call


def use_torch_threads(work: int | None = None) -> int:
    """Let the next kernel run on as many threads as torch does, and return that number.

    On Linux numba's OpenMP layer finds torch's OpenMP library loaded and shares its pool, so that the two
    never wait for each other's spinning threads.

    Args:
        work: numbers that the kernel reads or writes. Below 131,072 it gets one thread: less than 0.1 ms is
            not worth waking a second one, least of all on a machine with other things to do.
    """
    threads = torch.get_num_threads()
    if not _launched:
        _launch(threads)
    threads = 1 if work is not None and work < SMALL_WORK else min(threads, _most_threads)
    numba.set_num_threads(threads)
    return threads


def _launch(torch_threads: int) -> None:
    global _launched, _turn
    with _lock:
        numba.set_num_threads(1)
        # Starting numba's pool sets the number of threads of the shared OpenMP library, hence torch's.
        torch.set_num_threads(torch_threads)
        if numba.np.ufunc.parallel.threading_layer() == "workqueue":
            # Where numba finds no OpenMP library its own pool aborts the process if two kernels enter it at once.
            _turn = threading.Lock()
        _launched = True

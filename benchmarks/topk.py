"""Top-k over a catalogue: `recdistill.ops.top_k` against block matmul, masking and `torch.topk`.

    python benchmarks/topk.py [--repeat 5] [--threads 2]

Both run in turn on the same random tables, 20 items of each row excluded; the best time of each counts. Memory
is the peak of the process during the call above what it held before, the returned lists left out (Linux only).
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from recdistill.ops import Rows, top_k

CASES = {
    "citeulike-t, teacher, top 500": (5_219, 25_181, 400, 500),
    "citeulike-t, student, top 500": (5_219, 25_181, 20, 500),
    "citeulike-t, student, top 50": (5_219, 25_181, 20, 50),
    "citeulike-t, student, top 10": (5_219, 25_181, 20, 10),
    "a million items, top 100": (1_024, 1_000_000, 64, 100),
    "one user, top 10": (1, 25_181, 20, 10),
    "256 users, top 10": (256, 25_181, 20, 10),
}

Lists = tuple[Tensor, Tensor]


def blocks(rows: Tensor, items: Tensor, k: int, exclude: Rows, height: int = 256) -> Lists:
    """What one would write: the scores of 256 rows at a time, the excluded ones masked, `torch.topk`."""
    scores: list[Tensor] = []
    ids: list[Tensor] = []
    for start in range(0, len(rows), height):
        block = rows[start : start + height] @ items.T
        indptr = exclude.indptr[start : start + len(block) + 1]
        row = torch.repeat_interleave(torch.arange(len(block)), indptr.diff())
        block[row, exclude.items[int(indptr[0]) : int(indptr[-1])].long()] = -torch.inf
        best = block.topk(k, dim=1)
        scores.append(best.values)
        ids.append(best.indices)
    return torch.cat(scores), torch.cat(ids)


def agree(found: Lists, expected: Lists) -> str:
    """Say how many ids are the same, and whether the others are ties but for rounding."""
    differ = found[1] != expected[1]
    gap = ((found[0] - expected[0]).abs() / expected[0].abs().clamp(min=1e-30))[differ]
    worst = float(gap.max()) if gap.numel() else 0.0
    return f"{1 - float(differ.float().mean()):.4%}" + (
        "" if worst < 1e-5 else f" (scores differ by {worst:.0e})"
    )


def megabytes(field: str) -> float:
    """Read VmHWM (peak) or VmRSS (now) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def extra_memory(call: Callable[[], Lists]) -> float:
    """Peak memory of one call in MB, above what was held before and without its result."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)  # else the call may fill what earlier ones left to the process
    reset.write_text("5")
    before = megabytes("VmRSS")
    result = call()
    size = sum(tensor.numel() * tensor.element_size() for tensor in result) / 2**20
    return max(megabytes("VmHWM") - before - size, 0.0)


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{'case':32} {'blocks s':>9} {'top_k s':>9} {'ratio':>6} {'extra MB':>9}  same ids")
    for name, (num_rows, num_items, dim, k) in CASES.items():
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(num_rows, dim, generator=generator)
        items = torch.randn(num_items, dim, generator=generator)
        drawn = torch.randint(num_items // 20, (num_rows, 20), generator=generator)
        excluded = (drawn + torch.arange(20) * (num_items // 20)).int()  # ascending and unique in each row
        exclude = Rows(torch.arange(num_rows + 1) * 20, excluded.flatten())
        top_k(rows[:1], items, 1)  # compiles, once
        memory = extra_memory(lambda: top_k(rows, items, k, exclude=exclude))  # noqa: B023
        found, expected = top_k(rows, items, k, exclude=exclude), blocks(rows, items, k, exclude)
        theirs = ours = float("inf")
        for _ in range(arguments.repeat):
            started = time.perf_counter()
            blocks(rows, items, k, exclude)
            between = time.perf_counter()
            top_k(rows, items, k, exclude=exclude)
            theirs = min(theirs, between - started)
            ours = min(ours, time.perf_counter() - between)
        print(
            f"{name:32} {theirs:9.4f} {ours:9.4f} {ours / theirs:6.2f} {memory:9.1f}  {agree(found, expected)}",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Time and peak memory of `recdistill prepare` on generated interactions.

    python benchmarks/prepare.py --rows 10000000 --format parquet csv

Users are integers, items strings, popularity has a long tail, every row has a time and a rating. Each
format is prepared in a process of its own; its wall time and peak memory (imports included) are printed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

_CHILD = """
import sys
from recdistill.steps.prepare import prepare
from recdistill.progress import Silent

class Notes(Silent):
    def note(self, text):
        print("   ", text)

prepare(sys.argv[1], sys.argv[2], min_rating=2.0, min_user_interactions=5, min_item_interactions=5,
        split=sys.argv[3], force=True, progress=Notes())
"""


def generate(rows: int, users: int, items: int, seed: int = 0) -> pl.DataFrame:
    """``user`` (Int64, with gaps), ``item`` (String of 12 to 14 characters), ``rating``, ``timestamp``."""
    generator = np.random.default_rng(seed)
    item = np.floor(items * generator.random(rows) ** 3).astype(np.int64)
    user = np.floor(users * generator.random(rows) ** 2).astype(np.int64)
    return pl.DataFrame(
        {
            "user": user * 7919 + 13,
            "item": item,
            "rating": generator.integers(1, 6, rows).astype(np.float32),
            "timestamp": generator.integers(1_600_000_000, 1_700_000_000, rows),
        }
    ).with_columns(("product-" + pl.col("item").cast(pl.String)).alias("item"))


def measure(source: Path, out: Path, split: str) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak megabytes of one prepare in a fresh process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", _CHILD, str(source), str(out), split], check=True)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy, after.ru_maxrss / 1024


def main() -> None:
    """Generate, prepare each format, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--format", nargs="+", default=["parquet"], choices=["parquet", "csv", "jsonl"])
    parser.add_argument("--split", default="random", choices=["random", "leave-one-out", "temporal"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = generate(arguments.rows, arguments.users, arguments.items)
        writers = {"parquet": table.write_parquet, "csv": table.write_csv, "jsonl": table.write_ndjson}
        for name in arguments.format:
            source = Path(folder) / f"interactions.{name}"
            writers[name](source)
            # The peak of children never falls, so formats of growing appetite go last.
            seconds, busy, megabytes = measure(source, Path(folder) / "data", arguments.split)
            print(
                f"{name}: {arguments.rows:,} rows, {seconds:.1f} s ({busy:.1f} s of processor time), "
                f"peak {megabytes:,.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()

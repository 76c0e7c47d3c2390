"""The content of run files as the steps read it: a copy, in TOML's types, with overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recdistill.steps.runtables import out_of, place_of, read_tree


def test_what_the_caller_hands_over_stays_as_it_is() -> None:
    source: dict[str, Any] = {
        "out": Path("a"), "data": {"ratios": (0.8, 0.1, 0.1)}, "distill": ({"method": "rrd"},)
    }  # fmt: skip
    tree = read_tree(source, {"data.split": "random", "distill.rrd.weight": 2})
    assert tree == {
        "out": "a",
        "data": {"ratios": [0.8, 0.1, 0.1], "split": "random"},
        "distill": [{"method": "rrd", "weight": 2}],
    }
    assert source["data"] == {"ratios": (0.8, 0.1, 0.1)}
    assert source["distill"] == ({"method": "rrd"},)


def test_where_results_go(tmp_path: Path) -> None:
    assert place_of({"out": "a", "seed": 3}, "run") == (Path("a"), 3)
    assert place_of({}, "run") == (Path("runs/run"), 0)
    file, default = tmp_path / "run.toml", Path("runs/run")
    file.write_text("seed = 1\n")
    assert out_of(file, None, {}, default) == default
    assert out_of(file, None, {"out": "b"}, default) == Path("b")
    file.write_text('out = "a"\n')
    assert out_of(file, None, {}, default) == Path("a")
    assert out_of(file, None, {"out": "b"}, default) == Path("b")
    assert out_of(file, Path("c"), {"out": "b"}, default) == Path("c")

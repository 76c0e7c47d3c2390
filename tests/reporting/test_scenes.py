"""Names of data sets."""

from __future__ import annotations

from pathlib import Path

from recdistill.artifacts import step
from recdistill.reporting.runs import collect
from recdistill.reporting.scenes import scene_names
from report_helpers import make_model


def make_data(out: Path, source: str, seed: int = 0) -> str:
    with step(out, kind="data", options={}, seed=seed, inputs={"source": source}) as job:
        job.summary["source"] = source
    return job.hash


def test_data_are_called_by_their_source_where_that_tells_them_apart(tmp_path: Path) -> None:
    sources = {"one": "ml-1m", "two": "raw/shops.parquet", "three": "the table"}
    hashes = {name: make_data(tmp_path / name, source) for name, source in sources.items()}
    hashes["gone"] = "f" * 16
    for name, digest in hashes.items():
        make_model(tmp_path / f"model-{name}", {"data": digest}, epochs=1)
    found = scene_names(collect([tmp_path]))
    assert {name: found[digest] for name, digest in hashes.items()} == {
        "one": "ml-1m", "two": "shops", "three": "three", "gone": "f" * 16,
    }  # fmt: skip


def test_data_that_are_not_at_hand_are_called_by_the_folder_of_what_was_made_of_them(tmp_path: Path) -> None:
    for name in ("films", "shops"):
        for model in ("teacher", "student"):
            make_model(tmp_path / name / model, {"data": name[0] * 16}, epochs=1)
    found = scene_names(collect([tmp_path / "films", tmp_path / "shops"]))
    assert found == {"f" * 16: "films", "s" * 16: "shops"}


def test_splits_of_one_source_are_called_by_their_directories(tmp_path: Path) -> None:
    hashes = [make_data(tmp_path / f"split-{seed}", "ml-1m", seed) for seed in range(2)]
    for seed, digest in enumerate(hashes):
        make_model(tmp_path / f"model-{seed}", {"data": digest}, epochs=1)
    assert list(scene_names(collect([tmp_path])).values()) == ["split-0", "split-1"]

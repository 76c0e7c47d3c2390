"""Steps: what is reused, refused and replaced, and what a full disk leaves."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import recdistill
from artifact_helpers import beside, make, message, value_of
from recdistill import artifacts, directories
from recdistill.artifacts import fingerprint, read_manifest, step, write_json


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "out"


class TestStep:
    def test_makes_a_directory_with_its_manifest(self, out: Path) -> None:
        job = make(out, 1, inputs={"data": "abc"})
        manifest = read_manifest(out, "data")
        assert manifest == job.manifest
        assert not job.reused
        assert manifest.model_dump(exclude={"seconds", "created"}) == {
            "kind": "data",
            "format": artifacts.FORMAT,
            "options": {"value": 1},
            "seed": 0,
            "inputs": {"data": "abc"},
            "hash": fingerprint("data", {"value": 1}, 0, {"data": "abc"}),
            "version": recdistill.__version__,
            "summary": {"value": 1},
        }
        assert manifest.seconds >= 0
        assert manifest.created.endswith("+00:00")
        assert beside(out) == set()
        with pytest.raises(ValueError, match="frozen"):
            manifest.seed = 1

    def test_nothing_is_at_out_before_the_end(self, out: Path) -> None:
        with step(out, kind="data", options={}) as job:
            assert job.work.parent == out.parent
            assert job.work.name == f".out.partial-{job.hash}"
            assert not out.exists()
            with pytest.raises(RuntimeError):
                _ = job.manifest

    @pytest.mark.parametrize("force", [False, True])
    def test_an_input_is_never_replaced(self, out: Path, force: bool) -> None:
        teacher = make(out).manifest.hash
        said = message(lambda: make(out, 2, inputs={"teacher": teacher}, force=force))
        assert "out is what this step reads (teacher), and would be lost" in said
        assert value_of(out) == 1

    def test_the_same_call_is_reused(self, out: Path) -> None:
        first = make(out)
        before = (out / "manifest.json").stat().st_mtime_ns
        again = make(out)
        assert again.reused
        assert again.manifest == first.manifest
        assert again.summary == {"value": 1}
        assert not again.work.exists()
        assert (out / "manifest.json").stat().st_mtime_ns == before

    def test_reuse_needs_no_right_to_write(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make(out)

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        for name in ("open", "mkdir", "rename"):  # root may write anywhere, so rights cannot be taken away
            monkeypatch.setattr(os, name, refuse)
        assert make(out).reused
        assert "cannot write" in message(lambda: make(out.with_name("other")))

    def test_another_call_is_refused(self, out: Path) -> None:
        make(out, 1)
        said = message(lambda: make(out, 2))
        assert said == (
            f"{out} was made with other options: value 1 -> 2; "
            "pass --force to replace it, or choose another --out"
        )
        assert value_of(out) == 1
        assert beside(out) == set()

    def test_differences_are_named(self, out: Path) -> None:
        old = {
            "model": {"dim": 20, "name": "bpr"},
            "distill": [{"method": "rrd", "weight": 1}],
            "x": "y" * 500,
        }
        new = {
            "model": {"dim": 40, "name": "bpr"},
            "distill": [{"method": "rrd", "weight": 2}],
            "x": "z" * 500,
        }
        with step(out, kind="model", options=old, seed=0, inputs={"data": "aaa"}):
            pass

        def again() -> None:
            with step(out, kind="model", options=new | {"on": ["train"]}, seed=1, inputs={"data": "bbb"}):
                pass

        said = message(again)
        for part in (
            "model.dim 20 -> 40,",
            "distill.1.weight 1 -> 2,",
            "seed 0 -> 1,",
            'input data "aaa" -> "bbb",',
            'on absent -> ["train"]',
            "x ",
        ):
            assert part in said
        assert "model.name" not in said
        assert len(said) < 600

    def test_many_differences_are_counted(self, out: Path) -> None:
        with step(out, kind="model", options={f"o{i}": 0 for i in range(20)}):
            pass

        def again() -> None:
            with step(out, kind="model", options={f"o{i}": 1 for i in range(20)}):
                pass

        assert "o7 0 -> 1, and 12 more; pass --force" in message(again)

    @pytest.mark.parametrize("value", [1, 2])
    def test_force_replaces(self, out: Path, value: int) -> None:
        make(out, 1)
        (out / "stale").touch()
        assert not make(out, value, force=True).reused
        assert value_of(out) == value
        assert not (out / "stale").exists()
        assert beside(out) == set()

    @pytest.mark.parametrize("force", [False, True])
    def test_what_is_not_ours_is_never_replaced(self, out: Path, force: bool) -> None:
        out.mkdir(parents=True)
        (out / "thesis.txt").touch()
        found = message(lambda: make(out, force=force))
        assert "has no manifest.json" in found
        assert found.endswith("; choose another --out")
        write_json(out / "manifest.json", {"manifest_version": 3, "name": "a browser extension"})
        assert "another program's" in message(lambda: make(out, force=force))
        (out / "manifest.json").write_text("{")
        assert f"delete {out} and make it again, or choose another --out" in message(
            lambda: make(out, force=force)
        )
        assert (out / "thesis.txt").exists()

    @pytest.mark.parametrize("force", [False, True])
    def test_another_kind_is_never_replaced(self, out: Path, force: bool) -> None:
        make(out, kind="data")
        said = message(lambda: make(out, kind="model", force=force))
        assert said == f"{out} is of kind data, and model was to be written; choose another --out"
        assert value_of(out) == 1

    def test_an_empty_directory_is_used(self, out: Path) -> None:
        out.mkdir(parents=True)
        make(out)
        assert value_of(out) == 1
        assert beside(out) == set()

    def test_a_file_in_the_way(self, out: Path) -> None:
        out.parent.mkdir()
        out.touch()
        assert "is a file" in message(lambda: make(out))
        assert "cannot write" in message(lambda: make(out / "below"))

    @pytest.mark.parametrize("name", ["/", "x" * 250, "x" * 300])
    def test_impossible_names(self, tmp_path: Path, name: str) -> None:
        message(lambda: make(tmp_path / name))

    def test_a_linked_directory_stays_linked(self, out: Path, tmp_path: Path) -> None:
        real = tmp_path / "disk" / "real"
        make(real, 1)
        out.parent.mkdir()
        out.symlink_to(real)
        make(out, 2, force=True)
        assert out.is_symlink()
        assert value_of(real) == 2
        assert beside(out) == beside(real) == set()

    def test_relative_paths(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out.parent.mkdir()
        monkeypatch.chdir(out.parent)
        assert make(Path("out")).out == Path("out")
        assert value_of(out) == 1

    def test_tuples_and_whole_floats_are_the_same_options(self, out: Path) -> None:
        with step(out, kind="x", options={"ks": (5, 10), "weight": 1}):
            pass
        with step(out, kind="x", options={"ks": [5, 10], "weight": 1.0}) as job:
            assert job.reused


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
class TestNoSpace:
    def full(self, number: int) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return fail

    def test_while_writing_a_file(self, out: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        make(out, 1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", self.full(number))
            said = message(lambda: make(out, 2, force=True))
        assert said.startswith("no space left")
        assert "needs 2 bytes, " in said
        assert " free; free some space or choose another --out" in said
        assert value_of(out) == 1
        assert beside(out) == set()

    def test_while_publishing(self, out: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        make(out, 1)
        with monkeypatch.context() as patch:
            patch.setattr(directories, "sync_tree", self.full(number))
            assert message(lambda: make(out, 2, force=True)).startswith("no space left")
        assert value_of(out) == 1

    def test_in_a_write_of_the_blocks_own(self, out: Path, number: int) -> None:
        make(out, 1)

        def run() -> None:
            with step(out, kind="data", options={"value": 2}, seed=0, force=True):
                self.full(number)()

        assert message(run).startswith("no space left")
        assert value_of(out) == 1


def test_other_errors_of_the_block_are_its_own(out: Path) -> None:
    def run() -> None:
        with step(out, kind="data", options={}):
            Path("/nonexistent/file").read_bytes()

    with pytest.raises(FileNotFoundError):
        run()

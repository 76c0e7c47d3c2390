"""Interrupted steps, repair after kills, and the one writer a directory has."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from artifact_helpers import beside, make, message, value_of
from recdistill import artifacts, directories
from recdistill.artifacts import fingerprint, read_json, read_manifest, step, write_json
from recdistill.errors import ArtifactError


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "out"


class TestInterrupted:
    def stop(self, out: Path, error: BaseException, **flags: Any) -> Path:
        def run() -> None:
            with step(out, kind="data", options={"value": 2}, seed=0, **flags) as job:
                write_json(job.work / "checkpoint.json", 5)
                raise error

        with pytest.raises(type(error)):
            run()
        return out.with_name(f".out.partial-{fingerprint('data', {'value': 2}, 0, {})}")

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("x"), ArtifactError("x")])
    def test_keeps_the_work_and_the_old_result(self, out: Path, error: BaseException) -> None:
        make(out, 1)
        work = self.stop(out, error, force=True)
        assert read_json(work / "checkpoint.json") == 5
        assert value_of(out) == 1
        assert beside(out) == {work.name}

    def test_resume_finds_the_work(self, out: Path) -> None:
        work = self.stop(out, KeyboardInterrupt())
        (work / ".weights.tmp-0123abcd").touch()
        with step(out, kind="data", options={"value": 2}, seed=0, resume=True) as job:
            assert job.resumed
            assert job.work == work
            assert [path.name for path in work.iterdir()] == ["checkpoint.json"]
        assert beside(out) == set()

    def test_without_resume_the_work_is_emptied(self, out: Path) -> None:
        self.stop(out, KeyboardInterrupt())
        with step(out, kind="data", options={"value": 2}, seed=0) as job:
            assert not job.resumed
            assert not any(job.work.iterdir())

    def test_resume_without_work_starts_afresh(self, out: Path) -> None:
        assert not make(out, resume=True).resumed

    def test_resume_does_not_take_another_calls_work(self, out: Path) -> None:
        work = self.stop(out, KeyboardInterrupt())
        assert not make(out, 3, resume=True).resumed
        assert beside(out) == {work.name}

    def test_nothing_written_leaves_nothing(self, out: Path) -> None:
        def run() -> None:
            with step(out, kind="data", options={}):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run()
        assert not out.parent.exists()  # it was made for this
        out.parent.mkdir()
        with pytest.raises(KeyboardInterrupt):
            run()
        assert list(out.parent.iterdir()) == []

    def test_finished_but_not_renamed(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(artifacts, "publish", interrupt)
            with pytest.raises(KeyboardInterrupt):
                make(out)
        assert make(out, resume=True).reused
        assert value_of(out) == 1
        assert beside(out) == set()

    def test_a_missing_directory_hints_at_its_unfinished_work(self, out: Path) -> None:
        self.stop(out, KeyboardInterrupt())
        assert "run its step again with --resume" in message(lambda: read_manifest(out))

    @pytest.mark.parametrize("failing", [1, 2])
    def test_a_failed_rename_puts_the_old_back(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, failing: int
    ) -> None:
        make(out, 1)
        real, calls = os.rename, [0]

        def rename(*args: Any) -> None:
            calls[0] += 1
            if calls[0] == failing:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", rename)
            assert "cannot write" in message(lambda: make(out, 2, force=True))
        assert out.exists()
        assert value_of(out) == 1
        assert not any(name.endswith(".old") for name in beside(out))


class TestRecovery:
    def test_a_reader_puts_the_old_back(self, out: Path) -> None:
        make(out, 1)
        out.rename(out.with_name(".out.old"))
        assert value_of(out) == 1
        assert beside(out) == set()

    @pytest.mark.parametrize("force", [False, True])
    def test_so_does_a_writer(self, out: Path, force: bool) -> None:
        make(out, 1)
        out.rename(out.with_name(".out.old"))
        assert make(out, 1, force=force).reused != force
        assert beside(out) == set()

    def test_an_old_one_beside_the_new_is_deleted_by_the_next_writer(self, out: Path) -> None:
        make(out, 1)
        shutil.copytree(out, out.with_name(".out.old"))
        assert value_of(out) == 1  # a reader leaves it
        make(out, 2, force=True)
        assert value_of(out) == 2
        assert beside(out) == set()

    def test_a_half_deleted_one_is_no_result(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def killed(folder: Path) -> None:
            (folder / "value.json").unlink()
            raise KeyboardInterrupt

        make(out, 1)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", killed)
            with pytest.raises(KeyboardInterrupt):
                make(out, 2, force=True)
        assert beside(out) == {".out.old"}
        shutil.rmtree(out)  # by the user, who may do so
        assert "does not exist" in message(lambda: read_manifest(out))
        make(out, 2)
        assert value_of(out) == 2
        assert beside(out) == set()

    def test_a_reader_waits_for_a_writer_between_its_renames(
        self, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(out, 1)
        out.rename(out.with_name(".out.old"))
        with directories.locked(out.with_name(".out.lock"), "out"):
            waits: list[float] = []

            def sleep(seconds: float) -> None:
                waits.append(seconds)
                if len(waits) == 3:  # the writer goes on
                    out.with_name(".out.old").rename(out)

            monkeypatch.setattr(directories.time, "sleep", sleep)
            assert value_of(out) == 1
        assert len(waits) == 3


class TestSecondWriter:
    def test_is_refused_at_once(self, out: Path) -> None:
        with step(out, kind="data", options={"value": 1}):
            said = message(lambda: make(out, 2))
            assert said == (
                f"{out} is being written by process {os.getpid()}; wait for it to end or choose another --out"
            )
        assert beside(out) == set()

    def test_a_result_made_meanwhile_is_reused(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = artifacts.locked

        def slow(*args: Any) -> Any:
            monkeypatch.setattr(artifacts, "locked", real)
            make(out)  # between this call's first look and its lock
            return real(*args)

        monkeypatch.setattr(artifacts, "locked", slow)
        assert make(out).reused

    def test_a_left_lock_file_does_not_lock(self, out: Path) -> None:
        out.parent.mkdir()
        out.with_name(".out.lock").write_text("12345")
        make(out)
        assert beside(out) == set()

    def test_a_lock_deleted_by_its_holder_is_not_held(
        self, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import fcntl

        out.parent.mkdir()
        real, calls = fcntl.flock, [0]

        def flock(descriptor: int, operation: int) -> None:
            calls[0] += 1
            if calls[0] == 1:  # the former holder deletes the file between our open and our lock
                out.with_name(".out.lock").unlink()
            real(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", flock)
        with step(out, kind="data", options={}):
            assert out.with_name(".out.lock").exists()
        assert calls[0] == 2

"""Steps in processes of their own: killed, interrupted, locked out, or out of disk."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from artifact_helpers import beside, message
from recdistill.artifacts import read_json, read_manifest, step, write_json
from recdistill.errors import ArtifactError

FILES = ("a.json", "b.json", "sub/c.json")

MAKE = """
import os, signal, sys, time
from pathlib import Path
from recdistill.artifacts import read_json, read_manifest, step, write_json
from recdistill.errors import ArtifactError

FILES = ("a.json", "b.json", "sub/c.json")

def make(out, version, **flags):
    with step(out, kind="data", options={"version": version}, **flags) as job:
        if not job.reused:
            (job.work / "sub").mkdir(exist_ok=True)
            for name in FILES:
                write_json(job.work / name, version)

def version_of(out):
    version = read_manifest(out).options["version"]
    assert [read_json(out / name) for name in FILES] == [version] * 3
    return version
"""

# The child dies just before its n-th call to the system, for every n until it gets to its end; then a reader
# must find the old result or the new, whole, and the next writer must end with the new and nothing beside it.
EVERY_POINT = """
os.fsync = lambda descriptor: None  # slow, and of no help against a kill
CALLS = ["close", "fsync", "mkdir", "open", "pwrite", "rename", "replace", "rmdir", "truncate", "unlink"]

def die_at(n):
    count = 0
    for name in CALLS:
        def counted(*args, real=getattr(os, name), **kwargs):
            nonlocal count
            count += 1
            if count == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        setattr(os, name, counted)

root, had_old = Path(sys.argv[1]), sys.argv[2] == "old"
found = []
for n in range(1, 10_000):
    out = root / str(n) / "out"
    if had_old:
        make(out, "old")
    child = os.fork()
    if child == 0:
        die_at(n)
        make(out, "new", force=had_old)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    try:
        found.append(version_of(out))
    except ArtifactError as error:
        assert "does not exist" in str(error) and not had_old, error
        found.append("none")
    make(out, "new", force=True, resume=n % 2 == 0)
    assert version_of(out) == "new"
    assert os.listdir(out.parent) == ["out"], (n, os.listdir(out.parent))
    if status == 0:
        break
    assert os.WIFSIGNALED(status), status
print(*found)
"""


def run(code: str, *arguments: object, limit: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)


@pytest.mark.parametrize("old", ["old", "none"])
def test_a_kill_at_any_moment_leaves_the_old_result_or_the_new(tmp_path: Path, old: str) -> None:
    done = run(MAKE + EVERY_POINT, tmp_path, old)
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    turn = found.index("new")
    assert len(found) > 30
    assert turn > 20
    assert found == [old] * turn + ["new"] * (len(found) - turn)


LOOP = """
out, count = Path(sys.argv[1]), 1
make(out, count, force=True)
print("ready", flush=True)
while True:
    count += 1
    make(out, count, force=True)
"""


def test_kills_from_outside(tmp_path: Path) -> None:
    out, versions = tmp_path / "out", []
    for delay in (0.05, 0.083, 0.127, 0.2):
        with started(MAKE + LOOP, out) as process:
            time.sleep(delay)
            process.kill()
            process.wait()
        version = read_manifest(out).options["version"]
        assert [read_json(out / name) for name in FILES] == [version] * 3
        versions.append(version)
    assert max(versions) > 1
    with step(out, kind="data", options={}, force=True) as job:
        write_json(job.work / "a.json", 0)
    assert out.exists()
    assert not {name for name in beside(out) if "partial" not in name}


HOLD = """
with step(sys.argv[1], kind="data", options={"version": 1}) as job:
    write_json(job.work / "checkpoint.json", 7)
    print("ready", flush=True)
    time.sleep(60)
"""


@contextmanager
def started(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has printed its first line."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_a_second_writer_is_refused_at_once_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def enter() -> None:
        with step(out, kind="data", options={"version": 2}):
            pass

    with started(MAKE + HOLD, out) as process:
        begun = time.monotonic()
        assert message(enter).startswith(f"{out} is being written by process {process.pid};")
        assert time.monotonic() - begun < 1
        process.kill()
        process.wait()
        assert (tmp_path / ".out.lock").exists()
        enter()
    assert read_manifest(out).options == {"version": 2}
    assert not (tmp_path / ".out.lock").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_work_of_a_stopped_process_is_resumed(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    with started(MAKE + HOLD, out) as process:
        process.send_signal(number)
        process.wait(10)
    assert not out.exists()
    with pytest.raises(ArtifactError, match="--resume"):
        read_manifest(out)
    with step(out, kind="data", options={"version": 1}, resume=True) as job:
        assert job.resumed
        assert read_json(job.work / "checkpoint.json") == 7
    assert beside(out) == set()


# Enough to fill two megabytes; random, so that Parquet cannot shrink it.
TOO_MUCH = """
import polars as pl, torch
from recdistill.artifacts import save_arrays, write_table
out = Path(sys.argv[1])
values = torch.randint(0, 2**62, (500_000,))
table = pl.DataFrame({"a": values.numpy()})
make(out, "old")
LIMIT
for write in (
    lambda work: save_arrays(work / "weights.safetensors", {"a": values}),
    lambda work: write_table(work / "table.parquet", table),
    lambda work: write_json(work / "big.json", "x" * 4_000_000),
    lambda work: (work / "history.jsonl").write_text("x" * 4_000_000),
):
    try:
        with step(out, kind="data", options={"version": "new"}, force=True) as job:
            write(job.work)
        raise SystemExit("written")
    except ArtifactError as error:
        print(error)
    assert version_of(out) == "old"
"""


def check_full(lines: list[str], reason: str) -> None:
    assert len(lines) == 4
    needs = ["needs 4 MB, ", "needs 4 MB, ", "needs 4 MB, ", ""]
    names = ["weights.safetensors", "table.parquet", "big.json", "out"]
    for line, name, need in zip(lines, names, needs, strict=True):
        assert line.startswith(f"{reason} for ")
        assert f"{name}: {need}" in line
        assert line.endswith(" free; free some space or choose another --out")


def test_a_limit_on_file_size(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    done = run(MAKE + TOO_MUCH.replace("LIMIT", limit), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    check_full(done.stdout.splitlines(), "no space left (File too large)")


def test_a_full_disk(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=2m tmpfs {tmp_path}"
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, mount], capture_output=True, check=False).returncode
    ):
        pytest.skip("no right to mount a small file system here")
    script = tmp_path.with_name("script.py")
    script.write_text(MAKE + TOO_MUCH.replace("LIMIT", ""))
    command = f"{mount}; exec {sys.executable} {script} {tmp_path}/out"
    done = subprocess.run([*unshare, command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    check_full(done.stdout.splitlines(), "no space left")

"""Directories with manifests: every step reads some and writes one, whole or not at all.

A step works in ``.OUT.partial-<hash>`` beside OUT and renames it at the end. The hash covers what decides the
result: kind, format, options, seed and the hashes of the inputs; the same call finds its result, another is
refused.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import recdistill
from recdistill.atomic import full_error, storage_errors
from recdistill.directories import MANIFEST, beside, parents, prepare, publish, recover, restore
from recdistill.errors import ArtifactError
from recdistill.files import (
    array_shapes,
    load_arrays,
    read_json,
    read_table,
    save_arrays,
    write_json,
    write_table,
)
from recdistill.locks import locked
from recdistill.manifests import FORMAT, Manifest, fingerprint, hash_files, read_manifest

__all__ = [
    "FORMAT",
    "Job",
    "Manifest",
    "array_shapes",
    "fingerprint",
    "hash_files",
    "load_arrays",
    "read_json",
    "read_manifest",
    "read_table",
    "save_arrays",
    "step",
    "write_json",
    "write_table",
]

_ABSENT = object()


@dataclass
class Job:
    """A step under way, as ``step`` hands it to its block.

    Attributes:
        out: the directory to be made, as the caller named it.
        work: where the block writes; it becomes ``out`` at the end of the block.
        hash: fingerprint of the call.
        reused: ``out`` is there already, with the same hash: the block must write nothing.
        resumed: ``work`` holds what an interrupted run of the same call left.
        dropped: names of the files that an interrupted run of the same call had left, and that are deleted now.
        summary: figures that the block puts into the manifest.
    """

    out: Path
    work: Path
    hash: str
    reused: bool = False
    resumed: bool = False
    dropped: frozenset[str] = frozenset()
    summary: dict[str, Any] = field(default_factory=dict[str, Any])
    finished: Manifest | None = field(default=None, repr=False)

    @property
    def manifest(self) -> Manifest:
        """The manifest of ``out``: as found or, once the block has ended, as just made."""
        if self.finished is None:
            raise RuntimeError("the manifest is written when the step's block ends")
        return self.finished


@contextmanager
def step(
    out: Path | str,
    *,
    kind: str,
    options: Mapping[str, Any],
    seed: int | None = None,
    inputs: Mapping[str, str] | None = None,
    force: bool = False,
    resume: bool = False,
) -> Generator[Job]:
    """Make one directory, or find that it is made.

    Args:
        out: the directory to make.
        kind: what it holds.
        options: the step's resolved options, JSON-able.
        seed: its seed, or None.
        inputs: hash of each input, by name.
        force: replace a directory of the same kind that is there.
        resume: go on from what an interrupted run of the same call left in ``job.work``.

    Yields:
        The job. Where ``job.reused``, the block writes nothing and reads ``job.out``; else it writes to
        ``job.work``, which is renamed to ``out`` at the end of the block. When the block fails, ``job.work``
        stays, for ``resume``, if anything is written there.

    Raises:
        ArtifactError: ``out`` holds something else, another process is writing it, or no space is left.
    """
    place = Path(out).resolve()
    call = {"kind": kind, "format": FORMAT, "options": options, "seed": seed, "inputs": inputs or {}}
    call = json.loads(json.dumps(call))  # as the manifest will give it back
    digest = fingerprint(kind, options, seed, inputs)
    job = Job(Path(out), beside(place, f"partial-{digest}"), digest)
    # Looked for before locking too: a finished result must be found where nothing may be written.
    with storage_errors(job.out):
        made = not force and _is_made(job, place, call)
    if made:
        yield job
        return
    started = time.monotonic()
    with parents(place, job.out), locked(beside(place, "lock"), str(out)):
        if _open(job, place, call, force, resume):
            yield job
            return
        try:
            yield job
            job.finished = _finish(job, place, call, time.monotonic() - started)
        except OSError as error:  # from a write of the block's own
            full = full_error(error, job.out)
            if full is None:
                raise
            raise full from error
        finally:
            if job.work.is_dir() and not any(p.is_file() and p.stat().st_size for p in job.work.rglob("*")):
                shutil.rmtree(job.work, ignore_errors=True)  # nothing to go on from


def _open(job: Job, place: Path, call: Mapping[str, Any], force: bool, resume: bool) -> bool:
    """Prepare ``job.work``; True where the result turns out to be there already."""
    with storage_errors(job.out):
        restore(place)
        if _is_made(job, place, call, force):  # another process may have made it since the first look
            return True
        if not resume:
            job.dropped = frozenset(path.name for path in job.work.rglob("*"))
        job.resumed = prepare(job.work, resume)
        if resume and (job.work / MANIFEST).is_file():  # killed after its last file, before the rename
            read_manifest(job.work)
            publish(job.work, place)
            return _is_made(job, place, call)
        return False


def _finish(job: Job, place: Path, call: Mapping[str, Any], seconds: float) -> Manifest:
    manifest = Manifest(
        **call,
        hash=job.hash,
        version=recdistill.__version__,
        seconds=round(seconds, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        summary=job.summary,
    )
    write_json(job.work / MANIFEST, manifest.model_dump(mode="json"))
    with storage_errors(job.out):
        publish(job.work, place)
    return manifest


def _is_made(job: Job, place: Path, call: Mapping[str, Any], force: bool = False) -> bool:
    """True where OUT is what the call makes; an error where it is something else that may not be replaced."""
    recover(place)
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return False
    try:
        found = read_manifest(job.out)
    except ArtifactError as error:
        other = "choose another --out"
        raise ArtifactError(error.message, f"{error.hint}, or {other}" if error.hint else other) from error
    if found.kind != call["kind"]:
        raise ArtifactError(
            f"{job.out} is of kind {found.kind}, and {call['kind']} was to be written", "choose another --out"
        )
    for name, digest in call["inputs"].items():
        if found.hash == digest:
            raise ArtifactError(
                f"{job.out} is what this step reads ({name}), and would be lost", "choose another --out"
            )
    if force:
        return False
    if found.hash != job.hash:
        raise ArtifactError(
            f"{job.out} was made with other options: {_differences(found, call)}",
            "pass --force to replace it, or choose another --out",
        )
    job.reused, job.finished, job.summary = True, found, dict(found.summary)
    return True


def changed(path: Path, options: Mapping[str, Any]) -> str:
    """What differs between the options that a result was made with and ``options``; empty where nothing does."""
    found = read_manifest(path)
    return _differences(found, {**found.model_dump(), "options": json.loads(json.dumps(options))})


def _differences(found: Manifest, call: Mapping[str, Any], most: int = 8) -> str:
    """What differs between a result and a call, as ``name old -> new``."""
    old, new = (
        _flat(side["options"])
        | {"seed": side["seed"], "format": side["format"]}
        | {f"input {name}": digest for name, digest in side["inputs"].items()}
        for side in (found.model_dump(), call)
    )
    changed = [
        f"{name} {_shown(old, name)} -> {_shown(new, name)}"
        for name in {**old, **new}
        if old.get(name, _ABSENT) != new.get(name, _ABSENT)
    ]
    more = f", and {len(changed) - most} more" if len(changed) > most else ""
    return ", ".join(changed[:most]) + more


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested options by their dotted path; the entries of a list of tables count from 1."""
    if isinstance(value, dict) and (value or not path):
        entries = value.items()
    elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        entries = enumerate(value, 1)
    else:
        return {path: value}
    nested = (_flat(entry, f"{path}.{key}" if path else str(key)) for key, entry in entries)
    return {name: leaf for leaves in nested for name, leaf in leaves.items()}


def _shown(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "absent"
    text = json.dumps(values[name], ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:38]}...{text[-38:]}"

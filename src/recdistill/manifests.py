"""What a directory is and how it was made: the manifest, and the hash by which a finished step is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

import recdistill
from recdistill.atomic import unreadable
from recdistill.directories import MANIFEST, leftovers, recover
from recdistill.errors import ArtifactError
from recdistill.files import read_json

FORMAT = 1

_MAKERS = {"data": "prepare", "model": "train", "knowledge": "extract", "evaluation": "evaluate"}


class Manifest(BaseModel):
    """What a directory is and how it was made.

    Knowledge that another program wrote needs only ``kind``, ``format`` and ``inputs``: its hash is that of its files.

    Attributes:
        kind: what the directory holds: ``data``, ``model``, ``knowledge``, ...
        format: version of the directory's layout.
        options: the resolved options of the step.
        seed: the step's seed, or None.
        inputs: hash of each input, by name.
        hash: ``fingerprint`` of all of the above.
        version: the package that wrote it; empty for another program.
        seconds: time that the step took; of a resumed step, its last run.
        created: when it ended, ISO 8601, UTC.
        summary: figures of the result, for tables and lineage.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    kind: str
    format: int
    options: dict[str, Any]
    seed: int | None
    inputs: dict[str, str]
    hash: str
    version: str
    seconds: float
    created: str
    summary: dict[str, Any]

    @property
    def on(self) -> tuple[str, ...]:
        """The splits that a model, or the teacher of a store, was fitted on: ``train``, ``valid`` too if refitted."""
        return tuple(self.options.get("on") or self.summary.get("on") or ("train",))


_ELSEWHERE: dict[str, Any] = {
    "options": {}, "seed": None, "version": "", "seconds": 0.0, "created": "", "summary": {}
}  # fmt: skip
"""What knowledge that another program wrote may leave out, beside its hash."""


def fingerprint(
    kind: str, options: Mapping[str, Any], seed: int | None, inputs: Mapping[str, str] | None
) -> str:
    """Hash of what decides a step's result: 16 hexadecimal digits.

    Args:
        kind: what the step makes.
        options: its resolved options, JSON-able.
        seed: its seed, or None.
        inputs: hash of each input, by name.

    Raises:
        TypeError: an option has no JSON form.
        ValueError: a number is not finite.
    """
    call = {"kind": kind, "format": FORMAT, "options": options, "seed": seed, "inputs": inputs or {}}
    text = json.dumps(_plain(call), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """``value`` as JSON gives it back, with 1.0 as 1: what compares equal must have an equal hash."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def hash_files(paths: Iterable[Path | str]) -> str:
    """Hash of the contents of files in the order given, whatever their names: 16 hexadecimal digits.

    Raises:
        ArtifactError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror}", "check the path") from error
    return digest.hexdigest()[:16]


def read_manifest(path: Path | str, kind: str | tuple[str, ...] | None = None) -> Manifest:
    """Read the manifest of a directory, putting back what a killed writer had set aside.

    Args:
        path: the directory.
        kind: the kind, or kinds, that it must hold; None: any.

    Raises:
        ArtifactError: nothing there, no directory of ours, damaged, of another kind, or of a newer format.
    """
    path = Path(path)
    try:
        return _read(path, kind)
    except OSError as error:
        raise unreadable(path, error) from error


def _read(path: Path, kind: str | tuple[str, ...] | None) -> Manifest:
    place = path.resolve()
    if place.name:
        recover(place)
    if not place.is_dir():
        found = "is a file" if place.exists() else "does not exist"
        unfinished = "an unfinished one lies beside it: run its step again with --resume"
        hint = unfinished if leftovers(place) else _made_by(kind)
        raise ArtifactError(f"{path} {found}; expected a directory {_of_kind(kind)}", hint)
    if not (place / MANIFEST).is_file():
        raise ArtifactError(
            f"{path} has no {MANIFEST}; expected a directory {_of_kind(kind)}", _made_by(kind)
        )
    manifest = _parse(place / MANIFEST, path)
    kinds = (kind,) if isinstance(kind, str) else kind
    if kinds is not None and manifest.kind not in kinds:
        raise ArtifactError(
            f"{path} is of kind {manifest.kind}; expected a directory {_of_kind(kind)}", _made_by(kind)
        )
    return manifest


def _parse(file: Path, path: Path) -> Manifest:
    remake = f"delete {path} and make it again"
    try:
        raw = read_json(file)
    except ArtifactError as error:  # --force deletes only what is known to be ours, so it cannot help here
        raise ArtifactError(error.message, remake) from error
    found = raw.get("format") if isinstance(raw, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise ArtifactError(
            f"{path} has format {found}, written by recdistill {raw.get('version', '?')}; "
            f"this is {recdistill.__version__}, which reads formats up to {FORMAT}",
            "upgrade recdistill",
        )
    if (
        isinstance(raw, dict)
        and raw.get("kind") == "knowledge"
        and "version" not in raw
        and "hash" not in raw
    ):
        files = sorted((*path.rglob("*.safetensors"), *path.glob("*.parquet")))
        raw = {**_ELSEWHERE, **raw, "hash": hash_files([file, *files])}
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ArtifactError(
            f"{path / MANIFEST} is damaged, or another program's: {where}: {first['msg']}", remake
        ) from error


def _made_by(kind: str | tuple[str, ...] | None) -> str:
    """Which command makes such a directory."""
    kinds = (kind,) if isinstance(kind, str) else kind or ()
    commands = [_MAKERS[name] for name in kinds if name in _MAKERS]
    return f"make it with: recdistill {' or '.join(commands)}" if commands else ""


def _of_kind(kind: str | tuple[str, ...] | None) -> str:
    kinds = (kind,) if isinstance(kind, str) else kind
    return f"of kind {' or '.join(kinds)}" if kinds else "made by recdistill"

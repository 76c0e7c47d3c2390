"""Which directories a page is made from: those named, those in a run folder, those found by hash."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from recdistill.artifacts import Manifest, read_json, read_manifest
from recdistill.directories import MANIFEST, beside
from recdistill.errors import ArtifactError, OptionError


@dataclass(frozen=True)
class Directory:
    """A directory with a manifest, under the name that the page gives it."""

    name: str
    path: Path
    manifest: Manifest


@dataclass(frozen=True)
class Epoch:
    """A line of ``history.jsonl``: the mean loss, its terms, the validation metrics and the methods' facts if any."""

    epoch: int
    loss: float | None
    losses: Mapping[str, float]
    metric: Mapping[str, float]
    rows_per_second: float | None
    seconds: float | None
    facts: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, dict[str, float]])
    validation_seconds: float | None = None


@dataclass(frozen=True)
class Collection:
    """The directories of a page by kind, each in the order given; no hash occurs twice."""

    evaluations: tuple[Directory, ...]
    models: tuple[Directory, ...]
    others: tuple[Directory, ...]

    @property
    def all(self) -> tuple[Directory, ...]:
        """Every directory: what came first in the line first."""
        return (*self.others, *self.models, *self.evaluations)

    def find(self, digest: str) -> Directory | None:
        """The directory with this hash, if it is here."""
        return next((one for one in self.all if one.manifest.hash == digest), None)


def collect(runs: Sequence[str | Path]) -> Collection:
    """Read the manifests of ``runs`` and of what they were made from, as far as that is still at hand.

    A run is an evaluation, a model or another directory of this package, or a folder that holds some. The
    models that an evaluation names and the inputs of any of them are looked for where the evaluation says and
    among neighbouring folders, and are taken only if their hash is the one asked for.

    Raises:
        OptionError: no run is given.
        ArtifactError: a run does not exist or holds nothing of ours, or neither an evaluation nor a model.
    """
    if not runs:
        raise OptionError(
            "expected at least one run to report on, found none", "name evaluations, models or run folders"
        )
    found: dict[str, Directory] = {}
    for run in runs:
        for path in _expand(Path(run)):
            _add(found, path)
    for directory in list(found.values()):
        # pages of earlier calls live in run folders too; they are no source of a page
        if directory.manifest.kind != "report":
            _add_linked(found, directory)
    directories = _distinct_names(found.values())
    kinds = dict.fromkeys(one.manifest.kind for one in directories)
    by_kind = {kind: tuple(one for one in directories if one.manifest.kind == kind) for kind in kinds}
    evaluations, models = by_kind.pop("evaluation", ()), by_kind.pop("model", ())
    by_kind.pop("report", None)
    if not evaluations and not models:
        names = ", ".join(str(run) for run in runs)
        raise ArtifactError(
            f"expected an evaluation or a model, found {_counted(directories)} in {names}",
            "name what 'recdistill evaluate' or 'recdistill train' wrote",
        )
    return Collection(evaluations, models, tuple(one for group in by_kind.values() for one in group))


def read_history(model: Path) -> tuple[Epoch, ...]:
    """The epochs of a model's ``history.jsonl``; empty where the file is absent.

    Raises:
        ArtifactError: a line is no JSON object with an epoch.
    """
    path = model / "history.jsonl"
    if not path.exists():
        return ()
    epochs: list[Epoch] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            epochs.append(_epoch(path, number, line))
    return tuple(epochs)


def read_metrics(evaluation: Path) -> Mapping[str, Any]:
    """The content of an evaluation's ``metrics.json``."""
    tree: object = read_json(evaluation / "metrics.json")
    if not isinstance(tree, dict):
        raise ArtifactError(
            f"{evaluation / 'metrics.json'}: expected a JSON object, found {type(tree).__name__}"
        )
    return cast("dict[str, Any]", tree)


def _epoch(path: Path, number: int, line: str) -> Epoch:
    try:
        tree = json.loads(line)
        return Epoch(
            epoch=int(tree["epoch"]),
            loss=_number(tree.get("loss")),
            losses=_numbers(tree.get("losses")),
            metric=_numbers(tree.get("metric")),
            rows_per_second=_number(tree.get("rows_per_second")),
            seconds=_number(tree.get("seconds")),
            validation_seconds=_number(tree.get("validation_seconds")),
            facts={method: _numbers(facts) for method, facts in (tree.get("facts") or {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path}:{number}: expected a JSON object with an 'epoch', found {line[:60]!r}",
            "remove the damaged line, or train again",
        ) from error


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _numbers(value: object) -> dict[str, float]:
    items = cast("dict[str, object]", value).items() if isinstance(value, dict) else ()
    return {name: number for name, one in items if (number := _number(one)) is not None}


def _expand(run: Path) -> list[Path]:
    """The directories that a run stands for: itself, or those that it holds."""
    if not run.exists() and not beside(run.resolve(), "old").exists():
        raise ArtifactError(f"{run}: expected a directory, found nothing", "check the path")
    if (run / MANIFEST).exists() or beside(run.resolve(), "old").exists():
        return [run]
    inside = _children(run) if run.is_dir() else []
    if not inside:
        raise ArtifactError(
            f"{run}: expected a directory made by recdistill or a folder of such, found no {MANIFEST}",
            "name an evaluation, a model or a run folder",
        )
    return inside


def _children(folder: Path) -> list[Path]:
    names = sorted(one for one in folder.iterdir() if not one.name.startswith("."))
    return [one for one in names if (one / MANIFEST).exists()]


def _add(found: dict[str, Directory], path: Path) -> None:
    manifest = read_manifest(path)
    found.setdefault(manifest.hash, Directory(path.resolve().name, path, manifest))


def _add_linked(found: dict[str, Directory], start: Directory) -> None:
    """Add what ``start`` was made from, and what that was made from, where it can be found."""
    waiting = [start]
    while waiting:
        directory = waiting.pop()
        wanted = {digest for digest in directory.manifest.inputs.values() if digest not in found}
        for path in _candidates(directory) if wanted else ():
            try:
                manifest = read_manifest(path)
            except ArtifactError:
                continue  # a neighbour that cannot be read is none of this page's business
            if manifest.hash in wanted:
                _add(found, path)
                wanted.remove(manifest.hash)
                waiting.append(found[manifest.hash])


def _candidates(directory: Directory) -> Iterable[Path]:
    """Where the inputs of a directory may be: at the paths that its evaluation names, then beside it."""
    if directory.manifest.kind == "evaluation":
        models = read_metrics(directory.path).get("models")
        for entry in cast("dict[str, Any]", models).values() if isinstance(models, dict) else ():
            path = Path(str(entry.get("path", "")))
            yield from (one for one in (path, directory.path / path) if (one / MANIFEST).exists())
    yield from _children(directory.path.resolve().parent)


def _distinct_names(directories: Iterable[Directory]) -> list[Directory]:
    """The directories by their last component, or by their path where two of a kind agree."""
    rows = list(directories)
    seen = [(one.manifest.kind, one.name) for one in rows]
    return [
        Directory(str(one.path), one.path, one.manifest) if seen.count(key) > 1 else one
        for one, key in zip(rows, seen, strict=True)
    ]


def _counted(directories: Sequence[Directory]) -> str:
    return ", ".join(f"{one.manifest.kind} '{one.name}'" for one in directories) or "nothing"

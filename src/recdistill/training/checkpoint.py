"""Checkpoints of a run under way: safetensors and JSON, replaced whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from recdistill.artifacts import Job, load_arrays, read_json, save_arrays, write_json
from recdistill.atomic import storage_errors
from recdistill.directories import leftovers
from recdistill.progress import Progress

_TENSORS, _FACTS, _HISTORY = "checkpoint-{}.safetensors", "checkpoint.json", "history.jsonl"


class Checkpoint:
    """The checkpoint and history of one run in directory ``work``.

    The tensors are written to a file of a new name first and the small JSON file that names it last, so that a
    run killed at any moment leaves one complete checkpoint.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        work.mkdir(parents=True, exist_ok=True)

    def exists(self) -> bool:
        """Whether there is a complete checkpoint."""
        return (self.work / _FACTS).exists()

    def save(self, tensors: Mapping[str, Mapping[str, Tensor]], facts: dict[str, Any]) -> None:
        """Write groups of named tensors, and JSON-able facts."""
        old = read_json(self.work / _FACTS)["file"] if self.exists() else None
        name = _TENSORS.format(1 if old == _TENSORS.format(0) else 0)
        flat = {
            f"{group}/{key}": value.detach().cpu().contiguous()
            for group, members in tensors.items()
            for key, value in members.items()
        }
        save_arrays(self.work / name, flat)
        write_json(self.work / _FACTS, {**facts, "file": name, "groups": list(tensors)})
        if old is not None:
            (self.work / old).unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Read back what :meth:`save` wrote."""
        facts = read_json(self.work / _FACTS)
        groups: dict[str, dict[str, Tensor]] = {group: {} for group in facts["groups"]}
        for name, value in load_arrays(self.work / facts["file"]).items():
            group, _, key = name.partition("/")
            groups[group][key] = value.clone()
        return groups, facts

    def clear(self) -> None:
        """Remove the checkpoint; the history stays."""
        for path in self.work.glob("checkpoint*"):
            path.unlink()

    def append_history(self, record: dict[str, Any]) -> None:
        """Add one line to ``history.jsonl``."""
        path = self.work / _HISTORY
        with storage_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def write_history(self, records: list[dict[str, Any]]) -> None:
        """Replace ``history.jsonl``."""
        text = "".join(json.dumps(record) + "\n" for record in records)
        path = self.work / _HISTORY
        with storage_errors(path):
            path.write_text(text, encoding="utf-8")


def _any_in(folders: list[Path]) -> bool:
    return any(next(folder.rglob(_FACTS), None) for folder in folders)


def note_start(job: Job, resume: bool, progress: Progress) -> None:
    """Say where a run makes nothing of a checkpoint that lies there."""
    others = [folder for folder in leftovers(job.out) if folder != job.work]
    if resume and not _any_in([job.work]) and _any_in(others):
        progress.note("nothing to resume: starting anew (the interrupted run had other options)")
    elif _FACTS in job.dropped:
        progress.note(
            "starting anew: the checkpoint of an interrupted run is dropped (--resume would continue it)"
        )

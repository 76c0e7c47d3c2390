"""What the tests of directories and manifests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recdistill.artifacts import Job, read_json, read_manifest, step, write_json
from recdistill.errors import ArtifactError


def message(call: Callable[[], object]) -> str:
    with pytest.raises(ArtifactError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def make(out: Path, value: int = 1, kind: str = "data", **flags: Any) -> Job:
    """A step whose result holds ``value``."""
    with step(out, kind=kind, options={"value": value}, seed=0, **flags) as job:
        if not job.reused:
            write_json(job.work / "value.json", value)
            job.summary["value"] = value
    return job


def value_of(out: Path) -> int:
    manifest = read_manifest(out)
    assert manifest.options["value"] == manifest.summary["value"] == read_json(out / "value.json")
    return manifest.options["value"]


def beside(out: Path) -> set[str]:
    return {path.name for path in out.parent.iterdir()} - {out.name}

"""`demo`: the whole line on built-in synthetic interactions."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from recdistill.errors import OptionError
from recdistill.progress import Progress
from recdistill.steps.run import RunResult, run


def demo(
    out: Path | str = "runs/demo",
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Run the line on synthetic interactions: a teacher, the student alone and distilled, and their comparison.

    Args:
        out: the directory for everything.
        overrides: values by dotted path, as for ``run``.
        seed: of the data and every step.
        device: ``auto``, ``cpu`` or ``cuda``.
        force: replace a demo made with other options.
        progress: where stages are shown.

    Raises:
        OptionError: an override that is no option of a run file, or ``out`` or ``seed``, which are arguments.
    """
    for key in ("out", "seed"):
        if key in (overrides or {}):
            raise OptionError(f"{key}: the demonstration takes it as an argument", f"pass --{key}")
    text = (resources.files("recdistill.presets") / "demo" / "demo.toml").read_text(encoding="utf-8")
    return run(
        tomllib.loads(text),
        out,
        overrides=overrides,
        seed=seed,
        device=device,
        force=force,
        progress=progress,
    )

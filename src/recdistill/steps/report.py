"""`report`: one self-contained HTML page from evaluations, models and run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recdistill import artifacts
from recdistill.progress import Progress, Silent
from recdistill.reporting.charts import can_draw
from recdistill.reporting.page import render
from recdistill.reporting.runs import collect

PAGE = "report.html"


def report(
    runs: str | Path | Sequence[str | Path],
    out: str | Path = "runs/report",
    *,
    title: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a page about what models can do: a comparison, charts, options, where everything came from.

    Args:
        runs: evaluations, models, and folders that hold some.
        out: the directory to write.
        title: the page's heading.
        force: replace another report in ``out``.
        progress: where stages are shown.

    Returns:
        the page, ``OUT/report.html``. It needs no network and no other file.

    Raises:
        OptionError: no run is given.
        ArtifactError: a run is missing, damaged, or neither an evaluation nor a model; or ``out`` holds
            something else.
    """
    shown = progress or Silent()
    collection = collect([runs] if isinstance(runs, str | Path) else runs)
    # without matplotlib the page has tables in the place of charts: another page, to be made again with it
    options = {"title": title, "charts": can_draw()}
    inputs = {f"{one.manifest.kind}:{one.name}": one.manifest.hash for one in collection.all}
    with artifacts.step(out, kind="report", options=options, inputs=inputs, force=force) as job:
        if job.reused:
            shown.note(f"{out}: already there, same inputs and options: reused")
        else:
            if not can_draw():
                shown.note("charts need matplotlib: install recdistill[plots]; the page has tables instead")
            with shown.stage("report", 1, "pages") as stage:
                page = render(collection, title).encode()
                (job.work / PAGE).write_bytes(page)
                stage.advance(1)
            job.summary["bytes"] = len(page)
    return Path(out) / PAGE

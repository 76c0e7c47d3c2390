"""Commands that run many steps, from one file: ``demo``, ``run``, ``compare``, ``tune``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recdistill.cli.call import Call, aligned, takes
from recdistill.cli.options import STEP, file_step

if TYPE_CHECKING:
    from recdistill.steps.run import RunResult


@takes(*STEP)
def demo(call: Call) -> None:
    """Run the whole line on built-in synthetic data; ends with a table and report.html."""
    from recdistill.steps.demo import demo as run_demo

    _finish(call, run_demo(call.out, overrides=call.sets, **call.options("seed", "device")))


@takes(*file_step("Seed of every step (default: the file's)."))
def run(call: Call, file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="A run file.")]) -> None:
    """Run the whole line from one file, skipping the steps that are done."""
    from recdistill.steps.run import run as run_line

    call.read_out(file, "*")
    _finish(call, run_line(file, call.out, overrides=call.sets, **call.options("seed", "device")))


def _finish(call: Call, found: RunResult) -> None:
    from recdistill.evaluation.tables import gap_notes, table

    call.finish(
        {"evaluation": found.evaluation, "report": str(found.page)},
        [*aligned(table(found.evaluation)), *gap_notes(found.evaluation), f"report: {found.page}"],
    )


@takes(
    *file_step("The only model seed (default: the file's).", force="Replace the runs whose options changed.")
)
def compare(
    call: Call, file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="A compare file.")]
) -> None:
    """Compare methods over splits and seeds, from one file; what is done is reused."""
    from recdistill.reporting.overall import comparison_lines, footing
    from recdistill.steps.compare import compare as run_compare

    call.read_out(file, "comparison")
    found = run_compare(file, call.out, overrides=call.sets, **call.options("seed", "device"))
    lines: list[str] = []
    for name, rows in zip(found.comparison["evaluations"], comparison_lines(found.comparison), strict=True):
        lines += [f"{name}:", *aligned(rows), ""]
    lines += [*footing(found.comparison), f"report: {found.page}"]
    call.finish({"comparison": found.comparison, "report": str(found.page)}, lines)
    if found.failed:
        first = found.failed[0]
        print(  # noqa: T201
            f"error: {len(found.failed)} runs failed and are left out: {first['name']}: {first['error']}",
            file=sys.stderr,
        )
        raise typer.Exit(2)


@takes(*file_step("Of the search and every trial (default: the file's)."))
def tune(
    call: Call,
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="A run file with [space] and [tune].")],
) -> None:
    """Search options by the validation metric; ends with best.toml and a report."""
    from recdistill.steps.tune import tune as run_tune

    call.read_out(file, "tuning")
    found = run_tune(file, call.out, overrides=call.sets, **call.options("seed", "device"))
    best, own = found.tuning["best"], found.tuning["first"]
    reached = f"{found.tuning['metric']} {best['value']:.4f} (validation)"
    if own["state"] == "complete" and best["number"] != own["number"]:
        reached += f", the file's own values {own['value']:.4f}"
    lines = [f"trial {best['number']} of {len(found.tuning['trials'])}: {reached}"]
    lines += [f"  {name} = {value}" for name, value in best["values"].items()]
    call.finish(
        {"tuning": found.tuning, "best": str(found.best), "report": str(found.page)},
        [*lines, f"best: {found.best}", f"report: {found.page}"],
    )

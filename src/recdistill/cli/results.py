"""Commands that use models: ``evaluate``, ``recommend``, ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from recdistill.cli.call import Call, aligned, numbers, takes
from recdistill.cli.options import PAGE, STEP, Column, DataDir


@takes(*STEP)
def evaluate(
    call: Call,
    data: DataDir,
    models: Annotated[list[Path], Argument(metavar="MODEL...", help="Model or knowledge directories.")],
    protocol: Annotated[
        str, Option(help="full: all items; sampled: each target among --negatives.")
    ] = "full",
    negatives: Annotated[int, Option(help="Candidates beside the target (sampled).")] = 499,
    k: Annotated[str, Option(help="Cut-offs.")] = "5,10,20",
    split: Annotated[str, Option(help="test or valid.")] = "test",
    mask: Annotated[str, Option(help="default, seen or none.")] = "default",
    teacher: Annotated[
        Path | None, Option(help="Of the share of the gap that was closed.", show_default=False)
    ] = None,
    alone: Annotated[Path | None, Option(help="The undistilled student.", show_default=False)] = None,
    latency: Annotated[bool, Option(help="Measure milliseconds per recommendation.")] = True,
) -> None:
    """Compare models by ranking held-out items, with paired tests."""
    from recdistill.evaluation.tables import gap_notes, table
    from recdistill.steps.evaluate import evaluate as run_evaluate

    options: dict[str, Any] = {
        "protocol": protocol, "negatives": negatives, "k": numbers("k", k, "5,10,20", int), "split": split,
        "mask": mask, "teacher": teacher, "alone": alone, "latency": latency,
    }  # fmt: skip
    options |= call.sorted_sets({"evaluate": run_evaluate})["evaluate"]
    found = run_evaluate(data, models, call.out, **{**call.options("seed", "device"), **options})
    call.finish(found, [*aligned(table(found)), *gap_notes(found)])


@takes(*STEP)
def recommend(
    call: Call,
    model: Annotated[Path, Argument(metavar="MODEL", help="A model directory.")],
    k: Annotated[int, Option(help="Items a user.")] = 10,
    users: Annotated[
        Path | None,
        Option(help="A file of user ids (default: all users with train rows).", show_default=False),
    ] = None,
    history: Annotated[
        Path | None,
        Option(
            help="A file of interactions, histories of new users (of known ones instead of their train rows).",
            show_default=False,
        ),
    ] = None,
    exclude_seen: Annotated[bool, Option(help="Leave out what a user has in train.")] = True,
    cold: Annotated[str, Option(help="For users of whom nothing is known: error, or popular.")] = "error",
    user_column: Column = None,
    item_column: Column = None,
    time_column: Column = None,
    position_column: Column = None,
) -> None:
    """Write top lists with scores and external ids."""
    from recdistill.artifacts import read_manifest
    from recdistill.steps.recommend import recommend as run_recommend

    options: dict[str, Any] = {
        "k": k, "users": users, "history": history, "exclude_seen": exclude_seen, "cold": cold,
        "user_column": user_column, "item_column": item_column, "time_column": time_column,
        "position_column": position_column,
    }  # fmt: skip
    options |= call.sorted_sets({"recommend": run_recommend})["recommend"]
    path = run_recommend(model, call.out, **options, **call.options("device"))
    summary = read_manifest(call.out).summary
    call.finish(
        {**summary, "table": str(path)}, [f"{summary['rows']:,} rows for {summary['users']:,} users: {path}"]
    )


@takes(*PAGE)
def report(
    call: Call,
    runs: Annotated[list[Path], Argument(metavar="RUN...", help="Evaluation, model or run directories.")],
    title: Annotated[str | None, Option(help="Title of the page.", show_default=False)] = None,
) -> None:
    """Write one self-contained HTML page."""
    from recdistill.steps.report import report as run_report

    page = run_report(runs, call.out, title=title, **call.options())
    call.finish({"page": str(page)}, [f"report: {page}"])

"""Commands that store what teachers know: ``extract``, ``ensemble``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from recdistill.cli.call import Call, numbers, takes
from recdistill.cli.options import STEP, DataDir
from recdistill.wording import counted


@takes(*STEP)
def extract(
    call: Call,
    data: DataDir,
    model: Annotated[Path, Argument(metavar="MODEL", help="A directory made by 'train'.")],
    kinds: Annotated[
        str | None,
        Option(
            help="top_items,top_users,observed_scores,embeddings,trajectory (default: all there are).",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[int, Option(help="Length of the lists.")] = 500,
) -> None:
    """Store a teacher's knowledge; a store of the same teacher is extended."""
    from recdistill.steps.extract import describe
    from recdistill.steps.extract import extract as run_extract

    options: dict[str, Any] = {"depth": depth, "kinds": None if kinds is None else kinds.split(",")}
    options |= call.sorted_sets({"extract": run_extract})["extract"]
    found = describe(run_extract(data, model, call.out, **options, **call.options("device")))
    call.finish(found, [f"{', '.join(found['kinds'])} to depth {found['depth']}, {found['bytes']:,} bytes"])


@takes(*STEP)
def ensemble(
    call: Call,
    knowledge: Annotated[
        list[Path], Argument(metavar="KNOWLEDGE...", help="Directories made by 'extract', one a teacher.")
    ],
    data: Annotated[
        Path | None, Option(help="The prepared data (default: found beside the stores).", show_default=False)
    ] = None,
    beside: Annotated[
        list[str] | None,
        Option(
            "--beside",
            help="A model that is fitted at once (itemknn, ease, popularity), as one more teacher; may be repeated.",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[
        int | None,
        Option(
            help="Ranks that count, and length of the lists (default: the depth that all have).",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[float, Option(help="An item at rank r counts exp(-r / temperature).")] = 10.0,
    weights: Annotated[
        str | None, Option(help="One a teacher, such as 2,1,1 (default: all 1).", show_default=False)
    ] = None,
    consistency: Annotated[
        float, Option(help="Weight of what a teacher ranked alike at all its states.")
    ] = 0.0,
    debias: Annotated[
        float, Option(help="How much popular items lose on which the teachers disagree.")
    ] = 0.0,
) -> None:
    """Put several teachers' knowledge together as one, by rank aggregation."""
    from recdistill.steps.ensemble import ensemble as run_ensemble
    from recdistill.steps.extract import describe

    options: dict[str, Any] = {
        "data": data, "beside": beside or [], "depth": depth, "temperature": temperature,
        "consistency": consistency, "debias": debias,
        "weights": None if weights is None else numbers("weights", weights, "2,1,1", float),
    }  # fmt: skip
    options |= call.sorted_sets({"ensemble": run_ensemble})["ensemble"]
    found = describe(run_ensemble(knowledge, call.out, **options, **call.options()))
    told = ", ".join(member["name"] for member in found["members"])
    call.finish(
        found,
        [
            f"{counted(len(found['members']), 'teacher')}: {told}",
            f"depth {found['depth']}, {found['bytes']:,} bytes",
        ],
    )

"""Commands that make data: ``prepare``."""

from __future__ import annotations

from typing import Annotated, Any, cast

from typer import Argument, Option

from recdistill.cli.call import Call, numbers, takes
from recdistill.cli.options import STEP, Column


@takes(*STEP)
def prepare(
    call: Call,
    source: Annotated[
        str,
        Argument(
            metavar="SOURCE",
            help="A file, folder or glob of interactions; 'synthetic'; or a public set, such as movielens-1m.",
        ),
    ],
    *,
    split: Annotated[
        str | None,
        Option(
            help="random, leave-one-out, temporal, given (default if there is a split column) or file-order.",
            show_default=False,
        ),
    ] = None,
    ratios: Annotated[
        str | None, Option(help="Shares of train, valid and test, such as .8,.1,.1.", show_default=False)
    ] = None,
    holdout: Annotated[
        str | None, Option(help="leave-one-out holds out the last row, or a random one.", show_default=False)
    ] = None,
    min_user_interactions: Annotated[
        int, Option(help="Drop users with fewer, and repeat until every user that is left has as many.")
    ] = 1,
    min_item_interactions: Annotated[int, Option(help="Drop items with fewer, likewise.")] = 1,
    min_rating: Annotated[
        float | None, Option(help="Keep rows rated at least this.", show_default=False)
    ] = None,
    duplicates: Annotated[
        str | None, Option(help="merge or keep repeated user-item rows.", show_default=False)
    ] = None,
    unseen_items: Annotated[
        str | None, Option(help="keep or drop held-out items that are not in train.", show_default=False)
    ] = None,
    valid_share: Annotated[
        float | None,
        Option(
            help="Share of train users whose last row validates, where the split leaves no valid rows.",
            show_default=False,
        ),
    ] = None,
    user_column: Column = None,
    item_column: Column = None,
    rating_column: Column = None,
    time_column: Column = None,
    position_column: Column = None,
    split_column: Column = None,
) -> None:
    """Read interactions, filter and split them."""
    from recdistill.steps.prepare import prepare as run_prepare

    given: dict[str, Any] = {
        "split": split, "ratios": None if ratios is None else numbers("ratios", ratios, ".8,.1,.1", float),
        "holdout": holdout, "min_user_interactions": min_user_interactions,
        "min_item_interactions": min_item_interactions, "min_rating": min_rating, "duplicates": duplicates,
        "unseen_items": unseen_items, "valid_share": valid_share,
        "user_column": user_column, "item_column": item_column, "rating_column": rating_column,
        "time_column": time_column, "position_column": position_column, "split_column": split_column,
    }  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}
    options |= call.sorted_sets({"data": run_prepare})["data"]
    summary = run_prepare(source, call.out, **options, **call.options("seed")).manifest.summary
    call.finish(summary, _readable(summary))


def _readable(summary: dict[str, Any]) -> list[str]:
    """What is there, a line each; notes were shown already."""
    lines = ((name.replace("_", " "), _told(value)) for name, value in summary.items() if name != "notes")
    return [f"{name}: {told}" for name, told in lines if told]


def _told(value: Any) -> str:
    if isinstance(value, dict):
        parts = ((str(name), _told(entry)) for name, entry in cast(dict[str, Any], value).items())
        return ", ".join(f"{name} {told}" for name, told in parts if told)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.1%}" if isinstance(value, float) else str(value)

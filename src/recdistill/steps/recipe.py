"""What `distill` does where no method is named: ItemKNN beside the teacher, and the preset `recommended`.

What a model trained by steps and neighbours among items rank highest has little in common, so that both put together
by ranks are better than either; a student that learns from the two as one can be above its teacher.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from recdistill.data.prepared import Data
from recdistill.distillers.rrd import RRD
from recdistill.knowledge.members import MEMBERS
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.progress import Progress
from recdistill.steps.ensemble import ensemble, lists_validation
from recdistill.steps.methods import DEFAULT_PRESET, LISTS_PRESET, make_methods, method_tables

BESIDE = "itemknn"
TEMPERATURE = 30.0
_DEPTH = 100
_METRIC = "ndcg@10"


def store_beside(out: Path | str) -> Path:
    """Where the knowledge of both is written for the student ``out``."""
    return Path(out).with_name(Path(out).name + "-knowledge")


def with_neighbours(
    knowledge: TeacherKnowledge, data: Data, out: Path, *, force: bool, progress: Progress
) -> TeacherKnowledge:
    """A teacher's lists put together with those of ItemKNN on the same rows, where that ranks the valid rows better.

    Args:
        knowledge: the teacher's. It is returned as it is where it is no store of one teacher's lists, or one of
            ItemKNN, or where there are no valid rows to decide by.
        data: what the teacher was fitted on.
        out: the knowledge directory to write; nothing is left there where the teacher alone is better.
        force: replace another store in ``out``.
        progress: where stages are shown.

    Returns:
        What to learn from.
    """
    store = knowledge.manifest
    if store is None or store.kind != "knowledge" or MEMBERS in store.summary or knowledge.path is None:
        return knowledge
    if "top_items" not in knowledge.kinds or dict(store.summary.get("model") or {}).get("name") == BESIDE:
        return knowledge
    lists = knowledge.top_items(torch.arange(data.num_users), knowledge.list_depth("top_items") or _DEPTH)
    own = lists_validation(lists, data, knowledge.on).get(_METRIC)
    if own is None:
        return knowledge
    both = ensemble(
        {"teacher": knowledge.path},
        out,
        data=data,
        beside=[BESIDE],
        temperature=TEMPERATURE,
        force=force,
        progress=progress,
    )
    assert both.manifest is not None
    found = both.manifest.summary["validation"][_METRIC]
    figures = f"{_METRIC} of the valid rows {found:.4f} with it, {own:.4f} without"
    if found > own:
        progress.note(
            f"{BESIDE} stands beside the teacher in {out}: {figures}; --method names others, without it"
        )
        return both
    shutil.rmtree(out)
    progress.note(f"{BESIDE} does not stand beside the teacher: {figures}")
    return knowledge


def default_methods(knowledge: TeacherKnowledge, progress: Progress) -> list[dict[str, Any]]:
    """The preset ``recommended`` as tables, or ``recommended-lists`` where the knowledge has no scores.

    Lists are read to the depth that is stored. What differs from ``recommended`` is said.
    """
    tables = method_tables(DEFAULT_PRESET)
    if (
        any(not made.needs <= knowledge.kinds for made in make_methods(tables))
        and "top_items" in knowledge.kinds
    ):
        progress.note(f"the method is {LISTS_PRESET}: the knowledge has no scores for {DEFAULT_PRESET}")
        tables = method_tables(LISTS_PRESET)
    have = knowledge.list_depth("top_items")
    for table, made in zip(tables, make_methods(tables), strict=True):
        for option in ("depth", "num_interesting") if isinstance(made, RRD) else ("k",):
            wanted = int(made.options[option])
            if have is not None and wanted > have:
                progress.note(f"{table['method']}.{option} is {have}, as deep as the lists are, not {wanted}")
                table[option] = have
    return tables

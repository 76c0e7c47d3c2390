"""What `distill` does where no method is named: ItemKNN beside the teacher, and the preset `recommended`.

What a model trained by steps and neighbours among items rank highest has little in common, so that both put together
by ranks are better than either; a student that learns from the two as one can be above its teacher.
"""

from __future__ import annotations

from typing import Any

from recdistill.data.prepared import Data
from recdistill.distillers.rrd import RRD
from recdistill.errors import OptionError
from recdistill.knowledge.members import MEMBERS
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.progress import Progress
from recdistill.steps.ensemble import lists_validation, put_together
from recdistill.steps.ensembleteachers import fitted, models_beside, stored
from recdistill.steps.methods import DEFAULT_PRESET, LISTS_PRESET, make_methods, method_tables

USUAL = "itemknn"
NONE = "none"
_TEMPERATURE = 30.0
_DEPTH = 500
_METRIC = "ndcg@10"


def with_beside(
    knowledge: TeacherKnowledge, data: Data, model: str | None, progress: Progress
) -> TeacherKnowledge:
    """A teacher's lists put together by ranks with those of a model that is fitted at once on the same rows.

    They are kept in memory only: they follow from the store and the data.

    Args:
        knowledge: the teacher's.
        data: what the teacher was fitted on.
        model: beside the teacher; ``none`` for the teacher alone; None for ItemKNN where the teacher has a store and
            both rank the valid rows better.
        progress: where what was chosen is said.

    Returns:
        What to learn from; its manifest has the hash and the inputs of the teacher's.

    Raises:
        OptionError: an ensemble, or a model that is trained by steps.
        MissingKnowledgeError: the teacher has no lists.
    """
    if model == NONE or (model is None and not _usual(knowledge)):
        return knowledge
    if knowledge.manifest is not None and MEMBERS in knowledge.manifest.summary:
        raise OptionError(
            f"beside: the knowledge is an ensemble, beside which {model} cannot stand any more",
            "put it there with: recdistill ensemble KNOWLEDGE... --beside " + str(model),
        )
    knowledge.require(frozenset({"top_items"}), "beside")
    (chosen,) = models_beside([model or USUAL])
    lists = knowledge.lists.get("top_items")
    depth = min(_DEPTH if lists is None else lists.ids.shape[1], data.num_items)
    name = chosen.model_name()
    own = None
    if model is None:
        own = lists_validation(knowledge.members(depth)[0].states[-1], data, knowledge.on).get(_METRIC)
        if own is None:
            progress.note(
                f"the valid rows cannot tell whether {name} helps: the teacher alone; both with --beside {name}"
            )
            return knowledge
    teachers = [
        stored("teacher", knowledge.path, knowledge),
        fitted(chosen, data, knowledge.on, progress),
    ]
    options: dict[str, Any] = {
        "ensemble": ["teacher", name], "depth": depth, "temperature": _TEMPERATURE, "weights": None,
        "consistency": 0.0, "debias": 0.0,
    }  # fmt: skip
    made = put_together(teachers, options, progress)
    if own is not None:
        both = lists_validation(made.top_items.ids, data, knowledge.on)[_METRIC]
        figures = f"{_METRIC} of the valid rows {both:.4f} with it, {own:.4f} without"
        if both <= own:
            progress.note(f"the teacher alone, without {name}: {figures}")
            return knowledge
        progress.note(f"the teacher and {name} as one: {figures}; --beside none leaves it out")
    assert knowledge.manifest is not None
    return TeacherKnowledge(
        train=knowledge.train,
        frozen=None,
        lists={"top_items": made.top_items, "top_users": made.top_users},
        observed=made.observed,
        manifest=knowledge.manifest.model_copy(
            update={"options": options, "summary": {**knowledge.manifest.summary, **made.summary}}
        ),
        together=tuple(made.members),
        beside={"name": name, **chosen.options, "temperature": _TEMPERATURE},
    )


def _usual(knowledge: TeacherKnowledge) -> bool:
    """Whether it is a store with lists of one teacher, which is not ItemKNN itself."""
    manifest = knowledge.manifest
    if manifest is None or manifest.kind != "knowledge" or MEMBERS in manifest.summary:
        return False
    itself = dict(manifest.summary.get("model") or {}).get("name") == USUAL
    return "top_items" in knowledge.kinds and not itself


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

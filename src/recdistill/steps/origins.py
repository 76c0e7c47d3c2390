"""Where the teachers of `run`, `compare` and `tune` files come from, and whether methods can read what they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recdistill import config
from recdistill.artifacts import read_manifest
from recdistill.atomic import size_text
from recdistill.data.prepared import Data
from recdistill.directories import MANIFEST
from recdistill.distillers.base import Distiller
from recdistill.errors import MissingKnowledgeError, OptionError
from recdistill.knowledge.storable import never_in_ensembles, never_live, never_stored, never_supplied
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.models.base import Recommender


@dataclass(frozen=True)
class Origin:
    """Where a teacher's knowledge comes from.

    Attributes:
        given: the directory that ``knowledge`` names, empty where the teacher is trained; ``{split}`` in it
            stands for the split's seed. What else its table says is not used.
        live: methods read the model itself, not a store.
    """

    given: str = ""
    live: bool = False

    def given_at(self, split: int) -> Path:
        """What is given for one split."""
        return Path(self.given.replace("{split}", str(split)))


def origin_of(table: dict[str, Any], path: str, splits: Iterable[int] = (0,)) -> Origin:
    """Where the knowledge of a ``[teacher]`` comes from: its keys ``knowledge`` and ``live``, taken out of the table.

    Args:
        table: the teacher's.
        path: what errors call it.
        splits: the seeds of the splits, each of which must have its directory.

    Raises:
        OptionError: a wrong value, or nothing is there.
        ArtifactError: it is neither a store nor a model.
    """
    live, given = table.pop("live", False), "knowledge" in table
    place = table.pop("knowledge", "")
    if not isinstance(live, bool):
        raise OptionError(f"{path}.live: expected true or false, found {live!r}")
    if not given:
        return Origin(live=live)
    if not isinstance(place, str) or not place:
        raise OptionError(f"{path}.knowledge: expected the directory of a store or a model, found {place!r}")
    found = Origin(place)
    kinds: set[str] = set()
    for split in splits:
        folder = found.given_at(split)
        if not (folder / MANIFEST).is_file():
            raise OptionError(
                f"{path}.knowledge: neither a store nor a model at {folder}",
                "docs/knowledge.md says how to write a store, for the data that recdistill prepare makes"
                " with the same options",
            )
        kinds.add(read_manifest(folder, kind=("knowledge", "model")).kind)
    return Origin(place, live="model" in kinds)


def check_needs(
    methods: Iterable[Distiller], teacher: Mapping[str, Any] | None, what: str, live: bool = False
) -> None:
    """Refuse methods that read what their teacher can never give.

    Args:
        methods: what is distilled with.
        teacher: the teacher's table, whose ``name`` is that of its model; None for an ensemble.
        what: what the error names before the method, such as the row of a file.
        live: whether methods read the model itself, not a store.

    Raises:
        MissingKnowledgeError: names the first such method.
    """
    for method in methods:
        if teacher is None:
            error = never_in_ensembles(method.needs, method.method_name())
        else:
            never = never_live if live else never_stored
            model = config.find("models", str(teacher["name"]))
            error = never(model, method.needs, method.method_name())
        if error is not None:
            raise MissingKnowledgeError(_row(what, method) + error.message, error.hint)


def check_student(methods: Iterable[Distiller], student: Mapping[str, Any], what: str = "") -> None:
    """Refuse a student that cannot learn, and methods that read of it what it does not have.

    Args:
        methods: what is distilled with.
        student: its table, whose ``name`` is that of its model.
        what: what the error names before the method, such as the row of a file.

    Raises:
        OptionError: says which models can.
    """
    model = config.find("models", str(student["name"]))
    check_trainable(model)
    for method in methods:
        error = never_supplied(model, method.student_needs, method.method_name())
        if error is not None:
            raise OptionError(_row(what, method) + error.message, error.hint)


def _row(what: str, method: Distiller) -> str:
    """What an error names before the method; nothing where that is the method's own name."""
    return "" if what in ("", method.method_name()) else f"{what}: "


def check_trainable(model: type[Recommender]) -> None:
    """Refuse a model that is fitted at once as a student.

    Raises:
        OptionError: it is.
    """
    if model.closed_form:
        raise OptionError(
            f"{model.model_name()} is fitted at once, so it cannot learn from a teacher",
            "choose a student that is trained by steps, such as bpr",
        )


def check_ensemble(
    data: Data,
    stores: Iterable[TeacherKnowledge],
    depth: int,
    methods: Iterable[Distiller],
    what: str = "",
) -> None:
    """Refuse what will be no ensemble to learn from, before its other teachers are trained.

    Args:
        data: the prepared data.
        stores: those of its stores that are given.
        depth: of the other stores' lists, or the one asked for.
        methods: what is to learn from it.
        what: what the error names before the method, such as the row of a file.

    Raises:
        ArtifactError: a trajectory that is damaged or out of order.
        MissingKnowledgeError: names the first method that reads deeper lists than there will be.
    """
    for store in stores:
        store.members()
        depth = min(depth, store.list_depth("top_items") or depth)
    if data.num_items - int(data.train.user_counts.max()) < depth:
        return  # some lists end: whether all do, they will show
    for method in methods:
        asked = method.list_depths().get("top_items", 0)
        if asked > depth:
            raise MissingKnowledgeError(
                f"{_row(what, method)}{method.method_name()}: lists to depth {asked} are read, and those of the"
                f" ensemble will have {depth}",
                "deepen extract.depth, ensemble.depth and the stores that are given, or lower the method's",
            )


def check_reads(knowledge: TeacherKnowledge, methods: Iterable[Distiller], what: str = "") -> None:
    """Refuse methods that read what this knowledge lacks, or deeper lists than it has, before anything is trained.

    Args:
        knowledge: of a teacher, opened.
        methods: what is distilled with.
        what: what the error names before the method, such as the row of a file.

    Raises:
        MissingKnowledgeError: names the first such method, and the option to change.
    """
    for method in methods:
        name = method.method_name()
        try:
            knowledge.require(method.needs, name)
        except MissingKnowledgeError as error:
            raise MissingKnowledgeError(_row(what, method) + error.message, error.hint) from None
        _check_listed(knowledge, method, _row(what, method) + name)
        for kind, depth in method.list_depths().items():
            have = knowledge.list_depth(kind)
            if have is None or have >= depth:
                continue
            rows = knowledge.num_users if kind == "top_items" else knowledge.num_items
            try:
                getattr(knowledge, kind)(torch.arange(rows), depth)  # lists that end are deep enough
            except MissingKnowledgeError as error:
                option = next((key for key in ("k", "depth") if method.options.get(key) == depth), "depth")
                raise MissingKnowledgeError(
                    f"{_row(what, method)}{name}: {error.message}",
                    error.hint.replace("the method's depth", f"{name}.{option}")
                    + "; in a file extract.depth and ensemble.depth",
                ) from None


def _check_listed(knowledge: TeacherKnowledge, method: Distiller, what: str) -> None:
    """Refuse a method whose lists are all empty."""
    for kind, of in (("top_items", "user"), ("top_users", "item")):
        if kind in method.needs and knowledge.num_unlisted(kind) == knowledge.num_rows(kind):
            raise MissingKnowledgeError(
                f"{what} learns from {kind}, and in this store no {of} has a list: every one is empty",
                "look at what wrote the store, or choose a method that reads what it holds",
            )


def check_depths(
    data: Data,
    model: str,
    extract: Mapping[str, Any],
    usual: int,
    methods: Iterable[Distiller],
    what: str = "",
) -> None:
    """Refuse methods that read deeper lists than an extracted store will have, before its teacher is trained.

    Args:
        data: the prepared data.
        model: the teacher's, by name.
        extract: how it will be extracted.
        usual: depth of the lists where ``extract`` does not say.
        methods: what is to learn from it.
        what: what the error names before the method, such as the row of a file.

    Raises:
        MissingKnowledgeError: names the first such method, and how deep lists can be.
    """
    kinds = extract.get("kinds")
    if "scores" in config.find("models", model).storable and (kinds is None or "embeddings" in kinds):
        return  # lists of any depth follow from the vectors
    depth = int(extract.get("depth", usual))
    train = data.train
    longest = {
        "top_items": data.num_items - int(train.user_counts.min()),
        "top_users": data.num_users - int(train.item_counts.min()),
    }
    for method in methods:
        for kind, asked in method.list_depths().items():
            if min(asked, longest[kind]) > depth:
                rows = data.num_users if kind == "top_items" else data.num_items
                deepest = min(asked, longest[kind])
                raise MissingKnowledgeError(
                    f"{_row(what, method)}{method.method_name()}: {kind} to depth {asked} are read; the store of"
                    f" {model} will have {depth}",
                    f"set extract.depth = {deepest} ({size_text(8 * deepest * rows)} of lists), or lower the method's",
                )

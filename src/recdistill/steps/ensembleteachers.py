"""The teachers of an ensemble: stores, and models that are fitted at once beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from recdistill import config
from recdistill.artifacts import read_manifest
from recdistill.data.prepared import Data
from recdistill.errors import ArtifactError, MissingKnowledgeError, OptionError
from recdistill.knowledge.members import MEMBERS
from recdistill.knowledge.teacher import TeacherKnowledge, live, load_knowledge
from recdistill.models.base import Recommender
from recdistill.progress import Progress
from recdistill.steps.fit import ModelLike, make_model


class EnsembleTeacher(NamedTuple):
    """One teacher of the ensemble: ``path`` is its store's, None for a model fitted here; ``described`` is what the
    ensemble's manifest says of it."""

    name: str
    path: Path | None
    knowledge: TeacherKnowledge
    described: dict[str, Any]

    @property
    def model(self) -> str:
        """The hash of the model that a store was made from, or of the store where that is not known."""
        return self.described["model"] or self.described["knowledge"] or self.name


def data_beside(paths: Sequence[Path]) -> Data:
    """The data that the first store was made from, looked for beside the stores.

    Raises:
        OptionError: it is not there.
    """
    if not paths:
        raise OptionError("no teacher", "name at least one knowledge directory made by extract")
    wanted = read_manifest(paths[0], kind="knowledge").inputs.get("data")
    for folder in dict.fromkeys(path.resolve().parent for path in paths):
        for place in sorted(folder.iterdir()):
            try:
                found = read_manifest(place, kind="data")
            except (ArtifactError, OSError):
                continue
            if found.hash == wanted:
                return Data.load(place)
    raise OptionError(
        f"the data {wanted} that {paths[0]} was made from is not beside the stores", "name it: --data DATA"
    )


def open_teachers(
    paths: Sequence[Path],
    names: Sequence[str] | None,
    data: Data,
    beside: Sequence[Recommender],
) -> list[EnsembleTeacher]:
    """The stores, each with a name of its own, which no model of ``beside`` has.

    Raises:
        RecdistillError: no store, one twice, an ensemble, no lists, different splits, or a name that is taken.
    """
    if not paths:
        raise OptionError("no teacher", "name at least one knowledge directory made by extract")
    names = names or _names(paths)
    stores = [load_knowledge(path, data) for path in paths]
    hashes = Counter(store.manifest.hash for store in stores if store.manifest)
    for path, store in zip(paths, stores, strict=True):
        manifest = store.manifest
        assert manifest is not None
        if hashes[manifest.hash] > 1:
            raise OptionError(
                f"{path} is given twice, or a copy of it",
                "name each teacher once; --weights lets one count more",
            )
        if MEMBERS in manifest.summary:
            raise OptionError(f"{path} is an ensemble itself", "name the stores of its teachers")
        if "top_items" not in store.kinds:
            raise MissingKnowledgeError(
                f"{path} holds no top_items, and cannot derive them",
                f"make them with: recdistill extract DATA TEACHER --kinds top_items --out {path}",
            )
    if len({store.on for store in stores}) > 1:
        told = ", ".join(
            f"{name} on {' and '.join(store.on)}" for name, store in zip(names, stores, strict=True)
        )
        raise OptionError(
            f"the teachers were fitted on different splits: {told}", "put together teachers of the same ones"
        )
    if taken := sorted({*names} & {model.model_name() for model in beside}):
        raise OptionError(f"beside: {taken[0]} is the name of a teacher already", "leave one of the two out")
    return [stored(name, path, store) for name, path, store in zip(names, paths, stores, strict=True)]


def _names(paths: Sequence[Path]) -> list[str]:
    """The last component without "knowledge-"; the whole path where two agree."""
    short = [path.resolve().name.removeprefix("knowledge-") for path in paths]
    times = Counter(short)
    return [name if times[name] == 1 else str(path) for name, path in zip(short, paths, strict=True)]


def models_beside(models: object) -> list[Recommender]:
    """The models that ``beside`` names: unbuilt ones, names, or tables with ``name`` and options.

    Raises:
        OptionError: no list of models that are fitted at once, or one twice.
    """
    if isinstance(models, (str, Mapping)) or not isinstance(models, Sequence):
        raise OptionError(f"beside: expected a list of models, found {models!r}", 'write ["itemknn"]')
    made: list[Recommender] = []
    for chosen in cast("Sequence[object]", models):
        if not isinstance(chosen, (str, Mapping, Recommender)):
            raise OptionError(f"beside: expected models, found {chosen!r}", 'write ["itemknn"]')
        model = make_model(cast(ModelLike, chosen), "beside")
        name = model.model_name()
        if not model.closed_form:
            able = [one for one in config.names("models") if config.find("models", one).closed_form]
            raise OptionError(
                f"beside: {name} is trained by steps",
                f"models that are fitted at once: {', '.join(able)}; of others name a store made by extract",
            )
        if name in (one.model_name() for one in made):
            raise OptionError(f"beside: {name} is named twice")
        made.append(model)
    return made


def stored(name: str, path: Path | None, knowledge: TeacherKnowledge) -> EnsembleTeacher:
    """A teacher that was extracted, or is read live."""
    manifest = knowledge.manifest
    assert manifest is not None
    described = {
        "knowledge": manifest.hash,
        "model": manifest.inputs.get("model"),
        "model_options": manifest.summary.get("model"),
        "parameters": manifest.summary.get("parameters"),
        "bytes": manifest.summary.get("model_bytes"),
    }
    return EnsembleTeacher(name, path, knowledge, described)


def fitted(model: Recommender, data: Data, on: Sequence[str], shown: Progress) -> EnsembleTeacher:
    """A model fitted at once on the splits ``on``, read live."""
    name = model.model_name()
    interactions = data.fitted(on)
    if announcement := model.announcement(interactions):
        shown.note(announcement)
    generator = torch.Generator()  # nothing is drawn
    model.build(interactions, generator)
    model.fit(interactions, generator)
    described = {
        "knowledge": None,
        "model": None,
        "model_options": {"name": name, **model.options},
        "parameters": model.num_parameters(),
        "bytes": sum(values.nbytes for values in model.state_dict().values()),
    }
    return EnsembleTeacher(name, None, live(model.eval(), interactions), described)

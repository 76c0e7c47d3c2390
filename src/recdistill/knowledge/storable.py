"""What models can never give, as teachers or as students, known before anything is trained."""

from __future__ import annotations

from recdistill import config
from recdistill.errors import MissingKnowledgeError, OptionError
from recdistill.models.base import Recommender

_OF_ALL = frozenset({"top_items", "top_users", "observed_scores", "trajectory"})
"""What a store of any model can hold."""
_OF_ENSEMBLES = _OF_ALL | {"scores"}
_NEWEST = "stored lists are enough with --set logit-kd.places=newest --set logit-kd.items=top"
_LIVE = "distil from the model itself: --live MODEL, or live = true in a file's [teacher]"


def never_stored(
    model: type[Recommender], kinds: frozenset[str], method: str
) -> MissingKnowledgeError | None:
    """The error for a method that reads what no store of a model holds, however it is extracted.

    Args:
        model: the teacher's.
        kinds: what the method reads.
        method: what the error calls it.

    Returns:
        None where a store can hold it all.
    """
    never, name = kinds - _OF_ALL - model.storable, model.model_name()
    if "hidden_states" in never:
        return no_hidden_states(method)
    if "embeddings" in never:
        return MissingKnowledgeError(
            f"{method} reads embeddings, and a teacher of the model {name} has none",
            f"use a method that reads lists or scores, or a teacher that has them: {_able('embeddings')}",
        )
    if never:
        return MissingKnowledgeError(
            f"{method} reads scores of any pair, and no store of the model {name} can give them", _LIVE
        )
    return None


def never_live(model: type[Recommender], kinds: frozenset[str], method: str) -> MissingKnowledgeError | None:
    """The same for the model itself, read live."""
    more = {"scores"} | ({"hidden_states"} if model.sequential else set[str]())
    return never_stored(model, kinds - more, method)


def never_in_ensembles(kinds: frozenset[str], method: str) -> MissingKnowledgeError | None:
    """The same for the store of an ensemble."""
    never = kinds - _OF_ENSEMBLES
    if not never:
        return None
    return MissingKnowledgeError(
        f"{method} reads {', '.join(sorted(never))}, and an ensemble has none",
        "use a method that reads lists or scores, or a single teacher",
    )


def never_supplied(model: type[Recommender], kinds: frozenset[str], method: str) -> OptionError | None:
    """The error for a method that reads what a student of a model does not have.

    Args:
        model: the student's.
        kinds: what the method reads of the student.
        method: what the error calls it.

    Returns:
        None where the student has it all.
    """
    missing = kinds - supplied(model)
    return not_supplied(model.model_name(), missing, method) if missing else None


def not_supplied(model: str, missing: frozenset[str], method: str) -> OptionError:
    """The error for a student of the name ``model`` without the kinds ``missing``."""
    if missing == frozenset({"dot_product"}):
        what = (
            f"{method} compares users' vectors with items', and the scores of {model} are not their products"
        )
    else:
        kinds = sorted(missing - {"dot_product"})
        what = f"{method} reads the student's {', '.join(kinds)}, which {model} does not supply"
    return OptionError(
        what,
        f"choose another method, or a student that has them: {_able(*missing, student=True)}",
    )


def supplied(model: type[Recommender]) -> frozenset[str]:
    """The kinds that every state of a model supplies."""
    more = {"hidden_states"} if model.sequential else set[str]()
    own = model.storable & {"embeddings"}
    if own and model.dot_product:
        more.add("dot_product")
    return own | {"scores"} | more


def no_hidden_states(method: str) -> MissingKnowledgeError:
    """The error for a method that reads a sequence teacher item by item where there is only a store."""
    hint = f"{_LIVE}; models that read sequences: {_able('hidden_states')}"
    return MissingKnowledgeError(
        f"{method} reads what each item of a history becomes, which only a live sequence model answers",
        f"{_NEWEST}, or {hint}" if method == "logit-kd" else hint,
    )


def _able(*kinds: str, student: bool = False) -> str:
    """The names of the models that supply ``kinds``."""
    models = [config.find("models", name) for name in config.names("models")]
    able = [one for one in models if supplied(one).issuperset(kinds) and not (student and one.closed_form)]
    return ", ".join(one.model_name() for one in able)

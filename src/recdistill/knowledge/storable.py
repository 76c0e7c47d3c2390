"""What no store of a teacher's model can hold, known before the teacher is trained."""

from __future__ import annotations

from recdistill.errors import MissingKnowledgeError
from recdistill.models.base import Recommender

_OF_ALL = frozenset({"top_items", "top_users", "observed_scores", "trajectory"})
"""What a store of any model can hold."""
_OF_ENSEMBLES = _OF_ALL | {"scores"}


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
            "use a method that reads lists or scores, or another teacher",
        )
    if never:
        return MissingKnowledgeError(
            f"{method} reads scores of any pair, and no store of the model {name} can give them",
            "distil from the model itself: --live MODEL",
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
    return MissingKnowledgeError(f"{method} reads {', '.join(sorted(never))}, and an ensemble has none")


def no_hidden_states(method: str) -> MissingKnowledgeError:
    """The error for a method that reads a sequence teacher item by item where there is only a store."""
    return MissingKnowledgeError(
        f"{method} reads what each item of a history becomes, which only a live sequence model answers",
        "distil from a model that reads sequences, live: --live MODEL",
    )

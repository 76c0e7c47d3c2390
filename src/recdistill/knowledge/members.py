"""The teachers behind a store: their top lists at every kept state, early to final.

A model's store keeps its states in ``trajectory/epoch-NNNNNN.safetensors``; an ensemble's has a folder for each of its
teachers, ``members/0``, ``members/1``, ..., with one such file a state and ``observed_scores.safetensors``.
Only ids are read, cut to the depth that is asked for: six teachers with four states each to depth 100 take 9.6 kB a
user.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recdistill.artifacts import Manifest, load_arrays
from recdistill.errors import ArtifactError
from recdistill.knowledge.base import Member
from recdistill.knowledge.elsewhere import Elsewhere

MEMBERS, TRAJECTORY, OBSERVED = "members", "trajectory", "observed_scores.safetensors"
_STATE = re.compile(r"epoch-(\d+)")


def stored_members(
    path: Path | None,
    manifest: Manifest | None,
    final: Tensor,
    observed: Tensor | None,
    depth: int,
    foreign: Elsewhere | None = None,
) -> tuple[Member, ...]:
    """The members of the store at ``path``, or of a live model.

    Args:
        path: the store's directory; None for a live model.
        manifest: its manifest, or that of the live model; None for a model without directory.
        final: (U, stored depth) the store's top items.
        observed: its scores of the train pairs, or None.
        depth: the most columns that are read.
        foreign: how to read a store that another program made.

    Raises:
        ArtifactError: a trajectory that is damaged or out of order.
    """
    if manifest is not None and manifest.kind != "knowledge":
        path = None  # a model's trajectory holds weights
    told: list[dict[str, Any]] = [] if manifest is None else manifest.summary.get(MEMBERS, [])
    if path is not None and told:
        found = [
            _member(entry, path / MEMBERS / str(place), final.shape[0], depth)
            for place, entry in enumerate(told)
        ]
    else:
        epoch = 0 if manifest is None else int(manifest.summary.get("best_epoch") or 0)
        states = {} if path is None else read_states(path / TRAJECTORY, final.shape[0], depth, foreign)
        states = ending_at(states, _cut(final, depth), epoch, path)
        found = [Member(_name(path, manifest), tuple(states.values()), tuple(states), observed)]
    common = min(state.shape[1] for member in found for state in member.states)
    return tuple(member._replace(states=tuple(_cut(s, common) for s in member.states)) for member in found)


def _member(told: dict[str, Any], folder: Path, num_users: int, depth: int) -> Member:
    states = read_states(folder, num_users, depth)
    if not states:
        raise ArtifactError(
            f"{folder} has no lists of the teacher {told.get('name')}", "make the ensemble again"
        )
    scores = load_arrays(folder / OBSERVED)["scores"] if (folder / OBSERVED).exists() else None
    return Member(str(told.get("name")), tuple(states.values()), tuple(states), scores)


def read_states(
    folder: Path, num_users: int, depth: int, foreign: Elsewhere | None = None
) -> dict[int, Tensor]:
    """The ids of every stored state by its epoch, ascending, cut to ``depth`` columns.

    Raises:
        ArtifactError: two files of one epoch, or lists of other users.
    """
    found: dict[int, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        if file.name == OBSERVED:
            continue
        named = _STATE.fullmatch(file.stem)
        if named is None:
            raise ArtifactError(
                f"{file}: expected a name such as epoch-000010.safetensors", "the number is the epoch"
            )
        epoch = int(named.group(1))
        ids = load_arrays(file)["ids"] if foreign is None else foreign.read(file).ids
        if ids.ndim != 2 or ids.shape[0] != num_users:
            raise ArtifactError(
                f"{file} has lists of shape {tuple(ids.shape)}; the data has {num_users} users"
            )
        if epoch in found:
            raise ArtifactError(f"{folder} has two states of epoch {epoch}", "remove one of them")
        found[epoch] = _cut(ids, depth)
    return dict(sorted(found.items()))


def ending_at(states: dict[int, Tensor], final: Tensor, epoch: int, path: Path | None) -> dict[int, Tensor]:
    """The states, a repeated one once, with ``final`` as the last.

    Args:
        states: ids by epoch, ascending.
        final: the ids of the teacher as it is served.
        epoch: of ``final``, where it is not among the states and known; else 0.
        path: of the store, for errors.

    Raises:
        ArtifactError: ``final`` or another state is one of the earlier ones, so that their order cannot be right.
    """
    kept: dict[int, Tensor] = {}
    for number, ids in states.items():
        same = [epoch for epoch, earlier in kept.items() if _same(ids, earlier)]
        if not same:
            kept[number] = ids
        elif same[-1] != max(kept):
            raise ArtifactError(
                f"the trajectory at {path} is out of order: the lists of epoch {number} are those of epoch {same[-1]},"
                f" and others are between",
                "the states must be numbered from early to final",
            )
    equal = [number for number, ids in kept.items() if _same(ids, final)]
    if not equal:
        last = max(kept, default=-1)
        return {**kept, (epoch if epoch > last else last + 1): final}
    if equal[-1] != max(kept):
        raise ArtifactError(
            f"the trajectory at {path} is out of order: the final lists are those of epoch {equal[-1]},"
            f" and it goes on to epoch {max(kept)}",
            "the states must be numbered from early to final",
        )
    return kept


def _same(one: Tensor, other: Tensor) -> bool:
    width = min(one.shape[1], other.shape[1])
    return torch.equal(one[:, :width], other[:, :width])


def _cut(ids: Tensor, depth: int) -> Tensor:
    """The first columns as int32, in memory of their own: what was read may be a mapped file of a greater depth."""
    return ids if ids.shape[1] <= depth and ids.dtype == torch.int32 else ids[:, :depth].int().clone()


def _name(path: Path | None, manifest: Manifest | None) -> str:
    if manifest is None:
        return "teacher"
    of = manifest.summary if manifest.kind == "knowledge" else manifest.options
    return str(dict(of.get("model") or {}).get("name") or ("teacher" if path is None else path.name))

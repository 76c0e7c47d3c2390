"""Stores made by other programs: their lists are checked, freed of train pairs, and brought into the data's order.

A store is taken for one of these where its manifest names no version of this package. Its rows and ids are the data's
indices, or, with ``users.parquet`` and ``items.parquet`` beside the lists (one column of external ids, a row an index),
indices of its own: users and items that the data does not know are left out, and users that the store does not know
have an empty list.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from recdistill.artifacts import Manifest, load_arrays
from recdistill.data.interactions import Interactions
from recdistill.data.prepared import Data
from recdistill.data.vocabulary import Vocabulary
from recdistill.errors import ArtifactError
from recdistill.files import read_table
from recdistill.knowledge.base import Lists


class Elsewhere(NamedTuple):
    """How to read a store made by another program.

    Attributes:
        train: the pairs that its lists are freed of, unless users take items again.
        users: (rows,) the data's index of each of its users, -1 where unknown; None: the same order.
        items: of each of its items, likewise.
    """

    train: Interactions
    users: Tensor | None
    items: Tensor | None

    def read(self, file: Path, kind: str = "top_items") -> Lists:
        """The lists in ``file``, of ``kind`` ``top_items`` or ``top_users``.

        Raises:
            ArtifactError: no lists of this data.
        """
        by_user = kind == "top_items"
        lists = _read(file)
        rows, columns = (self.users, self.items) if by_user else (self.items, self.users)
        sizes = (self.train.num_users, self.train.num_items)
        num_rows, num_ids = sizes if by_user else sizes[::-1]
        _check(
            file,
            lists.ids,
            *((n if m is None else len(m)) for n, m in ((num_rows, rows), (num_ids, columns))),
        )
        ids = lists.ids.long()
        if columns is not None:
            ids = torch.where(ids < 0, -1, columns[ids.clamp(min=0)])
        at = torch.arange(num_rows) if rows is None else rows
        ids, scores, at = ids[at >= 0], lists.scores[at >= 0], at[at >= 0]
        ids = torch.where(self._observed(at, ids, by_user), -1, ids)
        order = (ids < 0).sort(dim=1, stable=True).indices  # what is left moves up
        ids, scores = (
            ids.gather(1, order),
            scores.gather(1, order).masked_fill(ids.gather(1, order) < 0, -torch.inf),
        )
        found = Lists(
            torch.full((num_rows, ids.shape[1]), -1, dtype=torch.int32),
            torch.full((num_rows, ids.shape[1]), -torch.inf),
        )
        found.ids[at], found.scores[at] = ids.int(), scores
        return found

    def _observed(self, rows: Tensor, ids: Tensor, by_user: bool) -> Tensor:
        """Whether (row, id) is a train pair; padding is none."""
        if by_user:
            return self.train.unlisted.contains(rows, ids)
        pairs = self.train.unlisted.contains(
            ids.clamp(min=0).reshape(-1), rows[:, None].expand_as(ids).reshape(-1)
        )
        return pairs.view_as(ids) & (ids >= 0)


def elsewhere(path: Path, manifest: Manifest, data: Data) -> Elsewhere | None:
    """How to read the store at ``path``; None where this package made it.

    Raises:
        ArtifactError: it has ids of its own and kinds that cannot be brought into the data's order.
    """
    if manifest.version:
        return None
    users, items = (
        vocabulary.index(read_table(file).to_series()) if file.exists() else None
        for vocabulary, file in ((data.users, path / "users.parquet"), (data.items, path / "items.parquet"))
    )
    if users is not None or items is not None:
        for kind in ("embeddings", "observed_scores"):
            if (path / f"{kind}.safetensors").exists():
                raise ArtifactError(
                    f"{path} has ids of its own, by which {kind} are not brought into the data's order",
                    f"write {kind} in the data's order without users.parquet and items.parquet, or leave them out",
                )
        for name, found, vocabulary in (("users", users, data.users), ("items", items, data.items)):
            _check_known(path, name, found, vocabulary)
    return Elsewhere(data.fitted(manifest.on), users, items)


def _check_known(path: Path, name: str, found: Tensor | None, vocabulary: Vocabulary) -> None:
    if found is None:
        return
    known = found[found >= 0]
    if not len(known):
        raise ArtifactError(
            f"none of the {len(found)} {name} of {path} is among the {len(vocabulary)} of the data",
            f"write the external ids to {name}.parquet",
        )
    if len(known.unique()) < len(known):
        raise ArtifactError(f"{path / f'{name}.parquet'} has an id twice", "an index has one id")


def _read(file: Path) -> Lists:
    """Ids and scores; without scores, those of their ranks."""
    arrays = load_arrays(file)
    ids = arrays.get("ids")
    if ids is None or ids.ndim != 2 or ids.is_floating_point():
        raise ArtifactError(
            f"{file} has no ids of shape (rows, depth)", "write an array 'ids' of integers, best first"
        )
    scores = arrays.get("scores", -torch.arange(ids.shape[1]).float().expand(ids.shape))
    if scores.shape != ids.shape:
        raise ArtifactError(f"{file}: ids are {tuple(ids.shape)} and scores {tuple(scores.shape)}")
    _check_order(file, ids >= 0, scores)
    return Lists(ids, scores.float())


def _check_order(file: Path, present: Tensor, scores: Tensor) -> None:
    steps = scores.diff(dim=1)[present[:, 1:] & present[:, :-1]]
    if int((steps > 0).sum()) > int((steps < 0).sum()):
        raise ArtifactError(
            f"{file}: scores rise along the lists; expected the best item first, with the highest score",
            "turn the lists round, or write distances negated",
        )


def _check(file: Path, ids: Tensor, num_rows: int, num_ids: int) -> None:
    if len(ids) != num_rows:
        raise ArtifactError(
            f"{file}: the lists have {len(ids)} rows; expected {num_rows}",
            "a row for each user, or each item",
        )
    if ids.numel() and (int(ids.max()) >= num_ids or int(ids.min()) < -1):
        raise ArtifactError(
            f"{file} has ids from {int(ids.min())} to {int(ids.max())}; expected 0 to {num_ids - 1}, or -1",
            "ids are indices; -1 is padding",
        )
    ordered = ids.sort(dim=1).values
    if bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any()):
        raise ArtifactError(f"{file} has an id twice in a row", "a list names an item once")

"""A prepared data directory, each part read when it is first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import polars as pl

from recdistill.artifacts import Manifest, read_manifest
from recdistill.data.interactions import Interactions
from recdistill.data.vocabulary import Vocabulary
from recdistill.errors import OptionError
from recdistill.files import read_table

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class Data:
    """What ``prepare`` left in a directory.

    Nothing is read before it is asked for: a training run that asks for ``train`` and ``valid`` never opens
    ``test.parquet``.

    Attributes:
        path: the directory.
        manifest: its manifest; ``manifest.summary`` has the counts.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    def __repr__(self) -> str:
        return f"Data({str(self.path)!r}, {self.num_users:,} users, {self.num_items:,} items)"

    @classmethod
    def load(cls, path: str | Path) -> Data:
        """Open a data directory.

        Raises:
            ArtifactError: if it is missing, is of another kind, or was made by a newer version.
        """
        return cls(Path(path), read_manifest(Path(path), kind="data"))

    @property
    def hash(self) -> str:
        """What the directory was made of: its options, seed and source."""
        return self.manifest.hash

    @cached_property
    def users(self) -> Vocabulary:
        """User ids; ``user_id`` is the column's name."""
        return Vocabulary.load(self.path / "users.parquet")

    @cached_property
    def items(self) -> Vocabulary:
        """Item ids; ``item_id`` is the column's name."""
        return Vocabulary.load(self.path / "items.parquet")

    @property
    def num_users(self) -> int:
        """Users in any split."""
        return int(self.manifest.summary["users"])

    @property
    def num_items(self) -> int:
        """Items in any split."""
        return int(self.manifest.summary["items"])

    @property
    def has_order(self) -> bool:
        """Whether the interactions carry a time or a position."""
        return bool(self.manifest.summary["has_order"])

    @property
    def has_repeats(self) -> bool:
        """Whether some user took some item more than once."""
        return bool(self.manifest.summary["has_repeats"])

    @cached_property
    def train(self) -> Interactions:
        """What models learn from."""
        return self._read("train")

    @cached_property
    def valid(self) -> Interactions:
        """What training is stopped by and options are chosen on."""
        return self._read("valid")

    @cached_property
    def test(self) -> Interactions:
        """What evaluation alone may open."""
        return self._read("test")

    def fitted(self, on: Sequence[str]) -> Interactions:
        """What models learn from: ``train``, or ``train`` and ``valid`` together where they are refitted.

        Raises:
            OptionError: for anything else.
        """
        if list(on) not in (["train"], ["train", "valid"]):
            raise OptionError(f"on must be train or train,valid; found '{','.join(on)}'")
        return self.train if len(on) == 1 else self._train_and_valid

    @cached_property
    def _train_and_valid(self) -> Interactions:
        return self.train.union(self.valid)

    def split(self, name: str) -> Interactions:
        """The interactions of ``train``, ``valid`` or ``test``.

        Raises:
            OptionError: for another name.
        """
        if name not in SPLITS:
            raise OptionError(f"split must be one of {', '.join(SPLITS)}, found '{name}'")
        return getattr(self, name)

    def _read(self, name: str) -> Interactions:
        table: pl.DataFrame = read_table(self.path / f"{name}.parquet")
        return Interactions.from_events(
            table["user"].to_numpy(),
            table["item"].to_numpy(),
            self.num_users,
            self.num_items,
            times=table["time"].to_numpy() if "time" in table.columns else None,
            positions=table["position"].to_numpy() if "position" in table.columns else None,
        )

"""Searched students: what was found for each data set, and how the search came to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from recdistill.artifacts import read_json
from recdistill.errors import ArtifactError, OptionError
from recdistill.models.architecture import Architecture
from recdistill.reporting import numbers
from recdistill.reporting.cells import Cell, Grid, Notes, Row
from recdistill.reporting.curves import Course
from recdistill.reporting.numbers import Missing
from recdistill.reporting.runs import Collection, Directory, Epoch, read_history
from recdistill.wording import counted

_EDGE = re.compile(r"(\d+)<(input|\d+) (\S+)")

VARIANTS = {
    "searched": "searched",
    "random": "drawn at random",
    "no-cost": "searched without cost",
    "no-emd": "searched without transport between layers",
    "no-distillation": "searched without the teacher",
}
"""How each variant's architecture came about."""


@dataclass(frozen=True)
class Edge:
    """From what (0: the cell's input) into which node of a cell."""

    source: int
    node: int

    def __str__(self) -> str:
        return f"{self.source or 'input'} → {self.node}"


@dataclass(frozen=True)
class Search:
    """One searched student.

    Attributes:
        name: of its directory.
        scene: the data set's name.
        seed: its seed, or None.
        variant: see :data:`VARIANTS`.
        architecture, cells: what was found.
        takes: the student's costs by meter.
        options: of the search.
        epochs: of the search; empty for a random architecture.
        best_epoch: the one that the architecture was taken from, None where there was none.
        reads: newest items that an output depends on.
        parameters: numbers that the student stores, None where not recorded.
        seconds: that the search took, None without one.
        candidates: the metrics of the architectures that were read on valid rows, the best, which is this one, first.
    """

    name: str
    scene: str
    seed: int | None
    variant: str
    architecture: Architecture
    cells: int
    takes: Mapping[str, float]
    options: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    best_epoch: int | None
    reads: int
    parameters: int | None
    seconds: float | None
    candidates: tuple[float, ...]

    @property
    def most_cells(self) -> int:
        """The most cells that it could have."""
        return max(int(self.options.get("cells") or 0), self.cells)

    @property
    def shares(self) -> Mapping[Edge, Mapping[str, float]]:
        """Shares of the operations by edge, when the architecture was taken."""
        return edge_shares(self._final)

    @property
    def depth(self) -> Mapping[str, float]:
        """Shares of the numbers of cells, likewise; empty where that was not searched."""
        return cell_shares(self._final)

    @cached_property
    def _final(self) -> Mapping[str, float]:
        told = [(epoch.epoch, choices) for epoch in self.epochs if (choices := choices_of(epoch))]
        last = told[-1][1] if told else {}
        return next((choices for number, choices in told if number == self.best_epoch), last)


@dataclass(frozen=True)
class Group:
    """The searched students of one course: seeds of the same search."""

    course: Course
    searches: tuple[Search, ...]

    @property
    def first(self) -> Search:
        """The one that is drawn."""
        return self.searches[0]

    @property
    def which(self) -> str:
        """Which of several seeds is drawn; empty for one."""
        if len(self.searches) == 1:
            return ""
        seed = "" if self.first.seed is None else f"seed {self.first.seed}, "
        return f"Of {seed}the first of {len(self.searches)} seeds"

    def called(self, search: Search) -> str:
        """The name of one of its students."""
        if len(self.searches) == 1:
            return self.course.name
        return f"{self.course.name}, {search.name if search.seed is None else f'seed {search.seed}'}"

    @property
    def order(self) -> int:
        """Place of its variant, so that the same one stands side by side for several data sets."""
        known = list(VARIANTS)
        return known.index(self.first.variant) if self.first.variant in known else len(known)


def choices_of(epoch: Epoch) -> Mapping[str, float]:
    """What an epoch of a search tells of its choices; empty for any other."""
    return next((facts for facts in epoch.facts.values() if any(_EDGE.fullmatch(n) for n in facts)), {})


def edge_shares(facts: Mapping[str, float]) -> dict[Edge, dict[str, float]]:
    """Shares of the operations, by edge."""
    found: dict[Edge, dict[str, float]] = {}
    for name, share in facts.items():
        if (told := _EDGE.fullmatch(name)) is not None:
            node, source, operation = told.groups()
            edge = Edge(0 if source == "input" else int(source), int(node))
            found.setdefault(edge, {})[operation] = share
    return found


def cell_shares(facts: Mapping[str, float]) -> dict[str, float]:
    """Shares of the numbers of cells, where these were searched too."""
    return {n.removeprefix("cells "): share for n, share in facts.items() if n.startswith("cells ")}


def groups_of(collection: Collection, courses: Sequence[Course], scenes: Mapping[str, str]) -> list[Group]:
    """The searched students among the models, seeds of one together, variants in their order.

    Raises:
        ArtifactError: an ``architecture.json`` is damaged.
    """
    by_hash = {one.manifest.hash: one for one in collection.models}
    groups: list[Group] = []
    for course in courses:
        found = [
            _read(by_hash[digest], scenes)
            for digest in course.hashes
            if (by_hash[digest].path / "search" / "architecture.json").exists()
        ]
        if found:
            groups.append(Group(course, tuple(found)))
    return sorted(groups, key=lambda group: group.order)


def _read(directory: Directory, scenes: Mapping[str, str]) -> Search:
    manifest, folder = directory.manifest, directory.path / "search"
    path = folder / "architecture.json"
    try:
        tree: Any = read_json(path)
        architecture, cells = Architecture.from_json(tree["architecture"]), int(tree["cells"])
        takes = {str(name): float(value) for name, value in (tree.get("takes") or {}).items()}
        per_epoch, count = tree.get("seconds_per_epoch"), tree.get("epochs")
        best = tree.get("best_epoch")
        candidates = tuple(float(one["metric"]) for one in tree.get("candidates") or ())
    except (KeyError, TypeError, ValueError, AttributeError, OptionError) as error:
        raise ArtifactError(
            f"{path} is damaged or not ours ({type(error).__name__}: {error})", "search again"
        ) from error
    model = manifest.options.get("model") or {}
    reach = cells * architecture.reach + 1
    longest = int(model.get("max_length") or reach)
    stored = manifest.summary.get("parameters")
    return Search(
        name=directory.name,
        scene=scenes.get(manifest.inputs.get("data", ""), ""),
        seed=manifest.seed,
        variant=str(manifest.options.get("variant", "searched")),
        architecture=architecture,
        cells=cells,
        takes=takes,
        options=manifest.options.get("search") or {},
        epochs=read_history(folder),
        best_epoch=best if isinstance(best, int) else None,
        reads=min(reach, longest) if architecture.causal else longest,
        parameters=stored if isinstance(stored, int) else None,
        seconds=float(per_epoch * count) if per_epoch is not None and count else None,
        candidates=candidates,
    )


def found_table(groups: Sequence[Group]) -> Grid | None:
    """What was found: a row a searched student; None without any."""
    searches = [(group, search) for group in groups for search in group.searches]
    if not searches:
        return None
    notes = Notes()
    several = len({search.scene for _, search in searches}) > 1
    timed = any("latency_ms" in search.takes for _, search in searches)
    rated = any(search.candidates for _, search in searches)
    rows = [
        Row(
            group.called(search),
            search.scene if several and not group.course.name.endswith(search.scene) else "",
            f"{VARIANTS.get(search.variant, search.variant)}: {search.architecture}",
            _cells(search, timed, rated, notes),
        )
        for group, search in searches
    ]
    columns = [
        "Cells",
        "Items read",
        "Parameters",
        "Megabytes",
        "Encoder, ms",
        "Certainty",
        "Candidates",
        "Search",
    ]
    if not rated:
        columns.remove("Candidates")
    if not timed:
        columns.remove("Encoder, ms")
    remarks = [
        "Operations stand node by node (;), from the cell's input first and then from each node before."
        " Items read: the newest ones that an output depends on.",
        "Certainty: the mean share of the operations taken, where an even one is 1 / operations.",
    ]
    if rated:
        remarks.append(
            "Candidates: architectures that were read on the valid rows with the search's weights; the best is the"
            " student."
        )
    return Grid("Architectures found", columns, rows, notes.reasons, remarks)


def _cells(search: Search, timed: bool, rated: bool, notes: Notes) -> list[Cell]:
    parameters: float | Missing = (
        Missing("its size is not recorded") if search.parameters is None else search.parameters
    )
    found = [
        Cell(str(search.cells), (f"of at most {search.most_cells}",)),
        Cell(str(search.reads)),
        notes.cell(parameters) if isinstance(parameters, Missing) else Cell(numbers.count(parameters)),
        _cost(search, "megabytes", "max_megabytes", "", notes),
    ]
    if timed:
        users = int(search.options.get("latency_batch") or 1)
        found.append(_cost(search, "latency_ms", "max_latency_ms", counted(users, "user"), notes))
    taken = certainty(search)
    found.append(
        notes.cell(Missing("nothing was searched")) if taken is None else Cell(numbers.percent(taken))
    )
    if rated:
        several = search.candidates
        found.append(
            Cell(str(len(several)), (f"{several[0]:.4f} on valid rows, the least {several[-1]:.4f}",))
            if several
            else notes.cell(Missing("the most probable architecture was taken"))
        )
    if search.seconds is None:
        return [*found, notes.cell(Missing("nothing was searched"))]
    return [*found, Cell(numbers.seconds(search.seconds), (f"{len(search.epochs)} epochs",))]


def _cost(search: Search, name: str, limit: str, told: str, notes: Notes) -> Cell:
    value, most = search.takes.get(name), search.options.get(limit)
    if value is None:
        return notes.cell(Missing("it has no such budget, so it was not measured"))
    detail = [told] if told else []
    if most is not None:
        detail.append(f"at most {most:g}" if value <= most else f"over the budget of {most:g}")
    return Cell(numbers.milliseconds(value), detail)


def certainty(search: Search) -> float | None:
    """Mean share of the operations that were taken; None without shares."""
    taken = [
        search.shares[Edge(source, node)].get(operation, 0.0)
        for node, names in enumerate(search.architecture.nodes, start=1)
        for source, operation in enumerate(names)
        if Edge(source, node) in search.shares
    ]
    return sum(taken) / len(taken) if taken else None

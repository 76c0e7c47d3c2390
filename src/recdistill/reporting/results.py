"""What an evaluation found, as typed values; what is null carries its reason (`Missing`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recdistill.reporting.numbers import Known, Missing

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Estimate:
    """A mean over users.

    Attributes:
        mean: the metric; of several seeds, over the users' values averaged over seeds.
        low, high: its 95 % interval, None where one user or none has a value.
        n: users with a value.
        spread: standard deviation of the seeds' means, None for a single seed.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    spread: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half the interval's length, in the unit of the metric."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Latency:
    """Milliseconds a request of ``batch`` users takes, ids to ids; scoring and the rest also apart."""

    batch: int
    p50: float
    p99: float
    scoring: float | None = None
    scoring_p99: float | None = None
    lists: float | None = None
    lists_p99: float | None = None
    threads: int | None = None
    encoding: float | None = None
    encoding_p99: float | None = None


@dataclass(frozen=True)
class Member:
    """One evaluated directory.

    Attributes:
        name, path, hash: as the evaluation recorded them.
        kind: ``model`` or ``knowledge``.
        options: its resolved options.
        seed: its seed, or None.
        metrics: its own values, by metric.
        parameters, bytes: its size, or why there is none.
        layer_parameters: its size without embeddings, likewise.
        latencies: by batch size; empty where none was measured.
        group_recall: recall by popularity group, least popular first, by metric.
    """

    name: str
    path: str
    hash: str
    kind: str
    options: Mapping[str, Any]
    seed: int | None
    teacher: str | None
    metrics: Mapping[str, Estimate | Missing]
    parameters: Known
    bytes: Known
    latencies: tuple[Latency, ...]
    group_recall: Mapping[str, tuple[Known, ...]]
    layer_parameters: Known

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers that an ensemble was made from; empty for anything else."""
        return tuple(str(name) for name in self.options.get("ensemble") or ()) if self.kind != "model" else ()

    @property
    def distilled(self) -> bool:
        """Whether it learned from a teacher."""
        return bool(self.options.get("distill"))


@dataclass(frozen=True)
class Entry:
    """One model in all its seeds: a row of the comparison."""

    name: str
    members: tuple[Member, ...]
    metrics: Mapping[str, Estimate | Missing]
    gap_closed: Mapping[str, Estimate | Missing]

    @property
    def first(self) -> Member:
        """The member that stands for what all share: class and options."""
        return self.members[0]

    @property
    def parameters(self) -> Known:
        """Numbers stored, averaged over the members: searched ones differ in shape."""
        return _known_average(tuple(member.parameters for member in self.members))

    @property
    def layer_parameters(self) -> Known:
        """Numbers beside embeddings, averaged over the members."""
        return _known_average(tuple(member.layer_parameters for member in self.members))

    @property
    def bytes(self) -> Known:
        """Size of the weights file, averaged over the members."""
        return _known_average(tuple(member.bytes for member in self.members))

    def value(self, metric: str) -> Estimate | Missing:
        """The metric, or why there is none."""
        if metric in self.metrics:
            return self.metrics[metric]
        if metric.startswith("overlap"):
            return Missing("it has no teacher among the models evaluated")
        return Missing(f"the evaluation holds no {metric} for it")

    def gap(self, metric: str) -> Estimate | Missing:
        """The share of the gap that it closed, or why there is none."""
        if metric in self.gap_closed:
            return self.gap_closed[metric]
        return Missing("the gap is a distilled model's: this one is not distilled")

    def latency(self, batch: int) -> Latency | Missing:
        """The latency of requests of ``batch`` users, averaged over the members."""
        found = [one for member in self.members for one in member.latencies if one.batch == batch]
        if not found:
            if self.first.teachers:
                return Missing(
                    "an ensemble's latency is that of its teachers, and not all of theirs are known"
                )
            stored = self.first.kind == "knowledge"
            return Missing("stored knowledge serves no requests" if stored else "latency was not measured")
        size = len(found)
        return Latency(
            batch,
            sum(one.p50 for one in found) / size,
            sum(one.p99 for one in found) / size,
            _average([one.scoring for one in found]),
            _average([one.scoring_p99 for one in found]),
            _average([one.lists for one in found]),
            _average([one.lists_p99 for one in found]),
            found[0].threads,
            _average([one.encoding for one in found]),
            _average([one.encoding_p99 for one in found]),
        )

    def group_recall(self, metric: str) -> tuple[Known, ...]:
        """Recall by popularity group, averaged over the members."""
        rows = [member.group_recall.get(metric, ()) for member in self.members]
        groups = list(zip(*rows, strict=False))
        return tuple(_known_average(values) for values in groups)


@dataclass(frozen=True)
class Test:
    """A paired test between two entries; ``p_holm`` is corrected for all tests of the evaluation."""

    a: str
    b: str
    metric: str
    difference: float
    p: float
    p_holm: float
    n: int | None

    @property
    def significant(self) -> bool:
        """Whether the difference passes at 5 % after the correction."""
        return self.p_holm < SIGNIFICANCE


@dataclass(frozen=True)
class PopularityGroup:
    """A share of the catalogue; ``targets`` is its share of the rows to be found, None where not recorded."""

    label: str
    items: int
    interactions: float
    targets: float | None


@dataclass(frozen=True)
class Evaluation:
    """Everything that one evaluation found."""

    name: str
    data: str
    split: str
    protocol: str
    negatives: int | None
    masked: tuple[str, ...]
    history: tuple[str, ...]
    num_items: int
    users: Mapping[str, int]
    entries: tuple[Entry, ...]
    tests: tuple[Test, ...]
    popularity: tuple[PopularityGroup, ...]
    sequence_history: tuple[str, ...] = ()

    def entry(self, name: str | None) -> Entry | None:
        """The row of that name, or of the member of that name."""
        named = (one for one in self.entries if one.name == name)
        return next(named, next((one for one in self.entries if name in [m.name for m in one.members]), None))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that some entry has, in the order of the file."""
        return tuple(dict.fromkeys(name for entry in self.entries for name in entry.metrics))

    @property
    def primary(self) -> str:
        """The metric the page leads with: NDCG@10, else another NDCG, else the first there is."""
        return _preferred(self.metrics, "ndcg@10", "ndcg@")

    @property
    def secondary(self) -> str | None:
        """The metric beside it: Recall@20, else another recall, else the next there is."""
        others = tuple(name for name in self.metrics if name != self.primary)
        return _preferred(others, "recall@20", "recall@") if others else None

    @property
    def overlap(self) -> str | None:
        """The metric of agreement with the teacher's lists: at 10, else the deepest."""
        found = [name for name in self.metrics if name.startswith("overlap@")]
        return "overlap@10" if "overlap@10" in found else (found[-1] if found else None)

    def test(self, one: str, other: str, metric: str) -> Test | None:
        """The test between two entries, if there was one."""
        pair = {one, other}
        return next((test for test in self.tests if test.metric == metric and {test.a, test.b} == pair), None)


def _preferred(names: tuple[str, ...], exact: str, prefix: str) -> str:
    if exact in names:
        return exact
    return next((name for name in reversed(names) if name.startswith(prefix)), names[0])


def _average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _known_average(values: tuple[Known, ...]) -> Known:
    known = [value for value in values if not isinstance(value, Missing)]
    return sum(known) / len(known) if known else values[0]

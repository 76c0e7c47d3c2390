"""What a cell may be made of, and what one is made of: operations, spaces of them, architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from recdistill.errors import OptionError


class Operation(NamedTuple):
    """One candidate of an edge.

    Attributes:
        name: what architectures call it.
        kind: ``conv``, ``max``, ``avg``, ``skip`` or ``none``.
        kernel: positions it reads; 1 for ``skip`` and ``none``.
        dilation: steps between them.
        causal: it reads its own position and earlier ones only.
    """

    name: str
    kind: str
    kernel: int = 1
    dilation: int = 1
    causal: bool = True

    @property
    def reach(self) -> int:
        """Positions between the first and the last that it reads."""
        return (self.kernel - 1) * self.dilation


_BACKWARD = (
    Operation("conv3", "conv", 3),
    Operation("conv3d2", "conv", 3, 2),
    Operation("conv5", "conv", 5),
    Operation("conv5d2", "conv", 5, 2),
    Operation("max3", "max", 3),
    Operation("avg3", "avg", 3),
)
_AROUND = (
    Operation("around3", "conv", 3, 1, causal=False),
    Operation("around3d2", "conv", 3, 2, causal=False),
    Operation("around5", "conv", 5, 1, causal=False),
    Operation("around5d2", "conv", 5, 2, causal=False),
    Operation("aroundmax3", "max", 3, 1, causal=False),
    Operation("aroundavg3", "avg", 3, 1, causal=False),
)
_PLAIN = (Operation("skip", "skip"), Operation("none", "none"))
OPERATIONS: Mapping[str, Operation] = {o.name: o for o in (*_BACKWARD, *_AROUND, *_PLAIN)}

SPACES: Mapping[str, tuple[str, ...]] = {
    "causal": tuple(o.name for o in (*_BACKWARD, *_PLAIN)),
    "released": (
        "around3", "around3d2", "conv3d2", "around5", "around5d2", "conv5d2", "aroundmax3", "aroundavg3", "skip",
        "none",
    ),
}  # fmt: skip
"""Names of the candidates in order; ``released`` is the published list."""


EXAMPLE = "conv3; skip, conv5"


@dataclass(frozen=True)
class Architecture:
    """Which operation each edge of a cell has.

    Attributes:
        nodes: for each node the names of its operations, from the input and then from each node before it.

    Raises:
        OptionError: no nodes, a node with too many or too few operations, or an unknown operation.
    """

    nodes: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not self.nodes:
            raise OptionError("an architecture needs at least one node", f"such as '{EXAMPLE}'")
        for number, names in enumerate(self.nodes, start=1):
            if len(names) != number:
                raise OptionError(
                    f"node {number} has {len(names)} operations; expected {number}, one from the input and one from"
                    " each node before it",
                    f"such as '{EXAMPLE}'",
                )
            for name in names:
                if name not in OPERATIONS:
                    raise OptionError(f"no operation is called '{name}'", f"known: {', '.join(OPERATIONS)}")

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """From ``conv3; skip, conv5; …``: nodes apart by ``;``, operations by ``,``."""
        nodes = [node for node in text.split(";") if node.strip()]
        return cls(tuple(tuple(name.strip() for name in node.split(",")) for node in nodes))

    @classmethod
    def from_edges(cls, names: Sequence[str]) -> Architecture:
        """From its edges in order: into node 1, into node 2 (from the input, from node 1), and so on."""
        nodes: list[tuple[str, ...]] = []
        rest = list(names)
        while rest:
            size = len(nodes) + 1
            nodes.append(tuple(rest[:size]))
            rest = rest[size:]
        return cls(tuple(nodes))

    def __str__(self) -> str:
        return "; ".join(", ".join(node) for node in self.nodes)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, as :meth:`from_json` reads them."""
        return {"nodes": [list(node) for node in self.nodes]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Architecture:
        """From what :meth:`to_json` wrote."""
        return cls(tuple(tuple(node) for node in value["nodes"]))

    @property
    def edges(self) -> tuple[str, ...]:
        """Operations of all edges in order."""
        return tuple(name for node in self.nodes for name in node)

    @property
    def causal(self) -> bool:
        """No operation looks ahead."""
        return all(OPERATIONS[name].causal for name in self.edges)

    @property
    def empty(self) -> bool:
        """No node hears the input, as where every edge is ``none``: the cell adds a constant to its input."""
        hears = [True]
        for node in self.nodes:
            hears.append(any(source and name != "none" for source, name in zip(hears, node, strict=False)))
        return not any(hears[1:])

    @property
    def reach(self) -> int:
        """Positions back that an output of one cell depends on: the last of a sequence needs no more than these."""
        found = [0]  # −1: the node is 0 everywhere
        for node in self.nodes:
            heard = [-1]
            for source, operation in zip(found, (OPERATIONS[name] for name in node), strict=False):
                if operation.kind == "none":
                    continue
                if source >= 0:
                    heard.append(source + operation.reach)
                elif (
                    operation.kind == "conv"
                ):  # of zeros: a constant, which no longer is one beyond the first position
                    heard.append(0)
            found.append(max(heard))
        return max(found)

    def drawn(self) -> str:
        """The cell as text, one line a node."""
        lines: list[str] = []
        for number, node in enumerate(self.nodes, start=1):
            inputs = [
                f"{name}({'input' if source == 0 else source})"
                for source, name in enumerate(node)
                if name != "none"
            ]
            lines.append(f"{number} = {' + '.join(inputs) or '0'}")
        mixed = ", ".join(str(number) for number in range(1, len(self.nodes) + 1))
        return "\n".join([*lines, f"output = input + relu(norm(mean of {mixed}))"])

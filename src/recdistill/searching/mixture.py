"""A cell in which every edge still has every operation, weighed by the choices z of one forward pass.

full      Σ_o z_o · o(h): all are evaluated, so that those which were not drawn have a gradient too
single    z_k · o_k(h) of the drawn one k alone: two to four times cheaper. The gradient of z is then that of a sum in
          which the others give 0, and their weights are not touched by the step
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from recdistill.models.architecture import Architecture
from recdistill.models.cells import Neighbours, NodeMix, Reads, make_operation

Mixture = Literal["full", "single"]


class MixedCell(nn.Module):
    """A cell of mixed edges.

    Args:
        names: the candidates.
        num_nodes: N, at least 1.
        dim: channels.
        generator: of the initial weights.
    """

    def __init__(self, names: Sequence[str], num_nodes: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.names, self.num_nodes = tuple(names), num_nodes
        self.edges = nn.ModuleDict()
        for number in range(1, num_nodes + 1):
            for source in range(number):
                made = {name: make_operation(name, dim, generator) for name in names}
                self.edges[f"{number}_{source}"] = nn.ModuleDict(
                    {name: module for name, module in made.items() if module is not None}
                )
        self.mix = NodeMix(num_nodes, dim, generator)

    def forward(self, x: Tensor, neighbours: Neighbours, choices: Tensor, mixture: Mixture) -> Tensor:
        """The items' vectors (N, dim) to their next; ``choices`` is z, ``(edges, operations)``."""
        drawn = choices.detach().argmax(dim=1).tolist() if mixture == "single" else None
        nodes: list[Tensor] = []
        ready, edge = [Reads(torch.relu(x), neighbours)], 0
        for number in range(1, self.num_nodes + 1):
            node = torch.zeros_like(x)
            for source in range(number):
                for place, name in enumerate(self.names):
                    if name == "none" or (drawn is not None and place != drawn[edge]):
                        continue
                    output = self._of(number, source, name)(ready[source])
                    node = torch.addcmul(node, output, choices[edge, place])
                edge += 1
            nodes.append(node)
            if number < self.num_nodes:
                ready.append(Reads(torch.relu(node), neighbours))
        return self.mix(x, nodes)

    def _of(self, number: int, source: int, name: str) -> nn.Module:
        edge = self.edges[f"{number}_{source}"]
        assert isinstance(edge, nn.ModuleDict)
        return edge[name]

    def weights_of(self, architecture: Architecture) -> dict[str, Tensor]:
        """The state of a :class:`Cell` of ``architecture`` that computes what this one does with those choices."""
        found = {f"mix.{name}": value for name, value in self.mix.state_dict().items()}
        for number, node in enumerate(architecture.nodes, start=1):
            for source, name in enumerate(node):
                if name == "none":
                    continue
                state = self._of(number, source, name).state_dict()
                found |= {f"edges.{number}_{source}.{key}": value for key, value in state.items()}
        return found


def one_hot(architecture: Architecture, names: Sequence[str]) -> Tensor:
    """The choices of ``architecture``, ``(edges, operations)``."""
    places = torch.tensor([list(names).index(name) for name in architecture.edges])
    return nn.functional.one_hot(places, len(names)).float()

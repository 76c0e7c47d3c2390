"""Layer maps: the equation by hand, schemes, conformance."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.distillers.layer_map import LayerMap
from recdistill.testing import check_sequence_distiller
from sequence_cases import Step, value


@pytest.mark.parametrize(
    ("scheme", "layers"), [("left", (0, 1)), ("right", (2, 3)), ("left-jump", (0, 3)), ("right-jump", (0, 3))]
)
def test_the_equation_by_hand(scheme: Any, layers: tuple[int, int]) -> None:
    step = Step(LayerMap(scheme=scheme))
    method: Any = step.method
    expected = torch.zeros(())
    for own, other in zip(step.student.hidden_states, layers, strict=True):
        projected = own @ method.hidden.map.matrix + method.hidden.map.bias
        expected = expected + (projected - step.teacher.hidden_states[other]).square().mean() / 2
    projected = step.student.embeddings @ method.first.map.matrix + method.first.map.bias
    expected = expected + (projected - step.teacher.embeddings).square().mean()
    torch.testing.assert_close(step.loss(), expected)


def test_every_option_changes_the_loss() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"scheme": "left"},
        {"scheme": "right"},
        {"metric": "kl"},
        {"metric": "cosine"},
        {"embeddings": False},
    ]
    found = [value(LayerMap(**options)) for options in changes]
    assert len(set(found)) == len(found)


def test_random_layers_follow_the_generator() -> None:
    def drawn(seed: int) -> list[int]:
        return Step(LayerMap(scheme="random"), seed=seed).method.get_buffer("maps")[-1].tolist()

    assert drawn(3) == drawn(3)
    assert len({tuple(drawn(seed)) for seed in range(8)}) > 1


@pytest.mark.parametrize("embeddings", [False, True])
def test_conforms(embeddings: bool) -> None:
    check_sequence_distiller(lambda: LayerMap(embeddings=embeddings, scheme="random", metric="kl"))


def test_fewer_layers_have_a_map_of_their_own() -> None:
    step = Step(LayerMap(scheme="right"))
    assert step.method.get_buffer("maps").tolist() == [[3, -1], [2, 3]]
    step.student.encoded = step.student.encoded._replace(hidden_states=step.student.hidden_states[:1])
    method: Any = step.method
    own = step.student.hidden_states[0] @ method.hidden.map.matrix + method.hidden.map.bias
    first = step.student.embeddings @ method.first.map.matrix + method.first.map.bias
    expected = (own - step.teacher.hidden_states[3]).square().mean()
    torch.testing.assert_close(step.loss(), expected + (first - step.teacher.embeddings).square().mean())

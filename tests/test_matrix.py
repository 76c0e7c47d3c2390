"""Every method with every model as student and as teacher."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from recdistill import config, models
from recdistill.distillers.base import Distiller, Objective
from recdistill.errors import MissingKnowledgeError, OptionError
from recdistill.knowledge.teacher import live
from recdistill.models.base import Recommender
from recdistill.testing import (
    CPU,
    batch_of,
    built,
    check_distiller,
    check_sequence_distiller,
    tiny_interactions,
)

STUDENTS: dict[str, Callable[[], Recommender]] = {
    "bpr": partial(models.BPR, dim=3),
    "cellnet": partial(models.CellNet, dim=3, max_length=6, dropout=0.0),
    "cml": partial(models.CML, dim=3),
    "itemvae": partial(models.ItemVAE, dim=3),
    "lightgcn": partial(models.LightGCN, dim=3, num_layers=2),
    "multvae": partial(models.MultVAE, dim=3),
    "neumf": partial(models.NeuMF, dim=3),
    "sasrec": partial(models.SASRec, dim=3, max_length=6),
    "nextitnet": partial(models.NextItNet, dim=3, groups=1, max_length=6),
    "gru4rec": partial(models.GRU4Rec, dim=3, max_length=6, dropout=0.0),
    "bert4rec": partial(models.BERT4Rec, dim=3, heads=1, max_length=6, dropout=0.0),
    "hstu": partial(models.HSTU, dim=3, max_length=6, dropout=0.0),
    "simplex": partial(models.SimpleX, dim=3),
    "xsimgcl": partial(models.XSimGCL, dim=3, num_layers=2),
}
FITTED: dict[str, Callable[[], Recommender]] = {
    "ease": models.EASE,
    "itemknn": models.ItemKNN,
    "popularity": models.Popularity,
}
SEQUENTIAL = [name for name in STUDENTS if config.find("models", name).sequential]
SMALL: dict[str, dict[str, Any]] = {
    "cd": {"depth": 8},
    "cpd": {"num_experts": 2, "depth": 8, "num_items": 3},
    "dcd": {"num_drawn": 3, "depth": 6},
    "de": {"num_experts": 2, "anneal_epochs": 4},
    "fitnet": {},
    "freqd": {"num_neighbors": 2},
    "ftd": {},
    "hetcomp": {"depth": 6, "discrepancy_depth": 4},
    "htd": {"num_groups": 2},
    "ir-rrd": {"num_interesting": 2, "num_uninteresting": 2, "depth": 4, "num_items": 5},
    "kd": {"k": 4},
    "nkd": {"num_experts": 2, "num_neighbors": 2},
    "rce-kd": {"k": 3, "num_sampled": 3, "depth": 6},
    "rd": {"k": 3, "num_samples": 4},
    "rrd": {"num_interesting": 3, "num_uninteresting": 3, "depth": 5},
    "sld": {"num_interesting": 3, "num_uninteresting": 3, "depth": 5},
    "soft-labels": {"k": 4},
    "unkd": {"num_groups": 2, "num_pairs": 4, "depth": 5},
    "vkd": {},
}
ITEM_BY_ITEM: dict[str, dict[str, Any]] = {
    "adarec": {},
    "bert-emd": {},
    "hint": {},
    "layer-map": {},
    "logit-kd": {"items": "top", "k": 4},
}


def make(name: str) -> Distiller:
    options = {**SMALL, **ITEM_BY_ITEM}[name]
    found = config.build(config.find("distillers", name), {"weight": 1.0, **options}, name)
    assert isinstance(found, Distiller)
    return found


def test_every_method_and_model_is_in_the_matrix() -> None:
    assert sorted([*SMALL, *ITEM_BY_ITEM]) == config.names("distillers")
    assert sorted([*STUDENTS, *FITTED]) == config.names("models")


@pytest.mark.parametrize("student", sorted(STUDENTS))
@pytest.mark.parametrize("method", sorted(SMALL))
def test_every_method_teaches_every_student_or_says_which_it_can(method: str, student: str) -> None:
    if method in ("cpd", "ftd") and student in ("cml", "neumf"):
        with pytest.raises(OptionError, match=r"not their products; .* that has them: .*bpr"):
            check_distiller(partial(make, method), STUDENTS[student])
        return
    check_distiller(partial(make, method), STUDENTS[student], stops_gradients=method in ("htd", "cpd"))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [(name, "sasrec") for name in SEQUENTIAL] + [("sasrec", name) for name in SEQUENTIAL if name != "sasrec"],
)
@pytest.mark.parametrize("method", sorted(ITEM_BY_ITEM))
def test_what_is_read_item_by_item_teaches_every_sequence_model(
    method: str, student: str, teacher: str
) -> None:
    check_sequence_distiller(partial(make, method), STUDENTS[student], teacher=STUDENTS[teacher])


@pytest.mark.parametrize("teacher", sorted([*STUDENTS, *FITTED]))
@pytest.mark.parametrize("method", sorted(SMALL))
def test_every_method_reads_every_teacher_or_says_what_is_missing(method: str, teacher: str) -> None:
    interactions = tiny_interactions()
    source = built({**STUDENTS, **FITTED}[teacher](), interactions, seed=7)
    knowledge, made = live(source, interactions), make(method)
    torch.manual_seed(0)
    student = built(models.BPR(dim=3), interactions)
    objective = Objective([made], knowledge.restrict(made.needs), base_weight=0.0)
    if made.needs <= knowledge.kinds:
        objective.setup(student, interactions, 3, torch.Generator().manual_seed(0), CPU)
        objective.start_epoch(0)
        batch = batch_of(interactions)
        (loss,) = objective.terms(student, student.state(batch), batch).values()
        loss.backward()
        gradients = [p.grad.to_dense() for p in student.parameters() if p.grad is not None]
        assert torch.isfinite(loss)
        assert gradients
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        assert all(parameter.grad is None for parameter in source.parameters())
        return
    assert "embeddings" in made.needs - knowledge.kinds
    assert teacher in FITTED
    with pytest.raises(MissingKnowledgeError, match=f"{method} reads embeddings"):
        objective.setup(student, interactions, 3, torch.Generator().manual_seed(0), CPU)

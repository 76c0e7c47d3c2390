"""`run` and `compare` with several teachers: the ensemble is built, learned from, evaluated, reused and resumed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import recdistill as rd
from recdistill.artifacts import load_arrays, read_manifest, save_arrays
from recdistill.errors import ArtifactError, MissingKnowledgeError, OptionError
from recdistill.progress import Silent
from recdistill.reporting.overall import comparison_lines, ranked
from recdistill.steps.comparefile import plan

FAST: dict[str, Any] = {"epochs": 4, "batch_size": 256, "learning_rate": 0.02, "trajectory": [0.5, 1.0]}
RRD = {"method": "rrd", "num_interesting": 5, "num_uninteresting": 6, "depth": 15}
TEACHERS = [
    {"name": "bpr", "model": "bpr", "dim": 16, "training": FAST},
    {"name": "cml", "model": "cml", "dim": 8, "training": FAST},
    {"name": "knn", "model": "itemknn"},
]
pytestmark = pytest.mark.usefixtures("without_charts")


def file_of(log: Path, **changed: Any) -> dict[str, Any]:
    return {
        "data": {"source": str(log)},
        "teacher": copy.deepcopy(TEACHERS),
        "extract": {"depth": 20},
        "student": {"dim": 4, "training": {**FAST, "trajectory": []}},
        "evaluate": {"k": [5, 10], "latency": False},
        **changed,
    }


class Stopping(Silent):
    """Presses Ctrl-C in the middle of the n-th training."""

    def __init__(self, trainings: int) -> None:
        self.left = trainings

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Any]:
        self.left -= name.startswith("train")
        with super().stage(name, total, unit) as stage:
            if not self.left and name.startswith("train"):
                steps = iter(range(2))
                plain = stage.advance

                def advance(*args: Any, **more: Any) -> None:
                    plain(*args, **more)
                    if next(steps, None) is None:
                        raise KeyboardInterrupt

                stage.advance = advance
            yield stage


def test_a_model_fitted_at_once_beside_one_teacher(log: Path, tmp_path: Path) -> None:
    tree = file_of(log, teacher=copy.deepcopy(TEACHERS[0]) | {"name": ""}, ensemble={"beside": ["itemknn"]})
    del tree["teacher"]["name"]
    found = rd.run({**tree, "distill": [RRD]}, tmp_path / "run")
    assert list(found.evaluation["models"]) == ["teacher", "ensemble", "alone", "student"]
    told = read_manifest(tmp_path / "run" / "ensemble").summary["members"]
    assert [member["name"] for member in told] == ["teacher", "itemknn"]
    both = found.evaluation["models"]["ensemble"]["parameters"]
    assert both == found.evaluation["models"]["teacher"]["parameters"] + told[1]["parameters"]
    compared = rd.compare({**tree, "method": [{"name": "rrd", "distill": [RRD]}]}, tmp_path / "compare")
    assert set(compared.comparison["lineage"]["rrd"].values()) == {"ensemble", "alone"}
    costs = compared.comparison["costs"]
    assert costs["ensemble"]["parameters"]["mean"] == both
    assert costs["ensemble"]["seconds"]["mean"] == costs["teacher"]["seconds"]["mean"]
    weighted = rd.run(
        {**tree, "distill": [RRD], "ensemble": {"beside": ["itemknn"], "weights": [1, 2]}}, tmp_path / "w"
    )
    assert read_manifest(weighted.out / "ensemble").options["weights"] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("beside", "told"),
    [
        (["bpr"], "beside: bpr is trained by steps"),
        (["nope"], "no model is called 'nope'"),
        ("itemknn", "beside: expected a list of models, found 'itemknn'"),
        ([3], "beside: expected models, found 3"),
        (["ease", "ease"], "beside: ease is named twice"),
        ([{"name": "itemknn", "num_neighbors": 0}], "num_neighbors"),
        (["knn"], "no model is called 'knn'"),
    ],
)
def test_what_cannot_stand_beside_is_refused_before_the_first_step(
    log: Path, tmp_path: Path, beside: Any, told: str
) -> None:
    with pytest.raises(OptionError, match=told):
        rd.run(file_of(log, ensemble={"beside": beside}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_several_teachers(log: Path, tmp_path: Path) -> None:
    found = rd.run(file_of(log, distill=[RRD], ensemble={"debias": 0.5}), tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.name[0] != ".") == sorted(
        ["alone", "data", "ensemble", "evaluation", "report", "student"]
        + [f"{kind}-{name}" for kind in ("teacher", "knowledge") for name in ("bpr", "cml", "knn")]
    )
    manifest = read_manifest(tmp_path / "run" / "ensemble")
    assert manifest.options["ensemble"] == ["bpr", "cml", "knn"]
    assert manifest.options["debias"] == 0.5
    assert [len(member["epochs"]) for member in manifest.summary["members"]] == [2, 2, 1]
    models = found.evaluation["models"]
    assert list(models) == ["teacher-bpr", "teacher-cml", "teacher-knn", "ensemble", "alone", "student"]
    assert models["student"]["teacher"] == "ensemble"
    assert {"popularity_lift", "tail_recall@5"} <= set(models["ensemble"]["metrics"])
    assert read_manifest(tmp_path / "run" / "student").inputs["knowledge"] == manifest.hash
    assert "ensemble" in found.page.read_text(encoding="utf-8")


def test_a_page_tells_how_hetcomp_was_taught(log: Path, tmp_path: Path) -> None:
    hetcomp = {"method": "hetcomp", "depth": 10, "discrepancy_depth": 8, "refresh": 1, "patience": 1}
    method = {"name": "hetcomp", "distill": [hetcomp], "teachers": ["ensemble", "bpr"], "base_weight": 0.0}
    found = rd.compare(file_of(log, method=[method], metrics=["ndcg@10"], ensemble={}), tmp_path / "compare")
    page = found.page.read_text(encoding="utf-8")
    for part in (
        "What the teachers taught",
        "NDCG@10 of ensemble, its teachers and its students",
        "From easy to hard: hetcomp",
        "From easy to hard: hetcomp-bpr",
        "bpr: mean pointer of 1",
        "knn: mean pointer of 0",
        "all together: mean discrepancy",
        "The fine loss begins at epoch 3.",
        "Tail recall@10 against popularity lift",
        '<th scope="col">Popularity lift</th>',
        "Size and milliseconds of an ensemble are the sums",
        "An ensemble took what its teachers took together",
    ):
        assert part in page, part
    assert "No line for the ensemble" not in page


def test_a_run_interrupted_in_a_later_teacher_goes_on_from_there(log: Path, tmp_path: Path) -> None:
    tree = file_of(log, distill=[RRD])
    for table in tree["teacher"][:2]:
        table["training"] = {**table["training"], "checkpoint_seconds": 0}
    rd.run(tree, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        rd.run(tree, tmp_path / "run", progress=Stopping(2))
    root = tmp_path / "run"
    assert (root / "teacher-bpr").exists()
    assert not (root / "teacher-cml").exists()
    assert list(root.glob(".teacher-cml.partial-*"))
    first = (root / "teacher-bpr" / "manifest.json").stat().st_mtime_ns
    rd.run(tree, root)
    assert (root / "teacher-bpr" / "manifest.json").stat().st_mtime_ns == first
    for name in ("teacher-cml", "student"):
        one, other = (load_arrays(path / name / "weights.safetensors") for path in (root, tmp_path / "whole"))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_compare_from_one_ensemble(log: Path, tmp_path: Path) -> None:
    methods = [
        {"name": "rrd", "distill": [RRD], "teachers": ["ensemble", "bpr"]},
        {"name": "dcd", "distill": [{"method": "dcd", "depth": 15}]},
    ]
    tree = file_of(log, method=methods, metrics=["ndcg@5"], ensemble={})
    found = rd.compare(tree, tmp_path / "compare")
    roles = {
        "teacher-bpr": "teacher", "teacher-cml": "teacher", "teacher-knn": "teacher", "ensemble": "ensemble",
        "alone": "trained alone", "rrd": "student", "rrd-bpr": "student", "dcd": "student",
    }  # fmt: skip
    assert found.comparison["roles"] == roles
    full = found.comparison["evaluations"]["full"]
    assert set(full["rows"]) == set(roles)
    split = tmp_path / "compare" / "split-0"
    ensemble = read_manifest(split / "ensemble").hash
    for name in ("rrd", "dcd"):
        assert read_manifest(split / f"{name}-seed-0").inputs["knowledge"] == ensemble
    store = read_manifest(split / "knowledge-bpr").hash
    assert read_manifest(split / "rrd-bpr-seed-0").inputs["knowledge"] == store
    costs = found.comparison["costs"]
    teachers = [costs[f"teacher-{name}"]["parameters"]["mean"] for name in ("bpr", "cml", "knn")]
    assert costs["ensemble"]["parameters"]["mean"] == sum(teachers)
    assert ranked(full, roles)[3:5] == ["ensemble", "alone"]
    assert [row[0] for row in comparison_lines(found.comparison)[0]][4:6] == ["ensemble", "alone"]
    again = rd.compare(tree, tmp_path / "compare")
    assert again.comparison == found.comparison


def test_several_ensembles_each_give_rows(log: Path) -> None:
    tree = file_of(
        log,
        method=[{"name": "rrd"}, {"name": "dcd", "teachers": ["two"]}],
        ensemble=[{"teachers": ["bpr", "cml"], "name": "two"}, {"debias": 1.0}],
    )
    chosen = plan(tree)
    assert [one.directory for one in chosen.ensembles] == ["ensemble-two", "ensemble"]
    assert [one.teachers for one in chosen.ensembles] == [("bpr", "cml"), ("bpr", "cml", "knn")]
    assert [row.name for row in chosen.rows] == ["alone", "rrd-two", "rrd-ensemble", "dcd-two"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ensemble": {"teachers": ["bpr", "ease"]}}, "no teacher 'ease'"),
        ({"ensemble": {"teachers": []}}, "expected a list of teachers"),
        ({"ensemble": {"weights": [1, 2]}}, "expected 3, one a teacher, found 2"),
        ({"ensemble": {"debias": -1}}, "debias"),
        ({"ensemble": {"bias": 1}}, "ensemble.bias: unknown option"),
        ({"ensemble": {"name": "bpr"}}, "expected a name of its own, found 'bpr'"),
        ({"teacher": [TEACHERS[0], TEACHERS[0]]}, "two have the same name"),
        ({"teacher": [TEACHERS[0], {"model": "cml"}]}, "teacher.name: expected"),
    ],
)
def test_mistakes_are_found_before_anything_is_made(
    log: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        rd.run(file_of(log, **changed), tmp_path / "run")
    with pytest.raises(OptionError, match=message):
        rd.compare(file_of(log, method=[{"name": "rrd"}], **changed), tmp_path / "compare")
    assert not list(tmp_path.iterdir())


def test_a_method_of_an_unknown_teacher(log: Path, tmp_path: Path) -> None:
    tree = file_of(log, method=[{"name": "rrd", "teachers": ["ease"]}], ensemble={})
    with pytest.raises(OptionError, match="expected a list of some of bpr, cml, knn, ensemble"):
        rd.compare(tree, tmp_path / "compare")
    with pytest.raises(OptionError, match="a run has one ensemble"):
        rd.run(file_of(log, ensemble=[{"name": "a"}, {"name": "b"}]), tmp_path / "run")


@pytest.mark.parametrize("verb", [rd.run, rd.compare])
def test_lists_too_shallow_for_a_method_are_refused_before_a_teacher_is_trained(
    log: Path, tmp_path: Path, verb: Any
) -> None:
    deep = {"distill": [{**RRD, "depth": 10}]}
    methods = deep if verb is rd.run else {"method": [{"name": "rrd", **deep}]}
    for asked in ({"extract": {"depth": 8}, "ensemble": {}}, {"ensemble": {"depth": 8}}):
        with pytest.raises(
            MissingKnowledgeError, match=r"rrd: lists to depth 10 are read.*ensemble will have 8"
        ):
            verb(file_of(log, **methods, **asked), tmp_path / "out")
    assert not list(tmp_path.rglob("teacher-*"))


@pytest.mark.parametrize("verb", [rd.run, rd.compare])
def test_a_given_trajectory_out_of_order_is_refused_before_a_teacher_is_trained(
    log: Path, tmp_path: Path, verb: Any
) -> None:
    data = rd.prepare(log, tmp_path / "data", seed=0)
    ids = torch.rand(data.num_users, data.num_items).argsort(dim=1)[:, :20]
    mine = tmp_path / "mine"
    (mine / "trajectory").mkdir(parents=True)
    save_arrays(mine / "top_items.safetensors", {"ids": ids})
    for epoch, state in ((1, ids.flip(1)), (2, ids), (3, ids.roll(1, 0))):
        save_arrays(mine / "trajectory" / f"epoch-{epoch:06d}.safetensors", {"ids": state})
    manifest = {"kind": "knowledge", "format": 1, "inputs": {"data": data.hash}}
    (mine / "manifest.json").write_text(json.dumps(manifest))
    teachers = [TEACHERS[0], {"name": "mine", "knowledge": str(mine)}]
    methods = {"distill": [RRD]} if verb is rd.run else {"method": [{"name": "rrd", "distill": [RRD]}]}
    with pytest.raises(ArtifactError, match="out of order"):
        verb(file_of(log, teacher=teachers, ensemble={}, **methods), tmp_path / "out")
    assert not (tmp_path / "out" / "teacher-bpr").exists()
    assert not list((tmp_path / "out").rglob("weights.safetensors"))

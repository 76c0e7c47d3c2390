"""Search, end to end: a student like any other, variants, budgets, resumption, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import recdistill as rd
from command import Command
from line_cases import Notes
from recdistill.artifacts import read_manifest
from recdistill.data.prepared import Data
from recdistill.errors import ArtifactError, MissingKnowledgeError, OptionError
from recdistill.models.architecture import Architecture
from recdistill.models.base import Recommender
from recdistill.models.cellnet import CellNet
from recdistill.searching import latency, outcome
from recdistill.searching.cost_term import CostTerm
from recdistill.searching.latency import encoder_latency
from recdistill.steps import search as steps_search
from recdistill.steps.ablations import ablations
from recdistill.steps.search import FOLDER, RESULT, START, VARIANTS, check_affordable

FAST: dict[str, Any] = {"epochs": 2, "batch_size": 200, "learning_rate": 0.01}
SEARCH: dict[str, Any] = {"epochs": 3, "warmup": 1, "cells": 2, "nodes": 2, "architecture_rate": 0.05}
MODEL: dict[str, Any] = {"dim": 4, "max_length": 10}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of walks over a ring of items, a sequence teacher, and one that reads none."""
    folder = tmp_path_factory.mktemp("search")
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{(start + place) % 20}", place)
        for user, start in enumerate(rng.integers(20, size=50))
        for place in range(int(rng.integers(4, 12)))
    ]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row")
    table.write_csv(folder / "log.csv")
    rd.prepare(folder / "log.csv", folder / "data", split="leave-one-out", holdout="last")
    rd.train(
        folder / "data", {"name": "sasrec", "dim": 8, "max_length": 10}, folder / "teacher", training=FAST
    )
    rd.train(folder / "data", {"name": "bpr", "dim": 4}, folder / "bpr", training=FAST)
    return folder


def found_in(root: Path, out: Path, **options: Any) -> Recommender:
    chosen: dict[str, Any] = {"model": MODEL, "options": SEARCH, "training": FAST, **options}
    return rd.search(root / "data", root / "teacher", out, **chosen)


def test_the_student_is_like_any_other(root: Path, tmp_path: Path) -> None:
    student = found_in(root, tmp_path / "student")
    assert isinstance(student, CellNet)
    manifest = read_manifest(tmp_path / "student")
    facts = json.loads((tmp_path / "student" / FOLDER / RESULT).read_text())
    architecture = Architecture.from_json(facts["architecture"])
    assert student.architecture == architecture
    assert student.num_cells == facts["cells"]
    assert manifest.summary["search"]["drawn"] == architecture.drawn()
    assert manifest.summary["bytes"] > 0
    megabytes = 4e-6 * student.num_parameters()
    assert manifest.summary["search"]["takes"]["megabytes"] == pytest.approx(megabytes)
    assert not (tmp_path / "student" / FOLDER / START).exists()
    history = [
        json.loads(x) for x in (tmp_path / "student" / FOLDER / "history.jsonl").read_text().splitlines()
    ]
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert history[0]["facts"]["cost-term"]["entropy"] > 0
    assert {"adarec", "cost-term", "supernet"} == set(history[0]["losses"])
    again = rd.load(tmp_path / "student")
    assert again.recommend(k=3).equals(student.recommend(k=3))
    models = [tmp_path / "student", root / "teacher"]
    result = rd.evaluate(root / "data", models, tmp_path / "evaluation", latency=False)
    assert set(result["models"]) == {"student", "teacher"}
    rd.extract(root / "data", tmp_path / "student", tmp_path / "knowledge", depth=5)
    page = rd.report([tmp_path / "evaluation"], tmp_path / "report").read_text()
    for part in ("Cell of student", "Shares of the operations: student", "Flow between layers: student"):
        assert part in page
    before = (tmp_path / "student" / "manifest.json").stat().st_mtime_ns
    found_in(root, tmp_path / "student")
    assert (tmp_path / "student" / "manifest.json").stat().st_mtime_ns == before


class _Stop(Exception):
    pass


@pytest.mark.parametrize(("owner", "name", "call"), [(CostTerm, "after_step", 4), (CellNet, "loss", 2)])
def test_a_search_goes_on_where_it_was_interrupted(
    owner: type[Any], name: str, call: int, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, rated = {**FAST, "checkpoint_seconds": 0.0}, {**SEARCH, "candidates": 4}
    whole = found_in(root, tmp_path / "whole", options=rated, training=slow)
    calls, original = 0, getattr(owner, name)

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise _Stop
        return original(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(_Stop):
        found_in(root, tmp_path / "cut", options=rated, training=slow)
    monkeypatch.setattr(owner, name, original)
    resumed = found_in(root, tmp_path / "cut", options=rated, training=slow, resume=True)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_the_candidate_that_is_best_on_valid_rows_is_the_student(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it is rated by is what its inherited weights have there."""
    inherited: list[float] = []
    original = steps_search.train

    def watched(model: Any, objective: Any, rows: Any, training: Any, validate: Any, **rest: Any) -> Any:
        if isinstance(model, CellNet):
            inherited.append(validate(model.eval()))
        return original(model, objective, rows, training, validate, **rest)

    monkeypatch.setattr(steps_search, "train", watched)
    notes = Notes()
    found_in(root, tmp_path / "out", options={**SEARCH, "candidates": 6}, progress=notes)
    facts = json.loads((tmp_path / "out" / FOLDER / RESULT).read_text())
    rated = facts["candidates"]
    assert len(rated) > 1
    assert [one["metric"] for one in rated] == sorted((one["metric"] for one in rated), reverse=True)
    assert (rated[0]["text"], rated[0]["cells"]) == (facts["text"], facts["cells"])
    assert inherited == [pytest.approx(rated[0]["metric"])]
    assert any(
        f"the best of {len(rated)} candidates has ndcg@10 {inherited[0]:.4f}" in n for n in notes.notes
    )


def test_a_student_below_what_it_inherited_is_told(root: Path, tmp_path: Path) -> None:
    notes = Notes()
    harmful = {**FAST, "epochs": 1, "learning_rate": 10.0}
    gentle = {**SEARCH, "learning_rate": 0.05, "epochs": 20}
    found_in(root, tmp_path / "out", options=gentle, training=harmful, progress=notes)
    assert any("on the valid rows is below the" in n and "that the search left" in n for n in notes.notes)
    notes.notes.clear()
    found_in(
        root, tmp_path / "scratch", options={**gentle, "init": "scratch"}, training=harmful, progress=notes
    )
    assert not any("that the search left" in n for n in notes.notes)


def test_a_state_of_the_warmup_is_never_taken(root: Path, tmp_path: Path) -> None:
    found_in(root, tmp_path / "out", options={**SEARCH, "epochs": 4, "warmup": 2})
    folder = tmp_path / "out" / FOLDER
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [record["metric"] is None for record in history] == [True, True, False, False]
    assert json.loads((folder / RESULT).read_text())["best_epoch"] > 2


def test_a_latency_that_nothing_tried_keeps_is_said(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes = iter([50.0, 40.0, 60.0, 70.0, 45.0])
    monkeypatch.setattr(outcome, "encoder_latency", lambda *_: next(takes))
    notes = Notes()
    how = {**SEARCH, "max_latency_ms": 5.0, "latency_batch": 2, "candidates": 1}
    found_in(root, tmp_path / "out", options=how, progress=notes)
    facts = json.loads((tmp_path / "out" / FOLDER / RESULT).read_text())
    assert facts["within"] is False
    assert facts["takes"]["latency_ms"] == 40.0
    assert any("over budget: of " in text and "takes 40" in text for text in notes.notes)
    assert next(takes, None) is None


def test_a_moment_of_other_work_does_not_put_a_budget_out_of_reach(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the meters, corrected by one slow measurement, nothing is within any more; what is measured then is."""
    takes = iter([5000.0, 4.0])
    monkeypatch.setattr(outcome, "encoder_latency", lambda *_: next(takes))
    how = {**SEARCH, "max_latency_ms": 5.0, "latency_batch": 2, "candidates": 1}
    found_in(root, tmp_path / "out", options=how)
    facts = json.loads((tmp_path / "out" / FOLDER / RESULT).read_text())
    assert facts["within"] is True
    assert facts["takes"]["latency_ms"] == 4.0
    assert next(takes, None) is None


def test_candidates_that_are_too_slow_are_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is measured, and the table is not corrected while one of them is within."""
    measured: list[tuple[str, int]] = []

    def by_cells(student: CellNet, *_: int) -> float:
        measured.append((str(student.architecture), student.num_cells))
        return 1.0 if student.num_cells == 1 else 10.0

    monkeypatch.setattr(outcome, "encoder_latency", by_cells)
    how = {**SEARCH, "max_latency_ms": 5.0, "latency_batch": 2, "candidates": 30}
    found_in(root, tmp_path / "out", options=how)
    facts = json.loads((tmp_path / "out" / FOLDER / RESULT).read_text())
    assert len(set(measured)) == len(measured)
    assert {cells for _, cells in measured} == {1, 2}
    rated = [(one["text"], one["cells"]) for one in facts["candidates"]]
    assert sorted(rated) == sorted(one for one in measured if one[1] == 1)
    assert (facts["text"], facts["cells"]) == rated[0]
    assert {one["takes"]["latency_ms"] for one in facts["candidates"]} == {1.0}


def test_measured_latency_as_the_price(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of operations that compute alike, a search at a high price takes the one that is fastest here."""
    slow = {"conv3": 4.0, "conv5": 1.0}
    parts = {"base": [1.0, 0.0], "cell": [0.1, 0.0], "operations": {n: [t, 0.0] for n, t in slow.items()}}
    monkeypatch.setattr(latency, "_timed", lambda setting: parts)
    how = {**SEARCH, "operations": ["conv3", "conv5"], "cost": "latency", "beta": 50.0, "epochs": 12}
    found_in(root, tmp_path / "out", options={**how, "architecture_rate": 0.3})
    facts = json.loads((tmp_path / "out" / FOLDER / RESULT).read_text())
    assert set(Architecture.from_json(facts["architecture"]).edges) == {"conv5"}
    assert facts["cells"] == 1
    assert facts["takes"]["latency_ms"] > 0


def test_the_two_strongest_and_a_budget_do_not_go_together(root: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"search.policy is darts"):
        found_in(root, tmp_path / "out", options={**SEARCH, "policy": "darts", "max_megabytes": 1.0})


def test_every_variant(root: Path, tmp_path: Path) -> None:
    students = ablations(
        root / "data", root / "teacher", tmp_path / "all", model=MODEL, options=SEARCH, training=FAST
    )
    assert tuple(students) == VARIANTS
    losses = {
        name: json.loads((tmp_path / "all" / name / "history.jsonl").read_text().splitlines()[0])["losses"]
        for name in VARIANTS
    }
    assert set(losses["no-distillation"]) == {"cellnet"}
    assert set(losses["random"]) == set(losses["searched"]) == {"cellnet", "adarec"}
    assert not (tmp_path / "all" / "random" / FOLDER / "history.jsonl").exists()
    takes = {
        name: json.loads((tmp_path / "all" / name / FOLDER / RESULT).read_text())["takes"]["megabytes"]
        for name in ("searched", "random")
    }
    assert takes["random"] <= takes["searched"] * (1 + 1e-6)
    assert {read_manifest(tmp_path / "all" / name).options["search"]["init"] for name in VARIANTS} == {
        "scratch"
    }
    searched = json.loads(
        (tmp_path / "all" / "no-emd" / FOLDER / "history.jsonl").read_text().splitlines()[0]
    )
    assert "adarec" not in searched["facts"]  # no weights of layers
    free = json.loads((tmp_path / "all" / "no-cost" / FOLDER / "history.jsonl").read_text().splitlines()[0])
    assert free["losses"]["cost-term"] == 0
    for name in VARIANTS:
        assert read_manifest(tmp_path / "all" / name).options["variant"] == name


def test_a_budget_is_kept(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_SECONDS", 0.0)
    free = found_in(root, tmp_path / "free", options={**SEARCH, "beta": 0.0})
    largest = 4e-6 * free.num_parameters()
    options = {**SEARCH, "max_megabytes": 0.9 * largest, "max_latency_ms": 100.0, "latency_batch": 2}
    small = found_in(root, tmp_path / "small", options=options)
    assert 4e-6 * small.num_parameters() <= 0.9 * largest
    takes = read_manifest(tmp_path / "small").summary["search"]["takes"]
    assert takes["megabytes"] == pytest.approx(4e-6 * small.num_parameters())
    assert 0 < takes["latency_ms"] <= 100
    history = (tmp_path / "small" / FOLDER / "history.jsonl").read_text().splitlines()
    assert "price megabytes" in json.loads(history[0])["facts"]["cost-term"]
    assert isinstance(small, CellNet)
    assert encoder_latency(CellNet(**small.options), 2, 10) > 0


def test_a_budget_that_nothing_meets_is_refused_with_the_nearest(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"no architecture of this space meets megabytes 1e-06; the nearest, '"
    ):
        found_in(root, tmp_path / "x", options={**SEARCH, "max_megabytes": 1e-6})
    with pytest.raises(
        OptionError, match="no architecture of this space meets megabytes 1, latency_ms 1e-06"
    ):
        found_in(root, tmp_path / "x", options={**SEARCH, "max_megabytes": 1.0, "max_latency_ms": 1e-6})
    assert list(tmp_path.iterdir()) == []


def test_the_nearest_budget_is_met(root: Path) -> None:
    """Also where its digits are cut, which is so at some of these sizes."""
    data = Data.load(root / "data")
    for dim in range(3, 16):
        model = {**MODEL, "dim": dim}
        with pytest.raises(OptionError) as refused:
            check_affordable(data, model, {**SEARCH, "max_megabytes": 1e-6})
        nearest = float(str(refused.value).split("takes megabytes ")[1].split(";")[0])
        check_affordable(data, model, {**SEARCH, "max_megabytes": nearest})


def test_ablations_leave_other_directories_alone(root: Path, tmp_path: Path) -> None:
    before = sorted((root / "data").iterdir())
    with pytest.raises(ArtifactError, match="is of kind data, and a folder of variants was to be written"):
        ablations(root / "data", root / "teacher", root / "data")
    assert sorted((root / "data").iterdir()) == before
    with pytest.raises(OptionError, match="no architecture"):
        ablations(root / "data", root / "teacher", tmp_path / "a" / "b", options={"max_megabytes": 1e-6})
    assert list(tmp_path.iterdir()) == []


def test_a_cell_of_none_is_not_what_is_built(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recdistill.searching import outcome

    none = Architecture.parse("none; none, none")
    derive = outcome.derive
    monkeypatch.setattr(outcome, "derive", lambda *a, **k: none if k.get("allow_none") else derive(*a, **k))
    student = found_in(root, tmp_path / "student", options={**SEARCH, "allow_none": True})
    assert isinstance(student, CellNet)
    assert not student.architecture.empty


def test_variants_without_a_transport_to_leave_out(root: Path, tmp_path: Path) -> None:
    students = ablations(
        root / "data", root / "bpr", tmp_path, methods="rce-kd", model=MODEL, options=SEARCH, training=FAST
    )
    assert tuple(students) == tuple(name for name in VARIANTS if name != "no-emd")


def test_options_reach_the_student(root: Path, tmp_path: Path) -> None:
    options = {
        **SEARCH,
        "init": "scratch",
        "retrain_with_teacher": False,
        "search_cells": False,
        "policy": "darts",
    }
    student = found_in(
        root,
        tmp_path / "x",
        options=options,
        methods={"method": "adarec", "metric": "mse"},
        model={**MODEL, "head": "untied"},
    )
    assert isinstance(student, CellNet)
    assert student.num_cells == 2
    assert student.output_bias is not None
    first = json.loads((tmp_path / "x" / "history.jsonl").read_text().splitlines()[0])
    assert set(first["losses"]) == {"cellnet"}
    manifest = read_manifest(tmp_path / "x")
    assert manifest.options["methods"][0]["metric"] == "mse"
    assert manifest.options["distill"] == []


def test_the_published_settings_run(root: Path, tmp_path: Path) -> None:
    released: dict[str, Any] = {
        "space": "released", "causal": False, "search_cells": False, "cost": "released", "beta": 8.0,
        "temperature_floor": 1e-9, "warmup": 0, "allow_none": True, "retrain_with_teacher": False,
    }  # fmt: skip
    method = {"method": "adarec", "direction": "reverse", "smoothing": 0.0}
    student = found_in(root, tmp_path / "x", options={**SEARCH, **released}, methods=method)
    again = rd.load(tmp_path / "x")
    assert isinstance(again, CellNet)
    assert again.options == student.options
    assert not again.options["causal"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": {"architecture": "conv3"}}, "model.architecture is what the search is for"),
        ({"options": {"space": "released"}}, "sees the item that is to be predicted"),
        ({"options": {"operations": ["none"]}}, "holds no operation"),
        (
            {"options": {"operations": ["skip", "none"], "max_skips": 0}},
            "nothing but 'skip' for the other edges",
        ),
        (
            {"options": {"operations": ["skip", "none"], "max_skips": 0, "allow_none": True}},
            "nothing but 'skip' for the other edges",
        ),
        ({"variant": "best"}, "no variant is called 'best'"),
        ({"model": {"dims": 3}}, "dims"),
        ({"methods": "rce-kd", "variant": "no-emd"}, "adarec is not among the methods"),
    ],
)
def test_what_is_refused(options: dict[str, Any], said: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=said):
        found_in(root, tmp_path / "x", **options)


def test_teachers_that_read_no_sequences_are_refused_for_layers(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        MissingKnowledgeError,
        match=r"adarec .* reads no histories in order; name the directory of a sequence",
    ):
        rd.search(root / "data", root / "bpr", tmp_path / "x", methods=["rce-kd", "adarec"])


def test_any_teacher_and_method_at_the_newest_item(root: Path, tmp_path: Path) -> None:
    """The search and the training after it have the same methods; a store of lists is a teacher too."""
    rd.extract(root / "data", root / "bpr", tmp_path / "knowledge")
    options: dict[str, Any] = {"model": MODEL, "options": SEARCH, "training": FAST}
    for teacher in (root / "bpr", tmp_path / "knowledge"):
        out = tmp_path / teacher.name / "student"
        rd.search(root / "data", teacher, out, methods=["rce-kd", {"method": "rrd", "depth": 10}], **options)
        terms = [
            set(json.loads(path.read_text().splitlines()[0])["losses"])
            for path in (out / FOLDER / "history.jsonl", out / "history.jsonl")
        ]
        assert terms == [{"supernet", "rce-kd", "rrd", "cost-term"}, {"cellnet", "rce-kd", "rrd"}]
        manifest = read_manifest(out)
        assert [table["method"] for table in manifest.options["distill"]] == ["rce-kd", "rrd"]
        assert manifest.summary["teacher"] == read_manifest(root / "bpr").hash


@pytest.mark.parametrize("places", ["all", "newest"])
def test_logits_of_what_was_not_seen(places: str, root: Path, tmp_path: Path) -> None:
    method = {"method": "adarec", "places": places, "mask_seen": True, "logit_rows": 16}
    found_in(root, tmp_path / "x", methods=method)
    lines = (tmp_path / "x" / "history.jsonl").read_text().splitlines()
    losses = [json.loads(line)["losses"]["adarec"] for line in lines]
    assert losses[-1] < losses[0]


def test_the_command(root: Path, tmp_path: Path, recdistill: Command) -> None:
    options = {"search": SEARCH, "model": MODEL, "training": FAST}
    sets = [f"--set={name}.{key}={value}" for name, table in options.items() for key, value in table.items()]
    answer = recdistill(
        "search", root / "data", root / "teacher", "--out", tmp_path / "student", "--json", *sets
    )
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)["result"]
    assert result["search"]["cells"] in (1, 2)
    assert Architecture.parse(result["search"]["text"])


def test_a_table_of_latencies_without_use_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"latency_table is t.json, and no latency is measured"):
        found_in(root, tmp_path / "x", options={**SEARCH, "latency_table": "t.json"})
    check_affordable(
        Data.load(root / "data"), MODEL, {**SEARCH, "latency_table": "t.json", "max_latency_ms": 5.0}
    )


def test_ablations_go_by_one_table_of_latencies(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[Any] = []
    original = latency._timed

    def once(setting: Any) -> Any:
        timed.append(setting)
        return original(setting)

    monkeypatch.setattr(latency, "_SECONDS", 0.0)
    monkeypatch.setattr(latency, "_timed", once)
    options = {**SEARCH, "max_latency_ms": 100.0, "latency_batch": 2, "epochs": 2}
    ablations(root / "data", root / "teacher", tmp_path / "a", model=MODEL, options=options, training=FAST)
    assert len(timed) == 1


def test_a_budget_is_given_once(root: Path, tmp_path: Path, recdistill: Command) -> None:
    twice = ["--max-megabytes", 1, "--set=search.max_megabytes=2"]
    answer = recdistill("search", root / "data", root / "teacher", "--out", tmp_path / "x", *twice)
    assert (answer.code, "by --max-megabytes and by --set" in answer.err) == (2, True)


def compared(root: Path, *methods: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {
        "data": {"source": str(root / "log.csv"), "split": "leave-one-out", "holdout": "last"},
        "teacher": {"model": "sasrec", "dim": 8, "max_length": 10, "training": FAST, "live": True},
        "student": {"model": "sasrec", "dim": 4, "max_length": 10, "training": FAST},
        "method": list(methods),
        "evaluate": {"k": [5], "latency": False},
        "seeds": [0, 1],
        **changed,
    }


@pytest.mark.usefixtures("without_charts")
def test_searches_are_rows_of_a_comparison(root: Path, tmp_path: Path) -> None:
    searched = {"name": "searched", "search": SEARCH, "model": MODEL}
    random = {"name": "random", "search": {"variant": "random", "cells": 2, "nodes": 2}, "model": MODEL}
    tree = compared(root, searched, random, {"name": "logit-kd"})
    made = rd.compare(tree, tmp_path)
    rows = made.comparison["evaluations"]["full"]["rows"]
    assert {
        name: rows[name]["seeds"] for name in ("searched", "random", "logit-kd", "alone")
    } == dict.fromkeys(("searched", "random", "logit-kd", "alone"), 2)
    for seed in (0, 1):
        manifest = read_manifest(tmp_path / "split-0" / f"random-seed-{seed}")
        assert (manifest.options["variant"], manifest.seed) == ("random", seed)
        assert manifest.options["model"]["name"] == "cellnet"
    each = [
        json.loads((tmp_path / "split-0" / "evaluation-full" / "metrics.json").read_text())["models"][name]
        for name in ("searched-seed-0", "searched-seed-1")
    ]
    mean = sum(one["metrics"]["ndcg@5"]["mean"] for one in each) / 2
    assert rows["searched"]["metrics"]["ndcg@5"]["mean"] == pytest.approx(mean)
    seconds = sum(
        json.loads(line)["seconds"]
        for part in ("", FOLDER)
        for seed in (0, 1)
        for line in (tmp_path / "split-0" / f"searched-seed-{seed}" / part / "history.jsonl")
        .read_text()
        .splitlines()
    )
    assert made.comparison["costs"]["searched"]["seconds"]["mean"] == pytest.approx(seconds / 2)
    assert made.comparison["lineage"]["searched"] == {"teacher": "teacher", "alone": "alone"}
    before = (tmp_path / "split-0" / "searched-seed-0" / "manifest.json").stat().st_mtime_ns
    rd.compare(tree, tmp_path)
    assert (tmp_path / "split-0" / "searched-seed-0" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"search": {"variant": "best"}}, "no variant is called 'best'"),
        ({"search": {"celsl": 2}}, "celsl.*cells"),
        ({"search": {}, "model": {"cells": 2}}, "x.model.cells is what the search is for"),
        ({"model": {"dim": 4}}, "nothing is searched"),
        ({"search": {}, "base_weight": 2.0}, "neither base_weight nor from"),
        ({"search": {"operations": ["around3"]}}, "sees the item that is to be predicted.*around3"),
    ],
)
def test_searches_in_files_are_checked_first(
    root: Path, tmp_path: Path, method: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        rd.compare(compared(root, {"name": "x", **method}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_budget_in_a_file_is_checked_before_a_teacher_is_trained(root: Path, tmp_path: Path) -> None:
    search = {"max_megabytes": 1e-6, "max_latency_ms": 1.0}
    with pytest.raises(OptionError, match="no architecture of this space meets megabytes 1e-06"):
        rd.compare(compared(root, {"name": "x", "search": search, "model": MODEL}), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "split-0").iterdir()] == ["data"]


def test_a_search_wants_a_live_teacher(root: Path, tmp_path: Path) -> None:
    stored = {"model": "sasrec", "dim": 8, "training": FAST}
    with pytest.raises(MissingKnowledgeError, match=r"x: adarec reads what each item .*live = true"):
        rd.compare(compared(root, {"name": "x", "search": SEARCH}, teacher=stored), tmp_path / "out")
    assert not (tmp_path / "out").exists()

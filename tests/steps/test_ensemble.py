"""`ensemble` from stores to a store: what it writes, reuses, refuses, and that methods and evaluation read it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

import recdistill as rd
from recdistill import config
from recdistill.artifacts import load_arrays, read_manifest, save_arrays
from recdistill.data.prepared import Data
from recdistill.distillers.base import Objective
from recdistill.distillers.hetcomp import HetComp
from recdistill.errors import ArtifactError, MissingKnowledgeError, OptionError
from recdistill.knowledge.base import Aggregation
from recdistill.knowledge.ensemble import aggregate
from recdistill.knowledge.teacher import load_knowledge
from recdistill.models.bpr import BPR
from recdistill.progress import Silent
from recdistill.testing import built

FAST = {"epochs": 6, "batch_size": 128, "learning_rate": 0.02}
ALL = ("top_items", "top_users", "observed_scores", "embeddings", "trajectory")


def make_data(path: Path, seed: int = 0) -> Data:
    """60 users with 12 of 50 items each, by taste."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(60, 3)) @ rng.normal(size=(50, 3)).T + rng.gumbel(size=(60, 50))
    items = np.argsort(-scores, axis=1)[:, :12].reshape(-1)
    table = pl.DataFrame({"user_id": np.repeat([f"u{n}" for n in range(60)], 12), "item_id": items + 1000})
    table.write_csv(path.parent / "log.csv")
    return rd.prepare(path.parent / "log.csv", path, seed=seed)


class Said(Silent):
    def __init__(self) -> None:
        self.text = ""

    def note(self, text: str) -> None:
        self.text += text + "\n"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, three unlike teachers and their stores: two with a trajectory, one fitted at once."""
    root = tmp_path_factory.mktemp("ensemble")
    data = make_data(root / "data")
    training = {**FAST, "trajectory": (0.5, 1.0), "validate_every": 6}
    for name in ("bpr", "cml"):
        teacher = rd.train(data, {"name": name, "dim": 8}, root / name, training=training)
        rd.extract(data, teacher, root / f"knowledge-{name}", kinds=ALL, depth=30)
    ease = rd.train(data, "ease", root / "ease")
    rd.extract(data, ease, root / "knowledge-ease", depth=20)
    return root


def stores(line: Path, *names: str) -> list[Path]:
    return [line / f"knowledge-{name}" for name in names or ("bpr", "cml", "ease")]


def test_an_ensemble_is_an_ordinary_store(line: Path, tmp_path: Path) -> None:
    said = Said()
    found = rd.ensemble(stores(line), tmp_path / "all", progress=said, data=line / "data")
    assert found.kinds == {"top_items", "top_users", "observed_scores", "trajectory", "scores"}
    assert "the stores have depths up to 30, and ease has 20: the common depth 20 is used" in said.text
    assert "ensemble of bpr (2), cml (2), ease (1); in brackets the states; depth 20" in said.text
    data = Data.load(line / "data")
    teachers = [load_knowledge(path, data) for path in stores(line)]
    users = torch.arange(data.num_users)
    lists = [teacher.top_items(users, 20).ids for teacher in teachers]
    expected = aggregate(lists, data.num_items, 20)
    lists = found.top_items(users, 20)
    assert torch.equal(lists.ids, expected.ids.long())
    assert torch.equal(lists.scores, expected.scores)
    assert not data.train.contains(users, lists.ids).any()
    assert found.top_users(torch.arange(data.num_items), 20).lengths.min() > 0
    assert found.observed_scores().shape == (data.train.num_pairs,)


def test_its_members_are_the_teachers_with_their_states(line: Path, tmp_path: Path) -> None:
    found = rd.ensemble(stores(line), tmp_path / "all", data=line / "data")
    data = Data.load(line / "data")
    members = found.members(15)
    assert [member.name for member in members] == ["bpr", "cml", "ease"]
    assert [member.epochs for member in members][:2] == [(3, 6), (3, 6)]
    for member, path in zip(members, stores(line), strict=True):
        teacher = load_knowledge(path, data)
        (own,) = teacher.members(15)
        assert own.epochs == member.epochs
        assert all(torch.equal(a, b) for a, b in zip(own.states, member.states, strict=True))
        assert member.states[-1].shape == (data.num_users, 15)
        assert torch.equal(member.states[-1].long(), teacher.top_items(torch.arange(data.num_users), 15).ids)
        assert member.observed_scores is not None
        assert torch.equal(member.observed_scores, teacher.observed_scores())


def test_a_state_stores_ids_alone(line: Path) -> None:
    files = sorted((line / "knowledge-bpr" / "trajectory").iterdir())
    assert [file.name for file in files] == ["epoch-000003.safetensors", "epoch-000006.safetensors"]
    assert {name: array.dtype for name, array in load_arrays(files[0]).items()} == {"ids": torch.int32}


def test_its_manifest_has_its_metrics_on_valid_rows(line: Path, tmp_path: Path) -> None:
    data = Data.load(line / "data")
    rd.ensemble(stores(line), tmp_path / "all", data=data)
    known = read_manifest(tmp_path / "all").summary["validation"]
    result = rd.evaluate(data, tmp_path / "all", tmp_path / "valid", k=(5, 10), split="valid", latency=False)
    found = {
        name: entry["mean"]
        for name, entry in result["models"]["all"]["metrics"].items()
        if name.partition("@")[0] in ("recall", "ndcg", "mrr", "hit", "precision")
    }
    assert {name: known[name] for name in found} == pytest.approx(found)
    assert "ndcg@20" in known  # the lists' depth
    assert "ndcg@50" not in known
    own = rd.ensemble(stores(line, "ease"), tmp_path / "one", data=data)  # ranks as its teacher does
    assert own.manifest is not None
    assert own.manifest.summary["validation"]["ndcg@10"] == pytest.approx(
        read_manifest(line / "ease").summary["best_metric"]
    )


def test_the_same_call_reuses_and_another_is_refused(line: Path, tmp_path: Path) -> None:
    rd.ensemble(stores(line), tmp_path / "all", data=line / "data")
    said = Said()
    rd.ensemble(stores(line), tmp_path / "all", data=line / "data", progress=said)
    assert "reused" in said.text
    with pytest.raises(ArtifactError, match="debias"):
        rd.ensemble(stores(line), tmp_path / "all", data=line / "data", debias=1.0)
    with pytest.raises(ArtifactError, match="input teacher:0"):
        rd.ensemble(stores(line)[::-1], tmp_path / "all", data=line / "data")


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 10},
        {"weights": (1.0, 5.0, 1.0)},
        {"consistency": 2.0},
        {"debias": 5.0},
        {"temperature": 50.0},
    ],
    ids=str,
)
def test_every_option_changes_the_lists(line: Path, tmp_path: Path, options: dict[str, object]) -> None:
    plain = rd.ensemble(stores(line), tmp_path / "plain", data=line / "data").lists["top_items"]
    found = rd.ensemble(stores(line), tmp_path / "other", data=line / "data", **options).lists["top_items"]
    assert not torch.equal(plain.ids, found.ids)


def test_data_is_found_beside_the_stores(line: Path, tmp_path: Path) -> None:
    found = rd.ensemble(stores(line, "bpr", "cml"), tmp_path / "two")
    assert found.num_users == 60
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "bpr").symlink_to(line / "knowledge-bpr")
    with pytest.raises(OptionError, match="no teacher"):
        rd.ensemble([], tmp_path / "none")


def test_a_single_teacher_is_said_and_ranks_as_it_does(line: Path, tmp_path: Path) -> None:
    said = Said()
    found = rd.ensemble(stores(line, "ease"), tmp_path / "one", progress=said, debias=3.0, consistency=1.0)
    assert "a single teacher: the ensemble ranks as ease does" in said.text
    assert "consistency changes nothing" in said.text
    own = load_knowledge(line / "knowledge-ease", Data.load(line / "data"))
    assert torch.equal(found.lists["top_items"].ids, own.lists["top_items"].ids)


def test_depth_beyond_lists_and_vectors(line: Path, tmp_path: Path) -> None:
    rd.extract(line / "data", line / "bpr", tmp_path / "vectors", kinds=("top_items", "embeddings"), depth=30)
    deep = rd.ensemble([tmp_path / "vectors"], tmp_path / "deep", depth=40, data=line / "data")
    assert deep.lists["top_items"].ids.shape[1] == 40
    assert (deep.lists["top_items"].ids[:, 30:] >= 0).any()  # derived
    said = Said()
    states = rd.ensemble(stores(line, "bpr"), tmp_path / "states", depth=40, progress=said)
    assert "depth 40 is asked for, and bpr has 30" in said.text  # those of its trajectory
    assert states.lists["top_items"].ids.shape[1] == 30
    said = Said()
    common = rd.ensemble(stores(line), tmp_path / "all", depth=40, data=line / "data", progress=said)
    assert "depth 40 is asked for, and ease has 20: the common depth 20 is used" in said.text
    assert common.lists["top_items"].ids.shape[1] == 20
    assert common.manifest is not None
    assert common.manifest.options["depth"] == 20


def test_what_is_refused(line: Path, tmp_path: Path) -> None:
    rd.ensemble(stores(line), tmp_path / "all", data=line / "data")
    cases: list[tuple[list[Path], dict[str, object], str]] = [
        ([*stores(line, "bpr"), *stores(line, "bpr")], {}, "given twice"),
        ([tmp_path / "all", *stores(line, "bpr")], {"data": line / "data"}, "is an ensemble itself"),
        (stores(line), {"weights": (1.0, 2.0)}, "expected 3, one a teacher, found 2"),
        (stores(line), {"weights": (1.0, 2.0, 0.0)}, "weights"),
        ([line / "bpr"], {}, "is of kind model"),
        ([tmp_path / "nothing"], {}, "does not exist"),
    ]
    for paths, options, message in cases:
        with pytest.raises((OptionError, ArtifactError), match=message):
            rd.ensemble(paths, tmp_path / "refused", **options)
    assert not (tmp_path / "refused").exists()


def test_teachers_of_other_data_are_refused(line: Path, tmp_path: Path) -> None:
    other = make_data(tmp_path / "data", seed=1)  # another split of the same users and items
    teacher = rd.train(other, "popularity", tmp_path / "teacher")
    rd.extract(other, teacher, tmp_path / "knowledge", depth=20)
    with pytest.raises(ArtifactError, match="was extracted from data"):
        rd.ensemble([*stores(line, "bpr"), tmp_path / "knowledge"], tmp_path / "mixed")


def test_methods_that_read_lists_learn_from_it_and_others_say_why_not(line: Path, tmp_path: Path) -> None:
    data = Data.load(line / "data")
    rd.ensemble(stores(line), tmp_path / "all", data=data)
    methods = [
        {"method": "rrd", "num_interesting": 5, "num_uninteresting": 5, "depth": 20},
        {"method": "dcd", "depth": 20},
        {"method": "rce-kd", "k": 10, "depth": 20},
    ]
    for method in methods:
        name = method["method"]
        student = rd.distill(data, tmp_path / "all", "bpr", [method], tmp_path / f"{name}", training=FAST)
        assert student.path is not None
    sld = {"method": "sld", "depth": 20}
    rd.distill(data, tmp_path / "all", "bpr", [sld], tmp_path / "sld", training=FAST)
    with pytest.raises(MissingKnowledgeError, match="de reads embeddings, and this ensemble has none"):
        rd.distill(data, tmp_path / "all", "bpr", "de", tmp_path / "de", training=FAST)
    with pytest.raises(
        MissingKnowledgeError,
        match=r"to depth 20;.* ensemble KNOWLEDGE... --depth 50 .*, of stores whose lists",
    ):
        rd.distill(
            data, tmp_path / "all", "bpr", {"method": "rrd", "depth": 60}, tmp_path / "rrd2", training=FAST
        )


def test_states_with_shorter_lists_are_told(line: Path, tmp_path: Path) -> None:
    shutil.copytree(line / "knowledge-bpr", tmp_path / "bpr")
    for path in (tmp_path / "bpr" / "trajectory").iterdir():
        save_arrays(path, {"ids": load_arrays(path)["ids"][:, :6].clone()})
    said = Said()
    rd.ensemble([tmp_path / "bpr", *stores(line, "cml")], tmp_path / "all", progress=said, data=line / "data")
    assert "the stores have depths up to 30, and bpr has 6: the common depth 6 is used" in said.text
    assert "cml has states" not in said.text


def test_an_ensemble_that_lost_its_teachers_lists_is_refused(line: Path, tmp_path: Path) -> None:
    rd.ensemble(stores(line), tmp_path / "all", data=line / "data")
    shutil.rmtree(tmp_path / "all" / "members")
    with pytest.raises(ArtifactError, match=r"has no lists of the teacher .*; make the ensemble again"):
        rd.distill(line / "data", tmp_path / "all", "bpr", "hetcomp", tmp_path / "student", training=FAST)


def test_the_default_method_goes_as_far_as_the_knowledge(
    line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said()
    monkeypatch.setattr("recdistill.steps.distill.with_beside", lambda teacher, *_: teacher)  # as it is
    lists = rd.extract(line / "data", line / "bpr", tmp_path / "lists", kinds=("top_items",), depth=15)
    ensemble = rd.ensemble([line / "knowledge-bpr", line / "knowledge-cml"], tmp_path / "ensemble", depth=25)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, store in {
        "all": line / "knowledge-bpr",
        "ensemble": ensemble.path,
        "lists": lists.path,
    }.items():
        out = tmp_path / f"student-{name}"
        rd.distill(line / "data", store, "bpr", out=out, training={**FAST, "epochs": 1}, progress=said)
        found[name] = read_manifest(out, kind="model").options["distill"]
    assert [table["method"] for table in found["all"]] == ["rce-kd", "rrd"]
    assert found["all"][1]["depth"] == 2000
    assert [table["method"] for table in found["ensemble"]] == ["rce-kd", "rrd"]
    first, second = found["ensemble"]
    assert first["k"] == second["depth"] == second["num_interesting"] == 25
    (alone,) = found["lists"]
    assert (alone["method"], alone["weight"], alone["depth"], alone["num_interesting"]) == (
        "rrd",
        1.0,
        15,
        15,
    )
    assert "recommended-lists: the knowledge has no scores" in said.text
    assert "rrd.depth is 25, as deep as the lists are, not 2000" in said.text


def test_hetcomp_puts_its_teachers_together_as_the_ensemble_does(line: Path, tmp_path: Path) -> None:
    data, options = Data.load(line / "data"), {"weights": (1.0, 3.0, 1.0), "consistency": 1.0, "debias": 3.0}
    made = rd.ensemble(stores(line), tmp_path / "all", data=data, temperature=5.0, **options)
    assert made.aggregation() == Aggregation(temperature=5.0, **options)
    assert load_knowledge(line / "knowledge-bpr", data).aggregation() == Aggregation()
    method = HetComp(depth=20, construction="final")
    objective = Objective([method], made, base_weight=0.0)
    student = built(BPR(dim=3), data.train)
    objective.setup(student, data.train, 1, torch.Generator(), torch.device("cpu"))
    assert torch.equal(method.get_buffer("targets"), made.lists["top_items"].ids)
    plain = rd.ensemble(stores(line), tmp_path / "plain", data=data)
    assert plain.aggregation() == Aggregation()
    assert not torch.equal(plain.lists["top_items"].ids, made.lists["top_items"].ids)


# Stores made by hand


def by_hand(path: Path, data: Data, ids: Tensor, **more: Tensor) -> Path:
    """A teacher from elsewhere: its lists as they are documented, and the shortest manifest."""
    path.mkdir()
    save_arrays(path / "top_items.safetensors", {"ids": ids})
    for name, array in more.items():
        save_arrays(path / f"{name}.safetensors", {"scores": array})
    manifest = {"kind": "knowledge", "format": 1, "inputs": {"data": data.hash}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.fixture
def random_lists() -> Callable[[Data, int], Tensor]:
    def make(data: Data, depth: int) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        return torch.rand(data.num_users, data.num_items, generator=generator).argsort(dim=1)[:, :depth]

    return make


def test_a_store_made_by_hand_takes_part(
    line: Path, tmp_path: Path, random_lists: Callable[[Data, int], Tensor]
) -> None:
    data = Data.load(line / "data")
    ids = random_lists(data, 40)
    mine = by_hand(tmp_path / "mine", data, ids)
    said = Said()
    found = rd.ensemble([*stores(line), mine], tmp_path / "all", data=data, progress=said)
    assert "no observed_scores in mine: the other teachers order the observed items" in said.text
    member = found.members()[-1]
    assert (member.name, member.epochs, member.observed_scores) == ("mine", (0,), None)
    assert "mine" in [entry["name"] for entry in read_manifest(tmp_path / "all").summary["members"]]
    assert (
        found.top_users(torch.arange(data.num_items), 5).lengths.max() == 5
    )  # from the lists: mine has none
    result = rd.evaluate(data, [mine, tmp_path / "all"], tmp_path / "evaluation", k=(5,), latency=False)
    assert set(result["models"]) == {"mine", "all"}


def test_another_content_by_hand_is_another_store(
    line: Path, tmp_path: Path, random_lists: Callable[[Data, int], Tensor]
) -> None:
    data = Data.load(line / "data")
    ids = random_lists(data, 20)
    one, other = by_hand(tmp_path / "one", data, ids), by_hand(tmp_path / "other", data, ids.flip(1))
    assert read_manifest(one).hash != read_manifest(other).hash
    assert len(read_manifest(one).hash) == 16


def test_a_user_without_a_list_in_some_teacher(
    line: Path, tmp_path: Path, random_lists: Callable[[Data, int], Tensor]
) -> None:
    data = Data.load(line / "data")
    ids = random_lists(data, 20)
    ids[3] = -1
    mine, said = by_hand(tmp_path / "mine", data, ids), Said()
    found = rd.ensemble([mine, *stores(line, "bpr")], tmp_path / "all", data=data, depth=15, progress=said)
    assert "1 user has no list in mine: the other teachers decide" in said.text
    own = load_knowledge(line / "knowledge-bpr", data).lists["top_items"].ids[3, :15]
    assert torch.equal(found.lists["top_items"].ids[3], own)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda ids: ids[:-1], "have 59 rows; expected 60"),
        (lambda ids: ids + 1000, "has ids from 1000 to 10.*; expected 0 to 49"),
        (lambda ids: torch.cat([ids, ids], dim=1), "an id twice in a row"),
        (lambda ids: ids.float(), "has no ids of shape"),
    ],
    ids=["rows", "range", "twice", "floats"],
)
def test_what_is_wrong_in_a_store_made_by_hand(
    line: Path,
    tmp_path: Path,
    random_lists: Callable[[Data, int], Tensor],
    spoil: Callable[[Tensor], Tensor],
    message: str,
) -> None:
    data = Data.load(line / "data")
    mine = by_hand(tmp_path / "mine", data, random_lists(data, 10))
    ids = spoil(load_arrays(mine / "top_items.safetensors")["ids"].clone())
    save_arrays(mine / "top_items.safetensors", {"ids": ids, "scores": torch.zeros(ids.shape)})
    with pytest.raises(ArtifactError, match=message):
        rd.ensemble([mine], tmp_path / "all", data=data)


def test_scores_that_rise_along_their_lists_are_refused(
    line: Path, tmp_path: Path, random_lists: Callable[[Data, int], Tensor]
) -> None:
    data = Data.load(line / "data")
    ids = random_lists(data, 10)
    mine, distances = by_hand(tmp_path / "mine", data, ids), torch.arange(10.0).repeat(len(ids), 1)
    save_arrays(mine / "top_items.safetensors", {"ids": ids, "scores": -distances})
    load_knowledge(mine, data)
    save_arrays(mine / "top_items.safetensors", {"ids": ids, "scores": distances})
    with pytest.raises(ArtifactError, match="scores rise along the lists; expected the best item first"):
        load_knowledge(mine, data)


def test_train_items_are_taken_off_lists_made_by_hand(
    line: Path, tmp_path: Path, random_lists: Callable[[Data, int], Tensor]
) -> None:
    data = Data.load(line / "data")
    users = torch.arange(data.num_users)
    found = load_knowledge(by_hand(tmp_path / "mine", data, random_lists(data, 50)), data)
    lists = found.top_items(users, 50)
    assert not data.train.contains(users, lists.ids).any()
    assert torch.equal(lists.lengths, data.num_items - data.train.user_counts)
    assert (lists.scores.diff() <= 0).logical_or(lists.ids[:, 1:] < 0).all()


def test_ids_of_another_order_are_aligned_by_the_external_ones(
    line: Path, tmp_path: Path, random_lists: Callable[[Data, int], Tensor]
) -> None:
    data = Data.load(line / "data")
    ids = random_lists(data, 20)
    plain = by_hand(tmp_path / "plain", data, ids)
    # the same lists of 40 users in reverse, the items numbered backwards, one user and one item unknown
    mine = by_hand(tmp_path / "mine", data, (data.num_items - 1 - ids)[:40].flip(0))
    (mine / "trajectory").mkdir()
    save_arrays(mine / "trajectory" / "epoch-4.safetensors", {"ids": torch.tensor([[0, 1]]).expand(40, 2)})
    own_users, own_items = data.users.ids()[:40].reverse().to_list(), data.items.ids().reverse().to_list()
    own_users[0], lost = "nobody", own_items[5]
    own_items[5] = 77
    pl.DataFrame({"user_id": own_users}).write_parquet(mine / "users.parquet")
    pl.DataFrame({"item_id": own_items}).write_parquet(mine / "items.parquet")
    expected, found = (load_knowledge(path, data).lists["top_items"].ids for path in (plain, mine))
    (place,) = data.items.index([lost]).tolist()
    for user in range(data.num_users):
        whole = [i for i in expected[user].tolist() if i not in (place, -1)] if user < 39 else []
        assert [i for i in found[user].tolist() if i >= 0] == whole
    (member,) = load_knowledge(mine, data).members()
    assert member.epochs == (4, 5)
    assert set(member.states[0][0].tolist()) <= {data.num_items - 1, data.num_items - 2, -1}
    save_arrays(mine / "observed_scores.safetensors", {"scores": torch.zeros(data.train.num_pairs)})
    with pytest.raises(ArtifactError, match="has ids of its own, by which observed_scores are not brought"):
        load_knowledge(mine, data)


def test_lists_of_users_made_by_hand(
    line: Path, tmp_path: Path, random_lists: Callable[[Data, int], Tensor]
) -> None:
    data = Data.load(line / "data")
    mine = by_hand(tmp_path / "mine", data, random_lists(data, 20))
    lists = torch.arange(data.num_users).expand(data.num_items, data.num_users)
    save_arrays(mine / "top_users.safetensors", {"ids": lists})
    found = load_knowledge(mine, data).top_users(torch.arange(data.num_items), data.num_users)
    assert torch.equal(found.lengths, data.num_users - data.train.item_counts)
    everyone = torch.arange(data.num_items)[:, None].expand_as(found.ids)[found.ids >= 0]
    assert not data.train.contains(found.ids[found.ids >= 0], everyone).any()


def test_observed_scores_of_another_length_are_refused(
    line: Path, tmp_path: Path, random_lists: Callable[[Data, int], Tensor]
) -> None:
    data = Data.load(line / "data")
    mine = by_hand(tmp_path / "mine", data, random_lists(data, 20), observed_scores=torch.zeros(7))
    with pytest.raises(ArtifactError, match=r"have shape \(7,\); the data has"):
        load_knowledge(mine, data)


def test_scores_that_are_no_numbers_are_refused(
    line: Path, tmp_path: Path, random_lists: Callable[[Data, int], Tensor]
) -> None:
    data = Data.load(line / "data")
    observed = torch.zeros(data.train.num_pairs)
    observed[3] = torch.nan
    mine = by_hand(tmp_path / "mine", data, random_lists(data, 20), observed_scores=observed)
    with pytest.raises(ArtifactError, match=r"observed_scores at .* have scores that are NaN"):
        load_knowledge(mine, data)
    ids = random_lists(data, 5)
    save_arrays(mine / "top_items.safetensors", {"ids": ids, "scores": torch.full(ids.shape, torch.nan)})
    with pytest.raises(ArtifactError, match=r"top_items at .* have scores that are NaN"):
        load_knowledge(mine, data)


def test_the_documented_lines_make_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "knowledge.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    manifest = read_manifest(tmp_path / "runs" / "mine", kind="knowledge")
    assert manifest.inputs == {"data": "0123456789abcdef"}
    assert load_arrays(tmp_path / "runs" / "mine" / "top_items.safetensors")["ids"].tolist()[1] == [1, 0, -1]


# Evaluation


def test_evaluation_of_teachers_ensemble_and_student(line: Path, tmp_path: Path) -> None:
    data = Data.load(line / "data")
    rd.ensemble(stores(line, "bpr", "cml"), tmp_path / "ensemble", data=data, depth=25)
    rrd = {"method": "rrd", "num_interesting": 5, "num_uninteresting": 5, "depth": 20}
    rd.distill(
        data, tmp_path / "ensemble", {"name": "bpr", "dim": 4}, [rrd], tmp_path / "student", training=FAST
    )
    rd.train(data, {"name": "bpr", "dim": 4}, tmp_path / "alone", training=FAST)
    models = [line / "bpr", line / "cml", *(tmp_path / name for name in ("ensemble", "alone", "student"))]
    result = rd.evaluate(data, models, tmp_path / "evaluation", k=(5, 10))
    found = result["models"]
    both = [found["bpr"], found["cml"]]
    for size in ("parameters", "bytes"):
        assert found["ensemble"][size] == sum(one[size] for one in both)
    for place, timed in enumerate(found["ensemble"]["latency_ms"]):
        assert timed["p50"] == pytest.approx(sum(one["latency_ms"][place]["p50"] for one in both))
    assert found["student"]["teacher"] == "ensemble"
    assert set(found["ensemble"]["metrics"]) >= {"ndcg@5", "popularity_lift", "tail_recall@10", "coverage@5"}
    assert set(result["gap_closed"]) == {"student"}
    reasons = result["gap_closed_reasons"]["student"]
    assert all("no undistilled model" not in reason for reason in reasons.values())
    alone = rd.evaluate(data, [tmp_path / "ensemble"], tmp_path / "one", k=(5,))["models"]["ensemble"]
    assert alone["parameters"] == found["ensemble"]["parameters"]  # from the stores of its teachers
    assert alone["latency_ms"] is None


def test_an_ensemble_of_stores_made_by_hand_has_no_size(
    line: Path, tmp_path: Path, random_lists: Callable[[Data, int], Tensor]
) -> None:
    data = Data.load(line / "data")
    mine = by_hand(tmp_path / "mine", data, random_lists(data, 40))
    rd.ensemble([mine, *stores(line, "bpr")], tmp_path / "ensemble", data=data, depth=20)
    result = rd.evaluate(data, [tmp_path / "ensemble", line / "bpr"], tmp_path / "evaluation", k=(5,))
    found = result["models"]["ensemble"]
    assert (found["parameters"], found["bytes"], found["latency_ms"]) == (None, None, None)


def test_a_cut_off_beyond_the_lists_names_the_depth_that_would_do(line: Path, tmp_path: Path) -> None:
    rd.ensemble(stores(line), tmp_path / "ensemble", data=line / "data", depth=10)
    with pytest.raises(
        OptionError,
        match=r"too short for the top 12 of 60 users; ensemble with --depth 13 \(of stores as deep\)",
    ):
        rd.evaluate(line / "data", tmp_path / "ensemble", tmp_path / "evaluation", k=(12,))
    rd.ensemble(stores(line), tmp_path / "deeper", data=line / "data", depth=13)
    rd.evaluate(line / "data", tmp_path / "deeper", tmp_path / "evaluation", k=(12,))


# Trajectories


@pytest.mark.parametrize(
    "name", [name for name in config.names("models") if not config.find("models", name).sequential]
)
def test_every_model_has_a_trajectory(line: Path, tmp_path: Path, name: str) -> None:
    data = Data.load(line / "data")
    training = {"epochs": 4, "batch_size": 256, "trajectory": (0.5, 1.0)}
    model = rd.train(data, name, tmp_path / "model", training=training)
    found = rd.extract(data, model, tmp_path / "knowledge", depth=10)
    (member,) = found.members()
    summary = read_manifest(tmp_path / "model").summary
    assert member.epochs[-1] == summary["best_epoch"]
    assert list(member.epochs) == (summary["trajectory"] or [summary["best_epoch"]])
    assert bool(summary["trajectory"]) == (not model.closed_form)
    final = found.top_items(torch.arange(data.num_users), 10).ids
    assert torch.equal(member.states[-1].long(), final)


def test_the_trajectory_of_a_model_fitted_at_once_is_one_state(line: Path, tmp_path: Path) -> None:
    said = Said()
    data = Data.load(line / "data")
    found = rd.extract(data, line / "ease", tmp_path / "ease", kinds=("trajectory",), depth=10, progress=said)
    assert "ease is fitted at once: its trajectory is one state" in said.text
    assert found.kinds == {"top_items", "trajectory"}
    (member,) = found.members()
    assert member.epochs == (1,)
    own = load_knowledge(line / "knowledge-ease", data).lists["top_items"].ids[:, :10]
    assert torch.equal(member.states[0], own)
    together = rd.ensemble([tmp_path / "ease", *stores(line, "bpr")], tmp_path / "both", data=data)
    assert [len(one.states) for one in together.members()] == [1, 2]
    later = rd.extract(data, line / "ease", tmp_path / "ease", kinds=("observed_scores",), depth=15)
    assert later.kinds == {"top_items", "trajectory", "observed_scores"}
    (member,) = later.members()
    assert member.states[0].shape == (60, 15)


def test_a_trajectory_comes_with_the_top_items_that_it_ends_with(line: Path, tmp_path: Path) -> None:
    found = rd.extract(line / "data", line / "bpr", tmp_path / "bpr", kinds=("trajectory",), depth=10)
    assert found.kinds == {"top_items", "trajectory"}
    (member,) = found.members()
    assert member.epochs == (3, 6)
    assert torch.equal(member.states[-1], found.lists["top_items"].ids)


def test_members_are_read_to_a_depth_into_memory_of_their_own(line: Path) -> None:
    (member,) = load_knowledge(line / "knowledge-bpr", Data.load(line / "data")).members(4)
    for state in member.states:
        assert state.shape == (60, 4)
        assert state.untyped_storage().nbytes() == 60 * 4 * 4


def test_a_model_that_counts_twice_and_a_repeated_state_are_said(
    line: Path, tmp_path: Path, random_lists: Callable[[Data, int], Tensor]
) -> None:
    data, said = Data.load(line / "data"), Said()
    again = rd.extract(data, line / "bpr", tmp_path / "again", kinds=("top_items",), depth=20)
    ids = random_lists(data, 20)
    mine = by_hand(tmp_path / "mine", data, ids)
    (mine / "trajectory").mkdir()
    for epoch, state in ((1, ids.flip(1)), (2, ids.flip(1)), (3, ids)):
        save_arrays(mine / "trajectory" / f"epoch-{epoch:06d}.safetensors", {"ids": state})
    assert again.manifest is not None
    rd.ensemble([*stores(line), tmp_path / "again", mine], tmp_path / "all", data=data, progress=said)
    for name in ("bpr", "again"):
        assert f"{name} is not the only store of its model" in said.text
    assert said.text.count("not the only store") == 2
    assert "mine has 1 repeated state" in said.text

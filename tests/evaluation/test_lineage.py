"""Teachers, undistilled models and seeds, read off the manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recdistill.artifacts import Manifest
from recdistill.evaluation.lineage import (
    Member,
    alone_of,
    reference_of,
    seed_groups,
    teacher_of,
    unique_names,
)


def member(
    name: str,
    digest: str,
    *,
    model: Any = "small",
    seed: int = 0,
    kind: str = "model",
    teacher: str | None = None,
    knowledge: str | None = None,
    epochs: int = 10,
    path: str | None = None,
) -> Member:
    options: dict[str, Any] = {"model": {"name": "bpr", "size": model}, "training": {"epochs": epochs}}
    inputs = {"data": "d"}
    if teacher or knowledge:
        options["distill"] = [{"method": "rrd"}]
        inputs |= {"knowledge": knowledge} if knowledge else {"live": teacher or ""}
    manifest = Manifest(
        kind=kind,
        format=1,
        options=options,
        seed=seed,
        inputs=inputs,
        hash=digest,
        version="0",
        seconds=0,
        created="",
        summary={"teacher": teacher} if teacher else {},
    )
    return Member(name, Path(path or f"runs/{name}"), manifest)


def groups_of(members: list[Member]) -> dict[str, list[str]]:
    teachers = {each.name: teacher_of(each, members) for each in members}
    return {group.name: [each.name for each in group.members] for group in seed_groups(members, teachers)}


def test_names_are_last_components_unless_two_agree() -> None:
    assert unique_names([Path("runs/a/student"), Path("runs/teacher")]) == ["student", "teacher"]
    assert unique_names([Path("a/student"), Path("b/student")]) == ["a/student", "b/student"]


def test_teacher_by_the_models_hash_else_by_the_knowledges() -> None:
    big, store = member("big", "t", model="big"), member("store", "k", kind="knowledge")
    student = member("student", "s", teacher="t", knowledge="k")
    assert teacher_of(student, [store, big, student]) is big
    assert teacher_of(student, [store, student]) is store
    assert teacher_of(member("live", "l", teacher="t"), [big]) is big
    assert teacher_of(student, [student]) is None
    assert teacher_of(big, [big, student]) is None


def test_seeds_of_the_whole_line_are_groups() -> None:
    members = [
        *(member(f"teacher-{s}", f"t{s}", model="big", seed=s) for s in range(3)),
        *(member(f"student-{s}", f"s{s}", seed=s, teacher=f"t{s}", knowledge=f"k{s}") for s in range(3)),
        member("alone", "a", seed=0),
    ]
    assert groups_of(members) == {
        "teacher": ["teacher-0", "teacher-1", "teacher-2"],
        "student": ["student-0", "student-1", "student-2"],
        "alone": ["alone"],
    }


def test_seeds_of_students_of_one_teacher_are_a_group() -> None:
    members = [member("t", "t", model="big")]
    members += [member(f"student_seed{s}", f"s{s}", seed=s, teacher="t", knowledge="k") for s in (1, 2)]
    assert groups_of(members) == {"t": ["t"], "student": ["student_seed1", "student_seed2"]}


def test_seeds_without_their_teachers_need_the_same_knowledge() -> None:
    one, two = (member(f"s{s}", f"s{s}", seed=s, teacher="t", knowledge=f"k{s}") for s in range(2))
    assert groups_of([one, two]) == {"s0": ["s0"], "s1": ["s1"]}


def test_another_store_of_the_same_teacher_is_no_seed() -> None:
    teacher = member("t", "t", model="big")
    deep, flat = (member(f"s{s}", f"s{s}", seed=s, teacher="t", knowledge=f"k{s}") for s in range(2))
    assert groups_of([teacher, deep, flat]) == {"t": ["t"], "s0": ["s0"], "s1": ["s1"]}


def test_the_same_seed_twice_is_no_group() -> None:
    members = [member("a", "x", seed=1), member("b", "x", seed=1)]
    assert groups_of(members) == {"a": ["a"], "b": ["b"]}


def test_other_options_are_no_seeds() -> None:
    members = [member("a", "x", seed=1), member("b", "y", seed=2, epochs=20)]
    assert groups_of(members) == {"a": ["a"], "b": ["b"]}


def test_group_names_do_not_collide() -> None:
    members = [member("model", "m", model="big")]
    members += [member(f"model-{s}", f"x{s}", seed=s) for s in range(2)]
    assert list(groups_of(members)) == ["model", "model-0 and 1 more seeds"]
    nested = [member(f"r{s}/alone", f"x{s}", seed=s, path=f"r{s}/alone") for s in range(2)]
    assert list(groups_of(nested)) == ["alone"]


def test_alone_is_of_the_same_class_and_options() -> None:
    members = [
        member("teacher", "t", model="big"),
        member("alone", "a"),
        member("student", "s", teacher="t", knowledge="k"),
        member("store", "k", kind="knowledge"),
    ]
    groups = seed_groups(members, {each.name: teacher_of(each, members) for each in members})
    student = groups[2]
    found = alone_of(student, groups)
    assert found.group is groups[1]
    assert alone_of(student, groups, named=members[0]).group is groups[0]
    missing = alone_of(student, [groups[0], groups[2]])
    assert missing.group is None
    assert "no undistilled model" in missing.reason


def test_of_several_the_one_trained_alike_is_taken() -> None:
    student = member("student", "s", teacher="t", knowledge="k", epochs=10)
    like, other, third = (member(f"alone{e}", f"a{e}", epochs=e) for e in (10, 20, 30))
    groups = seed_groups([student, like, other], {})
    found = alone_of(groups[0], groups)
    assert found.group is not None
    assert found.group.members[0] is like
    groups = seed_groups([student, other, third], {})
    assert alone_of(groups[0], groups) == (
        None,
        "several undistilled models fit (alone20, alone30): name one with --alone",
    )


def test_lists_are_compared_with_the_teachers() -> None:
    big, alone = member("big", "t", model="big"), member("alone", "a")
    student = member("student", "s", teacher="t", knowledge="k")
    teachers = {"big": None, "alone": None, "student": big}
    assert reference_of(student, teachers) is big
    assert reference_of(alone, teachers) is big  # what the student started from
    assert reference_of(big, teachers) is None
    assert reference_of(alone, {"alone": None}) is None


def test_of_several_teachers_the_one_of_the_same_seed() -> None:
    teachers = [member(f"t{s}", f"t{s}", model="big", seed=s) for s in range(2)]
    taught = {f"s{s}": teachers[s] for s in range(2)} | {"t0": None, "t1": None, "a1": None, "a5": None}
    assert reference_of(member("a1", "x", seed=1), taught) is teachers[1]
    assert reference_of(member("a5", "y", seed=5), taught) is None

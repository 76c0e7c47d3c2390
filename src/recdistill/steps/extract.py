"""`extract`: what a teacher knows, stored once in an open format."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from recdistill import artifacts
from recdistill.artifacts import Manifest, load_arrays, read_manifest, save_arrays
from recdistill.data.interactions import Interactions
from recdistill.errors import ArtifactError, MissingKnowledgeError, OptionError
from recdistill.files import size_text
from recdistill.knowledge.frozen import frozen_state, stored_arrays
from recdistill.knowledge.teacher import TeacherKnowledge, load_knowledge, observed_scores
from recdistill.models.base import Recommender
from recdistill.models.ranking import top_items, top_users
from recdistill.progress import Progress, Silent
from recdistill.steps.fit import DataLike, open_data
from recdistill.steps.load import check_trained_on, load, load_weights

STORED: tuple[str, ...] = ("top_items", "top_users", "observed_scores", "embeddings", "trajectory")
"""Kinds that a store may hold."""

DEPTH = 500
"""Of the lists, unless another is asked for."""

_FITTED = Path("epoch-000001.safetensors")
"""The only state of a model that is fitted at once, in one epoch."""


def extract(
    data: DataLike,
    model: Recommender | Path | str,
    out: Path | str = "runs/extract",
    *,
    kinds: Sequence[str] | None = None,
    depth: int = DEPTH,
    force: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> TeacherKnowledge:
    """Store a teacher's knowledge.

    A store of the same data and model that is there already is extended: it keeps what it holds, and gets the
    missing kinds or the greater depth.

    Args:
        data: the prepared data directory the model was trained on.
        model: a model directory, or a model loaded from one.
        out: the knowledge directory to write.
        kinds: of ``top_items``, ``top_users``, ``observed_scores``, ``embeddings``, ``trajectory``; by default all
            that the model has, the trajectory among them if its training kept one. A trajectory ends with the
            ``top_items``, which come with it; that of a model fitted at once is nothing else.
        depth: length of the lists, at least 1; a user with fewer unobserved items gets a shorter list.
        force: replace a store of other data or another model; of a store of the same ones, make the kinds again
            and keep the others.
        device: where the model is read: ``auto``, ``cpu`` or ``cuda``.
        progress: where stages are shown.

    Returns:
        The knowledge, opened from ``out``.

    Raises:
        RecdistillError: bad options, a model of other data, or ``out`` holds something else.
    """
    from recdistill.steps.fit import pick_device

    opened, shown = open_data(data), progress or Silent()
    path = model.path if isinstance(model, Recommender) else Path(model)
    if path is None:
        raise OptionError("the model has no directory", "train it into one, or pass the directory")
    manifest = read_manifest(path, kind="model")
    check_trained_on(manifest, path, opened)
    if depth < 1:
        raise OptionError(f"depth must be at least 1; found {depth}")
    longest = max(opened.num_items, opened.num_users)
    if depth > longest:
        shown.note(f"depth {depth:,} is cut to {longest:,}: there are no more items or users to list")
        depth = longest
    teacher = load(path, device=str(pick_device(device)))
    asked = _wanted(teacher, kinds)
    wanted = set(asked)
    inputs = {"data": opened.hash, "model": manifest.hash}
    old = _existing(out, inputs)
    if old is not None:
        wanted |= set(old.options["kinds"])
        depth = max(depth, int(old.options["depth"]))
    if "trajectory" in wanted:
        wanted.add("top_items")  # its last state
    options = {"kinds": sorted(wanted), "depth": depth}
    with artifacts.step(
        out,
        kind="knowledge",
        options=options,
        inputs=inputs,
        force=force or (old is not None and old.options != options),
    ) as job:
        if job.reused:
            shown.note(f"{out}: already there, same inputs and options: reused")
        else:
            kept = _kept(old, depth) - (asked if force else set())
            _write(opened.fitted(manifest.on), teacher, wanted, depth, job.work, Path(out), kept, shown)
            job.summary.update(
                {
                    "model": manifest.options["model"],
                    "on": list(manifest.on),
                    "best_epoch": manifest.summary.get("best_epoch"),
                    "parameters": manifest.summary.get("parameters"),
                    "model_bytes": manifest.summary.get("bytes"),
                    "score_scale": teacher.frozen().score_scale,
                    "users": opened.num_users,
                    "items": opened.num_items,
                    "users_hash": opened.users.hash,
                    "items_hash": opened.items.hash,
                    "bytes": sum(f.stat().st_size for f in job.work.rglob("*") if f.is_file()),
                }
            )
    return load_knowledge(out, opened)


def _wanted(teacher: Recommender, kinds: Sequence[str] | None) -> set[str]:
    has: set[str] = set(STORED)
    if "embeddings" not in teacher.frozen().kinds:
        has -= {"embeddings"}
    if teacher.path is None or not (teacher.path / "trajectory").is_dir():
        has -= {"trajectory"}
    if kinds is None:
        return has
    for kind in kinds:
        if kind not in STORED:
            raise OptionError(f"no kind of knowledge '{kind}'", f"kinds: {', '.join(STORED)}")
        if kind == "embeddings" and kind not in has:
            raise MissingKnowledgeError(
                f"{teacher.model_name()} has no embeddings; it supplies {', '.join(sorted(has))}"
            )
        if kind == "trajectory" and kind not in has and not teacher.closed_form:
            raise MissingKnowledgeError(
                f"the model at {teacher.path} kept no trajectory",
                "train it again with --set training.trajectory=[0.25,0.5,0.75,1.0]",
            )
    if not kinds:
        raise OptionError("kinds is empty", f"kinds: {', '.join(STORED)}")
    return set(kinds)


def _existing(out: Path | str, inputs: dict[str, str]) -> Manifest | None:
    """The manifest of a store of the same teacher that is there already."""
    try:
        found = read_manifest(out, kind="knowledge")
    except ArtifactError:
        return None  # nothing there, or something that the step will refuse by name
    return found if found.inputs == inputs else None


def _kept(old: Manifest | None, depth: int) -> set[str]:
    """The kinds of a store that a store to ``depth`` can take over."""
    if old is None:
        return set()
    held: set[str] = set(old.options["kinds"])
    return held if old.options["depth"] == depth else held & {"embeddings"}


def _write(
    train: Interactions,
    teacher: Recommender,
    kinds: set[str],
    depth: int,
    work: Path,
    old: Path,
    kept: set[str],
    shown: Progress,
) -> None:
    widths = {"top_items": min(depth, train.num_items), "top_users": min(depth, train.num_users)}
    sizes = {
        "top_items": train.num_users * widths["top_items"] * 8,
        "top_users": train.num_items * widths["top_users"] * 8,
    }
    expected = sum(size for kind, size in sizes.items() if kind in kinds - kept)
    size = f": about {size_text(expected)} of lists" if expected else ""
    shown.note(f"extracting {', '.join(sorted(kinds - kept))}{size}")
    if "trajectory" in kinds and teacher.closed_form:
        shown.note(f"{teacher.model_name()} is fitted at once: its trajectory is one state")
    state = teacher.frozen()
    with shown.stage("extract", len(kinds), "kinds") as stage:
        for kind in sorted(kinds):
            target = work / f"{kind}.safetensors"
            if kind in kept:
                source = old / target.name if kind != "trajectory" else old / "trajectory"
                (shutil.copytree if source.is_dir() else shutil.copy2)(source, work / source.name)
            elif kind == "embeddings":
                save_arrays(target, stored_arrays(frozen_state(teacher)))
            elif kind == "observed_scores":
                save_arrays(target, {"scores": observed_scores(state, train)})
            elif kind == "top_items":
                _save_lists(
                    target,
                    *top_items(state, torch.arange(train.num_users), widths[kind], exclude=[train.unlisted]),
                )
            elif kind == "top_users":
                _save_lists(
                    target,
                    *top_users(state, torch.arange(train.num_items), widths[kind], exclude=train.unlisted),
                )
            else:
                _write_trajectory(train, teacher, depth, work / "trajectory")
            stage.advance(1)


def _save_lists(target: Path, ids: torch.Tensor, scores: torch.Tensor) -> None:
    save_arrays(target, {"ids": ids.int(), "scores": scores})


def _write_trajectory(train: Interactions, teacher: Recommender, depth: int, folder: Path) -> None:
    """The ids of the top lists of every kept state of the teacher, one file an epoch; the last are its top items."""
    assert teacher.path is not None
    folder.mkdir()
    width = min(depth, train.num_items)
    *states, last = sorted((teacher.path / "trajectory").glob("*.safetensors")) or [_FITTED]
    final = load_arrays(folder.parent / "top_items.safetensors")  # the last state is the teacher as it is
    save_arrays(folder / last.name, {"ids": final["ids"]})
    for weights in states:
        load_weights(teacher, weights)
        ids, _ = top_items(teacher.frozen(), torch.arange(train.num_users), width, exclude=[train.unlisted])
        save_arrays(folder / weights.name, {"ids": ids.int()})
    load_weights(teacher, teacher.path / "weights.safetensors")


def describe(knowledge: TeacherKnowledge) -> dict[str, Any]:
    """What a store holds, for printing."""
    manifest = knowledge.manifest
    assert manifest is not None
    of = {**manifest.summary, **manifest.options}
    return {"kinds": of["kinds"], "depth": of["depth"], **manifest.summary}

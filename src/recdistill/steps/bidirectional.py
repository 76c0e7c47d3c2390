"""`bidirectional`: a teacher and a student that train together."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recdistill import artifacts, config
from recdistill.artifacts import Job, read_manifest
from recdistill.data.prepared import Data
from recdistill.errors import OptionError
from recdistill.models.base import Recommender
from recdistill.models.sequence_batches import check_order
from recdistill.progress import Progress, Silent
from recdistill.steps.distill import check_validates
from recdistill.steps.fit import (
    DataLike,
    ModelLike,
    make_model,
    make_training,
    make_validator,
    model_summary,
    open_data,
    pick_device,
)
from recdistill.steps.load import check_trained_on, load, save_model
from recdistill.training.bidirectional import BD, Pair
from recdistill.training.checkpoint import Checkpoint, note_start
from recdistill.training.loop import Result, train
from recdistill.training.options import TrainingOptions

_HISTORY = "history.jsonl"


def bidirectional(
    data: DataLike,
    teacher: ModelLike | Path,
    student: ModelLike | Path,
    out: Path | str = "runs/bidirectional",
    *,
    method: BD | Mapping[str, Any] | None = None,
    training: TrainingOptions | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[Recommender, Recommender]:
    """Train a teacher and a student together by Bidirectional Distillation.

    Both share one optimiser, so the training options hold for both, and the student's batches. The valid split
    judges the student: both models are kept as they were at its best epoch.

    Args:
        data: a prepared data directory.
        teacher: the directory of a model trained on this data, or a model loaded from one, to start from; or an
            unbuilt model, its name, or a table of its name and options, to start anew. The paper trains both
            models alone first.
        student: the same.
        out: the directory to write; it holds the model directories ``teacher`` and ``student``.
        method: options, see :class:`~recdistill.training.bidirectional.BD`.
        training: how to train both; without a trajectory. The paper takes 100 epochs and no weight decay.
        seed: of initialisation and draws.
        device: ``auto``, ``cpu`` or ``cuda``.
        force: replace another pair in ``out``.
        resume: continue an interrupted run.
        progress: where stages are shown.

    Returns:
        The teacher and the student, loaded from ``out``.

    Raises:
        RecdistillError: bad options or data, models of other data, or ``out`` holds something else.
    """
    opened, shown, how = open_data(data), progress or Silent(), make_training(training)
    if how.trajectory:
        raise OptionError("bidirectional keeps no trajectory", "leave training.trajectory empty")
    objective = method if isinstance(method, BD) else config.build(BD, dict(method or {}), "bidirectional")
    models: dict[str, Recommender] = {}
    starts: dict[str, str] = {}
    for role, given in (("teacher", teacher), ("student", student)):
        models[role], starts[role] = _open(given, opened)
        if models[role].sequential:
            check_order(opened.train)
    pair = Pair(models["teacher"], models["student"])
    options: dict[str, Any] = {
        **{role: {"name": model.model_name(), **model.options} for role, model in models.items()},
        "bidirectional": objective.options,
        "training": {name: value for name, value in how.options.items() if name != "checkpoint_seconds"},
    }
    inputs = {"data": opened.hash, **{role: digest for role, digest in starts.items() if digest}}
    with artifacts.step(
        out, kind="pair", options=options, seed=seed, inputs=inputs, force=force, resume=resume
    ) as job:
        if job.reused:
            shown.note(f"{out}: already there, same inputs and options: reused")
        else:
            note_start(job, resume, shown)
            validate = make_validator(opened, how) if opened.valid.num_pairs else None
            if validate is None:
                shown.note("nothing to validate on: the last epoch is kept")
            result = train(
                pair,
                objective,
                opened.train,
                how,
                validate,
                seed=seed,
                device=pick_device(device),
                work=job.work,
                resume=resume,
                progress=shown,
            )
            _save(job, pair, result, opened, options, inputs, seed)
    return load(Path(out) / "teacher"), load(Path(out) / "student")


def _open(model: ModelLike | Path, data: Data) -> tuple[Recommender, str]:
    """A model to train on, with the hash of the directory that it is from; empty where it is new."""
    if isinstance(model, Recommender) and model.num_users:
        if model.path is None:
            raise OptionError("the model has no directory", "train it into one, or pass an unbuilt model")
        model = model.path
    if not isinstance(model, Path) and (not isinstance(model, str) or model in config.names("models")):
        return make_model(model), ""
    manifest = read_manifest(model, kind="model")
    check_trained_on(manifest, model, data)
    check_validates(manifest.on, "bidirectional training")
    return load(model), manifest.hash


def _save(
    job: Job,
    pair: Pair,
    result: Result,
    data: Data,
    options: dict[str, Any],
    inputs: dict[str, str],
    seed: int,
) -> None:
    """Write both as ordinary models; the student's lineage names this teacher and the one it started from."""
    digest = ""
    for role, partner, model in (("teacher", "student", pair.teacher), ("student", "teacher", pair.student)):
        entry = {
            "method": "bidirectional",
            "role": role,
            partner: options[partner],
            **options["bidirectional"],
        }
        described = {"model": options[role], "training": options["training"], "on": ["train"]}
        # only the student is a distilled model to evaluation and report, whose gap to the teacher they show
        described["distill" if role == "student" else "learned"] = [entry]
        sources = dict(inputs)
        if (
            role == "student" and "teacher" in sources
        ):  # as where evaluation looks for a teacher, after the summary
            sources["live"] = sources.pop("teacher")
        with artifacts.step(
            job.work / role, kind="model", options=described, seed=seed, inputs=sources
        ) as part:
            if not part.reused:  # by a resumed run that was killed after this
                model.attach(data.users, data.items, data.train)
                save_model(model, part.work)
                part.summary.update(model_summary(model, result, part.work))
                if role == "teacher":
                    part.summary["best_metric"] = None  # the student's, not its own
                else:
                    part.summary["teacher"] = digest
                    shutil.copyfile(job.work / _HISTORY, part.work / _HISTORY)
        digest = part.hash
        job.summary[role] = digest
    Checkpoint(job.work).clear()

"""What a comparison found on all splits: `comparison.json` and `runs.parquet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recdistill import artifacts
from recdistill.artifacts import read_json, read_manifest, read_table, write_json
from recdistill.data.prepared import Data
from recdistill.evaluation.across import SplitResult, combine
from recdistill.knowledge.members import MEMBERS
from recdistill.steps.comparefile import REFIT, Plan
from recdistill.steps.runcosts import describe_run, mean_costs, summed_costs

FORMAT = 1
"""Version of `comparison.json`."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """One split under way: its directory, its data, and the models that are made; of a refit, all of them anew."""

    seed: int
    folder: Path
    data: Data
    models: dict[str, list[Path]]
    refit: bool = False

    @property
    def on(self) -> tuple[str, ...]:
        """The splits that models are trained on."""
        return ("train", "valid") if self.refit else ("train",)

    def named(self, name: str) -> str:
        """What a model, its knowledge or its row is called."""
        return name + REFIT if self.refit else name

    def at(self, name: str) -> Path:
        """The directory of a model or of its knowledge."""
        return self.folder / self.named(name)

    def training(self, name: str, chosen: Json) -> Json:
        """How to train a model: a refitted one for the epochs that were best on the valid rows."""
        if not self.refit:
            return chosen
        return {**chosen, "epochs": read_manifest(self.folder / name).summary["best_epoch"]}

    def called(self, row: str, chosen: Plan) -> dict[str, Path]:
        """A row's models by their names in the evaluation: a given one has that of its row."""
        given = {teacher.directory for teacher in chosen.teachers if teacher.origin.given}
        return {row if row in given else path.name: path for path in self.models[row]}


def evaluation(name: str) -> str:
    """The directory of an evaluation of a split."""
    return f"evaluation-{name}"


def combined(chosen: Plan, splits: Sequence[Split], failed: Sequence[Json], out: Path, force: bool) -> Json:
    """Put the evaluations of all splits together.

    Args:
        chosen: what was compared.
        splits: the splits, all of their models evaluated.
        failed: the runs that are left out.
        out: the directory of the comparison.
        force: replace what is there.

    Returns:
        The content of ``comparison.json``.
    """
    made = {
        f"evaluation:split-{split.seed}:{name}": read_manifest(split.folder / evaluation(name)).hash
        for split in splits
        for name in chosen.evaluations
    }
    lineage = _lineage(chosen)
    options: Json = {"metrics": list(chosen.metrics), "failed": list(failed), "lineage": lineage}
    with artifacts.step(out, kind="comparison", options=options, inputs=made, force=force) as job:
        if not job.reused:
            runs, costs = _costs(chosen, splits)
            found: Json = {
                "format": FORMAT,
                "seeds": list(chosen.seeds),
                "refit": chosen.refit,
                "evaluations": {
                    name: _evaluations(chosen, splits, name, lineage) for name in chosen.evaluations
                },
                "roles": _roles(chosen),
                "lineage": lineage,
                "costs": costs,
                "failed": list(failed),
            }
            write_json(job.work / "comparison.json", found)
            artifacts.write_table(job.work / "runs.parquet", pl.DataFrame(runs))
            job.summary["runs"] = len(runs)
    return read_json(out / "comparison.json")


def _costs(chosen: Plan, splits: Sequence[Split]) -> tuple[list[Json], Json]:
    """What each training took, and on average by row; an ensemble takes what its teachers do, and has their sizes and
    those of the models fitted beside them."""
    teachers = {one.name: one.directory for one in chosen.teachers if not one.origin.given}
    trained = {*teachers.values(), *(row.name for row in chosen.rows)}
    runs = [
        describe_run(name, split.seed, path)
        for split in splits
        for name, paths in split.models.items()
        if name in trained
        for path in paths
    ]
    costs = {name: mean_costs(name, runs) for name in dict.fromkeys(run["name"] for run in runs)}
    for one in chosen.ensembles:
        if set(one.teachers) <= teachers.keys():
            own = [costs[teachers[teacher]] for teacher in one.teachers]
            costs[one.directory] = summed_costs(own, _fitted_beside(splits[0].at(one.directory)))
    return runs, costs


def _fitted_beside(ensemble: Path) -> list[Json]:
    """The members of an ensemble that were fitted for it."""
    members: list[Json] = read_manifest(ensemble, kind="knowledge").summary[MEMBERS]
    return [member for member in members if member["knowledge"] is None]


def _evaluations(
    chosen: Plan, splits: Sequence[Split], name: str, lineage: Mapping[str, Mapping[str, str]]
) -> Json:
    each: list[SplitResult] = []
    for split in splits:
        folder, manifest = split.folder / evaluation(name), split.data.manifest
        result = read_json(folder / "metrics.json")
        tested = int(manifest.summary[str(result["split"])])
        each.append(
            SplitResult(
                seed=split.seed,
                result=result,
                per_user=read_table(folder / "per_user.parquet"),
                rows={row: list(split.called(row, chosen)) for row in split.models},
                source={"options": manifest.options, "inputs": manifest.inputs},
                test_ratio=tested / max(int(manifest.summary["train"]), 1),
            )
        )
    first = next(iter(chosen.evaluations)) == name
    shown = chosen.metrics if first else [m for m in chosen.metrics if m in each[0].per_user.columns]
    pairs = {row: (of["teacher"], of["alone"]) for row, of in lineage.items()}
    return combine(each, shown, chosen.seeds[0], pairs)


def _lineage(chosen: Plan) -> dict[str, dict[str, str]]:
    """What each distilled row learns from, and the same student trained alone: names of rows."""
    return {
        row.name: {"teacher": row.teacher.directory, "alone": row.alone} for row in chosen.rows if row.teacher
    }


def _roles(chosen: Plan) -> dict[str, str]:
    roles = {teacher.directory: "teacher" for teacher in chosen.teachers}
    roles |= {one.directory: "ensemble" for one in chosen.ensembles}
    return roles | {row.name: "student" if row.teacher else "trained alone" for row in chosen.rows}

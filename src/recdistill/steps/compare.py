"""`compare`: several methods, teachers, students and seeds under one protocol, from one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from recdistill.artifacts import changed, hash_files, read_manifest
from recdistill.data.prepared import Data
from recdistill.directories import MANIFEST
from recdistill.errors import ArtifactError, OptionError, OutOfMemoryError, memory_told
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.progress import Progress, Silent
from recdistill.steps.board import Board
from recdistill.steps.combined import Split, combined, evaluation
from recdistill.steps.comparefile import Plan, plan
from recdistill.steps.comparerows import ALONE, Row, Teacher
from recdistill.steps.distill import check_validates, distill, open_knowledge
from recdistill.steps.ensemble import ensemble
from recdistill.steps.evaluable import check_given, check_rows
from recdistill.steps.evaluate import evaluate
from recdistill.steps.extract import DEPTH as EXTRACTED
from recdistill.steps.extract import extract
from recdistill.steps.fit import call_options, make_model, make_training
from recdistill.steps.methods import make_methods
from recdistill.steps.origins import check_depths, check_ensemble, check_reads
from recdistill.steps.report import report
from recdistill.steps.runtables import Ensemble, lines_of, prepare_source, read_tree
from recdistill.steps.search import check_affordable, search
from recdistill.steps.train import train
from recdistill.training.loop import TrainingDiverged
from recdistill.wording import counted

__all__ = ["CompareResult", "compare"]

T = TypeVar("T")
Json = dict[str, Any]


@dataclass
class CompareResult:
    """What a comparison made.

    Attributes:
        out: its directory.
        comparison: the content of ``comparison/comparison.json``.
        page: the report.
    """

    out: Path
    comparison: Json
    page: Path

    @property
    def failed(self) -> list[Json]:
        """The runs whose training diverged or ran out of memory: ``name``, ``split_seed``, ``seed``, ``error``."""
        return self.comparison["failed"]


def compare(
    source: Path | str | Mapping[str, Any],
    out: Path | str | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> CompareResult:
    """Train every method of a file on every split and model seed, evaluate all alike, and compare them.

    What is done already is reused, and what was interrupted is resumed, so the same call goes on after a kill;
    a file with more methods, seeds or splits adds to what is there.

    Args:
        source: a TOML file, or its content.
        out: the directory for everything; the file's ``out`` by default.
        overrides: values by dotted path, such as ``{"method.rrd.training.epochs": 50}``.
        seed: the only model seed, in place of the file's ``seeds``.
        device: ``auto``, ``cpu`` or ``cuda``.
        force: replace the steps whose options have changed, and only those.
        progress: where stages and the table of runs are shown.

    Returns:
        The comparison. A run that diverges or runs out of memory is left out of it and named in ``failed``.

    Raises:
        RecdistillError: an unknown key or value, or anything that a step refuses.
    """
    tree = read_tree(source, overrides)
    if seed is not None:
        tree["seeds"] = [seed]
    with lines_of(source):
        chosen = plan(tree)
    return _Comparison(chosen, Path(out or chosen.out), device, force, progress or Silent()).run()


class _Comparison:
    def __init__(self, chosen: Plan, out: Path, device: str, force: bool, progress: Progress) -> None:
        self.plan, self.out, self.device, self.force = chosen, out, device, force
        self.progress = progress
        self.board = Board(chosen, out, progress)
        self.failed: list[Json] = []

    def run(self) -> CompareResult:
        """Everything, one run after the other."""
        self._check_made()
        self.board.start()
        splits: list[Split] = []
        for number in self.plan.split_seeds:
            splits.append(self._split(number, splits))
        found = self._renewed(
            lambda force: combined(self.plan, splits, self.failed, self.out / "comparison", force)
        )
        evaluations = [split.folder / evaluation(name) for split in splits for name in self.plan.evaluations]
        page = self._renewed(
            lambda force: report(
                [self.out / "comparison", *evaluations],
                self.out / "report",
                **self.plan.report,
                force=force,
                progress=self.progress,
            )
        )
        return CompareResult(self.out, found, page)

    def _check_made(self) -> None:
        """Refuse, before the first step, runs that are there already with other options, all of them at once."""
        asked = {
            teacher.directory: call_options(make_model(teacher.model), make_training(teacher.training))
            for teacher in self.plan.teachers
            if not teacher.origin.given
        }
        for row in self.plan.rows:
            if not row.search:  # a search says so itself, when its turn comes
                model, training = make_model(row.model), make_training(row.training)
                options = call_options(model, training, row.methods, row.base_weight)
                asked |= {row.directory(seed): options for seed in self.plan.seeds}
        paths = [
            (self.out / f"split-{split}" / name, options)
            for split in self.plan.split_seeds
            for name, options in asked.items()
        ]
        told = [
            f"{path} was made with other options: {what}"
            for path, options in paths
            if not self.force and (path / MANIFEST).exists() and (what := changed(path, options))
        ]
        if told:
            others = f"; so {'was' if len(told) == 2 else 'were'} {counted(len(told) - 1, 'other run')}"
            raise ArtifactError(
                told[0] + (others if len(told) > 1 else ""),
                "pass --force to replace what has changed, or choose another --out",
            )

    def _split(self, number: int, done: list[Split]) -> Split:
        """Prepare a split, then train and evaluate everything on it."""
        folder = self.out / f"split-{number}"
        options = dict(self.plan.data)
        source = options.pop("source")
        data = self._kept(
            lambda force: prepare_source(
                source, folder / "data", seed=number, **options, force=force, progress=self.progress
            )
        )
        for other in done:
            if hash_files([other.data.path / "train.parquet"]) == hash_files([data.path / "train.parquet"]):
                raise OptionError(
                    f"split seeds {other.seed} and {number} gave the same split",
                    "this way of splitting draws nothing: leave one split seed",
                )
        split = Split(number, folder, data, {})
        for chosen in self.plan.evaluations.values():
            check_rows(data, chosen)
        for teacher in self.plan.teachers:
            for chosen in self.plan.evaluations.values() if teacher.origin.given else ():
                check_given(data, _knowledge(split, teacher), chosen)
        self._check_sources(split)
        for row in self.plan.rows:
            if row.search:
                check_affordable(data, row.model_options, row.search_options)
        self._models(split)
        if self.plan.refit:
            split = replace(split, models={}, refit=True)
            self._models(split)
        for name, chosen in self.plan.evaluations.items():
            self._evaluate(split, name, chosen)
        return replace(split, data=Data.load(data.path))  # what was read of this one is not needed any more

    def _models(self, split: Split) -> None:
        """Train the teachers, then the students of everything that can be learned from."""
        knowledge = {teacher.name: self._teacher(split, teacher) for teacher in self.plan.teachers}
        knowledge |= {chosen.name: self._ensemble(split, chosen) for chosen in self.plan.ensembles}
        for row in self.plan.rows:  # before the first student is trained
            if row.teacher is not None:
                check_reads(knowledge[row.teacher.name], make_methods(row.methods), row.name)
        for seed in self.plan.seeds:
            for row in self.plan.rows:
                self._student(split, row, seed, knowledge)

    def _check_sources(self, split: Split) -> None:
        """Refuse, before a teacher is trained, what could not be put together or learned from."""
        stores = {
            one.name: open_knowledge(_knowledge(split, one), split.data)
            for one in self.plan.teachers
            if one.origin.given and not one.origin.live
        }
        for row in self.plan.rows:
            of = row.teacher
            if (
                isinstance(of, Teacher)
                and not (of.origin.given or of.origin.live)
                and not (split.at(of.knowledge) / MANIFEST).exists()  # else it is looked at as it is
            ):
                methods = make_methods(row.methods)
                check_depths(split.data, of.model["name"], self.plan.extract, EXTRACTED, methods, row.name)
            if isinstance(row.teacher, Ensemble):
                usual: int = self.plan.extract.get("depth", EXTRACTED)
                check_ensemble(
                    split.data,
                    [stores[name] for name in row.teacher.teachers if name in stores],
                    row.teacher.options.get("depth", usual),
                    make_methods(row.methods),
                    row.name,
                )

    def _teacher(self, split: Split, teacher: Teacher) -> TeacherKnowledge:
        if teacher.origin.given:
            split.models[teacher.directory] = [_knowledge(split, teacher)]
            given = open_knowledge(_knowledge(split, teacher), split.data)
            check_validates(given.on, "a comparison")
            return given
        path = split.at(teacher.directory)
        training = split.training(teacher.directory, teacher.training)
        self.board.begin(split.seed, teacher.seed, path.name, path)
        model = self._kept(
            lambda force: train(
                split.data, teacher.model, path, training=training, on=split.on, seed=teacher.seed,
                device=self.device, force=force, resume=True, progress=self.progress,
            )
        )  # fmt: skip
        self.board.end(read_manifest(path))
        split.models[teacher.directory] = [path]
        if teacher.origin.live:
            return open_knowledge(path, split.data)
        return self._kept(
            lambda force: extract(
                split.data, model, split.at(teacher.knowledge), device=self.device,
                **self.plan.extract, force=force, progress=self.progress,
            )
        )  # fmt: skip

    def _ensemble(self, split: Split, chosen: Ensemble) -> TeacherKnowledge:
        stores = {teacher.name: _knowledge(split, teacher) for teacher in self.plan.teachers}
        members = {name or "teacher": stores[name] for name in chosen.teachers}
        path = split.at(chosen.directory)
        split.models[chosen.directory] = [path]
        return self._kept(
            lambda force: ensemble(
                members, path, data=split.data, **chosen.options, force=force, progress=self.progress
            )
        )

    def _student(self, split: Split, row: Row, seed: int, knowledge: Mapping[str, TeacherKnowledge]) -> None:
        path = split.at(row.directory(seed))
        self.board.begin(split.seed, seed, split.named(row.name), path)
        if split.refit and not (split.folder / row.directory(seed) / MANIFEST).exists():
            self.board.fail("so did its first training")
            return
        try:
            with memory_told():
                self._make_student(split, row, seed, path, knowledge)
        except (TrainingDiverged, OutOfMemoryError) as error:
            failure = {"name": row.name, "split_seed": split.seed, "seed": seed, "error": str(error)}
            self.failed.append(failure)
            self.board.fail(str(error))
            return
        self.board.end(read_manifest(path))
        split.models.setdefault(row.name, []).append(path)

    def _make_student(
        self, split: Split, row: Row, seed: int, path: Path, knowledge: Mapping[str, TeacherKnowledge]
    ) -> None:
        common: Json = {
            "training": split.training(row.directory(seed), row.training), "seed": seed, "device": self.device,
            "resume": True, "progress": self.progress,
        }  # fmt: skip
        taught_by, chosen, methods = row.teacher, row.model, list(row.methods)
        if row.search and split.refit:
            chosen, methods = _found(split.folder / row.directory(seed))
        if taught_by is None or not methods:
            self._kept(lambda force: train(split.data, chosen, path, on=split.on, force=force, **common))
        elif row.search and not split.refit:
            self._kept(
                lambda force: search(
                    split.data, knowledge[taught_by.name], path, model=row.model_options, options=row.search_options,
                    methods=row.methods, variant=row.search["variant"], force=force, **common,
                )
            )  # fmt: skip
        else:
            self._kept(
                lambda force: distill(
                    split.data, knowledge[taught_by.name], chosen, methods, path,
                    base_weight=row.base_weight, force=force, **common,
                )
            )  # fmt: skip

    def _evaluate(self, split: Split, name: str, options: Json) -> None:
        models = {name: path for row in split.models for name, path in split.called(row, self.plan).items()}
        alone = split.models.get(ALONE)  # named where it is one row: a teacher may have its options too
        common: Json = {
            "seed": self.plan.seeds[0], "alone": alone[0] if alone else None, "device": self.device,
            "progress": self.progress, **options,
        }  # fmt: skip
        folder = split.folder / evaluation(name)
        self._renewed(lambda force: evaluate(split.data, models, folder, force=force, **common))

    def _kept(self, make: Callable[[bool], T]) -> T:
        """A step's result: reused where it is there, replaced where it differs and that is allowed."""
        try:
            return make(False)
        except ArtifactError:
            if not self.force:
                raise
        return make(True)

    def _renewed(self, make: Callable[[bool], T]) -> T:
        """The result of a step that only reads others: replaced where they have changed."""
        try:
            return make(False)
        except ArtifactError:
            return make(True)


def _knowledge(split: Split, teacher: Teacher) -> Path:
    """The store that students learn from, or the model that they read live."""
    if teacher.origin.given:
        return teacher.origin.given_at(split.seed)
    return split.at(teacher.directory if teacher.origin.live else teacher.knowledge)


def _found(path: Path) -> tuple[Json, list[Json]]:
    """The model that a search found and trained in ``path``, and what it learned with."""
    manifest = read_manifest(path, kind="model")
    return {**manifest.options["model"], **manifest.summary["model_options"]}, manifest.options["distill"]

"""Puts the page together: everything that is on it, in order, and the template that lays it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recdistill.reporting import comparison, facts
from recdistill.reporting.cells import Grid
from recdistill.reporting.charts import Chart
from recdistill.reporting.curves import Course, curve_charts, without_curve
from recdistill.reporting.lessons import lesson_charts
from recdistill.reporting.lift import lift_chart
from recdistill.reporting.numbers import Missing
from recdistill.reporting.overall import Overall, overall, read_comparison
from recdistill.reporting.pages import fill
from recdistill.reporting.popularity import popularity_chart
from recdistill.reporting.reading import read_evaluation
from recdistill.reporting.results import Evaluation
from recdistill.reporting.runs import Collection, Directory, read_history, read_metrics
from recdistill.reporting.scatter import accuracy_charts
from recdistill.reporting.story import ABSENT, Story, cast, tell
from recdistill.reporting.teachers import Ensemble, ensembles_of, teacher_charts
from recdistill.reporting.users import users_table

DEFAULT_TITLE = "Distillation report"


@dataclass(frozen=True)
class Section:
    """What the page says about one evaluation."""

    slug: str
    name: str
    story: Story
    comparison: Grid
    all_metrics: Grid
    latency: Grid | None
    tests: Grid | None
    other_tests: Grid | None
    seeds: Grid | None
    users: Grid | Missing
    accuracy: Sequence[Chart]
    popularity: Chart | None
    lift: Chart | None
    protocol: Sequence[facts.Fact]


def render(collection: Collection, title: str | None = None) -> str:
    """The page as HTML.

    Args:
        collection: the directories it is made from.
        title: its heading; a plain one by default.

    Returns:
        one self-contained document, the same bytes for the same directories on the same machine.

    Raises:
        ArtifactError: a file of one of the directories is damaged.
    """
    evaluations = [
        (
            directory,
            read_evaluation(directory.name, directory.path / "metrics.json", read_metrics(directory.path)),
        )
        for directory in collection.evaluations
    ]
    ensembles = ensembles_of(collection)
    sections = [
        _section(f"evaluation-{place}", directory, evaluation, collection.find(evaluation.data), ensembles)
        for place, (directory, evaluation) in enumerate(evaluations, start=1)
    ]
    courses = _courses(collection, [evaluation for _, evaluation in evaluations], ensembles)
    together = _together(collection)
    return fill(
        "page.html",
        title=title or DEFAULT_TITLE,
        story=together[0].story if together else _main_story(sections, courses),
        together=together,
        sections=sections,
        curves=curve_charts("curve", courses),
        uncurved=without_curve(courses),
        teachers=teacher_charts("teachers", ensembles, courses),
        lessons=lesson_charts("lessons", courses),
        steps=facts.steps(collection),
        environment=facts.environment(),
    )


def _section(
    slug: str,
    directory: Directory,
    evaluation: Evaluation,
    data: Directory | None,
    ensembles: Sequence[Ensemble],
) -> Section:
    named = directory.manifest.options.get("alone")
    taught = {model for one in ensembles for model in one.models if model}
    roles = cast(evaluation, None if named is None else str(named), frozenset(taught))
    primary = evaluation.primary
    others = [name for name in evaluation.metrics if name != primary]
    return Section(
        slug=slug,
        name=evaluation.name,
        story=tell(evaluation, roles),
        comparison=comparison.comparison(evaluation, roles),
        all_metrics=comparison.all_metrics(evaluation),
        latency=comparison.latency_table(evaluation),
        tests=comparison.tests_table(evaluation, [primary]),
        other_tests=comparison.tests_table(evaluation, others),
        seeds=comparison.seeds_table(evaluation),
        users=users_table(directory.path / "per_user.parquet", evaluation, roles),
        accuracy=accuracy_charts(slug, evaluation),
        popularity=popularity_chart(f"{slug}-popularity", evaluation),
        lift=lift_chart(f"{slug}-lift", evaluation, roles),
        protocol=facts.protocol(evaluation, data),
    )


def _together(collection: Collection) -> list[Overall]:
    """The comparisons over splits and seeds among the directories."""
    found = [one for one in collection.others if one.manifest.kind == "comparison"]
    return [overall(read_comparison(one.path / "comparison.json")) for one in found]


def _main_story(sections: Sequence[Section], courses: Sequence[Course]) -> Story:
    """The first evaluation's story that has a figure to show, else the first one's."""
    told = [section.story for section in sections]
    if told:
        return next((story for story in told if any(tile.figure != ABSENT for tile in story.tiles)), told[0])
    models = "one model" if len(courses) == 1 else f"{len(courses)} models"
    return Story(
        f"How {models} learned; nothing was evaluated.",
        ["No evaluation is among the runs, so there is no comparison, no share of a gap and no latency."],
        (),
    )


def _courses(
    collection: Collection, evaluations: Sequence[Evaluation], ensembles: Sequence[Ensemble]
) -> list[Course]:
    """The training of every model, the seeds of one together, those evaluated first."""
    by_hash = {directory.manifest.hash: directory for directory in collection.models}
    courses: list[Course] = []
    for entry in (entry for evaluation in evaluations for entry in evaluation.entries):
        found = [by_hash.pop(member.hash) for member in entry.members if member.hash in by_hash]
        if found:
            courses.append(_course(entry.name, found, ensembles))
    return courses + [_course(directory.name, [directory], ensembles) for directory in by_hash.values()]


def _course(name: str, directories: Sequence[Directory], ensembles: Sequence[Ensemble]) -> Course:
    manifests = [directory.manifest for directory in directories]
    best = manifests[0].summary.get("best_epoch") if len(directories) == 1 else None
    knowledge = tuple(dict.fromkeys(m.inputs["knowledge"] for m in manifests if "knowledge" in m.inputs))
    training = [manifest.options.get("training") or {} for manifest in manifests]
    return Course(
        name=name,
        runs=tuple(read_history(directory.path) for directory in directories),
        best_epoch=int(best) if isinstance(best, int) else None,
        hashes=tuple(manifest.hash for manifest in manifests),
        knowledge=knowledge,
        last_states={
            teacher: len(epochs) - 1
            for one in ensembles
            if one.hash in knowledge
            for teacher, epochs in zip(one.names, one.epochs, strict=True)
        },
        sampled=any(how.get("validate_negatives") is not None for how in training),
    )

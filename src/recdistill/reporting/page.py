"""Puts the page together: everything that is on it, in order, and the template that lays it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from recdistill.reporting import comparison, facts
from recdistill.reporting.cells import Grid
from recdistill.reporting.charts import Chart
from recdistill.reporting.choices import choice_charts
from recdistill.reporting.curves import Course, curve_charts, without_curve
from recdistill.reporting.flows import flow_charts
from recdistill.reporting.graphs import graph_charts
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
from recdistill.reporting.scenes import scene_names
from recdistill.reporting.searches import found_table, groups_of
from recdistill.reporting.story import ABSENT, Story, cast, tell
from recdistill.reporting.teachers import Ensemble, ensembles_of, teacher_charts
from recdistill.reporting.users import users_table

DEFAULT_TITLE = "Distillation report"


@dataclass(frozen=True)
class Section:
    """What the page says about one evaluation; its name is that of the data where each has others."""

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
    ensembles, scenes = ensembles_of(collection), scene_names(collection)
    names = [scenes.get(evaluation.data, evaluation.name) for _, evaluation in evaluations]
    one_each = len(set(names)) == len(names)
    if not one_each:
        names = [evaluation.name for _, evaluation in evaluations]
    together = _together(collection)
    beside = " ".join(dict.fromkeys(one.beside for one in together))
    sections = [
        _section(
            f"evaluation-{place}", name, directory, found, collection.find(found.data), ensembles, beside
        )
        for place, (name, (directory, found)) in enumerate(zip(names, evaluations, strict=True), start=1)
    ]
    courses = _courses(collection, [evaluation for _, evaluation in evaluations], ensembles, scenes)
    groups = groups_of(collection, courses, scenes)
    return fill(
        "page.html",
        title=title or DEFAULT_TITLE,
        story=together[0].story if together else _main_story(sections, courses, one_each and len(names) > 1),
        together=together,
        sections=sections,
        curves=curve_charts("curve", courses),
        uncurved=without_curve(courses),
        teachers=teacher_charts("teachers", ensembles, courses),
        lessons=lesson_charts("lessons", courses),
        flows=flow_charts("flows", courses, groups),
        found=found_table(groups),
        graphs=graph_charts("cell", groups),
        choices=choice_charts("choice", groups),
        steps=facts.steps(collection),
        environment=facts.environment(),
    )


def _section(
    slug: str,
    name: str,
    directory: Directory,
    evaluation: Evaluation,
    data: Directory | None,
    ensembles: Sequence[Ensemble],
    beside: str,
) -> Section:
    named = directory.manifest.options.get("alone")
    taught = {model for one in ensembles for model in one.models if model}
    roles = cast(evaluation, None if named is None else str(named), frozenset(taught))
    primary = evaluation.primary
    others = [name for name in evaluation.metrics if name != primary]
    return Section(
        slug=slug,
        name=name,
        story=tell(evaluation, roles),
        comparison=comparison.comparison(evaluation, roles, beside),
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


def _main_story(sections: Sequence[Section], courses: Sequence[Course], scenes: bool) -> Story:
    """The first story that has a figure to show, else the first; of several data sets with all headlines."""
    told = [section.story for section in sections]
    if told:
        main = next((story for story in told if any(tile.figure != ABSENT for tile in story.tiles)), told[0])
        if not scenes:
            return main
        others = [f"{one.name}: {one.story.headline}" for one in sections if one.story is not main]
        name = next(one.name for one in sections if one.story is main)
        tiles = [replace(tile, label=f"{tile.label} ({name})") for tile in main.tiles]
        return Story(f"{name}: {main.headline}", [*main.details, *others], tiles)
    models = "one model" if len(courses) == 1 else f"{len(courses)} models"
    return Story(
        f"How {models} learned; nothing was evaluated.",
        ["No evaluation is among the runs, so there is no comparison, no share of a gap and no latency."],
        (),
    )


def _courses(
    collection: Collection,
    evaluations: Sequence[Evaluation],
    ensembles: Sequence[Ensemble],
    scenes: Mapping[str, str],
) -> list[Course]:
    """The training of every model, the seeds of one together, those evaluated first."""
    by_hash = {directory.manifest.hash: directory for directory in collection.models}
    found: list[tuple[str, list[Directory]]] = []
    for entry in (entry for evaluation in evaluations for entry in evaluation.entries):
        members = [by_hash.pop(member.hash) for member in entry.members if member.hash in by_hash]
        if members:
            found.append((entry.name, members))
    found += [(directory.path.resolve().name, [directory]) for directory in by_hash.values()]
    return [
        replace(_course(name, members, ensembles), scene=_scene_of(members[0], scenes))
        for name, (_, members) in zip(_distinct(found, scenes), found, strict=True)
    ]


def _distinct(found: Sequence[tuple[str, Sequence[Directory]]], scenes: Mapping[str, str]) -> list[str]:
    """Names of models; those called the same have that of the data too, or else the directory's whole name."""
    names = [name for name, _ in found]
    of_scenes = [f"{name}, {_scene_of(one[0], scenes)}" for name, one in found]
    return [
        name if names.count(name) == 1 else of_scene if of_scenes.count(of_scene) == 1 else members[0].name
        for name, of_scene, (_, members) in zip(names, of_scenes, found, strict=True)
    ]


def _scene_of(directory: Directory, scenes: Mapping[str, str]) -> str:
    """The data set that a model was trained on, where a page has several."""
    return scenes.get(directory.manifest.inputs.get("data", ""), "")


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
        shuffled=any(
            part.get("construction") == "random"
            for manifest in manifests
            for part in manifest.options.get("distill") or []
        ),
    )

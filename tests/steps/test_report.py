"""The step that writes a page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recdistill.artifacts import read_manifest
from recdistill.errors import ArtifactError, OptionError
from recdistill.progress import Silent, Stage
from recdistill.steps.report import report
from report_helpers import make_line, make_model


class Notes(Silent):
    """Keeps what is noted and the names of the stages."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str = "rows") -> Iterator[Stage]:
        self.stages.append(name)
        with super().stage(name, total, unit) as stage:
            yield stage


@pytest.fixture
def line(tmp_path: Path) -> Path:
    return make_line(tmp_path / "line", epochs=3)


def test_a_page_is_written_with_its_manifest(line: Path, tmp_path: Path) -> None:
    shown = Notes()
    page = report([line], tmp_path / "out", title="A title", progress=shown)
    assert page == tmp_path / "out" / "report.html"
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "A title" in text
    manifest = read_manifest(tmp_path / "out", "report")
    assert manifest.options["title"] == "A title"
    assert manifest.inputs["model:student"] == read_manifest(line / "student").hash
    assert manifest.summary["bytes"] == len(page.read_bytes())
    assert shown.stages == ["report"]


def test_one_run_needs_no_list(line: Path, tmp_path: Path) -> None:
    assert report(str(line / "evaluation"), str(tmp_path / "out")).exists()


def test_the_same_call_finds_its_page_even_inside_the_run_folder(line: Path) -> None:
    page = report([line], line / "report")
    page.write_text("kept")
    shown = Notes()
    assert report([line], line / "report", progress=shown) == page
    assert page.read_text() == "kept"
    assert "reused" in shown.notes[0]


def test_another_page_is_refused_unless_forced(line: Path, tmp_path: Path) -> None:
    report([line], tmp_path / "out")
    with pytest.raises(ArtifactError, match="title"):
        report([line], tmp_path / "out", title="Another")
    assert "Another" in report([line], tmp_path / "out", title="Another", force=True).read_text()


def test_new_results_make_a_new_page(line: Path, tmp_path: Path) -> None:
    report([line / "student"], tmp_path / "out")
    make_model(tmp_path / "more", {"data": "0" * 16}, epochs=2)
    with pytest.raises(ArtifactError, match="model:more"):
        report([line / "student", tmp_path / "more"], tmp_path / "out")


def test_without_matplotlib_the_page_is_made_and_it_is_said(
    line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    shown = Notes()
    page = report([line], tmp_path / "out", progress=shown)
    assert any("recdistill[plots]" in note for note in shown.notes)
    assert "recdistill[plots]" in page.read_text()
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match="charts false -> true"):
        report([line], tmp_path / "out")


def test_nothing_is_left_where_a_run_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        report([], tmp_path / "out")
    with pytest.raises(ArtifactError, match="found nothing"):
        report([tmp_path / "absent"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

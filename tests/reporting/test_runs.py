"""Which directories a page is made from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from recdistill.artifacts import step
from recdistill.errors import ArtifactError, OptionError
from recdistill.reporting.runs import Collection, collect, read_history
from report_helpers import make_data, make_line, make_model, write_evaluation


@pytest.fixture
def line(tmp_path: Path) -> Path:
    return make_line(tmp_path / "line", epochs=3)


def names(collection: Collection) -> dict[str, set[str]]:
    return {
        "evaluations": {one.name for one in collection.evaluations},
        "models": {one.name for one in collection.models},
        "others": {one.name for one in collection.others},
    }


EVERYTHING = {
    "evaluations": {"evaluation"},
    "models": {"teacher", "alone", "student", "popularity"},
    "others": {"data", "knowledge"},
}


def test_a_run_folder_stands_for_all_that_it_holds(line: Path) -> None:
    assert names(collect([line])) == EVERYTHING


def test_an_evaluation_brings_its_models_and_what_they_were_made_from(line: Path) -> None:
    assert names(collect([line / "evaluation"])) == EVERYTHING


def test_models_are_found_where_the_evaluation_says(line: Path, tmp_path: Path) -> None:
    shutil.move(line / "evaluation", tmp_path / "elsewhere" / "evaluation")
    assert names(collect([tmp_path / "elsewhere"])) == EVERYTHING


def test_another_model_at_the_same_place_is_not_taken(line: Path) -> None:
    shutil.rmtree(line / "student")
    make_model(line / "student", {"data": "0" * 16}, epochs=2, seed=5)
    found = collect([line / "evaluation"])
    assert "student" not in names(found)["models"]


def test_the_same_directory_counts_once(line: Path) -> None:
    found = collect([line, line / "student", str(line / "evaluation")])
    assert names(found) == EVERYTHING
    assert len(found.models) == 4


def test_pages_and_unfinished_work_are_no_source(line: Path) -> None:
    with step(line / "report", kind="report", options={}):
        pass
    (line / ".student.partial-0123").mkdir()
    assert names(collect([line])) == EVERYTHING


def test_directories_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_model(tmp_path / f"run-{seed}" / "student", {"data": "0" * 16}, epochs=2, seed=seed)
    found = collect([tmp_path / "run-0", tmp_path / "run-1"])
    assert names(found)["models"] == {str(tmp_path / f"run-{seed}" / "student") for seed in (0, 1)}


def test_a_directory_set_aside_by_a_killed_writer_is_put_back(line: Path) -> None:
    os.rename(line / "student", line / ".student.old")
    assert "student" in {one.name for one in collect([line / "student"]).models}


def test_nothing_to_report_on_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make_data(tmp_path / "data")
    with pytest.raises(OptionError, match="expected at least one run"):
        collect([])
    for run, text in (
        (tmp_path / "absent", "absent: expected a directory, found nothing"),
        (tmp_path / "empty", "made by recdistill or a folder of such"),
        (tmp_path / "data", "expected an evaluation or a model, found data 'data'"),
    ):
        with pytest.raises(ArtifactError, match=text) as caught:
            collect([run])
        assert "\n" not in str(caught.value)


def test_an_unreadable_neighbour_is_no_error(line: Path) -> None:
    broken = line / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    assert names(collect([line / "evaluation"])) == EVERYTHING
    with pytest.raises(ArtifactError, match="damaged"):
        collect([line])


def test_a_history_is_read_line_by_line(line: Path) -> None:
    epochs = read_history(line / "student")
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert set(epochs[0].losses) == {"bpr", "de", "rrd"}
    assert epochs[0].metric.keys() == {"ndcg@10"}
    assert read_history(line / "data") == ()


@pytest.mark.parametrize("text", ["{", "[1]", '{"loss": 1}', '"epoch"'])
def test_a_damaged_history_names_the_line(line: Path, text: str) -> None:
    path = line / "student" / "history.jsonl"
    path.write_text(path.read_text() + text)
    with pytest.raises(ArtifactError, match=r"history\.jsonl:4: expected a JSON object") as caught:
        read_history(line / "student")
    assert "\n" not in str(caught.value)


def test_null_metrics_and_losses_are_left_out(tmp_path: Path) -> None:
    make_model(tmp_path / "model", {}, epochs=1)
    line = '{"epoch": 1, "loss": null, "losses": {"bpr": null}, "metric": null}'
    (tmp_path / "model" / "history.jsonl").write_text(line + "\n\n")
    (epoch,) = read_history(tmp_path / "model")
    assert (epoch.loss, epoch.losses, epoch.metric) == (None, {}, {})


def test_an_evaluation_without_metrics_is_damaged(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "evaluation", {"models": {}}, {"data": "0" * 16})
    (tmp_path / "evaluation" / "metrics.json").unlink()
    with pytest.raises(ArtifactError, match=r"metrics\.json"):
        collect([tmp_path / "evaluation"])

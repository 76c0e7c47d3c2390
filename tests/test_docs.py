"""What the documents promise is run: the README's lines, the worked example, the run files, the names."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recdistill
from recdistill import cli, config
from recdistill.models.architecture import SPACES
from recdistill.models.base import Recommender
from recdistill.searching.options import SearchOptions
from recdistill.steps.comparefile import plan
from recdistill.steps.methods import preset_names
from recdistill.steps.run import _checked
from recdistill.steps.search import VARIANTS
from recdistill.steps.tunefile import TuneOptions, tune_plan
from recdistill.testing import check_distiller
from recdistill.training.options import TrainingOptions

ROOT = Path(__file__).parents[1]


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def test_the_readmes_python_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    users, items = (
        np.repeat(np.arange(50), 12),
        np.concatenate([rng.choice(40, 12, replace=False) for _ in range(50)]),
    )
    table = pl.DataFrame(
        {"user": [f"user {u}" for u in users], "item": items, "rating": rng.integers(3, 6, 600)}
    )
    table.write_csv(tmp_path / "ratings.csv")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("README.md", "python")
    quick = code.replace("dim=200", "dim=24").replace('"runs/teacher"', '"runs/teacher", training=QUICK')
    quick = quick.replace('"runs/alone"', '"runs/alone", training=QUICK', 1)
    quick = quick.replace('"runs/student")', '"runs/student", training=QUICK)', 1)
    assert quick.count("QUICK") == 3
    exec(quick, {"QUICK": {"epochs": 2}})
    assert (tmp_path / "runs" / "report" / "report.html").exists()


def test_the_worked_example_of_a_method_conforms(tmp_path: Path) -> None:
    source = blocks("CONTRIBUTING.md", "python")[0]
    (tmp_path / "listnet.py").write_text(source)
    spec = importlib.util.spec_from_file_location("listnet", tmp_path / "listnet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["listnet"] = module
    spec.loader.exec_module(module)
    check_distiller(lambda: module.ListNet(weight=1.0, k=5))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda p: p.name)
def test_run_files_are_valid(path: Path) -> None:
    tree = config.load_run_file(path)
    check = plan if "method" in tree else tune_plan if "space" in tree else _checked
    check(tree)


def test_the_documented_compare_and_tune_files_are_valid(tmp_path: Path) -> None:
    compared, searched = (tomllib.loads(text) for text in blocks("docs/experiments.md", "toml"))
    best = '[student]\nmodel = "bpr"\ndim = 20\n[[distill]]\nmethod = "rrd"\n'
    (tmp_path / "best.toml").write_text(best)
    compared["method"][-1]["from"] = str(tmp_path / "best.toml")
    assert [row.name for row in plan(compared).rows] == ["alone", "de-rrd", "strong", "rrd-tuned"]
    found = tune_plan({"data": {"source": "log.csv"}, "distill": [{"method": "rrd"}], **searched})
    assert len(found.space) == 4


def test_tune_options_are_documented() -> None:
    text = (ROOT / "docs" / "experiments.md").read_text()
    for option in config.option_names(TuneOptions):
        assert f"| `{option}` |" in text, option


def test_search_options_and_operations_are_documented() -> None:
    text = (ROOT / "docs" / "search.md").read_text()
    for name in [*config.option_names(SearchOptions), *SPACES["causal"], *VARIANTS]:
        assert f"`{name}`" in text, name


def test_every_method_model_and_preset_has_its_row() -> None:
    methods, models = (ROOT / "docs" / "methods.md").read_text(), (ROOT / "docs" / "models.md").read_text()
    for name in [*config.names("distillers"), *preset_names()]:
        assert f"| `{name}`" in methods.replace("| both | `", "| `"), name
    for name in config.names("models"):
        assert f"| `{name}` |" in models, name


def test_training_options_are_documented() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    for option in config.option_names(TrainingOptions):
        assert f"`{option}`" in text, option


def test_all_names_can_be_imported() -> None:
    for name in recdistill.__all__:
        assert getattr(recdistill, name) is not None
    for room in (recdistill.models, recdistill.distillers):
        for name in room.__all__:
            assert getattr(room, name) is not None
    for name in config.names("models"):
        assert issubclass(config.find("models", name), Recommender)


def test_commands_in_the_readme_exist() -> None:
    known = {command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    used = re.findall(r"^recdistill (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert used
    assert set(used) <= known

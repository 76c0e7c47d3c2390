"""Models and methods found by name: in the rooms' folders and among other packages' entry points."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import recdistill
from recdistill import config
from recdistill.errors import OptionError


def message(call: Callable[[], object]) -> str:
    with pytest.raises(OptionError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_models_and_methods_by_listing() -> None:
    from recdistill.models.bpr import BPR

    assert config.find("models", "bpr") is BPR
    assert config.find("models", "BPR") is BPR
    assert {"bpr", "lightgcn", "popularity"} <= {*config.names("models")}
    assert {"base", "ranking"} & {*config.names("models")} == set()
    assert {"de", "rrd"} <= {*config.names("distillers")}


def test_a_new_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recdistill import models

    head = "import abc\nfrom recdistill.models.base import Recommender\n"
    (tmp_path / "brand_new.py").write_text(
        f"{head}class Helper(Recommender, abc.ABC):\n    @abc.abstractmethod\n    def x(self): ...\n"
        "class _Hidden(Recommender): ...\nclass BrandNew(Recommender): ...\n"
    )
    (tmp_path / "no_model.py").write_text("def helper(): ...\n")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    assert config.find("models", "brand-new").__name__ == "BrandNew"
    assert "brand-new" in config.names("models")
    assert "no-model" not in config.names("models")
    (tmp_path / "twins.py").write_text(f"{head}class One(Recommender): ...\nclass Two(Recommender): ...\n")
    assert message(lambda: config.find("models", "twins")) == (
        "recdistill.models.twins defines One, Two; expected one public class a file"
    )


def test_names_are_all_found() -> None:
    for room in ("models", "distillers"):
        assert all(isinstance(config.find(room, name), type) for name in config.names(room))


@pytest.mark.parametrize(
    ("room", "name", "said"),
    [
        ("models", "lightgnc", "no model is called 'lightgnc'; did you mean lightgcn? known: "),
        ("distillers", "rrdd", "no method is called 'rrdd'; did you mean rrd? known: "),
        ("models", "base", "no model is called 'base'"),
        ("models", "../x", "no model is called '../x'"),
    ],
)
def test_unknown(room: str, name: str, said: str) -> None:
    assert said in message(lambda: config.find(room, name))


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "others_models.py").write_text(
        "from recdistill.models.base import Recommender\n"
        "class TwoTower(Recommender):\n"
        "    pass\n"
        "class Unrelated:\n"
        "    pass\n"
    )
    (tmp_path / "others_broken.py").write_text("raise RuntimeError('no luck\\nat all')\n")
    info = tmp_path / "others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[recdistill.models]\n"
        "two_tower = others_models:TwoTower\n"
        "unrelated = others_models:Unrelated\n"
        "broken = others_broken:Model\n"
        "bpr = others_models:TwoTower\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("others_models", "others_broken"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("plugin")
def test_entry_points() -> None:
    from recdistill.models.bpr import BPR

    assert config.find("models", "Two-Tower").__name__ == "TwoTower"
    assert "two-tower" in config.names("models")
    assert config.find("models", "bpr") is BPR  # our own names cannot be taken over


@pytest.mark.usefixtures("plugin")
def test_bad_entry_points() -> None:
    assert message(lambda: config.find("models", "unrelated")) == (
        "model 'unrelated' of others: others_models:Unrelated is no subclass of "
        "recdistill.models.base.Recommender"
    )
    assert message(lambda: config.find("models", "broken")) == (
        "model 'broken' of others cannot be loaded from others_broken:Model: RuntimeError: no luck at all"
    )


def test_public_names_are_listed_and_the_nearest_is_named() -> None:
    assert set(recdistill.__all__) <= set(dir(recdistill))
    for wrong, near in (("distil", "distill"), ("modles", "models")):
        with pytest.raises(AttributeError, match=rf"has no attribute '{wrong}'; did you mean {near}\?"):
            getattr(recdistill, wrong)
    with pytest.raises(AttributeError, match=r"has no attribute 'zzz'$"):
        _ = recdistill.zzz
    for room in (recdistill.models, recdistill.distillers):
        assert set(room.__all__) <= set(dir(room))

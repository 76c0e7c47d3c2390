"""The page: self-contained, escaped, complete, the same each time."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from recdistill.artifacts import read_manifest
from recdistill.errors import ArtifactError
from recdistill.reporting.page import render
from recdistill.reporting.runs import collect
from report_helpers import make_line, make_model, make_scene, make_seeds, write_evaluation

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """The page's tags and texts; unclosed or crossed tags are errors."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        joined = " ".join(" ".join(self.texts).split())
        return joined.replace("\u202f", " ").replace("\u00a0", " ")

    def values(self, attribute: str) -> list[str]:
        return [str(attrs[attribute]) for _, attrs in self.tags if attribute in attrs]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_line(tmp_path_factory.mktemp("page") / "line", epochs=6)


@pytest.fixture(scope="module")
def page(line: Path) -> str:
    return render(collect([line]))


def test_everything_is_on_the_page(page: str) -> None:
    text = Reader(page).text
    for part in (
        "Distillation report",
        "The student keeps 93 % of the teacher's NDCG@10 with 5 % of its parameters; ",
        "distillation closed 62 % of the gap.",
        "How the models compare",
        "0.2722 to 0.2878",
        "models that share a letter do not differ significantly",
        "Accuracy against size and speed",
        "Recall@20 by popularity of the target",
        "student against teacher",
        "How it was measured",
        "what the user took in train and valid",
        "900 with a target",
        "How the models learned",
        "popularity has no curve: it was trained in a single epoch.",
        'distill.1.method = "de"',
        "training.weight_decay = 5e-07",
        "Where everything came from",
        "Environment",
        "The gap is a distilled model's: this one is not distilled.",
    ):
        assert part in text, part


def test_every_hash_of_the_lineage_is_on_the_page(page: str, line: Path) -> None:
    for name in ("data", "teacher", "knowledge", "alone", "student", "evaluation"):
        assert read_manifest(line / name).hash in page


def test_the_page_needs_nothing_else(page: str) -> None:
    reader = Reader(page)
    links = reader.values("href") + reader.values("src")
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"@import|@font-face|url\((?!#)", page)
    assert "http://" not in page
    assert "https://" not in page


def test_only_the_page_s_own_script_may_run(page: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [
        attrs["content"]
        for tag, attrs in Reader(page).tags
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_the_page_can_be_read_without_seeing_it(page: str) -> None:
    reader = Reader(page)
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    assert set(reader.values("aria-labelledby")) <= set(ids)
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("h1") == 1
    assert tags.count("caption") == tags.count("table") > 5
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    drawings = [attrs for tag, attrs in reader.tags if tag == "svg"]
    assert drawings or find_spec("matplotlib") is None
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)
    assert all(attrs.get("scope") for tag, attrs in reader.tags if tag == "th")
    assert [attrs.get("lang") for tag, attrs in reader.tags if tag == "html"] == ["en"]


def test_the_same_directories_give_the_same_bytes(page: str, line: Path) -> None:
    assert render(collect([line])) == page
    assert render(collect([line / "evaluation"])) == page


EVIL = '<img src=x onerror="alert(1)"> & $x$'


def test_names_and_titles_with_markup_are_text(tmp_path: Path) -> None:
    root = make_line(tmp_path, epochs=3)
    evil = root / EVIL.replace("/", "")
    make_model(evil, {"data": "0" * 16}, epochs=3, name="<script>alert(2)</script>")
    path = root / "evaluation" / "metrics.json"
    tree = json.loads(path.read_text())
    text = json.dumps(tree).replace('"student"', json.dumps(EVIL))
    path.write_text(text)
    page = render(collect([root]), title="<b>Title</b>")
    reader = Reader(page)
    assert "img" not in [tag for tag, _ in reader.tags]
    assert len(re.findall("<script", page)) == 1
    assert EVIL in reader.text
    assert "<b>Title</b>" in reader.text
    assert "onerror" not in " ".join(key for _, attrs in reader.tags for key in attrs)


def test_without_matplotlib_each_chart_is_a_table(line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = render(collect([line]))
    reader = Reader(page)
    assert "svg" not in [tag for tag, _ in reader.tags]
    assert reader.text.count("This chart needs matplotlib: install recdistill[plots]") == 6
    assert "NDCG@10 against parameters" in reader.text
    assert "0.2722 to 0.2878" in reader.text


def test_models_alone_are_enough(line: Path) -> None:
    text = Reader(render(collect([line / "alone"]))).text
    assert "How one model learned; nothing was evaluated." in text
    assert "There is nothing to draw" not in text
    assert "How the models compare" not in text


def test_pages_without_an_ensemble_or_a_curriculum_have_no_place_for_them(page: str) -> None:
    for part in ("What the teachers taught", "From easy to hard", "popularity lift", "an ensemble"):
        assert part not in Reader(page).text


def test_missing_parts_are_said(tmp_path: Path) -> None:
    text = Reader(render(collect([make_seeds(tmp_path)]))).text
    for part in (
        "its teacher (0000000000000000) is not among the models: add it, or name one with --teacher",
        "Latency was not measured.",
        "No recall by popularity: the evaluation did not measure it.",
        "No paired tests: the evaluation holds none.",
        "No comparison user by user: there is no student to compare",
        "Over seeds",
    ):
        assert part in text, part


def test_several_evaluations_have_their_own_sections(line: Path, tmp_path: Path) -> None:
    root = make_seeds(tmp_path / "seeds")
    text = Reader(render(collect([root, line]))).text
    assert text.index("The student keeps 93 %") < text.index("How the models compare")
    for name in (str(root / "evaluation"), str(line / "evaluation")):
        assert f"How the models compare: {name}" in text


def test_a_damaged_evaluation_is_one_line(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "evaluation", {"format": 1, "models": {}}, {})
    with pytest.raises(ArtifactError, match="is damaged or not ours") as caught:
        render(collect([tmp_path]))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    make_scene(root / "one", "films", budget=True)
    make_scene(root / "two", "shops", nodes=(("skip",),), cells=1)
    return root


def test_data_sets_are_told_apart(scenes: Path) -> None:
    page = render(collect([scenes / "one", scenes / "two"]))
    text = Reader(page).text
    for part in (
        "films: teacher ranks best of 2 models",
        "How the models compare: films",
        "Accuracy against size and speed: shops",
        "Encoding histories",
        "NDCG@10 against milliseconds of the encoder, 256 users",
        "2,000 in layers",
        "What the searches found",
        "Cell of searched, films",
        "Cell of searched, shops",
        "Shares of the operations: searched, films",
        "Flow between layers: searched, shops",
        "teacher, films",
        "teacher, shops",
    ):
        assert part in text, part
    ids = Reader(page).values("id")
    assert len(ids) == len(set(ids))


def test_searched_students_need_no_evaluation(scenes: Path) -> None:
    text = Reader(render(collect([scenes / "one" / "searched", scenes / "two" / "searched"]))).text
    assert "nothing was evaluated" in text
    assert "Cell of searched, films" in text
    alone = Reader(render(collect([scenes / "one" / "searched"]))).text
    assert "Cell of searched" in alone
    assert "films" not in alone.split("Options of every step")[0]


def test_without_matplotlib_searches_are_tables(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    reader = Reader(render(collect([scenes / "one"])))
    assert "svg" not in [tag for tag, _ in reader.tags]
    for part in ("Operations of searched", "The search of searched", "Plans of searched"):
        assert part in reader.text


def test_pages_without_searches_have_no_place_for_them(page: str) -> None:
    for part in (
        "What the searches found",
        "How the searches chose",
        "Flow between",
        "in layers",
        "Encoding",
    ):
        assert part not in Reader(page).text

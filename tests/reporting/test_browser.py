"""The page in a real browser: nothing on its console, nothing asked of the network, everything shown."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from recdistill.reporting.page import render
from recdistill.reporting.runs import collect
from report_helpers import make_line, make_scene

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
)  # fmt: skip


@dataclass(frozen=True)
class Visit:
    """What happened while a page was open."""

    dom: str
    console: list[str]
    requests: list[str]

    @property
    def text(self) -> str:
        body = re.sub(r"<(style|script).*?</\1>", "", self.dom, flags=re.S)
        joined = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())
        return joined.replace("\u202f", " ").replace("\u00a0", " ")


Visitor = Callable[[str], Visit]


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser found, looked for {', '.join(NAMES)}: install Debian's chromium")
    return found


@pytest.fixture(scope="module")
def visit(browser: str, tmp_path_factory: pytest.TempPathFactory) -> Visitor:
    def open_page(page: str) -> Visit:
        folder = tmp_path_factory.mktemp("visit")
        (folder / "page.html").write_text(page, encoding="utf-8")
        arguments = (
            f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}", "--window-size=500,900",
            "--dump-dom", (folder / "page.html").as_uri(),
        )  # fmt: skip
        done = subprocess.run(
            [browser, *FLAGS, *arguments], capture_output=True, text=True, timeout=120, check=True
        )
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return Visit(done.stdout, console, _requests(folder / "net.json"))

    return open_page


def _requests(log: Path) -> list[str]:
    """The addresses that the page asked for, other than files and data; the browser's own business aside."""
    tree = json.loads(log.read_text(encoding="utf-8"))
    started = [params for event in tree["events"] if "initiator" in (params := event.get("params", {}))]
    own = {params["url"] for params in started if params["initiator"] != "not an origin"}
    return sorted(one for one in own if one.startswith(("http:", "https:", "ws:", "wss:")))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(collect([make_line(tmp_path_factory.mktemp("browser"), epochs=5)]))


@pytest.fixture(scope="module")
def visited(visit: Visitor, page: str) -> Visit:
    return visit(page)


def test_the_browser_tells_on_a_page_that_misbehaves(visit: Visitor) -> None:
    bad = '<!DOCTYPE html><script>console.error("boom")</script><img src="http://127.0.0.1:9/x.png">'
    seen = visit(bad)
    assert any("boom" in line for line in seen.console)
    assert seen.requests == ["http://127.0.0.1:9/x.png"]


def test_the_console_stays_empty_and_nothing_is_asked_of_the_network(visited: Visit) -> None:
    assert visited.console == []
    assert visited.requests == []


def test_the_text_is_there(visited: Visit) -> None:
    for part in (
        "The student keeps 93 % of the teacher's NDCG@10 with 5 % of its parameters",
        "How the models compare",
        "0.2722 to 0.2878",
        "Where everything came from",
    ):
        assert part in visited.text, part


def test_charts_are_shown(visited: Visit) -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    assert visited.dom.count("<svg") == 6


def test_a_narrow_screen_needs_no_sideways_scrolling(visit: Visitor, page: str) -> None:
    probe = (
        "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script></body>"
    )
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page).replace(
        "</body>", probe
    )
    (found,) = re.findall(r"<title>(\d+) of (\d+)</title>", visit(open_page).dom)
    assert int(found[0]) <= int(found[1])


def test_options_are_open_on_paper(browser: str, page: str, tmp_path: Path) -> None:
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("pdftotext not found: install Debian's poppler-utils")
    source, paper = tmp_path / "page.html", tmp_path / "page.pdf"
    source.write_text(page, encoding="utf-8")
    arguments = (
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--print-to-pdf={paper}",
        (tmp_path / "page.html").as_uri(),
    )
    subprocess.run([browser, *FLAGS, *arguments], capture_output=True, timeout=120, check=True)
    text = subprocess.run([reader, str(paper), "-"], capture_output=True, text=True, check=True).stdout
    assert "training.learning_rate = 0.001" in text
    assert "teacher is better" in text


def test_pages_of_searches_are_as_quiet(visit: Visitor, tmp_path: Path) -> None:
    runs = [make_scene(tmp_path / "one", "films", budget=True), make_scene(tmp_path / "two", "shops")]
    seen = visit(render(collect(list(runs))))
    assert seen.console == []
    assert seen.requests == []
    assert "What the searches found" in seen.text

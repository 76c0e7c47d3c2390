"""Drawings: inline, in the page's colours, the same bytes each time."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.reporting import charts
from recdistill.reporting.charts import INK, SERIES, can_draw, draw, end_labels, short, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

matplotlib = pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")


def paint(figure: Figure) -> None:
    axes = figure.add_subplot()
    axes.plot([1, 2, 3], [0.1, 0.4, 0.2], "o-", color=SERIES[1])
    axes.text(2, 0.2, "a <b>$x$</b> & 中文", color=INK)
    axes.set_clip_on(True)


def svg(slug: str = "one") -> str:
    found = draw(slug, 'A "chart" of <things>', (300, 200), paint)
    assert found is not None
    return str(found)


def test_a_drawing_is_one_element_with_text_as_text() -> None:
    root = ET.fromstring(svg())
    assert root.tag == "svg"
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'A "chart" of <things>'
    assert root.attrib["viewBox"] == "0 0 300 200"
    assert "width" not in root.attrib
    assert "a <b>$x$</b> & 中文" in [text.text for text in root.iter("text")]


def test_a_drawing_has_the_page_s_colours_and_font() -> None:
    found = svg()
    assert "var(--series-2)" in found
    assert "var(--ink)" in found
    assert "font-family" not in found
    assert "<style" not in found
    assert not re.search(r"#0[1-4]0[0-9]0", found)


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert svg() == svg()


def test_ids_of_two_drawings_do_not_clash_and_all_references_resolve() -> None:
    first, second = svg("one"), svg("two")
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for text, own in zip((first, second), ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) == own


def test_the_user_s_own_settings_do_not_matter_and_are_kept() -> None:
    before = svg()
    with matplotlib.rc_context({"svg.fonttype": "path", "axes.facecolor": "red", "font.size": 30}):
        assert svg() == before
        assert matplotlib.rcParams["font.size"] == 30


def test_nothing_is_drawn_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_draw()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not can_draw()
    assert draw("one", "A chart", (300, 200), paint) is None


def test_names_are_shortened_and_cleaned() -> None:
    assert short("student") == "student"
    assert short("x" * 40) == "x" * 25 + "…"
    assert short("a\x1b[31m\nb") == "a?[31m?b"


def test_styles_differ_in_colour_and_marker() -> None:
    looks = list(charts.styles([str(place) for place in range(10)]).values())
    assert len(set(looks)) == 10
    assert len({look.marker for look in looks}) == 10


def test_labels_that_would_overlap_are_moved_apart() -> None:
    assert spread([0.5, 0.5], 0.25) == [0.375, 0.625]
    assert spread([0.9, 0.1], 0.25) == [0.9, 0.1]
    assert spread([], 0.1) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.3))
def test_spread_labels_keep_their_order_and_distance(wanted: list[float], gap: float) -> None:
    places = spread(wanted, gap)
    gap = min(gap, 1 / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    steps = [places[b] - places[a] for a, b in pairwise(order)]
    assert all(step >= gap - 1e-9 for step in steps)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)


def test_line_ends_are_named() -> None:
    def lines(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([1, 2], [1, 100])
        axes.set_yscale("log")
        end_labels(axes, [(100, "rrd", SERIES[0]), (90, "de", SERIES[1])])

    root = ET.fromstring(str(draw("one", "Lines", (300, 200), lines)))
    heights = {text.text: float(text.attrib["y"]) for text in root.iter("text") if text.text in ("rrd", "de")}
    assert heights["de"] - heights["rrd"] >= 10

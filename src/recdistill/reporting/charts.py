"""From matplotlib figures to SVG that belongs to the page: its colours, its font, no ids that clash."""

from __future__ import annotations

import importlib.util
import io
import re
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Figures are drawn in stand-in colours; the page's style sheet says what these are on a light screen, on a
# dark one and on paper.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = tuple(f"#0400{index:02x}" for index in range(6))
_MEANING = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
    color: f"var(--series-{index + 1})" for index, color in enumerate(SERIES)
}

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)), (0, (8, 2)))

_LABEL = 26  # characters of a name in a chart; the tables have it whole


@dataclass(frozen=True)
class Style:
    """How one model is drawn in every chart: colour and marker both tell it apart."""

    color: str
    marker: str


def styles(names: Sequence[str]) -> dict[str, Style]:
    """A style for each name; colours come again after six, with other markers."""
    return {
        name: Style(SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)])
        for index, name in enumerate(names)
    }


@dataclass(frozen=True)
class Table:
    """The numbers behind a chart, as text."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Chart:
    """A figure of the page.

    Attributes:
        slug: unique on the page.
        title: what is shown.
        svg: the drawing, None where matplotlib is missing.
        table: its numbers.
        notes: what is not in it, and why.
    """

    slug: str
    title: str
    svg: Markup | None
    table: Table
    notes: Sequence[str] = ()


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    if "matplotlib" in sys.modules:
        return sys.modules["matplotlib"] is not None  # pyright: ignore[reportUnnecessaryComparison]
    return importlib.util.find_spec("matplotlib") is not None


def short(name: str) -> str:
    """A name that fits a chart, without characters that SVG cannot hold."""
    printable = "".join(char if char.isprintable() else "?" for char in name)
    return printable if len(printable) <= _LABEL else f"{printable[: _LABEL - 1]}…"


def draw(
    slug: str, description: str, size: tuple[float, float], paint: Callable[[Figure], None]
) -> Markup | None:
    """Draw a figure as inline SVG.

    Args:
        slug: prefix of its ids, unique on the page.
        description: what it shows, for those who cannot see it.
        size: width and height in pixels.
        paint: draws on an empty figure.

    Returns:
        the SVG element, the same bytes for the same figure; None where matplotlib is missing.
    """
    if not can_draw():
        return None
    from matplotlib.figure import Figure

    width, height = size
    with _style(slug):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Markup(_inline(buffer.getvalue(), slug, description))


@contextmanager
def _style(salt: str) -> Generator[None]:
    """Our settings on matplotlib's defaults, whatever the user's own file says; the old ones afterwards."""
    import matplotlib.style

    ours = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": 11,
        "text.parse_math": False,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.labelsize": 11,
        "axes.unicode_minus": False,
        "figure.facecolor": "none",
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "lines.linewidth": 1.8,
        "lines.markersize": 6.5,
    }
    with matplotlib.style.context(["default", ours]), warnings.catch_warnings():
        # the browser brings its own fonts: what matplotlib's lacks is measured badly but shown well
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _inline(svg: str, slug: str, description: str) -> str:
    """The SVG element alone, named, scalable, with ids of its own and the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<defs>\s*</defs>", "", svg, flags=re.S)
    svg = re.sub(
        r' width="[\d.]+pt" height="[\d.]+pt"| xmlns(:\w+)?="[^"]*"| version="1.1"', "", svg, count=4
    )
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{slug}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{slug}-", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(?<=style=")([^"]*?) ?font-family: [^;"]+;?', r"\1", svg)
    svg = re.sub(r' transform="rotate\(-0 [\d. -]+\)"', "", svg)
    svg = re.sub("|".join(_MEANING), lambda found: _MEANING[found[0]], svg)
    svg = re.sub(r"<defs>\s*</defs>|(?<=>)\s+(?=<)", "", svg)
    svg = re.sub(r" ?\n(?=[LMCQz\"])", " ", svg)
    label = f' class="chart" role="img" aria-label="{escape(description)}"'
    return svg.replace("<svg", f"<svg{label}", 1).strip()


def end_labels(
    axes: Axes, labels: Sequence[tuple[float, str, str]], size: float = 10, markers: Sequence[str] = ()
) -> None:
    """Name lines at their right ends, moved apart where they would overlap.

    Args:
        axes: the finished axes.
        labels: value on the y axis, text and colour of each.
        size: of the font, in pixels.
        markers: of each line, shown before its name.
    """
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    axes.get_ylim()  # makes the limits follow the data, which the transforms below read
    height = axes.get_window_extent().height
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = [float(to_axes.transform((1, value))[1]) for value, _, _ in labels]
    left = 1.07 if markers else 1.02
    places = spread(wanted, 1.25 * size / height)
    for (_, text, color), place in zip(labels, places, strict=True):
        label = Text(left, place, text, color=color, fontsize=size, va="center", transform=axes.transAxes)
        label.set_clip_on(False)
        axes.add_artist(label)
    for (_, _, color), marker, place in zip(labels, markers, places, strict=False):
        shape = Line2D([1.04], [place], color=color, marker=marker, transform=axes.transAxes, clip_on=False)
        axes.add_artist(shape)


def spread(wanted: Sequence[float], gap: float, low: float = 0.0, high: float = 1.0) -> list[float]:
    """Places as near to those wanted as possible, at least ``gap`` apart where [low, high] has room for that.

    >>> spread([0.5, 0.5], 0.25)
    [0.375, 0.625]
    """
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    # neighbours that are too close form a block, placed around the mean of what its members want
    blocks: list[list[int]] = []
    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and _start(blocks[-1], wanted, gap, low, high) - gap < _end(
            blocks[-2], wanted, gap, low, high
        ):
            last = blocks.pop()
            blocks[-1] += last
    places = [0.0] * len(wanted)
    for block in blocks:
        start = _start(block, wanted, gap, low, high)
        for step, index in enumerate(block):
            places[index] = start + step * gap
    return places


def _start(block: Sequence[int], wanted: Sequence[float], gap: float, low: float, high: float) -> float:
    length = (len(block) - 1) * gap
    middle = sum(wanted[index] for index in block) / len(block)
    return min(max(middle - length / 2, low), high - length)


def _end(block: Sequence[int], wanted: Sequence[float], gap: float, low: float, high: float) -> float:
    return _start(block, wanted, gap, low, high) + (len(block) - 1) * gap

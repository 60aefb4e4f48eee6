"""Charts as SVG: the one way of drawing here, in pages and in files of their own.

A chart is a tree (``markup.py``) with a title and a description for those who do not see it. Its
colours are the classes and CSS variables of ``STYLE``, which a page includes once and a file
(:func:`file`) carries, so that both follow the reader's light or dark theme. Sizes are those of a
narrow phone: a chart that is not shrunk there keeps its letters readable. The same figures give the
same bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from compressor.reporting.axes import Axis, Scale
from compressor.reporting.markup import Node, add, node, xml

STYLE = """
:root{color-scheme:light dark;--ink:#1c2330;--soft:#586274;--line:#d5dae2;--paper:#fff;
--c0:#2563c9;--c1:#b4530a;--c2:#0f7a55;--c3:#9333a8;--c4:#b3261e;--c5:#5f6b7c}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#a3adbd;--line:#3a4352;
--paper:#14181f;--c0:#7db0ff;--c1:#f0a35e;--c2:#5fd0a5;--c3:#d79bea;--c4:#ff8f85;--c5:#9aa5b5}}
svg.chart{font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
.chart .axis{stroke:var(--soft);fill:none}.chart .grid{stroke:var(--line);fill:none}
.chart .soft{fill:var(--soft)}.chart .end{text-anchor:end}.chart .mid{text-anchor:middle}
.f0{fill:var(--c0)}.f1{fill:var(--c1)}.f2{fill:var(--c2)}
.f3{fill:var(--c3)}.f4{fill:var(--c4)}.f5{fill:var(--c5)}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}
.s3{stroke:var(--c3)}.s4{stroke:var(--c4)}.s5{stroke:var(--c5)}
.chart .curve{fill:none;stroke-width:1.6}.chart .thin{fill:none;stroke-width:1}
.chart .wash{fill-opacity:.25;stroke:none}
.dash1{stroke-dasharray:5 3}.dash2{stroke-dasharray:2 3}.dash3{stroke-dasharray:7 2 2 2}
"""
COLORS = 6
WIDTH = 360
GAP = 16
"""Between the charts of a sheet."""
_LETTER = 6.4
"""The width of a letter at 11 px in wide fonts: what room labels get."""


@dataclass
class Chart:
    """A frame with two axes, onto which marks are put; :meth:`done` gives the tree.

    ``title`` is read aloud and shown as a tooltip, ``told`` is what the picture says in words.
    """

    title: str
    told: str
    x: Axis
    y: Axis
    name: str
    height: int = 220
    width: int = WIDTH
    marks: list[Node] = field(default_factory=list)
    legend: list[tuple[int, str, str]] = field(default_factory=list)
    dotted: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for axis in (self.x, self.y):
            if not axis.high > axis.low:  # one figure alone still has a place
                pad = abs(axis.low) * 0.05 or 0.5
                axis.low, axis.high = axis.low - pad, axis.high + pad
        rough = Scale(self.y.low, self.y.high, 0, 1, self.y.log).ticks()
        widest = max((len(self.y.text(tick)) for tick in rough), default=1)
        self.left, self.right = 12 + widest * _LETTER, self.width - 12.0
        self.top, self.bottom = 24.0, self.height - 36.0
        self.across = Scale(self.x.low, self.x.high, self.left, self.right, self.x.log)
        self.up = Scale(self.y.low, self.y.high, self.bottom, self.top, self.y.log)

    def curve(
        self, points: Sequence[tuple[float, float]], color: int, *, css: str = "curve"
    ) -> None:
        """A line through ``points``."""
        places = " ".join(f"{_px(self.across(x))},{_px(self.up(y))}" for x, y in points)
        self.marks.append(node("polyline", points=places, class_=f"{css} s{color % COLORS}"))

    def series(self, points: Sequence[tuple[float, float]], color: int, text: str) -> None:
        """A line with dots; in the legend where it has a ``text``."""
        self.curve(points, color)
        self.dots(points, color)
        if text:
            self.named(color, text)

    def dots(
        self, points: Sequence[tuple[float, float]], color: int, told: Sequence[str] = ()
    ) -> None:
        """A dot at each point; ``told`` are their tooltips."""
        for number, (x, y) in enumerate(points):
            at, high = self.across(x), self.up(y)
            self.dotted.append((at, high))
            dot = node("circle", cx=_px(at), cy=_px(high), r=3.5)
            dot.set("class", f"f{color % COLORS}")
            if told:
                add(dot, node("title", told[number]))
            self.marks.append(dot)

    def steps(
        self, edges: Sequence[float], counts: Sequence[float], color: int, *, wash: bool = False
    ) -> None:
        """A histogram's outline, ``counts[i]`` from ``edges[i]`` to ``edges[i + 1]``; with
        ``wash`` its area as well."""
        path, last = f"M{_px(self.across(edges[0]))} {_px(self.bottom)}", None
        for at, count in zip(edges, (*counts, self.y.low), strict=True):
            high = self.bottom if count <= self.y.low else self.up(count)
            if high != last:  # the outline goes on where nothing changes
                path += f"H{_px(self.across(at))}V{_px(high)}"
            last = high
        path += f"H{_px(self.across(edges[-1]))}"
        if wash:
            self.marks.append(node("path", d=path + "z", class_=f"wash f{color % COLORS}"))
        self.marks.append(node("path", d=path, class_=f"thin s{color % COLORS}"))

    def upright(self, x: float, color: int, dash: int = 1) -> None:
        """A dashed line from top to bottom."""
        at = _px(self.across(x))
        css = f"thin s{color % COLORS} dash{1 + (dash - 1) % 3}"
        self.marks.append(node("path", d=f"M{at} {_px(self.top)}V{_px(self.bottom)}", class_=css))

    def level(self, y: float, text: str, *, under: bool = False) -> None:
        """A grey line across, named at its right end, above it or under it."""
        at = self.up(y)
        line = f"M{_px(self.left)} {_px(at)}H{_px(self.right)}"
        self.marks.append(node("path", d=line, class_="axis dash2"))
        self.marks.append(_text(self.right, at + 11 if under else at - 3, text, "soft end"))

    def spread(self, x: float, low: float, high: float, color: int) -> None:
        """An upright bar from ``low`` to ``high`` with feet: where a figure may lie."""
        at, one, two = self.across(x), self.up(low), self.up(high)
        path = (
            f"M{_px(at)} {_px(one)}V{_px(two)}M{_px(at - 4)} {_px(one)}h8"
            f"M{_px(at - 4)} {_px(two)}h8"
        )
        self.marks.append(node("path", d=path, class_=f"thin s{color % COLORS}"))

    def note(self, x: float, y: float, text: str) -> None:
        """A label beside a point, on the right unless the frame ends or a dot lies there."""
        at, high = self.across(x), self.up(y)
        end = at + 8 + len(text) * _LETTER
        dots = any(at + 7 < x < end + 4 and abs(high - y) < 8 for x, y in self.dotted)
        left = dots or end > self.right
        place = at - 7 if left else at + 7
        self.marks.append(_text(place, max(self.top + 8, high + 4), text, "end" if left else None))

    def ticks_below(self, values: Sequence[float], color: int) -> None:
        """Short strokes on the lower axis, where centroids are."""
        path = "".join(f"M{_px(self.across(v))} {_px(self.bottom)}v6" for v in values)
        if path:
            self.marks.append(node("path", d=path, class_=f"thin s{color % COLORS}"))

    def named(self, color: int, text: str, css: str = "") -> None:
        """A line of the legend."""
        self.legend.append((color, text, css))

    def done(self) -> Node:
        """The chart, whole."""
        rows = _legend_rows(self.legend, self.width)
        svg = picture(self.name, self.title, self.told, self.width, self.height + 16 * len(rows))
        add(svg, *self._frame(), *self.marks)
        for number, row in enumerate(rows):
            y = self.height + 10 + 16 * number
            for x, (color, text, css) in row:
                add(
                    svg,
                    node("path", d=f"M{_px(x)} {y - 4}h14", class_=f"curve s{color % COLORS}{css}"),
                    _text(x + 18, y, text),
                )
        return svg

    def _frame(self) -> list[Node]:
        found = []
        for tick in self.y.ticks or self.up.ticks():
            y = _px(self.up(tick))
            found.append(node("path", d=f"M{_px(self.left)} {y}H{_px(self.right)}", class_="grid"))
            found.append(_text(self.left - 5, self.up(tick) + 4, self.y.text(tick), "soft end"))
        wide = max(len(self.x.text(t)) for t in (self.x.low, self.x.high)) + 2
        most = max(2, min(6, int((self.right - self.left) / (wide * _LETTER))))
        for tick in self.x.ticks or self.across.ticks(most):
            x = self.across(tick)
            found.append(node("path", d=f"M{_px(x)} {_px(self.bottom)}v4", class_="axis"))
            text = self.x.text(tick)
            half = len(text) * _LETTER / 2
            place = min(x, self.width - half)
            found.append(_text(place, self.bottom + 16, text, "soft mid"))
        base = f"M{_px(self.left)} {_px(self.bottom)}H{_px(self.right)}"
        middle = (self.left + self.right) / 2
        return [
            *found,
            node("path", d=base, class_="axis"),
            _text(4, 12, self.y.label, "soft"),
            _text(middle, self.bottom + 31, self.x.label, "soft mid"),
        ]


def picture(name: str, title: str, told: str, width: float, height: float) -> Node:
    """An empty chart; ``name`` is unique in a page and ties it to its title and description."""
    return node(
        "svg",
        node("title", title, id=f"{name}-t"),
        node("desc", told, id=f"{name}-d"),
        viewBox=f"0 0 {_px(width)} {_px(height)}",
        class_="chart",
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
    )


def bars(
    name: str,
    title: str,
    told: str,
    rows: Sequence[tuple[str, Sequence[float], str]],
    *,
    legend: Sequence[str] = (),
    width: int = WIDTH,
) -> Node:
    """Horizontal bars from 0, each ``(label, parts, text at its end)``; parts are stacked."""
    most = max((sum(parts) for _, parts, _ in rows), default=0) or 1.0
    left = 8 + max((min(len(label), 22) for label, _, _ in rows), default=0) * _LETTER
    room = width - left - 8 - max((len(text) for _, _, text in rows), default=0) * _LETTER
    named = _legend_rows([(n, text, "") for n, text in enumerate(legend)], width)
    svg = picture(name, title, told, width, 22 * len(rows) + 16 * len(named) + 4)
    for number, (label, parts, text) in enumerate(rows):
        y, x = 22.0 * number + 3, left
        add(svg, _text(left - 5, y + 12, _cut(label, 22), "end"))
        for color, part in enumerate(parts):
            wide = room * part / most
            css = f"f{color % COLORS}"
            if wide > 0:
                add(svg, node("rect", x=_px(x), y=_px(y), width=_px(wide), height=16, class_=css))
            x += wide
        add(svg, _text(x + 5, y + 12, text, "soft"))
    for number, row in enumerate(named):
        y = 22.0 * len(rows) + 14 + 16 * number
        for x, (color, text, _) in row:
            box = node("rect", x=_px(x), y=_px(y - 9), width=10, height=10)
            box.set("class", f"f{color % COLORS}")
            add(svg, box, _text(x + 14, y, text))
    return svg


def sheet(charts: Sequence[Node], title: str, *, columns: int) -> Node:
    """Charts (from :meth:`Chart.done`) in rows of ``columns``, as one picture."""
    sizes = [tuple(map(float, (chart.get("viewBox") or "").split()[2:])) for chart in charts]
    wide = max((width for width, _ in sizes), default=0.0)
    across = min(columns, len(charts))
    y, placed = 0.0, []
    for start in range(0, len(charts), columns):
        row = list(
            zip(charts[start : start + columns], sizes[start : start + columns], strict=True)
        )
        for column, (chart, (width, height)) in enumerate(row):
            place = {"x": column * (wide + GAP), "y": y, "width": width, "height": height}
            for name, value in place.items():
                chart.set(name, _px(value))
            placed.append(chart)
        y += max(height for _, (_, height) in row) + GAP
    told = f"{len(charts)} charts, each with its own description"
    svg = picture("sheet", title, told, across * (wide + GAP) - GAP, y - GAP)
    add(svg, *placed)
    return svg


def file(chart: Node) -> str:
    """A chart as a file of its own."""
    chart.set("xmlns", "http://www.w3.org/2000/svg")
    chart.insert(0, node("style", STYLE + "svg.chart{background:var(--paper)}"))
    return xml(chart)


def _legend_rows(
    entries: Sequence[tuple[int, str, str]], width: float
) -> list[list[tuple[float, tuple[int, str, str]]]]:
    """The legend's entries with their places, in as many rows as they need."""
    rows: list[list[tuple[float, tuple[int, str, str]]]] = []
    x = math.inf
    for entry in entries:
        wide = 30 + len(entry[1]) * _LETTER
        if x + wide > width:
            rows.append([])
            x = 8.0
        rows[-1].append((x, entry))
        x += wide
    return rows


def _text(x: float, y: float, text: str, css: str | None = None) -> Node:
    return node("text", text, x=_px(x), y=_px(y), class_=css)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")

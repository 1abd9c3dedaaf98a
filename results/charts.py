"""Charts as SVG text, without scripts. Colours are in the page's style sheet, so that light, dark and print all work.

Rows differ in colour, shape and dash at once. A chart is about as wide as a phone, so its text stays readable there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

COLOURS, DASHES = 7, 6
"""How many the style sheet has, and as many shapes as dashes. The two share no divisor, so 42 rows look different."""
CIRCLE, PRUNED, DIVERGED = 0, 4, 6
_SHAPES = (
    "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z",
    "M-3.2-3.2h6.4v6.4h-6.4z",
    "M0-4.6L4.6 0 0 4.6-4.6 0z",
    "M0-4.4L4.4 3.4h-8.8z",
    "M0 4.4L4.4-3.4h-8.8z",
    "M-1.5-4.2h3v2.7h2.7v3h-2.7v2.7h-3v-2.7h-2.7v-3h2.7z",
    "M-3.4-3.4L3.4 3.4M-3.4 3.4L3.4-3.4",
)
LEFT, RIGHT, TOP, BOTTOM = 38, 12, 22, 34


@dataclass(frozen=True)
class Series:
    """A line: a row's style, a value for each epoch from 1, and the epoch after which all layers train, 0 for none."""

    label: str
    style: int
    values: tuple[float, ...]
    unfrozen: int = 0


@dataclass(frozen=True)
class Dot:
    """A point with its interval; without `y` it is on the lower edge. `ring` marks it, `tag` is a text beside it."""

    x: float
    y: float | None
    label: str
    style: int = 0
    shape: int | None = None
    low: float = math.nan
    high: float = math.nan
    filled: bool = True
    ring: bool = False
    tag: str = ""


@dataclass(frozen=True)
class Whisker:
    """A value with its interval: filled where it is told from zero, dashed where it is of one seed; a stroke at `by_chance`."""

    label: str
    style: int
    value: float
    low: float
    high: float
    filled: bool
    dashed: bool = False
    by_chance: float = math.nan


class Drawing(Markup):
    """A drawn chart, with its size in pixels before it is scaled."""

    width: float
    height: float


@dataclass(frozen=True)
class _Axis:
    """A scale that maps values from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float, log: bool = False) -> _Axis:
        """Return an axis with a little room on both sides of the values."""
        known = [value for value in values if math.isfinite(value)] or [1.0]
        low, high = min(known), max(known)
        if log:
            room = max(high / low, 1.5) ** 0.06
            return cls(low / room, high * room, start, end, log)
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(low - room, high + room, start, end)

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values on the axis: powers of ten where two fit, else 1, 2 and 5 times these, else even steps."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for factors in ((1,), (1, 2, 5)):
                found = [float(f"{factor}e{decade}") for decade in decades for factor in factors]
                found = [tick for tick in found if self.low <= tick <= self.high]
                if len(found) >= 2:
                    return found
        rough = (self.high - self.low) / 4
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        step = max(1.0, round(step)) if self.whole else step
        first = math.ceil(self.low / step - 1e-9)
        return [round(place * step, 12) for place in range(first, math.floor(self.high / step + 1e-9) + 1)]


def lines(title: str, series: Sequence[Series], x_label: str, y_label: str) -> Markup:
    """Draw a line for each row with a mark at its end, and a dotted line where a row begins to train all layers."""
    width, height = 360, 230
    x = _Axis(1, max(2, *(len(one.values) for one in series)), LEFT, width - RIGHT, whole=True)
    heights = [value for one in series for value in one.values]
    y = _Axis.around(heights, height - BOTTOM, TOP, log=min(heights) > 0)
    parts = [_frame(x, y, height - BOTTOM, x_label, y_label)]
    for epoch in sorted({one.unfrozen for one in series if one.unfrozen}):
        place = x.at(epoch + 0.5)
        parts.append(_line("unfrozen", place, TOP, place, height - BOTTOM))
        parts.append(_text(place + 4, height - BOTTOM - 5, "all layers train", "note"))
    for one in series:
        points = " ".join(f"{x.at(epoch):.1f},{y.at(value):.1f}" for epoch, value in enumerate(one.values, start=1))
        line = Markup('<polyline class="line {}" points="{}"><title>{}</title></polyline>')
        parts.append(line.format(_style(one.style), points, one.label))
        if 0 < one.unfrozen < len(one.values):
            parts.append(_mark(x.at(one.unfrozen + 1), y.at(one.values[one.unfrozen]), one.style, CIRCLE, False, one.label))
        parts.append(_mark(x.at(len(one.values)), y.at(one.values[-1]), one.style, None, True, one.label))
    return _svg(title, width, height, parts)


def scatter(
    title: str, dots: Sequence[Dot], x_label: str, y_label: str, heights: Iterable[float] = (), wide: bool = False
) -> Markup:
    """Draw points over a logarithmic axis; the vertical axis includes `heights` too."""
    width, height = (360, 230) if wide else (240, 150)
    x = _Axis.around((dot.x for dot in dots), LEFT, width - RIGHT, log=True)
    known = [v for dot in dots if dot.y is not None for v in (dot.y, dot.low, dot.high)]
    y = _Axis.around([*known, *heights], height - BOTTOM - 8, TOP)
    parts = [_frame(x, y, height - BOTTOM, x_label, y_label)]
    if y.low < 0 < y.high:
        parts.append(_line("zero", LEFT, y.at(0), width - RIGHT, y.at(0)))
    for dot in dots:
        across, up = x.at(dot.x), height - BOTTOM if dot.y is None else y.at(dot.y)
        if math.isfinite(dot.low) and math.isfinite(dot.high):
            parts.append(_line(f"whisker {_colour(dot.style)}", across, y.at(dot.low), across, y.at(dot.high)))
        if dot.ring:
            parts.append(Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="7.5"/>').format(across, up))
        parts.append(_mark(across, up, dot.style, dot.shape, dot.filled, dot.label))
        if dot.tag:
            end = across > width - 60
            parts.append(_text(across + (-7 if end else 7), up - 5, dot.tag, "note end" if end else "note"))
    return _svg(title, width, height, parts)


def whiskers(title: str, bars: Sequence[Whisker], x_label: str, holds: Iterable[float] = ()) -> Drawing:
    """Draw values one below the other, each under its name, with a line at zero.

    The axis has room for the values of `holds` too, so that panels with the same ones have the same axis.
    """
    width, step = 360, 34
    height = step * len(bars) + BOTTOM + 4
    x = _Axis.around([0.0, *holds, *(v for bar in bars for v in (bar.value, bar.low, bar.high))], 10, width - 10)
    parts = [_line("grid", x.at(tick), 4, x.at(tick), height - BOTTOM) for tick in x.ticks()]
    parts += [_text(x.at(tick), height - BOTTOM + 14, _number(tick), "middle") for tick in x.ticks()]
    parts.append(_text(width / 2, height - 4, _short(x_label, 72), "label middle", x_label))
    parts.append(_line("zero", x.at(0), 4, x.at(0), height - BOTTOM))
    for place, bar in enumerate(bars):
        below = step * place + 25
        parts.append(_text(2, below - 11, _short(bar.label, 56), "name", bar.label))
        if math.isfinite(bar.low) and math.isfinite(bar.high):
            kind = f"whisker {_colour(bar.style)}"
            parts.append(_line(f"{kind} dashed" if bar.dashed else kind, x.at(bar.low), below, x.at(bar.high), below))
            parts += [_line(kind, x.at(value), below - 3, x.at(value), below + 3) for value in (bar.low, bar.high)]
        if math.isfinite(bar.by_chance):
            parts.append(_line("unfrozen", x.at(bar.by_chance), below - 7, x.at(bar.by_chance), below + 7))
        parts.append(_mark(x.at(bar.value), below, bar.style, None, bar.filled, bar.label))
    return _svg(title, width, height, parts)


def sheet(title: str, panels: Sequence[tuple[str, Drawing]], style: str) -> str:
    """Return an SVG file that stands alone: panels, each under its heading, side by side, with the style sheet within it."""
    across = min(len(panels), 3)
    heads, gap, parts, top = 26, 24, list[Markup](), 0.0
    for first in range(0, len(panels), across):
        of_line = panels[first : first + across]
        for place, (head, drawn) in enumerate(of_line):
            left = gap + place * (360 + gap)
            parts.append(_text(left, top + heads - 8, _short(head, 62), "label", head))
            place_of = Markup('<svg x="{:g}" y="{:g}" width="{:g}" height="{:g}" ')
            size = place_of.format(left, top + heads, drawn.width, drawn.height)
            parts.append(Markup(drawn.replace("<svg ", size, 1)))
        top += heads + max(drawn.height for _, drawn in of_line)
    width, height = gap + across * (360 + gap), top + gap / 2
    begin = Markup('<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {:g} {:g}" width="{:g}" height="{:g}">')
    paper = Markup('<title>{}</title><style>{}</style><rect class="paper" width="{:g}" height="{:g}"/>')
    start = begin.format(width, height, width, height) + paper.format(title, Markup(style), width, height)
    return str(start + _join(parts) + Markup("</svg>\n"))


def key(style: int) -> Markup:
    """Draw a row's line and mark for a legend."""
    parts = [_line(f"line {_style(style)}", 1, 7, 27, 7), _mark(27, 7, style, None, True)]
    return Markup('<svg class="key" viewBox="0 0 34 14" width="34" height="14" aria-hidden="true">{}</svg>').format(_join(parts))


def mark(shape: int, filled: bool = True, ring: bool = False) -> Markup:
    """Draw one mark for a legend."""
    parts = [Markup('<circle class="ring" cx="9" cy="9" r="7.5"/>')] if ring else []
    parts.append(_mark(9, 9, 1, shape, filled))
    return Markup('<svg class="key" viewBox="0 0 18 18" width="18" height="18" aria-hidden="true">{}</svg>').format(_join(parts))


def _svg(title: str, width: float, height: float, parts: Iterable[Markup]) -> Drawing:
    text = '<svg role="img" aria-label="{}" viewBox="0 0 {:g} {:g}"><title>{}</title>{}</svg>'
    drawn = Drawing(Markup(text).format(title, width, height, title, _join(parts)))
    drawn.width, drawn.height = width, height
    return drawn


def _frame(x: _Axis, y: _Axis, bottom: float, x_label: str, y_label: str) -> Markup:
    """Draw both axes with their names: faint lines at the ticks of the vertical axis, short strokes at the other's."""
    parts = []
    for tick in y.ticks():
        parts.append(_line("grid", x.start, y.at(tick), x.end, y.at(tick)))
        parts.append(_text(x.start - 5, y.at(tick) + 3.5, _number(tick), "end"))
    parts.append(_line("axis", x.start, bottom, x.end, bottom))
    for tick in x.ticks():
        parts.append(_line("axis", x.at(tick), bottom, x.at(tick), bottom + 3))
        parts.append(_text(x.at(tick), bottom + 14, _number(tick), "middle"))
    parts.append(_text((x.start + x.end) / 2, bottom + 29, x_label, "label middle"))
    parts.append(_text(2, 10, y_label, "label"))
    return _join(parts)


def _colour(style: int) -> str:
    return f"c{style % COLOURS}"


def _style(style: int) -> str:
    return f"{_colour(style)} d{style % DASHES}"


def _mark(x: float, y: float, style: int, shape: int | None, filled: bool, label: str = "") -> Markup:
    path = _SHAPES[style % DASHES if shape is None else shape]
    title = Markup("<title>{}</title>").format(label) if label else ""
    text = '<path class="mark {} {}" transform="translate({:.1f} {:.1f})" d="{}">{}</path>'
    return Markup(text).format("filled" if filled else "open", _colour(style), x, y, path, title)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, kind: str, title: str = "") -> Markup:
    more = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}{}</text>').format(kind, x, y, text, more)


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _number(value: float) -> str:
    """Return a tick's text: no needless digits, a true minus, exponents without padding."""
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")

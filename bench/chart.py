"""Bar charts as SVG, for light pages and dark ones: a few bars need no library."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH = 720
LABELS = 190
VALUES = 90
BAR = 14
GAP = 10
TOP = 56
#: Numbers of at least this are shown without decimal places.
MIN_WHOLE = 100
#: A colour for each series, with enough contrast on white and on black.
_COLOURS = ("#2f7ed8", "#e07b39")
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px }
.ours { font-weight: 600 }
line { stroke: #8c959f }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
"""


class Group(NamedTuple):
    """A group of bars: one value for each series."""

    label: str
    values: Sequence[float]
    is_ours: bool = False


def bars(title: str, unit: str, series: Sequence[str], groups: Sequence[Group]) -> str:
    """Return a chart with a horizontal bar for each value, to scale."""
    largest = max((value for group in groups for value in group.values), default=0) or 1
    scale = (WIDTH - LABELS - VALUES) / largest
    step = BAR * len(series) + GAP
    height = TOP + step * len(groups)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="0" y="16">{escape(title)} ({escape(unit)})</text>',
        *_legend(series),
        f'<line x1="{LABELS}" y1="{TOP - GAP / 2}" x2="{LABELS}" y2="{height - GAP / 2}"/>',
    ]
    for number, group in enumerate(groups):
        parts += _group(group, TOP + step * number, scale)
    return "\n".join([*parts, "</svg>", ""])


def _legend(series: Sequence[str]) -> list[str]:
    parts = []
    if len(series) > 1:
        for number, name in enumerate(series):
            x = LABELS + 160 * number
            parts.append(f'<rect x="{x}" y="28" width="12" height="12" fill="{_COLOURS[number]}"/>')
            parts.append(f'<text x="{x + 18}" y="39">{escape(name)}</text>')
    return parts


def _group(group: Group, top: float, scale: float) -> list[str]:
    middle = top + BAR * len(group.values) / 2 + 5
    kind = ' class="ours"' if group.is_ours else ""
    place = f'x="{LABELS - 8}" y="{middle:g}" text-anchor="end"'
    parts = [f"<text{kind} {place}>{escape(group.label)}</text>"]
    for number, value in enumerate(group.values):
        y = top + BAR * number
        length = max(1.0, value * scale)
        size = f'x="{LABELS}" y="{y:g}" width="{length:.1f}" height="{BAR - 2}"'
        parts.append(f'<rect {size} fill="{_COLOURS[number]}"/>')
        parts.append(f'<text x="{LABELS + length + 6:.1f}" y="{y + 11:g}">{short(value)}</text>')
    return parts


def short(value: float) -> str:
    """Return a number with three significant digits, or as an integer from 100 on."""
    return f"{value:,.0f}" if value >= MIN_WHOLE else f"{value:.3g}"

"""Draws timelines as an SVG: for each the history's status over the row's, on one scale of time.

The picture holds what it was drawn from, so that a test can draw it again.  It is readable on light and dark ground.
"""

import re
from collections.abc import Sequence
from html import escape, unescape

import msgspec

from .timeline import Moment, Tables, Timeline

WIDTH = 860
LEFT, RIGHT = 100, 20
BAR, GAP = 22, 6
NOTE = 17
STATUSES = ("Pending", "Running", "Completed", "Terminated", "Failed")
_DATA = re.compile(r"<metadata>(.*?)</metadata>", re.DOTALL)

_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12"
  role="img" aria-labelledby="t">
<title id="t">{title}</title>
<style>
  :root {{ color-scheme: light dark }}
  .g {{ fill: #fff }} text {{ fill: #222 }} .s {{ fill: #666 }} .l {{ stroke: #999 }} .b text {{ fill: #fff }}
  .none {{ fill: #ddd }} .Pending {{ fill: #8a8a8a }} .Running {{ fill: #2f6fb3 }} .Completed {{ fill: #2e7d4f }}
  .Terminated {{ fill: #8b5a2b }} .Failed {{ fill: #a13d3d }}
  .wrong {{ fill: none; stroke: #d03030; stroke-width: 2.5 }}
  @media (prefers-color-scheme: dark) {{
    .g {{ fill: #16191d }} text {{ fill: #e4e4e4 }} .s {{ fill: #a0a0a0 }} .l {{ stroke: #666 }} .none {{ fill: #333 }}
    .wrong {{ stroke: #ff6a6a }}
  }}
</style>
<metadata>{data}</metadata>
<rect class="g" width="{width}" height="{height}"/>
"""


def draw(timelines: Sequence[Timeline]) -> str:
    """The picture."""
    parts, top = list[str](), 12
    for timeline in timelines:
        lines, height = _panel(timeline, top)
        parts += lines
        top += height
    parts += _legend(top)
    top += 26
    head = _HEAD.format(
        width=WIDTH,
        height=top,
        title="History and status of one job, in the old order of writes, in .NET today, and in Holdtrue",
        data=escape(msgspec.json.encode(list(timelines)).decode(), quote=False),
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def drawn_from(picture: str) -> list[Timeline]:
    """The timelines that a picture holds.  Raises ValueError for one that is not ours."""
    found = _DATA.search(picture)
    if found is None:
        raise ValueError("the picture does not hold what it was drawn from: draw it anew")
    return msgspec.json.decode(unescape(found[1]), type=list[Timeline])


def _panel(timeline: Timeline, top: int) -> tuple[list[str], int]:
    scale = (WIDTH - LEFT - RIGHT) / max(timeline.ended, 0.1)

    def x(at: float) -> float:
        return round(LEFT + at * scale, 1)

    looks = [moment for moment in timeline.moments if moment.tables is not None]
    lines = [_text(12, top + 14, timeline.title, 'font-weight="bold" font-size="14"')]
    bars = top + 24
    for row, name, status in ((0, "history", _history), (1, "instances row", _row)):
        y = bars + row * (BAR + GAP)
        lines.append(_text(12, y + 15, name))
        for begin, end, value in _stretches(looks, timeline.ended, status):
            lines.append(
                f'<rect class="{value}" x="{x(begin)}" y="{y}" width="{_width(x, begin, end)}" height="{BAR}"/>'
            )
            if value != "none" and x(end) - x(begin) > 7 * len(value) + 6:
                lines.append(f'<g class="b">{_text(x(begin) + 5, y + 15, value)}</g>')
    for begin, end, wrong in _stretches(looks, timeline.ended, lambda tables: "wrong" if tables.differ else "none"):
        if wrong == "wrong":
            y = bars + BAR + GAP
            lines.append(
                f'<rect class="wrong" x="{x(begin)}" y="{y}" width="{_width(x, begin, end)}" height="{BAR}" rx="2"/>'
            )
    below = bars + 2 * (BAR + GAP)
    lines += _axis(x, timeline.ended, below)
    notes = _notes(timeline.moments)
    for number, (at, what) in enumerate(notes):
        y = below + 32 + number * NOTE
        lines.append(f'<line class="l" x1="{x(at)}" y1="{bars - 3}" x2="{x(at)}" y2="{bars + 2 * BAR + GAP + 3}"/>')
        lines.append(_text(LEFT, y, f"{at:.1f} s", 'class="s" text-anchor="end" dx="-8"'))
        lines.append(_text(LEFT, y, what))
    return lines, 24 + 2 * (BAR + GAP) + 32 + len(notes) * NOTE + 14


def _legend(top: int) -> list[str]:
    lines, x = list[str](), LEFT
    for status in STATUSES:
        lines.append(f'<rect class="{status}" x="{x}" y="{top}" width="12" height="12"/>')
        lines.append(_text(x + 17, top + 10, status, 'class="s"'))
        x += 100
    lines.append(f'<rect class="wrong" x="{x}" y="{top}" width="12" height="12" rx="2"/>')
    return [*lines, _text(x + 17, top + 10, "the row tells another end", 'class="s"')]


def _width(x, begin: float, end: float) -> float:  # type: ignore[no-untyped-def]
    return round(max(x(end) - x(begin), 1.0), 1)


def _history(tables: Tables) -> str:
    return tables.history or "none"


def _row(tables: Tables) -> str:
    return tables.row or "none"


def _stretches(looks: Sequence[Moment], ended: float, value) -> list[tuple[float, float, str]]:  # type: ignore[no-untyped-def]
    """How long a value stood, one after the other."""
    found: list[tuple[float, float, str]] = []
    for moment, until in zip(looks, [*(one.at for one in looks[1:]), ended], strict=True):
        now = value(moment.tables)
        if found and found[-1][2] == now:
            found[-1] = (found[-1][0], until, now)
        else:
            found.append((moment.at, until, now))
    return found


def _axis(x, ended: float, y: int) -> list[str]:  # type: ignore[no-untyped-def]
    step = next(step for step in (1, 2, 5, 10, 20, 60, 600) if ended / step <= 12 or step == 600)
    lines = [f'<line class="l" x1="{x(0)}" y1="{y}" x2="{x(ended)}" y2="{y}"/>']
    for second in range(0, int(ended) + 1, step):
        lines.append(_text(x(second), y + 13, f"{second} s", 'class="s" text-anchor="middle" font-size="11"'))
    return lines


def _notes(moments: Sequence[Moment]) -> list[tuple[float, str]]:
    """What happened, of what repeats the first of each kind and how often."""
    found: dict[str, tuple[float, str, int]] = {}
    for moment in moments:
        if moment.tables is None:
            kind = re.sub(r"\d+", "#", moment.what)
            at, what, times = found.get(kind, (moment.at, moment.what, 0))
            found[kind] = at, what, times + 1
    return [(at, what if times == 1 else f"{what}  (and {times - 1} more)") for at, what, times in found.values()]


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}"{" " + more if more else ""}>{escape(text, quote=False)}</text>'

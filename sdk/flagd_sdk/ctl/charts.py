"""The path of the evidence against its threshold, drawn with characters. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from math import isfinite, log10
from typing import Final

from rich.text import Text

from flagd_sdk.ctl.durations import format_duration

_LABEL_WIDTH: Final = 9
# An e-value is 0 where a toss was impossible; below this it makes no difference to a reader.
_LOWEST: Final = 1e-3
_MARGIN: Final = 0.15


# Where a terminal knows no Unicode, `output` has a plain character for each.
_LEVEL, _RISE, _THRESHOLD, _AXIS, _FULL, _EMPTY = "━┃╌┤█░"


def draw_evidence(
    path: Sequence[tuple[float, float]], threshold: float, *, width: int, height: int
) -> list[Text]:
    """Return the lines of a chart: time to the right, evidence upwards in orders of magnitude.

    Args:
        path: (Unix seconds, e-value), in order of time; not empty.
        width: columns of a line, at least 30.
        height: lines of the drawing; two more are the time's.
    """
    columns = max(width, 30) - _LABEL_WIDTH - 2
    times = [t for t, _ in path]
    limit = _level(threshold)
    # The threshold lies at the middle or above: what goes far beyond it would press it flat.
    ceiling = 2 * limit - min(0.0, *(_level(e_value) for _, e_value in path))
    levels = [min(_level(e_value), ceiling) for _, e_value in path]
    low, high = min(*levels, limit, 0.0), max(*levels, limit)
    margin = (high - low or 1.0) * _MARGIN
    low, high = low - margin / 3, high + margin

    def row_of(level: float) -> int:
        return round((high - level) / (high - low) * (height - 1))

    cells = [[(" ", "")] * columns for _ in range(height)]
    limit_row = row_of(limit)
    cells[limit_row] = [(_THRESHOLD, "red")] * columns
    started, lasted = times[0], times[-1] - times[0]
    before: int | None = None
    for column in range(columns):
        t = started + lasted * column / (columns - 1)
        level = levels[max(0, bisect_right(times, t + 1e-9) - 1)]
        row, style = row_of(level), "bold red" if level >= limit else "cyan"
        if before is not None:
            for between in range(min(row, before), max(row, before) + 1):
                cells[between][column] = (_RISE, style)
        cells[row][column] = (_LEVEL, style)
        before = row
    labels = {row_of(level): level for level in (min(levels), max(levels), limit)}
    lines = []
    for row, line in enumerate(cells):
        label = _number(10 ** labels[row]) if row in labels else ""
        if labels.get(row) == ceiling:
            label = f"> {10**ceiling:.0e}"
        text = Text().append(
            f"{label:>{_LABEL_WIDTH}} {_AXIS}", "red" if row == limit_row else "dim"
        )
        for sign, style in line:
            text.append(sign, style)
        lines.append(text)
    end = format_duration(lasted) if lasted >= 10 else f"{lasted:.1f}s"
    foot = f"{'':>{_LABEL_WIDTH}}  0s{end:>{columns - 2}}"
    return [*lines, Text(foot, "dim")]


def _level(e_value: float) -> float:
    return log10(min(max(e_value, _LOWEST), 1e300) if isfinite(e_value) else 1e300)


def _number(value: float) -> str:
    return f"{value:,.0f}" if 10 <= value < 1e7 else f"{value:.2g}"


def draw_share(share: float, most: float, width: int, style: str) -> Text:
    """Return a bar as long as a share is of the greatest one beside it; anything is one cell."""
    length = 0 if most <= 0 else round(share / most * width)
    if share > 0:
        length = max(length, 1)
    bar = Text(_FULL * length, style)
    return bar.append(_EMPTY * (width - length), "dim")

"""The path of the score, drawn with characters."""

from collections.abc import Iterator, Sequence
from math import floor, log10

from flagd_server.domain.guard.prose.words import amount

_COLUMNS, _ROWS = 54, 7
_LABEL = 12
_BLOCKS, _LINE = " ▁▂▃▄▅▆▇█", "─"
_LEAST = 1e-3


def chart(path: Sequence[float], threshold: float) -> Iterator[str]:
    """Yield lines: the score from left to right, event by event, and the height it has to reach.

    The scale is that of powers of ten. Where there are more events than columns, each column shows
    the last of its share.
    """
    values = [log10(max(value, _LEAST)) for value in _thinned(path)]
    needed = log10(threshold)
    low, high = min(-0.5, *values), max(needed + 0.5, *values)
    step = (high - low) / _ROWS
    rows = {floor((0.0 - low) / step): "1", floor((needed - low) / step): amount(threshold)}
    threshold_row = floor((needed - low) / step)
    for row in range(_ROWS - 1, -1, -1):
        drawn = ""
        for value in values:
            eighths = round(8 * ((value - low) / step - row))
            block = _BLOCKS[min(8, max(0, eighths))]
            drawn += _LINE if row == threshold_row and block == " " else block
        tail = f"{_LINE * (_COLUMNS - len(values))} acts" if row == threshold_row else ""
        yield f"  {rows.get(row, ''):>{_LABEL}} {drawn}{tail}".rstrip()


def _thinned(path: Sequence[float]) -> list[float]:
    """Return at most a column's worth of points; few points are spread, to be seen as a line."""
    count = len(path)
    if count > _COLUMNS:
        return [path[floor((k + 1) * count / _COLUMNS) - 1] for k in range(_COLUMNS)]
    wide = max(1, min(3, _COLUMNS // count))
    return [value for value in path for _ in range(wide)]

"""The path of the score, drawn with characters."""

from collections.abc import Iterator, Sequence
from math import floor, log10

from flagd_server.domain.guard.prose.words import amount

_COLUMNS, _ROWS = 56, 8
_LABEL = 12
_POINT, _LINE, _BASE = "●", "─", "·"
_LEAST = 1e-3


def chart(path: Sequence[float], threshold: float) -> Iterator[str]:
    """Yield lines: the score from left to right, event by event, and the height it has to reach.

    The scale is that of powers of ten. Where there are more events than columns, each column shows
    the last of its share.
    """
    values = [log10(max(value, _LEAST)) for value in _thinned(path)]
    needed = log10(threshold)
    low, high = min(0.0, *values), max(needed, *values)
    step = (high - low) / (_ROWS - 1) or 1.0

    def row_of(value: float) -> int:
        return round((value - low) / step)

    labels = {row_of(0.0): "1", row_of(needed): f"{amount(threshold)} ▸"}
    for row in range(_ROWS - 1, -1, -1):
        fill = _LINE if row == row_of(needed) else _BASE if row == row_of(0.0) else " "
        drawn = "".join(_POINT if row_of(value) == row else fill for value in values)
        yield f"  {labels.get(row, ''):>{_LABEL}} {drawn}".rstrip()


def _thinned(path: Sequence[float]) -> list[float]:
    """Return at most a column's worth of points; few points are spread, to be seen as a line."""
    count = len(path)
    if count > _COLUMNS:
        return [path[floor((k + 1) * count / _COLUMNS) - 1] for k in range(_COLUMNS)]
    wide = max(1, min(3, _COLUMNS // count))
    return [value for value in path for _ in range(wide)]

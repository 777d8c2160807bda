"""Lines of a page 78 characters wide."""

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap

WIDTH = 78
_INDENT = "  "


def heading(text: str) -> Iterator[str]:
    """Yield a heading with the empty line before it."""
    yield ""
    yield text.upper()


def paragraph(text: str, *, hanging: str = "") -> Iterator[str]:
    """Yield text as indented lines; those after the first are indented by `hanging` besides."""
    yield from wrap(
        text,
        WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT + hanging,
        break_on_hyphens=False,
    )


def table(rows: Iterable[Sequence[str]], *, left: int = 1) -> Iterator[str]:
    """Yield rows in columns; the first `left` columns are set to the left, the others right."""
    cells = [list(row) for row in rows]
    if not cells:
        return
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    for row in cells:
        set_cells = [
            text.ljust(width) if k < left else text.rjust(width)
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield (_INDENT + "   ".join(set_cells)).rstrip()[:WIDTH]

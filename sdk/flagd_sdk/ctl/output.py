"""What a command prints: a document for programs or words for people, never both.

Texts of the server were written by anyone who may send telemetry. What would steer a terminal
(control characters) is taken out of everything that is shown to people.
"""

import codecs
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from flagd_sdk.ctl.exits import CommandError, Exit

Rendered = Iterable[RenderableType]
_T = TypeVar("_T")

# Nothing is cut off for a width that a pipe does not have.
_PIPE_WIDTH = 10_000
_NARROW = 80
_PROSE_WIDTH = 44
# What stands for a character that the terminal's encoding does not have, one for one.
_PLAIN = str.maketrans("━┃╌┤█░→–…“”×·", '=|-|#.>-~""x.')
_STEERING = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
}


def clean(value: _T) -> _T:
    """Return a document with the control and direction characters of its texts replaced."""
    made: Any = value
    if isinstance(value, str):
        made = value.translate(_STEERING)
    elif isinstance(value, dict):
        made = {clean(key): clean(each) for key, each in value.items()}
    elif isinstance(value, list | tuple):
        made = [clean(each) for each in value]
    return made  # type: ignore[no-any-return]


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(each if each.isascii() else "?" for each in text), error.end


codecs.register_error("flagctl", _plain)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the caller: the status that rich would exit with means something here."""
        raise


class Output:
    """Standard output and error of one command.

    Attributes:
        is_live: whether there is a terminal that can be drawn on again and again.
    """

    def __init__(self, *, as_json: bool = False, is_quiet: bool = False) -> None:
        self.as_json = as_json
        self.is_quiet = is_quiet
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="flagctl")
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
        self.console = _Console(
            width=width, markup=False, highlight=False, emoji=False, soft_wrap=False
        )
        self.is_live = self.console.is_terminal and not as_json and not is_quiet

    def show(self, document: Any, render: Callable[[Any], Rendered]) -> None:
        """Print the document, or what `render` makes of it for people."""
        if self.as_json:
            self.line(document)
        elif not self.is_quiet:
            for each in render(clean(document)):
                self.console.print(each)

    def line(self, document: Any) -> None:
        """Print a document on one line; where people look on, indented."""
        indent = 2 if sys.stdout.isatty() else None
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=indent) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell people something on standard error, beside what was asked for."""
        if not self.as_json and not self.is_quiet:
            sys.stderr.write(clean(text) + "\n")

    def fail(self, error: CommandError) -> None:
        """Say what went wrong on standard error, and to a program in its own words as well."""
        sys.stderr.write(f"flagctl: {clean(str(error))}\n")
        for problem in error.problems:
            if str(problem) not in str(error):
                sys.stderr.write(f"  {clean(str(problem))}\n")
        if self.as_json:
            self.line(error.to_document())


def drop_output() -> Exit:
    """Say nothing more: whoever read has seen enough. Return how to end.

    What is buffered would be flushed at the exit, where it would fail once more.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.BROKEN_PIPE


class Listing:
    """Rows under headings; on a narrow terminal, where columns would be slivers, one by one."""

    def __init__(self, *headings: str, nothing: str, prose: Sequence[str] = ()) -> None:
        """Begin one.

        Args:
            nothing: what is said where there are no rows.
            prose: headings of columns that are kept narrow, as there is much beside them.
        """
        self._headings = headings
        self._nothing = nothing
        self._prose = prose
        self._rows: list[tuple[RenderableType, ...]] = []

    def add_row(self, *cells: RenderableType) -> None:
        self._rows.append(cells)

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        if not self._rows:
            yield self._nothing
            return
        if options.max_width >= _NARROW:
            table = plain_table(*self._headings)
            for column in table.columns:
                if column.header in self._prose:
                    column.max_width = _PROSE_WIDTH
            for row in self._rows:
                table.add_row(*row)
            yield table
            return
        for row in self._rows:
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column()
            grid.add_column(overflow="fold")
            for heading, cell in zip(self._headings, row, strict=True):
                if cell and cell != Text(""):
                    grid.add_row(Text(heading.lower(), "dim"), cell)
            yield grid
            yield ""


def plain_table(*headings: str) -> Table:
    """Return a table without lines: it reads well, and what is piped on stays text."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def styled(text: object, style: str) -> Text:
    return Text(str(text), style=style)

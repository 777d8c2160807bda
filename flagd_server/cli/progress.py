"""The progress bar of commands that take their time; none where nobody watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on standard error, and yield what moves it: (of what, done, of how many)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[of]}"))
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        bar = bars.add_task(what, total=None, of="")

        def move(of: str, done: int, total: int) -> None:
            bars.update(bar, of=of, completed=done, total=total)

        yield move

"""Reads what a client has counted, where no thread takes it away first."""

from typing import Any

from flagd_sdk import FlagClient


def keep_counts(flags: FlagClient) -> None:
    """End the thread that reports: it takes the counts at the first failure of a kind."""
    reporter = flags._engine.reporter
    reporter.stop()
    assert reporter.join(60.0)


def counted(flags: FlagClient) -> dict[str, Any]:
    """Return what was counted since the last time by a client that keeps its counts."""
    reporter = flags._engine.reporter
    reporter._count_queue()
    return reporter._tally.take().document()

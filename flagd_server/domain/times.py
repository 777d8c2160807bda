"""Times as they stand in records and on the wire: RFC 3339, UTC, milliseconds, `Z`."""

from datetime import UTC, datetime


def format_time(moment: datetime) -> str:
    """Return `2026-11-23T19:14:37.123Z`; `moment` is aware. What is below a millisecond is cut."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_seconds(seconds: float) -> datetime:
    """Return the aware UTC time so many seconds after the Unix epoch."""
    return datetime.fromtimestamp(seconds, UTC)


def parse_time(text: str) -> datetime:
    """Return the aware UTC time that `format_time` wrote.

    Raises:
        ValueError: `text` is no RFC 3339 time with an offset.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"expected a time with an offset, got {text!r}")
    return moment.astimezone(UTC)

"""Instants as keys that compare exactly, whatever precision they were written with, and as text."""

import re
from datetime import UTC, date, datetime, timedelta

# Compiled when first used (`re` keeps it): compiling is most of what importing this would take.
_RFC_3339 = (
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_MINUTES_A_DAY = 24 * 60
_EPOCH = datetime(1, 1, 1)  # noqa: DTZ001 - naive on purpose: what is left when offsets are gone
_SECOND = timedelta(seconds=1)


def rfc3339(at: datetime) -> str:
    """Return an instant as it goes over the wire: UTC, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instant_key(value: object) -> tuple[int, str] | None:
    """Return what to compare an instant by: whole seconds and the digits of the fraction.

    Digits, so that any precision is exact. A string must be RFC 3339 (section 5.6), which requires
    an offset; a datetime must be aware. Anything else is None.
    """
    if type(value) is str:
        return _instant_key_of_text(value)
    if not issubclass(type(value), datetime):
        return None
    instant: datetime = value  # type: ignore[assignment]
    try:
        offset = instant.utcoffset()
        if offset is None:
            return None
        elapsed = instant.replace(tzinfo=None) - _EPOCH - offset
    except Exception:  # the time zone is the application's own code, and evaluation never raises
        return None
    return elapsed // _SECOND, f"{elapsed.microseconds:06d}".rstrip("0")


def _instant_key_of_text(text: str) -> tuple[int, str] | None:
    match = re.fullmatch(_RFC_3339, text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.group(1, 2, 3, 4, 5, 6))
    fraction, sign, offset_hour, offset_minute = match.group(7, 8, 9, 10)
    offset = 0
    if sign is not None:
        if int(offset_hour) > 23 or int(offset_minute) > 59:
            return None
        offset = (int(offset_hour) * 60 + int(offset_minute)) * (-1 if sign == "-" else 1)
    try:
        days = date(year, month, day).toordinal() - 1
    except ValueError:
        return None
    if hour > 23 or minute > 59 or second > 60:
        return None
    minutes = days * _MINUTES_A_DAY + hour * 60 + minute - offset
    if second == 60 and minutes % _MINUTES_A_DAY != _MINUTES_A_DAY - 1:
        return None  # a leap second comes at the end of a day in UTC (RFC 3339, section 5.7)
    return minutes * 60 + second, (fraction or "").rstrip("0")

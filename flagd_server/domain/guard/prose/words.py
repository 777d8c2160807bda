"""Numbers and times as people say them, in English."""

from collections.abc import Iterable
from datetime import datetime

from flagd_server.domain.times import from_seconds, parse_time

_SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_LARGE = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
_HUGE, _HUGE_SPOKEN = 1e15, "1,000 trillion"
_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3_600.0, 86_400.0


def clean(text: object) -> str:
    """Return text on one line without what a terminal would obey; it was written by others."""
    return "".join(c if c.isprintable() else " " for c in str(text)).strip()


def listed(names: Iterable[str]) -> str:
    """Return "a", "a and b", or "a, b and c"."""
    rest = [clean(name) for name in names]
    last = rest.pop() if rest else ""
    return f"{', '.join(rest)} and {last}" if rest else last


def amount(value: float) -> str:
    """Return a number to two digits or so: "1.7", "320", "41,000", "3.2 million"."""
    if value >= _HUGE:
        return f"over {_HUGE_SPOKEN}"
    for size, name in _LARGE:
        if value >= size:
            return f"{_digits(value / size)} {name}"
    return _digits(value)


def _digits(value: float) -> str:
    if value >= 9.95:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{value:.1f}".removesuffix(".0")


def small(number: int) -> str:
    """Return a small count in letters."""
    return _SMALL[number] if 0 <= number < len(_SMALL) else f"{number:,}"


def counted(number: int, noun: str) -> str:
    """Return "1 visitor", "2,300 visitors"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Return a share as "5.7%", with as many digits as it takes to tell it from nothing."""
    value = 100 * share
    if value == 0:
        return "0%"
    if value < 0.01:
        return "under 0.01%"
    if value < 0.1:
        return f"{value:.2f}%"
    return f"{value:.1f}%"


def fraction(share: float) -> str:
    """Return a share as a person says it: "one in four", "half", "about 27 in 100"."""
    if share <= 0.0:
        return "none"
    for text, value in (("half", 1 / 2), ("two in three", 2 / 3), ("three in four", 3 / 4)):
        if abs(share / value - 1) < 0.02:
            return text
    if share < 1.0 and abs(1 / share - round(1 / share)) < 0.04 / share:
        return f"one in {small(round(1 / share))}"
    return f"{100 * share:.0f} in 100"


def odds(chance: float) -> str:
    """Return how unlikely something is: "one in four million"."""
    if chance <= 0.0 or 1 / chance >= _HUGE:
        return f"less than one in {_HUGE_SPOKEN}"
    against = 1 / chance
    if against < 2.0:
        return "better than even"
    for size, name in _LARGE:
        if against >= size:
            return f"one in {_one_digit(against / size)} {name}"
    return f"one in {_one_digit(against)}" if against < 10 else f"one in {_digits(against)}"


def _one_digit(value: float) -> str:
    return small(round(value)) if value < 10.5 else _digits(value)


def times(ratio: float) -> str:
    """Return a ratio as "12 times", "1.5 times"."""
    return "as often" if 0.95 <= ratio < 1.05 else f"{amount(ratio)} times as often"


def span(seconds: float) -> str:
    """Return a length of time: "0.4 seconds", "3 minutes", "27 hours"."""
    for size, name in ((_DAY_S, "day"), (_HOUR_S, "hour"), (_MINUTE_S, "minute")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}s"
    if seconds < 10:
        return f"{seconds:.1f} seconds"
    return f"{seconds:.0f} seconds"


def milliseconds(value: float) -> str:
    """Return a delay: "8 ms", or in seconds where it is long."""
    return f"{value:.0f} ms" if value < 1_000 else span(value / 1_000)


def day_and_time(moment: datetime | str) -> str:
    """Return "27 November 2026 at 02:14:57 UTC"."""
    at = parse_time(moment) if isinstance(moment, str) else moment
    return f"{at.day} {at:%B %Y at %H:%M:%S} UTC"


def clock(seconds: float, *, near: float | None = None) -> str:
    """Return a time of day, with its date where that is another day than `near`'s."""
    at = from_seconds(seconds)
    if near is not None and from_seconds(near).date() != at.date():
        return f"{at.day} {at:%b %H:%M}"
    return f"{at:%H:%M:%S}"

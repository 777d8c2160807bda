"""Lengths of time as people write and read them."""

import re

_UNITS_S = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PARTS = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds of a text such as "90", "90s", "10m" or "1h30m".

    Raises:
        ValueError: it is no length of time.
    """
    match = _PARTS.fullmatch(text.strip())
    if not text.strip() or match is None:
        raise ValueError(f"{text!r}; expected a length of time such as 90s, 10m or 1h30m")
    return sum(
        float(part) * unit_s
        for part, unit_s in zip(match.groups(), _UNITS_S.values(), strict=True)
        if part
    )


def format_duration(seconds: float) -> str:
    """Return at most two parts, such as "1h 30m"; "0s" for less than a second."""
    left = int(seconds)
    parts = []
    for unit, unit_s in _UNITS_S.items():
        count, left = divmod(left, unit_s)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"

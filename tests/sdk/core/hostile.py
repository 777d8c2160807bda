"""Values that an application may put into a context without meaning any harm, or meaning it."""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from enum import IntEnum, StrEnum


class Raises:
    """Whatever is asked of it, it raises."""

    def _raise(self, *_: object) -> object:
        raise ValueError("no")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _raise  # type: ignore[assignment]
    __hash__ = __str__ = __repr__ = __bool__ = __len__ = __iter__ = _raise  # type: ignore[assignment]
    __int__ = __float__ = __index__ = __contains__ = __getitem__ = _raise

    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise ValueError("no")


class RaisingText(str):
    """A string whose every method raises."""

    def _raise(self, *_: object) -> object:
        raise ValueError("no")

    __eq__ = __ne__ = __lt__ = __hash__ = __str__ = __len__ = _raise  # type: ignore[assignment]
    __add__ = __radd__ = __bool__ = __contains__ = __format__ = _raise  # type: ignore[assignment]
    startswith = endswith = isascii = encode = isdigit = split = _raise  # type: ignore[assignment]


class LyingText(str):
    """A string that joins into text that is no UTF-8."""

    def __radd__(self, other: str) -> str:
        return "\ud800"


class RaisingNumber(int):
    def _raise(self, *_: object) -> object:
        raise ValueError("no")

    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __int__ = __str__ = _raise  # type: ignore[assignment]


class RaisingFloat(float):
    def _raise(self, *_: object) -> object:
        raise ValueError("no")

    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __float__ = is_integer = _raise  # type: ignore[assignment]


class RaisingList(list[object]):
    def __iter__(self) -> Iterator[object]:
        raise ValueError("no")

    def __len__(self) -> int:
        raise ValueError("no")


class RaisingZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        raise ValueError("no")


class RaisingMapping(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        raise OSError("no")

    def __iter__(self) -> Iterator[str]:
        raise OSError("no")

    def __len__(self) -> int:
        raise OSError("no")


class Country(StrEnum):
    NL = "NL"


class Level(IntEnum):
    FIVE = 5


def deep_list() -> list[object]:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    return value


VALUES: dict[str, object] = {
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "huge": 10**5000,
    "huge text": "9" * 100_000,
    "surrogate": "\ud800",
    "surrogates": ["\udcff", "a\ud800"],
    "nul": "\0",
    "bytes": b"NL",
    "object": object(),
    "raises": Raises(),
    "list of raises": [Raises(), "x"],
    "text": RaisingText("NL"),
    "lying": LyingText("NL"),
    "number": RaisingNumber(5),
    "float": RaisingFloat(5.0),
    "list": RaisingList(["NL"]),
    "deep": deep_list(),
    "dict": {"a": {}},
    "unhashable": [[], {}, set()],
    "set": {"NL", 1},
    "class": Raises,
    "function": deep_list,
    "none": None,
    "complex": 1j,
    "naive": datetime(2026, 1, 1),  # noqa: DTZ001 - on purpose
    "zone": datetime(2026, 1, 1, tzinfo=RaisingZone()),
    "earliest": datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    "latest": datetime.max.replace(tzinfo=timezone(-timedelta(hours=14))),
    "aware": datetime(2026, 1, 1, tzinfo=UTC),
}

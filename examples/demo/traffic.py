"""The recorded requests as visits to the shop: in their order, over and over."""

import csv
import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

LOG = Path(__file__).parent.parent / "data" / "access_log.csv.gz"


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of the log, and what it becomes in the shop.

    Attributes:
        visitor: the targeting key.
        article: the path that was asked for.
        price_cents: the size of the reply in bytes, for want of a price.
        status: the HTTP status of then.
    """

    visitor: str
    article: str
    price_cents: int
    status: int

    @property
    def has_failed(self) -> bool:
        return self.status >= 400


def read_log(path: Path = LOG) -> list[Visit]:
    """Return the visits in time order."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return [
            Visit(row["visitor"], row["path"], int(row["bytes"]), int(row["status"]))
            for row in csv.DictReader(file)
        ]


def replay(visits: Iterable[Visit]) -> Iterator[Visit]:
    """Yield the visits without an end, each time from other visitors.

    A visitor who has failed once tells the guard nothing more, so the same people again would be
    no traffic at all.
    """
    kept = tuple(visits)
    for round_number in count(1):
        suffix = "" if round_number == 1 else f"-{round_number}"
        for visit in kept:
            yield Visit(visit.visitor + suffix, visit.article, visit.price_cents, visit.status)

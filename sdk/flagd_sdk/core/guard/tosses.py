"""The tosses of one life, kept as they fell: enough to run any stream again, or to print it.

Columns of plain machine numbers: a life may hold a hundred thousand tosses.
"""

from array import array
from base64 import b64decode, b64encode
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, NamedTuple

_BATCH_COLUMNS = {"times": "d", "rate_shares": "d"}
# In the order of the fields of a toss.
_TOSS_COLUMNS = {
    "batches": "I",
    "hashes": "Q",
    "kinds": "H",
    "in_treatment": "b",
    "shares": "d",
    "instances": "H",
    "releases": "H",
}


class Toss(NamedTuple):
    """A unit's first event. `share` is s, the coin's bias; kind, instance, release are indices."""

    batch: int
    unit: int
    kind: int
    in_treatment: int
    share: float
    instance: int
    release: int


@dataclass(slots=True)
class TossLog:
    """Tosses in the order in which they were multiplied in; one batch for each summary."""

    times: "array[float]" = field(default_factory=lambda: array("d"))
    rate_shares: "array[float]" = field(default_factory=lambda: array("d"))
    batches: "array[int]" = field(default_factory=lambda: array("I"))
    hashes: "array[int]" = field(default_factory=lambda: array("Q"))
    kinds: "array[int]" = field(default_factory=lambda: array("H"))
    in_treatment: "array[int]" = field(default_factory=lambda: array("b"))
    shares: "array[float]" = field(default_factory=lambda: array("d"))
    instances: "array[int]" = field(default_factory=lambda: array("H"))
    releases: "array[int]" = field(default_factory=lambda: array("H"))

    def __len__(self) -> int:
        return len(self.batches)

    def add_batch(self, t: float, rate_share: float, tosses: Iterable[Toss]) -> None:
        """Add one summary's tosses; `rate_share` is the treatment's share of recent exposures."""
        self.times.append(t)
        self.rate_shares.append(rate_share)
        self._add(tosses)

    def _add(self, tosses: Iterable[Toss]) -> None:
        for batch, unit, kind, in_treatment, share, instance, release in tosses:
            self.batches.append(batch)
            self.hashes.append(unit)
            self.kinds.append(kind)
            self.in_treatment.append(in_treatment)
            self.shares.append(share)
            self.instances.append(instance)
            self.releases.append(release)

    def __iter__(self) -> Iterator[Toss]:
        return self.since(0)

    def since(self, batch: int) -> Iterator[Toss]:
        """Yield the tosses of this batch and the later ones."""
        start = bisect_left(self.batches, batch)
        columns = (getattr(self, name)[start:] for name in _TOSS_COLUMNS)
        return map(Toss, *columns)

    def thin(self, below: int) -> None:
        """Forget every toss of a unit whose hash is not under `below`."""
        kept = [unit < below for unit in self.hashes]
        for name, code in _TOSS_COLUMNS.items():
            setattr(self, name, array(code, compress(getattr(self, name), kept)))

    def keep(self, wanted: Callable[[Toss], bool]) -> None:
        """Forget every other toss; batches keep their numbers."""
        kept = [toss for toss in self if wanted(toss)]
        for name, code in _TOSS_COLUMNS.items():
            setattr(self, name, array(code))
        self._add(kept)

    def replace_rate_shares(self) -> None:
        """Put each batch's coin (its tosses' mean) in place of the share of exposures."""
        sums: dict[int, tuple[float, int]] = {}
        for batch, share in zip(self.batches, self.shares, strict=True):
            total, count = sums.get(batch, (0.0, 0))
            sums[batch] = total + share, count + 1
        for batch, (total, count) in sums.items():
            self.rate_shares[batch] = total / count

    def renumber_kinds(self) -> list[int]:
        """Leave no gaps in the numbers of kinds; return the old ones in their new order."""
        kept = sorted(set(self.kinds))
        numbers = {old: new for new, old in enumerate(kept)}
        self.kinds = array("H", [numbers[kind] for kind in self.kinds])
        return kept

    def to_document(self) -> dict[str, str]:
        return {
            name: b64encode(getattr(self, name).tobytes()).decode("ascii")
            for name in (*_BATCH_COLUMNS, *_TOSS_COLUMNS)
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "TossLog":
        log = cls()
        for name, code in (_BATCH_COLUMNS | _TOSS_COLUMNS).items():
            column = array(code)
            column.frombytes(b64decode(document[name]))
            setattr(log, name, column)
        return log

"""Recorded requests as the guard's events: through the SDK's own evaluation and counting.

Visitors are dealt to the two variants of a flag by its hash, and requests to processes by chance.
The flag does nothing, unless a fault is injected: then some requests fail that did not.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.failure import Failure, error_kind
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.summary import Tally
from flagd_server.domain.guard.records import Cell, Event, RecordError
from flagd_server.domain.times import parse_time

FLAG = "new-checkout"
TREATMENT, CONTROL = "on", "off"
BUCKETS = 100_000
FAILURE_FROM_STATUS = 400
NEW_KIND = error_kind("InjectedFault")
_STATUS = re.compile("[0-9]{3}")
_COLUMNS = ("time", "visitor", "status")
# A process reports each second with news; the log tells no time of day finer than that either.
_REPORT_AFTER_S = 1.0
_DURATION_US = 20_000

_T = TypeVar("_T")


class Draws(Protocol):
    """What is used of `random.Random`: seeded by the caller, it decides all that is left open."""

    def random(self) -> float: ...
    def choice(self, seq: Sequence[_T], /) -> _T: ...
    def getrandbits(self, k: int, /) -> int: ...
    def randbytes(self, n: int) -> bytes: ...


class Request(NamedTuple):
    """One recorded request; `t` in seconds since the Unix epoch."""

    t: float
    visitor: str
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """From `after_s` on, the feature multiplies its requests' chance to fail.

    Attributes:
        ratio: chance to fail with the feature over the traffic's own; more than 1.
        has_new_kind: whether its failures are of a kind of their own, or of those in the traffic.
        after_s: seconds after the first request.
    """

    ratio: float
    has_new_kind: bool = True
    after_s: float = 0.0


def read_traffic(lines: Iterable[str]) -> list[Request]:
    """Read recorded requests: CSV with a header; `time`, `visitor` and `status` are used.

    Raises:
        RecordError: there are none, or one can't be read; the message has its line.
    """
    rows = csv.DictReader(lines)
    requests: list[Request] = []
    try:
        missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise RecordError(f"expected a column {missing[0]!r}, got {rows.fieldnames or 'none'}")
        for row in rows:
            request = _request(row)
            if requests and request.t < requests[-1].t:
                raise RecordError(f"time: expected none before the last, got {row['time']!r}")
            requests.append(request)
    except (ValueError, csv.Error) as error:
        raise RecordError(f"line {max(1, rows.line_num)}: {error}") from None
    if not requests:
        raise RecordError("expected requests, got none")
    return requests


def _request(row: Mapping[str, str | None]) -> Request:
    time, visitor, status = (row[name] or "" for name in _COLUMNS)
    if not visitor:
        raise RecordError("visitor: expected a text, got none")
    if not _STATUS.fullmatch(status):
        raise RecordError(f"status: expected three digits, got {status!r:.60}")
    try:
        t = parse_time(time).timestamp()
    except ValueError:
        raise RecordError(f"time: expected one as in RFC 3339, got {time!r:.60}") from None
    has_failed = int(status) >= FAILURE_FROM_STATUS
    return Request(t, visitor, Failure(error_kind(status)) if has_failed else None)


def split_traffic(
    traffic: Sequence[Request],
    buckets: int,
    processes: int,
    random: Draws,
    fault: InjectedFault | None = None,
) -> Iterator[Event]:
    """Yield what the processes report of a flag that gives the treatment `buckets` of all buckets.

    Each process reports at the end of a second with news, and at once when a kind of error is new
    to it. Another state of `random` is another assignment of the same visitors.
    """
    weights = {TREATMENT: buckets, CONTROL: BUCKETS - buckets}
    salt, unit_key = f"salt-{random.getrandbits(64):x}", random.randbytes(16).hex()
    flag_set = split_flag_set(salt, unit_key, weights)
    spoiled = None if fault is None else _Spoiled(fault, traffic)
    for t, process, summary in _summaries(traffic, flag_set, processes, random, spoiled):
        cells = tuple(
            Cell(
                split=cell["split"],
                variant=cell["variant"],
                weights=weights,
                config_version=cell["config_version"],
                instance=process,
                exposures=cell["exposures"],
                errors=cell["errors"],
                units=cell["units"],
            )
            for cell in summary["cells"]
        )
        yield Event(t, cells)


def split_flag_set(salt: str, unit_key: str, weights: Mapping[str, int]) -> FlagSet:
    """Return a flag set of one boolean flag that splits everybody by these weights."""
    treated = weights[TREATMENT]
    return parse_flag_set(
        {
            "environment": "production",
            "sequence": 1,
            "unit_key": unit_key,
            "segments": {},
            "flags": {
                FLAG: {
                    "key": FLAG,
                    "type": "boolean",
                    "version": 1,
                    "enabled": True,
                    "variants": {TREATMENT: True, CONTROL: False},
                    "off_variant": CONTROL,
                    "rules": [],
                    "default_serve": {
                        "split": {
                            "bucket_by": "targetingKey",
                            "salt": salt,
                            "weights": dict(weights),
                            "allocation": [[treated, TREATMENT], [BUCKETS, CONTROL]],
                        }
                    },
                    "kill": None,
                }
            },
        }
    )


class _Spoiled:
    """What an injected fault makes of a request of the treatment."""

    def __init__(self, fault: InjectedFault, traffic: Sequence[Request]) -> None:
        self._failures = [request.failure for request in traffic if request.failure is not None]
        self._from_t = traffic[0].t + fault.after_s
        self._has_new_kind = fault.has_new_kind
        # Of a request that would not have failed; where it is above 1, they all do.
        others = len(traffic) - len(self._failures)
        self._chance = (fault.ratio - 1.0) * len(self._failures) / max(1, others)

    def failure(self, request: Request, random: Draws) -> Failure | None:
        if request.failure is not None or request.t < self._from_t:
            return request.failure
        if random.random() >= self._chance:
            return None
        return Failure(NEW_KIND) if self._has_new_kind else random.choice(self._failures)


def _summaries(
    traffic: Sequence[Request],
    flag_set: FlagSet,
    processes: int,
    random: Draws,
    spoiled: _Spoiled | None,
) -> Iterator[tuple[float, str, dict[str, Any]]]:
    """Yield (t, process, summary) as the processes would report the traffic dealt to them."""
    tallies = {f"i{number}": Tally() for number in range(processes)}
    names = list(tallies)
    second = traffic[0].t
    for request in traffic:
        if request.t > second:
            for name, tally in tallies.items():
                if tally.has_news:
                    yield second + _REPORT_AFTER_S, name, tally.take().document()
            second = request.t
        context = {"targetingKey": request.visitor}
        resolution = flag_set.resolve(FLAG, context)
        name = random.choice(names)
        failure = request.failure
        if spoiled is not None and resolution.variant == TREATMENT:
            failure = spoiled.failure(request, random)
        at_once = tallies[name].record(
            {FLAG: resolution},
            context,
            flag_set.unit_key,
            _DURATION_US,
            () if failure is None else (failure,),
            request.t,
        )
        if at_once:
            yield request.t, name, tallies[name].take().document()
    for name, tally in tallies.items():
        if tally.has_news:
            yield second + _REPORT_AFTER_S, name, tally.take().document()

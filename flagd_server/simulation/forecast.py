"""From the endings of many lives to what an owner asks: how soon, and at whose cost?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, inf
from typing import Any, NamedTuple

from flagd_server.simulation.bounds import upper_bound
from flagd_server.simulation.life import Ending


class Spread(NamedTuple):
    """What half of the lives stayed within, and nine tenths; None where they did not end."""

    median: float | None
    nine_tenths: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the smallest values within which so many lives stayed; `inf` is one without."""
        ordered = sorted(values)
        found = (ordered[ceil(len(ordered) * tenths / 10) - 1] for tenths in (5, 9))
        return cls(*(None if value == inf else value for value in found))


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a fault would cost at one share of the traffic.

    Attributes:
        share: of the traffic that is served the feature, in percent.
        lives: how many were run with the fault; `killed` of them within the horizon.
        delay_s: from its beginning to the kill.
        exposures, failed, users: requests served the faulty feature until the kill (or the
            horizon), those it made fail or slow, and the distinct users who met that.
        healthy_lives: how many were run without it, over the whole horizon; of them
            `false_kills`, so that at 95 % confidence the share is at most `false_kills_at_most`.
    """

    share: float
    lives: int
    killed: int
    delay_s: Spread
    exposures: Spread
    failed: Spread
    users: Spread
    healthy_lives: int
    false_kills: int
    false_kills_at_most: float

    @classmethod
    def of(cls, share: float, faulty: Sequence[Ending], healthy: Sequence[Ending]) -> "Forecast":
        delays = [inf if end.killed_after_s is None else end.killed_after_s for end in faulty]
        false_kills = sum(end.killed_after_s is not None for end in healthy)
        return cls(
            share=share,
            lives=len(faulty),
            killed=sum(delay < inf for delay in delays),
            delay_s=Spread.of(delays),
            exposures=Spread.of([end.exposures for end in faulty]),
            failed=Spread.of([end.failed for end in faulty]),
            users=Spread.of([end.users for end in faulty]),
            healthy_lives=len(healthy),
            false_kills=false_kills,
            false_kills_at_most=upper_bound(false_kills, len(healthy)),
        )

    def to_document(self) -> dict[str, Any]:
        document = asdict(self)
        for name, value in document.items():
            if isinstance(value, Spread):
                document[name] = value._asdict()
        return document

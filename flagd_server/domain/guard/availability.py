"""The burn tests of the services that serve a flag: is an objective being missed?

They see every exposure of the flag, whatever variant was served. Where there is a control they kill
nothing: a breach that the control shares is an outage. Where there is none they are all there is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flagd_server.domain.guard.records import Cell
from flagd_server.stats.burn import FAST_BURN, OBJECTIVE_MISSED, BurnTest, allowed_rate

# A breach that began within this time of a change of the flag may be that change's doing.
SUSPECT_WITHIN_S = 900.0
_BURNS = (OBJECTIVE_MISSED, FAST_BURN)


@dataclass(frozen=True, slots=True)
class Breach:
    """An objective that is being missed.

    Attributes:
        burn: how many times faster than the budget allows, at least: 1 or 14.4.
        began: when the evidence began, in seconds.
    """

    service: str
    objective: float
    burn: float
    value: float
    began: float


@dataclass(slots=True)
class Availability:
    """One burn test for each service with an objective, and for each of the two burn rates.

    Attributes:
        counts: service → [exposures, failing exposures] since the life began.
    """

    objectives: Mapping[str, float]
    tests: dict[str, list[BurnTest]] = field(default_factory=dict)
    counts: dict[str, list[int]] = field(default_factory=dict)

    def observe(self, t: float, cells: Iterable[Cell]) -> None:
        """Take in one summary's cells of the flag, whether a split decided them or not."""
        if not self.objectives:
            return
        sums: dict[str, list[int]] = {}
        for cell in cells:
            if cell.service in self.objectives and cell.exposures:
                window = sums.setdefault(cell.service, [0, 0])
                window[0] += cell.exposures
                window[1] += cell.errors
        for service, (exposures, failing) in sums.items():
            for test in self._tests(service, t):
                test.update(t, exposures, failing)
            total = self.counts.setdefault(service, [0, 0])
            total[0] += exposures
            total[1] += failing

    def _tests(self, service: str, t: float) -> list[BurnTest]:
        tests = self.tests.get(service)
        if tests is None:
            objective = self.objectives[service]
            rates = (allowed_rate(objective, burn) for burn in _BURNS)
            tests = self.tests[service] = [BurnTest.start(rate, t) for rate in rates if rate < 1.0]
        return tests

    def breach(self, alpha: float) -> Breach | None:
        """Return the fastest breach that is established at this alpha, None without one."""
        if not self.tests:
            return None
        found = [
            Breach(service, self.objectives[service], burn, test.value, test.began)
            for service, tests in self.tests.items()
            for burn, test in zip(_BURNS, tests, strict=False)
            if test.value >= 1.0 / alpha and test.began is not None
        ]
        return max(found, key=lambda breach: breach.burn, default=None)

    def report(self) -> list[dict[str, Any]]:
        """Return each service's objective and how its tests stand."""
        return [
            {
                "service": service,
                "objective": self.objectives[service],
                "exposures": exposures,
                "errors": errors,
                "missed_e_value": self.tests[service][0].value,
                "fast_burn_e_value": self.tests[service][-1].value,
            }
            for service, (exposures, errors) in self.counts.items()
        ]

    def to_document(self) -> dict[str, Any]:
        return {
            "objectives": dict(self.objectives),
            "tests": {
                service: [test.to_document() for test in tests]
                for service, tests in self.tests.items()
            },
            "counts": self.counts,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Availability":
        tests = {
            service: [BurnTest.from_document(row) for row in rows]
            for service, rows in document["tests"].items()
        }
        return cls(document["objectives"], tests, document["counts"])

"""What a gate asks for. What the facts say of it is judged in `gate_verdicts`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from flagd_server.domain.answers import (
    Question,
    alertmanager_question,
    health_question,
    prometheus_question,
)
from flagd_server.domain.times import format_time

Op = Literal["lt", "lte", "gt", "gte"]


@dataclass(frozen=True, slots=True)
class SloCheck:
    """At least one of the two is given."""

    service: str
    error_budget_left_at_least: float | None = None
    burn_rate_below: float | None = None


@dataclass(frozen=True, slots=True)
class PrometheusCheck:
    """Every sample of the query has to compare like this with the threshold."""

    url: str
    query: str
    op: Op
    threshold: float


@dataclass(frozen=True, slots=True)
class AlertmanagerCheck:
    """No alert that all the matchers fit may fire."""

    url: str
    matchers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deployment:
    service: str
    version: str


@dataclass(frozen=True, slots=True)
class GuardCheck:
    """The guards of these flags, or of those that a deployment serves; one of the two is given."""

    flags: tuple[str, ...] = ()
    deployment: Deployment | None = None


@dataclass(frozen=True, slots=True)
class MinExposures:
    """So many exposures of the flag since its configuration last changed."""

    flag: str
    count: int


@dataclass(frozen=True, slots=True)
class GateDefinition:
    """What a gate joins; each is optional, and one is there."""

    description: str = ""
    health_checks: tuple[str, ...] = ()
    slo: SloCheck | None = None
    prometheus: tuple[PrometheusCheck, ...] = ()
    alertmanager: AlertmanagerCheck | None = None
    guard: GuardCheck | None = None
    min_exposures: MinExposures | None = None
    approval: bool = False

    def has_checks(self) -> bool:
        return any(
            (
                self.health_checks,
                self.slo,
                self.prometheus,
                self.alertmanager,
                self.guard,
                self.min_exposures,
                self.approval,
            )
        )

    def urls(self) -> dict[str, str]:
        """Return what others are asked under, by field."""
        urls = {f"health_checks[{n}]": url for n, url in enumerate(self.health_checks)}
        urls |= {f"prometheus[{n}].url": check.url for n, check in enumerate(self.prometheus)}
        if self.alertmanager is not None:
            urls["alertmanager.url"] = self.alertmanager.url
        return urls

    def questions(self) -> dict[str, Question]:
        """Return what has to be asked of others, by the name of the check."""
        asked = {
            f"health_checks[{n}]": health_question(u) for n, u in enumerate(self.health_checks)
        }
        for number, check in enumerate(self.prometheus):
            asked[f"prometheus[{number}]"] = prometheus_question(check.url, check.query)
        if self.alertmanager is not None:
            check_of = self.alertmanager
            asked["alertmanager"] = alertmanager_question(check_of.url, check_of.matchers)
        return asked

    def to_document(self) -> dict[str, Any]:
        slo, alertmanager, guard, least = (
            self.slo,
            self.alertmanager,
            self.guard,
            self.min_exposures,
        )
        return {
            "description": self.description,
            "health_checks": list(self.health_checks),
            "slo": None if slo is None else _given(slo),
            "prometheus": [_given(check) for check in self.prometheus],
            "alertmanager": None
            if alertmanager is None
            else {"url": alertmanager.url, "matchers": list(alertmanager.matchers)},
            "guard": None
            if guard is None
            else {"flags": list(guard.flags)}
            if guard.deployment is None
            else {"deployment": _given(guard.deployment)},
            "min_exposures": None if least is None else _given(least),
            "approval": self.approval,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "GateDefinition":
        slo, alertmanager = document.get("slo"), document.get("alertmanager")
        guard, least = document.get("guard"), document.get("min_exposures")
        deployment = None if guard is None else guard.get("deployment")
        return cls(
            description=document.get("description", ""),
            health_checks=tuple(document.get("health_checks", ())),
            slo=None if slo is None else SloCheck(**slo),
            prometheus=tuple(PrometheusCheck(**row) for row in document.get("prometheus", ())),
            alertmanager=None
            if alertmanager is None
            else AlertmanagerCheck(alertmanager["url"], tuple(alertmanager["matchers"])),
            guard=None
            if guard is None
            else GuardCheck(
                tuple(guard.get("flags", ())),
                None if deployment is None else Deployment(**deployment),
            ),
            min_exposures=None if least is None else MinExposures(**least),
            approval=document.get("approval", False),
        )


@dataclass(frozen=True, slots=True)
class Approval:
    by: str
    at: datetime
    expires_at: datetime
    reason: str

    def to_document(self) -> dict[str, Any]:
        return {
            "by": self.by,
            "at": format_time(self.at),
            "expires_at": format_time(self.expires_at),
            "reason": self.reason,
        }


def _given(check: Any) -> dict[str, Any]:
    fields = ((name, getattr(check, name)) for name in check.__dataclass_fields__)
    return {name: value for name, value in fields if value is not None}

"""Healthy, unhealthy, or not known: how gates and deployments say it, always with reasons."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    HEALTHY = "healthy"
    INCONCLUSIVE = "inconclusive"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Reason:
    """What one check says.

    Attributes:
        check: what was asked.
        detail: one sentence for a person, who can act on it.
    """

    check: str
    word: Health
    detail: str


def worst(reasons: Iterable[Reason]) -> Health:
    """Return unhealthy where one is, else inconclusive where one is, or where there is none."""
    words = {reason.word for reason in reasons}
    for word in (Health.UNHEALTHY, Health.INCONCLUSIVE, Health.HEALTHY):
        if word in words:
            return word
    return Health.INCONCLUSIVE

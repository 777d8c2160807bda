"""What is to blame in a deployment: its flags' guards, their kills, and versions compared."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flagd_server.domain.configuration import KillSource
from flagd_server.domain.guard.blindness import Blind
from flagd_server.domain.guard.deployment_verdict import (
    CountedBy,
    DeploymentVerdict,
    FlagFinding,
    ServiceFinding,
    finding_of,
    judge_deployment,
    killed_finding,
)
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.report import version_verdicts
from flagd_server.domain.guard.version_verdict import Verdict
from flagd_server.domain.guard.versions import WINDOWS_KEPT
from flagd_server.services.guarding import Guarding
from flagd_server.services.release_counts import ReleaseCounts
from flagd_server.stats.two_sample import Window, compare
from flagd_server.storage.base import Reader
from flagd_server.storage.records import ConfigurationVersion
from flagd_server.storage.release_records import Deployment


@dataclass(frozen=True, slots=True)
class Look:
    """What a flag's guard holds of the service now.

    Attributes:
        others: version → what it did beside the deployment's, which is the treatment.
        decided, held: why it decided against the flag, or holds it, where it does.
    """

    verdicts: Sequence[Verdict]
    others: Mapping[str, list[Window]]
    decided: str | None
    held: str | None
    blind: tuple[Blind, ...]


@dataclass(frozen=True, slots=True)
class Blame:
    """Attributes:
    service: the version compared with another; None where none ran beside it.
    findings: what each flag's own comparison says.
    looks: by flag, of those under guard.
    """

    verdict: DeploymentVerdict
    service: ServiceFinding | None
    findings: tuple[FlagFinding, ...]
    looks: Mapping[str, Look]


class Blaming:
    def __init__(self, guarding: Guarding) -> None:
        self._guarding = guarding

    def find(
        self,
        reader: Reader,
        deployment: Deployment,
        present: Mapping[str, ConfigurationVersion],
        brought: frozenset[str],
        recent: ReleaseCounts,
        now: datetime,
    ) -> Blame:
        """Return the verdict with all it is made of.

        Args:
            present: the newest configuration of each flag that the service has served.
            brought: those of them that the deployment brought.
            recent: the service's last minutes, of all its flags.
        """
        looks = {
            flag: look
            for flag in present
            if (look := self._look(deployment, flag, now)) is not None
        }
        findings = _findings(reader, deployment, present, brought, looks)
        last_kill = _last_kill(findings, deployment.version, present)
        compared = _compared(reader, deployment, recent, looks, last_kill, now)
        verdict = judge_deployment(deployment.version, findings, compared)
        return Blame(verdict, compared, tuple(findings), looks)

    def _look(self, deployment: Deployment, flag: str, now: datetime) -> Look | None:
        service, version = deployment.service, deployment.version

        def look(guard: FlagGuard) -> Look:
            t = max(guard.last_t or guard.started_at, now.timestamp())
            book = guard.book.services.get(service)
            others = [] if book is None or version not in book.versions else list(book.versions)
            decision = guard.standing_decision
            return Look(
                version_verdicts(guard, service),
                {
                    other: windows
                    for other in others
                    if book is not None
                    and other != version
                    and (windows := book.compared(version, other))
                },
                decision.reason if decision is not None and decision.kill else None,
                decision.reason if decision is not None and not decision.kill else None,
                tuple(guard.blindness(t)),
            )

        return self._guarding.examine(deployment.environment, flag, look)


def _findings(
    reader: Reader,
    deployment: Deployment,
    present: Mapping[str, ConfigurationVersion],
    brought: frozenset[str],
    looks: Mapping[str, Look],
) -> list[FlagFinding]:
    """Return what each flag's own comparison says, or the report by which it was killed."""
    found = []
    for flag, newest in present.items():
        finding = None
        kill = newest.configuration.kill
        if kill is not None and kill.source is KillSource.GUARD and kill.evidence is not None:
            evidence = reader.evidence(kill.evidence)
            if evidence is not None:
                finding = killed_finding(
                    flag,
                    deployment.version,
                    deployment.service,
                    json.loads(evidence.document),
                    was_brought=flag in brought,
                )
        elif flag in looks:
            finding = finding_of(
                flag, deployment.version, looks[flag].verdicts, was_brought=flag in brought
            )
        if finding is not None:
            found.append(finding)
    return found


def _last_kill(
    findings: Sequence[FlagFinding], version: str, present: Mapping[str, ConfigurationVersion]
) -> datetime | None:
    """Return when the last of the flags at fault went off; None where not all of them are off."""
    hurting = [each for each in findings if each.hurts(version)]
    kills = [present[each.flag].configuration.kill for each in hurting]
    times = [kill.at for kill in kills if kill is not None]
    return max(times) if times and len(times) == len(hurting) else None


def _compared(
    reader: Reader,
    deployment: Deployment,
    recent: ReleaseCounts,
    looks: Mapping[str, Look],
    last_kill: datetime | None,
    now: datetime,
) -> ServiceFinding | None:
    """Compare the version with the one that shared most requests with it.

    Args:
        last_kill: when the last flag at fault went off; only what came after counts then.
    """
    since = 0.0 if last_kill is None else last_kill.timestamp()
    found = [
        ServiceFinding(other, flag, CountedBy.UNITS, last_kill is not None, compare(later))
        for flag, look in looks.items()
        for other, windows in look.others.items()
        if (later := [window for window in windows if window.t >= since])
    ]
    if not found:
        found = _by_requests(reader, deployment, recent, last_kill, now)
    return max(
        found,
        key=lambda each: min(
            each.comparison.treatment_exposures, each.comparison.control_exposures
        ),
        default=None,
    )


def _by_requests(
    reader: Reader,
    deployment: Deployment,
    recent: ReleaseCounts,
    last_kill: datetime | None,
    now: datetime,
) -> list[ServiceFinding]:
    """Compare by what was counted, where no guard runs that knows the units."""
    minute = int(now.timestamp()) // 60
    first = minute - WINDOWS_KEPT
    if last_kill is not None:
        # The minute of the kill saw the flag on.
        first = max(first, int(last_kill.timestamp()) // 60 + 1)
    found = []
    for other, flag in recent.beside(deployment.version).items():
        counts = ReleaseCounts(reader, deployment.environment, deployment.service, [flag], first)
        comparison = compare(counts.windows(flag, deployment.version, other, minute))
        if comparison.treatment_exposures:
            found.append(
                ServiceFinding(other, flag, CountedBy.REQUESTS, last_kill is not None, comparison)
            )
    return found

"""How a deployment does: its figures, what is to blame in it, and whether it may go on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from flagd_server.clock import Clock
from flagd_server.domain.deployment_health import FlagState, SloState, health_of, slo_state
from flagd_server.domain.guard.blindness import NO_CONTROL
from flagd_server.domain.guard.lifecycle import has_two_arms
from flagd_server.domain.health import Health, Reason
from flagd_server.domain.times import format_time
from flagd_server.services.deployment_blame import Blame, Blaming, Look
from flagd_server.services.deployments import brought_by, require_deployment
from flagd_server.services.guarding import Guarding
from flagd_server.services.lookups import require_environment
from flagd_server.services.receipts import Receipts
from flagd_server.services.release_counts import ReleaseCounts, Traffic
from flagd_server.storage.base import Reader, Storage
from flagd_server.storage.records import ConfigurationVersion, Evidence
from flagd_server.storage.release_records import Deployment

TRAFFIC_S = 600
SLO_S = 3_600


@dataclass(frozen=True, slots=True)
class Share:
    """So many of the service's are this version's."""

    own: int
    of_service: int

    @property
    def share(self) -> float | None:
        return self.own / self.of_service if self.of_service else None


@dataclass(frozen=True, slots=True)
class BroughtFlag:
    """A flag that the deployment brought; `decisions` of its guard since it was there."""

    configuration: ConfigurationVersion
    state: FlagState
    is_guarded: bool
    decisions: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """Attributes:
    processes: that are there now.
    requests: of the last `TRAFFIC_S` seconds, as `traffic`.
    slo: of the last `SLO_S` seconds; None where the service has no objective.
    """

    deployment: Deployment
    processes: Share
    requests: Share
    traffic: Traffic
    slo: SloState | None
    flags: tuple[BroughtFlag, ...]
    blame: Blame
    health: Health
    checks: tuple[Reason, ...]


class DeploymentStates:
    """Reads only; any thread may."""

    def __init__(
        self, storage: Storage, guarding: Guarding, receipts: Receipts, clock: Clock
    ) -> None:
        self._storage = storage
        self._blaming = Blaming(guarding)
        self._receipts = receipts
        self._clock = clock

    def get(self, deployment_id: str) -> DeploymentState:
        """Return how a deployment does, or raise NotFoundError."""
        with self._storage.read() as reader:
            return self._state(reader, require_deployment(reader, deployment_id))

    def deployment_health(
        self, environment: str, service: str, version: str
    ) -> tuple[Health, Sequence[Reason]]:
        """Return whether it may go on, and why. A version that nobody knows is inconclusive.

        Raises:
            NotFoundError: there is no such environment.
        """
        with self._storage.read() as reader:
            deployment = reader.deployment_of(environment, service, version)
            if deployment is None:
                require_environment(reader, environment)
                detail = (
                    f"nothing was heard of version {version!r} of {service!r} in {environment!r}:"
                    " register it, and let its SDKs report under that name"
                )
                unknown = Reason("deployment", Health.INCONCLUSIVE, detail)
                return Health.INCONCLUSIVE, (unknown,)
            state = self._state(reader, deployment)
        return state.health, state.checks

    def _state(self, reader: Reader, deployment: Deployment) -> DeploymentState:
        environment, service, version = (
            deployment.environment,
            deployment.service,
            deployment.version,
        )
        now = self._clock.now()
        minute = int(now.timestamp()) // 60
        served = reader.first_served(environment)
        flags = sorted({row.flag for row in served if row.service == service})
        brought = frozenset(brought_by(served, deployment))
        recent = ReleaseCounts(reader, environment, service, flags, minute - TRAFFIC_S // 60 + 1)
        by_version = recent.traffic()
        traffic = by_version.get(version, Traffic())
        slo = self._slo(reader, deployment, traffic.flag, minute)
        delivered = {flag.key for flag in reader.flags(archived=False)}.intersection(flags)
        present = {
            row.flag: row for row in reader.configurations(environment) if row.flag in delivered
        }
        blame = self._blaming.find(reader, deployment, present, brought, recent, now)
        own_flags = tuple(
            _brought_flag(reader, deployment, present[flag], blame.looks.get(flag))
            for flag in sorted(brought & present.keys())
        )
        health, checks = health_of(
            traffic.exposures, TRAFFIC_S, slo, blame.verdict, [each.state for each in own_flags]
        )
        return DeploymentState(
            deployment=deployment,
            processes=self._processes(reader, deployment),
            requests=Share(traffic.exposures, sum(each.exposures for each in by_version.values())),
            traffic=traffic,
            slo=slo,
            flags=own_flags,
            blame=blame,
            health=health,
            checks=tuple(checks),
        )

    def _processes(self, reader: Reader, deployment: Deployment) -> Share:
        known = self._receipts.known(deployment.environment)
        there = [
            each.service_version
            for each in reader.instances(deployment.environment)
            if each.service == deployment.service and each.instance in known
        ]
        return Share(there.count(deployment.version), len(there))

    def _slo(
        self, reader: Reader, deployment: Deployment, flag: str | None, minute: int
    ) -> SloState | None:
        slo = reader.slo(deployment.environment, deployment.service)
        if slo is None:
            return None
        counts = ReleaseCounts(
            reader,
            deployment.environment,
            deployment.service,
            [] if flag is None else [flag],
            minute - SLO_S // 60 + 1,
        )
        windows = [] if flag is None else counts.minutes(flag, deployment.version)
        return slo_state(slo.availability, windows)


def _brought_flag(
    reader: Reader,
    deployment: Deployment,
    newest: ConfigurationVersion,
    look: Look | None,
) -> BroughtFlag:
    kill = newest.configuration.kill
    off = None
    if kill is not None:
        off = f"killed by {kill.by} at {format_time(kill.at)}: {kill.reason}"
    since = deployment.first_seen_at or newest.at
    state = FlagState(newest.flag, off, None, None, ())
    if look is not None and kill is None:
        # Where there is nothing to compare, that is no blindness: the objective is what counts.
        is_split = has_two_arms(newest.configuration)
        blind = [b.detail for b in look.blind if is_split or b.reason != NO_CONTROL]
        state = replace(state, decided=look.decided, held=look.held, blind=tuple(blind))
    return BroughtFlag(
        newest,
        state,
        look is not None,
        tuple(
            each
            for each in reader.list_evidence(deployment.environment, newest.flag)
            if each.at >= since - timedelta(seconds=1)
        ),
    )

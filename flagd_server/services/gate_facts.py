"""Gathers what a gate's judge is told: from storage, guards and answers that are there already."""

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from cachetools import TTLCache

from flagd_server.clock import Clock
from flagd_server.domain.answers import Question
from flagd_server.domain.gate_verdicts import (
    Exposures,
    Facts,
    FlagGuard,
)
from flagd_server.domain.gates import (
    Deployment,
    GuardCheck,
    MinExposures,
)
from flagd_server.domain.health import Health, Reason
from flagd_server.services.asking import Answering
from flagd_server.services.guarding import WatchState
from flagd_server.services.slo_states import SloStates
from flagd_server.storage.base import Reader
from flagd_server.storage.records import ConfigurationVersion, Slo
from flagd_server.storage.release_records import Gate

# A process that serves a flag reports at least every ten seconds.
_SERVED_WITHIN_MIN = 10
_DEPLOYMENTS_REMEMBERED = 256
_BLAMED_AGAIN_S = 10.0


class DeploymentHealth(Protocol):
    """What is found of a deployment; see `DeploymentStates`."""

    def deployment_health(
        self, environment: str, service: str, version: str
    ) -> tuple[Health, Sequence[Reason]]: ...


class GuardStates(Protocol):
    """How the guard stands to its flags; see `Guarding`."""

    def states(self, at: float) -> list[WatchState]: ...


class GateFacts:
    """Reads and remembers nothing, and asks nobody but by `Answering`, which never blocks."""

    def __init__(
        self,
        answering: Answering,
        slo_states: SloStates,
        guards: GuardStates,
        deployments: DeploymentHealth,
        clock: Clock,
    ) -> None:
        self._answering = answering
        self._slo_states = slo_states
        self._guards = guards
        self._deployments = deployments
        self._clock = clock
        # What is to blame takes a read of ten minutes' counts, and changes no faster than that.
        self._blamed: TTLCache[tuple[str, Deployment], tuple[str, ...]] = TTLCache(
            _DEPLOYMENTS_REMEMBERED, _BLAMED_AGAIN_S
        )
        self._lock = threading.Lock()  # guards _blamed, and is held over nothing that waits

    def gather(self, reader: Reader, gate: Gate) -> Facts:
        definition, environment = gate.definition, gate.environment
        slo = self._slo_of(reader, gate)
        guards, served = self._guards_of(reader, environment, definition.guard)
        return Facts(
            now=self._clock.now(),
            answers={
                check: self._answering.ask(question)
                for check, question in definition.questions().items()
            },
            slo=None if slo is None else self._slo_states.of(reader, slo),
            guards=guards,
            served=served,
            against=self._against(environment, definition.guard) if guards is not None else (),
            exposures=_exposures(reader, environment, definition.min_exposures),
            approval=gate.approval,
        )

    def questions(self, reader: Reader, gate: Gate) -> list[Question]:
        """Return all that has to be asked of others for the gate."""
        slo = self._slo_of(reader, gate)
        asked = list(gate.definition.questions().values())
        return asked if slo is None else asked + self._slo_states.questions_of(slo)

    def _slo_of(self, reader: Reader, gate: Gate) -> Slo | None:
        check = gate.definition.slo
        return None if check is None else reader.slo(gate.environment, check.service)

    def _guards_of(
        self, reader: Reader, environment: str, check: GuardCheck | None
    ) -> tuple[tuple[FlagGuard, ...] | None, int]:
        """Return how the guards of the check stand, and how many flags its deployment serves."""
        if check is None:
            return None, 0
        states = {
            state.flag: state
            for state in self._guards.states(self._clock.now().timestamp())
            if state.environment == environment
        }
        if check.deployment is None:
            newest = (_delivered(reader, environment, flag) for flag in check.flags)
            return tuple(_stands(row, states.get(row.flag)) for row in newest if row), 0
        served = self._served(reader, environment, check.deployment, self._clock.now())
        if not served:
            return None, 0
        guards = []
        for flag in sorted(served):
            row = _delivered(reader, environment, flag)
            if row is None:
                continue
            stands = _stands(row, states.get(flag))
            kill = stands.kill
            # A kill of before this version is not its doing.
            if kill is not None and flag not in self._served(
                reader, environment, check.deployment, kill.at
            ):
                continue
            if kill is not None or stands.is_watched:
                guards.append(stands)
        return tuple(guards), len(served)

    def _against(self, environment: str, check: GuardCheck | None) -> tuple[str, ...]:
        """Return what speaks against the check's deployment, beside its flags' own guards."""
        if check is None or check.deployment is None:
            return ()
        key = (environment, check.deployment)
        with self._lock:
            found = self._blamed.get(key)
        if found is None:
            _, checks = self._deployments.deployment_health(
                environment, check.deployment.service, check.deployment.version
            )
            found = tuple(
                each.detail
                for each in checks
                if each.word is Health.UNHEALTHY and not each.check.startswith("flag ")
            )
            with self._lock:
                self._blamed[key] = found
        return found

    def _served(
        self, reader: Reader, environment: str, deployment: Deployment, at: datetime
    ) -> set[str]:
        """Return the flags that the deployment served just before a time."""
        minute = int(at.timestamp() // 60)
        return reader.flags_served(
            environment,
            deployment.service,
            deployment.version,
            minute - _SERVED_WITHIN_MIN,
            minute,
        )


def _delivered(reader: Reader, environment: str, key: str) -> ConfigurationVersion | None:
    flag = reader.flag(key)
    return None if flag is None or flag.archived else reader.configuration(environment, key)


def _stands(newest: ConfigurationVersion, state: WatchState | None) -> FlagGuard:
    kill = newest.configuration.kill
    if state is None:
        return FlagGuard(newest.flag, is_watched=False, kill=kill)
    blind = tuple(dict.fromkeys(blind.detail for blind in state.blind))
    return FlagGuard(newest.flag, True, state.is_held, blind, kill)


def _exposures(reader: Reader, environment: str, check: MinExposures | None) -> Exposures | None:
    newest = None if check is None else _delivered(reader, environment, check.flag)
    if newest is None:
        return None
    since = int(newest.at.timestamp() // 60)
    count = reader.exposures_since(environment, newest.flag, newest.version, since)
    return Exposures(count, newest.version)

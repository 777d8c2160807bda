"""What the views work with: the services that `flagd_server.app` put together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Semaphore
from typing import cast

from flask import current_app

from flagd_server.api.limits import RateLimits
from flagd_server.api.metrics import Metrics
from flagd_server.build import Build
from flagd_server.clock import Clock
from flagd_server.hub.base import Hub
from flagd_server.services.alarms import Alarms
from flagd_server.services.asking import Asking
from flagd_server.services.audit import Audit
from flagd_server.services.brakes import Brakes
from flagd_server.services.called_kills import CalledKills
from flagd_server.services.configurations import Configurations
from flagd_server.services.deployment_states import DeploymentStates
from flagd_server.services.deployments import Deployments
from flagd_server.services.environments import Environments
from flagd_server.services.evaluation import Evaluation
from flagd_server.services.evidence import EvidenceReports
from flagd_server.services.flags import Flags
from flagd_server.services.gate_answers import GateAnswers
from flagd_server.services.gate_verdicts import GateVerdicts
from flagd_server.services.gates import Gates
from flagd_server.services.guarding import Guarding
from flagd_server.services.hook_secrets import HookSecrets
from flagd_server.services.ingestion import Ingestion
from flagd_server.services.kills import Kills
from flagd_server.services.local_kills import LocalKills
from flagd_server.services.people import People
from flagd_server.services.receipts import Receipts
from flagd_server.services.rollouts import Rollouts
from flagd_server.services.segments import Segments
from flagd_server.services.sessions import Sessions
from flagd_server.services.slo_states import SloStates
from flagd_server.services.slos import Slos
from flagd_server.services.snapshots import Snapshots
from flagd_server.services.standing_kills import StandingKills
from flagd_server.services.tickets import Tickets
from flagd_server.services.tokens import Tokens
from flagd_server.services.webhooks import Webhooks
from flagd_server.tracing import Tracing

EXTENSION = "flagd_server"
"""Where Flask keeps the services of an application."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """What `/readyz` looks at.

    Attributes:
        parts: name → whether it is alive; without one of them the server can't serve.
        check_database: raises ServerError where nothing can be written now.
        is_leading: whether this is the server that counts, judges and rolls out.
    """

    parts: Mapping[str, Callable[[], bool]]
    check_database: Callable[[], None]
    is_leading: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a view may call.

    Attributes:
        is_plain_http: whether browsers reach this server without TLS, which only loopback may.
        receipt_turns: how many requests may wait for a receipt at once.
        stopping: releases whoever waits, so that open requests end soon. Never blocks.
        close: ends threads and connections, after the last request.
    """

    build: Build
    tracing: Tracing
    limits: RateLimits
    clock: Clock
    is_plain_http: bool
    environments: Environments
    flags: Flags
    configurations: Configurations
    kills: Kills
    local_kills: LocalKills
    rollouts: Rollouts
    standing_kills: StandingKills
    deployments: Deployments
    deployment_states: DeploymentStates
    segments: Segments
    slos: Slos
    slo_states: SloStates
    asking: Asking
    gates: Gates
    gate_verdicts: GateVerdicts
    gate_answers: GateAnswers
    called_kills: CalledKills
    hook_secrets: HookSecrets
    tokens: Tokens
    people: People
    sessions: Sessions
    webhooks: Webhooks
    audit: Audit
    alarms: Alarms
    evidence: EvidenceReports
    snapshots: Snapshots
    evaluation: Evaluation
    tickets: Tickets
    hub: Hub
    receipts: Receipts
    receipt_turns: Semaphore
    ingestion: Ingestion
    guarding: Guarding
    brakes: Brakes
    metrics: Metrics
    readiness: Readiness
    stopping: Callable[[], None]
    close: Callable[[], None]


def services() -> Services:
    """Return the services of the application that answers the current request."""
    return cast(Services, current_app.extensions[EXTENSION])

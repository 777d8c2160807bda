"""What the views work with: the services that `flagd_server.app` put together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Semaphore
from typing import cast

from flask import current_app

from flagd_server.api.metrics import Metrics
from flagd_server.hub.base import Hub
from flagd_server.services.alarms import Alarms
from flagd_server.services.audit import Audit
from flagd_server.services.brakes import Brakes
from flagd_server.services.configurations import Configurations
from flagd_server.services.environments import Environments
from flagd_server.services.evidence import EvidenceReports
from flagd_server.services.flags import Flags
from flagd_server.services.guarding import Guarding
from flagd_server.services.ingestion import Ingestion
from flagd_server.services.kills import Kills
from flagd_server.services.receipts import Receipts
from flagd_server.services.segments import Segments
from flagd_server.services.slos import Slos
from flagd_server.services.snapshots import Snapshots
from flagd_server.services.tokens import Tokens

EXTENSION = "flagd_server"
"""Where Flask keeps the services of an application."""


@dataclass(frozen=True, slots=True)
class Build:
    """Which code is running; `git_sha` is empty where nobody said."""

    version: str
    git_sha: str


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a view may call.

    Attributes:
        receipt_turns: how many requests may wait for a receipt at once.
        checks: name → check of readiness, which raises where something is not ready.
        stopping: releases whoever waits, so that open requests end soon. Never blocks.
        close: ends threads and connections, after the last request.
    """

    build: Build
    environments: Environments
    flags: Flags
    configurations: Configurations
    kills: Kills
    segments: Segments
    slos: Slos
    tokens: Tokens
    audit: Audit
    alarms: Alarms
    evidence: EvidenceReports
    snapshots: Snapshots
    hub: Hub
    receipts: Receipts
    receipt_turns: Semaphore
    ingestion: Ingestion
    guarding: Guarding
    brakes: Brakes
    metrics: Metrics
    checks: Mapping[str, Callable[[], None]]
    stopping: Callable[[], None]
    close: Callable[[], None]


def services() -> Services:
    """Return the services of the application that answers the current request."""
    return cast(Services, current_app.extensions[EXTENSION])

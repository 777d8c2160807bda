"""A server's services on a real SQLite file, without HTTP: enough to report to and be judged by."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flagd_server.domain.telemetry import Cell, ErrorKind, Summary
from flagd_server.services.alarms import Alarms
from flagd_server.services.brakes import RELEASE, Brakes
from flagd_server.services.claims import Claims
from flagd_server.services.configurations import Configurations
from flagd_server.services.counting import Counting
from flagd_server.services.environments import Environments
from flagd_server.services.flags import Flags, NewFlag
from flagd_server.services.guarding import Guarding
from flagd_server.services.happenings import Happening
from flagd_server.services.hints import Hints
from flagd_server.services.inbox import Inbox
from flagd_server.services.ingestion import Ingestion
from flagd_server.services.kills import Kills
from flagd_server.services.leader_requests import LeaderRequests
from flagd_server.services.local_kills import LocalKills
from flagd_server.services.notices import Topic
from flagd_server.services.own_changes import OwnChanges
from flagd_server.services.publishing import Publisher
from flagd_server.services.receipts import Receipts
from flagd_server.services.reports import Accepted
from flagd_server.services.rollbacks import Rollbacks
from flagd_server.services.slos import Slos
from flagd_server.services.snapshots import Snapshots
from flagd_server.services.turns import Turns
from flagd_server.storage import open_storage
from flagd_server.storage.base import Transaction
from flagd_server.storage.records import Token
from tests.server.services.hearing import listen

ENVIRONMENT = "production"
FLAG = "new-checkout"
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class FakeClock:
    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def now_ms(self) -> int:
        return int(self.at.timestamp() * 1000)

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class RecordingHub:
    def __init__(self) -> None:
        self.events: list[tuple[str, int, bytes]] = []

    def publish(self, environment: str, sequence: int, event: bytes) -> None:
        self.events.append((environment, sequence, event))


def sdk_token(kind: str = "server", token_id: str = "tok-1") -> Token:
    return Token(
        id=token_id,
        name="shop",
        scope="sdk",
        environment=ENVIRONMENT,
        kind=kind,
        prefix="fr_sdk_production",
        digest=b"\0" * 32,
        created_at=START,
        created_by="test",
    )


class World:
    """Opened on a path, so that a second one can be opened on what the first has left."""

    def __init__(self, path: Path, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.hub = RecordingHub()
        self.storage = open_storage(str(path))
        self.snapshots = Snapshots(self.storage)
        own = OwnChanges()
        self.notices = listen(self.storage, self.snapshots, self.hub, own)
        publisher = Publisher(self.clock, own)
        self.environments = Environments(self.storage, publisher)
        self.flags = Flags(self.storage, publisher)
        self.configurations = Configurations(self.storage, publisher)
        self.told: list[Happening] = []
        self.kills = Kills(self.storage, publisher, self)
        self.slos = Slos(self.storage, publisher)
        self.decisions: list[tuple[str, str, str]] = []
        self.raised: list[tuple[str, str]] = []
        self.capped: list[tuple[str, str]] = []
        self.alarms = Alarms(self.storage, self.clock, lambda *raised: self.raised.append(raised))
        self.guarding = Guarding(
            self.storage,
            self.kills,
            Rollbacks(publisher, self),
            lambda *decision: self.decisions.append(decision),
            self.alarms.raise_by_name,
        )
        self.notices.on(Topic.OBJECTIVES, self.guarding.note_objectives)
        requests = LeaderRequests(self.storage, self.clock)
        self.notices.on(Topic.DONE, requests.hear_done)
        self.brakes = Brakes(self.storage, self.guarding, publisher, requests)
        requests.on(RELEASE, self.brakes.do_release)

        def count_capped(environment: str, limit: str) -> None:
            self.capped.append((environment, limit))

        turns = Turns(
            self.alarms, count_capped, lambda: self.clock.at.timestamp(), random=lambda: 0.5
        )
        claims = Claims(self.alarms, count_capped)
        self.receipts = Receipts(lambda environment: frozenset())
        self.local_kills = LocalKills(self.storage, publisher, self.alarms, self.receipts.known)
        self.ingestion = Ingestion(
            self.storage,
            Counting(self.guarding, self.receipts, claims, self.local_kills),
            Inbox(self.storage, self.receipts, Hints(), self.clock),
            requests,
            self.receipts,
            turns,
            self.clock,
        )
        self.notices.on(Topic.INBOX, self.ingestion.look)
        self.ingestion.start()

    def tell(self, tx: Transaction, happening: Happening) -> None:
        tx.after_commit(lambda: self.told.append(happening))

    def close(self) -> None:
        self.ingestion.close()
        self.storage.close()

    def release(
        self, share: int = 25_000, flag: str = FLAG, salt: str | None = None, **changes: Any
    ) -> int:
        """Create environment and flag where they are missing, split them; return the version."""
        if ENVIRONMENT not in {row.key for row in self.environments.list()}:
            self.environments.create(ENVIRONMENT, "Production", actor="test")
        if flag not in {row.key for row in self.flags.list()}:
            self.flags.create(
                NewFlag(key=flag, type="boolean", variants={"on": True, "off": False}),
                actor="test",
            )
        weights = {"on": share, "off": 100_000 - share}
        split = {"weights": weights} | ({} if salt is None else {"salt": salt})
        return self.patch(flag, enabled=True, default_serve={"split": split}, **changes)

    def patch(self, flag: str = FLAG, **changes: Any) -> int:
        version = self.configurations.get(ENVIRONMENT, flag).version
        changed = self.configurations.patch(
            ENVIRONMENT, flag, changes, expected_version=version, actor="test"
        )
        return changed.version

    def version(self, flag: str = FLAG) -> int:
        return self.configurations.get(ENVIRONMENT, flag).version

    def evidence(self, flag: str = FLAG) -> list[dict[str, Any]]:
        """Return the reports on a flag's decisions, newest first."""
        with self.storage.read() as reader:
            rows = reader.list_evidence(ENVIRONMENT, flag)
        return [json.loads(row.document) for row in rows]

    def is_killed(self, flag: str = FLAG) -> bool:
        return self.configurations.get(ENVIRONMENT, flag).configuration.kill is not None

    def report(
        self,
        sequence: int,
        cells: list[Cell],
        *,
        instance: str = "i-1",
        service_version: str = "v1",
        service: str = "shop",
        kind: str = "server",
        token: str = "tok-1",
        error_kinds: tuple[ErrorKind, ...] = (),
        said_at: datetime | None = None,
        after_s: float = 1,
    ) -> Accepted:
        """Send a summary `after_s` from now; its process's clock says `said_at`."""
        self.clock.forward(after_s)
        summary = Summary(
            instance=instance,
            sequence=sequence,
            service=service,
            service_version=service_version,
            applied_sequence=0,
            started_at=said_at or self.clock.at,
            ended_at=said_at or self.clock.at,
            cells=tuple(cells),
            unscoped={},
            error_kinds=error_kinds,
            dropped={},
        )
        return self.ingestion.submit(ENVIRONMENT, sdk_token(kind, token), summary)


def cell(
    variant: str,
    version: int,
    *,
    exposures: int = 10,
    failing: Mapping[str, list[int]] | None = None,
    flag: str = FLAG,
    split: str | None = "default",
    latency: Mapping[int, int] | None = None,
) -> Cell:
    """A cell in which the numbered units failed once each, by kind."""
    units = {kind: tuple(f"{n:016x}" for n in ns) for kind, ns in (failing or {}).items()}
    return Cell(
        flag=flag,
        split=split,
        variant=variant,
        config_version=version,
        exposures=exposures,
        errors=sum(len(ns) for ns in units.values()),
        latency=latency or {},
        units=units,
    )

"""The services that change things, on a real SQLite file, with three environments and no flag."""

import json
from pathlib import Path
from typing import Any

from flagd_sdk.core.sse import Decoder
from flagd_server.services.audit import Audit
from flagd_server.services.configurations import Configurations
from flagd_server.services.environments import Environments
from flagd_server.services.first_start import InitialTokens, first_start
from flagd_server.services.flags import Flags, NewFlag
from flagd_server.services.happenings import Happening
from flagd_server.services.kills import Kills
from flagd_server.services.own_changes import OwnChanges
from flagd_server.services.publishing import Publisher
from flagd_server.services.segments import Segments
from flagd_server.services.slos import Slos
from flagd_server.services.snapshots import Snapshots
from flagd_server.services.tokens import Tokens
from flagd_server.storage import open_storage
from flagd_server.storage.base import Transaction
from flagd_server.storage.records import ConfigurationVersion
from tests.server.services.guarded_world import FakeClock, RecordingHub
from tests.server.services.hearing import listen

PRODUCTION = "production"
FLAG = "checkout"
BOOLEAN = {"on": True, "off": False}
IN_NL = {"attribute": "country", "op": "in", "values": ["NL"]}


def rule(condition: dict[str, Any], rule_id: str = "r", variant: str = "on") -> dict[str, Any]:
    return {"id": rule_id, "condition": condition, "serve": {"variant": variant}}


class AdminWorld:
    def __init__(self, path: Path, admin_token: str | None = None) -> None:
        self.clock = FakeClock()
        self.hub = RecordingHub()
        self.revoked: list[str] = []
        self.storage = open_storage(str(path))
        self.snapshots = Snapshots(self.storage)
        own = OwnChanges()
        self.notices = listen(self.storage, self.snapshots, self.hub, own)
        self.publisher = Publisher(self.clock, own)
        self.told: list[Happening] = []
        self.environments = Environments(self.storage, self.publisher)
        self.flags = Flags(self.storage, self.publisher)
        self.configurations = Configurations(self.storage, self.publisher)
        self.kills = Kills(self.storage, self.publisher, self)
        self.segments = Segments(self.storage, self.publisher)
        self.slos = Slos(self.storage, self.publisher)
        self.tokens = Tokens(self.storage, self.clock, self.revoked.append)
        self.audit = Audit(self.storage)
        self.initial = self.start(admin_token)
        self.hub.events.clear()

    def tell(self, tx: Transaction, happening: Happening) -> None:
        tx.after_commit(lambda: self.told.append(happening))

    def start(self, admin_token: str | None = None) -> InitialTokens | None:
        return first_start(
            self.storage, self.environments, self.tokens, lambda tokens: None, admin_token
        )

    def create(self, key: str = FLAG, **more: Any) -> None:
        new = {"type": "boolean", "variants": BOOLEAN} | more
        self.flags.create(NewFlag(key=key, **new), actor="ann")

    def patch(
        self, flag: str = FLAG, environment: str = PRODUCTION, **changes: Any
    ) -> ConfigurationVersion:
        """Change the configuration as someone does who has just read it."""
        return self.configurations.patch(
            environment,
            flag,
            changes,
            expected_version=self.configurations.get(environment, flag).version,
            actor="ann",
            comment="because",
        )

    def require(self, flag: str, prerequisite: str, environment: str = PRODUCTION) -> None:
        condition = {"flag": prerequisite, "variants": ["on"]}
        self.patch(flag, environment, rules=[rule(condition)])

    def flag_set(self, environment: str = PRODUCTION) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.snapshots.current(environment).body)
        return document

    def events(self, environment: str = PRODUCTION) -> list[tuple[str, dict[str, Any]]]:
        """Return (name, data) of what was announced since this was last asked, and forget it."""
        mine = [event for event in self.hub.events if event[0] == environment]
        self.hub.events[:] = [event for event in self.hub.events if event[0] != environment]
        found = []
        for _, sequence, frame in mine:
            (event,) = Decoder(max_event_bytes=1 << 20).feed(frame)
            data = json.loads(event.data)
            assert event.id == str(sequence) == str(data["sequence"])
            found.append((event.event, data))
        return found

    def state(self) -> dict[str, Any]:
        """Return all that a refused change must leave as it was."""
        with self.storage.read() as reader:
            environments = reader.environments()
            return {
                "environments": environments,
                "flags": reader.flags(),
                "configurations": [reader.configurations(e.key) for e in environments],
                "segments": [reader.segments(e.key) for e in environments],
                "slos": [reader.slos(e.key) for e in environments],
                "tokens": reader.tokens(),
                "audit": reader.audit(1_000),
                "events": list(self.hub.events),
                "sets": [self.snapshots.current(e.key) for e in environments],
            }

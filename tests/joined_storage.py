"""Several servers on one SQLite file, joined as a database for several servers joins them.

Notices come by a thread of each server, some time after the commit, and may be missed; at most one
server leads, whichever the test elects; the database may be away for one of them.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flagd_server.domain.configuration import JsonObject
from flagd_server.errors import NotLeadingError, StorageUnavailableError
from flagd_server.storage.base import OnNotice, PoolUse, Reader, Transaction
from flagd_server.storage.sqlite import SqliteStorage

logger = logging.getLogger(__name__)

# A second in production, for which a machine may stand still.
_HEARD_WITHIN_S = 30.0


class Joined:
    """What the servers on one file share."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.turn = threading.Lock()
        self.servers: list[JoinedStorage] = []
        self.leader: JoinedStorage | None = None
        self.term = 0

    def open(self) -> "JoinedStorage":
        """Open the storage of one more server; the first one that stands leads."""
        server = JoinedStorage(self, str(self._path))
        self.servers.append(server)
        return server

    def elect(self, server: "JoinedStorage | None") -> None:
        """Have this one lead from now on; the one before hears of it first."""
        with self.turn:
            before, self.leader = self.leader, server
            self.term += 1
        for changed, leads in ((before, False), (server, True)):
            if changed is not None:
                changed.on_change(leads)

    def publish(self, topic: str, document: JsonObject) -> None:
        for server in self.servers:
            server.arrive(topic, document)


class JoinedStorage:
    """The storage of one of them. See `Storage` for the contract."""

    def __init__(self, joined: Joined, path: str) -> None:
        self._joined = joined
        self._inner = SqliteStorage(path)
        self._inner.listen(joined.publish, lambda: None)
        self._arrived: queue.Queue[tuple[str, JsonObject] | None] = queue.Queue()
        self._delivered = threading.Condition()
        self._pending = 0
        self._on_notice: OnNotice = lambda topic, document: None
        self._on_gap: Callable[[], None] = lambda: None
        self.on_change: Callable[[bool], None] = lambda leads: None
        self.is_away = False
        self.is_deaf = False
        self._thread: threading.Thread | None = None

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self._require_database()
        with self._joined.turn, self._inner.transaction() as tx:
            tx.require_lead = self._require_lead  # type: ignore[method-assign]
            yield tx
        if self._thread not in (None, threading.current_thread()):
            with self._delivered:
                self._delivered.wait_for(lambda: self._pending == 0, _HEARD_WITHIN_S)

    @contextmanager
    def read(self) -> Iterator[Reader]:
        self._require_database()
        with self._inner.read() as reader:
            yield reader

    def listen(self, on_notice: OnNotice, on_gap: Callable[[], None]) -> None:
        self._on_notice, self._on_gap = on_notice, on_gap
        self._thread = threading.Thread(target=self._hear, daemon=True)
        self._thread.start()

    def lead(self, on_change: Callable[[bool], None]) -> None:
        self.on_change = on_change
        if self._joined.leader is None:
            self._joined.elect(self)

    @property
    def is_leading(self) -> bool:
        return self.term is not None

    @property
    def term(self) -> int | None:
        return self._joined.term if self._joined.leader is self else None

    def token_generation(self) -> int:
        self._require_database()
        return self._inner.token_generation()

    def pools(self) -> Mapping[str, PoolUse]:
        return {}

    def check_writable(self, timeout_s: float) -> None:
        self._require_database()
        self._inner.check_writable(timeout_s)

    def close(self) -> None:
        if self._joined.leader is self:
            self._joined.leader = None
        self._joined.servers.remove(self)
        self._arrived.put(None)
        if self._thread is not None:
            self._thread.join(5.0)
        self._inner.close()

    def arrive(self, topic: str, document: JsonObject) -> None:
        if not (self.is_deaf or self.is_away):
            with self._delivered:
                self._pending += 1
            self._arrived.put((topic, document))

    def come_back(self) -> None:
        """The database can be reached again, and heard: what was missed is missed."""
        self.is_away = self.is_deaf = False
        self._on_gap()

    def _hear(self) -> None:
        while (notice := self._arrived.get()) is not None:
            try:
                self._on_notice(*notice)
            except Exception:
                logger.exception("a notice could not be heard")
            with self._delivered:
                self._pending -= 1
                self._delivered.notify_all()

    def _require_lead(self) -> int:
        if self.term is None:
            raise NotLeadingError("another server leads")
        return self.term

    def _require_database(self) -> None:
        if self.is_away:
            raise StorageUnavailableError("the database is away")

"""When tokens and sessions were last used: noted in memory, written once a minute, in one turn.

No request waits for it, and none fails for it: while the storage is away the notes stay here.
"""

import logging
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

from flagd_server.clock import Clock
from flagd_server.errors import ServerError
from flagd_server.storage.base import Storage

_K = TypeVar("_K")

_log = logging.getLogger(__name__)

_WRITE_EVERY_S = 60.0


class LastUses:
    """Thread-safe: each note is one assignment, and writing takes all of them away at once."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._tokens: dict[str, datetime] = {}
        self._sessions: dict[bytes, datetime] = {}
        self._thread: threading.Thread | None = None
        self._is_closed = threading.Event()

    def start(self) -> None:
        """Start the thread that writes."""
        self._thread = threading.Thread(target=self._run, name="flagd-last-uses", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is noted, if that can be done now, and end the thread. Idempotent."""
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._write_quietly()

    def note_token(self, token_id: str) -> None:
        self._tokens[token_id] = self._clock.now()

    def note_session(self, digest: bytes) -> None:
        self._sessions[digest] = self._clock.now()

    def session_seen_at(self, digest: bytes) -> datetime | None:
        """Return the last use that is not written yet."""
        return self._sessions.get(digest)

    def write(self) -> None:
        """Write what is noted; it stays noted where that fails.

        Raises:
            StorageError: it could not be written.
        """
        # Copies: dict() of a dict is one step, between which no note can come.
        tokens, sessions = dict(self._tokens), dict(self._sessions)
        if not tokens and not sessions:
            return
        with self._storage.transaction() as tx:
            tx.note_token_uses(tokens)
            tx.note_session_uses(sessions)
        _forget(self._tokens, tokens)
        _forget(self._sessions, sessions)

    def _run(self) -> None:
        while not self._is_closed.wait(_WRITE_EVERY_S):
            self._write_quietly()

    def _write_quietly(self) -> None:
        try:
            self.write()
        except ServerError as error:
            _log.warning("last uses of tokens are kept in memory for now: %s", error)
        except Exception:
            _log.exception("last uses of tokens could not be written")


def _forget(notes: dict[_K, datetime], written: Mapping[_K, datetime]) -> None:
    for key, at in written.items():
        if notes.get(key) == at:
            del notes[key]

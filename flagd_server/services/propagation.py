"""The way of a change from a notice to the streams of this server, whichever server made it.

A notice of a flag names the version to deliver, which never changes, so that every server sends the
same bytes under the same sequence. Where something may have been missed, the environment is read
anew, and its streams get the whole set.
"""

import logging
import threading
from dataclasses import replace

from flagd_sdk.core import sse
from flagd_server.errors import StorageError
from flagd_server.services.notices import Notices, Topic
from flagd_server.services.own_changes import OwnChanges
from flagd_server.services.publishing import Announcer
from flagd_server.services.snapshots import Snapshots, encode, encode_flag
from flagd_server.storage.base import Storage

logger = logging.getLogger(__name__)


class Propagation:
    """Hears of changes, keeps the flag sets in memory up to date, and sends to the streams.

    An environment that could not be read when it had to be is kept as it was, and is read again
    when `retry` is called.
    """

    def __init__(
        self, storage: Storage, snapshots: Snapshots, announcer: Announcer, own: OwnChanges
    ) -> None:
        self._storage = storage
        self._snapshots = snapshots
        self._announcer = announcer
        self._own = own
        # Guards those below, and the order of what is sent: whoever hears a notice against whoever
        # retries. Held over reads; never over a transaction.
        self._lock = threading.Lock()
        self._sent: dict[str, int] = {}  # environment → newest sequence
        self._stale: set[str] = set()

    def subscribe(self, notices: Notices) -> None:
        notices.on(Topic.FLAG, self.hear_flag)
        notices.on(Topic.SEGMENTS, self.hear_segments)
        notices.on(Topic.ENVIRONMENT, self.hear_deleted)
        notices.on_gap(self.catch_up)

    def load(self) -> None:
        """Take every environment into memory, to be served from there while no database is.

        Raises:
            StorageError: they can't be read.
        """
        with self._storage.read() as reader:
            keys = [environment.key for environment in reader.environments()]
        for key in keys:
            self._snapshots.reload(key)

    def hear_flag(
        self, environment: str, sequence: int, key: str, version: int | None, own: str
    ) -> None:
        """Take over one flag, and send it to the environment's streams."""
        kept = self._own.take(own)
        with self._lock:
            if kept is not None:
                (encoded,) = kept
            elif not self._is_behind(environment, sequence):
                return
            else:
                try:
                    found = self._read_flag(environment, key, version)
                except StorageError:
                    found = None
                if found is None:
                    self._read_whole(environment)
                    return
                (encoded,) = found
            self._snapshots.apply_flag(environment, sequence, key, encoded)
            self._send(environment, sequence, flag_event(sequence, key, encoded))

    def hear_segments(self, environment: str, sequence: int, own: str) -> None:
        """Take over the segments, and send the whole set to the environment's streams."""
        kept = self._own.take(own)
        with self._lock:
            if kept is None or kept[0] is None:
                self._read_whole(environment)
                return
            self._snapshots.apply_segments(environment, sequence, kept[0])
            self._send(environment, sequence, self._snapshots.current(environment).event)

    def hear_deleted(self, environment: str) -> None:
        """Forget an environment; one of the same key that comes after it is another."""
        with self._lock:
            self._snapshots.forget(environment)
            self._sent.pop(environment, None)
            self._stale.discard(environment)

    def catch_up(self) -> None:
        """Read every environment anew; where something was missed its streams get the whole set."""
        with self._lock:
            self._stale.update(self._snapshots.loaded())
            try:
                with self._storage.read() as reader:
                    self._stale.update(each.key for each in reader.environments())
            except StorageError as error:
                logger.warning("what was missed can't be read yet: %s", error)
        self.retry()

    def retry(self) -> None:
        """Read again what could not be read when it had to be. Cheap where there is nothing."""
        if not self._stale:
            return
        with self._lock:
            for environment in tuple(self._stale):
                self._read_whole(environment)

    def _is_behind(self, environment: str, sequence: int) -> bool:
        """Return whether a single change can be added to what is held; bring up the rest."""
        if environment in self._stale:
            return False  # read whole when it can be
        held = self._snapshots.sequence(environment)
        if held is None or (held >= sequence and self._sent.get(environment, 0) < sequence):
            self._read_whole(environment)
            return False
        return held < sequence

    def _read_flag(
        self, environment: str, key: str, version: int | None
    ) -> tuple[bytes | None] | None:
        """Return the flag as that version delivers it; None where there is none any more."""
        if version is None:
            return (None,)
        with self._storage.read() as reader:
            flag = reader.flag(key)
            delivered = reader.configuration_version(environment, key, version)
        if flag is None or delivered is None:
            return None
        return (encode_flag(replace(flag, variants=delivered.variants), delivered),)

    def _read_whole(self, environment: str) -> None:
        """Read an environment anew and send it where it has moved on. The caller holds the lock."""
        try:
            parts = self._snapshots.reload(environment)
        except StorageError as error:
            if environment not in self._stale:
                logger.warning("changes of %s can't be read yet: %s", environment, error)
            self._stale.add(environment)
            return
        self._stale.discard(environment)
        if parts is not None and self._sent.get(environment, 0) < parts.sequence:
            self._send(environment, parts.sequence, self._snapshots.current(environment).event)

    def _send(self, environment: str, sequence: int, event: bytes) -> None:
        if self._sent.get(environment, 0) < sequence:
            self._sent[environment] = sequence
            self._announcer.publish(environment, sequence, event)


def flag_event(sequence: int, key: str, encoded: bytes | None) -> bytes:
    """Return the event that changes one flag; `encoded` None takes it away."""
    return sse.encode(
        "flag",
        b'{"sequence":%d,"key":%b,"flag":%b}'
        % (sequence, encode(key), b"null" if encoded is None else encoded),
        str(sequence),
    )

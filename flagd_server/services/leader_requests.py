"""What any server is asked for and only the leader can do: left in the inbox, done, answered."""

import json
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from flagd_server.clock import Clock
from flagd_server.domain.configuration import JsonObject
from flagd_server.errors import StorageUnavailableError
from flagd_server.services.notices import Topic
from flagd_server.storage.base import Storage, Transaction
from flagd_server.storage.replicas import InboxItem

logger = logging.getLogger(__name__)

# A leader is replaced within five.
_ANSWER_WITHIN_S = 6.0
_HEARD_WITHIN_S = 1.0

Duty: TypeAlias = Callable[[Transaction, JsonObject], JsonObject]
"""(transaction, what is asked) → outcome"""


class LeaderRequests:
    """Asks the leader, on every server; does what was asked, on the one that leads. Thread-safe."""

    def __init__(
        self, storage: Storage, clock: Clock, answer_within_s: float = _ANSWER_WITHIN_S
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._answer_within_s = answer_within_s
        self._duties: dict[str, Duty] = {}
        self._changed = threading.Condition()  # guards those below
        self._asked: set[str] = set()
        self._outcomes: dict[str, JsonObject] = {}

    def on(self, kind: str, duty: Duty) -> None:
        """Have requests of the kind done by this, within the leader's transaction."""
        self._duties[kind] = duty

    def ask(self, kind: str, document: JsonObject) -> JsonObject:
        """Have the leader do it, and return the outcome once that is durable.

        Raises:
            StorageUnavailableError: no server leads; it was not done, and will not be.
        """
        key = f"rq-{secrets.token_hex(12)}"
        item = InboxItem(key, kind, json.dumps(document), self._clock.now())
        with self._changed:
            self._asked.add(key)
        try:
            with self._storage.transaction() as tx:
                tx.put_inbox([item])
                tx.announce(Topic.INBOX, {})
            outcome = self._wait(key, self._answer_within_s)
            if outcome is None:
                with self._storage.transaction() as tx:
                    is_withdrawn = bool(tx.delete_inbox([key]))
                # Where it is not there any more, it was done meanwhile.
                outcome = None if is_withdrawn else self._wait(key, _HEARD_WITHIN_S)
            if outcome is None:
                raise StorageUnavailableError("no server leads that could do this now")
            return outcome
        finally:
            with self._changed:
                self._asked.discard(key)
                self._outcomes.pop(key, None)

    def do(self, tx: Transaction, item: InboxItem) -> None:
        """Do what is asked for, in the leader's transaction; who asked hears of it afterwards.

        Raises:
            KeyError: nobody here does such things.
        """
        outcome = self._duties[item.kind](tx, json.loads(item.document))
        tx.announce(Topic.DONE, {"request": item.key, "outcome": outcome})

    def hear_done(self, request: str, outcome: Mapping[str, Any]) -> None:
        with self._changed:
            if request in self._asked:
                self._outcomes[request] = outcome
                self._changed.notify_all()

    def _wait(self, key: str, timeout_s: float) -> JsonObject | None:
        with self._changed:
            self._changed.wait_for(lambda: key in self._outcomes, timeout_s)
            return self._outcomes.get(key)

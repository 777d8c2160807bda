"""Acting only while this server leads: counting, judging, rolling out, sending, looking back.

What an actor holds in memory belongs to one term, a time in which this server leads without a
break: another server may have acted since. It asks before each round, and forgets where the term is
another one; a transaction of its is refused unless the term is still the one that it knows.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from flagd_server.errors import NotLeadingError
from flagd_server.storage.base import Reader, Storage, Transaction


class LeadersStorage:
    """The storage of one actor, whose transactions are the leader's or fail. Thread-safe.

    Args:
        forget: drops what the actor has in memory.
    """

    def __init__(self, storage: Storage, forget: Callable[[], None]) -> None:
        self._storage = storage
        self._forget = forget
        self._term: int | None = None
        self._lock = threading.Lock()  # guards taking up

    def take_up(self) -> bool:
        """Return whether to act now. What was learnt in another term is forgotten first."""
        with self._lock:
            term = self._storage.term
            if term != self._term:
                self._forget()
                self._term = term
            return term is not None

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Open a transaction, as `Storage.transaction` does.

        Raises:
            NotLeadingError: this server does not lead, or not in the term that was taken up.
        """
        with self._storage.transaction() as tx:
            if tx.require_lead() != self._term:
                raise NotLeadingError("another server may have led meanwhile")
            yield tx

    def read(self) -> AbstractContextManager[Reader]:
        return self._storage.read()

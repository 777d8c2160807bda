"""Each server tells the others which processes it hears of, and what these have applied.

So that a kill is confirmed, and processes are counted, on whichever server one asks. What is new is
told at once, all of it every so often; a server that has no company tells nothing.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from flagd_server.errors import StorageError
from flagd_server.services.notices import Notices, Topic
from flagd_server.services.receipts import FORGET_AFTER_S, Receipts
from flagd_server.storage.base import Ledger

logger = logging.getLogger(__name__)

# Three of them before the others forget a process.
_EVERY_S = FORGET_AFTER_S / 3
# Confirmations of a kill come by the hundred: so long they are gathered for one transaction.
_GATHER_S = 0.05
_RETRY_S = 1.0
# Instances have at most 64 characters: a notice of so many is as long as notices may be.
_PER_NOTICE = 80


class RollCall:
    """One thread tells; `note` and what hears notices are for any, and never block.

    Args:
        environments: () → those of which there may be processes.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        storage: Ledger,
        receipts: Receipts,
        environments: Callable[[], Iterable[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._receipts = receipts
        self._environments = environments
        self._clock = clock
        self._server = secrets.token_hex(8)
        self._changed = threading.Condition()  # guards those below; taken last
        self._news: dict[str, dict[str, int]] = {}  # environment → instance → sequence
        self._company_until = 0.0
        self._says_hello = True
        self._all_due_at = 0.0
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def subscribe(self, notices: Notices) -> None:
        notices.on(Topic.ROLL_CALL, self._hear_roll_call)
        notices.on(Topic.PRESENCE, self._hear_presence)
        notices.on_gap(self._say_hello)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="flagd-roll-call", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """End the thread; the others forget the processes of this server by and by. Idempotent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def note(self, environment: str, instance: str, sequence: int) -> None:
        """Tell the others, if there are any, what a process has told this server."""
        with self._changed:
            if self._clock() < self._company_until:
                self._news.setdefault(environment, {})[instance] = sequence
                self._changed.notify_all()

    def _hear_roll_call(self, server: str) -> None:
        if server != self._server:
            with self._changed:
                self._company_until = self._clock() + FORGET_AFTER_S
                self._all_due_at = 0.0
                self._changed.notify_all()

    def _hear_presence(self, server: str, environment: str, applied: dict[str, int]) -> None:
        if server != self._server:
            with self._changed:
                if self._clock() >= self._company_until:
                    self._all_due_at = 0.0
                    self._changed.notify_all()
                self._company_until = self._clock() + FORGET_AFTER_S
            self._receipts.told(environment, applied)

    def _say_hello(self) -> None:
        """Ask the others anew: what they told may have been missed."""
        with self._changed:
            self._says_hello = True
            self._changed.notify_all()

    def _run(self) -> None:
        while self._wait():
            with self._changed:
                if self._changed.wait_for(lambda: self._is_closed, _GATHER_S):
                    return
            try:
                self.tell()
            except StorageError as error:
                logger.debug("the other servers could not be told: %s", error)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed, _RETRY_S)
            except Exception:  # the thread's edge: later news must still be told
                logger.exception("the other servers could not be told which processes there are")

    def _wait(self) -> bool:
        """Return True once something is to be told, False when this is closed."""
        with self._changed:
            while not (self._is_closed or self._says_hello or self._news):
                left_s = None
                if self._clock() < self._company_until:
                    left_s = self._all_due_at - self._clock()
                    if left_s <= 0:
                        break
                self._changed.wait(left_s)
            return not self._is_closed

    def tell(self) -> None:
        """Tell what there is to be told, in one transaction.

        Raises:
            StorageError: it could not be; all of it is told next time.
        """
        with self._changed:
            says_hello, news = self._says_hello, self._news
            has_company = self._clock() < self._company_until
            tells_all = has_company and self._clock() >= self._all_due_at
            self._says_hello, self._news = False, {}
            if tells_all:
                self._all_due_at = self._clock() + _EVERY_S
        if tells_all:
            news = {
                environment: self._receipts.heard_here(environment, _EVERY_S)
                for environment in self._environments()
            }
        try:
            with self._storage.transaction() as tx:
                if says_hello:
                    tx.announce(Topic.ROLL_CALL, {"server": self._server})
                elif tells_all:
                    # A server without a process must be heard of too, or it hears of none.
                    tx.announce(Topic.PRESENCE, self._presence("", {}))
                for environment, applied in news.items():
                    for part in _parts(applied):
                        tx.announce(Topic.PRESENCE, self._presence(environment, part))
        except BaseException:
            with self._changed:
                self._says_hello = self._says_hello or says_hello
                self._all_due_at = 0.0
            raise

    def _presence(self, environment: str, applied: dict[str, int]) -> dict[str, object]:
        return {"server": self._server, "environment": environment, "applied": applied}


def _parts(applied: dict[str, int]) -> Iterator[dict[str, int]]:
    items = iter(applied.items())
    while part := dict(islice(items, _PER_NOTICE)):
        yield part

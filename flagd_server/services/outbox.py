"""Takes happenings to webhooks: stored with what happened, sent afterwards, until they are there.

A message is written in the transaction of what it tells, so that neither can be without the other.
It is sent at least once; a receiver tells a repetition by its id. Only the leader sends.
"""

import logging
import random
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from flagd_server.clock import Clock
from flagd_server.domain.notifications import body_of, headers_for, retry_after_s
from flagd_server.domain.times import format_time
from flagd_server.errors import NotLeadingError, OutgoingError
from flagd_server.services.happenings import Happening
from flagd_server.services.notices import Topic
from flagd_server.storage.base import Ledger, Transaction
from flagd_server.storage.release_records import Delivery, Webhook

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
# Who begins an attempt has it to himself for so long; if he dies in it, another makes it again.
_LEASE_S = 3 * TIMEOUT_S
_SENDERS = 4
_LOOK_AGAIN_S = 1.0


class Poster(Protocol):
    """The part of `flagd_server.outgoing` that is needed here."""

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, bytes]: ...


class Outbox:
    """Tells every webhook that wants it. `tell` is for any thread, `deliver` for its own.

    Of a webhook's messages one at a time is under way, in order; webhooks don't wait for each
    other, unless more than a few of them hang at once.
    """

    def __init__(
        self,
        storage: Ledger,
        poster: Poster,
        clock: Clock,
        random: Callable[[], float] = random.random,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """Args:
        storage: the leader's, where there are several servers.
        leads: whether to send now.
        """
        self._leads = leads
        self._storage = storage
        self._poster = poster
        self._clock = clock
        self._random = random
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._senders = ThreadPoolExecutor(_SENDERS, "flagd-outbox")

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="flagd-outbox", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """End it; what is not delivered is sent after the next start. Idempotent."""
        self._is_stopping = True
        self._wake.set()
        self._senders.shutdown(wait=False, cancel_futures=True)
        if self._thread is not None:
            self._thread.join(timeout_s)

    def tell(self, tx: Transaction, happening: Happening) -> None:
        """Write a message to each webhook that wants it, sent once the transaction is durable."""
        for webhook in tx.webhooks(happening.environment):
            if webhook.enabled and (not webhook.events or happening.kind in webhook.events):
                self.put(tx, webhook, happening)

    def put(self, tx: Transaction, webhook: Webhook, happening: Happening) -> None:
        """Write a message to one webhook."""
        message_id = f"msg-{secrets.token_hex(12)}"
        now = self._clock.now()
        tx.insert_delivery(
            Delivery(
                environment=webhook.environment,
                webhook=webhook.key,
                message_id=message_id,
                kind=happening.kind,
                body=body_of(webhook.format, message_id, _document(happening)),
                created_at=now,
                next_at=now,
            )
        )
        tx.announce(Topic.OUTBOX, {})

    def wake(self) -> None:
        """Look at once whether something is to be sent."""
        self._wake.set()

    def deliver(self) -> int:
        """Make each attempt that is due, and return how many were."""
        with self._storage.read() as reader:
            due = reader.due_deliveries(self._clock.now())
        if due and not self._is_stopping:
            list(self._senders.map(self._attempt, due))
        return len(due)

    def _run(self) -> None:
        while not self._is_stopping:
            made = 0
            try:
                made = self.deliver() if self._leads() else 0
            except NotLeadingError:
                pass  # the next leader sends them
            except Exception:  # the thread's edge: later messages must still be sent
                if not self._is_stopping:
                    logger.exception("messages to webhooks could not be sent; tried again")
            self._wake.wait(0.0 if made else _LOOK_AGAIN_S)
            self._wake.clear()

    def _attempt(self, due: Delivery) -> None:
        begun = self._begin(due)
        if begun is None:
            return
        delivery, webhook = begun
        now = self._clock.now()
        headers = headers_for(
            webhook.secret, delivery.message_id, int(now.timestamp()), delivery.body
        )
        status = None
        try:
            status, _ = self._poster.post(webhook.url, delivery.body, headers, TIMEOUT_S)
            outcome = f"answered {status}"
        except OutgoingError as error:
            outcome = str(error)
        with self._storage.transaction() as tx:
            tx.update_delivery(self._ended(delivery, status, outcome))

    def _begin(self, due: Delivery) -> tuple[Delivery, Webhook] | None:
        """Note that an attempt begins; None where another process was faster."""
        with self._storage.transaction() as tx:
            now = self._clock.now()
            found = [each for each in tx.due_deliveries(now) if each.id == due.id]
            webhook = tx.webhook(due.environment, due.webhook)
            if not found or webhook is None:
                return None
            delivery = replace(
                found[0],
                attempts=found[0].attempts + 1,
                next_at=now + timedelta(seconds=_LEASE_S),
            )
            tx.update_delivery(delivery)
            return delivery, webhook

    def _ended(self, delivery: Delivery, status: int | None, outcome: str) -> Delivery:
        now = self._clock.now()
        if status is not None and 200 <= status < 300:
            return replace(delivery, state="delivered", next_at=now, outcome=outcome)
        wait_s = retry_after_s(delivery.attempts, status, self._random())
        if wait_s is None:
            logger.warning(
                "a message to webhook %s of %s is given up: %s",
                delivery.webhook,
                delivery.environment,
                outcome,
            )
            return replace(delivery, state="failed", next_at=now, outcome=outcome)
        return replace(delivery, next_at=_later(now, wait_s), outcome=outcome)


def _later(now: datetime, seconds: float) -> datetime:
    return now + timedelta(milliseconds=round(seconds * 1_000))


def _document(happening: Happening) -> dict[str, Any]:
    return {
        "kind": happening.kind,
        "environment": happening.environment,
        "flag": happening.flag,
        "at": format_time(happening.at),
        "by": happening.by,
        "text": happening.text,
        "detail": dict(happening.detail),
    }

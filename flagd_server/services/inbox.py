"""Telemetry that reaches a server which does not lead: durable here, counted by the leader.

A process sends its next summary only when the last one was acknowledged. Since the leader works the
inbox off before whatever it has received itself, in the order of writing, it counts the summaries
of a process in their order, whichever servers they came to.
"""

import json
from collections.abc import Sequence
from datetime import datetime

from flagd_server.clock import Clock
from flagd_server.domain.summary_documents import parse_summary, summary_document
from flagd_server.errors import NotFoundError, StorageUnavailableError
from flagd_server.services.hints import Hints
from flagd_server.services.notices import Topic
from flagd_server.services.receipts import Receipts
from flagd_server.services.reports import Accepted, Receipt, Waiting
from flagd_server.storage.base import Ledger, Reader, Transaction
from flagd_server.storage.replicas import InboxItem

SUMMARY = "summary"
# Without a leader for longer than a change of it takes, processes are to keep what they have.
MAX_WAITING = 50_000
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Inbox:
    """Writes summaries to the inbox, and answers as far as this server can.

    Which cells the leader will refuse is not known here: all that are well-formed are accepted, and
    none is called a duplicate.
    """

    def __init__(self, storage: Ledger, receipts: Receipts, hints: Hints, clock: Clock) -> None:
        self._storage = storage
        self._receipts = receipts
        self._hints = hints
        self._clock = clock

    def shelve(self, waiting: Sequence[Waiting]) -> None:
        """Keep the summaries for the leader, and answer them.

        Raises:
            StorageUnavailableError: they could not be kept, or too many are; none was answered.
        """
        now = self._clock.now()
        answers: list[tuple[Waiting, Accepted | Exception]] = []
        items = []
        with self._storage.transaction() as tx:
            if tx.inbox_span() > MAX_WAITING:
                raise StorageUnavailableError("too many summaries wait for the leader")
            known = {
                name: tx.environment(name) is not None
                for name in {one.environment for one in waiting}
            }
            for one in waiting:
                if known[one.environment]:
                    items.append(_item(one, now))
                    answers.append((one, self._accepted(tx, one)))
                else:
                    answers.append((one, NotFoundError("environment", one.environment)))
            if items:
                tx.put_inbox(items)
                tx.announce(Topic.INBOX, {})
        for one, answer in answers:
            one.answer(answer)

    def _accepted(self, tx: Transaction, waiting: Waiting) -> Accepted:
        environment, summary = waiting.environment, waiting.summary
        held = {kill.id for kill in summary.local_kills if kill is not None}
        return Accepted(
            sum(cell is not None for cell in summary.cells),
            False,
            summary.refused,
            self._receipts.processes(environment),
            self._hints.slow_over_s(environment, summary.service),
            self._hints.exposed_below(environment),
            tuple(sorted(tx.lifted_local_kills(environment, held))) if held else (),
        )


def waiting_of(reader: Reader, item: InboxItem) -> Waiting:
    """Return the summary that another server has kept, as if it had come here.

    Raises:
        KeyError, TypeError, ValueError: it is in a form that is not known here.
        NotFoundError: nobody knows the token that it came with.
    """
    document = json.loads(item.document)
    token = reader.token(document["token"])
    if token is None:
        raise NotFoundError("token", document["token"])
    summary = parse_summary(document["summary"])
    return Waiting(document["environment"], token, summary, Receipt())


def _item(waiting: Waiting, at: datetime) -> InboxItem:
    summary = waiting.summary
    document = {
        "environment": waiting.environment,
        "token": waiting.token.id,
        "summary": summary_document(summary),
    }
    # Whoever sends one again, since no answer came, may reach another server.
    key = f"{waiting.environment}/{summary.instance}/{summary.sequence}"
    return InboxItem(key, SUMMARY, _encode(document), at)

"""What servers on one database tell each other, and who here wants to hear of it.

A notice names what has changed; whoever hears it reads that from the storage, or has it at hand
because the change was made here. Own changes and others' are heard alike and in one order.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeAlias

from flagd_server.domain.configuration import JsonObject

Handler: TypeAlias = Callable[..., None]
"""Called with the members of a notice, by name."""


class Topic(StrEnum):
    """What a notice is about, with its members.

    - `flag`: environment, sequence, key, version (None where it is delivered no longer), own
    - `segments`: environment, sequence, own; the flag set is announced whole
    - `environment`: environment; it was deleted
    - `tokens`: one was made or revoked
    - `kill`: environment, kill, sequence, at
    - `decision`: environment, evidence; of the guard
    - `objectives`: environment
    - `gate`: environment, gate
    - `outbox`: something is to be sent
    - `inbox`: something is to be worked off by the leader
    - `done`: request, outcome; what the leader made of a request in the inbox
    - `hints`: environment, exposed_below, slow_over_s; what SDKs are told with each answer
    - `roll_call`: server; it wants to know which processes the others hear of
    - `presence`: server, environment, applied (instance → sequence)
    """

    FLAG = "flag"
    SEGMENTS = "segments"
    ENVIRONMENT = "environment"
    TOKENS = "tokens"
    KILL = "kill"
    DECISION = "decision"
    OBJECTIVES = "objectives"
    GATE = "gate"
    OUTBOX = "outbox"
    INBOX = "inbox"
    DONE = "done"
    HINTS = "hints"
    ROLL_CALL = "roll_call"
    PRESENCE = "presence"


class Notices:
    """Hands each notice to those who asked for its topic. Filled before the storage is listened to.

    One handler that fails keeps the others from nothing: its error is raised when all have heard.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, list[Handler]] = {}
        self._on_gap: list[Callable[[], None]] = []

    def on(self, topic: Topic, handler: Handler) -> None:
        """Call it with the members of every notice of the topic."""
        self._handlers.setdefault(topic, []).append(handler)

    def on_gap(self, handler: Callable[[], None]) -> None:
        """Call it when notices may have been missed."""
        self._on_gap.append(handler)

    def hear(self, topic: str, document: JsonObject) -> None:
        """Hand a notice on; one of a topic that only a newer server knows is ignored."""
        _call_each(self._handlers.get(topic, ()), **document)

    def gap(self) -> None:
        _call_each(self._on_gap)


def _call_each(handlers: list[Handler] | tuple[()], **members: Any) -> None:
    failed: list[Exception] = []
    for handler in handlers:
        try:
            handler(**members)
        except Exception as error:
            failed.append(error)
    if failed:
        raise failed[0]

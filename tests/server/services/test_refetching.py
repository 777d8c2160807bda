"""Who hears what of a change."""

import json

import pytest

from flagd_sdk.core.sse import Decoder
from flagd_server.services import refetching
from flagd_server.services.refetching import BothAudiences, refetch_channel


class Hub:
    def __init__(self) -> None:
        self.published: list[tuple[str, int, bytes]] = []

    def publish(self, channel: str, sequence: int, event: bytes) -> None:
        self.published.append((channel, sequence, event))


def test_sdks_get_the_event_itself_and_first_ofrep_clients_that_there_is_one() -> None:
    hub = Hub()
    BothAudiences(hub).publish("production", 1_763_925_277_123, b"event: flag\n\n")
    first, second = hub.published
    assert first == ("production", 1_763_925_277_123, b"event: flag\n\n")
    assert second[:2] == (refetch_channel("production"), 1_763_925_277_123)
    (event,) = Decoder(1024).feed(second[2])
    assert (event.event, event.id) == ("message", "1763925277123")
    assert json.loads(event.data) == {
        "type": "refetchEvaluation",
        "etag": '"production-1763925277123"',
        "lastModified": 1_763_925_277,
    }


def test_a_change_is_encoded_once_however_many_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    original = refetching.refetch_event

    def count(environment: str, sequence: int) -> bytes:
        encoded.append(sequence)
        return original(environment, sequence)

    monkeypatch.setattr(refetching, "refetch_event", count)
    audiences = BothAudiences(Hub())
    for sequence in (10, 11):
        audiences.publish("production", sequence, b"event: flag\n\n")
    assert encoded == [10, 11]

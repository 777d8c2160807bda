"""The real OpenFeature SDK on our provider, on a client whose server is in memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.event import EventDetails, ProviderEvent

from flagd_sdk import FlagClient
from flagd_sdk.integrations.openfeature import FlagReleaseProvider
from tests.sdk.counting import counted, keep_counts
from tests.sdk.fakes import FakeStream, MemoryTransport, flag, flag_set
from tests.waiting import eventually

WITHIN_S = 60.0
# Long enough for an event that should not come to have come.
A_WHILE_S = 0.05


def typed_flag(
    key: str, kind: str, variants: Mapping[str, Any], served: str, off: str = ""
) -> dict[str, Any]:
    """Return a flag of any type whose default serves one variant to everybody."""
    return {
        **flag(key),
        "type": kind,
        "variants": dict(variants),
        "off_variant": off or next(iter(variants)),
        "default_serve": {"variant": served},
    }


def flag_client(transport: MemoryTransport, **settings: Any) -> FlagClient:
    quiet = {"cache_dir": None, "heartbeat_interval_s": 3600.0, "report_interval_s": 3600.0}
    return FlagClient("http://server", "t", transport=transport, **{**quiet, **settings})


def serving(*flags: dict[str, Any], sequence: int = 5) -> MemoryTransport:
    """Return a server that answers once and keeps its stream open."""
    transport = MemoryTransport()
    transport.fetches.append(flag_set(*flags, sequence=sequence))
    transport.streams.append(FakeStream(stays_open=True))
    return transport


class World:
    """An application: OpenFeature's client, ours beneath it, and the events that it heard.

    `state` is what the stream's thread tells of the server; a test tells it in its place.
    """

    def __init__(self, flags: FlagClient) -> None:
        keep_counts(flags)
        self.flags = flags
        self.state = flags._state
        self.events: SimpleQueue[tuple[ProviderEvent, EventDetails]] = SimpleQueue()
        for event in ProviderEvent:
            api.add_handler(event, lambda details, event=event: self.events.put((event, details)))

    def use(self, provider: FlagReleaseProvider) -> OpenFeatureClient:
        api.set_provider_and_wait(provider)
        return api.get_client()

    def next_event(self) -> tuple[ProviderEvent, EventDetails]:
        return self.events.get(timeout=WITHIN_S)

    def has_silence(self) -> bool:
        try:
            self.events.get(timeout=A_WHILE_S)
        except Empty:
            return True
        return False

    def counted(self) -> dict[str, Any]:
        """Return what is reported next."""
        return counted(self.flags)

    def cells(self) -> list[tuple[str, str | None, str, int, int]]:
        """Return what the guard reads: (flag, split, variant, exposures, errors)."""
        return [
            (cell["flag"], cell["split"], cell["variant"], cell["exposures"], cell["errors"])
            for cell in self.counted()["cells"]
        ]


@contextmanager
def world_of(*flags: dict[str, Any]) -> Iterator[World]:
    """Make an application that has these flags, and leave OpenFeature as it was."""
    transport = serving(*flags)
    with flag_client(transport) as client:
        assert client.wait_until_ready(WITHIN_S)
        # Once the stream is opened, nothing more is told of the first flags.
        assert eventually(lambda: transport.last_event_ids)
        try:
            yield World(client)
        finally:
            api.shutdown()

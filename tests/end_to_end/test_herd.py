"""A real server with a thousand streams is stopped: what it asks for, and who comes back when."""

import re
import signal
import socket
from functools import partial
from time import monotonic

import pytest

from flagd_sdk import FlagClient, Stream
from flagd_sdk.config import ClientConfig
from flagd_sdk.errors import ConnectError
from flagd_sdk.transport import HttpTransport
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.misbehaving import worst_second
from tests.sdk.herd import stream_returns
from tests.waiting import eventually

STREAMS, CLIENTS = 940, 60


class NotingTransport(HttpTransport):
    """Notes when streams that opened were to be asked for.

    What the client chose: a process that was given no processor for some seconds asks for all that
    is due by then at once, and how quick the server then is, is another matter, too.
    """

    def __init__(self, config: ClientConfig) -> None:
        super().__init__(config)
        self.opened_at: list[float] = []
        self.due_at = monotonic

    def open_stream(self, last_event_id: str, instance: str) -> Stream:
        due_at = self.due_at()
        stream = super().open_stream(last_event_id, instance)
        self.opened_at.append(due_at)
        return stream


def open_raw(server: FlagServer, token: str) -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    raw.sendall(
        f"GET /sdk/v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    )
    assert b"200 OK" in raw.recv(65_536)
    return raw


def last_retry_ms(raw: socket.socket) -> int:
    received = b""
    while chunk := raw.recv(65_536):
        received += chunk
    raw.close()
    return int(re.findall(rb"retry: (\d+)", received)[-1])


@pytest.mark.timeout(300)
def test_a_thousand_streams_of_a_server_that_restarts_come_back_spread(server: FlagServer) -> None:
    token = server.sdk_tokens["production"]
    transports = [
        NotingTransport(ClientConfig(url=server.url, token=token).checked()) for _ in range(CLIENTS)
    ]
    clients = [
        FlagClient(server.url, token, cache_dir=None, transport=transport)
        for transport in transports
    ]
    for client, transport in zip(clients, transports, strict=True):
        transport.due_at = partial(getattr, client._engine.stream, "_stream_at")
    try:
        raws = [open_raw(server, token) for _ in range(STREAMS)]
        eventually(lambda: all(transport.opened_at for transport in transports), 60.0)
        for transport in transports:
            transport.opened_at.clear()
        stopped_at = monotonic()
        server.signal(signal.SIGTERM)
        retries_ms = [last_retry_ms(raw) for raw in raws]
        server.restart()
        listening_at = monotonic()
        eventually(lambda: all(transport.opened_at for transport in transports), 60.0)
    finally:
        for client in clients:
            client.close(0.0)

    back_at = [transport.opened_at[0] for transport in transports]
    # Of sixty, chance puts more than of a thousand into one second.
    assert worst_second(back_at) <= 0.45 * CLIENTS
    # No longer than it takes from a server that was away as long: waits grow to twice of that.
    assert max(back_at) - listening_at <= max(15.0, 2 * (listening_at - stopped_at) + 4.0)
    assert 4_000 <= min(retries_ms) < 4_500 < 7_500 < max(retries_ms) <= 8_000
    would_be_back_at, _ = stream_returns(retries_ms, 0.0, ConnectError("refused"))
    print(
        f"{worst_second(would_be_back_at)} of {STREAMS} streams in the worst second,"
        f" {worst_second(back_at)} of {CLIENTS} clients"
    )
    assert worst_second(would_be_back_at) <= 0.30 * STREAMS

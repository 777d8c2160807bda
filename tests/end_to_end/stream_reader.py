"""A reader of the stream that sees every byte."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress

from flagd_sdk.core.sse import Decoder, ServerSentEvent
from tests.end_to_end.processes import DEADLINE_S


class StreamReader:
    """Reads /sdk/v1/stream from a bare socket, so that nothing in between mends anything."""

    def __init__(
        self,
        port: int,
        token: str,
        *,
        last_event_id: str | None = None,
        instance: str | None = None,
        receive_buffer: int | None = None,
        method: str = "GET",
    ) -> None:
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(("127.0.0.1", port))
        lines = [
            f"{method} /sdk/v1/stream HTTP/1.1",
            "Host: flags",
            f"Authorization: Bearer {token}",
        ]
        if last_event_id is not None:
            lines.append(f"Last-Event-ID: {last_event_id}")
        if instance is not None:
            lines.append(f"X-Flagd-Instance: {instance}")
        self.sock.sendall("\r\n".join((*lines, "", "")).encode())
        self.raw = b""
        self.head = ""
        self.events: list[ServerSentEvent] = []
        self._decoder = Decoder(64 * 1024 * 1024)

    @property
    def retry_ms(self) -> int | None:
        return self._decoder.retry_ms

    def read_until(self, holds: Callable[["StreamReader"], bool], what: str) -> "StreamReader":
        deadline = time.monotonic() + DEADLINE_S
        while not holds(self):
            assert time.monotonic() < deadline, f"waited in vain: {what}; {self.raw[-500:]!r}"
            assert self._read(), f"closed before {what}; {self.raw[-500:]!r}"
        return self

    def read_to_end(self) -> "StreamReader":
        with suppress(ConnectionResetError):
            while self._read():
                pass
        return self

    def _read(self) -> bool:
        data = self.sock.recv(1 << 20)
        self.raw += data
        if not self.head:
            head, separator, rest = self.raw.partition(b"\r\n\r\n")
            if separator:
                self.head = head.decode()
                self.events += self._decoder.feed(rest)
        else:
            self.events += self._decoder.feed(data)
        return bool(data)

    def flag_events(self) -> list[ServerSentEvent]:
        return [event for event in self.events if event.event == "flag"]

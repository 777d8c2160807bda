"""The line between one SDK and the server, in one process: whoever tests decides what gets through.

Over one connection bytes come in order or not at all, as over TCP. What a line may do is hold them
back, cut them off anywhere, repeat at the start of a connection what came before, and answer a poll
with what was true some time ago.
"""

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from werkzeug.test import Client, TestResponse

from flagd_sdk.errors import ConnectError, StatusError, StreamError
from flagd_sdk.transport import FetchedFlags
from flagd_server.wsgi import TAKE_SOCKET

Application = Callable[..., Any]
WAIT_S = 60.0


class Connection:
    """One open stream: what the server wrote, and how much of that may be read.

    The server's end is read by a thread, whatever the other end does: a slow line is not a slow
    reader to the server.
    """

    def __init__(self, line: "Line", sock: socket.socket, repeated: list[bytes]) -> None:
        self._line = line
        self._sock = sock
        self._changed = line.changed
        self._blocks: list[bytes] = list(repeated)  # whole events and comments, undelivered
        self._ready: list[bytes] = []
        self._is_cut = False
        self._is_ended = False
        self.is_awaiting = False  # the reader has taken all that was let through
        self.delivered: list[bytes] = []
        threading.Thread(target=self._pump, name="line", daemon=True).start()

    def _pump(self) -> None:
        rest = b""
        head_end = -1
        while piece := self._receive():
            rest += piece
            if head_end < 0:
                head_end = rest.find(b"\r\n\r\n")
                if head_end < 0:
                    continue
                rest = rest[head_end + 4 :]
            *whole, rest = rest.split(b"\n\n")
            with self._changed:
                self._blocks += [block + b"\n\n" for block in whole]
                self._changed.notify_all()
        self._sock.close()
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(1 << 16)
        except OSError:
            return b""

    # The SDK's end: `flagd_sdk.transport.Stream`

    def read(self) -> bytes:
        with self._changed:
            while True:
                if self._line.is_flowing:
                    self._let(len(self._blocks))
                if self._ready:
                    self.is_awaiting = False
                    piece = b"".join(self._ready)
                    self._ready = []
                    return piece
                if self._is_cut:
                    raise StreamError("the line was cut")
                if self._is_ended and not self._blocks:
                    return b""
                self.is_awaiting = True
                self._changed.notify_all()
                self._changed.wait()

    def interrupt(self) -> None:
        self.cut()

    def close(self) -> None:
        self.cut()

    # The line's

    def cut(self) -> None:
        """Break it; what was not read is lost."""
        with self._changed:
            self._is_cut = True
            self._blocks.clear()
            self._changed.notify_all()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    @property
    def is_open(self) -> bool:
        return not self._is_cut and not (self._is_ended and not self._blocks and not self._ready)

    @property
    def waiting(self) -> tuple[bytes, ...]:
        return tuple(self._blocks)

    def let(self, blocks: int, part: float = 0.0) -> None:
        """Let some of what waits through, and wait until it was taken in.

        Args:
            part: how much of the block behind them; then the line is cut.
        """
        with self._changed:
            self._let(blocks)
            torn = self._blocks[0] if part and self._blocks else b""
            if torn:
                self._ready.append(torn[: int(len(torn) * part)])
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_cut or self._has_taken_all, WAIT_S)
        if torn:
            self.cut()

    @property
    def _has_taken_all(self) -> bool:
        return not self._ready and self.is_awaiting

    def _let(self, blocks: int) -> None:
        taken, self._blocks = self._blocks[:blocks], self._blocks[blocks:]
        self.delivered += taken
        self._ready += taken


@dataclass
class Faults:
    """What is wrong with the line's short requests from now on.

    Attributes:
        stale: polls are answered with what was answered first, or before this began.
        loses_replies: summaries arrive, and their answers do not.
    """

    stale: bool = False
    loses_replies: bool = False


class Line:
    """A `flagd_sdk.transport.Transport`. Methods of the SDK's end are called from two threads."""

    def __init__(self, application: Callable[[], Application | None], token: str) -> None:
        """Args:
        application: returns what answers now; None while there is no server.
        """
        self._application = application
        self._headers = {"Authorization": f"Bearer {token}"}
        # Guards everything here and in the connections.
        self.changed = threading.Condition(threading.RLock())
        self.is_up = True
        self.is_flowing = True
        self.faults = Faults()
        self.connection: Connection | None = None
        self._repeated: list[bytes] = []
        self._answered: list[FetchedFlags] = []

    # The SDK's end

    def fetch_flags(self, etag: str) -> FetchedFlags | None:
        if self.faults.stale and self._answered:
            return self._answered[0]
        headers = {"If-None-Match": etag} if etag else {}
        answer = self._ask("GET", "/sdk/v1/flags", headers)
        if answer.status_code == 304:
            return None
        self._require_success(answer)
        fetched = FetchedFlags(answer.data, answer.headers["ETag"])
        self._answered = [*self._answered[-1:], fetched]
        return fetched

    def open_stream(self, last_event_id: str, instance: str) -> Connection:
        headers = {"X-Flagd-Instance": instance}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        client = Client(self._require_application())
        ours, theirs = socket.socketpair()
        # The hub gets the connection as it does from the server that listens.
        taking = {TAKE_SOCKET: theirs.dup}
        try:
            with theirs:
                answer = client.open(
                    "/sdk/v1/stream", headers=headers | self._headers, environ_overrides=taking
                )
                answer.close()
            if answer.status_code != 200:
                raise StatusError(answer.status_code)
        except BaseException:
            ours.close()
            raise
        with self.changed:
            repeated, self._repeated = self._repeated, []
            self.connection = Connection(self, ours, repeated)
            return self.connection

    def send_summary(self, body: bytes) -> Mapping[str, Any]:
        answer = self._ask("POST", "/sdk/v1/telemetry", {"Content-Type": "application/json"}, body)
        self._require_success(answer)
        if self.faults.loses_replies:
            raise StreamError("the reply was lost")
        reply: Mapping[str, Any] = answer.get_json()
        return reply

    def after_fork(self) -> None:
        raise AssertionError("nothing forks here")

    # Whoever tests

    def hold(self) -> None:
        """Keep back what comes on the stream, until it is let through or flows again."""
        self.is_flowing = False

    def flow(self) -> None:
        with self.changed:
            self.is_flowing = True
            self.changed.notify_all()

    def cut(self, repeats: int = 0) -> None:
        """Break the stream; the next one begins with the last blocks that came over this one."""
        connection = self.connection
        if connection is not None:
            with self.changed:
                self._repeated = connection.delivered[-repeats:] if repeats else []
            connection.cut()

    def go_down(self) -> None:
        self.is_up = False
        self.cut()

    def mend(self) -> None:
        """Let everything through again."""
        self.is_up = True
        self.faults = Faults()
        self.flow()

    def _require_application(self) -> Application:
        application = self._application() if self.is_up else None
        if application is None:
            raise ConnectError("there is no way to a server")
        return application

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> TestResponse:
        client = Client(self._require_application())
        return client.open(path, method=method, headers={**self._headers, **headers}, data=body)

    def _require_success(self, answer: TestResponse) -> None:
        if answer.status_code != 200:
            raise StatusError(answer.status_code)

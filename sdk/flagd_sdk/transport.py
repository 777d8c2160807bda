"""Talks to the server: the only place that knows HTTP.

`requests` is imported by the thread that sends the first request, never by `import flagd_sdk`.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from flagd_sdk.config import ClientConfig
from flagd_sdk.errors import ConnectError, StatusError, StreamError, TransportError
from flagd_sdk.late_imports import importing, make_forks_wait

if TYPE_CHECKING:
    import requests

    from flagd_sdk.http_session import Patience

_READ_BYTES = 64 * 1024
_MAX_REPLY_BYTES = 1024 * 1024
_MAX_HEAD_BYTES = 128 * 1024
_MAX_RETRY_AFTER_S = 300.0


class FetchedFlags(NamedTuple):
    """A flag set as text, and the ETag to ask with the next time ("" where there is none)."""

    body: bytes
    etag: str


class Stream(Protocol):
    """An open event stream."""

    def read(self) -> bytes:
        """Return bytes as soon as there are any; b"" at the end of the stream.

        Raises:
            StreamError: the stream broke, or nothing came for `stream_silence_s`.
        """
        ...

    def interrupt(self) -> None:
        """Make a `read` that waits in another thread return soon. Thread-safe; never raises."""
        ...

    def close(self) -> None:
        """Release the connection. Never raises."""
        ...


class Transport(Protocol):
    """What the SDK asks of a server. Methods are called from two threads."""

    def fetch_flags(self, etag: str) -> FetchedFlags | None:
        """Return the flag set, or None where it is still the one of `etag` ("" for none).

        Raises:
            TransportError: there is no usable answer.
        """
        ...

    def open_stream(self, last_event_id: str, instance: str) -> Stream:
        """Open the event stream behind an event ("" for none).

        Raises:
            TransportError: there is no usable answer.
        """
        ...

    def send_summary(self, body: bytes) -> Mapping[str, Any]:
        """Deliver one summary and return the server's reply once it is durable there.

        Raises:
            TransportError: it can't be told whether it was delivered, or it was refused.
        """
        ...

    def after_fork(self) -> None:
        """Forget, in a child process, the connections of its parent."""
        ...


class HttpTransport:
    """The transport to a real server. Each thread has a session of its own.

    Redirects are not followed, as the token would go with them, and compression is not asked
    for, as what it unfolds to can't be bounded beforehand.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._local = threading.local()
        self._stream: _HttpStream | None = None  # the newest; a client has one at a time
        make_forks_wait()

    def fetch_flags(self, etag: str) -> FetchedFlags | None:
        """See `Transport.fetch_flags`."""
        headers = {"Accept": "application/json"}
        if etag:
            headers["If-None-Match"] = etag
        with self._request("GET", "/sdk/v1/flags", headers) as response:
            if etag and response.status_code == 304:
                return None
            _check(response, "application/json")
            body = self._read_all(response, self._config.max_flag_set_bytes)
            return FetchedFlags(body, response.headers.get("ETag", ""))

    def open_stream(self, last_event_id: str, instance: str) -> Stream:
        """See `Transport.open_stream`."""
        headers = {"Accept": "text/event-stream", "X-Flagd-Instance": instance}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        with _translated(ConnectError):
            response = self._send("GET", "/sdk/v1/stream", headers)
        try:
            _check(response, "text/event-stream")
        except TransportError:
            response.close()
            raise
        self._stream = _HttpStream(response, self._local.patience, self._config.stream_silence_s)
        return self._stream

    def send_summary(self, body: bytes) -> Mapping[str, Any]:
        """See `Transport.send_summary`."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        path = "/sdk/v1/telemetry"
        with self._request("POST", path, headers, body) as response:
            _check(response, "application/json")
            try:
                reply = json.loads(self._read_all(response, _MAX_REPLY_BYTES))
            except (ValueError, RecursionError) as error:
                raise StreamError("the reply to a summary is no JSON") from error
        if not isinstance(reply, dict):
            raise StreamError("the reply to a summary is no JSON object")
        return reply

    def after_fork(self) -> None:
        """See `Transport.after_fork`."""
        self._local = threading.local()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.forget()

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None = None,
    ) -> "Iterator[requests.Response]":
        with _translated(ConnectError):
            response = self._send(method, path, headers, body)
        try:
            yield response
        finally:
            response.close()

    def _send(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None = None,
    ) -> "requests.Response":
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._open_session()
        # For the whole of an answer, unless it is a stream: that is granted its reads.
        self._local.patience.grant(self._config.request_timeout_s, _MAX_HEAD_BYTES)
        return session.request(
            method,
            self._config.url + path,
            headers=headers,
            data=body,
            timeout=(self._config.connect_timeout_s, self._config.request_timeout_s),
            stream=True,
            allow_redirects=False,
        )

    def _open_session(self) -> "requests.Session":
        with importing():
            from flagd_sdk.http_session import Patience, new_session

        self._local.patience = Patience()
        self._local.session = session = new_session(self._config, self._local.patience)
        return session

    def _read_all(self, response: "requests.Response", max_bytes: int) -> bytes:
        """Read a body that is neither too long nor, drop by drop, too slow."""
        self._local.patience.allow(2 * max_bytes + _MAX_HEAD_BYTES)  # chunks have frames
        parts: list[bytes] = []
        size = 0
        with _translated(StreamError):
            while part := response.raw.read1(_READ_BYTES):
                parts.append(part)
                size += len(part)
                if size > max_bytes:
                    raise StreamError(f"an answer is longer than {max_bytes} bytes")
        length = response.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and int(length[:19]) != size:
            raise StreamError(f"an answer broke off after {size} of {length[:19]} bytes")
        return b"".join(parts)


class _HttpStream:
    def __init__(
        self, response: "requests.Response", patience: "Patience", silence_s: float
    ) -> None:
        self._response = response
        self._patience = patience
        self._silence_s = silence_s

    def read(self) -> bytes:
        self._patience.grant(self._silence_s, 2 * _READ_BYTES)
        with _translated(StreamError):
            # read1, and not iter_content: that waits until its block is full.
            return bytes(self._response.raw.read1(_READ_BYTES))

    def interrupt(self) -> None:
        # Without it (urllib3 < 2.3) the thread, a daemon, ends with its next byte or timeout.
        shutdown: Callable[[], None] | None = getattr(self._response.raw, "shutdown", None)
        if shutdown is not None:
            with suppress(Exception):  # it may have been closed in the same instant
                shutdown()

    def close(self) -> None:
        with suppress(Exception):  # nothing is left to be done about a connection given up
            self._response.close()

    def forget(self) -> None:
        """Let go of the connection, in a child process, without a word to the server.

        Held open by a child, it would outlive the parent, whom the server goes on counting. Nothing
        of the response is closed: the parent's thread may have been in the middle of reading it.
        """
        with suppress(Exception):
            # The one way to the socket that does not depend on how the answer is read.
            held: Any = self._response.raw._sock_shutdown
            os.close(held.__self__.detach())


@contextmanager
def _translated(kind: type[TransportError]) -> Iterator[None]:
    """Turn whatever the HTTP stack raises into one class; its messages may hold no secret.

    The stack's own text is not passed on: it differs from attempt to attempt (addresses of
    objects) and is long; the class names of the chain say what happened.
    """
    try:
        yield
    except TransportError:
        raise
    except Exception as error:  # the edge to requests, urllib3, http.client, ssl and sockets
        raise kind(_chain_of(error)) from error


def _chain_of(error: BaseException) -> str:
    """Name an error and the root of it, such as "ConnectionError (ConnectionRefusedError: …)"."""
    root = error
    for _ in range(10):
        reason = getattr(root, "reason", None)
        inner = root.__cause__ or root.__context__ or reason
        if not isinstance(inner, BaseException):
            break
        root = inner
    if root is error:
        return type(error).__name__
    number = root.errno or 0 if isinstance(root, OSError) else 0
    text = f": {os.strerror(number)}" if number > 0 else ""
    return f"{type(error).__name__} ({type(root).__name__}{text})"


def _check(response: "requests.Response", content_type: str) -> None:
    """Refuse what is not a plain success of the type that was asked for.

    Raises:
        StatusError: another status.
        StreamError: another type, or an encoding nobody asked for.
    """
    status = response.status_code
    if status != 200:
        raise StatusError(status, _retry_after_s(response.headers.get("Retry-After", "")))
    got = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if got != content_type:
        raise StreamError(f"an answer is of type {got[:60]!r}; expected {content_type}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise StreamError("an answer is compressed, which was not asked for")


def _retry_after_s(text: str) -> float | None:
    """Read `Retry-After` (RFC 9110, section 10.2.3), bounded; None where it can't be read."""
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), int(_MAX_RETRY_AFTER_S)))
    # Needed for the form with a date only, and slow to import.
    from email.utils import parsedate_to_datetime

    try:
        wait_s = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait_s, 0.0), _MAX_RETRY_AFTER_S)

"""Server-sent events to bytes and back: the server encodes, the SDK decodes. No I/O.

Follows the WHATWG HTML Standard, section 9.2.6 "Interpreting an event stream", and adds what it
leaves open: a cap on how much one event may make the reader hold. Data that is no UTF-8 is refused,
where the standard repairs it with replacement characters: that could change a flag's key.
"""

from typing import NamedTuple

from flagd_sdk.errors import StreamError

_BOM = b"\xef\xbb\xbf"
_LINE_ENDS = ("\r", "\n")


class ServerSentEvent(NamedTuple):
    """One dispatched event; `id` is the last event id as of this event ("" before the first)."""

    event: str
    data: str
    id: str = ""


def encode(
    event: str, data: str | bytes, event_id: str | None = None, retry_ms: int | None = None
) -> bytes:
    """Return one event as it goes over the wire, blank line included.

    Args:
        event: name of the event, on one line.
        data: text, or text already encoded as UTF-8; each of its lines becomes a `data:` field.
        event_id: what a reader sends as Last-Event-ID from now on; on one line and without NUL.
        retry_ms: how long readers are to wait before they connect again.

    Raises:
        ValueError: `event` or `event_id` would break the framing.
    """
    head = ""
    if retry_ms is not None:
        head += f"retry: {retry_ms}\n"
    if event_id is not None:
        if "\0" in event_id or any(end in event_id for end in _LINE_ENDS):
            raise ValueError("an event id holds no line break and no NUL")
        head += f"id: {event_id}\n"
    if any(end in event for end in _LINE_ENDS):
        raise ValueError("an event name holds no line break")
    head += f"event: {event}\n"
    raw = data.encode() if isinstance(data, str) else data
    if b"\n" in raw or b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    return b"%bdata: %b\n\n" % (head.encode(), raw)


def encode_comment(text: str) -> bytes:
    """Return a comment, which readers skip: a heartbeat. `text` stays on one line.

    Raises:
        ValueError: `text` holds a line break.
    """
    if any(end in text for end in _LINE_ENDS):
        raise ValueError("a comment holds no line break")
    return f": {text}\n\n".encode()


class Decoder:
    """Turns the bytes of one stream into events, however the bytes were split on their way.

    One decoder reads one stream. It is of no use after it raised, and not thread-safe.
    """

    __slots__ = (
        "_data",
        "_event",
        "_head",
        "_held",
        "_line",
        "_line_size",
        "_max_event_bytes",
        "_skip_lf",
        "last_event_id",
        "retry_ms",
    )

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._head: bytes | None = b""  # first bytes, until it is known whether they are a BOM
        self._line: list[bytes] = []
        self._line_size = 0
        self._skip_lf = False
        self._event = ""
        self._data: list[str] = []
        self._held = 0  # bytes of the fields of the event being read
        self.last_event_id = ""
        self.retry_ms: int | None = None

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that these bytes complete; an event is complete at its blank line.

        Raises:
            StreamError: one event is longer than `max_event_bytes`, or its data is no UTF-8.
                Events that were complete earlier in the same chunk are lost with it, as the
                stream is to be read anew.
        """
        if self._head is not None:
            self._head += chunk
            if len(self._head) < len(_BOM) and _BOM.startswith(self._head):
                return []
            chunk, self._head = self._head.removeprefix(_BOM), None
        if not chunk:
            return []
        # A line ends at its CR at once, lest an event wait for the byte behind it; the LF of a
        # CRLF is then dropped here.
        if self._skip_lf and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._skip_lf = chunk.endswith(b"\r")
        events: list[ServerSentEvent] = []
        for piece in chunk.splitlines(keepends=True):
            line = piece.rstrip(b"\r\n")
            self._line_size += len(line)
            if self._held + self._line_size > self._max_event_bytes:
                raise StreamError(f"an event is longer than {self._max_event_bytes} bytes")
            self._line.append(line)
            if len(line) == len(piece):
                break  # the line goes on in the next chunk
            event = self._end_line(b"".join(self._line))
            self._line.clear()
            self._line_size = 0
            if event is not None:
                events.append(event)
        return events

    @property
    def is_between(self) -> bool:
        """Whether all bytes so far belong to events and comments that are complete."""
        return not (self._line_size or self._data or self._event or self._head)

    def _end_line(self, line: bytes) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, raw = line.partition(b":")
        raw = raw.removeprefix(b" ")
        if name == b"data":
            self._data.append(_text(raw))
            self._held += len(line) + 1
            return None
        value = raw.decode(errors="replace")
        if name == b"event":
            self._event = value
        elif name == b"id":
            if "\0" not in value:
                self.last_event_id = value
        elif name == b"retry" and value.isascii() and value.isdigit() and len(value) < 16:
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._held = "", [], 0
        if not data:
            return None
        return ServerSentEvent(event, "\n".join(data), self.last_event_id)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise StreamError("an event is no UTF-8") from error

"""One thread keeps the flag set current: a fetch at the start, then the event stream, and polls
with an ETag while there is no stream. Nothing it meets ends it or reaches the host.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flagd_sdk.config import ClientConfig
from flagd_sdk.core.parsing import decode_json
from flagd_sdk.core.sse import Decoder, ServerSentEvent
from flagd_sdk.errors import ParseError, StatusError, StreamError, TransportError
from flagd_sdk.flag_state import FlagState
from flagd_sdk.notices import Notices
from flagd_sdk.transport import Stream, Transport
from flagd_sdk.worker import Worker

# A stream that ends sooner was no success: the delay before the next goes on growing.
_STABLE_AFTER_S = 5.0
_FRAMING_BYTES = 64 * 1024  # what an event may hold beside a flag set
# A poll comes so much earlier or later than its interval: what cut a fleet's streams in the same
# instant must not have it poll in one too.
_POLL_JITTER = 0.25
# Nor a fleet that heard the same last event before the network went away without a word.
_OVERDUE_SPREAD_S = 4.0


class FlagStream(Worker):
    """Asks the server for flags and hands them to a `FlagState`.

    `step` does what is due and returns how long to wait; the thread does nothing but call it.
    """

    thread_name = "flagd-stream"

    def __init__(
        self,
        state: FlagState,
        transport: Transport,
        config: ClientConfig,
        notices: Notices,
        instance: Callable[[], str],
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._state = state
        self._transport = transport
        self._config = config
        self._notices = notices
        self._instance = instance
        self._clock = clock
        self._random = random
        self._reset()

    def _reset(self) -> None:
        super()._reset()
        self._stream: Stream | None = None
        self._etag = ""
        self._poll_at = self._stream_at = self._clock()
        self._heard_at = self._poll_at  # when the server last answered
        self._poll_failures = self._stream_failures = 0
        self.asked_s = 0.0  # the server's `retry:`

    def stop(self) -> None:
        """Tell the thread to end. Does not wait."""
        self._stopping.set()
        stream = self._stream
        if stream is not None:
            stream.interrupt()

    def _run(self) -> None:
        stopping = self._stopping
        while not self._is_over(stopping):
            try:
                delay_s = self.step()
            except Exception as error:  # the thread's edge: it must outlive any fault of ours
                self._notices.crash("stream:internal", "The flag stream failed: %r", error)
                delay_s = self._config.backoff.long_delay_s(self._random())
                self._stream_at = self._poll_at = self._clock() + delay_s
            stopping.wait(delay_s)

    def step(self) -> float:
        """Poll or follow the stream where that is due; return the seconds until the next step."""
        if self._clock() >= self._poll_at:
            self._poll()
        if self._clock() >= self._stream_at and not self._stopping.is_set():
            self._follow()
        return max(0.0, min(self._poll_at, self._stream_at) - self._clock())

    def _poll(self) -> None:
        try:
            fetched = self._transport.fetch_flags(self._etag)
            if fetched is None:
                self._state.confirm()
            else:
                self._apply_flags(fetched.body)
                self._etag = fetched.etag
        except (TransportError, ParseError) as error:
            self._etag = ""  # ask for the whole the next time
            self._poll_failures += 1
            # What the stream has met is the same server.
            failures = max(self._poll_failures, self._stream_failures)
            self._poll_at = self._clock() + self._delay_s(error, failures)
            # Where the server does not even answer this, the stream need not be tried.
            self._stream_at = max(self._stream_at, self._poll_at)
            self._tell("server", error)
        else:
            self._poll_failures = 0
            self._heard_at = self._clock()
            self._poll_at = self._next_poll_at()
            self._notices.settle("server", "The flag server answers again")

    def _follow(self) -> None:
        """Read the stream until it ends, which it always does with an error."""
        began_at = self._clock()
        try:
            self._read_stream()
        except (TransportError, ParseError) as error:
            if self._stopping.is_set():
                return
            now = self._clock()
            was_stable = now - began_at >= _STABLE_AFTER_S
            self._stream_failures = 1 if was_stable else self._stream_failures + 1
            self._stream_at = now + self._delay_s(error, self._stream_failures)
            if self._heard_at >= began_at:  # until then there was no need to poll
                self._poll_at = self._next_poll_at()
            self._tell("stream", error)

    def _read_stream(self) -> None:
        state = self._state
        is_resumed = state.is_from_server and not state.is_diverged
        held = str(state.flag_set.sequence) if is_resumed else ""
        stopping = self._stopping
        decoder = Decoder(self._config.max_flag_set_bytes + _FRAMING_BYTES)
        stream = self._transport.open_stream(held, self._instance())
        self._stream = stream
        try:
            whole_at = self._clock()  # when last nothing was half read
            while not self._is_over(stopping):
                chunk = stream.read()
                if not chunk:
                    raise StreamError("the server ended the stream")
                events = decoder.feed(chunk)
                if decoder.retry_ms is not None:
                    self.asked_s = decoder.retry_ms / 1000
                for event in events:
                    self._apply(event)
                if events or decoder.is_between:
                    whole_at = self._heard_at = self._clock()
                    self._confirm()
                elif self._clock() - whole_at > self._config.stream_silence_s:
                    # Bytes that drip show a stream alive, but hold back what may be a kill.
                    raise StreamError("an event took too long to arrive")
        finally:
            if self._stream is stream:
                self._stream = None
            stream.close()

    def _confirm(self) -> None:
        """Note that the stream works: whatever came whole shows that what is held is current."""
        if self._state.is_from_server:
            self._state.confirm()
            self._notices.settle("server", "The flag server answers again")
            self._notices.settle("stream", "The flag stream is back")

    def _apply(self, event: ServerSentEvent) -> None:
        # Whatever else a later server may send is none of this SDK's business.
        if event.event == "flags":
            self._etag = ""  # of an older answer; a poll is to fetch the whole once
            self._apply_flags(event.data)
        elif event.event == "flag":
            with _shallow():
                is_applied = self._state.apply_flag(decode_json(event.data))
            if is_applied and self._state.is_diverged:
                raise StreamError("the server was set back, so its whole flag set is asked for")

    def _apply_flags(self, text: str | bytes) -> None:
        with _shallow():
            self._state.apply_flags(decode_json(text))

    def _next_poll_at(self) -> float:
        now = self._clock()
        if now - self._heard_at >= self._config.stream_silence_s:
            return now + _OVERDUE_SPREAD_S * self._random()
        # Not sooner because heartbeats are rare: the thousands of clients that lost a server in
        # the same instant must not poll it together as it comes back.
        jitter = 1.0 + _POLL_JITTER * (2.0 * self._random() - 1.0)
        return now + self._config.poll_interval_s * jitter

    def _delay_s(self, error: Exception, failures: int) -> float:
        backoff = self._config.backoff
        return backoff.delay_after_s(error, failures, self._random(), self.asked_s)

    def _tell(self, area: str, error: Exception) -> None:
        is_refused = isinstance(error, StatusError) and error.is_token_refused
        self._state.lose_touch(is_refused)
        what = f"{type(error).__name__}{getattr(error, 'status', '')}"
        name = "flag server" if area == "server" else "flag stream"
        if is_refused:
            self._notices.tell(
                f"{area}:{what}",
                "The %s refuses the token (%s); the last known values stay in use",
                name,
                error,
            )
        else:
            self._notices.tell(
                f"{area}:{what}",
                "The %s can't be used (%s); the last known values stay in use, and it is retried",
                name,
                error,
            )


@contextmanager
def _shallow() -> Iterator[None]:
    """Refuse what is nested more deeply than decoding, compiling or comparing it can follow."""
    try:
        yield
    except RecursionError as error:
        raise ParseError("flags: nested too deeply") from error

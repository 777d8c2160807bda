"""What the server tells of where its time goes, as traces. Off unless `flagd_server.otel` is on.

Attributes name things of the server: routes, statuses, hosts. Never a targeting key, a token, a
query string or a body.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

Kind = Literal["server", "internal", "client"]


class Span(Protocol):
    """A stretch of time that is being looked at."""

    def rename(self, name: str) -> None: ...
    def note(self, name: str, value: str | int) -> None:
        """Set an attribute."""

    def fail(self) -> None:
        """Mark it as failed; an exception that leaves the block does so by itself."""


class Tracing(Protocol):
    """Thread-safe."""

    @property
    def is_on(self) -> bool:
        """Whether anybody looks at the spans; where not, none need be begun."""
        ...

    def span(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, str | int],
        *,
        traceparent: str | None = None,
    ) -> AbstractContextManager[Span]:
        """Return a block that is timed, within the one that this thread is in.

        Args:
            traceparent: who is asking, where that came with a request (W3C Trace Context).
        """
        ...

    def headers(self) -> Mapping[str, str]:
        """Return what tells another server which trace its part belongs to."""
        ...

    def close(self) -> None:
        """Send what is waiting, for a moment at most."""


class _NoSpan:
    def rename(self, name: str) -> None:
        pass

    def note(self, name: str, value: str | int) -> None:
        pass

    def fail(self) -> None:
        pass


class NoTracing:
    """Costs a call for each span."""

    is_on = False
    _block: AbstractContextManager[Span] = nullcontext(_NoSpan())

    def span(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, str | int],
        *,
        traceparent: str | None = None,
    ) -> AbstractContextManager[Span]:
        return self._block

    def headers(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None:
        pass
